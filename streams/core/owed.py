"""What a row owes: pure, may be asked at any time by any owner. worker/effects.py carries it out.

Nothing here is returned "by an event": a command lost in a crash is read off the row again. What falls due later
carries its time, so that a caller knows when to ask again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from streams.core import commands as c
from streams.core import records as m
from streams.core.channel import LOG, NO_TOOLS, RELAY, plane_in_words, tool_of
from streams.core.completion import completion
from streams.core.door_rests import DoorRests
from streams.core.intent import IntentRow, SiteAnswer
from streams.core.intent import State as IntentState
from streams.core.manifest import ManifestIndex
from streams.core.names import ManifestId, Site, Text
from streams.core.policy import Policy
from streams.core.ranges import EMPTY, Ranges
from streams.core.sources import requests, tried_in_words, unobtainable
from streams.core.transfer import STOPPED, State, TransferRow

BY_POLICY = Text("the site's policy")


def _reason(text: str, scope: m.Scope = m.Scope.POLICY, phase: str = "decide") -> m.Reason:
    return m.Reason(scope, m.FailureClass.PERMANENT, phase, Text(text))


def _next_decision(row: IntentRow, verdict: m.Verdict, priority: int, reason: m.Reason | None) -> c.PublishDecision:
    body = row.body
    assert body is not None
    last = row.decision
    return c.PublishDecision(
        m.IntentDecided(
            intent=row.intent,
            decision_no=row.decision_no + 1,
            verdict=verdict,
            body=body,
            source=last.source if last else None,
            source_no=last.source_no if last else 0,
            priority=priority,
            reason=reason,
        )
    )


def takes_part(answer: SiteAnswer | None, policy: Policy) -> bool:
    """Whether a site does what an accepted intent asks of it. `answer`: what it said of it last."""
    return (not policy.approvers) if answer is None else answer.answer is m.Answer.ADMITTED


def _answers(row: IntentRow, here: Site, policy: Policy) -> list[c.Owed]:
    """Where people let in what is asked of this site: that it waits for them, and what they said."""
    last = row.answer_of(here)
    if last is None:
        if not policy.approvers:
            return []
        if row.told or any(one.destination == here for one in row.closed):  # the rule came later
            return [c.Owed(c.PublishAnswer(m.SiteAnswered(row.intent, here, 1, m.Answer.ADMITTED, BY_POLICY)))]
        who = "anybody here" if policy.may_approve("*") else policy.approvers
        return [c.Owed(c.PublishAnswer(m.SiteAnswered(row.intent, here, 1, m.Answer.PENDING, Text(who[:400]))))]
    if last.answer is not m.Answer.PENDING:
        return []
    if not policy.approvers:  # its rule was taken back
        said = m.SiteAnswered(row.intent, here, last.answer_no + 1, m.Answer.ADMITTED, BY_POLICY)
        return [c.Owed(c.PublishAnswer(said))]
    wish = next((one for one in row.wishes if policy.may_approve(one.by)), None)
    if wish is None:
        return []
    answer = m.Answer.ADMITTED if wish.asked is m.Asked.APPROVE else m.Answer.DENIED
    said = m.SiteAnswered(row.intent, here, last.answer_no + 1, answer, wish.by, wish.reason)
    return [c.Owed(c.PublishAnswer(said))]


def owes_release(row: IntentRow) -> bool:
    """Whether it has ended, and was asked to claim nothing any more, and that is not decided."""
    if row.released_by is None or row.state not in (IntentState.DONE, IntentState.CANCELLED) or row.decision is None:
        return False
    return row.decision.verdict is not m.Verdict.RELEASED


def _at_home(row: IntentRow) -> list[c.Owed]:
    if owes_release(row):
        return [c.Owed(c.ReleaseIntent(row.intent, row.decision_no + 1))]
    if row.body is None or row.state in (IntentState.DONE, IntentState.REFUSED, IntentState.CANCELLED):
        return []
    priority = row.decision.priority if row.decision else row.body.priority
    if row.cancelled_by is not None:
        reason = _reason(f"cancelled by {row.cancelled_by}"[:400])
        return [c.Owed(_next_decision(row, m.Verdict.CANCELLED, priority, reason))]
    if row.state is IntentState.ASKED:
        return [c.Owed(c.DecideIntent(row.intent))]
    out: list[c.Owed] = []
    if row.priority is not None and row.priority != priority:
        out.append(c.Owed(_next_decision(row, m.Verdict.ACCEPTED, row.priority, None)))
    elif row.body.deadline_ms is not None:
        late = _next_decision(row, m.Verdict.CANCELLED, priority, _reason("its deadline passed"))
        out.append(c.Owed(late, row.body.deadline_ms))
    return out


def _at_source(row: IntentRow) -> list[c.Owed]:
    chain, body = row.chain, row.body
    if chain.last or body is None:
        return []
    write = c.WriteManifests(body, chain.source_no, chain.next_no, chain.sha256, chain.cursor)
    if not body.open:
        return [c.Owed(write)]
    closing = replace(write, closing=True)
    if row.intake_closed_by is not None:
        return [c.Owed(closing)]
    # Past `until_ms` the plane looks no more; what is left is listed by the catalogue as it is then.
    return [c.Owed(write)] + ([c.Owed(closing, body.until_ms)] if body.until_ms is not None else [])


def _at_destination(row: IntentRow, here: Site, policy: Policy, replan: Ranges) -> list[c.Owed]:
    decision = row.decision
    assert decision is not None
    chain = row.chain
    out: list[c.Owed] = []
    if decision.source is not None:
        heard = row.told_of(chain.source_no)
        closed = row.closed_at(here, chain.source_no).manifests
        takes = row.accepted and takes_part(row.answer_of(here), policy)
        to_plan = Ranges([(0, chain.next_no)]) - heard - closed if takes else EMPTY
        again = (replan & heard) - closed
        # One planned again only to be stopped says the first decision, so that its answer asks for the last one.
        number = decision.decision_no if row.accepted else 1
        room = max(0, policy.plans_open_max - sum(told.manifests.size for told in row.told))
        for no in (again | to_plan.first(room)).numbers():
            manifest = ManifestId.of(row.intent, chain.source_no, no)
            plan = c.PlanTransfer(manifest, decision.source, number, decision.priority, whole=False)
            if (body := row.body) is not None:
                # Another site's decision replaces no file of this one, whatever it says.
                repair = body.repair and row.intent.home == here
                sites = tuple(d.site for d in body.destinations if not d.consumer)
                plan = replace(plan, whole=body.selection is None, plane=body.plane, repair=repair, destinations=sites)
            out.append(c.Owed(plan))
    for told in row.told:
        if told.decision_no >= decision.decision_no:
            continue
        superseded = row.accepted and told.source_no < chain.source_no
        verdict = m.Verdict.SUPERSEDED if superseded else decision.verdict
        for no in told.manifests.numbers():
            manifest = ManifestId.of(row.intent, told.source_no, no)
            decided = m.TransferDecided(manifest, decision.decision_no, verdict, decision.priority, decision.reason)
            out.append(c.Owed(c.DecideTransfer(decided)))
    return out


def owed_intent(row: IntentRow, here: Site, policy: Policy, *, replan: Ranges = EMPTY) -> list[c.Owed]:
    """What this site owes for an intent, by the parts it plays: home, source, destination.

    `replan`: open transfers that are planned again after an assignment, in case their rows were lost.
    """
    out: list[c.Owed] = []
    if row.intent.home == here:
        out += _at_home(row)
    if row.accepted and row.decision is not None and row.decision.source == here:
        out += _at_source(row)
    if row.accepted and not row.ended and (here in row.destinations or here in row.leaving):
        out += _answers(row, here, policy)
    if row.decision is not None and here in row.destinations:
        out += _at_destination(row, here, policy, replan)
    return out


def owed_transfer(
    row: TransferRow,
    manifest: ManifestIndex | None,
    here: Site,
    policy: Policy,
    *,
    part_here: bool,
    now_ms: int,
    rests: DoorRests | None = None,
    doors: Collection[Site] = (),
    tools: Mapping[Site, str] = NO_TOOLS,
) -> list[c.Owed]:
    """What the destination owes for a transfer. `part_here`: the worker's present plane has opened the part.

    `now_ms`: only who may be passed by asks for the time (sources.py). `rests`: what other transfers saw of doors.
    `doors`: the sites that have an open one now. `tools`: those on this site's links, by the link's other end.
    """
    if row.state in (State.NEW, State.CLOSED) or manifest is None:
        return []
    if row.completion is not None:
        return [c.Owed(c.CloseTransfer(row.manifest, row.completion))]
    if row.state is State.COMPLETE:
        word = completion(row, manifest, here)
        return [c.Owed(c.CloseTransfer(row.manifest, word) if row.final else c.FixCompletion(row.manifest, word))]
    if row.verdict is not m.Verdict.ACCEPTED:
        reason = _reason(row.reason.text if row.reason else row.verdict, phase=STOPPED)
        return [c.Owed(c.StopPart(row.manifest, row.live_attempt, reason))]
    out = [
        c.Owed(c.ExpireLease(row.manifest, source.source, request.request_no, request.plane), request.until_ms)
        for source in row.sources
        for request in source.outstanding
    ]
    if row.state is State.PLANNED or not part_here:
        return [c.Owed(open_part(row)), *out]
    if not out and (row.verified | row.excused(manifest)).covers(0, row.total):
        # Everything is on disk and nothing sealed it, or the seal was not heard: opening again finds out.
        return [c.Owed(open_part(row, again=True))]
    if lost := unobtainable(row, manifest, here):
        out.append(c.Owed(c.FailItems(row.manifest, lost)))
    for source in row.sources:
        for o in source.outstanding:
            if tool_of(o.plane) is not None:
                bring = c.BringByTool(row.manifest, source.source, o.request_no, o.attempt, o.plane, o.ranges)
                out.append(c.Owed(bring))
    return [*out, *requests(row, manifest, here, policy, now_ms, rests, doors, tools)]


def open_part(row: TransferRow, *, again: bool = False) -> c.OpenPart:
    return c.OpenPart(row.manifest, row.live_attempt, row.verified, row.sealed, row.failed_items, row.repair, again)


def waits_for(row: TransferRow, *, part_here: bool, granted: bool, opening: str = "") -> str:
    """In words, what an open transfer waits for now; "" when nothing. `opening`: what its parts wait for."""
    match row.state:
        case State.NEW:
            return "its manifest"
        case State.CLOSED:
            return ""
        case State.COMPLETE | State.CLOSING:
            return "its completion to be acknowledged by the broker"
    if row.verdict is not m.Verdict.ACCEPTED:
        return "its part files to be dropped"
    if row.state is State.PLANNED or not part_here:
        return f"its part files to be opened{f' ({opening})' if opening else ''}"
    before = {route.site for route in row.routes if route.plane == RELAY}
    asked = [
        f"{plane_in_words(o.plane)} to bring request {o.request_no} from {s.source}"
        if tool_of(o.plane) is not None
        else f"{s.source}{', which gets it before,' if s.source in before else ''} to answer request {o.request_no}"
        f"{'' if o.plane == LOG else f' by {o.plane}'}"
        for s in row.sources
        for o in s.outstanding
    ]
    failing = [f"{s.source} to be asked again" for s in row.sources if (s.failed or s.unread) and not s.outstanding]
    idle = "its items to be sealed" if granted else "credit of its partition"
    text = ", ".join(asked or failing) or idle
    why = list(tried_in_words(row))
    if row.plane is not None and not asked:
        why.append(f"the intent insists on {'the ' if tool_of(row.plane) is None else ''}{plane_in_words(row.plane)}")
    return f"{text} ({'; '.join(why)})" if why else text


def report(
    row: TransferRow, manifest: ManifestIndex | None, here: Site, decision_no: int, waiting: str
) -> m.TransferReported:
    """The transfer's state in numbers. `verified` counts units that are on disk: verified or of sealed items."""
    have = row.verified | manifest.line.ranges_of(row.sealed) if manifest is not None else row.verified
    return m.TransferReported(
        intent=row.manifest.intent,
        manifest=row.manifest,
        destination=here,
        decision_no=max(decision_no, row.decision_no),
        state=row.state,
        verified=have.size,
        total=row.total,
        sealed=row.sealed.size,
        failed=(row.failed_items - row.sealed).size,
        items=row.items,
        waits_for=Text(waiting[:400]),
        reason=next((group.reason for group in row.failed if group.items - row.sealed), row.reason),
        unit=manifest.unit if manifest is not None else m.Unit.BYTES,
        planes=row.planes,
    )
