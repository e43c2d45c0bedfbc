"""Readers of a part of a file, or of what was unpacked from it: bound to one version of it. Not here: any format."""

from __future__ import annotations

from streams.errors import StorageError
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


def require_within(reader: Reader, offset: int, length: int) -> None:
    """StorageError, permanent, for bytes an object does not have."""
    if not 0 <= offset <= offset + length <= reader.stat.bytes:
        what = f"bytes up to {offset + length} were asked of an object of {reader.stat.bytes}"
        raise StorageError(what, reader.lfn, failure_class="permanent")
