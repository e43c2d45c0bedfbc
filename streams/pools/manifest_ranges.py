"""One manifest as its pool goes through it: which ranges are confirmed, which items failed, and the last word. Pure.

What is confirmed is a fold of the records in one partition, in its order, and of nothing else: a worker counts its own
word when it hears it back. The first record with which a manifest is done closes it, and later ones change nothing:
so the last word on it is the same, whoever says it. A pool that is stopped says so in the same partition, as an attempt
that fences the one before: what stands behind it counts for nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from streams.consuming.manifest_reader import ATTEMPT, last_word, report
from streams.core import records as m
from streams.core.manifest import Manifest
from streams.core.names import Destination, Lfn, ManifestId
from streams.core.ranges import EMPTY, Ranges
from streams.core.transfer import merge_failed
from streams.pools.ranges import Range, lane_of, ranges_of

ENDPOINT = "pool"
STOPPED = ATTEMPT + 1


class ManifestRanges:
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
        self._reported = (0, 0, "")
        self.given_up: dict[int, m.Reason] = {}
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

    def lfn(self, item: int) -> Lfn:
        return self.manifest.items[item].lfn

    def is_open(self, part: Range) -> bool:
        there = self.confirmed.covers(part.start, part.stop) or self.own.covers(part.start, part.stop)
        return not (self.closed or there or part.item in self.failed or part.item in self.given_up)

    def likely(self, lane: int) -> Iterator[Range]:
        """What the owner of a lane may be working on: its first open range, or what follows the last confirmed."""
        parts = self.by_lane.get(lane, [])
        confirmed = [n for n, part in enumerate(parts) if self.confirmed.covers(part.start, part.stop)]
        for start in {0, max(confirmed, default=-1) + 1}:
            yield from islice(filter(self.is_open, parts[start:]), 1)

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
        """What is known to be confirmed, `own` besides, as a record: it says all that an earlier one said."""
        verified = self.confirmed | own
        unheard = [
            m.FailedItems(Ranges.of(item), reason)
            for item, reason in self.given_up.items()
            if item not in self.failed and not self.confirmed.covers(*self.manifest.line.span(item))
        ]
        lost = merge_failed(self.failed_items, unheard, failed)
        sealed = self._sealed(verified)
        for group in lost:
            sealed = sealed - group.items
        return m.TransferProgress(self.id, self.destination, attempt, ENDPOINT, verified, sealed, lost)

    def report(
        self, decision_no: int, waits_for: str = "", reason: m.Reason | None = None, *, anyway: bool = False
    ) -> m.TransferReported | None:
        """How far it is, in numbers, and what it waits for (its workers, if nothing is named), unless that was said.

        `anyway`: also then.
        """
        stands = (self.confirmed.size, len(self.failed), waits_for)
        if stands == self._reported and not anyway:
            return None
        self._reported = stands
        sealed, lost = (self._sealed(self.confirmed) - self.lost).size, len(self.failed)
        return report(
            self.manifest,
            self.destination,
            decision_no,
            self.confirmed.size,
            sealed,
            lost,
            waits_for=waits_for or f"workers of {self.destination}",
            reason=next(iter(self.failed.values()), reason),
        )

    def _sealed(self, confirmed: Ranges) -> Ranges:
        return self.manifest.line.covered(confirmed, Ranges([(0, len(self.manifest.items))]))

    def _settle(self, stopped: bool = False) -> None:
        excused = self.manifest.line.ranges_of(self.lost)
        if stopped or (self.confirmed | excused).covers(0, self.manifest.line.total):
            sealed = self._sealed(self.confirmed) - self.lost
            self.completion = last_word(self.manifest, self.destination, sealed, self.failed_items)
            self.closed = True
