"""What a site gets is given on while it comes: readers of an open transfer's items, for the site's own door.

Only what is written is given; more is waited for. The bytes are those of a part until that is the file, and nothing has
compared them with a checksum: who takes them compares the whole, as of any door.
"""

from __future__ import annotations

import time

from streams.core.names import Site
from streams.core.records import RequestedItem
from streams.errors import StorageError, permanent
from streams.planes.destination.landing import Landing
from streams.storage.endpoint import FileStat, Reader

POLL_S, POLL_MAX_S = 0.002, 0.05
"""Between two looks at what is written: ever longer."""
SEAL_S = 2.0
"""A file has neither the part's name nor that of the whole for no longer, as far as its landing tells."""


class GrowingItem(Reader):
    """Of one item of a landing. Transient errors once the landing is over and the item is no file."""

    def __init__(self, landing: Landing, item: RequestedItem, here: Site) -> None:
        """StorageError (permanent) for an item that the landing does not have."""
        if not landing.has(item):
            raise permanent(f"item {item.no} is not what {here} gets under that number", item.lfn)
        self.lfn, self.stat = item.lfn, FileStat(item.length, item.version)
        self._landing, self._item, self._here = landing, item.no, here
        self._first = landing.progress.line.span(item.no)[0]
        self._file: Reader | None = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def ready(self, offset: int, count: int, wait_s: float) -> int:
        until_s, pause_s = time.monotonic() + wait_s, POLL_S
        while not (there := self._landing.progress.reached(self._first + offset, self._first + offset + count)):
            self.check()
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return 0
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, POLL_MAX_S)
        return there

    @property
    def descriptor(self) -> int | None:
        return self._opened().descriptor

    def readinto(self, offset: int, view: memoryview) -> None:
        self._opened().readinto(offset, view)

    def check(self) -> None:
        landing = self._landing
        if landing.lost is not None and self._item not in landing.progress.sealed:
            raise StorageError(f"{self._here} does not get it any more: {landing.lost.text}", self.lfn)
        if self._item in landing.progress.over and self._item not in landing.progress.sealed:
            raise StorageError(f"{self._here} could not get it", self.lfn)

    def _opened(self) -> Reader:
        """The part, or the file that it became."""
        until_s = time.monotonic() + SEAL_S
        while self._file is None:
            try:
                self._file = self._landing.open_reader(self._item)
            except StorageError:
                self.check()
                if time.monotonic() > until_s:
                    raise
                time.sleep(POLL_S)
        return self._file
