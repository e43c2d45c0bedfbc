"""What stands between a written byte and the disk: a bounded set of open parts, and filesystems with their errors.

Both exist because the kernel reports a failed write-back only to descriptors that were open at the time.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from threading import Lock, RLock
from typing import Protocol

from streams.storage import syscalls


class Reopenable(Protocol):
    """A part as the descriptor cache sees it."""

    def reopen(self) -> int: ...

    def closed(self, error: OSError | None) -> None:
        """Its descriptor was closed, on network filesystems maybe with the news that a write had failed.

        From now on only a whole-filesystem sync would hear of a failed write-back.
        """


class OpenFds:
    """Descriptors of the parts used last, `limit` of them at most besides those in use this instant."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = RLock()  # a part that hears that it was closed in error drops itself
        self._fds: OrderedDict[Reopenable, int] = OrderedDict()
        self._pinned: dict[Reopenable, int] = {}
        self._leaving: set[Reopenable] = set()
        """Dropped while in use: closed by who releases them last."""

    def __len__(self) -> int:
        return len(self._fds)

    def acquire(self, part: Reopenable) -> int:
        """The part's descriptor. Nothing closes it before `release`: its number would be another file's."""
        with self._lock:
            fd = self._fds.get(part)
            if fd is not None:
                self._fds.move_to_end(part)
                self._pinned[part] = self._pinned.get(part, 0) + 1
                return fd
        fd = part.reopen()
        self.adopt(part, fd, pinned=True)
        return fd

    def adopt(self, part: Reopenable, fd: int, *, pinned: bool = False) -> None:
        """Keep a descriptor that the part opened; makes room for it."""
        with self._lock:
            self._fds[part] = fd
            if pinned:
                self._pinned[part] = self._pinned.get(part, 0) + 1
            while len(self._fds) > self._limit:
                oldest = next((one for one in self._fds if one not in self._pinned and one is not part), None)
                if oldest is None:
                    return
                self._close(oldest)

    def release(self, part: Reopenable) -> None:
        with self._lock:
            self._pinned[part] -= 1
            if self._pinned[part]:
                return
            del self._pinned[part]
            if part in self._leaving:
                self._leaving.discard(part)
                self._close(part)

    def drop(self, part: Reopenable) -> None:
        """Close the part's descriptor, if open: now, or when nobody uses it any more."""
        with self._lock:
            if part in self._pinned:
                self._leaving.add(part)
            elif part in self._fds:
                self._close(part)

    def close(self) -> None:
        with self._lock:
            for part in list(self._fds):
                self._close(part)

    def _close(self, part: Reopenable) -> None:
        failure = None
        try:
            os.close(self._fds.pop(part))
        except OSError as error:
            failure = error
        part.closed(failure)


def sync_name(path: str) -> None:
    """Make a name in its directory durable, or the change of one."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class UncachedWrites:
    """Past the page cache, until it is seen that this filesystem cannot: new pages are what writing costs most."""

    def __init__(self) -> None:
        self._possible = True

    def pwrite(self, fd: int, view: memoryview, offset: int) -> int:
        if self._possible:
            try:
                return syscalls.pwrite_uncached(fd, view, offset)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise
                self._possible = False
        return os.pwrite(fd, view, offset)


class Disk:
    """One filesystem, by a descriptor opened before the first write to it and kept open, so no error passes unseen.

    A failed syncfs is told to one caller only; `failures` tells the others: a part that wrote before the count rose is
    lost, whoever asked for the sync.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.failures = 0
        self.uncached = UncachedWrites()
        self._lock = Lock()

    def sync(self) -> bool:
        """False where this machine has no such call; raises OSError if a write-back failed since the last one."""
        with self._lock:
            try:
                syscalls.syncfs(self.fd)
            except OSError as error:
                if error.errno == errno.ENOSYS:
                    return False
                self.failures += 1
                raise
            return True

    def close(self) -> None:
        os.close(self.fd)
