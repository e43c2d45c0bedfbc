"""Tables of the files read last, so that a thousand objects do not read one a thousand times. No format is known."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sized
from typing import Any, TypeVar

from streams.events.checked_file import CheckedFile

LINES_MAX = 200_000
"""Of all tables together, about 400 bytes each; the last one is kept whatever its size."""
ObjectTable = TypeVar("ObjectTable", bound=Sized)


class ObjectTables:
    """Shared by the threads of a process. A table is made by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], Any] = OrderedDict()
        self._lines = 0

    def of(self, file: CheckedFile, name: str, make: Callable[[], ObjectTable]) -> ObjectTable:
        """The table `name` of this version of the file; made unless it is kept."""
        key = (file.path, file.version, name)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            else:
                table = make()
                self._kept[key] = table
                self._lines += len(table)
                while self._lines > LINES_MAX and len(self._kept) > 1:
                    _, old = self._kept.popitem(last=False)
                    self._lines -= len(old)
            found: ObjectTable = self._kept[key]
            return found


TABLES = ObjectTables()
"""Of this process."""
