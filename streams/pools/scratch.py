"""A worker's scratch directory: its own while it lives, removed when it ends, or by the next worker after a kill."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PREFIX = "t2g-work-"


@contextmanager
def folder() -> Iterator[str]:
    """A new directory below TMPDIR, held by a lock for as long as this process has it open."""
    above = tempfile.gettempdir()
    _sweep(above)
    made = tempfile.mkdtemp(prefix=PREFIX, dir=above)
    fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(fd)


def _sweep(above: str) -> None:
    """Remove what nobody holds: directories of this user's whose worker was killed."""
    for name in os.listdir(above):
        if not name.startswith(PREFIX):
            continue
        path = os.path.join(above, name)
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_uid == os.getuid():
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)
