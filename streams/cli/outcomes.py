"""An intent as people and programs see it: where its files are, which did not arrive and why. Asks nothing itself."""

from __future__ import annotations

from dataclasses import asdict

from streams.cli import piped, screen
from streams.cli.eta import Eta
from streams.cli.words import by_planes, waiting
from streams.client.intent_snapshot import Snapshot
from streams.core import records as m

UNFINISHED_SHOWN = 20


def what(snapshot: Snapshot) -> str:
    """The first thing asked for, and how many more."""
    selectors = snapshot.body.selectors if snapshot.body else ()
    more = f" +{len(selectors) - 1}" if len(selectors) > 1 else ""
    return f"{selectors[0].name}{more}" if selectors else "-"


def took_s(snapshot: Snapshot) -> float | None:
    """Seconds from when it was asked to what was heard of it last, each by its writer's clock; None when not known."""
    if snapshot.asked_ms is None or snapshot.last_ms is None:
        return None
    return max(0, snapshot.last_ms - snapshot.asked_ms) / 1000


@piped.to_its_end()
def show(snapshot: Snapshot, as_json: bool, eta: Eta | None = None, now_ms: int = 0) -> None:
    """The whole of it, before its exit code: who reads no further takes that all the same."""
    if as_json:
        screen.put_json(as_object(snapshot, short=False, eta=eta))
        return
    screen.put(f"{snapshot.intent}  {snapshot.outcome}  asked {screen.moment(snapshot.asked_ms)}  {what(snapshot)}")
    if snapshot.reason:
        screen.put(f"reason: {snapshot.reason}")
    if snapshot.growing:
        screen.put(waiting(snapshot) or "open: takes files that are registered later too")
    for answer in snapshot.pending:
        screen.put(f"{answer.site}: waits for approval by {answer.by}")
    for answer in snapshot.denials if not snapshot.reason else ():
        screen.put(f"{answer.site}: denied by {answer.by}: {answer.reason}")
    removes = snapshot.body is not None and snapshot.body.verb is m.Verb.REMOVE
    screen.table(
        ("site", ">files", ">removed", ">kept", ">cancelled", ">left", ">size", ">removed size")
        if removes
        else ("destination", ">files", ">arrived", ">failed", ">cancelled", ">left", ">size", ">arrived size"),
        (
            (
                d.destination,
                d.files,
                d.arrived,
                d.failed,
                d.cancelled,
                d.left,
                screen.size(d.bytes),
                screen.size(d.arrived_bytes),
            )
            for d in (snapshot.destinations if snapshot.files else ())
        ),
        empty="nothing is known of its files yet",
    )
    if snapshot.leaving and snapshot.files:
        screen.table(
            ("leaves", ">files", ">removed", ">kept", ">left", ">size", ">removed size"),
            (
                (
                    d.destination,
                    d.files,
                    d.arrived,
                    d.failed,
                    d.left,
                    screen.size(d.bytes),
                    screen.size(d.arrived_bytes),
                )
                for d in snapshot.leaving
            ),
            empty="nothing has left yet",
        )
    for arrivals in (*snapshot.destinations, *snapshot.leaving):
        for report in arrivals.open:
            if report.waits_for:
                which = f"{arrivals.destination}, manifest {report.manifest.no}{by_planes(report.planes)}"
                screen.put(f"{which}: waits for {report.waits_for}")
        for removal in arrivals.removing:
            screen.put(f"{arrivals.destination}, part {removal.part}: waits for {removal.waits_for or 'nothing'}")
    if eta is not None:
        screen.put(eta.in_words(now_ms))
    for one in snapshot.unfinished[:UNFINISHED_SHOWN]:
        screen.put(f"{one.destination}: {one.lfn}: {one.reason.text}")
    if len(snapshot.unfinished) > UNFINISHED_SHOWN:
        screen.put(f"… and {len(snapshot.unfinished) - UNFINISHED_SHOWN:,} more; --json lists up to 1,000")


def as_object(snapshot: Snapshot, *, short: bool, eta: Eta | None = None) -> dict[str, object]:
    body = snapshot.body
    found: dict[str, object] = {
        "intent": snapshot.intent,
        "state": snapshot.outcome,
        "outcome": snapshot.outcome,
        "ended": snapshot.ended,
        "exit_code": snapshot.exit_code,
        "reason": snapshot.reason,
        "asked": screen.moment(snapshot.asked_ms),
        "last_heard": screen.moment(snapshot.last_ms),
        "planned": snapshot.planned,
        "open": snapshot.growing,
        "destinations": [
            {
                "site": d.destination,
                **d.counts(),
                "reasons": dict(d.reasons),
                "open": [
                    {
                        "manifest": r.manifest,
                        "state": r.state,
                        "verified": r.verified,
                        "total": r.total,
                        "planes": list(r.planes),
                        "waits_for": r.waits_for,
                        "reason": None if r.reason is None else asdict(r.reason),
                    }
                    for r in d.open
                ],
            }
            for d in snapshot.destinations
        ],
        "answers": [asdict(answer) for answer in snapshot.answers],
        "leaving": [{"site": d.destination, **d.counts(), "reasons": dict(d.reasons)} for d in snapshot.leaving],
    }
    if eta is not None:
        found["eta"] = eta.as_object()
    if not short:
        found["body"] = None if body is None else screen.plain(body)
        found["unfinished"] = [
            {"destination": u.destination, "lfn": u.lfn, **asdict(u.reason)} for u in snapshot.unfinished
        ]
    return found
