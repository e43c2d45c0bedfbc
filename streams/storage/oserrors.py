"""What an errno means for a transfer: the one table from OSError to a failure class. Nothing is retried here."""

from __future__ import annotations

import errno
import os

from streams.errors import StorageError, without_part_names
from streams.storage.endpoint import FileMissing, PartFileLost

_HOPELESS = (
    *(errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EXDEV, errno.EFBIG),
    *(errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS),
)
_CLASSES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "quota"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "auth"),
    **dict.fromkeys(_HOPELESS, "permanent"),
}
# The medium or the server failed: what was written and not yet synced may be gone without a further word.
MEDIUM = {errno.EIO, errno.ESTALE, errno.EUCLEAN, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO}

_WORDS = {
    errno.ENOSPC: ("the disk is full", "free some space, then ask for it again"),
    errno.EDQUOT: ("the disk quota is used up", "raise the quota or free space, then ask for it again"),
    errno.EROFS: ("the storage is mounted read-only", "mount it writable"),
    errno.EXDEV: ("a symbolic link leads out of the storage root", "use a bind mount, or an endpoint of its own"),
    errno.EACCES: ("permission denied", "check owner and mode for the user the worker runs as"),
    errno.EPERM: ("operation not permitted", "check owner and mode for the user the worker runs as"),
    errno.EIO: ("the disk reports an input/output error", "check the disk"),
}


def failure_class(number: int | None) -> str:
    """quota, auth, permanent, or transient for what is not known to be hopeless."""
    return _CLASSES.get(number or 0, "transient")


def _words(error: OSError) -> tuple[str, str]:
    number = error.errno or 0
    return _WORDS.get(number, (os.strerror(number).lower() if number else without_part_names(str(error)), ""))


def reading(error: OSError, where: str) -> StorageError:
    """A failure at a source. A bad sector is data-bad: another source can help, waiting cannot."""
    if error.errno == errno.ENOENT:
        return FileMissing("no such file", where, failure_class="permanent")
    what, then = _words(error)
    bad = error.errno in MEDIUM - {errno.ESTALE}
    return StorageError(
        f"cannot read: {what}", where, then, failure_class="data-bad" if bad else failure_class(error.errno)
    )


def writing(error: OSError, where: str) -> StorageError:
    """A failure at a destination; `PartFileLost` where the medium failed."""
    what, then = _words(error)
    kind = PartFileLost if error.errno in MEDIUM else StorageError
    return kind(f"cannot write: {what}", where, then, failure_class=failure_class(error.errno))


def syncing(error: OSError, where: str) -> PartFileLost:
    """Any failed sync loses the part: the kernel drops such pages and a second sync would lie (even on a full disk)."""
    what, then = _words(error)
    return PartFileLost(f"cannot sync: {what}", where, then, failure_class=failure_class(error.errno))


def naming(error: OSError, where: str) -> StorageError:
    """The file is there, but its name may not outlive a power cut; coming back finds it and tries again."""
    what, then = _words(error)
    return StorageError(f"cannot make the name durable: {what}", where, then)
