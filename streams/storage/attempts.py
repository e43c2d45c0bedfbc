"""Trying again, whatever is asked: how often, with which pauses, and not at all of what was found away a moment ago.

What is worth another try is for who asks to say. Times are monotonic seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from streams.errors import StorageError

_FIRST_PAUSE_S = 0.2
_SHORTEST_S = 0.01


def trials(most: int, until: float) -> Iterator[float]:
    """Before each of so many tries, what it may take: the seconds left. Pauses of 0.2 s, 0.8 s, … stand between.

    The first is always made, a later one only while `until` is not reached.
    """
    for trial in range(most):
        pause_s = _FIRST_PAUSE_S * 4 ** (trial - 1) if trial else 0.0
        left_s = until - time.monotonic() - pause_s
        if trial and left_s <= 0:
            return
        time.sleep(pause_s)
        yield max(left_s, _SHORTEST_S)


class Breaker:
    """Remembers for a while that something was found away: each item of a request would wait for it anew."""

    def __init__(self) -> None:
        self._away: tuple[float, StorageError] | None = None

    def check(self, where: str) -> None:
        """Raises the failure that was seen, of `where`, while it is remembered."""
        away = self._away
        if away is not None and time.monotonic() < away[0]:
            seen = away[1]
            raise StorageError(seen.what, where or seen.where, seen.next, failure_class=seen.failure_class)

    def failed(self, failure: StorageError, away_s: float) -> None:
        self._away = time.monotonic() + away_s, failure

    def worked(self) -> None:
        self._away = None
