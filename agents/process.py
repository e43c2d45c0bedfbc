"""A worker's process: how it ends, how it notices that it stood still, what spares its loop, how it logs.

Exit code 75 means "start me again"; the supervisor does. Rules stay safe on stale rows all the same: the guard narrows
the window and fences nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import time
from typing import NoReturn

import structlog

log = structlog.get_logger(__name__)

START_ME_AGAIN = 75
QUIET = ("aiokafka", "faust.tables", "faust.stores", "faust.transport", "faust.assignor", "faust.app", "mode")
"""Their INFO is a page per rebalance; what they warn of is shown."""
STALL_S = 4.0
"""Longer than any turn, shorter than a session (10 s)."""
LOOK_S, QUIET_S = 0.05, 1.0
"""Between looks of the guard while there are turns, and the most while there are none."""
GC_THRESHOLDS = (20_000, 20, 50)
"""Allocations before a collection of the youngest, and collections of each generation before one of the next."""
SWITCH_S = 0.0005
"""How long a thread may keep the interpreter when the loop wants it. A turn gives it up at each access of a table, and
would wait Python's 5 ms each time that a view or an API is busy (seen: 200 intents took a third longer)."""


def configure_logs() -> None:
    """One line per event through the standard library, values in repr: nothing controls a terminal."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def die(what: str, **words: object) -> NoReturn:
    log.error(what, exit_code=START_ME_AGAIN, **words)
    sys.stderr.flush()
    os._exit(START_ME_AGAIN)


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

    def __init__(self) -> None:
        self.longest_s = 0.0
        """The longest that the loop kept a look waiting since the tables were last recovered."""
        self._last: float | None = None
        self._due_s = float("inf")
        """When the loop should have come to the next look."""
        self._turn = asyncio.Event()

    def refuse_stall(self) -> None:
        """Called before anything goes out that an owner alone may write: exits when the last look is too long ago."""
        if self._last is not None and (stood := time.monotonic() - self._last - QUIET_S) > STALL_S:
            die("stood still; another worker may own these partitions", seconds=round(stood, 1))

    def check(self) -> None:
        """Called at the beginning of every turn: exits as above, and has looks come often."""
        self.refuse_stall()
        now = time.monotonic()
        if not self._turn.is_set():
            self._turn.set()
            self._due_s = min(self._due_s, now + LOOK_S)

    async def tick(self) -> NoReturn:
        """Looks for ever, beside the agents: each 50 ms while there are turns, since a look costs a loop its sleep."""
        while True:
            self.check()
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - self._due_s)
            self._last = now
            self._turn.clear()
            self._due_s = now + LOOK_S
            await asyncio.sleep(LOOK_S)
            if not self._turn.is_set():
                self._due_s = time.monotonic() + QUIET_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._turn.wait(), QUIET_S)
