"""One manifest as its consumer goes through it: what came, what was handed out, what is done, what to ask for. Pure.

Positions are on the manifest's line, in entries. `at` is the next to hand out; everything before `done` has been worked
on by whoever reads. What came ahead of `at` waits here, so a reader holds no more than was asked for.

A source that cannot read an item for now (a transient reason in a segment) fails nothing: the item stays missing and is
asked for again after a pause, other items meanwhile. What a request left open behind its last record is treated alike.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field, replace

from streams.core import records as m
from streams.core.completion import completion
from streams.core.manifest import Manifest
from streams.core.names import Destination, ManifestId, Site, Text, shown
from streams.core.policy import LEASES_MAX, Policy
from streams.core.ranges import EMPTY, Ranges, Span
from streams.core.transfer import TransferRow, merge_failed

ATTEMPT, ENDPOINT = 1, "stream"
"""A consumer has no part files. An attempt of a stream is a process that reads (name_claim.py); a pool has one only."""
RETRY_MS = int(Policy().source_retry_s * 1000)


@dataclass(frozen=True, slots=True, order=True)
class Came:
    """A segment that waits for its turn."""

    start: int
    stop: int
    item: int
    payload: bytes = field(compare=False)
    fingerprint: str = field(compare=False)


@dataclass(slots=True)
class OpenRequest:
    source: Site
    ranges: Ranges
    until_ms: int
    limit_ms: int
    """However much else comes, it is asked again then: the source has forgotten it."""
    request_no: int = 0
    """0 until it is sent."""


@dataclass(frozen=True, slots=True)
class RefusedItem:
    """An item that `source` did not send when it was asked, at `at_ms`: for a transient reason, or without a word."""

    source: Site
    reason: m.Reason | None
    at_ms: int


class ManifestReader:
    """All of a manifest's line, or the part of it that `window` (start, stop) is."""

    def __init__(self, body: m.ManifestWritten, destination: Destination, window: Span | None = None) -> None:
        self.manifest = Manifest(body)
        self.destination = destination
        self.id: ManifestId = body.manifest
        start, self.stop = (0, self.manifest.line.total) if window is None else window
        self.at = self.done = self.told = start
        self.asked: list[OpenRequest] = []
        self.failed: dict[int, m.Reason] = {}
        self.refused: dict[int, RefusedItem] = {}
        """Items that are asked for again after a pause."""
        self.closed = False
        self.attempt = ATTEMPT
        self._told_failed = 0
        self._reported: tuple[int, str] = (0, "")
        self._came: list[Came] = []
        self._reach = start
        """Everything before it was asked for once; it keeps its room until it was handed out."""

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
        """Bytes asked for, on their way or waiting, by the source's estimate of an entry."""
        if self.untouched:
            return 0
        held = Ranges((came.start, came.stop) for came in self._came) | Ranges([(0, self._reach)])
        return (held - self.excused - Ranges([(0, self.at)])).size * self.manifest.unit_bytes

    @property
    def untouched(self) -> bool:
        """Whether nothing of it is asked for or here: of most readers of a large intent."""
        return not self._came and self._reach <= self.at

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
        self.refused.pop(item, None)
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
        reason = segment.reason
        if reason is not None and reason.failure_class is m.FailureClass.TRANSIENT:
            self._put_off(header.request_no, Ranges([(start, stop)]), reason, now_ms)
        elif reason is not None:
            self.fail(segment.item, reason)
        elif stop > self.at and start < self.stop and not self._here().covers(start, stop):
            insort(self._came, Came(start, stop, segment.item, payload, segment.fingerprint))
            self.refused.pop(segment.item, None)
        self._settle()

    def served(self, request_no: int, now_ms: int) -> None:
        """The last record of a request was taken: what it left open will not come of it."""
        for asked in self.asked:
            if asked.request_no == request_no:
                self._put_off(request_no, asked.ranges, None, now_ms)
        self._settle()

    def _put_off(self, request_no: int, ranges: Ranges, reason: m.Reason | None, now_ms: int) -> None:
        """What was not sent of `ranges` is missing from now on, and no longer awaited of this request."""
        line, here = self.manifest.line, self._here() | self.excused
        missing = ranges - here
        source = None
        for asked in self.asked:
            if asked.request_no == request_no:
                source, asked.ranges = asked.source, asked.ranges - ranges
        for item in line.items_in(missing):
            before = self.refused.get(item)
            why = reason or (None if before is None else before.reason)
            holder = source or self.manifest.items[item].holder
            assert holder is not None, "only an item with a reason has no holder, and it has no entries"
            self.refused[item] = RefusedItem(holder, why, now_ms)

    def numbered(self, ranges: Ranges, request_no: int) -> None:
        """What was to be asked for last is sent, under this number."""
        for asked in self.asked:
            if asked.ranges == ranges and not asked.request_no:
                asked.request_no = request_no

    def unasked(self, ranges: Ranges) -> None:
        """It could not be sent."""
        self.asked = [asked for asked in self.asked if asked.ranges != ranges or asked.request_no]

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

    def ask(
        self, bytes_max: int, now_ms: int, lease_ms: int, retry_ms: int = RETRY_MS, *, more: bool = True
    ) -> tuple[Site, Ranges] | None:
        """(source, ranges) to ask for next, of at most so many bytes; what was asked too long ago is asked again.

        `more` False: only what was asked for before.
        """
        self.asked = [asked for asked in self.asked if asked.until_ms > now_ms]
        put_off = [item for item, refused in self.refused.items() if now_ms < refused.at_ms + retry_ms]
        here = self._here() | self.excused | self.manifest.line.ranges_of(Ranges.of(*put_off))
        for asked in self.asked:
            here = here | asked.ranges
        upto = self.stop if more else min(self.stop, self._reach)
        missing = here.missing(self.at, upto) if self.at < upto else EMPTY
        if not missing:
            return None
        start, stop = missing.spans[0]
        piece = next(self.manifest.line.pieces(start, stop))
        source = self.manifest.items[piece.item].holder
        assert source is not None, "only an item with a reason has no holder, and it has no entries"
        stop = self._same_holder(piece.item, stop, source)
        ranges = Ranges([(start, min(stop, start + max(1, bytes_max // self.manifest.unit_bytes)))])
        self.asked.append(OpenRequest(source, ranges, now_ms + lease_ms, now_ms + LEASES_MAX * lease_ms))
        self._reach = max(self._reach, ranges.spans[0][1])
        return source, ranges

    def _same_holder(self, item: int, stop: int, source: Site) -> int:
        line = self.manifest.line
        while item < line.count and line.starts[item] < stop:
            if line.span(item)[0] != line.span(item)[1] and self.manifest.items[item].holder != source:
                return line.starts[item]
            item += 1
        return stop

    # what is told

    def claim(self) -> m.TransferProgress:
        """Where it stands, as a record."""
        verified = Ranges([(0, self.done)])
        return m.TransferProgress(
            self.id, self.destination, self.attempt, ENDPOINT, verified, self.sealed(self.done), self.failed_items
        )

    def progress(self) -> m.TransferProgress | None:
        """How far whoever reads has got, if that is news since the last call."""
        if (self.done, len(self.failed)) == (self.told, self._told_failed):
            return None
        self.told, self._told_failed = self.done, len(self.failed)
        return self.claim()

    def waits_for(self, retry_ms: int = RETRY_MS) -> str:
        """What is to come before more can be handed out: whose turn it is, and why it has not come, "" if nothing."""
        if self.over:
            return ""
        item = self.manifest.line.item_at(self.at)
        if (refused := self.refused.get(item)) is not None:
            return refusal(refused, self.manifest.items[item].lfn, retry_ms)
        return ", ".join(f"{asked.source} to send {asked.ranges.size:,} entries" for asked in self.asked)

    def report(self, decision_no: int, retry_ms: int = RETRY_MS, *, anyway: bool = False) -> m.TransferReported | None:
        """How far it is, in numbers, and what it waits for, unless that was said (`anyway`: also then)."""
        refused = None if self.over else self.refused.get(self.manifest.line.item_at(self.at))
        waits_for = self.waits_for(retry_ms) if refused is not None else f"{self.destination} to read on"
        stands = (self.done, waits_for if refused is not None else "")
        if stands == self._reported and not anyway:
            return None
        self._reported = stands
        failed = self.failed_items
        reason = next((group.reason for group in failed), None if refused is None else refused.reason)
        sealed, lost = self.sealed(self.done).size, sum(group.items.size for group in failed)
        return report(
            self.manifest, self.destination, decision_no, self.done, sealed, lost, waits_for=waits_for, reason=reason
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


def refusal(refused: RefusedItem, lfn: str, retry_ms: int) -> str:
    """Who is waited for, for what, and why, in words."""
    again = f"it is asked again every {retry_ms / 1000:g} s"
    if refused.reason is None:
        return f"{refused.source} to send the rest of {lfn}; {again}"
    return f"{refused.source} to read {lfn}, which it could not ({refused.reason.text}); {again}"


def report(
    manifest: Manifest,
    destination: Destination,
    decision_no: int,
    verified: int,
    sealed: int,
    failed: int,
    *,
    waits_for: str,
    reason: m.Reason | None,
) -> m.TransferReported:
    """How a consumer stands with a manifest: `verified` in entries, `sealed` and `failed` in items."""
    body = manifest.body
    return m.TransferReported(
        intent=body.intent,
        manifest=body.manifest,
        destination=destination,
        decision_no=decision_no,
        state="active",
        verified=verified,
        total=manifest.line.total,
        sealed=sealed,
        failed=failed,
        items=len(manifest.items),
        waits_for=Text(shown(waits_for, 390)),
        reason=reason,
        unit=m.Unit.ENTRIES,
    )


def last_word(
    manifest: Manifest, destination: Destination, sealed: Ranges, failed: tuple[m.FailedItems, ...]
) -> m.CompletionRecord:
    """What a consumer says of a manifest in the end: a pure function of what was worked on, so it may be said again.

    No file is kept, so its bytes are those of the manifest's estimate.
    """
    row = TransferRow(manifest.body.manifest, planned=True, items=len(manifest.items), sealed=sealed, failed=failed)
    size = sum(manifest.items[n].bytes for n in sealed.numbers())
    return replace(completion(row, manifest.index, destination), bytes=size)
