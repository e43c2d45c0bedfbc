"""Records and intents told in words: a line a record for `topic tail`, sentences for `intent explain`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from urllib.parse import urlsplit

from streams.cli.screen import clock, duration, moment, size
from streams.client.intent_snapshot import Arrivals, Snapshot
from streams.core import records as m
from streams.core.channel import LOG, URLS, plane_in_words, tool_of
from streams.core.intent import State
from streams.core.ranges import Ranges

SPANS_SHOWN = 3

QUIET_S = 5.0
"""Reports of a transfer that moves come more often: what it says has stood since then."""
SILENT_S = 300.0
"""An open transfer reports what changes; after so long without any news somebody should look."""


def spans(ranges: Ranges) -> str:
    """`[0,5) [7,9) +3`: the first spans, and how many more."""
    shown = " ".join(f"[{a},{b})" for a, b in ranges.spans[:SPANS_SHOWN])
    more = len(ranges.spans) - SPANS_SHOWN
    return (f"{shown} +{more}" if more > 0 else shown) or "-"


def because(reason: m.Reason | None) -> str:
    return "" if reason is None else f" because {reason.scope}/{reason.failure_class} at {reason.phase}: {reason.text}"


def _failed(groups: tuple[m.FailedItems, ...]) -> str:
    count = sum(group.items.size for group in groups)
    return f", {count} failed{because(groups[0].reason)}" if groups else ""


def _at(endpoint: str) -> str:
    return f" at {endpoint}" if endpoint else ""


def _step(step: m.ChainStep) -> str:
    match step:
        case m.ClaimDecided():
            return f"notes {len(step.noted)} claims, ends {len(step.ended)}"
        case m.LeaveAsked():
            asked = f", asks {' '.join(step.asked)} to keep theirs" if step.asked else ""
            return f"would remove {len(step.files)} files of {step.block}{_at(step.endpoint)}{asked}"
        case m.KeepPromised():
            what = f"{len(step.promised)} files of ask {step.ask_no}, not {len(step.refused)}"
            return f"promises {step.asker} to keep {what}"
        case m.RemovalDecided():
            removed = sum(len(group.lfns) for group in step.removed)
            return f"removes {removed} files of ask {step.ask_no}, keeps {len(step.kept)}"
        case _:
            return f"{step.by} settles the chain"


def line(fact: m.Message) -> str:
    """What a record says, in one line without its key, time and writer."""
    match fact:
        case m.TransferIntent():
            names = " ".join(s.name for s in fact.selectors[:3])
            more = f" +{len(fact.selectors) - 3}" if len(fact.selectors) > 3 else ""
            source = f" from {fact.source}" if fact.source else ""
            to = " ".join(fact.destinations)
            way = f", by {plane_in_words(fact.plane)} only" if fact.plane else ""
            if fact.verb is m.Verb.REMOVE:
                why = f": {fact.reason}" if fact.reason else ""
                return f"{fact.requester} asks to remove {names}{more} at {to}, {fact.copies} copies elsewhere{why}"
            asks = "asks to repair" if fact.repair else "asks to move" if fact.verb is m.Verb.MOVE else "asks"
            way += f", files leave {' '.join(fact.release_from)}" if fact.release_from else ""
            return f"{fact.requester} {asks} {names}{more}{source} → {to}, priority {fact.priority}{way}"
        case m.IntentAsked():
            value = f" {fact.priority}" if fact.priority is not None else ""
            where = f" at {fact.site}" if fact.site is not None else ""
            return f"{fact.asked_by} asks: {fact.asked}{value}{where}{f': {fact.reason}' if fact.reason else ''}"
        case m.SiteAnswered():
            why = f": {fact.reason}" if fact.reason else ""
            who = (
                f"waits for approval by {fact.by}" if fact.answer is m.Answer.PENDING else f"{fact.answer} by {fact.by}"
            )
            return f"{fact.site} answers {fact.answer_no}: {who}{why}"
        case m.IntentDecided():
            source = f", source {fact.source} ({fact.source_no})" if fact.source else ""
            told = f"{fact.verdict}{source}, priority {fact.priority}"
            return f"decision {fact.decision_no}: {told}{because(fact.reason)}"
        case m.ManifestWritten():
            total = sum(item.bytes for item in fact.items)
            last = ", the last" if fact.last else ""
            name = f"manifest {fact.source_no}.{fact.no} by {fact.source}"
            return f"{name}: {len(fact.items)} items, {size(total)}{last}"
        case m.FilesHeld():
            total = sum(file.bytes for file in fact.files)
            how = f" by {fact.manifest}" if fact.manifest else ""
            return f"{fact.site} holds {len(fact.files)} files{_at(fact.endpoint)}, {size(total)}{how}"
        case m.FilesLost():
            how = "removed" if fact.removal_sha256 else "lost"
            return f"{fact.site} {how} {len(fact.lfns)} files{_at(fact.endpoint)}{because(fact.reason)}"
        case m.ChainStep():
            return f"{fact.site} step {fact.no}: {_step(fact)}{f', {fact.reason}' if fact.reason else ''}"
        case m.ReplicasChecked():
            what = f"{len(fact.found)} files that {fact.asker} would remove, {len(fact.missing)} missing"
            seen = f", {len(fact.seen)} looked at" if fact.seen else ""
            return f"{fact.site} has {what}{seen}"
        case m.RemovalReported():
            what = f"{fact.removed} files removed, {fact.kept} kept, {fact.open} open"
            waits = f", waits for {fact.waits_for}" if fact.waits_for else ""
            return f"{fact.site} reports part {fact.part}{', the last time' if fact.last else ''}: {what}{waits}"
        case m.SiteAnnounced():
            state = "closes" if fact.closing else "is alive"
            api = f", API {fact.api}" if fact.api else ""
            door = f", door {fact.door}" if fact.door else ""
            return f"{fact.role} {fact.writer} of {fact.site} {state}{api}{door}, {len(fact.sequences)} sequences"
        case m.JournalsSealed():
            records = sum(one.size for one in fact.journals)
            by = f", signed by {fact.certificate.kid}" if fact.certificate else ", unsigned"
            return f"seal {fact.no} of {fact.site}: {len(fact.journals)} journals, {records:,} records{by}"
        case m.DeadLetter():
            return f"refused {fact.topic}[{fact.partition}]@{fact.offset}: {fact.reason}"
        case m.TransferPlanned():
            ways = f", by {plane_in_words(fact.plane)} only" if fact.plane else ""
            ways += "".join(f", by {plane_in_words(route.plane)}: {route.why}" for route in fact.routes)
            ways += ", in place of damaged files" if fact.repair else ""
            return f"planned at {fact.destination}: {len(fact.body.items)} items, priority {fact.priority}{ways}"
        case m.TransferDecided():
            return f"decision {fact.decision_no}: {fact.verdict}, priority {fact.priority}{because(fact.reason)}"
        case m.PartOpened():
            there = f"{fact.present.size} already there"
            return f"attempt {fact.attempt} opened at {fact.endpoint}, {there}{_failed(fact.failed)}"
        case m.PartLost():
            return f"attempt {fact.attempt} lost{because(fact.reason)}"
        case m.LeaseExpired():
            return f"request {fact.request_no} to {fact.source} expired"
        case m.SourceFailed():
            what = f"{spans(fact.items)} of request {fact.request_no}" if fact.items else f"request {fact.request_no}"
            if tool_of(fact.plane) is not None:
                return f"{plane_in_words(fact.plane)} did not bring {what} from {fact.source}{because(fact.reason)}"
            return f"{fact.source} cannot read {what} now{because(fact.reason)}"
        case m.TransferClosed():
            return f"{'closed' if fact.acknowledged else 'last word fixed'}: {fact.completion.ended}"
        case m.ChunksRequested():
            until = moment(fact.until_ms)
            way = "" if fact.plane == LOG else f" by {plane_in_words(fact.plane)}"
            what = f"{spans(fact.ranges)} of {len(fact.items)} items{way}"
            return f"request {fact.request_no} to {fact.source} for {what}, until {until}"
        case m.TransferProgress():
            return (
                f"attempt {fact.attempt}: {fact.verified.size} verified {spans(fact.verified)}, "
                f"{fact.sealed.size} sealed{_failed(fact.failed)}"
            )
        case m.ChunksServed() if fact.plane == URLS:
            what = f"request {fact.request_no} of {fact.destination}: {spans(fact.ranges)}"
            return f"{fact.source} said where others give {what}"
        case m.ChunksServed():
            way = "" if fact.plane == LOG else f" by {fact.plane}"
            return f"{fact.source} served request {fact.request_no} of {fact.destination}{way}: {size(fact.bytes)}"
        case m.ChunksOffered():  # whoever has its ticket may fetch what it offers: that is not shown
            what = f"request {fact.request_no} of {fact.destination}: {spans(fact.ranges)}"
            if fact.reason is not None:
                return f"{fact.source} offers nothing for {what}{because(fact.reason)}"
            return f"{fact.source} offers {what} at {', '.join(door.url for door in fact.doors)}"
        case m.UrlsOffered():  # what their queries hold is not shown
            what = f"request {fact.request_no} of {fact.destination}: {spans(fact.ranges)}"
            hosts = ", ".join(sorted({urlsplit(one.url).netloc for one in fact.urls}))
            at = f" at {hosts}, by {len(fact.urls)} URLs" if fact.urls else ""
            return f"{fact.source} offers {what}{at}{_failed(fact.failed)}"
        case m.TransferReported():
            waits = f", waits for {fact.waits_for}" if fact.waits_for else ""
            return (
                f"{fact.destination}: {fact.state}, {fact.verified}/{fact.total} verified{by_planes(fact.planes)}, "
                f"{fact.sealed}/{fact.items} sealed, {fact.failed} failed{waits}{because(fact.reason)}"
            )
        case m.CompletionRecord():
            return (
                f"{fact.destination}: {fact.ended}, {fact.sealed.size}/{fact.items} sealed, "
                f"{size(fact.bytes)}{_failed(fact.failed)}"
                + (f", {fact.cancelled.size} cancelled" if fact.cancelled else "")
            )
        case _:  # a record without words of its own says its fields
            named = ((one.name, getattr(fact, one.name)) for one in fields(fact))
            return ", ".join(f"{name} {value}" for name, value in named if name not in ("intent", "manifest"))


def chunk_line(header: m.ChunkHeader) -> str:
    bad = sum(1 for s in header.segments if s.reason is not None)
    faults = f", {bad} without bytes{because(next(s.reason for s in header.segments if s.reason))}" if bad else ""
    total = sum(s.size for s in header.segments)
    last = ", the last" if header.last else ""
    return (
        f"to {header.destination}, request {header.request_no}: [{header.start},{header.stop}) "
        f"in {len(header.segments)} segments, {size(total)}{faults}{last}"
    )


def carriers(snapshot: Snapshot) -> str:
    """By which carriers the open transfers of an intent move; "" while none does."""
    return by_planes({plane for a in snapshot.destinations for report in a.open for plane in report.planes}).strip()


def by_planes(planes: Iterable[str]) -> str:
    """As " by door and log"; nothing where none is known."""
    named = " and ".join(map(plane_in_words, sorted(planes)))
    return f" by {named}" if named else ""


def waiting(snapshot: Snapshot) -> str:
    """What an intent waits for before its first file is known, or an open one when all has arrived; else ""."""
    if snapshot.idle:
        return "open: waits for more files"
    if snapshot.pending and not snapshot.arrived:
        return f"waits for approval at {' and '.join(one.site for one in snapshot.pending)}"
    if snapshot.ended or snapshot.files:
        return ""
    if snapshot.decision is None:
        return "waits for its home's decision"
    if snapshot.body is not None and snapshot.body.verb is m.Verb.REMOVE:
        return "waits for its sites to look at their files"
    return f"waits for the manifests of {snapshot.decision.source}"


def holdup(snapshot: Snapshot) -> str:
    """What the first open transfer of an intent waits for, in words that go on from "waits for", and how many more do.

    "" when none says so.
    """
    if snapshot.ended or snapshot.idle:
        return ""
    said = [
        (arrivals.destination, words)
        for arrivals in (*snapshot.destinations, *snapshot.leaving)
        for words in (*(r.waits_for for r in arrivals.open), *(r.waits_for for r in arrivals.removing))
        if words
    ]
    if not said and snapshot.pending:
        return f"approval at {' and '.join(one.site for one in snapshot.pending)}"
    if not said:
        return next((f"{a.destination} to report" for a in snapshot.destinations if a.left and not a.open), "")
    (where, what), more = said[0], len(said) - 1
    return f"{what} (at {where}" + (f", and {more} more)" if more else ")")


def explain(snapshot: Snapshot, now_ms: int) -> list[str]:
    """Why an intent is where it is: a sentence a line."""
    lines = [_headline(snapshot, now_ms)]
    body = snapshot.body
    if body is not None and body.deadline_ms is not None and not snapshot.ended:
        left = (body.deadline_ms - now_ms) / 1000
        lines.append(
            f"Its deadline is {moment(body.deadline_ms)}, " + (f"in {duration(left)}." if left > 0 else "passed.")
        )
    if body is not None and body.plane is not None and not snapshot.ended:
        lines.append(f"Its bytes come by {plane_in_words(body.plane)} and no other way, as it was asked for.")
    if body is not None and body.repair and not snapshot.ended:
        lines.append("Damaged files at its destinations keep their names until whole ones take their place.")
    for answer in snapshot.pending:
        lines.append(
            f"{answer.site} waits for approval by {answer.by}: `transfer2go --site {answer.site} intent approve "
            f"{snapshot.intent}`, or deny."
        )
    for answer in snapshot.denials:
        lines.append(f"{answer.site} takes no part: denied by {answer.by}: {answer.reason}.")
    for arrivals in snapshot.destinations if snapshot.files else ():
        lines += _at_destination(arrivals, snapshot, now_ms)
    for arrivals in snapshot.leaving if snapshot.files else ():
        lines += _at_source_of_move(arrivals)
    return lines + _silence(snapshot, now_ms)


def _silence(snapshot: Snapshot, now_ms: int) -> list[str]:
    """That nothing has been heard of an open intent for long; none of one that waits for its user."""
    if snapshot.ended or snapshot.idle or snapshot.last_ms is None:
        return []
    silent_s = (now_ms - snapshot.last_ms) / 1000
    if silent_s < QUIET_S:
        return []
    if silent_s < SILENT_S:
        return [f"The last news of it: {clock(snapshot.last_ms / 1000)}, {duration(silent_s)} ago."]
    return [
        f"Nothing has been heard of it for {duration(silent_s)}, since {moment(snapshot.last_ms)}: "
        "`transfer2go doctor` looks for what is down, `transfer2go dlq list` for records that were refused."
    ]


def _headline(snapshot: Snapshot, now_ms: int) -> str:
    home, decision = snapshot.intent.home, snapshot.decision
    since = f" for {duration((now_ms - snapshot.asked_ms) / 1000)}" if snapshot.asked_ms else ""
    match snapshot.state:
        case State.NEW:
            return f"Facts about it are known here, but neither its body nor a decision of {home} is: a mirror lags."
        case State.ASKED:
            return (
                f"Asked{since}, undecided: its home {home} must decide. That takes a second when a worker of it runs "
                f"and it knows the names; names it does not know are waited for up to 60 s, as mirrors lag."
            )
        case State.REFUSED:
            return f"Refused by {home}: {snapshot.reason or 'no reason given'}."
        case State.CANCELLED:
            return f"Cancelled by {home}: {snapshot.reason or 'no reason given'}. What had arrived stays."
        case State.DONE:
            took = (
                f" in {duration((snapshot.last_ms - snapshot.asked_ms) / 1000)}"
                if snapshot.last_ms and snapshot.asked_ms
                else ""
            )
            if snapshot.body is not None and snapshot.body.verb is m.Verb.REMOVE:
                kept = f", {snapshot.lost:,} stay" if snapshot.lost else ""
                return f"Ended{took}: {snapshot.arrived:,} of {snapshot.files:,} files are removed{kept}."
            if missing := sum(a.failed + a.cancelled for a in snapshot.destinations):
                some = (
                    f"{missing:,} of {snapshot.files:,} files did not arrive" if snapshot.arrived else "no file arrived"
                )
                return f"Ended{took}: {some}."
            where = " and ".join(a.destination for a in snapshot.leaving)
            if stay := sum(a.failed for a in snapshot.leaving):
                return f"Ended{took}: every file is at every destination, and {stay:,} stay at {where}."
            left = f", and has left {where}" if where else ""
            return f"Done{took}: every file is at every destination{left}."
    assert decision is not None
    source = decision.source
    if snapshot.growing:
        now = "waits for more files" if snapshot.idle else "its files are on their way, and more may come"
        return (
            f"Accepted by {home}, source {source}, priority {decision.priority}; open: {now} "
            f"({snapshot.files:,} files so far){_open_until(snapshot.body, now_ms)}."
        )
    if not snapshot.planned:
        return (
            f"Accepted by {home}, source {source}, priority {decision.priority}; {source} still writes its manifests "
            f"({snapshot.files:,} files so far)."
        )
    return f"Accepted by {home}, source {source}, priority {decision.priority}; all manifests are known."


def _open_until(body: m.TransferIntent | None, now_ms: int) -> str:
    if body is not None and body.until_ms is not None:
        left = (body.until_ms - now_ms) / 1000
        return f", until {moment(body.until_ms)}" + (f", in {duration(left)}" if left > 0 else ", which has passed")
    if body is not None and body.until_items is not None:
        return f", until it has {body.until_items:,}"
    return ", until somebody closes it"


def _at_destination(arrivals: Arrivals, snapshot: Snapshot, now_ms: int) -> list[str]:
    where = arrivals.destination
    counts = [f"{arrivals.arrived:,} of {arrivals.files:,} files arrived"]
    counts += [f"{arrivals.failed:,} failed"] if arrivals.failed else []
    counts += [f"{arrivals.cancelled:,} cancelled"] if arrivals.cancelled else []
    lines = [f"{where}: {', '.join(counts)} ({size(arrivals.arrived_bytes)} of {size(arrivals.bytes)})."]
    for report in arrivals.open:
        waits = f"waits for {report.waits_for}" if report.waits_for else "is at work"
        moved = f"{size(report.verified)} of {size(report.total)}{by_planes(report.planes)}"
        lines.append(
            f"  manifest {report.manifest.no}: {report.state}, {report.sealed:,}/{report.items:,} files, "
            f"{moved}; {waits}{because(report.reason)}"
        )
    if (words := not_come(arrivals)) and snapshot.state is State.ACTIVE:
        lines.append(f"  {words}")
    elif where in {one.site for one in snapshot.pending}:
        pass  # that it waits for somebody is said above
    elif arrivals.left and not arrivals.open and snapshot.state is State.ACTIVE:
        lines.append(
            f"  {where} has not reported on {arrivals.left:,} files: they wait for a place, or its workers are down."
        )
    lines += [f"  {count:,} failed: {text}" for text, count in arrivals.reasons]
    return lines


def _at_source_of_move(arrivals: Arrivals) -> list[str]:
    """How far the files of a move have left a site."""
    where = arrivals.destination
    kept = f", {arrivals.failed:,} stay" if arrivals.failed else ""
    lines = [f"{where}: {arrivals.arrived:,} files have left{kept} ({size(arrivals.arrived_bytes)})."]
    lines += [f"  part {report.part}: waits for {report.waits_for or 'nothing'}" for report in arrivals.removing]
    return lines + [f"  {count:,} stay: {text}" for text, count in arrivals.reasons]


def not_come(arrivals: Arrivals) -> str:
    """That a destination is a consumer of which nothing was heard ever, though it has files to read; else ""."""
    where = arrivals.destination
    if not where.consumer or arrivals.open or not arrivals.files or arrivals.left < arrivals.files:
        return ""
    return (
        f"{where} has not come yet: nobody reads as {where.consumer} at {where.site} "
        f"(`transfer2go event tail --name {where.consumer}`, `event work`, or EventStream)."
    )
