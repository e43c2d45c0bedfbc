"""A limit on what many readers together keep in memory: whoever was not read for longest lets go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol


class Keeper(Protocol):
    """A reader that keeps bytes which it can fetch again."""

    @property
    def kept_bytes(self) -> int: ...

    def forget(self) -> None:
        """Let go of them; called by any thread."""


class KeptBytes:
    """About `most` bytes, kept by all together; one reader alone keeps what it likes. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._used: OrderedDict[Keeper, None] = OrderedDict()

    def used(self, reader: Keeper) -> None:
        """Count it as read just now, and let others forget what is too much."""
        with self._lock:
            self._used[reader] = None
            self._used.move_to_end(reader)
            kept = sum(one.kept_bytes for one in self._used)
            while kept > self._most and len(self._used) > 1:
                oldest = self._used.popitem(last=False)[0]
                kept -= oldest.kept_bytes
                oldest.forget()

    def unused(self, reader: Keeper) -> None:
        with self._lock:
            self._used.pop(reader, None)
