"""What a pool's workers know of their work: which ranges are confirmed or failed, which are this process's. Pure.

What is confirmed is a fold of the records in one partition, in its order, and of nothing else: a worker counts its own
word when it hears it back. The first record with which a manifest is done closes it, and later ones change nothing:
so the last word on it is the same, whoever says it. A pool that is stopped says so in the same partition, as an attempt
that fences the one before: what stands behind it counts for nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from streams.consuming.course import Known
from streams.consuming.leg import ATTEMPT, Came, Leg, last_word
from streams.core import messages as m
from streams.core.intent import State
from streams.core.manifest import Manifest
from streams.core.names import Destination, Lfn, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.topics import partition_of
from streams.core.transfer import merge_failed
from streams.working.ranges import Range, lane_of, ranges_of

ENDPOINT = "pool"
STOPPED = ATTEMPT + 1
HANDS_MAX = 2
"""Ranges at once: one that is worked on, one that is fetched meanwhile."""


class Share:
    """One manifest as its pool goes through it."""

    def __init__(self, body: m.ManifestWritten, destination: Destination, lanes: int) -> None:
        self.manifest = Manifest(body)
        self.destination = destination
        self.id: ManifestId = body.manifest
        self.confirmed = EMPTY
        self.failed: dict[int, m.Reason] = {
            item: group.reason for group in self.manifest.unobtainable for item in group.items.numbers()
        }
        self.closed = False
        """Nothing more is worked on."""
        self.completion: m.CompletionRecord | None = None
        self.told = False
        """The completion is in the log, or on its way there."""
        self.stranger = ""
        """Who else reads under this name, as it calls itself."""
        self.own = EMPTY
        """What this process has confirmed, heard back or not."""
        self.given_up: set[int] = set()
        """Items that this process has called failed, heard back or not."""
        self.ranges = tuple(ranges_of(self.manifest))
        self.by_lane: dict[int, list[Range]] = {}
        for part in self.ranges:
            self.by_lane.setdefault(lane_of(self.id, part, lanes), []).append(part)
        self._settle()

    @property
    def lost(self) -> Ranges:
        return Ranges.of(*self.failed)

    @property
    def failed_items(self) -> tuple[m.FailedItems, ...]:
        return merge_failed([m.FailedItems(Ranges.of(item), reason) for item, reason in self.failed.items()])

    @property
    def done(self) -> int:
        """Ranges that are confirmed, or that nobody will work on."""
        return sum(self.confirmed.covers(part.start, part.stop) or part.item in self.failed for part in self.ranges)

    def is_open(self, part: Range) -> bool:
        there = self.confirmed.covers(part.start, part.stop) or self.own.covers(part.start, part.stop)
        return not (self.closed or there or part.item in self.failed or part.item in self.given_up)

    def hear(self, said: m.TransferProgress) -> None:
        """The next record of the partition. Repeats of the latest ones change nothing."""
        if self.closed:
            return
        if said.endpoint != ENDPOINT:
            self.stranger = said.endpoint
            return
        for group in said.failed:
            for item in group.items.numbers():
                if not self.confirmed.covers(*self.manifest.line.span(item)) or self.manifest.items[item].reason:
                    self.failed.setdefault(item, group.reason)
        self.confirmed = self.confirmed | said.verified
        self._settle(stopped=said.attempt >= STOPPED)

    def close(self) -> None:
        """Its last word was heard."""
        self.closed = self.told = True

    def progress(
        self, own: Ranges = EMPTY, failed: tuple[m.FailedItems, ...] = (), attempt: int = ATTEMPT
    ) -> m.TransferProgress:
        """What is known to be confirmed, `own` besides, as a record."""
        verified = self.confirmed | own
        lost = merge_failed(self.failed_items, failed)
        sealed = self._sealed(verified)
        for group in lost:
            sealed = sealed - group.items
        return m.TransferProgress(self.id, self.destination, attempt, ENDPOINT, verified, sealed, lost)

    def report(self, decision_no: int) -> m.TransferReported:
        return m.TransferReported(
            intent=self.id.intent,
            manifest=self.id,
            destination=self.destination,
            decision_no=decision_no,
            state="active",
            verified=self.confirmed.size,
            total=self.manifest.line.total,
            sealed=(self._sealed(self.confirmed) - self.lost).size,
            failed=len(self.failed),
            items=len(self.manifest.items),
            waits_for=Text(f"workers of {self.destination}"),
            reason=next(iter(self.failed.values()), None),
            unit=m.Unit.ENTRIES,
        )

    def _sealed(self, confirmed: Ranges) -> Ranges:
        return self.manifest.line.covered(confirmed, Ranges([(0, len(self.manifest.items))]))

    def _settle(self, stopped: bool = False) -> None:
        excused = self.manifest.line.ranges_of(self.lost)
        if stopped or (self.confirmed | excused).covers(0, self.manifest.line.total):
            sealed = self._sealed(self.confirmed) - self.lost
            self.completion = last_word(self.manifest, self.destination, sealed, self.failed_items)
            self.closed = True


@dataclass(eq=False)
class Hand:
    """A range that this process has taken: fetched, then worked on."""

    share: Share
    part: Range
    lane: int
    leg: Leg
    came: list[tuple[Came, int]] = field(default_factory=list)
    """Segments in order, each with the position from which on it is meant."""
    busy: bool = False
    """A command works on it."""

    def gather(self) -> bool:
        """Whether all of it is here."""
        while True:
            at = self.leg.at
            if (came := self.leg.next()) is None:
                return self.leg.over
            self.came.append((came, max(at, came.start)))

    @property
    def refused(self) -> m.Reason | None:
        """Why its source cannot send it."""
        return self.leg.failed.get(self.part.item)

    @property
    def is_open(self) -> bool:
        return self.share.is_open(self.part)


class Pool:
    """One process's part in a pool. `mine` are the lanes that it holds now."""

    follows_progress = True

    def __init__(self, known: Known, destination: Destination, lanes: int) -> None:
        self.known, self.destination, self.lanes = known, destination, lanes
        self.shares: dict[ManifestId, Share] = {}
        self.mine: frozenset[int] = frozenset()
        self.hands: list[Hand] = []
        self._later: set[tuple[ManifestId, Range]] = set()
        self._stop_told: set[ManifestId] = set()

    # what the line asks and tells

    @property
    def manifests(self) -> Collection[ManifestId]:
        return self.shares.keys()

    @property
    def state(self) -> State:
        return self.known.row.state

    @property
    def why(self) -> str:
        decision = self.known.row.decision
        return str(decision.reason.text) if decision is not None and decision.reason is not None else "no reason given"

    @property
    def stopped(self) -> bool:
        return self.state in (State.REFUSED, State.CANCELLED)

    def new(self) -> list[m.ManifestWritten]:
        return [body for manifest, body in self.known.manifests.items() if manifest not in self.shares]

    def enter(self, body: m.ManifestWritten, told: list[m.TransferProgress]) -> Share:
        share = Share(body, self.destination, self.lanes)
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
            if hand.leg.id == header.manifest:
                hand.leg.take(header, segment, payload, now_ms, lease_ms)

    def asks(self, now_ms: int, lease_ms: int) -> list[tuple[Leg, Site, Ranges]]:
        out: list[tuple[Leg, Site, Ranges]] = []
        for hand in self.hands:
            while not hand.leg.over and (asked := hand.leg.ask(1 << 62, now_ms, lease_ms)) is not None:
                out.append((hand.leg, *asked))
        return out

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

    def reports(self) -> list[m.TransferReported]:
        """Of each manifest one worker speaks."""
        decision_no = self.known.row.decision_no
        shares = self.shares.values()
        ours = (s for s in shares if not s.closed and partition_of(s.id, self.lanes) in self.mine)
        return [share.report(decision_no) for share in ours if share.confirmed or share.failed]

    # what this process works on

    def assigned(self, mine: Collection[int]) -> None:
        """The lanes held from now on. Of one that was another's, the first open range may be in its hand: it is left
        for later. What is only fetched of a lane that is lost is dropped; what is worked on is worked on."""
        for lane in set(mine) - self.mine:
            for share in self.shares.values():
                first = next((part for part in share.by_lane.get(lane, ()) if share.is_open(part)), None)
                if first is not None:
                    self._later.add((share.id, first))
                    break
        self.mine = frozenset(mine)
        self.hands = [hand for hand in self.hands if hand.busy or hand.lane in self.mine]

    def fill(self) -> list[Hand]:
        """Drop what others confirmed, and take ranges while a hand is free; those that were taken now."""
        self.hands = [hand for hand in self.hands if hand.busy or hand.is_open]
        taken: list[Hand] = []
        while len(self.hands) < HANDS_MAX and not self.stopped and (found := self._next()) is not None:
            share, part, lane = found
            leg = Leg(share.manifest.body, self.destination, (part.start, part.stop))
            hand = Hand(share, part, lane, leg)
            self.hands.append(hand)
            taken.append(hand)
        return taken

    def drop(self, hand: Hand) -> None:
        self.hands = [one for one in self.hands if one is not hand]

    def settle(self, hand: Hand, reason: m.Reason | None = None) -> m.TransferProgress:
        """What to tell of a range that is over: confirmed, or its item failed for a reason."""
        share, part = hand.share, hand.part
        if reason is None:
            share.own = share.own | Ranges([(part.start, part.stop)])
            return share.progress(own=share.own)
        share.given_up.add(part.item)
        return share.progress(own=share.own, failed=(m.FailedItems(Ranges.of(part.item), reason),))

    def _next(self) -> tuple[Share, Range, int] | None:
        held = {(hand.share.id, hand.part) for hand in self.hands}
        put_off: tuple[Share, Range, int] | None = None
        for share, part, lane in self._open():
            if (share.id, part) in held:
                continue
            if (share.id, part) not in self._later:
                return share, part, lane
            put_off = put_off or (share, part, lane)
        return put_off

    def _open(self) -> Iterator[tuple[Share, Range, int]]:
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
    def stranger(self) -> str:
        return next((share.stranger for share in self.shares.values() if share.stranger), "")

    @property
    def some_arrived(self) -> bool:
        return any(len(share.failed) < len(share.manifest.items) for share in self.shares.values())

    def failed(self) -> list[tuple[Lfn, m.Reason]]:
        return [
            (share.manifest.items[item].lfn, reason) for share in self._all() for item, reason in share.failed.items()
        ]

    def _all(self) -> list[Share]:
        return [self.shares[key] for key in sorted(self.shares, key=lambda key: (key.source_no, key.no))]
