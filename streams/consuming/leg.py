"""One manifest as its consumer goes through it: what came, what was handed out, what is done, what to ask for. Pure.

Positions are on the manifest's line, in entries. `at` is the next to hand out; everything before `done` has been worked
on by whoever reads. What came ahead of `at` waits here, so a leg holds no more than was asked for.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field, replace

from streams.core import messages as m
from streams.core.closing import completion
from streams.core.manifest import Manifest
from streams.core.names import Destination, ManifestId, Site, Text
from streams.core.policy import LEASES_MAX
from streams.core.ranges import EMPTY, Ranges, Span
from streams.core.transfer import TransferRow, merge_failed

ATTEMPT, ENDPOINT = 1, "stream"
"""A consumer has no part files; what it says of its place has no other attempts."""


@dataclass(frozen=True, slots=True, order=True)
class Came:
    """A segment that waits for its turn."""

    start: int
    stop: int
    item: int
    payload: bytes = field(compare=False)
    fingerprint: str = field(compare=False)


@dataclass(slots=True)
class Asked:
    source: Site
    ranges: Ranges
    until_ms: int
    limit_ms: int
    """However much else comes, it is asked again then: the source has forgotten it."""


class Leg:
    """All of a manifest's line, or the part of it that `window` (start, stop) is."""

    def __init__(self, body: m.ManifestWritten, destination: Destination, window: Span | None = None) -> None:
        self.manifest = Manifest(body)
        self.destination = destination
        self.id: ManifestId = body.manifest
        start, self.stop = (0, self.manifest.line.total) if window is None else window
        self.at = self.done = self.told = start
        self.asked: list[Asked] = []
        self.failed: dict[int, m.Reason] = {}
        self.closed = False
        self._told_failed = self._reported = 0
        self._came: list[Came] = []

    # where it stands

    @property
    def total(self) -> int:
        return self.manifest.line.total

    @property
    def failed_items(self) -> tuple[m.FailedItems, ...]:
        said = [m.FailedItems(Ranges.of(item), reason) for item, reason in self.failed.items()]
        return merge_failed(self.manifest.unobtainable, said)

    @property
    def excused(self) -> Ranges:
        return self.manifest.line.ranges_of(Ranges.of(*self.failed))

    @property
    def over(self) -> bool:
        """Whether nothing of it is left to hand out."""
        self._skip()
        return self.at >= self.stop

    @property
    def held_bytes(self) -> int:
        """Bytes on their way or waiting, by the source's estimate of an entry."""
        units = sum((asked.ranges - self._here()).size for asked in self.asked)
        return (units + sum(came.stop - max(came.start, self.at) for came in self._came)) * self.manifest.unit_bytes

    def sealed(self, upto: int) -> Ranges:
        """Items that end at or before a position and did not fail."""
        line, lost = self.manifest.line, EMPTY
        for group in self.failed_items:
            lost = lost | group.items
        return Ranges.of(*(n for n in range(line.count) if line.span(n)[1] <= upto)) - lost

    # what happens

    def resume(self, position: int) -> None:
        """Everything before `position` was worked on by an earlier process."""
        self.at = self.done = max(self.at, min(position, self.total))

    def fail(self, item: int, reason: m.Reason) -> None:
        self.failed.setdefault(item, reason)
        self._came = [came for came in self._came if came.item != item]

    def take(self, header: m.ChunkHeader, segment: m.Segment, payload: bytes, now_ms: int, lease_ms: int) -> None:
        """A segment that came, its checksum known to be right. What is not new is dropped."""
        line = self.manifest.line
        if segment.item >= line.count or segment.item in self.failed:
            return
        first, last = line.span(segment.item)
        start, stop = first + segment.offset, first + segment.offset + segment.length
        if stop > last:
            return
        for asked in self.asked:
            asked.until_ms = min(asked.limit_ms, max(asked.until_ms, now_ms + lease_ms))
        if segment.reason is not None:
            self.fail(segment.item, segment.reason)
        elif stop > self.at and start < self.stop and not self._here().covers(start, stop):
            insort(self._came, Came(start, stop, segment.item, payload, segment.fingerprint))
        self._settle()

    def worked(self) -> None:
        """What was handed out so far has been worked on, and what failed behind it needs no work."""
        self._skip()
        self.done = self.at

    def next(self) -> Came | None:
        """The segment that `at` lies in, handed out; None while it has not come."""
        self._skip()
        while self._came and self._came[0].stop <= self.at:
            self._came.pop(0)
        found = next((came for came in self._came if came.start <= self.at < came.stop), None)
        if found is None:
            return None
        self._came.remove(found)
        self.at = found.stop
        self._settle()
        return found

    def ask(self, bytes_max: int, now_ms: int, lease_ms: int) -> tuple[Site, Ranges] | None:
        """(source, ranges) to ask for next, of at most so many bytes; what was asked too long ago is asked again."""
        self.asked = [asked for asked in self.asked if asked.until_ms > now_ms]
        here = self._here() | self.excused
        for asked in self.asked:
            here = here | asked.ranges
        missing = here.missing(self.at, self.stop) if self.at < self.stop else EMPTY
        if not missing:
            return None
        start, stop = missing.spans[0]
        piece = next(self.manifest.line.pieces(start, stop))
        source = self.manifest.items[piece.item].holder
        assert source is not None, "only an item with a reason has no holder, and it has no entries"
        stop = self._same_holder(piece.item, stop, source)
        ranges = Ranges([(start, min(stop, start + max(1, bytes_max // self.manifest.unit_bytes)))])
        self.asked.append(Asked(source, ranges, now_ms + lease_ms, now_ms + LEASES_MAX * lease_ms))
        return source, ranges

    def _same_holder(self, item: int, stop: int, source: Site) -> int:
        line = self.manifest.line
        while item < line.count and line.starts[item] < stop:
            if line.span(item)[0] != line.span(item)[1] and self.manifest.items[item].holder != source:
                return line.starts[item]
            item += 1
        return stop

    # what is told

    def progress(self) -> m.TransferProgress | None:
        """How far whoever reads has got, if that is news; told from now on."""
        if (self.done, len(self.failed)) == (self.told, self._told_failed):
            return None
        self.told, self._told_failed = self.done, len(self.failed)
        verified = Ranges([(0, self.done)])
        return m.TransferProgress(
            self.id, self.destination, ATTEMPT, ENDPOINT, verified, self.sealed(self.done), self.failed_items
        )

    def report(self, decision_no: int) -> m.TransferReported | None:
        """How far it is, in numbers, unless that was said."""
        if self.done == self._reported:
            return None
        self._reported = self.done
        failed = sum(group.items.size for group in self.failed_items)
        return m.TransferReported(
            intent=self.id.intent,
            manifest=self.id,
            destination=self.destination,
            decision_no=decision_no,
            state="active",
            verified=self.done,
            total=self.total,
            sealed=self.sealed(self.done).size,
            failed=failed,
            items=len(self.manifest.items),
            waits_for=Text(f"{self.destination} to read on"),
            reason=next((group.reason for group in self.failed_items), None),
            unit=m.Unit.ENTRIES,
        )

    def completion(self) -> m.CompletionRecord:
        return last_word(self.manifest, self.destination, self.sealed(self.done), self.failed_items)

    def _here(self) -> Ranges:
        return Ranges((came.start, came.stop) for came in self._came) | Ranges([(0, self.at)])

    def _settle(self) -> None:
        here = self._here() | self.excused
        self.asked = [asked for asked in self.asked if asked.ranges - here]

    def _skip(self) -> None:
        """Past what can never come."""
        line = self.manifest.line
        while self.at < self.stop and (item := line.item_at(self.at)) in self.failed:
            self.at = line.span(item)[1]


def last_word(
    manifest: Manifest, destination: Destination, sealed: Ranges, failed: tuple[m.FailedItems, ...]
) -> m.CompletionRecord:
    """What a consumer says of a manifest in the end: a pure function of what was worked on, so it may be said again.

    No file is kept, so its bytes are those of the manifest's estimate.
    """
    row = TransferRow(manifest.body.manifest, planned=True, items=len(manifest.items), sealed=sealed, failed=failed)
    size = sum(manifest.items[n].bytes for n in sealed.numbers())
    return replace(completion(row, manifest.index, destination), bytes=size)
