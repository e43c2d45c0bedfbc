"""Keeps a worker's planes running: starts them, and starts others when they ended or could not be started, for ever.

Each time in a row it waits longer. What a dead plane was told is owed again by the worker, once `started` says that
there is another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from streams.planes.host.plane_process import PlaneProcess
from streams.settings import Settings

log = logging.getLogger(__name__)

FIRST_S = 0.2
LONGEST_S = 30.0
"""Between two starts; memory, processes and descriptors that ran out are looked for again so often."""
LIVED_S = 60.0
"""A plane that lived so long was well: what ended it is not what ended the one before."""


class PlaneKeeper:
    """`started()` is called from a thread of this object whenever there is a new plane, which knows nothing."""

    def __init__(self, settings: Settings, worker: str, started: Callable[[], None]) -> None:
        self.plane = PlaneProcess(settings, worker, self._ended)
        self._started = started
        self._thread = threading.Thread(target=self._run, name="plane-keeper", daemon=True)
        self._end = threading.Event()
        self._stopping = threading.Event()
        self._starting = threading.Lock()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No plane runs when this returns, and none is started any more."""
        with self._starting:
            self._stopping.set()
        self._end.set()
        self.plane.stop()

    def _ended(self, incarnation: str, code: int) -> None:
        self._end.set()

    def _run(self) -> None:
        wait_s = FIRST_S
        while True:
            began_s = time.monotonic()
            why = self._run_one()
            if self._stopping.is_set():
                return
            wait_s = FIRST_S if time.monotonic() - began_s >= LIVED_S else min(LONGEST_S, wait_s)
            log.warning("%s; another is started in %.1f s", why, wait_s)
            if self._stopping.wait(wait_s):
                return
            wait_s *= 2

    def _run_one(self) -> str:
        """Start a plane and wait for its end; what went wrong, in words."""
        self._end.clear()
        try:
            with self._starting:
                if self._stopping.is_set():
                    return ""
                incarnation = self.plane.start()
        except OSError as error:
            return f"the plane cannot be started: {error.strerror or error}"
        except Exception as error:
            log.exception("the plane cannot be started")
            return f"the plane cannot be started: {type(error).__name__}: {error}"
        try:
            self._started()
        except Exception:
            log.exception("the new plane could not be told of")
        self._end.wait()
        return f"plane {incarnation} ended"
