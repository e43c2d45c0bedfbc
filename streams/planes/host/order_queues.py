"""Orders that wait for their turn, one queue for each kind of work, each carried out by threads of its own.

Putting never waits. What has no room is dropped with a line in the log: the worker owes it again. An opening is begun
when what was ordered before it, Assign and the end of the same transfer, has been carried out.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Condition

from streams.core.commands import WriteManifests
from streams.core.names import IntentId, ManifestId
from streams.planes.orders import Assign, Fail, Forget, Open, Stop

log = logging.getLogger(__name__)

OPENERS = 2
"""Threads that open parts. Only one goes on with what takes long: disk and cores are for those who are served, too."""
SLICE_S = 0.25
"""An opening that takes longer lets others have their first slice. A file that is read back is never cut in two."""
REST = 2.0
"""After each slice of long work an opener rests so many times as long, while others are served."""
REST_S_MAX = 2.0
"""At most so long: the read-back of one large file is a slice of many minutes."""
LONG_S = 0.1
OPENS_BYTES_MAX = 32 * 1024 * 1024
"""Framed manifests of orders that wait to be opened or are being opened: 140 full ones."""
ENDS_BYTES_MAX = 8 * 1024 * 1024
ENDS_MAX = 4096
WRITES_BYTES_MAX = 8 * 1024 * 1024
"""Names in what intents ask for whose manifests are to be written."""
WRITES_MAX = 1024
LOOK_S = 0.05
AGAIN_S = 1.0


class _OrderQueue:
    def __init__(self) -> None:
        self._wake = Condition()
        self._running = True

    def close(self) -> None:
        with self._wake:
            self._running = False
            self._wake.notify_all()


class Assignments(_OrderQueue):
    """Assign orders. Those that come while one is carried out become one, the last; what any took away is left.

    What is ordered of a partition that one gives may come before it is carried out; so it is not what all give that
    counts (of a worker that woke 8 partitions one by one, the first opening was let go as another worker's, and came
    again 10 s later).
    """

    def __init__(self) -> None:
        super().__init__()
        self._newest: Assign | None = None
        self._given: frozenset[int] = frozenset()
        """Partitions of the order that was put last."""
        self._left: frozenset[int] = frozenset()
        """Partitions that were taken away and are not left yet."""
        self.ordered = 0
        self.done = 0
        """Two counts: of orders put, and of those carried out."""

    def put(self, order: Assign) -> None:
        with self._wake:
            given = frozenset(order.partitions)
            self._left |= self._given - given
            self._newest, self._given = order, given
            self.ordered += 1
            self._wake.notify_all()

    def run(self, leave: Callable[[frozenset[int]], None], *assigns: Callable[[dict[int, int | None]], None]) -> None:
        """A thread: until `close`."""
        while True:
            with self._wake:
                while self._newest is None and self._running:
                    self._wake.wait()
                if not self._running:
                    return
                order, left, number = self._newest, self._left, self.ordered
                self._newest, self._left = None, frozenset()
            assert order is not None
            try:
                leave(left)
                for assign in assigns:
                    assign(order.partitions)
            except Exception:
                log.exception("an assignment was not carried out as a whole, and is tried again")
                with self._wake:
                    self._left |= left
                    self._newest = self._newest or order
                    if self._running:
                        self._wake.wait(AGAIN_S)
                continue
            self.done = number


class Ends(_OrderQueue):
    """What ends a transfer or items of it, one order of a transfer: the last that came, and none of items before one of
    all of it."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[ManifestId, Stop | Forget | Fail] = {}
        self._bytes = 0
        self._under_way: ManifestId | None = None

    def put(self, order: Stop | Forget | Fail) -> None:
        with self._wake:
            known = self._waiting.get(order.manifest_id)
            if isinstance(order, Fail) and isinstance(known, Stop | Forget):
                return
            more = _bytes_of(order) - (_bytes_of(known) if known is not None else 0)
            if self._waiting and (self._bytes + more > ENDS_BYTES_MAX or len(self._waiting) >= ENDS_MAX):
                log.warning("%s is not ended now: too many that end wait", order.manifest_id)
                return
            self._waiting[order.manifest_id] = order
            self._bytes += more
            self._wake.notify_all()

    def holds(self, manifest: ManifestId) -> bool:
        """Whether it is to be ended, or is just being ended."""
        with self._wake:
            return manifest in self._waiting or manifest == self._under_way

    def run(self, carry_out: Callable[[Stop | Forget | Fail], None]) -> None:
        """A thread: until `close`."""
        while True:
            with self._wake:
                self._under_way = None
                while not self._waiting and self._running:
                    self._wake.wait()
                if not self._running:
                    return
                self._under_way = next(iter(self._waiting))
                order = self._waiting.pop(self._under_way)
                self._bytes -= _bytes_of(order)
            try:
                carry_out(order)
            except Exception:
                log.exception("%s was not ended", order.manifest_id)


class Writes(_OrderQueue):
    """Manifests to be written, one command of a chain: the last that came, in the place of the first."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[tuple[IntentId, int], WriteManifests] = {}
        self._bytes = 0

    def put(self, command: WriteManifests) -> None:
        chain = command.body.intent, command.source_no
        with self._wake:
            known = self._waiting.get(chain)
            more = _names_bytes(command) - (_names_bytes(known) if known is not None else 0)
            if self._waiting and (self._bytes + more > WRITES_BYTES_MAX or len(self._waiting) >= WRITES_MAX):
                log.warning("manifests of %s are not written now: too many that are to be written wait", chain[0])
                return
            self._waiting[chain] = command
            self._bytes += more
            self._wake.notify_all()

    def get(self, wait_s: float | None) -> WriteManifests | None:
        """The next; None where none comes within `wait_s`, or before `close`."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or not self._running, wait_s)
            if not self._waiting:
                return None
            command = self._waiting.pop(next(iter(self._waiting)))
            self._bytes -= _names_bytes(command)
            return command


@dataclass(eq=False, slots=True)
class _Waiting:
    name: ManifestId
    bytes: int
    steps: Iterator[bool]
    """True: the next step reads back a file that takes long."""
    ready: Callable[[], bool]
    begun: bool = False


class Openings(_OrderQueue):
    """Openings, each done in slices of steps. A new one has its first slice before older ones go on, so that what needs
    no reading back does not wait for what does; those go on one after the other, in one thread.
    """

    def __init__(
        self, serving: Callable[[], bool] = lambda: False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`serving`: whether somebody is served just now."""
        super().__init__()
        self._serving, self._clock = serving, clock
        self._new: deque[_Waiting] = deque()
        self._begun: deque[_Waiting] = deque()
        self._bytes = 0
        self._full = False

    def has_room(self, order: Open) -> bool:
        """Whether it may be put; the first that may not is said."""
        with self._wake:
            full = bool(self._bytes) and self._bytes + len(order.manifest) > OPENS_BYTES_MAX
            if full and not self._full:
                log.warning(
                    "%s is not opened now, nor what comes behind it: too many wait to be opened", order.manifest_id
                )
            self._full = full
        return not full

    def put(self, order: Open, steps: Iterator[bool], ready: Callable[[], bool]) -> None:
        """`ready`: whether what was ordered before has been carried out."""
        with self._wake:
            self._bytes += len(order.manifest)
            self._new.append(_Waiting(order.manifest_id, len(order.manifest), steps, ready))
            self._wake.notify_all()

    def run(self, *, only_new: bool = False) -> None:
        """A thread: until `close`. Of several, all but one take only what is new, and leave to that one what takes
        long."""
        while True:
            with self._wake:
                waiting = self._next(only_new)
                while waiting is None and self._running:
                    self._wake.wait(LOOK_S if self._new else None)
                    waiting = self._next(only_new)
                if not self._running or waiting is None:
                    return
            began_s = self._clock()
            more = self._slice(waiting, began_s + SLICE_S, only_short=only_new)
            took_s = self._clock() - began_s
            with self._wake:
                if more:
                    if waiting.begun:
                        self._begun.appendleft(waiting)
                    else:
                        self._begun.append(waiting)
                    waiting.begun = True
                    self._wake.notify_all()
                else:
                    self._bytes -= waiting.bytes
            if took_s >= LONG_S:
                self._rest(min(took_s * REST, REST_S_MAX))

    def _slice(self, waiting: _Waiting, until_s: float, *, only_short: bool) -> bool:
        """Whether more is left to do of it."""
        try:
            for long in waiting.steps:
                if (long and only_short) or self._clock() >= until_s:
                    return True
        except Exception:
            log.exception("%s is not opened", waiting.name)
        return False

    def _next(self, only_new: bool) -> _Waiting | None:
        for waiting in self._new:
            if waiting.ready():
                self._new.remove(waiting)
                return waiting
        return self._begun.popleft() if self._begun and not only_new else None

    def _rest(self, rest_s: float) -> None:
        until_s = time.monotonic() + rest_s
        while self._serving() and (left_s := until_s - time.monotonic()) > 0:
            with self._wake:
                if not self._running:
                    return
                self._wake.wait(min(left_s, LOOK_S))


def _names_bytes(command: WriteManifests) -> int:
    return sum(len(selector.name) for selector in command.body.selectors)


def _bytes_of(order: Stop | Forget | Fail) -> int:
    return len(order.manifest or b"") if isinstance(order, Stop) else 0
