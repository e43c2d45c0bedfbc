"""An intent's entries shared out to processes of one name, range by range: one process's part. Pure.

What is confirmed, whoever did it, is in row.py; how entries are cut into ranges is in ranges.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from streams.core import records as m
from streams.core.intent import State
from streams.core.names import Destination, ManifestId, shown
from streams.core.ranges import Ranges
from streams.core.readers.ranges import Range, ranges_of, slot_of
from streams.core.readers.reader import IntentReader, Known
from streams.core.readers.row import STOPPED, ReaderRow
from streams.core.readers.window import RETRY_MS, Ask, Came, FetchWindow, RefusedItem
from streams.core.topics import partition_of

HANDS_MAX = 2
"""Ranges at once: one that is worked on, one that is fetched meanwhile."""
PAUSED_MAX = 32
"""Items that could not be read lately, beyond which a worker pauses: a store that is away is not hammered."""


class SharedRow(ReaderRow):
    """A manifest and its ranges, by the slot that they belong to."""

    def __init__(self, body: m.ManifestWritten, destination: Destination, endpoint: str, slots: int) -> None:
        super().__init__(body, destination, endpoint)
        self.ranges = tuple(ranges_of(self.manifest))
        self.by_slot: dict[int, list[Range]] = {}
        for part in self.ranges:
            self.by_slot.setdefault(slot_of(self.id, part, slots), []).append(part)

    def hear(self, said: m.TransferProgress, *, stopped: bool = False) -> None:
        super().hear(said, stopped=stopped or said.attempt >= STOPPED)

    @property
    def done(self) -> int:
        """Ranges that are confirmed, or that nobody will work on."""
        return sum(self.verified.covers(part.start, part.stop) or part.item in self.failed for part in self.ranges)

    def is_open(self, part: Range) -> bool:
        there = self.verified.covers(part.start, part.stop) or self.own.covers(part.start, part.stop)
        return not (self.closed or there or part.item in self.given_up)

    def likely(self, slot: int) -> Iterator[Range]:
        """What the owner of a slot may be working on: its first open range, or what follows the last confirmed."""
        parts = self.by_slot.get(slot, [])
        confirmed = [n for n, part in enumerate(parts) if self.verified.covers(part.start, part.stop)]
        for start in {0, max(confirmed, default=-1) + 1}:
            yield from islice(filter(self.is_open, parts[start:]), 1)


@dataclass(eq=False)
class Hand:
    """A range that this process has taken: fetched, then worked on."""

    row: SharedRow
    part: Range
    slot: int
    window: FetchWindow
    came: list[tuple[Came, int]] = field(default_factory=list)
    """Segments in order, each with the position from which on it is meant."""
    busy: bool = False
    """A command works on it."""

    def gather(self) -> bool:
        """Whether all of it is here."""
        while True:
            at = self.window.at
            if (came := self.window.next()) is None:
                return self.window.over
            self.came.append((came, max(at, came.start)))

    @property
    def refused(self) -> m.Reason | None:
        """Why its source can never send it."""
        return self.window.failed.get(self.part.item)

    @property
    def is_open(self) -> bool:
        return self.row.is_open(self.part)


class SharedReader(IntentReader[SharedRow]):
    """One process's part in a pool. `mine` are the slots that it holds now."""

    exclusive = False
    endpoint = "pool"

    def __init__(self, known: Known, destination: Destination, slots: int) -> None:
        super().__init__(known, destination)
        self.slots = slots
        self.mine: frozenset[int] = frozenset()
        self.hands: list[Hand] = []
        self.refused: dict[tuple[ManifestId, int], RefusedItem] = {}
        """Items that their source could not read when this process asked last: no hand is held up by them."""
        self._retry_ms = RETRY_MS
        self._later: set[tuple[ManifestId, Range]] = set()
        self._ended = 0, 0
        """Ranges that are done, and all, of manifests that ended."""

    # what is heard

    def _row(self, body: m.ManifestWritten) -> SharedRow:
        return SharedRow(body, self.destination, self.endpoint, self.slots)

    def _enter(self, row: SharedRow, told: Sequence[m.TransferProgress], attempt: int) -> None:
        for said in told:
            self.hear_progress(said)

    def read_otherwise(self, endpoint: str) -> str:
        return f"{self.destination} is read by another kind of consumer ({shown(endpoint, 40)})"

    def windows(self, manifest: ManifestId) -> Iterable[FetchWindow]:
        return (hand.window for hand in self.hands if hand.row.id == manifest)

    def take(self, header: m.ChunkHeader, segment: m.Segment, payload: bytes, now_ms: int, lease_ms: int) -> None:
        super().take(header, segment, payload, now_ms, lease_ms)
        if segment.reason is None:
            self.refused.pop((header.manifest, segment.item), None)

    # what is owed

    def asks(self, now_ms: int, lease_ms: int, retry_ms: int = RETRY_MS) -> list[Ask]:
        self._retry_ms = retry_ms
        out: list[Ask] = []
        for hand in self.hands:
            while not hand.window.over and (asked := hand.window.ask(1 << 62, now_ms, lease_ms, retry_ms)) is not None:
                out.append(asked)
        return out

    def owed(self, row: SharedRow) -> m.TransferProgress | m.CompletionRecord | None:
        if row.completion is not None:
            return row.completion
        if self.state is State.CANCELLED:
            return row.progress(STOPPED)
        return row.progress() if row.unheard else None

    def _stands(self, retry_ms: int) -> Iterable[tuple[ReaderRow, str, m.Reason | None]]:
        """Of each manifest one worker speaks."""
        for row in self.open.values():
            if row.closed or partition_of(row.id, self.slots) not in self.mine:
                continue
            item = next((item for manifest, item in self.refused if manifest == row.id), None)
            if item is None:
                yield row, f"workers of {self.destination}", None
            else:
                refused = self.refused[row.id, item]
                yield row, refused.words(row.lfn(item), retry_ms), refused.reason

    def _is_at_work(self, manifest: ManifestId) -> bool:
        row = self.open.get(manifest)
        return row is not None and not row.closed

    def let_go(self, row: SharedRow) -> None:
        super().let_go(row)
        self._ended = self._ended[0] + row.done, self._ended[1] + len(row.ranges)
        self._later = {(manifest, part) for manifest, part in self._later if manifest != row.id}

    # what this process works on

    def assigned(self, mine: Collection[int]) -> None:
        """The slots held from now on. What is only fetched of a slot that is lost is dropped; what is worked on is
        worked on to its end. So of a slot that is gained, what its last owner may have in hand is left for later."""
        gained = set(mine) - self.mine
        if len(mine) < self.slots:  # who has them all is alone
            self._later |= {(row.id, part) for row in self._in_order() for slot in gained for part in row.likely(slot)}
        self.mine = frozenset(mine)
        self.hands = [hand for hand in self.hands if hand.busy or hand.slot in self.mine]

    def fill(self, now_ms: int = 0) -> list[Hand]:
        """Drop what others confirmed or no source can read now, and take ranges while a hand is free; those that were
        taken now."""
        for hand in self.hands:
            if not hand.busy and (refused := hand.window.refused.get(hand.part.item)) is not None:
                self.refused[hand.row.id, hand.part.item] = refused
                self.drop(hand)
        self.refused = {key: refused for key, refused in self.refused.items() if self._is_at_work(key[0])}
        self.hands = [hand for hand in self.hands if hand.busy or hand.is_open]
        taken: list[Hand] = []
        while len(self.hands) < HANDS_MAX and not self.stopped and (found := self._next(now_ms)) is not None:
            row, part, slot = found
            hand = Hand(row, part, slot, FetchWindow(row.manifest, {}, (part.start, part.stop)))
            self.hands.append(hand)
            taken.append(hand)
        return taken

    def drop(self, hand: Hand) -> None:
        self.hands = [one for one in self.hands if one is not hand]

    def settle(self, hand: Hand, reason: m.Reason | None = None) -> m.TransferProgress:
        """What to tell of a range that is over: confirmed, or its item failed for a reason.

        It is owed until it is heard back.
        """
        row, part = hand.row, hand.part
        if reason is None:
            row.own = row.own | Ranges([(part.start, part.stop)])
        else:
            row.fail(part.item, reason)
        self.drop(hand)
        return row.progress()

    def _next(self, now_ms: int) -> tuple[SharedRow, Range, int] | None:
        held = {(hand.row.id, hand.part) for hand in self.hands}
        paused = {key for key, refused in self.refused.items() if now_ms < refused.at_ms + self._retry_ms}
        if len(paused) >= PAUSED_MAX:
            return None
        put_off: tuple[SharedRow, Range, int] | None = None
        for row, part, slot in self._to_do():
            if (row.id, part) in held or (row.id, part.item) in paused:
                continue
            if (row.id, part) not in self._later and (row.id, part.item) not in self.refused:
                return row, part, slot
            put_off = put_off or (row, part, slot)
        return put_off

    def _to_do(self) -> Iterator[tuple[SharedRow, Range, int]]:
        for row in self._in_order():
            found = []
            for slot in self.mine & row.by_slot.keys():
                row.by_slot[slot] = [part for part in row.by_slot[slot] if row.is_open(part)]
                found += [(part, slot) for part in row.by_slot[slot]]
            yield from ((row, part, slot) for part, slot in sorted(found))

    def _in_order(self) -> list[SharedRow]:
        return [self.open[key] for key in sorted(self.open, key=lambda key: (key.source_no, key.no))]

    # how it stands

    @property
    def over(self) -> bool:
        """Whether nothing is left for anybody, and the last words are heard."""
        if self.state is State.REFUSED:
            return True
        entered = self.entered == self.known.counted
        return entered and (self.state is State.CANCELLED or self.known.row.chain.last) and not self.open

    @property
    def urgent(self) -> bool:
        """A last word does: nothing comes behind it."""
        return any(row.closed for row in self.open.values())

    @property
    def counts(self) -> tuple[int, int]:
        """Ranges that are done, and all that are known."""
        done, known = self._ended
        rows = self.open.values()
        return done + sum(row.done for row in rows), known + sum(len(row.ranges) for row in rows)

    @property
    def waits_for(self) -> str:
        """What must come before there is anything to do, "" once there is."""
        if self.known.row.decision is None or not self.entered:
            return self.waits_to_begin()
        if not self.hands:
            for (manifest, item), refused in self.refused.items():
                row = self.open.get(manifest)
                if row is not None and not row.closed and item not in row.failed:
                    return refused.words(row.lfn(item), self._retry_ms)
        return ""
