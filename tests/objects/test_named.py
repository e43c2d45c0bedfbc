"""Selections of objects: one text each, and names that may end a file's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.names import Lfn
from streams.core.selections import parts
from streams.core.selections.entries import EventSelection, escaped, readable, unescaped
from streams.core.selections.objects import CHARS_MAX, ObjectSelection, exactly, name_fault, safe_suffix
from streams.errors import InvalidName, UsageError
from streams.wire import avro


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("b,a,b", "a,b"),
        ("dir/hpt*,cutflow", "cutflow,dir/hpt*"),
        ("a**b", "a*b"),
        (r"\a\,b", r"a\,b"),
        (r"a\*", r"a\*"),
        ("a}b", r"a\}b"),
        ("h;1", "h;1"),
        ("two words,?", "?,two words"),
        ("Übersicht/é*", r"\u{dc}bersicht/\u{e9}*"),
        (r"\u{DC}x", r"u{DC\}x"),
        (r"\u{61}\u{2a}\u{e9}", r"a\*\u{e9}"),
        (r"\é", r"\u{e9}"),
        ("http://x", r"http\u{3a}//x"),
        ("//x", r"\u{2f}/x"),
        ("a\tb\x1b", r"a\u{9}b\u{1b}"),
    ],
)
def test_one_text_for_one_meaning(text: str, canonical: str) -> None:
    asked = ObjectSelection.parse(text)
    assert str(asked) == canonical
    assert ObjectSelection.parse(canonical) == asked


NAMES = [
    "a",
    "dir/h",
    "a,b",
    "*",
    "a?b",
    "a\\",
    "{x}",
    "a b;3",
    "\\,",
    "~",
    "naïve",
    "é\u0301",
    "数据",
    "a\tb",
    "\udce4",
    "\\u{e4}",
]
NAMES += ["s3://b/k", "//x", "///", "\U0010ffff", "\0", "\u202egnp", "u{e4}"]


@pytest.mark.parametrize("name", NAMES)
def test_exactly_means_that_name_alone(name: str) -> None:
    asked = exactly(name)
    assert asked.one == name
    assert asked.exact == (name,)
    assert asked.matches(name)
    assert not asked.matches(name + "x")
    assert ObjectSelection.parse(str(asked)) == asked
    text = parts.of_object(name)
    assert avro.plain_text(text) == text
    assert parts.canonical(text) == text
    assert parts.objects_of(text) == asked


@given(st.text(st.characters(), min_size=1, max_size=40), st.text(st.characters(), max_size=10))
def test_any_name_travels_and_comes_back(name: str, other: str) -> None:
    """What a gate takes, an equal text for an equal name, and another for another."""
    text = parts.of_object(name)
    assert avro.plain_text(text) == text
    assert ObjectSelection.parse(text.removeprefix(parts.OBJECTS)).one == name
    assert (parts.of_object(other) == text) == (other == name)
    tree = EventSelection(tree=name, columns=(escaped(other),) if other else ())
    assert EventSelection.parse(str(tree)) == tree
    assert avro.plain_text(f"{parts.ENTRIES}{tree}")
    assert unescaped(escaped(name)) == name


def test_names_are_shown_as_they_are() -> None:
    assert readable(parts.of_object("dir/Übersicht 数据,1")) == r"objects:dir/Übersicht 数据\,1"
    assert readable(parts.of_object("a\x1b[31m\u202e\udce4")) == r"objects:a\u{1b}[31m\u{202e}\u{dce4}"
    assert readable(r"\\u{e4} \u{110000} \u{e4") == r"\\u{e4} \u{110000} \u{e4"
    with pytest.raises(InvalidName, match="no character"):
        ObjectSelection.parse(r"\u{110000}")


def test_what_cannot_be_spelled_has_a_part_of_its_own_all_the_same() -> None:
    names = ["", "x" * 1025, "x" * 1026, "é" * 200, "é" * 199 + "e" * 10]
    texts = {parts.of_object(name) for name in names}
    assert len(texts) == len(names)
    for text in texts:
        assert avro.plain_text(text) == text
        asked = parts.objects_of(text)
        assert asked is None or asked.one is None


def test_globs_cross_directories_and_are_never_one() -> None:
    asked = ObjectSelection.parse("d*h,cut?")
    assert asked.one is None
    assert asked.globs == ("cut?", "d*h")
    assert asked.matches("dir/sub/h")
    assert not asked.matches("dir/sub/h2")
    assert asked.matches("cut1")
    assert ObjectSelection.parse("a,b").one is None


@pytest.mark.parametrize("text", ["", ",", "a,", ",a", "a\\", "é" * 200, "x" * 1025])
def test_no_selection(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        ObjectSelection.parse(text)
    assert "\n" not in str(caught.value)


def test_the_text_is_bounded() -> None:
    names = [f"{i:03}" + "x" * 400 for i in range(11)]
    with pytest.raises(UsageError, match="4,096 at most"):
        ObjectSelection(tuple(names))
    assert len(str(ObjectSelection(tuple(names[:10])))) <= CHARS_MAX


def test_names_that_no_selection_can_mean() -> None:
    for name in ("", "é" * 200, "x" * 1025, "*" * 600):
        assert name_fault(name)
        with pytest.raises(InvalidName):
            exactly(name)
    assert name_fault("*" * 256) is None
    assert exactly("*" * 256).one == "*" * 256


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("events.csv", "events.csv"),
        ("d/e/my events (2).csv", "my_events_2_.csv"),
        (".hidden", "hidden"),
        ("___", "object"),
        ("x/" + "n" * 100 + ".csv", "n" * 36 + ".csv"),
        ("a" + "-" * 40, "object"),
    ],
)
def test_what_may_end_a_name(name: str, suffix: str) -> None:
    assert safe_suffix(name) == suffix
    Lfn(f"/store/x.0123456789ab.{suffix}")
