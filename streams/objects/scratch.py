"""Unpacked bytes kept in a directory for as long as there is room: what is costly to read from its middle.

A file has its name only once it is whole and synced, so what a killed process leaves is never read. Files are evicted
the least recently used first; one that is being read stays readable to its reader. Several processes may share the
directory: two that unpack the same at once do the work twice and keep one. Not here: any format.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from streams.errors import StorageError
from streams.objects.limits import SCRATCH_BYTES_MAX
from streams.storage import oserrors
from streams.storage.checksums import Buffer

_WHOLE = ".bytes"
_GROWING = ".part"
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
ROOM_BYTES = 128 << 20
"""Made free at a time, since nobody knows before how much an archive becomes."""
DEAD_S = 60
"""A part younger than this may be one that is only about to be locked."""
_LOCKS = [threading.Lock() for _ in range(16)]


def kept(directory: str, about: tuple[str, ...], unpack: Callable[[], Iterable[Buffer]]) -> int:
    """A descriptor, read-only, of a file that holds what `unpack` gives; unpacked only where it is not there yet.

    `about` says what the bytes are: equal ones must have equal bytes.
    """
    digest = hashlib.sha256("\0".join(about).encode("utf-8", "surrogateescape")).hexdigest()[:40]
    path = os.path.join(directory, digest + _WHOLE)
    with _LOCKS[int(digest[:8], 16) % len(_LOCKS)]:  # two threads of this process: the second finds it
        fd = _opened(path)
        if fd is None:
            try:
                os.makedirs(directory, mode=0o700, exist_ok=True)
                fd = _filled(path, unpack)
            except OSError as error:
                raise oserrors.writing(error, path) from error
    return fd


def _opened(path: str) -> int | None:
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise oserrors.reading(error, path) from error
    with suppress(OSError):  # the time of the last use, which eviction goes by; without it, it goes sooner
        os.utime(fd, ns=(time.time_ns(), os.fstat(fd).st_mtime_ns))
    return fd


def _filled(path: str, unpack: Callable[[], Iterable[Buffer]]) -> int:
    part = f"{path.removesuffix(_WHOLE)}.{os.getpid()}-{secrets.token_hex(4)}{_GROWING}"
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # while it is held, nobody takes the part for a dead process's
        room = 0
        for block in unpack():
            if len(block) > room:
                room = max(ROOM_BYTES, len(block))
                _evict(os.path.dirname(path), room)
            room -= len(block)
            view = memoryview(block)
            while view.nbytes:
                view = view[os.write(fd, view) :]
        os.fsync(fd)
        os.rename(part, path)
        fcntl.flock(fd, fcntl.LOCK_UN)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            os.unlink(part)
        raise
    return fd


def _evict(directory: str, bytes_wanted: int) -> None:
    """Make room: parts of dead processes go, then the least recently used files."""
    files, taken = [], 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.endswith((_WHOLE, _GROWING)) or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError):  # another's, or gone by now: one name's fault
                stat = entry.stat(follow_symlinks=False)
                old = time.time() - stat.st_mtime > DEAD_S
                if entry.name.endswith(_GROWING) and old and _is_dead(entry.path):
                    os.unlink(entry.path)
                    continue
                taken += stat.st_size
                if entry.name.endswith(_WHOLE):
                    files.append((stat.st_atime_ns, entry.path, stat.st_size))
    most = SCRATCH_BYTES_MAX + ROOM_BYTES  # so that one of the largest size has the room made for its last step
    for _, path, size in sorted(files):
        if taken + bytes_wanted <= most:
            return
        with suppress(OSError):
            os.unlink(path)
            taken -= size
    if taken + bytes_wanted > most and taken:
        what = f"{taken:,} bytes are being unpacked now, {bytes_wanted:,} more have no room"
        raise StorageError(what, directory, f"at most {SCRATCH_BYTES_MAX:,} at once")


def _is_dead(part: str) -> bool:
    """Whether no process holds it."""
    fd = os.open(part, _FLAGS)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
