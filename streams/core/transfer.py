"""One transfer at its destination: row, states, the total transition table, `fold`. What is owed is in owed.py.

    NEW ──planned──▶ PLANNED ──part opened──▶ ACTIVE ──every item sealed, failed or cancelled──▶ COMPLETE
                        ▲──────part lost─────────┘
    COMPLETE ──every item sealed, none ever failed: published──▶ CLOSED
    COMPLETE ──else: last word fixed──▶ CLOSING ──published──▶ CLOSED

Facts arrive repeated, and in any order between topics. So a row holds sets and highest numbers only, and its state is
read off them. These pairs need their partition's order: ChunksRequested among themselves (numbered; a lower number
after a higher one is old), two TransferPlanned of one manifest, and two TransferClosed (of both the first counts).

A transfer has one last word (I4). Where every item is sealed and none ever failed, no fact can change it: sealed is
for ever. Else one can: an item that failed may still be sealed by what its plane said before, heard from another topic.
So the destination first publishes the last word to its own `transfers`, and what stands there first counts, for every
worker and after every crash. A row whose last word is fixed forgets everything else, so that late facts change nothing
and a lost completion can be said again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from streams.core import records as m
from streams.core.channel import DOOR, LOG, tool_of
from streams.core.manifest import ManifestIndex
from streams.core.names import ManifestId, Site
from streams.core.ranges import EMPTY, Ranges

STOPPED = "stop"
"""Phase of a PartLost that answers a StopPart: the plane will seal nothing more."""


WRONG = "seal"
"""Phase of a SourceFailed whose items came whole and were not the file."""


class State(StrEnum):
    NEW = "new"
    PLANNED = "planned"
    ACTIVE = "active"
    COMPLETE = "complete"
    CLOSING = "closing"
    """Its last word is fixed, and not known to be in the log."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A request nobody has fully answered yet, for the part files of `attempt`. Of items `unread` nothing will come."""

    request_no: int
    attempt: int
    ranges: Ranges
    until_ms: int
    unread: Ranges = EMPTY
    plane: str = LOG

    def to_come(self, manifest: ManifestIndex) -> Ranges:
        return self.ranges - manifest.line.ranges_of(self.unread) if self.unread else self.ranges


@dataclass(frozen=True, slots=True)
class Unread:
    """Items that a source could not read, and when that was said last of them."""

    at_ms: int
    items: Ranges


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request of which a source said that nothing more comes (no items), or not these items."""

    request_no: int
    at_ms: int
    items: Ranges = EMPTY


@dataclass(frozen=True, slots=True)
class WrongItems:
    """Items that came whole, `request_no` being the last that brought of them, and were not the file."""

    request_no: int
    items: Ranges


@dataclass(frozen=True, slots=True)
class SourceRow:
    """What was asked of one source; numbers count per source from 1."""

    source: Site
    requested: int = 0
    expired: int = 0
    outstanding: tuple[Outstanding, ...] = ()
    failed: FailedRequest | None = None
    """The highest number of which nothing more came."""
    unread: tuple[Unread, ...] = ()
    """By time; an item stands in one of them."""
    early: tuple[FailedRequest, ...] = ()
    """Of numbers that are not heard yet."""
    reason: m.Reason | None = None
    """Why it could not read, as it said last, at `reason_ms`."""
    reason_ms: int = 0
    by_door: Ranges = EMPTY
    """Numbers that were asked by door."""
    door_failed: Ranges = EMPTY
    """Numbers of which its door brought nothing more, as was said last at `door_failed_ms`."""
    door_failed_ms: int = 0
    bad: tuple[m.FailedItems, ...] = ()
    """Items that it will never give, as it said, or that were not the file when they had come from it alone."""
    wrong: tuple[WrongItems, ...] = ()
    """What came by its door, or of several, unchecked on its way or of nobody knows whom; by request."""
    lapsed: Ranges = EMPTY
    """Numbers whose lease ended, the last at `lapsed_ms`; by whatever carrier, since that may be heard later."""
    lapsed_ms: int = 0
    by_tool: Ranges = EMPTY
    """Numbers that this site has a tool bring."""
    tool_failed: Ranges = EMPTY
    """Numbers of which a tool brings nothing more, as was said last at `tool_failed_ms`."""
    tool_failed_ms: int = 0
    tools: tuple[str, ...] = ()
    """As requests named them, in alphabetical order."""

    @property
    def bad_items(self) -> Ranges:
        return all_items(self.bad)

    @property
    def doubted(self) -> Ranges:
        """Items that came wrong from it, once at least: it may have them, and they may have changed on their way."""
        out = EMPTY
        for wrong in self.wrong:
            out = out | wrong.items
        return out

    @property
    def wrong_twice(self) -> Ranges:
        """Items of several such requests: by log, each piece is checked."""
        once, out = EMPTY, EMPTY
        for wrong in self.wrong:
            out, once = out | (once & wrong.items), once | wrong.items
        return out

    @property
    def door_failures(self) -> int:
        return (self.door_failed | (self.lapsed & self.by_door)).size

    @property
    def door_failed_at_ms(self) -> int:
        """When its door failed last; a lapse of another carrier meanwhile makes it later."""
        return max(self.door_failed_ms, self.lapsed_ms if self.lapsed & self.by_door else 0)

    @property
    def tool_failures(self) -> int:
        return (self.tool_failed | (self.lapsed & self.by_tool)).size

    @property
    def tool_failed_at_ms(self) -> int:
        """As of its door."""
        return max(self.tool_failed_ms, self.lapsed_ms if self.lapsed & self.by_tool else 0)


@dataclass(frozen=True, slots=True)
class TransferRow:
    """The fold of a manifest's facts at this site. Ranges `verified` in units; `sealed`, `failed` in item numbers."""

    manifest: ManifestId
    state: State = State.NEW
    planned: bool = False
    items: int = 0
    total: int = 0
    decision_no: int = 0
    verdict: m.Verdict = m.Verdict.ACCEPTED
    priority: int = 5
    plane: str | None = None
    """The carrier that the intent insists on."""
    routes: tuple[m.Route, ...] = ()
    repair: bool = False
    """Whether another file under a target is replaced."""
    reason: m.Reason | None = None
    attempt: int = 0
    lost: int = 0
    stopped: bool = False
    endpoint: str = ""
    verified: Ranges = EMPTY
    sealed: Ranges = EMPTY
    failed: tuple[m.FailedItems, ...] = ()
    landed: tuple[m.Landed, ...] = ()
    sources: tuple[SourceRow, ...] = ()
    completion: m.CompletionRecord | None = None
    """The last word once it is fixed: of a closing or closed row only."""

    @property
    def final(self) -> bool:
        """Whether the last word is a constant: every item is sealed, none ever failed, nothing was stopped."""
        return not self.failed and not self.stopped and self.sealed.covers(0, self.items)

    @property
    def live_attempt(self) -> int:
        """The attempt to open: the one at work, or the next after a loss."""
        return max(self.attempt, self.lost + 1)

    @property
    def failed_items(self) -> Ranges:
        return all_items(self.failed)

    @property
    def planes(self) -> tuple[str, ...]:
        """The carriers by which its bytes were asked for so far, in alphabetical order."""
        by_log = any(source.requested > source.by_door.size + source.by_tool.size for source in self.sources)
        tools = sorted({tool for source in self.sources for tool in source.tools})
        return (DOOR,) * any(source.by_door for source in self.sources) + (LOG,) * by_log + tuple(tools)

    def excused(self, manifest: ManifestIndex) -> Ranges:
        """Intervals that need no bytes any more: of items sealed or failed."""
        return manifest.line.ranges_of(self.sealed | self.failed_items)

    def outstanding(self, manifest: ManifestIndex) -> Ranges:
        """What is on its way."""
        out = EMPTY
        for source in self.sources:
            for request in source.outstanding:
                out = out | request.to_come(manifest)
        return out

    def source_row(self, source: Site) -> SourceRow:
        return next((s for s in self.sources if s.source == source), SourceRow(source))


TransferMessage = (
    m.TransferPlanned
    | m.TransferDecided
    | m.PartOpened
    | m.PartLost
    | m.LeaseExpired
    | m.SourceFailed
    | m.TransferClosed
    | m.ChunksRequested
    | m.TransferProgress
)


def all_items(groups: Iterable[m.FailedItems]) -> Ranges:
    out = EMPTY
    for group in groups:
        out = out | group.items
    return out


def merge_failed(*groups: Iterable[m.FailedItems]) -> tuple[m.FailedItems, ...]:
    """Union by reason, sorted; an item with several reasons keeps the first of that order, whoever came first."""
    by_reason: dict[m.Reason, Ranges] = {}
    for group in groups:
        for failed in group:
            by_reason[failed.reason] = by_reason.get(failed.reason, EMPTY) | failed.items
    out: list[m.FailedItems] = []
    seen = EMPTY
    for reason in sorted(by_reason, key=_in_order):
        items = by_reason[reason] - seen
        if items:
            out.append(m.FailedItems(items, reason))
            seen = seen | items
    return tuple(out)


def merge_landed(*groups: Iterable[m.Landed]) -> tuple[m.Landed, ...]:
    """One word for each item, by item; two that differ (no plane says so of one file) keep the lesser."""
    by_item: dict[int, m.Landed] = {}
    for group in groups:
        for landed in group:
            known = by_item.setdefault(landed.item, landed)
            if (landed.bytes, landed.adler32) < (known.bytes, known.adler32):
                by_item[landed.item] = landed
    return tuple(by_item[item] for item in sorted(by_item))


def merge_unread(known: Iterable[Unread], new: Unread) -> tuple[Unread, ...]:
    """One time for each item, the latest; by time."""
    out: dict[int, Ranges] = {}
    items = new.items
    for one in known:
        if one.at_ms >= new.at_ms:
            items = items - one.items
        rest = one.items if one.at_ms >= new.at_ms else one.items - new.items
        if rest:
            out[one.at_ms] = rest
    if items:
        out[new.at_ms] = out.get(new.at_ms, EMPTY) | items
    return tuple(Unread(at_ms, out[at_ms]) for at_ms in sorted(out))


def _merge_wrong(known: Iterable[WrongItems], new: WrongItems) -> tuple[WrongItems, ...]:
    """One for each request, by number."""
    out = {one.request_no: one.items for one in known}
    out[new.request_no] = out.get(new.request_no, EMPTY) | new.items
    return tuple(WrongItems(number, out[number]) for number in sorted(out))


def _in_order(reason: m.Reason | None) -> tuple[str, ...]:
    return () if reason is None else (reason.scope, reason.failure_class, reason.phase, reason.text)


def _at_attempt(row: TransferRow, attempt: int, endpoint: str) -> TransferRow:
    """The row with the highest attempt any record brings; a newer attempt starts with nothing verified."""
    if attempt > row.attempt:
        return replace(row, attempt=attempt, endpoint=endpoint, verified=EMPTY)
    if attempt == row.attempt and endpoint and (not row.endpoint or endpoint < row.endpoint):
        return replace(row, endpoint=endpoint)
    return row


def _planned(row: TransferRow, msg: m.TransferPlanned, _: ManifestIndex | None) -> TransferRow:
    if msg.decision_no > row.decision_no:
        return replace(
            row,
            decision_no=msg.decision_no,
            priority=msg.priority,
            plane=msg.plane,
            routes=msg.routes,
            repair=msg.repair,
        )
    return row


def _with_manifest(row: TransferRow, manifest: ManifestIndex) -> TransferRow:
    # Not done by TransferPlanned's own handler: a row that fell back to before it still finds the manifest stored.
    # Facts heard before could name any item; one that the manifest does not have would be in the way for ever.
    there = Ranges([(0, manifest.count)])
    known = [m.FailedItems(group.items & there, group.reason) for group in row.failed]
    return replace(
        row,
        planned=True,
        items=manifest.count,
        total=manifest.line.total,
        sealed=row.sealed & there,
        failed=merge_failed(known, manifest.unobtainable),
        landed=tuple(one for one in row.landed if one.item < manifest.count),
    )


def _decided(row: TransferRow, msg: m.TransferDecided, _: ManifestIndex | None) -> TransferRow:
    if msg.decision_no < row.decision_no or (msg.decision_no == row.decision_no and row.verdict != m.Verdict.ACCEPTED):
        return row
    return replace(row, decision_no=msg.decision_no, verdict=msg.verdict, priority=msg.priority, reason=msg.reason)


def _opened(row: TransferRow, msg: m.PartOpened, _: ManifestIndex | None) -> TransferRow:
    row = _at_attempt(row, msg.attempt, msg.endpoint)
    return _with_ends(row, msg.present, msg.failed, msg.landed)


def _with_ends(
    row: TransferRow, sealed: Ranges, failed: tuple[m.FailedItems, ...], landed: tuple[m.Landed, ...]
) -> TransferRow:
    return replace(
        row,
        sealed=row.sealed | sealed,
        failed=merge_failed(row.failed, failed),
        landed=merge_landed(row.landed, landed) if landed else row.landed,
    )


def _lost(row: TransferRow, msg: m.PartLost, _: ManifestIndex | None) -> TransferRow:
    row = _at_attempt(row, msg.attempt, "")
    if msg.attempt > row.lost:
        row = replace(row, lost=msg.attempt)
        if msg.attempt >= row.attempt:
            row = replace(row, verified=EMPTY)
    return replace(row, stopped=True) if msg.reason.phase == STOPPED else row


def _progress(row: TransferRow, msg: m.TransferProgress, _: ManifestIndex | None) -> TransferRow:
    row = _at_attempt(row, msg.attempt, msg.endpoint)
    if msg.attempt == row.attempt and msg.attempt > row.lost:
        row = replace(row, verified=row.verified | msg.verified)
    # What is sealed is on disk under its final name, whichever attempt did it.
    return _with_ends(row, msg.sealed, msg.failed, msg.landed)


def _with_source(row: TransferRow, source: SourceRow) -> TransferRow:
    others = [s for s in row.sources if s.source != source.source]
    return replace(row, sources=tuple(sorted([*others, source], key=lambda s: s.source)))


def _requested(row: TransferRow, msg: m.ChunksRequested, _: ManifestIndex | None) -> TransferRow:
    row = _at_attempt(row, msg.attempt, "")
    source = row.source_row(msg.source)
    if msg.request_no <= source.requested:
        return row
    asked = Outstanding(msg.request_no, msg.attempt, msg.ranges, msg.until_ms, plane=msg.plane)
    waiting = [*source.outstanding, asked]
    for failed in source.early:
        waiting = _without(waiting, failed)
    early = tuple(f for f in source.early if f.request_no > msg.request_no)
    source = replace(source, requested=msg.request_no, outstanding=tuple(waiting), early=early)
    if msg.plane == DOOR:
        source = replace(source, by_door=source.by_door | Ranges.of(msg.request_no))
    elif tool_of(msg.plane) is not None:
        tools = tuple(sorted({*source.tools, msg.plane}))
        source = replace(source, by_tool=source.by_tool | Ranges.of(msg.request_no), tools=tools)
    return _with_source(row, source)


def _without(asked: Iterable[Outstanding], failed: FailedRequest) -> list[Outstanding]:
    """What is still to come of requests after one failed, or some items of it."""
    out: list[Outstanding] = []
    for request in asked:
        if request.request_no != failed.request_no:
            out.append(request)
        elif failed.items:
            out.append(replace(request, unread=request.unread | failed.items))
    return out


def _expired(row: TransferRow, msg: m.LeaseExpired, _: ManifestIndex | None) -> TransferRow:
    source = row.source_row(msg.source)
    lapsed, lapsed_ms = source.lapsed | Ranges.of(msg.request_no), max(source.lapsed_ms, msg.at_ms)
    return _with_source(
        row, replace(source, expired=max(source.expired, msg.request_no), lapsed=lapsed, lapsed_ms=lapsed_ms)
    )


def _source_failed(row: TransferRow, msg: m.SourceFailed, _: ManifestIndex | None) -> TransferRow:
    source = row.source_row(msg.source)
    said = FailedRequest(msg.request_no, msg.at_ms, msg.items)
    if msg.request_no > source.requested:
        early = sorted({*source.early, said}, key=lambda f: (f.request_no, f.at_ms, f.items.spans))
        source = replace(source, early=tuple(early))
    else:
        source = replace(source, outstanding=tuple(_without(source.outstanding, said)))
    if msg.items and msg.reason.failure_class is m.FailureClass.TRANSIENT and msg.reason.phase == WRONG:
        source = replace(source, wrong=_merge_wrong(source.wrong, WrongItems(msg.request_no, msg.items)))
    elif msg.items and msg.reason.failure_class is not m.FailureClass.TRANSIENT:
        source = replace(source, bad=merge_failed(source.bad, (m.FailedItems(msg.items, msg.reason),)))
    elif msg.items:
        source = replace(source, unread=merge_unread(source.unread, Unread(msg.at_ms, msg.items)))
    elif msg.plane == DOOR:
        failed, failed_ms = source.door_failed | Ranges.of(msg.request_no), max(source.door_failed_ms, msg.at_ms)
        source = replace(source, door_failed=failed, door_failed_ms=failed_ms)
    elif tool_of(msg.plane) is not None:
        failed, failed_ms = source.tool_failed | Ranges.of(msg.request_no), max(source.tool_failed_ms, msg.at_ms)
        source = replace(source, tool_failed=failed, tool_failed_ms=failed_ms)
    elif source.failed is None or (msg.request_no, msg.at_ms) > (source.failed.request_no, source.failed.at_ms):
        source = replace(source, failed=said)
    known = (source.reason_ms, _in_order(source.reason)) if source.reason is not None else None
    if known is None or (msg.at_ms, _in_order(msg.reason)) > known:
        source = replace(source, reason=msg.reason, reason_ms=msg.at_ms)
    return _with_source(row, source)


def _closed(row: TransferRow, msg: m.TransferClosed, _: ManifestIndex | None) -> TransferRow:
    if row.completion is not None and not msg.acknowledged:
        return row
    state = State.CLOSED if msg.acknowledged else State.CLOSING
    return TransferRow(row.manifest, state=state, planned=True, completion=row.completion or msg.completion)


def _ignore(row: TransferRow, _msg: object, _: ManifestIndex | None) -> TransferRow:
    return row


Handler = Callable[[TransferRow, Any, ManifestIndex | None], TransferRow]

_HEARD: dict[type, Handler] = {
    m.TransferPlanned: _planned,
    m.TransferDecided: _decided,
    m.PartOpened: _opened,
    m.PartLost: _lost,
    m.LeaseExpired: _expired,
    m.SourceFailed: _source_failed,
    m.TransferClosed: _closed,
    m.ChunksRequested: _requested,
    m.TransferProgress: _progress,
}
# Every open state hears every fact alike: a fact of one topic may overtake the fact of another that led to it.
TABLE: dict[tuple[State, type], Handler] = {
    **{(state, kind): handler for state in State for kind, handler in _HEARD.items()},
    **{(State.CLOSING, kind): _ignore for kind in _HEARD},
    **{(State.CLOSED, kind): _ignore for kind in _HEARD},
    (State.CLOSING, m.TransferClosed): _closed,
}


def _state(row: TransferRow) -> State:
    if not row.planned:
        return State.NEW
    if (row.sealed | row.failed_items).covers(0, row.items):
        return State.COMPLETE
    if row.verdict != m.Verdict.ACCEPTED and row.stopped:
        return State.COMPLETE
    return State.ACTIVE if row.attempt > row.lost else State.PLANNED


def _settled(row: TransferRow, manifest: ManifestIndex) -> TransferRow:
    """Drops requests that are answered, expired, or of an attempt that is over, and failures of what is over."""
    # The last, since progress heard before the loss would else answer a request that it does not answer behind it.
    over = row.sealed | row.failed_items
    have, live = row.verified | manifest.line.ranges_of(over), row.live_attempt
    sources = tuple(
        replace(
            s,
            outstanding=tuple(
                o
                for o in s.outstanding
                if o.request_no > s.expired and o.attempt >= live and bool(o.to_come(manifest) - have)
            ),
            unread=tuple(Unread(u.at_ms, rest) for u in s.unread if (rest := u.items - over)),
            bad=tuple(m.FailedItems(rest, b.reason) for b in s.bad if (rest := b.items - over)),
            wrong=tuple(WrongItems(w.request_no, rest) for w in s.wrong if (rest := w.items - over)),
        )
        for s in row.sources
    )
    return row if sources == row.sources else replace(row, sources=sources)


def fold(row: TransferRow | None, msg: TransferMessage, manifest: ManifestIndex | None) -> TransferRow:
    """The row after one fact. `manifest`: the stored one's index, or that of the fact where it is the first plan."""
    if row is None:
        row = TransferRow(msg.manifest)
    row = TABLE[row.state, type(msg)](row, msg, manifest)
    if row.completion is not None:
        return row
    if manifest is not None:
        row = _settled(row if row.planned else _with_manifest(row, manifest), manifest)
    state = _state(row)
    return row if state is row.state else replace(row, state=state)
