"""`--as-of INSTANT`: an instant as a position in each partition, since order comes from positions, not from clocks.

The position is behind the last record whose running maximum of times is not later. It is told, so that the same answer
can be had again whatever clocks say.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from streams.cli import screen
from streams.core.names import shown
from streams.core.topics import LogPartition
from streams.errors import NotFound, UsageError
from streams.kafka.reader import Record

_F = TypeVar("_F", bound=Callable[..., Any])


class AsOf:
    """An instant (ms of the epoch), and the cut that it becomes while partitions are read from their beginning."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms
        self.cut: dict[LogPartition, int] = {}
        """The offset behind the last record that counts, of each partition of which any does."""
        self._ended: set[LogPartition] = set()
        self._first_ms: int | None = None

    def takes(self, record: Record) -> bool:
        """Whether the next record of its partition stands before the cut."""
        place = record.topic, record.partition
        if self._first_ms is None or record.timestamp_ms < self._first_ms:
            self._first_ms = record.timestamp_ms
        if place in self._ended:
            return False
        if record.timestamp_ms > self.at_ms:
            self._ended.add(place)
            return False
        self.cut[place] = record.offset + 1
        return True

    def tell(self) -> None:
        """Say the cut, once all was read. NotFound where it is before the first record."""
        if not self.cut:
            first = "" if self._first_ms is None else f"; the first record is of {moment(self._first_ms)}"
            raise NotFound(f"nothing was written by {moment(self.at_ms)}{first}")
        places = ", ".join(f"{topic}[{partition}]@{end}" for (topic, partition), end in sorted(self.cut.items()))
        screen.say(f"as of {moment(self.at_ms)}, which is the cut {places}")


def moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def parsed(text: str) -> AsOf:
    """A time as ISO 8601 has it, of UTC where it names no zone; UsageError for other words and for what is to come."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{shown(text)!r} is no instant", next="use a time as 2026-11-30T14:00:00Z") from error
    at_ms = int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
    if at_ms > time.time() * 1000:
        raise UsageError(f"{text} is in the future", next="leave out --as-of for what is known now")
    return AsOf(at_ms)


def as_of_option(command: _F) -> _F:
    return click.option(
        "--as-of",
        metavar="INSTANT",
        callback=lambda _ctx, _param, value: None if value is None else parsed(value),
        help="As the journals here stood then, a time as 2026-11-30T14:00:00Z: they are read from their beginning.",
    )(command)
