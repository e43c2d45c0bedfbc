"""Linux calls that Python lacks: openat2, renameat2, syncfs, fallocate, a flag of pwritev2, a lock of an open file.
No policy, no fallback.

Each raises OSError as `os` does; ENOSYS where this machine or C library does not know the call. ctypes releases the GIL
around each.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import Any

_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_FALLOC_KEEP_SIZE = 1
_RWF_DONTCACHE = 0x80  # Linux ≥ 6.14, where the filesystem takes part
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_SYS_OPENAT2 = 437  # the same number on every architecture Linux got it on
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _function(name: str, *argument_types: Any) -> Any:
    found = getattr(_libc, name, None)
    if found is not None:
        found.argtypes = argument_types
        found.restype = ctypes.c_int
    return found


_renameat2 = _function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_syncfs = _function("syncfs", ctypes.c_int)
_fallocate = _function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def _call(function: Any, *arguments: Any) -> int:
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result: int = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def open_beneath(directory_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` below the directory; EXDEV when `..`, an absolute link or any link leads out of it."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    encoded = os.fsencode(path) or b"."
    while True:
        try:
            return _call(
                _libc.syscall,
                ctypes.c_long(_SYS_OPENAT2),
                ctypes.c_long(directory_fd),
                ctypes.c_char_p(encoded),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
        except InterruptedError:
            continue


def rename_noreplace(old_fd: int, old: str, new_fd: int, new: str) -> None:
    """Rename between two directories; FileExistsError if the new name is taken, by whatever."""
    _call(_renameat2, old_fd, os.fsencode(old), new_fd, os.fsencode(new), _RENAME_NOREPLACE)


def rename_exchange(directory_fd: int, one: str, other: str) -> None:
    """Two names of a directory change places, in one step."""
    names = os.fsencode(one), os.fsencode(other)
    _call(_renameat2, directory_fd, names[0], directory_fd, names[1], _RENAME_EXCHANGE)


def lock_open_file(fd: int) -> bool:
    """Lock the whole file for this open file, until its last descriptor is closed; whether nobody else has it.

    Raises OSError where the filesystem knows no such locks.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except (BlockingIOError, PermissionError):
        return False
    return True


def syncfs(fd: int) -> None:
    """Write out the whole filesystem of `fd`. Reports an error met since this descriptor was opened (Linux ≥ 5.8)."""
    _call(_syncfs, fd)


def fallocate_keep_size(fd: int, length_bytes: int) -> None:
    """Reserve blocks for the first `length_bytes` without changing the size."""
    _call(_fallocate, fd, _FALLOC_KEEP_SIZE, 0, length_bytes)


def pwrite_uncached(fd: int, view: memoryview, offset: int) -> int:
    """Write, and let the pages go as soon as they are on the disk; EOPNOTSUPP where the filesystem cannot."""
    return os.pwritev(fd, [view], offset, _RWF_DONTCACHE)
