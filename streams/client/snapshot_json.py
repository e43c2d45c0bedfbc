"""A Snapshot as JSON and back: what a worker's API says of an intent, and its clients read. Pure."""

from __future__ import annotations

from typing import Any

from streams.client.intent_snapshot import COUNTS, Arrivals, Snapshot, Unfinished
from streams.core import records as m
from streams.core.intent import SiteAnswer, State
from streams.core.names import Destination, IntentId
from streams.wire import avro

_write_body, _read_body = avro.writer(m.TransferIntent), avro.reader(m.TransferIntent)
_write_report, _read_report = avro.writer(m.TransferReported), avro.reader(m.TransferReported)
_write_removal, _read_removal = avro.writer(m.RemovalReported), avro.reader(m.RemovalReported)
_write_decision, _read_decision = avro.writer(m.IntentDecided), avro.reader(m.IntentDecided)
_write_unfinished, _read_unfinished = avro.writer(Unfinished), avro.reader(Unfinished)
_write_answer, _read_answer = avro.writer(SiteAnswer), avro.reader(SiteAnswer)
_SAID_ALREADY = ("intent", "body")
"""Of a decision: they stand beside it."""


def to_plain(snapshot: Snapshot) -> dict[str, Any]:
    """Dicts, lists, text and numbers. `state`, `outcome` and `exit_code` are for who reads it without our code."""
    decision = snapshot.decision
    return {
        "intent": snapshot.intent,
        "state": str(snapshot.state),
        "outcome": snapshot.outcome,
        "ended": snapshot.ended,
        "exit_code": snapshot.exit_code,
        "planned": snapshot.planned,
        "growing": snapshot.growing,
        "asked_ms": snapshot.asked_ms,
        "last_ms": snapshot.last_ms,
        "body": None if snapshot.body is None else _write_body(snapshot.body),
        "decision": None
        if decision is None
        else {name: value for name, value in _write_decision(decision).items() if name not in _SAID_ALREADY},
        "destinations": [_arrivals(arrivals) for arrivals in snapshot.destinations],
        "leaving": [_arrivals(arrivals) for arrivals in snapshot.leaving],
        "answers": [_write_answer(one) for one in snapshot.answers],
        "unfinished": [_write_unfinished(one) for one in snapshot.unfinished],
    }


def _arrivals(arrivals: Arrivals) -> dict[str, Any]:
    return {
        "destination": arrivals.destination,
        **arrivals.counts(),
        "open": [_write_report(report) for report in arrivals.open],
        "reasons": [[text, count] for text, count in arrivals.reasons],
        "removing": [_write_removal(report) for report in arrivals.removing],
    }


def from_plain(plain: dict[str, Any]) -> Snapshot:
    """Inverse of `to_plain`. LookupError, TypeError, ValueError or InvalidName for anything else."""
    decided = plain["decision"]
    return Snapshot(
        intent=IntentId(plain["intent"]),
        state=State(plain["state"]),
        body=None if plain["body"] is None else _read_body(plain["body"]),
        decision=None if decided is None else _read_decision({**plain, **decided}),
        planned=bool(plain["planned"]),
        destinations=tuple(_read_arrivals(one) for one in plain["destinations"]),
        unfinished=tuple(_read_unfinished(one) for one in plain["unfinished"]),
        asked_ms=plain["asked_ms"],
        last_ms=plain["last_ms"],
        ended=bool(plain["ended"]),
        growing=bool(plain["growing"]),
        leaving=tuple(_read_arrivals(one) for one in plain["leaving"]),
        answers=tuple(_read_answer(one) for one in plain["answers"]),
    )


def _read_arrivals(plain: dict[str, Any]) -> Arrivals:
    counts: dict[str, Any] = {name: int(plain[name]) for name in COUNTS}
    return Arrivals(
        destination=Destination(plain["destination"]),
        **counts,
        open=tuple(_read_report(report) for report in plain["open"]),
        reasons=tuple((str(text), int(count)) for text, count in plain["reasons"]),
        removing=tuple(_read_removal(report) for report in plain["removing"]),
    )
