"""Selections of entries: one text for each, faults with their place, globs that cost no more than they look."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.selections.entries import EventSelection, escaped, is_glob, matches
from streams.core.selections.text_format import ENCODINGS, TextFormat
from streams.errors import InvalidName, UsageError

CASES = {
    "[:]": EventSelection(),
    "[:]?": EventSelection(lenient=True),
    "Events": EventSelection("Events"),
    "dir/Events;2": EventSelection("dir/Events;2"),
    "Events[100:2000]{Jet_*,Muon_pt}": EventSelection("Events", 100, 2000, ("Muon_pt", "Jet_*")),
    "[5:]": EventSelection(start=5),
    "[0:7]": EventSelection(stop=7),
    "Events{a\\,b,c\\*}?": EventSelection("Events", columns=("a\\,b", "c\\*"), lenient=True),
    "[:];encoding=latin-1": EventSelection(text=TextFormat("latin-1")),
    "[0:7]{a};quote=none;separator=\\;": EventSelection(stop=7, columns=("a",), text=TextFormat("utf-8", ";", "")),
    "{a}?;separator=\\u{9}": EventSelection(columns=("a",), lenient=True, text=TextFormat(separator="\t")),
    "Events;encoding=latin-1": EventSelection("Events;encoding=latin-1"),
    "t\\[3]{x[10]}": EventSelection("t[3]", columns=("x[10]",)),
}


@pytest.mark.parametrize("text", CASES)
def test_text_and_selection_are_one(text: str) -> None:
    assert EventSelection.parse(text) == CASES[text]
    assert str(CASES[text]) == text


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("[:7]{b,a,a}", "[0:7]{a,b}"),
        ("t[:]", "t"),
        ("{x**,x*}", "{x*}"),
        ("{a\\b}", "{ab}"),
        ("[0:]", "[:]"),
        ("[:];separator=\\u{3b};encoding=ISO-8859-1", "[:];encoding=latin-1;separator=\\;"),
        ('{a};encoding=UTF8;quote="', "{a}"),
        ("[:];separator=tab", "[:];separator=\\u{9}"),
    ],
)
def test_what_is_typed_becomes_canonical(typed: str, canonical: str) -> None:
    assert str(EventSelection.parse(typed)) == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no selection"),
        ("t[1:2", "position 6"),
        ("t[12]", "position 5"),
        ("t[01:2]", "position 3"),
        ("t[-1:2]", "position 3"),
        ("t[1:2]{", "position 8"),
        ("t[1:2]{a,}", "empty"),
        ("t{a}b", "position 5"),
        ("t{a\\", "position 5"),
        ("[:];x=1", "there are encoding, separator and quote"),
        ("[:];encoding", "position 13"),
        ("[:];encoding=", "empty"),
        ("[:];encoding=utf-7", "not known here"),
        ("[:];encoding=latin-1;encoding=latin-1", "twice"),
        ("[:];separator=ab", "no separator"),
        ("[:];quote=\\u{e4}", "no quote"),
        ("[:];quote=|;separator=|", "the separator and the quote"),
        ("t[0:1];encoding=latin-1", "a text file has no trees"),
        ("t[5:5]", "are none"),
        ("t[6:5]", "are none"),
        ("t[0:9223372036854775808]", "no entry number"),
        ("x" * 1100, "1,100 characters"),
        (r"t{\u{110000}}", "no character"),
        ("{" + "ab," * 9000 + "c}", "characters"),
    ],
)
def test_a_fault_says_what_and_where(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        EventSelection.parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_that_cannot_be_are_refused() -> None:
    for columns in (("",), ("a\\",), (r"\u{ffffff}",)):
        with pytest.raises(InvalidName):
            EventSelection(columns=columns)
    with pytest.raises(UsageError):
        EventSelection(start=-1)


NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)


@given(NAMES, st.integers(0, 1 << 40), st.integers(1, 1 << 40), st.lists(NAMES, max_size=4), st.booleans())
def test_every_selection_comes_back_from_its_text(
    tree: str, start: int, length: int, names: list[str], lenient: bool
) -> None:
    asked = EventSelection(tree, start, start + length, tuple(escaped(name) for name in names), lenient)
    assert EventSelection.parse(str(asked)) == asked
    for name in names:
        assert any(matches(column, name) for column in asked.columns)
        assert not is_glob(escaped(name))


@given(st.text("ab*?\\,", max_size=12))
def test_any_pattern_either_parses_to_a_stable_text_or_is_refused(pattern: str) -> None:
    try:
        asked = EventSelection(columns=(pattern,))
    except InvalidName:
        return
    assert EventSelection(columns=asked.columns) == asked
    assert EventSelection.parse(str(asked)) == asked


@pytest.mark.parametrize(
    ("column", "name", "does"),
    [
        ("*", "", True),
        ("Muon_*", "Muon_pt", True),
        ("Muon_*", "nMuon", False),
        ("*_p?", "Jet_pt", True),
        ("*_p?", "Jet_p", False),
        ("a*b*c", "a_b_bc", True),
        ("a*b*c", "a_b_b", False),
        ("x[1]", "x[1]", True),
        ("x[1]", "x1", False),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
    ],
)
def test_globs(column: str, name: str, does: bool) -> None:
    assert matches(column, name) is does


def test_a_hostile_glob_is_quick() -> None:
    began = time.monotonic()
    assert not matches("*a" * 250 + "b", "a" * 500)
    assert time.monotonic() - began < 1


@given(st.sampled_from(ENCODINGS), st.characters(min_codepoint=32, max_codepoint=126), st.sampled_from("'|`"))
def test_every_text_format_comes_back_from_its_text(encoding: str, separator: str, quote: str) -> None:
    try:
        asked = EventSelection(columns=("a",), text=TextFormat(encoding, separator, quote))
    except UsageError:
        assert separator == quote
        return
    assert EventSelection.parse(str(asked)) == asked
