"""Selections of objects: one text each, and names that may end a file's."""

from __future__ import annotations

import pytest

from streams.core.named import CHARS_MAX, ObjectSelection, exactly, name_fault, safe_suffix
from streams.core.names import Lfn
from streams.errors import InvalidName, UsageError


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
    ],
)
def test_one_text_for_one_meaning(text: str, canonical: str) -> None:
    asked = ObjectSelection.parse(text)
    assert str(asked) == canonical
    assert ObjectSelection.parse(canonical) == asked
    assert len(asked.tag) == 12
    assert asked.tag == ObjectSelection.parse(canonical).tag != ObjectSelection.parse(canonical + "x").tag


@pytest.mark.parametrize("name", ["a", "dir/h", "a,b", "*", "a?b", "a\\", "{x}", "a b;3", "\\,", "~"])
def test_exactly_means_that_name_alone(name: str) -> None:
    asked = exactly(name)
    assert asked.one == name
    assert asked.exact == (name,)
    assert asked.matches(name)
    assert not asked.matches(name + "x")
    assert ObjectSelection.parse(str(asked)) == asked


def test_globs_cross_directories_and_are_never_one() -> None:
    asked = ObjectSelection.parse("d*h,cut?")
    assert asked.one is None
    assert asked.globs == ("cut?", "d*h")
    assert asked.matches("dir/sub/h")
    assert not asked.matches("dir/sub/h2")
    assert asked.matches("cut1")
    assert ObjectSelection.parse("a,b").one is None


@pytest.mark.parametrize("text", ["", ",", "a,", ",a", "a\\", "a\nb", "é", "x" * 513])
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
    for name in ("", "é", "a\tb", "x" * 513, "*" * 300):
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
