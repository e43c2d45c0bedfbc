"""A token bucket: how long to wait before so many bytes go. Who waits is the caller's."""

from __future__ import annotations

import time
from threading import Lock

BURST_S = 0.1
"""So much of a second's bytes may go at once."""

SHARE_MIN = 0.01
"""Of a rate: none at all would mean that there is no bound."""


class Pace:
    """`rate`: bytes a second; 0: as fast as it goes. Not thread-safe."""

    def __init__(self, rate: float, now_s: float) -> None:
        self.rate = rate
        self._free_s = now_s
        """When everything that was granted has gone at the rate."""

    def wait_s(self, count: int, now_s: float) -> float:
        """Grant `count` bytes; how long to wait before they go."""
        if not self.rate:
            return 0.0
        self._free_s = max(self._free_s, now_s - BURST_S) + count / self.rate
        return max(0.0, self._free_s - count / self.rate - now_s)


class SharedPace:
    """A pace of several threads, by the clock; `share` of its rate, which may change, is theirs."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._pace, self._lock = Pace(rate, time.monotonic()), Lock()

    def wait_s(self, count: int, share: float = 1.0) -> float:
        """Grant `count` bytes; how long to wait before they go."""
        with self._lock:
            self._pace.rate = self.rate * max(share, SHARE_MIN)
            return self._pace.wait_s(count, time.monotonic())
