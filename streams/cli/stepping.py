"""Steps of a history as people and programs read them: when, what, by whom, and where its record stands."""

from __future__ import annotations

from typing import Any

from streams.auditing.history import History
from streams.cli import piped, screen
from streams.cli.as_of import moment
from streams.core.ledger.custody import Step


def show(history: History, as_json: bool) -> None:
    with piped.to_its_end():
        screen.listing(history.steps, as_json, _as_object, ("when", "step", "by", "record"), _row)
    screen.say(f"as an audit had read the journals by {moment(history.read_ms)}; `transfer2go audit` reads on")


def _as_object(step: Step) -> dict[str, Any]:
    return {
        "at_ms": step.at_ms,
        "step": step.words,
        "by": step.by,
        "record": None if step.place is None else step.place._asdict(),
    }


def _row(step: Step) -> tuple[object, ...]:
    return None if step.at_ms is None else moment(step.at_ms), step.words, step.by, step.place
