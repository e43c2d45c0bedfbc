"""What each number of a writer stands for: 32 bits a number, in pages that are rows, but for those used last.

A page that is written again before the next cut takes the place of what was written since the last one; what stood at
the cut stays, so that an audit which is killed behind it is gone on with as if it had not read on.
"""

from __future__ import annotations

import struct
from array import array
from collections import OrderedDict

from streams.core.ledger.rows import TAGS, Rows

PAGE = 1024
"""Numbers of a page, 4 bytes each."""
PAGES_MAX = 1024
"""Pages in memory."""
_PAGE_NO = struct.Struct(">Q")
_CUT = struct.Struct(">I")


class Tags:
    """Of all streams; a stream by its name in rows. 0 stands for none."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._pages: OrderedDict[tuple[bytes, int], array[int]] = OrderedDict()
        self._changed: set[tuple[bytes, int]] = set()
        self.cut = 0
        """How many cuts there were."""

    def get(self, stream: bytes, seq: int) -> int:
        return self._page((stream, seq // PAGE), may_be_there=True)[seq % PAGE]

    def put(self, stream: bytes, seq: int, tag: int, *, is_new_page: bool) -> None:
        """`is_new_page`: no number of its page, nor behind it, was ever put."""
        name = stream, seq // PAGE
        self._page(name, may_be_there=not is_new_page)[seq % PAGE] = tag
        self._changed.add(name)

    def write(self) -> None:
        """Put all that changed into rows, for a cut."""
        for name in sorted(self._changed):
            self._put(name, self._pages[name])
        self._changed.clear()
        self.cut += 1

    def _page(self, name: tuple[bytes, int], *, may_be_there: bool) -> array[int]:
        found = self._pages.get(name)
        if found is not None:
            self._pages.move_to_end(name)
            return found
        stored = b""
        if may_be_there:
            for _, row in self._rows.scan(TAGS + name[0] + _PAGE_NO.pack(name[1])):
                stored = row
        found = self._pages[name] = array("I", stored + bytes(4 * PAGE - len(stored)))
        if len(self._pages) > PAGES_MAX:
            oldest, page = self._pages.popitem(last=False)
            if oldest in self._changed:
                self._put(oldest, page)
                self._changed.discard(oldest)
        return found

    def _put(self, name: tuple[bytes, int], page: array[int]) -> None:
        packed = page.tobytes().rstrip(b"\0")
        packed += bytes(-len(packed) % 4)
        self._rows.put(TAGS + name[0] + _PAGE_NO.pack(name[1]) + _CUT.pack(self.cut), packed)
