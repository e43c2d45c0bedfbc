"""The order of copies, and the digest of a cut: the same whatever is read first, twice, or from a mirror."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.ledger import tags
from streams.core.ledger.cuts import JournalId, JournalRoots, digest_of
from streams.core.ledger.findings import Invariant, LogPosition, Severity
from streams.core.ledger.numbering import Stream, StreamId
from streams.core.ledger.rows import MemoryRows
from streams.core.ledger.trees import BLOCK, leaf_of
from streams.core.names import Site, Text
from tests.audit.history import A, B, C, Federation, Rec, World, healthy, origin_of

I7 = Invariant.NO_GAP
Facts = list[tuple[LogPosition, Rec]]


def swap(world: World, site: Site, topic: str, one: int = 0, other: int = 1) -> tuple[LogPosition, LogPosition]:
    """Two records of a partition of the topic change their places; the first that has so many."""
    for key in world.partitions():
        log = world.logs[key]
        if key[:2] == (site, topic) and len(log) > max(one, other):
            (a, first), (b, second) = log[one], log[other]
            log[one], log[other] = (a, second), (b, first)
            return LogPosition(*key, a), LogPosition(*key, b)
    raise AssertionError(f"no partition of {topic} at {site} has so many records")


def long(intents: int, *sites: Site) -> Federation:
    """So many intents in one partition, each reported once."""
    world = Federation(*sites)
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, ())
    for number in range(intents):
        report = m.TransferReported(body.intent, manifest.manifest, B, 1, "open", 0, 0, 0, 0, 0, Text(f"{number}"))
        world.workers[B].say(report)
    world.close()
    world.mirror()
    return world


def test_a_copy_in_another_order_names_the_first_record_out_of_place() -> None:
    for one, other in ((0, 1), (2, 3), (0, 3)):
        world = healthy(A, B, C)
        place, _ = swap(world, A, f"{B}.{topics.REPORTS}", one, other)
        (finding,) = world.judge().broken
        assert finding.invariant is I7
        assert finding.words.startswith(
            f"{A}'s copy of {topics.REPORTS}[{place.partition}] of {B} is in another order: "
            f"number {other} of worker-0 at {B}"
        )
        assert finding.words.endswith(
            f"stands where the original has number {one} of worker-0 at {B} "
            f"(T2_B-worker-0-2) in {topics.REPORTS}[{place.partition}]"
        )
        assert finding.records == (place, world.where(B, topics.REPORTS)[one])


def test_an_original_in_another_order_is_seen_by_each_of_its_copies() -> None:
    world = healthy(A, B, C)
    swap(world, B, topics.REPORTS)
    found = world.judge().broken
    assert [f.words.split("'")[0] for f in found] == [A, C]


def test_of_a_long_journal_only_what_differs_is_looked_into() -> None:
    world = long(3 * BLOCK)
    place, _ = swap(world, A, f"{B}.{topics.REPORTS}", 2 * BLOCK + 7, 2 * BLOCK + 90)
    (finding,) = world.judge().broken
    assert finding.records[0] == place


def test_a_gap_and_a_repeat_are_no_other_order() -> None:
    world = long(3 * BLOCK)
    copies = world.where(A, f"{B}.{topics.REPORTS}")
    for copy in copies[5:9]:
        rec = world.at(copy)
        world.append(*copy[:3], rec)
    assert world.judge().findings == ()
    world.drop(copies[20])
    (finding,) = world.judge().broken
    assert finding.words.startswith("gap: number 20")


def again(world: World, *order: int) -> list[LogPosition]:
    """A's copy of B's reports, as a mirror left it that sent these records in this order."""
    (key,) = (key for key in world.partitions() if key[:2] == (A, f"{B}.{topics.REPORTS}"))
    recs = [rec for _, rec in world.logs[key]]
    world.logs[key] = [(at, recs[number]) for at, number in enumerate(order)]
    return [LogPosition(*key, at) for at in range(len(order))]


@pytest.mark.parametrize(
    ("order", "how"),
    [
        ((0, 1, 2, 4, 5, 3, 4, 5), "late"),
        ((0, 1, 2, 4, 5, 2, 3, 4, 5), "late"),
        ((0, 1, 4, 5, 1, 3, 1, 2, 3, 4, 5), "late"),
        ((0, 1, 2, 4, 3, 5), 3),
        ((0, 1, 2, 3, 5, 4), 4),
        ((0, 1, 2, 4, 5, 3), 3),
        ((5, 4, 3, 2, 1, 0), 0),
        ((1, 0, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5), 0),
    ],
)
def test_a_mirror_that_failed_goes_on_from_an_earlier_record_and_sends_all_again(
    order: tuple[int, ...], how: str | int
) -> None:
    """What its target refused comes after all: a note. One that leaves out what it brought before is no mirror."""
    world = long(6, A, B)
    places = again(world, *order)
    judgement = world.judge()
    if how == "late":
        (note,) = judgement.findings
        assert note.severity is Severity.NOTE
        assert "as of a mirror that failed and began again" in note.words
    else:
        (finding,) = judgement.broken
        assert "stands where the original has" in finding.words
        assert finding.records[0] == places[int(how)]


def test_a_gap_hides_no_other_order_behind_it() -> None:
    world = long(3 * BLOCK)
    world.drop(world.where(A, f"{B}.{topics.REPORTS}")[20])
    swap(world, A, f"{B}.{topics.REPORTS}", 300, 400)
    assert sorted(f.words.split(":")[0].split(" ")[0] for f in world.judge().broken) == [f"{A}'s", "gap"]


def test_the_last_records_of_a_copy_that_lags_are_said_not_to_be_compared() -> None:
    world = long(BLOCK + 20)
    last = world.where(A, f"{B}.{topics.REPORTS}")[-1]
    swap(world, A, f"{B}.{topics.REPORTS}", BLOCK + 3, BLOCK + 4)
    assert len(world.judge().broken) == 1
    world.drop(last)
    judgement = world.judge()
    assert all("gap" in f.words for f in judgement.broken)
    (left,) = [r for r in judgement.unchecked if "the order of the last records" in r.words]
    assert left.count == 19


def _cut(facts: Iterable[tuple[LogPosition, Rec]], read: Iterable[Site]) -> JournalRoots:
    roots, sites = JournalRoots(), set(read)
    for place, rec in facts:
        if place.site in sites:
            leaf = leaf_of(rec.key, rec.value, rec.headers)
            roots.hear(place.site, place.topic, place.partition, origin_of(rec), leaf)
    return roots


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    order=st.lists(st.integers(0, 1000), max_size=200),
    repeats=st.lists(st.integers(0, 1000), max_size=20),
    read=st.sampled_from([(A, B, C), (A,), (B,), (C, B)]),
)
def test_the_digest_is_the_same_whatever_is_read_first_twice_or_from_a_mirror(
    order: list[int], repeats: list[int], read: tuple[Site, ...]
) -> None:
    world = healthy(A, B, C)
    whole = digest_of(_cut(world.facts(), world.sites).roots())
    assert whole == digest_of(world.ledger().roots())
    copies = [key for key in world.partitions() if "." in key[1]]
    for number in repeats:  # a mirror sends again what it sent
        key = copies[number % len(copies)]
        world.append(*key, world.logs[key][number % len(world.logs[key])][1])
    queues = [[(LogPosition(*key, at), rec) for at, rec in world.logs[key]] for key in world.partitions()]
    mixed: Facts = []
    for number in order:
        queue = queues[number % len(queues)]
        mixed += [queue.pop(0)] if queue else []
    mixed += [fact for queue in queues for fact in queue]
    assert digest_of(_cut(mixed, read).roots()) == whole
    assert digest_of(world.ledger(mixed, read).roots()) == whole


CHANGES: list[Callable[[World], object]] = [
    lambda world: swap(world, B, topics.REPORTS),
    lambda world: world.drop(world.where(B, topics.COMPLETIONS)[-1]),
    lambda world: world.put(
        (place := world.where(B, topics.COMPLETIONS)[0]),
        replace(world.at(place), headers=(*world.at(place).headers, ("x", b""))),
    ),
    lambda world: world.workers[B].announce(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_is_another_after_any_change(change: Callable[[World], object]) -> None:
    world = healthy(A, B)
    before = digest_of(world.ledger().roots())
    change(world)
    assert digest_of(world.ledger().roots()) != before


def test_a_digest_at_an_earlier_cut() -> None:
    world = healthy(A, B)
    then = {one.journal: one for one in world.ledger().roots()}
    facts = list(world.facts())
    for worker in world.workers.values():
        worker.announce()
    body = world.ask(9, B)
    world.decide(body)
    world.mirror()
    roots = JournalRoots({journal: one.size for journal, one in then.items()})
    for place, rec in world.facts():
        roots.hear(place.site, place.topic, place.partition, origin_of(rec), leaf_of(rec.key, rec.value, rec.headers))
    at = [one for one in roots.roots() if one.size]
    assert {one.journal: one for one in at} == then
    assert digest_of(at) == digest_of(world.ledger(facts).roots())


def test_records_without_a_legible_origin_are_left_out() -> None:
    world = healthy(A, B)
    before = digest_of(world.ledger().roots())
    body = world.decoded(*world.records(A, topics.INTENTS)[0]).message
    world.append(A, topics.INTENTS, 0, Rec(b"k", b"\x00nonsense", (), 0))
    forged = Rec(b"k", b"v", tuple(wire.headers(body, m.Origin(B, "worker-0", "x", 0, 0))), 0)
    world.append(A, topics.INTENTS, 1, forged)
    assert digest_of(world.ledger().roots()) == before
    assert digest_of(_cut(world.facts(), world.sites).roots()) == before
    assert JournalId(A, topics.INTENTS, 0) < JournalId(A, topics.INTENTS, 1)


class _OnDisk:
    """Rows that take no memory, of which none is asked for again."""

    def put(self, key: bytes, row: bytes) -> None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        raise AssertionError(f"{prefix!r} is in memory")


def test_memory_does_not_grow_with_the_numbers_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each stands for is in rows, but for the last pages; what trees need is a hash a block."""
    count = 200_000
    monkeypatch.setattr(tags, "PAGES_MAX", 8)
    tracemalloc.start()
    stream = Stream(StreamId(A, "x", topics.REPORTS, 0), "worker-0", tags.Tags(_OnDisk()), b"s")
    before = tracemalloc.get_traced_memory()[0]
    for seq in range(count):
        stream.note(seq, hash((seq, "content")))
        stream.copies[A].add(seq)
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept <= 0.3 * count, f"{kept / count:.1f} bytes a record"


def test_a_page_that_left_memory_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "PAGES_MAX", 2)
    pages = tags.Tags(MemoryRows())
    streams = [Stream(StreamId(A, name, topics.REPORTS, 0), "w", pages, name.encode()) for name in ("x", "y", "z")]
    numbers = [0, 1, tags.PAGE - 1, tags.PAGE, 3 * tags.PAGE + 5, (1 << 60) - 1, 2 * tags.PAGE, 7]
    for again in (False, True):
        for seq in numbers:
            for which, stream in enumerate(streams):
                assert stream.note(seq, seq + which + 1) is not again
                assert stream.knows(seq, seq + which + 1)
        pages.write()
    assert not any(stream.conflicts for stream in streams)
    assert not streams[0].knows(8, 9)
