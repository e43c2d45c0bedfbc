"""Opening files for their entries: as the storage opens files, every failure in words. Listing and source share it.

The libraries behind `streams.events` are imported at the first file: a site that moves only whole files never does.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from streams.core.selections.entries import EventSelection
from streams.planes.reasons import put_in_words
from streams.storage.endpoint import ReadableStorage

if TYPE_CHECKING:
    from streams.events.entries import Entries

log = logging.getLogger(__name__)

KEPT_S = 10.0


class OpenFileCache:
    """One file that was just listed, left open for the request that follows: a wide one takes 0.3 s to open.

    Thread-safe. What nobody takes is closed in the end.
    """

    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._kept: tuple[tuple[str, str, str], Entries] | None = None

    def put(self, lfn: str, version: str, part: str, entries: Entries) -> None:
        """Leave it here, or close it where one is waiting: the first of a list is what is asked for first."""
        with self._lock:
            if self._kept is None:
                self._kept = (lfn, version, part), entries
                timer = threading.Timer(self._kept_s, self._drop, (entries,))
                timer.daemon = True
                timer.start()
                return
        entries.close()

    def take(self, lfn: str, version: str, part: str) -> Entries | None:
        with self._lock:
            if self._kept is None or self._kept[0] != (lfn, version, part):
                return None
            (_, entries), self._kept = self._kept, None
            return entries

    def _drop(self, entries: Entries) -> None:
        with self._lock:
            if self._kept is None or self._kept[1] is not entries:
                return
            self._kept = None
        entries.close()


def open_item(endpoint: ReadableStorage, lfn: str, version: str, selection: EventSelection) -> Entries:
    """The entries of one version of a file of this site (any, if `version` is ""). Raises StorageError only."""
    try:
        from streams.events.reading import open_entries

        path, seen = endpoint.local_file(lfn, version)
        return open_entries(path, selection, version=seen)
    except Exception as error:
        raise put_in_words(error, lfn) from error
