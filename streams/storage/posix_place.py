"""Bringing a user's local file under the root: hard link, clone or copy, whole or not at all, never replacing.

A new file is made without a name and linked into place when it is whole and synced, so a crash at any point leaves
either nothing or the file. Filesystems that have no nameless files get a temporary `.part`, which a kill can leave.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable
from functools import partial

from streams.errors import permanent
from streams.storage import oserrors
from streams.storage.endpoint import PlacedFile
from streams.storage.posix_part import PosixStore
from streams.storage.posix_reader import READ_FLAGS, PosixReader

_FICLONE = 0x40049409
_CANNOT_CLONE = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EBADF, errno.EPERM}
# other filesystem; kernel forbids linking what is not ours; too many links; no hard links or no /proc here
_CANNOT_LINK = {
    *(errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK),
    *(errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL, errno.EROFS),
}
_NO_NAMELESS = {errno.EISDIR, *_CANNOT_LINK} - {errno.EROFS, errno.EACCES}


def measure(source_path: str) -> tuple[int, str]:
    """Bytes and adler32 of a local file. StorageError if it cannot be read or changes meanwhile."""
    with open_local(source_path, source_path) as source:
        return source.stat.bytes, source.adler32()


def open_local(lfn: str, source_path: str) -> PosixReader:
    """A file of a user, read as an endpoint's own is."""
    try:
        fd = os.open(source_path, READ_FLAGS)
    except OSError as error:
        raise oserrors.reading(error, source_path) from error
    return PosixReader(fd, lfn, source_path)


def place(store: PosixStore, lfn: str, source_path: str, *, link: bool) -> PlacedFile:
    path = store.path(lfn)
    directory, name = os.path.split(path)
    with open_local(lfn, source_path) as source:
        try:
            store.tree.make_directory(directory)
            with store.tree.directory(directory) as directory_fd:
                adler, how = _bring(store, source, directory_fd, name, link=link)
        except OSError as error:
            raise oserrors.writing(error, store.pfn(lfn)) from error
        if how == "already" and not store.present(lfn, source.stat.bytes, adler):
            raise permanent("something that is not a readable file is already there", store.pfn(lfn))
        failure = store.tree.fsync_directories([directory])[directory]
        if failure is not None:
            raise oserrors.naming(failure, store.pfn(lfn))
        return PlacedFile(lfn, source.stat.bytes, adler, store.stat(lfn).version, how)


def _bring(store: PosixStore, source: PosixReader, directory_fd: int, name: str, *, link: bool) -> tuple[str, str]:
    """The adler32, and how it came."""
    if link:
        adler = source.adler32()
        try:
            source.fsync()  # a name must not become durable before its bytes
            _link_fd(source.descriptor, directory_fd, name)
            return adler, "link"
        except FileExistsError:
            return adler, "already"
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
    try:
        return _bring_nameless(source, directory_fd, name)
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
        return _bring_named(store, source, directory_fd, name)


def _bring_nameless(source: PosixReader, directory_fd: int, name: str) -> tuple[str, str]:
    fd = os.open(".", os.O_RDWR | os.O_TMPFILE, 0o666, dir_fd=directory_fd)
    return _bring_into(fd, source, lambda: _link_fd(fd, directory_fd, name))


def _bring_named(store: PosixStore, source: PosixReader, directory_fd: int, name: str) -> tuple[str, str]:
    temporary = f".t2g-{secrets.token_hex(8)}-0.part"
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=directory_fd)
    try:
        adler, how = _bring_into(fd, source, lambda: store.tree.rename_noreplace(directory_fd, temporary, name))
    except BaseException:
        os.unlink(temporary, dir_fd=directory_fd)
        raise
    if how == "already":
        os.unlink(temporary, dir_fd=directory_fd)
    return adler, how


def _bring_into(fd: int, source: PosixReader, give_name: Callable[[], None]) -> tuple[str, str]:
    """A new file, which is closed."""
    try:
        adler, how = _fill(source, fd)
        try:
            give_name()
        except FileExistsError:
            how = "already"
        return adler, how
    finally:
        os.close(fd)


def _fill(source: PosixReader, fd: int) -> tuple[str, str]:
    """Clone where the filesystem shares blocks, else copy; synced."""
    try:
        fcntl.ioctl(fd, _FICLONE, source.descriptor)
        adler, how = source.adler32(), "clone"
    except OSError as error:
        if error.errno not in _CANNOT_CLONE:
            raise
        adler, how = source.adler32(partial(_written, fd)), "copy"
    os.fdatasync(fd)
    return adler, how


def _written(fd: int, piece: memoryview) -> None:
    while piece.nbytes:
        piece = piece[os.write(fd, piece) :]


def _link_fd(fd: int, directory_fd: int, name: str) -> None:
    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory_fd, follow_symlinks=True)
