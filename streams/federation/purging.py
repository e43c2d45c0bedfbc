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
            self._try(self._fd, *self._waiting.pop(), 0)

    def _try(self, above: int, name: str, path: str, deep: int) -> None:
        try:
            self._take(above, name, path, deep)
        except FileNotFoundError:
            pass
        except OSError as error:
            if len(self.faults) < FAULTS_MAX:
                self.faults.append((path, (error.strerror or str(error)).lower()))

    def _take(self, above: int, name: str, path: str, deep: int) -> None:
        if not modes.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=above)
            return
        with suppress(OSError):  # its owner may have taken rights from it, and may give them back
            os.chmod(name, 0o700, dir_fd=above)
        try:
            os.rmdir(name, dir_fd=above)
        except OSError:
            if above == self._fd or not self._move_up(above, name, path, deep):
                with _opened(name, above) as fd:
                    for below in os.listdir(fd):
                        self._try(fd, below, os.path.join(path, below), deep + (above != self._fd))
                os.rmdir(name, dir_fd=above)

    def _move_up(self, above: int, name: str, path: str, deep: int) -> bool:
        """Whether a directory that holds something waits at the top now; False where there is no room to move it."""
        self._moved += 1
        up = f".t2g-purged-{os.getpid()}-{self._moved}"
        try:
            os.rename(name, up, src_dir_fd=above, dst_dir_fd=self._fd)
        except OSError as error:
            if error.errno not in _NO_ROOM or deep >= _DEEP_MAX:
                raise
            return False
        self._waiting.append((up, path))
        return True


@contextmanager
def _opened(name: str, dir_fd: int | None = None) -> Iterator[int]:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)
