"""What Faust lacks (docs/PLATFORM.md): a flush that flushes, a death that is one, a start without a sleep.

What it hears is consumer.py's.

a changelog produce slower than 0.1 s let the offset be committed ahead      → `flush` waits for the last one
a producer that died, or any crashed service, committed past what it lost    → the process exits at once (75)
a second is slept before tables are opened, for agents that declare some late → they are opened at once: ours stand
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import faust
from faust.tables.manager import TableManager
from faust.transport.producer import ProducerBuffer

from agents import consumer
from agents.process import SWITCH_S, die

FLUSH_POLL_S = 0.1

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


class DurableApp(faust.App):  # type: ignore[misc]
    """An app whose crash is the process's: nothing is committed behind it."""

    def _crash(self, reason: BaseException) -> None:
        die("the worker crashed", why=f"{type(reason).__name__}: {reason}")


async def _open_tables(self: TableManager) -> None:
    if not self.should_stop:
        await self._update_channels()
        await self.recovery.start()


def install() -> None:
    """Replaces the flush of every producer buffer, the consumers and the start of the tables, and has the loop go
    before other threads; once per process.
    """
    sys.setswitchinterval(SWITCH_S)
    ProducerBuffer.flush, ProducerBuffer._send_pending = _flush, _send_counted
    TableManager.on_start = _open_tables
    consumer.install()
