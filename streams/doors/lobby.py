"""Connections that a source made to this site's door, where its own cannot be reached: each waits for who pulls by it.

A ticket lets in one connection, once, within EXPECTED_S of its making; it stands in a request, which is kept, and is
worth nothing to who reads it later. What is asked over the connection is the source's own ticket's business.
Thread-safe.
"""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Condition
from typing import NamedTuple

from streams.core.names import ManifestId, Site

EXPECTED_S = 60.0
EXPECTED_MAX = 4096
WAITING_MAX = 64
"""Connections that nobody has taken yet: the one that waits longest goes."""


class Dialled(NamedTuple):
    """The request that a source answers by connecting."""

    manifest: ManifestId
    source: Site
    request_no: int


class Lobby:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = Condition()
        self._expected: OrderedDict[str, tuple[Dialled, float]] = OrderedDict()
        self._waiting: OrderedDict[Dialled, socket.socket] = OrderedDict()

    def expect(self, ticket: str, request: Dialled) -> None:
        """Let in who shows this ticket."""
        with self._changed:
            self._expected[ticket] = request, self._clock() + EXPECTED_S
            while len(self._expected) > EXPECTED_MAX:
                self._expected.popitem(last=False)

    def admit(self, ticket: str) -> Dialled | None:
        """What the ticket is for, once; None for one that is for nothing, or for nothing more."""
        with self._changed:
            request, until_s = self._expected.pop(ticket, (None, 0.0))
            return request if self._clock() < until_s else None

    def connected(self, request: Dialled, connection: socket.socket) -> None:
        """Keep it for who pulls. An older one of the same request is closed."""
        with self._changed:
            left = [self._waiting.pop(request, None)]
            self._waiting[request] = connection
            if len(self._waiting) > WAITING_MAX:
                left.append(self._waiting.popitem(last=False)[1])
            self._changed.notify_all()
        for one in left:
            if one is not None:
                one.close()

    def take(self, request: Dialled, wait_s: float) -> socket.socket | None:
        """The connection of a request, which is the caller's from now on; None where none comes in time."""
        with self._changed:
            self._changed.wait_for(lambda: request in self._waiting, wait_s)
            return self._waiting.pop(request, None)

    def close(self) -> None:
        with self._changed:
            waiting, self._waiting = self._waiting, OrderedDict()
            self._expected.clear()
        for one in waiting.values():
            one.close()
