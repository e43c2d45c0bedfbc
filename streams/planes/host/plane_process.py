"""The child process in which a worker's planes live, as the worker sees it: start, tell, alive, stop.

Telling never blocks an event loop: a queue and a writer thread stand between. No order is kept for a child that died:
its successor is another incarnation, and the worker owes it everything again.
"""

from __future__ import annotations

import errno
import logging
import queue
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from streams.planes.orders import Order, Start, pack
from streams.settings import Settings

log = logging.getLogger(__name__)

ORDERS_MAX = 4096
ORDERS_BYTES_MAX = 32 * 1024 * 1024
"""Orders waiting for a child that does not read; beyond, they are dropped and owed again."""
_STOP_S = 5.0


@dataclass
class _Child:
    """One incarnation: its process, and the orders still to be written to it (None ends them)."""

    popen: subprocess.Popen[bytes]
    incarnation: str
    waiting: queue.Queue[bytes | None] = field(default_factory=lambda: queue.Queue(ORDERS_MAX))
    taken_bytes: int = 0
    written_bytes: int = 0
    """Two counters, one a thread: what waits is the difference."""


class PlaneProcess:
    """The planes of one worker. `start` may be called again after a death.

    `on_exit(incarnation, returncode)` is called from a thread of this object when a child ended that was not stopped.
    """

    def __init__(
        self, settings: Settings, worker: str = "0", on_exit: Callable[[str, int], None] | None = None
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._on_exit = on_exit
        self._child: _Child | None = None
        self._starts = 0
        self._lock = threading.Lock()
        self.dropped = 0
        """Orders that found the queue full or no child: each is owed again."""

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.popen.poll() is None

    @property
    def pid(self) -> int | None:
        return self._child.popen.pid if self._child else None

    @property
    def incarnation(self) -> str:
        """Of the child that runs, or ran last; "" before the first start."""
        return self._child.incarnation if self._child else ""

    @property
    def writer(self) -> str:
        """The name under which the present child publishes, and no other ever did.

        A worker started again hears what its predecessor's plane said: it must not take that for its own's word.
        """
        return f"plane-{self._worker}-{self._starts}-{self.incarnation[:8]}"

    def start(self) -> str:
        """Start a child unless one is alive; its incarnation. Raises OSError when none can be started."""
        with self._lock:
            if self._child and self.alive:
                return self._child.incarnation
            popen = subprocess.Popen([sys.executable, "-m", "streams.planes.host.child"], stdin=subprocess.PIPE)
            self._starts += 1
            child = self._child = _Child(popen, uuid.uuid4().hex)
            start = pack(Start(self._settings, self.writer, child.incarnation))
            child.waiting.put_nowait(start)
            child.taken_bytes = len(start)
            try:
                for task in (self._write, self._watch):
                    threading.Thread(target=task, args=(child,), name=f"plane{task.__name__}", daemon=True).start()
            except RuntimeError as error:  # no thread is left: nobody would tell it anything, or hear of its end
                self._child = None
                popen.kill()
                popen.communicate()
                child.waiting.put_nowait(None)
                raise OSError(errno.EAGAIN, str(error)) from error
            return child.incarnation

    def tell(self, order: Order) -> bool:
        """Hand an order over; False if it was dropped. Never blocks, never raises for a dead child."""
        child = self._child
        if child is not None and child.popen.poll() is None:
            packed = pack(order)
            with self._lock:
                if child.taken_bytes - child.written_bytes + len(packed) <= ORDERS_BYTES_MAX:
                    try:
                        child.waiting.put_nowait(packed)
                    except queue.Full:
                        pass
                    else:
                        child.taken_bytes += len(packed)
                        return True
        self.dropped += 1
        return False

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """Close the pipe: the child says its last numbers and goes. What it still held is owed to the next one."""
        child, self._child = self._child, None
        if child is None:
            return
        with child.waiting.mutex:
            child.waiting.queue.clear()
        child.waiting.put_nowait(None)
        try:
            child.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.warning("plane %s did not end within %.0f s of its pipe closing; killed", child.popen.pid, timeout_s)
            child.popen.kill()
            child.popen.wait()

    def _write(self, child: _Child) -> None:
        pipe = child.popen.stdin
        assert pipe is not None
        try:
            while (order := child.waiting.get()) is not None:
                pipe.write(order)
                pipe.flush()
                child.written_bytes += len(order)
        except OSError as error:
            log.info("plane %s reads no more orders: %s", child.popen.pid, error)
        finally:
            try:
                pipe.close()
            except OSError as error:
                log.debug("closing the pipe of plane %s: %s", child.popen.pid, error)

    def _watch(self, child: _Child) -> None:
        code = child.popen.wait()
        try:
            child.waiting.put_nowait(None)  # lets the writer thread end
        except queue.Full:
            log.debug("orders for plane %s were still waiting", child.popen.pid)
        if child is self._child:
            log.warning("plane %s (pid %s) ended with code %s", child.incarnation, child.popen.pid, code)
            if self._on_exit is not None:
                self._on_exit(child.incarnation, code)
