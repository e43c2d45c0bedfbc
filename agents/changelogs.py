"""The changelogs of the tables: what turns put goes out together, each partition's rows in one batch.

Faust sends every put by itself, and each costs more than the turn that made it: a message, a future, a task's step, and
an offset written into RocksDB. Nobody waits for a changelog but the commit. So puts are gathered for LINGER_S, of a row
that is put twice meanwhile the last counts, and a commit has sent what stands here before it is made.

Nothing is lost by waiting. What is not in the changelog is not committed either: the fact behind it is heard again, and
its row is put again (streams/worker/turn.py). Nor does an order break: a batch is in the log as a whole or not at all,
one of a partition follows the other, and no row is left out of a batch because of a put in a later one. So what a crash
leaves of a changelog is still what was put up to some moment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from agents.process import die

log = structlog.get_logger(__name__)

LINGER_S = 0.25
"""How long a put may wait for others. Short, since a partition that goes to another worker takes it along."""
AGAIN_S = 0.5
BATCH_BYTES = 256 << 10
"""Of a batch's rows; one that is larger has a batch of its own. A broker takes 1 MB unless told otherwise."""
BUILDER_BYTES = 512 << 10
"""Room of a batch's builder: a batch is closed before this is full."""
RECORD_BYTES = 64
"""What a record costs in a batch beside its key and row, and more."""
SEND_BYTES, HELD_BYTES_MAX = 1 << 20, 8 << 20
"""Puts of so many bytes are sent at once; no turn begins while so many wait for the broker."""

Persisted = Callable[[TP, int], None]
"""Told the offset of the last record of a place that the broker has."""


@dataclass
class _Batch:
    """Rows of one place by key, in the order in which each was put last; None: it was deleted."""

    rows: dict[bytes, bytes | None] = field(default_factory=dict)
    size: int = 0


class Changelogs:
    """Of one producer; used on its loop. `put` never waits."""

    def __init__(self, client: Callable[[], Any]) -> None:
        """`client`: gives aiokafka's producer."""
        self._client = client
        self._waiting: dict[TP, deque[_Batch]] = {}
        self._persisted: dict[TP, Persisted] = {}
        self._sending: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.guard: Callable[[], None] = lambda: None
        """Called before anything goes out: ends a process whose rows may be another worker's by now."""
        self.size = 0
        """Bytes that are not in the log yet."""

    def put(self, place: TP, key: bytes, row: bytes | None, persisted: Persisted) -> None:
        """A row of a changelog's partition, as it stands in its table from now on; None when it was deleted."""
        size = len(key) + len(row or b"") + RECORD_BYTES
        batches = self._waiting.get(place)
        if batches is None:
            batches = self._waiting[place] = deque()
        self._persisted[place] = persisted
        if not batches or batches[-1].size + size > BATCH_BYTES:
            batches.append(_Batch())
        batch = batches[-1]
        grown = size
        if key in batch.rows:
            grown -= len(key) + len(batch.rows.pop(key) or b"") + RECORD_BYTES
        batch.rows[key] = row
        batch.size += grown
        self.size += grown
        if self.size >= SEND_BYTES:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._send)

    async def room(self) -> None:
        """Returns when another turn may put."""
        while self.size >= HELD_BYTES_MAX:
            await self.flush()

    async def flush(self) -> None:
        """Returns when all that was put before is in the log."""
        if self._sending is not None:
            await asyncio.shield(self._sending)  # what was put since it began waits
        if self._waiting:
            self._send()
        if self._sending is not None:
            await asyncio.shield(self._sending)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sending is None and self._waiting:
            taken, self._waiting = self._waiting, {}
            self._sending = asyncio.get_running_loop().create_task(self._sent(taken))

    async def _sent(self, taken: dict[TP, deque[_Batch]]) -> None:
        """Returns when it is in the log. A batch of each place at a time: none may pass by the one before it."""
        try:
            while taken:
                await self._written({place: batches.popleft() for place, batches in taken.items()})
                taken = {place: batches for place, batches in taken.items() if batches}
        except Exception as error:
            log.exception("a changelog cannot be written")
            die("a changelog cannot be written", why=f"{type(error).__name__}: {error}")
        self._sending = None  # one that is cancelled has no successor: what it sent may still arrive
        if self.size >= SEND_BYTES:
            self._send()
        elif self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._send)

    async def _written(self, batches: dict[TP, _Batch]) -> None:
        """Returns when they are in the log; what was not acknowledged is sent again, however long that takes."""
        while batches:
            # What was put just before a process stood still stood behind its successor's rows, for good (seen).
            self.guard()
            answers = {place: await self._handed_over(place, batch) for place, batch in batches.items()}
            await asyncio.wait(answers.values())
            left = {}
            for place, answer in answers.items():
                error = answer.exception()
                if error is None:
                    done = batches[place]
                    self.size -= done.size
                    self._persisted[place](place, answer.result().offset + len(done.rows) - 1)
                elif getattr(error, "retriable", False):
                    left[place] = batches[place]
                    log.warning("a changelog waits for the broker", topic=place.topic, why=str(error))
                else:
                    raise error
            batches = left
            if batches:
                await asyncio.sleep(AGAIN_S)

    async def _handed_over(self, place: TP, batch: _Batch) -> asyncio.Future[Any]:
        client = self._client()
        builder = client.create_batch()
        for key, row in batch.rows.items():
            taken = builder.append(timestamp=None, key=key, value=row)
            assert taken is not None, "a batch is smaller than its builder"
        builder.close()
        answer: asyncio.Future[Any] = await client.send_batch(builder, place.topic, partition=place.partition)
        return answer


class Producer(driver.Producer):  # type: ignore[misc]
    """Faust's, with the changelogs: its flush is theirs too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.changelogs = Changelogs(self._ensure_producer)

    async def flush(self) -> None:
        await self.changelogs.flush()
        await super().flush()

    async def on_stop(self) -> None:
        await self.changelogs.flush()
        await super().on_stop()


def install() -> None:
    driver.Transport.Producer = Producer
