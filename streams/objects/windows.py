"""Readers of a part of a file, or of what was unpacked from it: bound to one version of it. Not here: any format."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from streams.errors import permanent
from streams.storage.endpoint import FileStat, Reader
from streams.storage.posix_reader import PosixReader


class Window(Reader):
    """`bytes` bytes from `start` of the source, or of `unpacked`; the source's version is checked at each read.

    Takes over both readers.
    """

    def __init__(
        self, source: PosixReader, start: int, bytes: int, unpacked: PosixReader | bytes | None = None
    ) -> None:
        self._source = source
        self._start = start
        self._unpacked = unpacked
        self.lfn = source.lfn
        self.stat = FileStat(bytes, source.stat.version)

    def readinto(self, offset: int, view: memoryview) -> None:
        require_within(self, offset, view.nbytes)
        if self._unpacked is None:
            self._source.readinto(self._start + offset, view)
            return
        if isinstance(self._unpacked, bytes):
            view[:] = self._unpacked[self._start + offset : self._start + offset + view.nbytes]
        else:
            self._unpacked.readinto(self._start + offset, view)
        self._source.pread(0, 0)  # reads nothing, but the version is checked

    def close(self) -> None:
        self._source.close()
        if isinstance(self._unpacked, PosixReader):
            self._unpacked.close()


class Spread(Reader):
    """The bytes of `stored` one behind another in `segments` (offset, length) of `bytes` bytes; zeros elsewhere.

    Takes over `stored`. Segments are in order and do not overlap.
    """

    def __init__(self, stored: Window, bytes: int, segments: Sequence[tuple[int, int]]) -> None:
        self._stored = stored
        self._segments = segments
        self._places = [0]
        for _, length in segments:
            self._places.append(self._places[-1] + length)
        self.lfn = stored.lfn
        self.stat = FileStat(bytes, stored.stat.version)

    def readinto(self, offset: int, view: memoryview) -> None:
        require_within(self, offset, view.nbytes)
        view[:] = bytes(view.nbytes)
        self._stored.readinto(0, memoryview(bytearray()))  # reads nothing, but the version is checked
        at = max(0, bisect_right(self._segments, offset, key=lambda one: one[0]) - 1)
        for (start, length), place in zip(self._segments[at:], self._places[at:], strict=False):
            if start >= offset + view.nbytes:
                break
            first, end = max(start, offset), min(start + length, offset + view.nbytes)
            if first < end:
                self._stored.readinto(place + first - start, view[first - offset : end - offset])

    def close(self) -> None:
        self._stored.close()


def require_within(reader: Reader, offset: int, length: int) -> None:
    """StorageError, permanent, for bytes an object does not have."""
    if not 0 <= offset <= offset + length <= reader.stat.bytes:
        raise permanent(f"bytes up to {offset + length} were asked of an object of {reader.stat.bytes}", reader.lfn)
