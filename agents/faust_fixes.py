"""What Faust lacks (docs/PLATFORM.md), in one place: a flush that flushes, a death that is one, a stall guard.

    a changelog produce slower than 0.1 s let the offset be committed ahead      → `flush` waits for the last one
    a producer that died, or any crashed service, committed past what it lost    → the process exits at once (75)
    a worker stopped past its session wakes and folds buffered events on old rows → StallGuard exits (75)
    a commit passes one hole of those that transactions leave (a mirror's: one a batch), and none where two follow
    offset 0: offsets lagged by minutes         → `_new_offset` asks what is delivered and open, not what is missing
    a commit refused behind a rebalance counted as made: what was delivered again was heard and never committed
                                                → `_commit_offsets` counts what the broker took
    a fetch position passes records that wait to be delivered, and nothing tells → `fetches` counts, see assignment.py

Exit code 75 means "start me again"; the supervisor does. Rules stay safe on stale rows all the same: the guard narrows
the window and fences nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NoReturn

import faust
import structlog
from faust.transport.consumer import Consumer
from faust.transport.producer import ProducerBuffer
from faust.types import TP, Message

log = structlog.get_logger(__name__)

START_ME_AGAIN = 75
FLUSH_POLL_S = 0.1
STALL_S = 4.0
"""Longer than any turn, shorter than a session (10 s)."""
GC_THRESHOLDS = (20_000, 20, 50)
"""Allocations before a collection of the youngest, and collections of each generation before one of the next."""
SWITCH_S = 0.0005
"""How long a thread may keep the interpreter when the loop wants it. A turn gives it up at each access of a table, and
would wait Python's 5 ms each time that a view or an API is busy (seen: 200 intents took a third longer)."""


def die(what: str, **words: object) -> NoReturn:
    """Ends the process without committing anything more."""
    log.error(what, exit_code=START_ME_AGAIN, **words)
    sys.stderr.flush()
    os._exit(START_ME_AGAIN)


_send_pending = ProducerBuffer._send_pending


async def _send_counted(self: ProducerBuffer, fut: Any) -> None:
    # Not reset when it raises: the app crashes then, and no flush may return before it does.
    self.in_hand = True
    await _send_pending(self, fut)
    self.in_hand = False


async def _flush(self: ProducerBuffer) -> None:
    # `size` does not count the record in the sender's hand, which waits there while its partition's batch is full.
    while self.size or getattr(self, "in_hand", False):
        if self.state != "running":
            die("the changelog's producer is not running", waiting=self.size)
        self.message_sent.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.message_sent.wait(), FLUSH_POLL_S)


def _new_offset(self: Consumer, tp: TP) -> int | None:
    """The offset after the last acknowledged message of `tp` before which no delivered one is open.

    A rebalance delivers some again. Of those that are committed meanwhile Faust takes no acknowledgement any more.
    """
    acked, opened, committed = self._acked[tp], self._gap[tp], self._committed_offset[tp]
    opened.difference_update(acked)
    if committed is not None:
        opened.difference_update([offset for offset in opened if offset < committed])
    bound = min(opened, default=None)
    done = [offset for offset in acked if bound is None or offset < bound]
    if not done:
        return None
    acked[:] = [offset for offset in acked if bound is not None and offset > bound]
    self._acked_index[tp].difference_update(done)
    last: int = max(done)
    return last + 1


async def _commit_offsets(self: Consumer, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
    """Commits; counts as committed what the broker took, and that only, if no rebalance came between.

    What it refuses is of a generation that is over: the next one delivers it again.
    """
    assigned = self.assignment()
    taken = {tp: offset for tp, offset in offsets.items() if tp in assigned}
    if not taken:
        return False
    acked = {tp: self._acked[tp] for tp in taken}
    await self.app.producer.flush()
    if not await self._commit(taken):
        return False
    self.app.tables.on_commit(taken)
    for tp, offset in taken.items():
        if self._acked.get(tp) is acked[tp]:  # else a rebalance forgot it, and counts from where it reads
            self._committed_offset[tp] = offset
    self.app.monitor.on_tp_commit(taken)
    return True


async def _no_gap(self: Consumer, tp: TP, offset_from: int, offset_to: int) -> None:
    """Offsets that were never delivered hold nothing up."""


class DurableApp(faust.App):  # type: ignore[misc]
    """An app whose crash is the process's: nothing is committed behind it."""

    def _crash(self, reason: BaseException) -> None:
        die("the worker crashed", why=f"{type(reason).__name__}: {reason}")

    def _new_consumer(self) -> Consumer:
        """A consumer that knows what was delivered, where Faust's knows what was not. Forgotten with its partition."""
        consumer = super()._new_consumer()
        deliver, fetch, opened = consumer.callback, consumer._wait_next_records, defaultdict(set)
        consumer.fetches = 0

        async def delivered(message: Message) -> None:
            opened[message.tp].add(message.offset)
            await deliver(message)

        async def fetched(timeout: float) -> Any:
            # Called when all that the call before brought is delivered.
            consumer.fetches += 1
            return await fetch(timeout)

        consumer._gap, consumer.callback, consumer._wait_next_records = opened, delivered, fetched
        return consumer


def install() -> None:
    """Replaces the flush of every producer buffer and what a consumer may commit, and has the loop go before other
    threads; once per process.
    """
    sys.setswitchinterval(SWITCH_S)
    ProducerBuffer.flush, ProducerBuffer._send_pending = _flush, _send_counted
    Consumer._new_offset, Consumer._commit_offsets, Consumer._add_gap = _new_offset, _commit_offsets, _no_gap


def spare_the_loop() -> None:
    """Has full garbage collections pass by what stands now, and come rarely: one over a worker's modules and decoded
    manifests stops every thread for 50–120 ms of a core, and came at every few manifests heard.

    Few of our objects are in circles; those that are wait for the next full collection. Called again, after a
    rebalance, it looks at what stood before too: nothing that has died stays for ever.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class StallGuard:
    """Notices that this process stood still for longer than its session may allow. Armed after start-up."""

    def __init__(self, limit_s: float = STALL_S) -> None:
        self.limit_s = limit_s
        self.longest_s = 0.0
        """The longest that the loop kept a tick waiting since the tables were last recovered."""
        self._last: float | None = None

    def check(self) -> None:
        """Called at every turn: exits when the last tick is too long ago."""
        if self._last is not None and (stood := time.monotonic() - self._last) > self.limit_s:
            die("stood still; another worker may own these partitions", seconds=round(stood, 1))

    async def tick(self, every_s: float = 0.05) -> NoReturn:
        """Runs for ever beside the agents."""
        while True:
            self.check()
            now = time.monotonic()
            if self._last is not None:
                self.longest_s = max(self.longest_s, now - self._last - every_s)
            self._last = now
            await asyncio.sleep(every_s)


def table_options() -> dict[str, Any]:
    """RocksDB of one table: 16 MB of cache and two buffers of 4 MB at most, where the default cache is 2 GiB.

    A fresh dict each time: Faust takes words out of it.
    """
    return {
        "driver": "rocksdict",
        "block_cache_size": 4 << 20,
        "write_buffer_size": 4 << 20,
        "max_write_buffer_number": 2,
        "max_open_files": 128,
    }
