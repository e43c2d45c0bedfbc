"""Who goes first: never over credit unless a lane is empty, the higher priority, the smaller share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.core.commands import RequestChunks
from streams.core.names import IntentId, ManifestId, Site
from streams.core.ranges import Ranges
from streams.core.schedule import Lane, lane, schedule
from tests.core import example as x

PARTITIONS, CREDIT = 2, 100
INTENT = IntentId(f"{x.A}.00000000-0000-4000-8000-000000000002")


def manifests(partition: int, count: int) -> list[ManifestId]:
    found: list[ManifestId] = []
    for no in range(1000):
        manifest = ManifestId.of(INTENT, 0, no)
        if lane(x.C, manifest, PARTITIONS)[1] == partition:
            found.append(manifest)
        if len(found) == count:
            break
    return found


HERE, THERE = manifests(0, 6), manifests(1, 6)


def ask(manifest: ManifestId, size: int, priority: int = 5, source: Site = x.C, no: int = 1) -> RequestChunks:
    return RequestChunks(manifest, source, no, 1, Ranges([(0, size)]), size, priority)


def granted(due: list[RequestChunks], held: dict[Lane, dict[ManifestId, int]] | None = None) -> list[RequestChunks]:
    return schedule(due, held or {}, {}, CREDIT, PARTITIONS)


def test_all_that_fits_goes() -> None:
    due = [ask(HERE[0], 50), ask(HERE[1], 50), ask(THERE[0], 100), ask(HERE[2], 100, source=x.A)]
    assert set(granted(due)) == set(due), "lanes do not share"


def test_credit_bounds_a_lane() -> None:
    assert granted([ask(HERE[0], 60), ask(HERE[1], 60)]) == [ask(HERE[0], 60)]
    assert granted([ask(HERE[0], 60)], {(x.C, 0): {HERE[1]: 41}}) == []
    assert granted([ask(HERE[0], 60)], {(x.C, 0): {HERE[1]: 40}}) == [ask(HERE[0], 60)]


def test_more_than_the_whole_credit_goes_alone() -> None:
    assert granted([ask(HERE[0], 500)]) == [ask(HERE[0], 500)]
    assert granted([ask(HERE[0], 500)], {(x.C, 0): {HERE[1]: 1}}) == []


def test_the_higher_priority_goes_first() -> None:
    due = [ask(HERE[0], 60, 1), ask(HERE[1], 60, 9), ask(HERE[2], 60, 5)]
    assert granted(due) == [due[1]]


def test_among_equals_the_smaller_share_goes_first() -> None:
    held = {(x.C, 0): {HERE[0]: 20, HERE[1]: 10}}
    assert granted([ask(HERE[0], 30), ask(HERE[1], 30), ask(HERE[2], 30)], held) == [
        ask(HERE[2], 30),
        ask(HERE[1], 30),
    ]


def test_among_equal_shares_who_waits_longest_goes_first() -> None:
    due = [ask(manifest, 60) for manifest in HERE[:3]]
    places = {(x.C, 0): {HERE[0]: 7, HERE[1]: 3}}
    assert schedule(due, {}, places, CREDIT, PARTITIONS) == [due[1]]
    assert schedule([due[2], due[0]], {}, places, CREDIT, PARTITIONS) == [due[0]], "who comes new waits behind"
    urgent = ask(HERE[2], 60, 9)
    assert schedule([*due[:2], urgent], {}, places, CREDIT, PARTITIONS) == [urgent]


def test_what_is_asked_for_is_not_changed_by_the_asking() -> None:
    held = {(x.C, 0): {HERE[0]: 20}}
    granted([ask(HERE[1], 30)], held)
    assert held == {(x.C, 0): {HERE[0]: 20}}


requests = st.lists(
    st.builds(
        ask,
        st.sampled_from(HERE + THERE),
        st.integers(1, 150),
        st.integers(0, 9),
        st.sampled_from([x.A, x.C]),
        st.integers(1, 3),
    ),
    max_size=12,
    unique_by=lambda r: r.id,
)
shares = st.dictionaries(
    st.tuples(st.sampled_from([x.A, x.C]), st.integers(0, 1)),
    st.dictionaries(st.sampled_from(HERE), st.integers(1, 80), max_size=3),
)


@given(requests, shares)
def test_no_lane_is_over_credit_unless_it_was_empty(
    due: list[RequestChunks], held: dict[Lane, dict[ManifestId, int]]
) -> None:
    sent = granted(due, held)
    assert len({r.id for r in sent}) == len(sent)
    assert set(sent) <= set(due)
    for key in {lane(r.source, r.manifest, PARTITIONS) for r in due}:
        before = sum(held.get(key, {}).values())
        asked = [r for r in due if lane(r.source, r.manifest, PARTITIONS) == key]
        mine = [r for r in sent if r in asked]
        if sum(r.bytes for r in mine) + before > CREDIT and mine:
            assert before == 0
            assert len(mine) == 1
        if not before:
            assert mine, "a lane with nothing outstanding never stands still"


@given(requests, shares)
def test_nobody_is_overtaken_by_a_lower_priority_of_its_lane(
    due: list[RequestChunks], held: dict[Lane, dict[ManifestId, int]]
) -> None:
    """Else a stream of small requests of low priority would keep a large one of high priority waiting for ever."""
    sent = granted(due, held)
    for r in sent:
        key = lane(r.source, r.manifest, PARTITIONS)
        for other in due:
            if other not in sent and lane(other.source, other.manifest, PARTITIONS) == key:
                assert other.priority <= r.priority
