"""A part of a manifest's line that a process fetches: what to ask for, what came, what is handed out next. Pure.

Positions are on the manifest's line, in entries. `at` is the next to hand out. What came ahead of it waits here, so a
reader holds no more than was asked for.

A source that cannot read an item for now (a transient reason in a segment) fails nothing: the item stays missing and is
asked for again after a pause, other items meanwhile. What a request left open behind its last record is treated alike.

Requests are a set: several processes ask under one name, with numbers from the clock. A lease that ends is nobody
else's business and never published: LeaseExpired and SourceFailed name no destination, and a site that is a destination
too would take them for its own.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.core import records as m
from streams.core.manifest import Manifest
from streams.core.names import Site
from streams.core.policy import LEASES_MAX, Policy
from streams.core.ranges import EMPTY, Ranges, Span

RETRY_MS = int(Policy().source_retry_s * 1000)


@dataclass(frozen=True, slots=True, order=True)
class Came:
    """A segment that waits for its turn."""

    start: int
    stop: int
    item: int
    payload: bytes = field(compare=False)
    fingerprint: str = field(compare=False)


class Ask(NamedTuple):
    """What is to be asked for now; `sent` or `unsent` says what became of it."""

    window: FetchWindow
    source: Site
    ranges: Ranges

    def sent(self, request_no: int) -> None:
        for asked in self.window.asked:
            if asked.ranges == self.ranges and not asked.request_no:
                asked.request_no = request_no

    def unsent(self) -> None:
        """It is asked for again at once."""
        self.window.asked = [asked for asked in self.window.asked if asked.ranges != self.ranges]


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

    def words(self, lfn: str, retry_ms: int) -> str:
        """Who is waited for, for what, and why."""
        again = f"it is asked again every {retry_ms / 1000:g} s"
        if self.reason is None:
            return f"{self.source} to send the rest of {lfn}; {again}"
        return f"{self.source} to read {lfn}, which it could not ({self.reason.text}); {again}"


class FetchWindow:
    """`[start, stop)` of a manifest's line. `failed`: items that never come, which may be another's to fill, too."""

    def __init__(self, manifest: Manifest, failed: dict[int, m.Reason], span: Span | None = None) -> None:
        self.manifest, self.failed = manifest, failed
        self.at, self.stop = (0, manifest.line.total) if span is None else span
        self.asked: list[OpenRequest] = []
        self.refused: dict[int, RefusedItem] = {}
        """Items that are asked for again after a pause."""
        self._came: list[Came] = []
        self._reach = self.at
        """Everything before it was asked for once; it keeps its room until it was handed out."""

    # where it stands

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
        return (held - self.excused - Ranges([(0, self.at)])).size * self.manifest.index.unit_bytes

    @property
    def untouched(self) -> bool:
        """Whether nothing of it is asked for or here: of most manifests of a large intent."""
        return not self._came and self._reach <= self.at

    @property
    def refused_next(self) -> RefusedItem | None:
        """Why what is next has not come, where its source said so."""
        return None if self.over else self.refused.get(self.manifest.line.item_at(self.at))

    def waits_for(self, retry_ms: int = RETRY_MS) -> str:
        """What is to come before more can be handed out: whose turn it is, and why it has not come, "" if nothing."""
        if self.over:
            return ""
        if (refused := self.refused_next) is not None:
            return refused.words(self.manifest.items[self.manifest.line.item_at(self.at)].lfn, retry_ms)
        return ", ".join(f"{asked.source} to send {asked.ranges.size:,} entries" for asked in self.asked)

    # what happens

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
            self.refused[item] = RefusedItem(source or self._holder(item), why, now_ms)

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

    def ask(self, bytes_max: int, now_ms: int, lease_ms: int, retry_ms: int, *, more: bool = True) -> Ask | None:
        """What to ask for next, of at most so many bytes; what was asked too long ago is asked again.

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
        item = next(self.manifest.line.pieces(start, stop)).item
        source = self._holder(item)
        stop = self._same_holder(item, stop, source)
        ranges = Ranges([(start, min(stop, start + max(1, bytes_max // self.manifest.index.unit_bytes)))])
        self.asked.append(OpenRequest(source, ranges, now_ms + lease_ms, now_ms + LEASES_MAX * lease_ms))
        self._reach = max(self._reach, ranges.spans[0][1])
        return Ask(self, source, ranges)

    def _holder(self, item: int) -> Site:
        holder = self.manifest.items[item].holder
        assert holder is not None, "only an item with a reason has no holder, and it has no entries"
        return holder

    def _same_holder(self, item: int, stop: int, source: Site) -> int:
        line = self.manifest.line
        while item < line.count and line.starts[item] < stop:
            if line.span(item)[0] != line.span(item)[1] and self.manifest.items[item].holder != source:
                return line.starts[item]
            item += 1
        return stop

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
