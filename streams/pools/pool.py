"""What one process of a pool has in hand, which ranges it takes next, and what it asks for and tells. Pure.

What is confirmed, whoever did it, is in manifest_ranges.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from streams.consuming.intent_reader import Known, OfIntent
from streams.consuming.manifest_reader import ATTEMPT, RETRY_MS, Came, ManifestReader, RefusedItem, refusal
from streams.core import records as m
from streams.core.intent import State
from streams.core.names import Destination, Lfn, ManifestId, Site
from streams.core.ranges import Ranges
from streams.core.topics import partition_of
from streams.pools.manifest_ranges import STOPPED, ManifestRanges
from streams.pools.ranges import Range

HANDS_MAX = 2
"""Ranges at once: one that is worked on, one that is fetched meanwhile."""
PAUSED_MAX = 32
"""Items that could not be read lately, beyond which a worker pauses: a store that is away is not hammered."""


@dataclass(eq=False)
class Hand:
    """A range that this process has taken: fetched, then worked on."""

    share: ManifestRanges
    part: Range
    lane: int
    reader: ManifestReader
    came: list[tuple[Came, int]] = field(default_factory=list)
    """Segments in order, each with the position from which on it is meant."""
    busy: bool = False
    """A command works on it."""

    def gather(self) -> bool:
        """Whether all of it is here."""
        while True:
            at = self.reader.at
            if (came := self.reader.next()) is None:
                return self.reader.over
            self.came.append((came, max(at, came.start)))

    @property
    def refused(self) -> m.Reason | None:
        """Why its source can never send it."""
        return self.reader.failed.get(self.part.item)

    @property
    def is_open(self) -> bool:
        return self.share.is_open(self.part)


class Pool(OfIntent):
    """One process's part in a pool. `mine` are the lanes that it holds now."""

    exclusive = False
    attempt = ATTEMPT

    def __init__(self, known: Known, destination: Destination, lanes: int) -> None:
        self.known, self.destination, self.lanes = known, destination, lanes
        self.shares: dict[ManifestId, ManifestRanges] = {}
        self.mine: frozenset[int] = frozenset()
        self.hands: list[Hand] = []
        self.refused: dict[tuple[ManifestId, int], RefusedItem] = {}
        """Items that their source could not read when this process asked last: no hand is held up by them."""
        self._retry_ms = RETRY_MS
        self._has_come = False
        self._later: set[tuple[ManifestId, Range]] = set()
        self._stop_told: set[ManifestId] = set()

    # what the line asks and tells

    @property
    def manifests(self) -> Collection[ManifestId]:
        return self.shares.keys()

    def new(self) -> list[m.ManifestWritten]:
        return [body for manifest, body in self.known.manifests.items() if manifest not in self.shares]

    def enter(self, body: m.ManifestWritten, told: list[m.TransferProgress]) -> ManifestRanges:
        share = ManifestRanges(body, self.destination, self.lanes)
        for said in told:
            share.hear(said)
        self.shares[body.manifest] = share
        return share

    def hear_progress(self, progress: m.TransferProgress) -> None:
        share = self.shares.get(progress.manifest)
        if share is not None:
            share.hear(progress)

    def take(self, header: m.ChunkHeader, segment: m.Segment, payload: bytes, now_ms: int, lease_ms: int) -> None:
        for hand in self.hands:
            if hand.reader.id == header.manifest:
                hand.reader.take(header, segment, payload, now_ms, lease_ms)
                if segment.item == hand.part.item and segment.reason is None:
                    self.refused.pop((hand.share.id, hand.part.item), None)

    def served(self, header: m.ChunkHeader, now_ms: int) -> None:
        for hand in self.hands:
            if hand.reader.id == header.manifest:
                hand.reader.served(header.request_no, now_ms)

    def asks(self, now_ms: int, lease_ms: int, retry_ms: int = RETRY_MS) -> list[tuple[ManifestReader, Site, Ranges]]:
        self._retry_ms = retry_ms
        out: list[tuple[ManifestReader, Site, Ranges]] = []
        for hand in self.hands:
            while not hand.reader.over and (asked := hand.reader.ask(1 << 62, now_ms, lease_ms, retry_ms)) is not None:
                out.append((hand.reader, *asked))
        return out

    def claims(self) -> list[m.TransferProgress]:
        """The name is all its workers'."""
        return []

    def place(self, manifest: ManifestId) -> m.TransferProgress:
        share = self.shares[manifest]
        return share.progress(own=share.own)

    def tells(self) -> list[m.TransferProgress | m.CompletionRecord]:
        out: list[m.TransferProgress | m.CompletionRecord] = []
        for share in self.shares.values():
            if not share.told and (self.destination, share.id) in self.known.completed:
                share.close()
            if share.completion is not None and not share.told:
                share.told = True
                out.append(share.completion)
            elif not share.closed and self.state is State.CANCELLED and share.id not in self._stop_told:
                self._stop_told.add(share.id)
                out.append(share.progress(attempt=STOPPED))
        return out

    def reports(self, retry_ms: int = RETRY_MS) -> list[m.TransferReported]:
        """How manifests at work stand, where that is news. Of each one worker speaks; its first says that it came."""
        decision_no = self.known.row.decision_no
        found = []
        for share in self.shares.values():
            if share.closed or partition_of(share.id, self.lanes) not in self.mine:
                continue
            item = next((item for manifest, item in self.refused if manifest == share.id), None)
            refused = None if item is None else self.refused[share.id, item]
            why = "" if refused is None or item is None else refusal(refused, share.lfn(item), retry_ms)
            reason = None if refused is None else refused.reason
            said = share.report(decision_no, why, reason, anyway=not self._has_come)
            self._has_come = True
            found += [] if said is None else [said]
        return found

    # what this process works on

    def assigned(self, mine: Collection[int]) -> None:
        """The lanes held from now on. What is only fetched of a lane that is lost is dropped; what is worked on is
        worked on to its end. So of a lane that is gained, what its last owner may have in hand is left for later."""
        gained = set(mine) - self.mine
        if len(mine) < self.lanes:  # who has them all is alone
            self._later |= {(share.id, part) for share in self._all() for lane in gained for part in share.likely(lane)}
        self.mine = frozenset(mine)
        self.hands = [hand for hand in self.hands if hand.busy or hand.lane in self.mine]

    def fill(self, now_ms: int = 0) -> list[Hand]:
        """Drop what others confirmed or no source can read now, and take ranges while a hand is free; those that were
        taken now."""
        for hand in self.hands:
            if not hand.busy and (refused := hand.reader.refused.get(hand.part.item)) is not None:
                self.refused[hand.share.id, hand.part.item] = refused
                self.drop(hand)
        self.refused = {key: refused for key, refused in self.refused.items() if not self.shares[key[0]].closed}
        self.hands = [hand for hand in self.hands if hand.busy or hand.is_open]
        taken: list[Hand] = []
        while len(self.hands) < HANDS_MAX and not self.stopped and (found := self._next(now_ms)) is not None:
            share, part, lane = found
            reader = ManifestReader(share.manifest.body, self.destination, (part.start, part.stop))
            hand = Hand(share, part, lane, reader)
            self.hands.append(hand)
            taken.append(hand)
        return taken

    def drop(self, hand: Hand) -> None:
        self.hands = [one for one in self.hands if one is not hand]

    def settle(self, hand: Hand, reason: m.Reason | None = None) -> m.TransferProgress:
        """What to tell of a range that is over: confirmed, or its item failed for a reason.

        What is told later says it too, until it is heard back.
        """
        share, part = hand.share, hand.part
        if reason is None:
            share.own = share.own | Ranges([(part.start, part.stop)])
        else:
            share.given_up.setdefault(part.item, reason)
        return share.progress(own=share.own)

    def _next(self, now_ms: int) -> tuple[ManifestRanges, Range, int] | None:
        held = {(hand.share.id, hand.part) for hand in self.hands}
        paused = {key for key, refused in self.refused.items() if now_ms < refused.at_ms + self._retry_ms}
        if len(paused) >= PAUSED_MAX:
            return None
        put_off: tuple[ManifestRanges, Range, int] | None = None
        for share, part, lane in self._open():
            if (share.id, part) in held or (share.id, part.item) in paused:
                continue
            if (share.id, part) not in self._later and (share.id, part.item) not in self.refused:
                return share, part, lane
            put_off = put_off or (share, part, lane)
        return put_off

    def _open(self) -> Iterator[tuple[ManifestRanges, Range, int]]:
        for share in self._all():
            found = []
            for lane in self.mine & share.by_lane.keys():
                share.by_lane[lane] = [part for part in share.by_lane[lane] if share.is_open(part)]
                found += [(part, lane) for part in share.by_lane[lane]]
            yield from ((share, part, lane) for part, lane in sorted(found))

    # how it stands

    @property
    def over(self) -> bool:
        """Whether nothing is left for anybody, and the last words are told."""
        if self.state is State.REFUSED:
            return True
        entered = len(self.shares) == len(self.known.manifests)
        everything = self.state is State.CANCELLED or self.known.row.chain.last
        return entered and everything and all(share.closed and share.told for share in self.shares.values())

    @property
    def untold(self) -> bool:
        """Whether a last word should be said at once."""
        return any(share.closed and not share.told for share in self.shares.values())

    @property
    def counts(self) -> tuple[int, int]:
        """Ranges that are done, and all that are known."""
        shares = self.shares.values()
        return sum(share.done for share in shares), sum(len(share.ranges) for share in shares)

    @property
    def waits_for(self) -> str:
        """What must come before there is anything to do, "" once there is."""
        row = self.known.row
        if row.decision is None:
            return f"{row.intent.home} to decide"
        if not self.shares and not row.chain.last:
            return f"{row.decision.source} to write its manifests"
        if not self.hands:
            for (manifest, item), refused in self.refused.items():
                share = self.shares[manifest]
                if not share.closed and item not in share.failed:
                    return refusal(refused, share.lfn(item), self._retry_ms)
        return ""

    @property
    def stranger(self) -> str:
        return next((share.stranger for share in self.shares.values() if share.stranger), "")

    @property
    def some_arrived(self) -> bool:
        return any(len(share.failed) < len(share.manifest.items) for share in self.shares.values())

    def failed(self) -> list[tuple[Lfn, m.Reason]]:
        return [
            (share.manifest.items[item].lfn, reason) for share in self._all() for item, reason in share.failed.items()
        ]

    def _all(self) -> list[ManifestRanges]:
        return [self.shares[key] for key in sorted(self.shares, key=lambda key: (key.source_no, key.no))]
