"""A token bucket: how long to wait before so many bytes go. Pure; who waits is the caller's."""

from __future__ import annotations

BURST_S = 0.1
"""So much of a second's bytes may go at once."""


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
