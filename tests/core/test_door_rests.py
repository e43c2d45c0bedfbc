"""What a worker remembers of doors that failed: how long others leave one alone, and when it is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.door_rests import WELL_AFTER, DoorRests, rest_ms
from streams.core.names import IntentId, ManifestId, Site
from streams.core.policy import Policy

POLICY = Policy()
HERE, OTHER = Site("T1_A"), Site("T2_B")
FIRST_MS, MOST_MS = 5_000, 600_000


def transfer(number: int) -> ManifestId:
    return ManifestId.of(IntentId("T2_B.0b0e6a2e-9d4a-4c43-8b0a-5c0d3a3d1c11"), 0, number)


@pytest.fixture
def rests() -> DoorRests:
    return DoorRests(POLICY)


@pytest.mark.parametrize(("failures", "expected_ms"), [(1, 5_000), (2, 10_000), (7, 320_000), (8, 600_000)])
def test_a_rest_doubles_up_to_ten_minutes(failures: int, expected_ms: int) -> None:
    assert rest_ms(failures, POLICY) == expected_ms
    assert rest_ms(10**6, POLICY) == MOST_MS


def test_a_door_that_never_failed_rests_not(rests: DoorRests) -> None:
    assert rests.until_ms(HERE) == 0
    rests.note(HERE, 1_000, transfer(1))
    assert rests.until_ms(OTHER) == 0


def test_each_transfer_that_finds_it_closed_behind_a_rest_doubles_the_next(rests: DoorRests) -> None:
    at_ms = 1_000
    for number, rested_ms in enumerate((5_000, 10_000, 20_000, 40_000)):
        rests.note(HERE, at_ms, transfer(number))
        assert rests.until_ms(HERE) == at_ms + rested_ms
        at_ms += rested_ms


def test_what_was_under_way_when_it_failed_counts_as_one_failure(rests: DoorRests) -> None:
    for number in range(1_000):
        rests.note(HERE, 1_000 + number, transfer(number))
    assert rests.until_ms(HERE) == 1_999 + FIRST_MS


def test_what_is_said_again_or_late_changes_nothing(rests: DoorRests) -> None:
    rests.note(HERE, 9_000, transfer(1))
    for at_ms in (9_000, 8_999, 1):
        rests.note(HERE, at_ms, transfer(2))
    assert rests.until_ms(HERE) == 9_000 + FIRST_MS


def test_one_transfer_that_fails_by_itself_keeps_others_away_for_the_first_rest_only(rests: DoorRests) -> None:
    at_ms = 1_000
    for _ in range(20):
        rests.note(HERE, at_ms, transfer(1))
        assert rests.until_ms(HERE) == at_ms + FIRST_MS
        at_ms += FIRST_MS


def test_a_door_that_was_well_for_long_begins_anew(rests: DoorRests) -> None:
    for number in range(6):
        rests.note(HERE, rests.until_ms(HERE) or 1, transfer(number))
    rested_ms = rest_ms(6, POLICY)
    well_ms = rests.until_ms(HERE) - rested_ms + WELL_AFTER * rested_ms + 1
    rests.note(HERE, well_ms, transfer(7))
    assert rests.until_ms(HERE) == well_ms + FIRST_MS


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 3)), max_size=60))
def test_a_rest_counts_from_the_last_failure_and_has_its_bounds(said: list[tuple[int, int]]) -> None:
    rests, last_ms = DoorRests(POLICY), 0
    for at_ms, number in said:
        rests.note(HERE, at_ms, transfer(number))
        last_ms = max(last_ms, at_ms)
        assert FIRST_MS <= rests.until_ms(HERE) - last_ms <= MOST_MS
