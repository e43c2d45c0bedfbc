"""One intent at one site: row, states, the total transition table, `fold`. What is owed is in owed.py.

    NEW ──asked──▶ ASKED ──decided──▶ ACTIVE ──every manifest closed at every destination──▶ DONE
                     │                  └──▶ CANCELLED
                     └──▶ REFUSED

Every site keeps the same row for an intent, whatever part it plays. Decisions are numbered by the home, the highest
counts; manifests are numbered and chained by their source. The only pairs that need their partition's order: two bodies
of one intent and two priorities asked (the later counts), both in `transfer-intents`; reports of one manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from streams.core import messages as m
from streams.core.manifest import digest
from streams.core.names import Destination, IntentId, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges


class State(StrEnum):
    NEW = "new"
    ASKED = "asked"
    ACTIVE = "active"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    DONE = "done"


class Counts(StrEnum):
    """Whether a manifest counts: now, perhaps later (its decision or predecessor is not heard), or never."""

    NOW = "now"
    LATER = "later"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Chain:
    """Manifests of one `source_no` that count: how many, the last one's digest and cursor, whether it was the last."""

    source_no: int = 0
    next_no: int = 0
    sha256: str = ""
    cursor: str = ""
    last: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """Manifests closed at a destination under one `source_no`, and the sums of their completions (items, bytes)."""

    destination: Destination
    source_no: int
    manifests: Ranges = EMPTY
    sealed: int = 0
    failed: int = 0
    cancelled: int = 0
    bytes: int = 0
    reason: m.Reason | None = None


@dataclass(frozen=True, slots=True)
class IntentRow:
    """The fold of an intent's facts. `asked` is the body until decided; `reports` are those of open transfers."""

    intent: IntentId
    state: State = State.NEW
    asked: m.TransferIntent | None = None
    cancelled_by: Text | None = None
    intake_closed_by: Text | None = None
    """Who asked that an open intent takes nothing more."""
    priority: int | None = None
    decision: m.IntentDecided | None = None
    chain: Chain = Chain()
    closed: tuple[Closed, ...] = ()
    reports: tuple[m.TransferReported, ...] = ()

    @property
    def body(self) -> m.TransferIntent | None:
        return self.decision.body if self.decision else self.asked

    @property
    def destinations(self) -> tuple[Destination, ...]:
        return self.body.destinations if self.body else ()

    @property
    def decision_no(self) -> int:
        return self.decision.decision_no if self.decision else 0

    @property
    def accepted(self) -> bool:
        return self.decision is not None and self.decision.verdict is m.Verdict.ACCEPTED

    @property
    def ended(self) -> bool:
        """Nothing more can come of it but the completions of transfers still being stopped."""
        return self.state in (State.REFUSED, State.CANCELLED, State.DONE)

    @property
    def growing(self) -> bool:
        """Whether files registered later are still taken: it is open, and its last manifest is not known."""
        return self.body is not None and self.body.open and not self.ended and not self.chain.last

    def concerns(self, site: Site) -> bool:
        """Whether `site` plays a part in it."""
        source = self.decision.source if self.decision else None
        return site in (self.intent.home, source, *(d.site for d in self.destinations))

    @property
    def next_manifest(self) -> ManifestId:
        return ManifestId.of(self.intent, self.chain.source_no, self.chain.next_no)

    def closed_at(self, destination: Destination, source_no: int) -> Closed:
        for closed in self.closed:
            if closed.destination == destination and closed.source_no == source_no:
                return closed
        return Closed(destination, source_no)

    def is_closed(self, manifest: ManifestId, destination: Destination) -> bool:
        return manifest.no in self.closed_at(destination, manifest.source_no).manifests

    def counts(self, msg: m.ManifestWritten) -> Counts:
        """A manifest counts if the decided source wrote it and it continues that source_no's chain by digest."""
        decided = self.decision
        if decided is None or decided.source_no < msg.source_no:
            return Counts.LATER
        if decided.source_no > msg.source_no or decided.source != msg.source or self.chain.last:
            return Counts.NEVER
        if msg.no != self.chain.next_no:
            return Counts.LATER if msg.no > self.chain.next_no else Counts.NEVER
        return Counts.NOW if msg.prev_sha256 == self.chain.sha256 else Counts.NEVER


IntentMessage = (
    m.TransferIntent | m.IntentAsked | m.IntentDecided | m.ManifestWritten | m.TransferReported | m.CompletionRecord
)


def contradiction(row: IntentRow | None, msg: IntentMessage) -> str | None:
    """Why a fact cannot be true beside the row, in words; the fact is then a dead letter and changes nothing."""
    if row is not None and isinstance(msg, m.TransferIntent) and row.body is not None and row.body != msg:
        return f"another body is already known under intent {msg.intent}"
    return None


def _asked_for(row: IntentRow, msg: m.TransferIntent) -> IntentRow:
    return row if row.body is not None else replace(row, asked=msg)


def _asked(row: IntentRow, msg: m.IntentAsked) -> IntentRow:
    if msg.asked is m.Asked.CANCEL:
        return row if row.cancelled_by is not None else replace(row, cancelled_by=msg.asked_by)
    if msg.asked is m.Asked.CLOSE:
        # Of an intent that is not open it means nothing; whether it is may not be known yet.
        return row if row.intake_closed_by is not None else replace(row, intake_closed_by=msg.asked_by)
    return replace(row, priority=msg.priority)


def _decided(row: IntentRow, msg: m.IntentDecided) -> IntentRow:
    if msg.decision_no <= row.decision_no:
        return row
    chain = row.chain if msg.source_no <= row.chain.source_no else Chain(msg.source_no)
    return replace(row, decision=msg, asked=None, chain=chain)


def _written(row: IntentRow, msg: m.ManifestWritten) -> IntentRow:
    if row.counts(msg) is not Counts.NOW:
        return row
    return replace(row, chain=Chain(msg.source_no, msg.no + 1, digest(msg), msg.cursor, msg.last))


def _reported(row: IntentRow, msg: m.TransferReported) -> IntentRow:
    others = [r for r in row.reports if (r.destination, r.manifest) != (msg.destination, msg.manifest)]
    if not row.is_closed(msg.manifest, msg.destination):
        others.append(msg)
    return replace(row, reports=tuple(sorted(others, key=lambda r: (r.destination, r.manifest))))


def _completed(row: IntentRow, msg: m.CompletionRecord) -> IntentRow:
    no, source_no = msg.manifest.no, msg.manifest.source_no
    old = row.closed_at(msg.destination, source_no)
    if no in old.manifests:
        return row
    failed = [f.reason for f in msg.failed] + ([old.reason] if old.reason else [])
    new = Closed(
        msg.destination,
        source_no,
        old.manifests | Ranges.of(no),
        old.sealed + msg.sealed.size,
        old.failed + sum(f.items.size for f in msg.failed),
        old.cancelled + msg.cancelled.size,
        old.bytes + msg.bytes,
        min(failed, key=lambda r: (r.scope, r.failure_class, r.phase, r.text), default=None),
    )
    others = [c for c in row.closed if (c.destination, c.source_no) != (msg.destination, source_no)]
    return replace(
        row,
        closed=tuple(sorted([*others, new], key=lambda c: (c.destination, c.source_no))),
        reports=tuple(r for r in row.reports if (r.destination, r.manifest) != (msg.destination, msg.manifest)),
    )


Handler = Callable[[IntentRow, Any], IntentRow]

_HEARD: dict[type, Handler] = {
    m.TransferIntent: _asked_for,
    m.IntentAsked: _asked,
    m.IntentDecided: _decided,
    m.ManifestWritten: _written,
    m.TransferReported: _reported,
    m.CompletionRecord: _completed,
}
# An ended intent still hears everything: a mirror may bring a completion before the decision it follows from.
TABLE: dict[tuple[State, type], Handler] = {
    (state, kind): handler for state in State for kind, handler in _HEARD.items()
}


def _state(row: IntentRow) -> State:
    if row.decision is None:
        return State.NEW if row.asked is None else State.ASKED
    if row.decision.verdict is m.Verdict.REFUSED:
        return State.REFUSED
    chain = row.chain
    closed = [row.closed_at(destination, chain.source_no) for destination in row.destinations]
    everything = chain.last and all(c.manifests.covers(0, chain.next_no) for c in closed)
    if row.decision.verdict is m.Verdict.CANCELLED:
        # Sealed is irrevocable: a cancellation that came when everything had arrived changed nothing.
        in_time = not everything or any(c.cancelled for c in closed)
        return State.CANCELLED if in_time else State.DONE
    return State.DONE if everything else State.ACTIVE


def fold(row: IntentRow | None, msg: IntentMessage) -> IntentRow:
    """The row after one fact; a manifest that does not count now leaves it as it is."""
    if row is None:
        row = IntentRow(msg.intent)
    row = TABLE[row.state, type(msg)](row, msg)
    state = _state(row)
    return row if state is row.state else replace(row, state=state)
