"""Answers over HTTP whose bytes come too slowly are broken off: a timeout bounds the silence, not the whole.

One thread for a store, while something is read: reading in small pieces, with a look at the clock between, is slower.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Condition, Thread

import urllib3

LOOK_S = 1.0


class Deadlines:
    """Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._wake = Condition()
        self._until: dict[int, tuple[float, urllib3.BaseHTTPResponse]] = {}
        self._thread: Thread | None = None
        self._running = True

    @contextmanager
    def of(self, answer: urllib3.BaseHTTPResponse, until: float) -> Iterator[None]:
        """Reading the answer ends at `until` (monotonic seconds), or up to LOOK_S later: as if the store hung up."""
        with self._wake:
            if self._thread is None:
                self._thread = Thread(target=self._run, name=f"deadlines-{self._name}", daemon=True)
                self._thread.start()
            if not self._until:
                self._wake.notify()
            self._until[id(answer)] = until, answer
        try:
            yield
        finally:
            with self._wake:
                self._until.pop(id(answer), None)

    def close(self) -> None:
        with self._wake:
            self._running = False
            self._wake.notify()

    def _run(self) -> None:
        with self._wake:
            while self._running:
                now = time.monotonic()
                for name, (until, answer) in list(self._until.items()):
                    if until <= now:
                        del self._until[name]
                        with suppress(RuntimeError, ValueError, OSError):  # it ended by itself just now
                            answer.shutdown()
                soonest = min((until for until, _ in self._until.values()), default=None)
                self._wake.wait(None if soonest is None else min(LOOK_S, max(0.0, soonest - now)))
