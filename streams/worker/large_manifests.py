"""Requests and last words of full manifests, made off the loop: a thousand items take longer than a slice.

One thread, in order; what it cannot take now is owed still.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Full, Queue

WAITING_MAX = 32
"""Each holds a manifest: a tenth of a megabyte, and ten times that while its turn lasts."""
REFUSED_S = 0.1
"""What could not be said is owed again at once: as long as the log has no room, it comes no faster than this."""


class LargeManifests:
    """Runs what it is given on its thread, once started; `act` says whether it was taken, and may not raise."""

    def __init__(self) -> None:
        self._waiting: Queue[Callable[[], bool] | None] = Queue(WAITING_MAX)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="large-manifests", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def __call__(self, act: Callable[[], bool]) -> bool:
        """False when too much waits."""
        try:
            self._waiting.put_nowait(act)
        except Full:
            return False
        return True

    def stop(self) -> None:
        """What waits is done first."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (act := self._waiting.get()) is not None:
            if not act():
                self._stopping.wait(REFUSED_S)
