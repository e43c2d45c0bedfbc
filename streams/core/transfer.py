"""One transfer at its destination: row, states, the total transition table, `fold`. What is owed is in owed.py.

    NEW ──planned──▶ PLANNED ──part opened──▶ ACTIVE ──every item sealed, failed or cancelled──▶ COMPLETE ──▶ CLOSED
                        ▲──────part lost─────────┘

Facts arrive repeated, and in any order between topics. So a row holds sets and highest numbers only, and its state is
read off them. Two pairs need their partition's order: ChunksRequested among themselves (numbered; a lower number
after a higher one is old) and two TransferPlanned of one manifest (the first counts). A closed row forgets everything
but its completion, so that late facts change nothing and a lost completion can be said again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from streams.core import messages as m
from streams.core.manifest import Manifest
from streams.core.names import ManifestId, Site
from streams.core.ranges import EMPTY, Ranges

STOPPED = "stop"
"""Phase of a PartLost that answers a StopPart: the plane will seal nothing more."""


class State(StrEnum):
    NEW = "new"
    PLANNED = "planned"
    ACTIVE = "active"
    COMPLETE = "complete"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A request nobody has fully answered yet, for the part files of `attempt`."""

    request_no: int
    attempt: int
    ranges: Ranges
    until_ms: int


@dataclass(frozen=True, slots=True)
class SourceRow:
    """What was asked of one source; numbers count per source from 1."""

    source: Site
    requested: int = 0
    expired: int = 0
    outstanding: tuple[Outstanding, ...] = ()


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
    """Of a closed row only."""

    @property
    def live_attempt(self) -> int:
        """The attempt to open: the one at work, or the next after a loss."""
        return max(self.attempt, self.lost + 1)

    @property
    def failed_items(self) -> Ranges:
        out = EMPTY
        for group in self.failed:
            out = out | group.items
        return out

    def excused(self, manifest: Manifest) -> Ranges:
        """Intervals that need no bytes any more: of items sealed or failed."""
        return manifest.line.ranges_of(self.sealed | self.failed_items)

    @property
    def outstanding(self) -> Ranges:
        out = EMPTY
        for source in self.sources:
            for request in source.outstanding:
                out = out | request.ranges
        return out

    def source_row(self, source: Site) -> SourceRow:
        return next((s for s in self.sources if s.source == source), SourceRow(source))


TransferMessage = (
    m.TransferPlanned
    | m.TransferDecided
    | m.PartOpened
    | m.PartLost
    | m.LeaseExpired
    | m.TransferClosed
    | m.ChunksRequested
    | m.TransferProgress
)


def merge_failed(*groups: Iterable[m.FailedItems]) -> tuple[m.FailedItems, ...]:
    """Union by reason, sorted; an item with several reasons keeps the first of that order, whoever came first."""
    by_reason: dict[m.Reason, Ranges] = {}
    for group in groups:
        for failed in group:
            by_reason[failed.reason] = by_reason.get(failed.reason, EMPTY) | failed.items
    out: list[m.FailedItems] = []
    seen = EMPTY
    for reason in sorted(by_reason, key=lambda r: (r.scope, r.failure_class, r.phase, r.text)):
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


def _at_attempt(row: TransferRow, attempt: int, endpoint: str) -> TransferRow:
    """The row with the highest attempt any record brings; a newer attempt starts with nothing verified."""
    if attempt > row.attempt:
        return replace(row, attempt=attempt, endpoint=endpoint, verified=EMPTY)
    if attempt == row.attempt and endpoint and (not row.endpoint or endpoint < row.endpoint):
        return replace(row, endpoint=endpoint)
    return row


def _planned(row: TransferRow, msg: m.TransferPlanned, _: Manifest | None) -> TransferRow:
    if msg.decision_no > row.decision_no:
        return replace(row, decision_no=msg.decision_no, priority=msg.priority)
    return row


def _with_manifest(row: TransferRow, manifest: Manifest) -> TransferRow:
    # Not done by TransferPlanned's own handler: a row that fell back to before it still finds the manifest stored.
    # Facts heard before could name any item; one that the manifest does not have would be in the way for ever.
    there = Ranges([(0, len(manifest.items))])
    known = [m.FailedItems(group.items & there, group.reason) for group in row.failed]
    return replace(
        row,
        planned=True,
        items=len(manifest.items),
        total=manifest.line.total,
        sealed=row.sealed & there,
        failed=merge_failed(known, manifest.unobtainable),
        landed=tuple(one for one in row.landed if one.item < len(manifest.items)),
    )


def _decided(row: TransferRow, msg: m.TransferDecided, _: Manifest | None) -> TransferRow:
    if msg.decision_no < row.decision_no or (msg.decision_no == row.decision_no and row.verdict != m.Verdict.ACCEPTED):
        return row
    return replace(row, decision_no=msg.decision_no, verdict=msg.verdict, priority=msg.priority, reason=msg.reason)


def _opened(row: TransferRow, msg: m.PartOpened, _: Manifest | None) -> TransferRow:
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


def _lost(row: TransferRow, msg: m.PartLost, _: Manifest | None) -> TransferRow:
    row = _at_attempt(row, msg.attempt, "")
    if msg.attempt > row.lost:
        row = replace(row, lost=msg.attempt)
        if msg.attempt >= row.attempt:
            row = replace(row, verified=EMPTY)
    return replace(row, stopped=True) if msg.reason.phase == STOPPED else row


def _progress(row: TransferRow, msg: m.TransferProgress, _: Manifest | None) -> TransferRow:
    row = _at_attempt(row, msg.attempt, msg.endpoint)
    if msg.attempt == row.attempt and msg.attempt > row.lost:
        row = replace(row, verified=row.verified | msg.verified)
    # What is sealed is on disk under its final name, whichever attempt did it.
    return _with_ends(row, msg.sealed, msg.failed, msg.landed)


def _with_source(row: TransferRow, source: SourceRow) -> TransferRow:
    others = [s for s in row.sources if s.source != source.source]
    return replace(row, sources=tuple(sorted([*others, source], key=lambda s: s.source)))


def _requested(row: TransferRow, msg: m.ChunksRequested, _: Manifest | None) -> TransferRow:
    row = _at_attempt(row, msg.attempt, "")
    source = row.source_row(msg.source)
    if msg.request_no <= source.requested:
        return row
    waiting = (*source.outstanding, Outstanding(msg.request_no, msg.attempt, msg.ranges, msg.until_ms))
    return _with_source(row, replace(source, requested=msg.request_no, outstanding=waiting))


def _expired(row: TransferRow, msg: m.LeaseExpired, _: Manifest | None) -> TransferRow:
    source = row.source_row(msg.source)
    return row if msg.request_no <= source.expired else _with_source(row, replace(source, expired=msg.request_no))


def _closed(row: TransferRow, msg: m.TransferClosed, _: Manifest | None) -> TransferRow:
    return TransferRow(row.manifest, state=State.CLOSED, planned=True, completion=msg.completion)


def _ignore(row: TransferRow, _msg: object, _: Manifest | None) -> TransferRow:
    return row


Handler = Callable[[TransferRow, Any, Manifest | None], TransferRow]

_OPEN: dict[type, Handler] = {
    m.TransferPlanned: _planned,
    m.TransferDecided: _decided,
    m.PartOpened: _opened,
    m.PartLost: _lost,
    m.LeaseExpired: _expired,
    m.TransferClosed: _closed,
    m.ChunksRequested: _requested,
    m.TransferProgress: _progress,
}
# Every open state hears every fact alike: a fact of one topic may overtake the fact of another that led to it.
TABLE: dict[tuple[State, type], Handler] = {
    **{(state, kind): handler for state in State if state is not State.CLOSED for kind, handler in _OPEN.items()},
    **{(State.CLOSED, kind): _ignore for kind in _OPEN},
}


def _state(row: TransferRow) -> State:
    if not row.planned:
        return State.NEW
    if (row.sealed | row.failed_items).covers(0, row.items):
        return State.COMPLETE
    if row.verdict != m.Verdict.ACCEPTED and row.stopped:
        return State.COMPLETE
    return State.ACTIVE if row.attempt > row.lost else State.PLANNED


def _settled(row: TransferRow, manifest: Manifest) -> TransferRow:
    """Drops requests that are answered, expired, or of an attempt that is over."""
    # The last, since progress heard before the loss would else answer a request that it does not answer behind it.
    have, live = row.verified | row.excused(manifest), row.live_attempt
    sources = tuple(
        replace(
            s,
            outstanding=tuple(
                o for o in s.outstanding if o.request_no > s.expired and o.attempt >= live and bool(o.ranges - have)
            ),
        )
        for s in row.sources
    )
    return row if sources == row.sources else replace(row, sources=sources)


def fold(row: TransferRow | None, msg: TransferMessage, manifest: Manifest | None) -> TransferRow:
    """The row after one fact. `manifest` is the stored one, or the fact's own when it is the first TransferPlanned."""
    if row is None:
        row = TransferRow(msg.manifest)
    row = TABLE[row.state, type(msg)](row, msg, manifest)
    if row.state is State.CLOSED:
        return row
    if manifest is not None:
        row = _settled(row if row.planned else _with_manifest(row, manifest), manifest)
    state = _state(row)
    return row if state is row.state else replace(row, state=state)
