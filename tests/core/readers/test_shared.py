"""Workers of a pool without Kafka: they join, die, hold slots together or not at all; every range has one output."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core.manifest import digest
from streams.core.names import Block, Dataset, Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.readers.ordered import OrderedReader
from streams.core.readers.ranges import Range, meant, output_of
from streams.core.readers.reader import Known
from streams.core.readers.row import STOPPED
from streams.core.readers.shared import HANDS_MAX, PAUSED_MAX, Hand, SharedReader, SharedRow
from streams.core.records import fault
from streams.core.selectors import Kind, Selector
from streams.errors import NeverWorks

A, POOL = Site("T1_A"), Destination("T2_B/zpeak")
INTENT = IntentId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab")
DATASET = Dataset("/P/Q/TIER-PART")
SLOTS = 4
GONE = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "list", Text("gone"))
AWAY = m.Reason(m.Scope.SOURCE, m.FailureClass.TRANSIENT, "read", Text("the store is away"))
LEASE_MS, RETRY_MS = 20_000, 10_000


def item(n: int, length: int) -> m.Item:
    lfn, reason = Lfn(f"/store/{n}.root"), None if length else GONE
    asked = f"entries:events[0:{length}]{{M}}" if length else "entries:events{M}"
    target = Lfn(f"{lfn}.x.parquet")
    return m.Item(lfn, DATASET, Block(f"{DATASET}#b"), target, asked, length, length, None, "v", A, reason)


def facts(*lots: tuple[int, ...]) -> list[m.Message]:
    """An accepted intent and its manifests, of items of so many entries."""
    asked = m.TransferIntent(INTENT, Text(""), (Selector(Kind.FILE, "/store/0.root"),), (POOL,), selection="entries:E")
    chain: list[m.ManifestWritten] = []
    number = 0
    for no, lengths in enumerate(lots):
        items = tuple(item(number + n, length) for n, length in enumerate(lengths))
        number += len(items)
        sha256 = digest(chain[-1]) if chain else ""
        chain.append(m.ManifestWritten(INTENT, A, 0, no, sha256, "", m.Unit.ENTRIES, items, no == len(lots) - 1))
    return [asked, m.IntentDecided(INTENT, 1, m.Verdict.ACCEPTED, asked, A, 0, 5), *chain]


def cancelled() -> m.IntentDecided:
    why = m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "cancel", Text("enough"))
    asked = next(fact for fact in facts((1,)) if isinstance(fact, m.TransferIntent))
    return m.IntentDecided(INTENT, 2, m.Verdict.CANCELLED, asked, A, 0, 5, why)


@dataclass
class World:
    """What outlives workers: the partition of progress, the site's files, what was booked, last words."""

    known: list[m.Message]
    log: list[m.TransferProgress] = field(default_factory=list)
    files: dict[Lfn, int] = field(default_factory=dict)
    booked: dict[Lfn, tuple[ManifestId, Range]] = field(default_factory=dict)
    said: list[m.CompletionRecord] = field(default_factory=list)
    runs: int = 0

    def tell(self, message: m.TransferProgress | m.CompletionRecord) -> None:
        assert fault(message) is None
        if isinstance(message, m.CompletionRecord):
            self.said.append(message)
        else:
            self.log.append(message)


class Worker:
    """A pool's process: what a Worker of the product does, in steps between which it may die."""

    def __init__(self, world: World, number: int, bad: frozenset[int]) -> None:
        self.world, self.number, self.bad = world, number, bad
        known = Known(INTENT)
        for fact in world.known:
            known.hear(fact, 0)
        self.pool = SharedReader(known, POOL, SLOTS)
        self.heard = len(world.log)
        for body in self.pool.new():
            self.pool.enter(body, [said for said in world.log if said.manifest == body.manifest], 1)
        self.rows = dict(self.pool.open)
        """Those that ended since too."""
        self.at: tuple[Hand, str] | None = None
        self.said: dict[tuple[type, ManifestId], m.Message] = {}

    def hear(self, most: int) -> None:
        for said in self.world.log[self.heard : self.heard + most]:
            self.pool.hear_progress(said)
        self.heard = min(len(self.world.log), self.heard + most)
        for word in self.world.said:
            self.pool.known.hear(word, 0)

    def tell(self) -> None:
        """As an outbox: nothing is said again that was said last."""
        for message in self.pool.tells():
            if self.said.get((type(message), message.manifest)) != message:
                self.say(message)

    def say(self, message: m.TransferProgress | m.CompletionRecord) -> None:
        self.said[type(message), message.manifest] = message
        self.world.tell(message)

    def step(self) -> bool:
        """The next thing that can be cut off from the one after it; whether there was one."""
        self.pool.fill()
        if self.at is None:
            if not self.pool.hands:
                return False
            self.pool.hands[0].busy = True
            self.at = self.pool.hands[0], "ran"
            self.world.runs += 1
            return True
        hand, done = self.at
        name = output_of(hand.row.id, POOL, meant(hand.row.manifest, hand.part), "out")
        if not hand.is_open:  # another was quicker
            self._let_go(hand)
        elif done == "ran" and hand.part.start % 7 in self.bad:
            why = m.Reason(m.Scope.AGENT, m.FailureClass.PERMANENT, "work", Text(f"{hand.part.start} by {self.number}"))
            self.say(self.pool.settle(hand, why))
            self._let_go(hand)
        elif done == "ran":
            self.world.files.setdefault(name, self.number)
            self.at = hand, "placed"
        elif done == "placed":
            assert self.world.booked.setdefault(name, (hand.row.id, hand.part)) == (hand.row.id, hand.part)
            self.at = hand, "booked"
        else:
            self.say(self.pool.settle(hand))
            self._let_go(hand)
        return True

    def _let_go(self, hand: Hand) -> None:
        self.pool.drop(hand)
        self.at = None


def finish(world: World, bad: frozenset[int]) -> Worker:
    """One more worker, alone, which ends what there is."""
    last = Worker(world, 999, bad)
    last.pool.assigned(range(SLOTS))
    for _ in range(10_000):
        last.hear(1 << 30)
        last.tell()
        if last.pool.over:
            return last
        last.step()
    raise AssertionError("it never ends")


def check(world: World, last: Worker) -> None:
    """One output for each confirmed range, one last word for each manifest, whoever says it."""
    assert len(world.booked) == len(set(world.booked.values()))
    assert len(last.rows) == sum(isinstance(fact, m.ManifestWritten) for fact in world.known)
    assert not last.pool.open
    for row in last.rows.values():
        assert row.completion is not None
        words = {repr(said) for said in world.said if said.manifest == row.id}
        assert words == {repr(row.completion)}
        done = {part for manifest, part in world.booked.values() if manifest == row.id}
        sealed = row.completion.sealed
        assert {part for part in row.ranges if part.item in sealed} <= done
        again = Worker(world, 1000, frozenset()).rows[row.id]
        assert again.completion == row.completion, "who comes late hears the same"


MOVES = st.one_of(
    st.tuples(st.sampled_from(["step", "step", "step", "hear", "tell", "die", "cancel"]), st.integers(0, 3)),
    st.tuples(st.just("slots"), st.integers(0, 3), st.frozensets(st.integers(0, SLOTS - 1))),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MOVES, max_size=120), st.frozensets(st.integers(0, 6), max_size=2), st.booleans())
def test_whoever_holds_what_and_dies_when_each_range_has_one_output(
    moves: list[tuple[object, ...]], bad: frozenset[int], may_cancel: bool
) -> None:
    """Slots are held twice or by nobody, as after a split; news come late; death strikes between any two steps."""
    world = World(facts((300, 0, 130), (70,)))
    workers = [Worker(world, n, bad) for n in range(4)]
    hired = 4
    for kind, who, *more in moves:
        assert isinstance(who, int)
        worker = workers[who]
        match kind:
            case "step":
                worker.step()
            case "hear":
                worker.hear(2)
            case "tell":
                worker.tell()
            case "die":
                workers[who], hired = Worker(world, hired, bad), hired + 1
            case "slots":
                worker.pool.assigned(more[0])  # type: ignore[arg-type]
            case "cancel" if may_cancel:
                worker.pool.known.hear(cancelled(), 0)
    last = finish(world, bad)
    for worker in workers:  # those that still live end as well, whatever they had in hand
        for _ in range(8):
            worker.step()
        worker.hear(1 << 30)
        worker.tell()
    check(world, last)


def test_a_worker_that_leaves_a_file_unconfirmed_is_continued() -> None:
    for cut in range(1, 4):
        world = World(facts((100,)))
        dies = Worker(world, 0, frozenset())
        dies.pool.assigned(range(SLOTS))
        for _ in range(cut):
            dies.step()
        last = finish(world, frozenset())
        check(world, last)
        assert len(world.files) == 2
        assert len(world.log) == 2


def test_four_with_their_slots_do_nothing_twice_and_one_takes_over() -> None:
    world = World(facts((4000,), (4000,)))
    workers = [Worker(world, n, frozenset()) for n in range(4)]
    for n, worker in enumerate(workers):
        worker.pool.assigned([n])
    for _ in range(20):
        for worker in workers:
            worker.hear(1 << 30)
            worker.step()
    assert world.runs == 20
    last = finish(world, frozenset())
    check(world, last)
    assert len(world.files) == 32
    assert world.runs == 32, "each had ended what it had in hand"


def test_slots_that_come_from_another_leave_it_what_it_has_in_hand() -> None:
    world = World(facts((4000,)))
    workers = [Worker(world, n, frozenset()) for n in range(3)]
    first, second, third = workers
    first.pool.assigned(range(SLOTS))
    for _ in range(10):
        first.step()
    for worker in workers:
        worker.hear(1 << 30)
    first.step()
    at_work, fetched = first.pool.hands
    first.pool.assigned(set(range(SLOTS)) - {at_work.slot, fetched.slot})
    assert first.pool.hands == [at_work], "what is only fetched is dropped with its slot"
    second.pool.assigned([at_work.slot])
    second.pool.fill()
    assert at_work.part not in {hand.part for hand in second.pool.hands}
    while len(world.log) < 3:
        second.step()
    second.step()
    third.hear(1 << 30)
    (busy,) = (hand for hand in second.pool.hands if hand.busy)
    third.pool.assigned([at_work.slot])
    third.pool.fill()
    assert third.pool.hands[0].part not in {at_work.part, busy.part}


def told(row: SharedRow, own: Ranges = EMPTY, failed: tuple[m.FailedItems, ...] = ()) -> m.TransferProgress:
    """What another process says that knows what the row's does."""
    verified = row.verified | own
    sealed = row.manifest.line.covered(verified, Ranges([(0, len(row.manifest.items))]))
    return m.TransferProgress(row.id, POOL, 1, "pool", verified, sealed, failed)


def test_the_first_failure_in_the_log_counts_and_a_sealed_item_cannot_fail() -> None:
    world = World(facts((64, 64)))
    one, two = Worker(world, 1, frozenset()), Worker(world, 2, frozenset())
    row = one.rows[ManifestId.of(INTENT, 0, 0)]
    why = [m.Reason(m.Scope.AGENT, m.FailureClass.PERMANENT, "work", Text(text)) for text in "zab"]
    first = m.FailedItems(Ranges.of(0), why[0])
    world.tell(told(row, failed=(first,)))
    world.tell(told(row, failed=(m.FailedItems(Ranges.of(0), why[1]),)))
    world.tell(told(row, Ranges([(64, 128)])))
    world.tell(told(row, failed=(m.FailedItems(Ranges.of(1), why[2]),)))
    one.hear(2)
    one.hear(2)
    two.hear(4)
    for worker in (one, two):
        worker.tell()
        found = worker.rows[row.id].completion
        assert found is not None
        assert (found.failed, found.sealed, found.ended) == ((first,), Ranges.of(1), m.Ended.PARTLY)


def test_a_stop_fences_what_comes_after_it() -> None:
    world = World(facts((128,)))
    worker = Worker(world, 0, frozenset())
    row = worker.rows[ManifestId.of(INTENT, 0, 0)]
    world.tell(told(row, Ranges([(0, 64)])))
    worker.pool.known.hear(cancelled(), 0)
    worker.tell()
    assert world.log[-1].attempt == STOPPED
    world.tell(told(row, Ranges([(0, 128)])))
    worker.hear(3)
    worker.tell()
    assert not worker.pool.over, "its last word is not heard"
    worker.hear(0)
    worker.tell()
    assert worker.pool.over
    assert [said.ended for said in world.said] == [m.Ended.CANCELLED]
    assert world.said[0].cancelled == Ranges.of(0)
    assert not worker.step()


def test_a_stream_under_the_pools_name_is_seen() -> None:
    worker = Worker(World(facts((128,))), 0, frozenset())
    manifest = ManifestId.of(INTENT, 0, 0)
    said = m.TransferProgress(manifest, POOL, 1, OrderedReader.endpoint, Ranges([(0, 64)]), Ranges())
    with pytest.raises(NeverWorks, match="read by another kind of consumer"):
        worker.pool.hear_progress(said)
    assert worker.pool.counts == (0, 2)


def test_who_has_no_slot_waits() -> None:
    worker = Worker(World(facts((128,))), 0, frozenset())
    assert not worker.step()
    assert not worker.pool.over


def answer(pool: SharedReader, hand: Hand, reason: m.Reason | None, now_ms: int) -> None:
    """What the source sends of a hand's range: all of it, or why not."""
    first = hand.row.manifest.line.starts[hand.part.item]
    length = hand.part.stop - hand.part.start
    size, crc = (0, None) if reason else (1, 1)
    segment = m.Segment(hand.part.item, hand.part.start - first, length, size, crc, reason, "f")
    (asked,) = hand.window.asked
    header = m.ChunkHeader(hand.row.id, POOL, asked.request_no, hand.part.start, hand.part.stop, (segment,), last=True)
    pool.take(header, segment, b"", now_ms, LEASE_MS)
    pool.served(header, now_ms)


def test_ranges_that_a_source_cannot_read_now_make_room_for_others_and_fail_nothing() -> None:
    worker = Worker(World(facts((64, 64, 64))), 0, frozenset())
    pool = worker.pool
    pool.assigned(range(SLOTS))

    def fetch(now_ms: int) -> list[int]:
        """Items of the hands that were filled and asked for."""
        pool.fill(now_ms)
        for number, ask in enumerate(pool.asks(now_ms, LEASE_MS, RETRY_MS)):
            ask.sent(now_ms + number + 1)
        return [hand.part.item for hand in pool.hands]

    assert fetch(0) == [0, 1]
    for hand in list(pool.hands):
        answer(pool, hand, AWAY, 5)
    assert fetch(10) == [2], "the hands are free for what can be read"
    answer(pool, pool.hands[0], AWAY, 15)
    assert fetch(20) == []
    assert pool.waits_for == (
        "T1_A to read /store/0.root, which it could not (the store is away); it is asked again every 10 s"
    )
    assert not pool.over
    assert fetch(5 + RETRY_MS) == [0, 1]
    for hand in list(pool.hands):
        answer(pool, hand, None, 6 + RETRY_MS)
        assert hand.gather()
        assert hand.refused is None
        worker.world.tell(pool.settle(hand))
    assert list(pool.refused) == [(pool.known.row.intent + ".0.0", 2)], "what came is forgotten"
    assert fetch(15 + RETRY_MS) == [2]


def test_a_source_that_can_read_nothing_is_not_asked_for_item_after_item() -> None:
    worker = Worker(World(facts((1,) * 200)), 0, frozenset())
    pool = worker.pool
    pool.assigned(range(SLOTS))
    asked = 0
    for now_ms in range(1000):
        pool.fill(now_ms)
        for ask in pool.asks(now_ms, LEASE_MS, RETRY_MS):
            asked += 1
            ask.sent(asked)
        for hand in list(pool.hands):
            answer(pool, hand, AWAY, now_ms)
    assert asked <= PAUSED_MAX + HANDS_MAX
    tried = set(pool.refused)
    pool.fill(999 + RETRY_MS)
    assert not tried & {(hand.row.id, hand.part.item) for hand in pool.hands}, "those that were not tried come first"
