"""Last words of full manifests, made off the loop: a thousand replicas take longer to encode than a slice.

One thread, in order; what it cannot take now is owed still.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Full, Queue

WAITING_MAX = 32
"""Each holds a manifest: a tenth of a megabyte, and ten times that while its turn lasts."""


class Completions:
    """Runs what it is given on its thread, once started; `act` may not raise."""

    def __init__(self) -> None:
        self._waiting: Queue[Callable[[], None] | None] = Queue(WAITING_MAX)
        self._thread = threading.Thread(target=self._run, name="completions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def __call__(self, act: Callable[[], None]) -> bool:
        """False when too much waits."""
        try:
            self._waiting.put_nowait(act)
        except Full:
            return False
        return True

    def stop(self) -> None:
        """What waits is done first."""
        if self._thread.ident is not None:
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (act := self._waiting.get()) is not None:
            act()
