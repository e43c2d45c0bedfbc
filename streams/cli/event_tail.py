"""`transfer2go event tail`: entries of an intent as JSON lines, while they come."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from streams import waits
from streams.cli import screen
from streams.cli.entry_rows import rows_of, worded
from streams.client.producer import IntentHandle, TransferClient
from streams.client.request import Until
from streams.consuming.stream import EventStream
from streams.core.selections.parts import entries_of
from streams.errors import UsageError
from streams.settings import Settings

_LOOK_S = 0.5
_TAIL_BYTES = 4 * 1024 * 1024
"""Asked for ahead of what is printed: a terminal is slow, and most look at the first entries only."""


def tail(
    settings: Settings, intent: str, name: str | None, columns: str | None, most: int | None, timeout_s: float | None
) -> None:
    """Print at most `most` entries; as consumer `name`, or with an intent of its own that is cancelled in the end."""
    if name is not None and columns is not None:
        raise UsageError("--columns with --name", next="a consumer reads what its intent asked for")
    with TransferClient(settings) as client:
        asked = client.intent(intent)
        if name is not None:
            _print(settings, asked.id, name, most, timeout_s)
            return
        with _onlooking(client, asked, columns) as own:
            _print(settings, own.id, None, most, timeout_s)


@contextmanager
def _onlooking(client: TransferClient, asked: IntentHandle, columns: str | None) -> Iterator[IntentHandle]:
    body = asked.snapshot().body
    selection = entries_of(body.selection) if body is not None and body.selection is not None else None
    if body is None or selection is None:
        raise UsageError(f"{asked.id} asks for no entries", next="see `transfer2go intent add --help`, --entries")
    if columns is not None:
        selection = replace(selection, columns=tuple(columns.split(",")))
    onlooker = f"{client.site}/tail-{uuid.uuid4().hex[:12]}"
    until: Until | None = "close" if asked.snapshot().growing else None
    own = client.publish(
        body.selectors, [onlooker], source=body.source, entries=selection, priority=body.priority, until=until
    )
    screen.say(f"looking on as {onlooker}, intent {own.id}")
    try:
        yield own
    finally:
        if not own.snapshot().ended:
            own.cancel()


def _print(settings: Settings, intent: str, name: str | None, most: int | None, timeout_s: float | None) -> None:
    left, outage = most, screen.Outage()
    with (
        EventStream(intent, name, settings=settings, ahead_bytes=_TAIL_BYTES, timeout_s=timeout_s) as stream,
        # while whoever iterates waits for a batch, another thread looks whether the broker is there
        waits.looking(lambda: outage.note(stream.away), _LOOK_S, "outages"),
    ):
        for batch in stream:
            for number, values in enumerate(rows_of(batch.arrow), batch.start):
                told = screen.labelled({"lfn": batch.lfn, "entry": number}, values)
                screen.put_json(told, default=worded, ensure_ascii=True)
                if left is not None and (left := left - 1) == 0:
                    return
