"""What Faust lacks (docs/PLATFORM.md): a death that is one, a start without a sleep.

What it hears is consumer.py's, what its tables put changelogs.py's.

a producer that died, or any crashed service, committed past what it lost    → the process exits at once (75)
a second is slept before tables are opened, for agents that declare some late → they are opened at once: ours stand
"""

from __future__ import annotations

import sys

import faust
from faust.tables.manager import TableManager

from agents import changelogs, consumer
from agents.process import SWITCH_S, die


class DurableApp(faust.App):  # type: ignore[misc]
    """An app whose crash is the process's: nothing is committed behind it."""

    def _crash(self, reason: BaseException) -> None:
        die("the worker crashed", why=f"{type(reason).__name__}: {reason}")


async def _open_tables(self: TableManager) -> None:
    if not self.should_stop:
        await self._update_channels()
        await self.recovery.start()


def install() -> None:
    """Replaces the consumers, the producers and the start of the tables, and has the loop go before other threads; once
    per process.
    """
    sys.setswitchinterval(SWITCH_S)
    TableManager.on_start = _open_tables
    consumer.install()
    changelogs.install()
