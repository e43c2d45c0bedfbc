"""Reading one version of one file on a POSIX filesystem. Nothing here writes."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable

from streams import waits
from streams.errors import permanent
from streams.storage import oserrors
from streams.storage.endpoint import SINCE_LISTED, WHILE_READ, FileStat, Reader, other_version

READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # non-blocking: opening a named pipe must not hang


def file_stat(stat: os.stat_result) -> FileStat:
    return FileStat(stat.st_size, f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}")


def require_regular(stat: os.stat_result, pfn: str) -> None:
    if not modes.S_ISREG(stat.st_mode):
        raise permanent("not a regular file", pfn)


class PosixReader(Reader):
    """A file replaced by another under its name goes on being read: it is still the version that was opened."""

    def __init__(self, fd: int, lfn: str, pfn: str, version: str | None = None) -> None:
        """Takes over `fd`, which is closed if this raises."""
        self._fd = fd
        self._pfn = pfn
        self.lfn = lfn
        try:
            stat = self._fstat()
            require_regular(stat, pfn)
            self.stat = file_stat(stat)
            self.device = stat.st_dev
            if version is not None:
                self._same(version, SINCE_LISTED)
        except BaseException:
            os.close(fd)
            raise

    def pread(self, offset: int, length: int) -> bytes:
        try:
            block = os.pread(self._fd, length, offset)
        except OSError as error:
            raise oserrors.reading(error, self._pfn) from error
        if len(block) == length:
            self.check()
            return block
        return super().pread(offset, length)

    def readinto(self, offset: int, view: memoryview) -> None:
        while view.nbytes:
            try:
                count = os.preadv(self._fd, [view], offset)
            except OSError as error:
                raise oserrors.reading(error, self._pfn) from error
            if not count:
                self.check()
                what = f"bytes up to {offset + view.nbytes} were asked of a file of {self.stat.bytes}"
                raise permanent(what, self._pfn)
            view = view[count:]
            offset += count
        self.check()

    def adler32(self, take: Callable[[memoryview], None] | None = None) -> str:
        with waits.on(f"{self._pfn} to be read"):
            return super().adler32(take)

    def fsync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def descriptor(self) -> int:
        return self._fd

    def check(self) -> None:
        self._same(file_stat(self._fstat()).version, WHILE_READ)

    def _fstat(self) -> os.stat_result:
        try:
            return os.fstat(self._fd)
        except OSError as error:
            raise oserrors.reading(error, self._pfn) from error

    def _same(self, version: str, when: str) -> None:
        if version != self.stat.version:
            raise other_version(version, self.stat, when, self._pfn)


class PosixPartReader(PosixReader):
    """Of a part that grows: it is the same file whatever is written to it, and once it has its final name."""

    def __init__(self, fd: int, lfn: str, pfn: str, bytes: int) -> None:
        """Takes over `fd`, which is closed if this raises. `bytes`: of the file that it will be."""
        super().__init__(fd, lfn, pfn)
        self.stat = FileStat(bytes, "")

    def check(self) -> None:
        pass
