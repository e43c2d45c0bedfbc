"""One intent at one site: row, states, the total transition table, `fold`. What is owed is in owed.py.

    NEW ──asked──▶ ASKED ──decided──▶ ACTIVE ──every manifest closed at every destination──▶ DONE
                     │                  └──▶ CANCELLED
                     └──▶ REFUSED

ACTIVE too becomes REFUSED when every destination denied it. Answers of sites are a set: they commute with decisions.
A removal has no manifests: its parts (records `parts_of`) are closed by the last report of each. A move has both: the
sites that its files leave close their parts behind its manifests.

Every site keeps the same row for an intent, whatever part it plays, but for `told`: what its own destination said.
Decisions are numbered by the home, the highest counts; manifests are numbered and chained by their source. The only
pairs that need their partition's order: two bodies of one intent and two priorities asked (the later counts), both in
`transfer-intents`; reports of one manifest.

A row that has ended keeps no body: what a late fact is held against is its digest. Only a decision can open it again,
and a decision brings the body along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from streams.core import chain as chains
from streams.core import records as m
from streams.core.chain import UNBEGUN, Chain, Counts, Link, Placed
from streams.core.names import Destination, IntentId, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges


class State(StrEnum):
    NEW = "new"
    ASKED = "asked"
    ACTIVE = "active"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    DONE = "done"


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
class Decision:
    """The home's last word so far, as IntentDecided has it, without the body."""

    decision_no: int
    verdict: m.Verdict
    source: Site | None
    source_no: int
    priority: int
    reason: m.Reason | None = None


@dataclass(frozen=True, slots=True)
class ToldTransfers:
    """Open transfers of a `source_no` that this site's destination reported under a decision: manifest numbers."""

    source_no: int
    decision_no: int
    manifests: Ranges


@dataclass(frozen=True, slots=True)
class SiteAnswer:
    """Whether a site takes part, as SiteAnswered has it."""

    site: Site
    answer_no: int
    answer: m.Answer
    by: Text
    reason: Text


@dataclass(frozen=True, slots=True)
class SiteWish:
    """Somebody at this site asked it to take part, or not to."""

    asked: m.Asked
    by: Text
    reason: Text


WISHES_MAX = 16
"""Of one intent, the first ones: a row does not know who may approve, and people may write any number."""


def denied_by(answers: Sequence[SiteAnswer]) -> frozenset[Site]:
    return frozenset(one.site for one in answers if one.answer is m.Answer.DENIED)


@dataclass(frozen=True, slots=True)
class IntentRow:
    """The fold of an intent's facts. `body` until it has ended; `body_sha256` is "" until a body is known."""

    intent: IntentId
    state: State = State.NEW
    body: m.TransferIntent | None = None
    body_sha256: str = ""
    destinations: tuple[Destination, ...] = ()
    leaving: tuple[Site, ...] = ()
    """Of a move: the sites that its files leave, in so many `parts` each."""
    parts: int = 0
    cancelled_by: Text | None = None
    intake_closed_by: Text | None = None
    """Who asked that an open intent takes nothing more."""
    released_by: Text | None = None
    """Who asked that nothing is claimed for it any more."""
    priority: int | None = None
    decision: Decision | None = None
    chain: Chain = UNBEGUN
    closed: tuple[Closed, ...] = ()
    told: tuple[ToldTransfers, ...] = ()
    """By source_no and decision_no; a manifest stands in one of them."""
    answers: tuple[SiteAnswer, ...] = ()
    """By site."""
    wishes: tuple[SiteWish, ...] = ()
    """Of this site, in their order."""

    def answer_of(self, site: Site) -> SiteAnswer | None:
        return next((one for one in self.answers if one.site == site), None)

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

    def concerns(self, site: Site) -> bool:
        """Whether `site` plays a part in it."""
        source = self.decision.source if self.decision else None
        return site in (self.intent.home, source, *(d.site for d in self.destinations), *self.leaving)

    def told_of(self, source_no: int) -> Ranges:
        """Manifest numbers of open transfers that this site's destination reported."""
        out = EMPTY
        for told in self.told:
            out = out | told.manifests if told.source_no == source_no else out
        return out

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

    def counts(self, msg: Placed) -> Counts:
        return chains.counts(self.chain, self.decision, msg)


IntentMessage = (
    m.TransferIntent
    | m.IntentAsked
    | m.IntentDecided
    | m.SiteAnswered
    | m.ManifestWritten
    | m.TransferReported
    | m.CompletionRecord
    | m.RemovalReported
)


def contradiction(row: IntentRow | None, msg: IntentMessage) -> str | None:
    """Why a fact cannot be true beside the row, in words; the fact is then a dead letter and changes nothing."""
    if row is not None and isinstance(msg, m.TransferIntent) and row.body_sha256 not in ("", body_digest(msg)):
        return f"another body is already known under intent {msg.intent}"
    return None


def body_digest(body: m.TransferIntent) -> str:
    """sha256 (hex) over every field; of one body the same in every process of this release."""
    return hashlib.sha256(repr(body).encode()).hexdigest()


def _with_body(row: IntentRow, body: m.TransferIntent) -> IntentRow:
    row = replace(row, body=body, body_sha256=body_digest(body), destinations=body.destinations)
    if body.verb is not m.Verb.MOVE:
        return row
    return replace(row, leaving=body.release_from, parts=len(m.parts_of(body)))


def _asked_for(row: IntentRow, msg: m.TransferIntent, _: Site | None) -> IntentRow:
    return row if row.body_sha256 else _with_body(row, msg)


def _asked(row: IntentRow, msg: m.IntentAsked, here: Site | None) -> IntentRow:
    if msg.site is not None:
        wish = SiteWish(msg.asked, msg.asked_by, msg.reason)
        if msg.site != here or wish in row.wishes or len(row.wishes) == WISHES_MAX:
            return row
        return replace(row, wishes=(*row.wishes, wish))
    if msg.asked is m.Asked.CANCEL:
        return row if row.cancelled_by is not None else replace(row, cancelled_by=msg.asked_by)
    if msg.asked is m.Asked.CLOSE:
        # Of an intent that is not open it means nothing; whether it is may not be known yet.
        return row if row.intake_closed_by is not None else replace(row, intake_closed_by=msg.asked_by)
    if msg.asked is m.Asked.RELEASE:
        return row if row.released_by is not None else replace(row, released_by=msg.asked_by)
    return replace(row, priority=msg.priority)


def answered(answers: tuple[SiteAnswer, ...], msg: m.SiteAnswered) -> tuple[SiteAnswer, ...]:
    """With one more; of each site the highest number stands, and the first that is not pending for good."""
    old = next((one for one in answers if one.site == msg.site), None)
    if old is not None and (old.answer is not m.Answer.PENDING or msg.answer_no <= old.answer_no):
        return answers
    new = SiteAnswer(msg.site, msg.answer_no, msg.answer, msg.by, msg.reason)
    return tuple(sorted([*(one for one in answers if one is not old), new], key=lambda one: one.site))


def _answered(row: IntentRow, msg: m.SiteAnswered, _: Site | None) -> IntentRow:
    answers = answered(row.answers, msg)
    return row if answers == row.answers else replace(row, answers=answers)


def _decided(row: IntentRow, msg: m.IntentDecided, _: Site | None) -> IntentRow:
    if msg.decision_no <= row.decision_no:
        return row
    chain = chains.decided_anew(row.chain, msg)
    if msg.body.verb is m.Verb.REMOVE:
        chain = chains.of_removal(len(m.parts_of(msg.body)))
    decision = Decision(msg.decision_no, msg.verdict, msg.source, msg.source_no, msg.priority, msg.reason)
    return replace(_with_body(row, msg.body), decision=decision, chain=chain)


def _written(row: IntentRow, msg: m.ManifestWritten, _: Site | None) -> IntentRow:
    return _continued(row, Link.of(msg)) if row.counts(msg) is Counts.NOW else row


def _continued(row: IntentRow, link: Link) -> IntentRow:
    return replace(row, chain=chains.continued(row.chain, link))


def _reported(row: IntentRow, msg: m.TransferReported, here: Site | None) -> IntentRow:
    if msg.destination != here:
        return row
    told = _without(row.told, msg.manifest)
    if not row.is_closed(msg.manifest, msg.destination):
        place = (msg.manifest.source_no, msg.decision_no)
        now = {(t.source_no, t.decision_no): t.manifests for t in told}
        now[place] = now.get(place, EMPTY) | Ranges.of(msg.manifest.no)
        told = tuple(ToldTransfers(*key, now[key]) for key in sorted(now))
    return row if told == row.told else replace(row, told=told)


def _without(told: tuple[ToldTransfers, ...], manifest: ManifestId) -> tuple[ToldTransfers, ...]:
    this = Ranges.of(manifest.no)
    return tuple(
        t if t.source_no != manifest.source_no else replace(t, manifests=rest)
        for t in told
        if t.source_no != manifest.source_no or (rest := t.manifests - this)
    )


def _completed(row: IntentRow, msg: m.CompletionRecord, here: Site | None) -> IntentRow:
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
        told=_without(row.told, msg.manifest) if msg.destination == here else row.told,
    )


def _removed(row: IntentRow, msg: m.RemovalReported, _: Site | None) -> IntentRow:
    old = row.closed_at(msg.site, 0)
    if not msg.last or msg.part in old.manifests:
        return row
    whys = [m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "remove", kept.reason) for kept in msg.reasons]
    new = replace(
        old,
        manifests=old.manifests | Ranges.of(msg.part),
        sealed=old.sealed + msg.removed,
        failed=old.failed + msg.kept,
        bytes=old.bytes + msg.removed_bytes,
        reason=min(whys + ([old.reason] if old.reason else []), key=lambda r: str(r.text), default=None),
    )
    others = [c for c in row.closed if (c.destination, c.source_no) != (msg.site, 0)]
    return replace(row, closed=tuple(sorted([*others, new], key=lambda c: (c.destination, c.source_no))))


Handler = Callable[[IntentRow, Any, Site | None], IntentRow]

_HEARD: dict[type, Handler] = {
    m.TransferIntent: _asked_for,
    m.IntentAsked: _asked,
    m.IntentDecided: _decided,
    m.SiteAnswered: _answered,
    m.ManifestWritten: _written,
    m.TransferReported: _reported,
    m.CompletionRecord: _completed,
    m.RemovalReported: _removed,
}
# An ended intent still hears everything: a mirror may bring a completion before the decision it follows from.
TABLE: dict[tuple[State, type], Handler] = {
    (state, kind): handler for state in State for kind, handler in _HEARD.items()
}


def is_landed(chain: Chain, closed: Iterable[Ranges]) -> bool:
    """Whether all manifests are known, and closed at every destination."""
    return chain.last and all(manifests.covers(0, chain.next_no) for manifests in closed)


def state_of(
    asked: bool,
    verdict: m.Verdict | None,
    chain: Chain,
    closed: Sequence[tuple[Ranges, int]],
    leaving: Sequence[Ranges] = (),
    parts: int = 0,
) -> State:
    """How an intent stands. `closed`: of each destination the manifests that are closed, and items cancelled.
    `leaving`: of each site that a move's files leave the parts that are closed, of so many `parts`. Sites that denied
    it are in neither; where no destination is left, it is refused.
    """
    if verdict is None:
        return State.ASKED if asked else State.NEW
    if verdict is m.Verdict.REFUSED or not closed:
        return State.REFUSED
    everything = is_landed(chain, (manifests for manifests, _ in closed))
    everything = everything and all(at_site.covers(0, parts) for at_site in leaving)
    if verdict in (m.Verdict.CANCELLED, m.Verdict.RELEASED):
        # Sealed is irrevocable: a cancellation that came when everything had arrived changed nothing.
        in_time = not everything or any(cancelled for _, cancelled in closed)
        return State.CANCELLED if in_time else State.DONE
    return State.DONE if everything else State.ACTIVE


def fold(row: IntentRow | None, msg: IntentMessage, here: Site | None = None) -> IntentRow:
    """The row at site `here` after one fact; a manifest that does not count now leaves it as it is."""
    if row is None:
        row = IntentRow(msg.intent)
    return _settled(TABLE[row.state, type(msg)](row, msg, here))


def follow(row: IntentRow, link: Link) -> IntentRow:
    """`fold` of the manifest that `link` is of, for who kept only that; one that does not count now changes nothing."""
    return _settled(_continued(row, link)) if row.counts(link) is Counts.NOW else row


def _settled(row: IntentRow) -> IntentRow:
    denied = denied_by(row.answers)
    to = [destination for destination in row.destinations if destination not in denied]
    closed = [row.closed_at(destination, row.chain.source_no) for destination in to]
    verdict = row.decision.verdict if row.decision is not None else None
    gone = [row.closed_at(Destination(site), 0).manifests for site in row.leaving if site not in denied]
    state = state_of(
        bool(row.body_sha256), verdict, row.chain, [(c.manifests, c.cancelled) for c in closed], gone, row.parts
    )
    if state is not row.state:
        row = replace(row, state=state)
    # Part of the fold, so that the row is the same whichever fact came last.
    return replace(row, body=None) if row.ended and row.body is not None else row
