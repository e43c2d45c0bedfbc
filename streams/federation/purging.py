"""Removing a directory with all that is in it, however deep, whatever stands there; one bad name never ends it.

A directory below is moved up beside the others before it is emptied, so that no path grows and no depth is too great.
On a full disk moving may need room that only removing makes: a directory is emptied where it stands then.
Links are removed and never followed. Nothing else may be at work in there.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

FAULTS_MAX = 100
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_DEEP_MAX = 100
"""Directories that are open one below the other while there is no room to move one up."""


def remove_within(top: str, keep: Collection[str] = ()) -> list[tuple[str, str]]:
    """Empty the directory `top`, but for the names to `keep`; (path, why) of what could not be removed, the first 100.

    Raises OSError when `top` itself cannot be read.
    """
    with _opened(top) as fd:
        removing = _Removing(top, fd, keep)
        removing.run()
        return removing.faults


class _Removing:
    def __init__(self, top: str, fd: int, keep: Collection[str]) -> None:
        self._top, self._fd = top, fd
        self._waiting = [(name, os.path.join(top, name)) for name in os.listdir(fd) if name not in keep]
        self._moved = 0
        self.faults: list[tuple[str, str]] = []

    def run(self) -> None:
        while self._waiting:
            name, path = self._waiting.pop()
            try:
                stat = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                if modes.S_ISDIR(stat.st_mode):
                    self._empty(self._fd, name, path, 0)
                    os.rmdir(name, dir_fd=self._fd)
                else:
                    os.unlink(name, dir_fd=self._fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._fault(path, error)

    def _empty(self, above: int, name: str, path: str, deep: int) -> None:
        """Files go; directories that hold something move up and wait."""
        with suppress(OSError):  # its owner may have taken rights from it, and may give them back
            os.chmod(name, 0o700, dir_fd=above)
        with _opened(name, above) as fd:
            for below in os.listdir(fd):
                try:
                    self._take(fd, below, os.path.join(path, below), deep)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._fault(os.path.join(path, below), error)

    def _take(self, fd: int, name: str, path: str, deep: int) -> None:
        if not modes.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=fd)
            return
        with suppress(OSError):
            os.chmod(name, 0o700, dir_fd=fd)
        try:
            os.rmdir(name, dir_fd=fd)
        except OSError:
            self._moved += 1
            up = f".t2g-purged-{os.getpid()}-{self._moved}"
            try:
                os.rename(name, up, src_dir_fd=fd, dst_dir_fd=self._fd)
            except OSError as error:
                if error.errno not in _NO_ROOM or deep >= _DEEP_MAX:
                    raise
                self._empty(fd, name, path, deep + 1)
                os.rmdir(name, dir_fd=fd)
            else:
                self._waiting.append((up, path))

    def _fault(self, path: str, error: OSError) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append((path, (error.strerror or str(error)).lower()))


@contextmanager
def _opened(name: str, dir_fd: int | None = None) -> Iterator[int]:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)
