"""Whose a name is, from what stands in the log."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core.names import Destination, IntentId, ManifestId
from streams.core.ranges import EMPTY, Ranges
from streams.core.readers.claims import NameClaim, standing, writer_name
from streams.core.records.field_checks import word

ZPEAK = Destination("T2_B/zpeak")
ID = ManifestId.of(IntentId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab"), 0, 0)


def place(upto: int, attempt: int) -> m.TransferProgress:
    return m.TransferProgress(ID, ZPEAK, attempt, "stream", Ranges([(0, upto)]), EMPTY)


def test_the_higher_attempt_has_the_name_and_of_equal_ones_the_later_start() -> None:
    early, late = writer_name("z", 1, 1_000), writer_name("a", 2, 0x1_0000_0000)
    claims = [NameClaim.by(1, early), NameClaim.by(1, late), NameClaim.by(2, early), NameClaim.by(2, late)]
    for some in permutations(claims):
        assert sorted(some) == claims


def test_writers_of_earlier_releases_are_one() -> None:
    assert NameClaim.by(1, "host-77") == NameClaim.by(1, "other-88")
    assert NameClaim.by(1, "host-77") < NameClaim.by(1, writer_name("host", 77, 1))


def test_a_writers_name_may_travel_and_no_two_are_the_same() -> None:
    long = writer_name("h" * 300 + "/ ", 1 << 22, 1 << 62)
    assert word("writer", long) is None
    assert long.isascii()
    assert writer_name("h", 1, 5) != writer_name("h", 1, 6)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 50)), max_size=20))
def test_only_what_the_holder_says_counts(said: list[tuple[int, int, int]]) -> None:
    records = [(NameClaim.by(attempt, writer_name("h", who, who)), place(upto, attempt)) for attempt, who, upto in said]
    holder = max(((attempt, who) for attempt, who, _ in said), default=None)
    counting = [upto for attempt, who, upto in said if (attempt, who) == holder]
    assert [found.verified.size for found in standing(records)] == counting
