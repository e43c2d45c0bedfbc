"""Accounts: what arrived and what did not, by whatever it is added up; and quantiles of many numbers in few buckets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core import topics
from streams.core.ledger.accounts import ALREADY_THERE, ALWAYS, UNKNOWN, Account, Accounts, By, Period
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.quantiles import BUCKETS_MAX, ERROR, Quantiles
from streams.core.manifest import digest
from streams.core.names import Adler32, Block, Dataset, IntentId, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges
from tests.audit.history import DATASET, WHY, A, B, C, Federation, Rec, body_of, completion_of, healthy, item
from tests.core.test_ledger_order import BREAKS, _interleaved

OTHER = Dataset("/P/R/RAW")


def account(
    world: Federation,
    by: By,
    period: Period = ALWAYS,
    *,
    facts: Iterable[tuple[LogPosition, Rec]] | None = None,
    read: Sequence[Site] | None = None,
    rows_max: int = 100,
) -> Accounts:
    accounts = Accounts(by, period, rows_max=rows_max)
    for _, _, some in world.ledger(facts, read)._facts.all(accounts.kinds):
        accounts.add(some)
    return accounts


def told(row: Account) -> tuple[object, ...]:
    return row.files, row.bytes, dict(row.failed), row.cancelled, row.took_ms.at(0.5), row.took_ms.at(0.95)


def rows(accounts: Accounts) -> dict[str, tuple[object, ...]]:
    return {name: told(row) for name, row in accounts.rows.items()}


def counts(accounts: Accounts) -> dict[str, tuple[int, int, int, int]]:
    """Of each row files, bytes, failed and cancelled ones."""
    return {name: (r.files, r.bytes, r.failed.total(), r.cancelled) for name, r in accounts.rows.items()}


@pytest.mark.parametrize(
    ("by", "names"),
    [
        (By.REQUESTER, {"someone": 2}),
        (By.DATASET, {DATASET: 2}),
        (By.SITE, {B: 1, C: 1}),
        (By.LINK, {f"{A} → {B}": 1, f"{A} → {C}": 1}),
        (By.DAY, {str(1_700_000_000_000 // 86_400_000): 2}),
    ],
)
def test_files_bytes_and_failures_by_each(by: By, names: dict[str, int]) -> None:
    """Four files of 350 bytes arrive at each of two sites, and one that nobody holds fails."""
    found = account(healthy(A, B, C), by)
    assert counts(found) == {name: (4 * times, 350 * times, times, 0) for name, times in names.items()}
    assert all(
        row.failed == {m.FailureClass.PERMANENT: times}
        for row, times in zip(found.rows.values(), names.values(), strict=True)
    )
    assert found.rest.counted == 0


@pytest.mark.parametrize("hurt", BREAKS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(order=st.lists(st.integers(0, 1000), max_size=100), again=st.lists(st.integers(0, 1000), max_size=3))
def test_any_order_and_any_repeats_count_alike(hurt: object, order: list[int], again: list[int]) -> None:
    world = healthy(A, B, C)
    hurt(world)  # type: ignore[operator]
    facts = list(_interleaved(world, order))
    for number in again:
        place, _ = facts[number % len(facts)]
        facts += [(p, r) for p, r in facts if p[:3] == place[:3] and p.offset >= place.offset]
    for by in By:
        assert rows(account(world, by, facts=facts)) == rows(account(world, by))


def test_copies_alone_count_as_their_originals_do() -> None:
    """What a peer has heard of all others; of links it cannot know who served, unless it is an auditor."""
    world = healthy(A, B, C)
    for by in (By.REQUESTER, By.DATASET, By.SITE, By.DAY):
        assert rows(account(world, by, read=[C])) == rows(account(world, by))
    world = Federation(A, B, C, auditors=[C])
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("a", 100), item("b", 50)))
    world.planes[C].say(m.ChunksServed(manifest.manifest, C, B, 1, Ranges([(0, 100)]), 100))
    world.planes[A].say(m.ChunksServed(manifest.manifest, A, B, 2, Ranges([(100, 150)]), 50))
    world.complete(manifest, B, Ranges([(0, 2)]))
    world.mirror()
    assert counts(account(world, By.LINK, read=[C])) == {f"{C} → {B}": (1, 100, 0, 0), f"{A} → {B}": (1, 50, 0, 0)}


def one_intent(*items: m.Item, to: Site = B) -> tuple[Federation, m.TransferIntent, m.ManifestWritten]:
    world = Federation(A, B, C)
    body = world.ask(1, to)
    world.decide(body)
    (manifest,) = world.write(body, items)
    return world, body, manifest


def test_an_item_counts_in_its_own_dataset() -> None:
    raw = replace(item("r", 1000), dataset=OTHER, block=Block(f"{OTHER}#b"))
    world, _, manifest = one_intent(item("a", 100), raw, item("gone", 0, reason=WHY))
    world.workers[B].say(completion_of(manifest, B, Ranges([(0, 2)]), Ranges.of(2)))
    assert counts(account(world, By.DATASET)) == {DATASET: (1, 100, 1, 0), OTHER: (1, 1000, 0, 0)}


def test_a_completion_of_a_manifest_that_nobody_wrote_is_of_no_known_dataset() -> None:
    world, _, manifest = one_intent(item("a", 100), item("b", 50))
    world.transfer(manifest, B)
    written = {rec.value for _, rec in world.records(A, topics.MANIFESTS)}
    for key, log in world.logs.items():
        world.logs[key] = [(offset, rec) for offset, rec in log if rec.value not in written]
    assert counts(account(world, By.DATASET)) == {UNKNOWN: (2, 0, 0, 0)}
    assert counts(account(world, By.LINK)) == {f"{UNKNOWN} → {B}": (2, 0, 0, 0)}
    assert counts(account(world, By.SITE)) == {B: (2, 150, 0, 0)}, "the completion itself says its bytes"


def test_a_link_is_from_whoever_gave_most_of_a_file() -> None:
    world, _, manifest = one_intent(
        item("here", 10), item("relayed", 100), item("half", 60), item("empty", 0), item("direct", 40)
    )
    name, plane = manifest.manifest, world.planes[B]
    plane.say(m.PartOpened(name, 1, "disk", Ranges.of(0)))
    world.planes[C].say(m.ChunksServed(name, C, B, 1, Ranges([(10, 160)]), 150))
    world.planes[A].say(m.ChunksServed(name, A, B, 2, Ranges([(150, 210)]), 60))
    world.complete(manifest, B, Ranges([(0, 5)]))
    assert counts(account(world, By.LINK)) == {
        f"{ALREADY_THERE} → {B}": (1, 10, 0, 0),
        f"{C} → {B}": (2, 160, 0, 0),
        f"{A} → {B}": (2, 40, 0, 0),
    }


def test_what_a_tool_brought_came_from_whom_it_asked() -> None:
    world, _, manifest = one_intent(item("a", 100))
    asked = (m.RequestedItem(0, manifest.items[0].lfn, 0, 100, "v1"),)
    request = m.ChunksRequested(manifest.manifest, B, C, 1, 1, "tool-cp", asked, Ranges([(0, 100)]), 1)
    world.workers[B].say(request)
    world.complete(manifest, B, Ranges.of(0))
    assert counts(account(world, By.LINK)) == {f"{C} → {B}": (1, 100, 0, 0)}


def test_of_entries_bytes_are_those_that_landed() -> None:
    world, body, _ = one_intent(item("a", 100))
    part = replace(item("e", 100), target=item("e.0123456789ab.parquet", 0).lfn, selection="entries:E", adler32=None)
    written = m.ManifestWritten(body.intent, A, 0, 1, "0" * 64, "c", m.Unit.ENTRIES, (replace(part, length=7),), True)
    world.planes[A].say(written)
    landed = (m.Landed(0, 33, Adler32("00000033")),)
    done = replace(completion_of(written, B, Ranges.of(0)), bytes=33, landed=landed)
    world.workers[B].say(done)
    for by in By:
        assert [one[:2] for one in counts(account(world, by)).values()] == [(1, 33)]


def test_what_was_cancelled_is_told_apart() -> None:
    world, _, manifest = one_intent(item("a", 100), item("b", 50))
    done = replace(completion_of(manifest, B, Ranges.of(0)), ended=m.Ended.CANCELLED, cancelled=Ranges.of(1), failed=())
    world.workers[B].say(done)
    for by in By:
        assert list(counts(account(world, by)).values()) == [(1, 100, 0, 1)]


def test_of_two_completions_the_first_in_its_partition_counts() -> None:
    world, _, manifest = one_intent(item("a", 100), item("b", 50))
    world.complete(manifest, B, Ranges([(0, 2)]))
    world.workers[B].say(completion_of(manifest, B, Ranges.of(0), Ranges.of(1)))
    world.mirror()
    assert counts(account(world, By.SITE)) == {B: (2, 150, 0, 0)}


def test_times_run_from_the_asking_to_the_completion_by_file() -> None:
    world = Federation(A, B)
    for number, (files, took_ms) in enumerate([(1, 1_000), (8, 60_000), (1, 3_600_000)]):
        body = world.ask(number, B)
        asked_ms = world.clock_ms
        world.decide(body)
        (manifest,) = world.write(body, tuple(item(f"{number}-{n}", 10) for n in range(files)))
        world.clock_ms = asked_ms + took_ms - 20  # the completion is the second record from here
        world.complete(manifest, B, Ranges([(0, files)]))
    took = account(world, By.REQUESTER).rows["someone"].took_ms
    assert took.at(0.5) == pytest.approx(60_000, rel=ERROR)
    assert took.at(0.1) == pytest.approx(1_000, rel=ERROR)
    assert took.at(0.95) == pytest.approx(3_600_000, rel=ERROR)


def test_of_an_intent_that_stays_open_times_run_from_the_manifest() -> None:
    world = Federation(A, B)
    body = replace(body_of(IntentId(f"{A}.{UUID(int=2)}"), B), open=True)
    world.cli.say(body)
    world.decide(body)
    world.clock_ms += 86_400_000  # a day later files are registered
    (manifest,) = world.write(body, (item("late", 10),))
    written_ms = world.clock_ms
    world.clock_ms += 5_000
    world.complete(manifest, B, Ranges.of(0))
    took = account(world, By.SITE).rows[B].took_ms.at(0.5)
    assert took == pytest.approx(world.clock_ms - written_ms, rel=0.1)


def test_without_the_asking_no_time_is_told() -> None:
    world, _, manifest = one_intent(item("a", 100))
    world.transfer(manifest, B)
    asked = {rec.value for _, rec in world.records(A, topics.INTENTS)}
    for key, log in world.logs.items():
        world.logs[key] = [(offset, rec) for offset, rec in log if rec.value not in asked]
    assert rows(account(world, By.REQUESTER)) == {UNKNOWN: (1, 100, {}, 0, None, None)}


def test_a_period_takes_its_first_moment_and_leaves_its_last() -> None:
    world = healthy(A, B)
    ends = sorted(rec.at_ms for _, rec in world.records(B, topics.COMPLETIONS))
    assert len(ends) == 2

    def files(period: Period) -> int:
        return sum(row.counted for row in account(world, By.SITE, period).rows.values())

    assert files(ALWAYS) == 5
    assert files(Period(ends[0], ends[1])) == 3, "three items of the first manifest"
    assert files(Period(ends[1])) == 2
    assert files(Period(stop_ms=ends[0])) == 0
    assert account(world, By.SITE, Period(ends[1] + 1)).first_ms == ends[0], "whatever the period"


def test_names_beyond_what_is_kept_are_added_up_in_one_row() -> None:
    world = Federation(A, B)
    for number in range(9):
        body = replace(body_of(IntentId(f"{A}.{UUID(int=number)}"), B), requester=Text(f"user-{number}"))
        world.cli.say(body)
        world.decide(body)
        (manifest,) = world.write(body, (item(f"{number}", 10),))
        world.complete(manifest, B, Ranges.of(0))
    found = account(world, By.REQUESTER, rows_max=4)
    assert len(found.rows) == 4
    assert sum(row.files for row in found.rows.values()) == 4
    assert told(found.rest)[:2] == (5, 50)


def test_a_lie_of_the_size_of_a_completion_costs_no_memory() -> None:
    """Past the manifest's end nothing is known, and nothing is listed one by one."""
    world, _, manifest = one_intent(item("a", 100))
    served = m.ChunksServed(manifest.manifest, A, B, 1, Ranges([(0, 100), (10**15, 10**15 + 5)]), 105)
    world.planes[A].say(served)
    world.complete(manifest, B, Ranges.of(0))
    assert counts(account(world, By.LINK)) == {f"{A} → {B}": (1, 100, 0, 0)}


# quantiles


@given(st.lists(st.tuples(st.integers(0, 2**63), st.integers(1, 5)), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_quantile_is_right_to_two_percent(added: list[tuple[int, int]], share: float) -> None:
    sketch = Quantiles()
    for number, weight in added:
        sketch.add(number, weight)
    every = sorted(number for number, weight in added for _ in range(weight))
    true = every[max(0, ceil(share * len(every) - 1e-9) - 1)]
    assert sketch.at(share) == pytest.approx(true, rel=ERROR * 1.001)


def test_a_sketch_has_few_buckets_whatever_is_added() -> None:
    sketch = Quantiles()
    assert sketch.at(0.5) is None
    for number in (*range(1000), *(2**power - 1 for power in range(64))):
        sketch.add(number)
    assert len(sketch._counts) <= BUCKETS_MAX < 1200


def test_manifests_are_told_apart_by_the_digest_that_a_completion_names() -> None:
    """Of two planes that wrote one number, the destination followed the second."""
    world, body, first = one_intent(item("a", 100), item("b", 50))
    rival = replace(first, items=(replace(item("z", 7), dataset=OTHER, block=Block(f"{OTHER}#b")),))
    assert digest(rival) != digest(first)
    assert ManifestId.of(body.intent, 0, 0) == rival.manifest
    world.writer(A, "rival", "plane").say(rival)
    world.workers[B].say(completion_of(rival, B, Ranges.of(0), EMPTY))
    assert counts(account(world, By.DATASET)) == {OTHER: (1, 7, 0, 0)}
