"""What is on a disk below the root, known or not: names and when they changed. Opens directories only.

One directory of each level is open at a time and is never listed whole, so memory is bounded by the depth.
"""

from __future__ import annotations

import errno
import os
import re
import stat as modes
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from streams.core.names import Lfn
from streams.errors import InvalidName
from streams.storage import oserrors
from streams.storage.endpoint import Dated, OnDisk
from streams.storage.posix_beside import PART_KINDS, WORKROOM
from streams.storage.posix_reader import file_stat
from streams.storage.posix_removal import LOCK_DIRECTORY
from streams.storage.tree import OWN_DIRECTORY, DirectoryTree

_DEPTH_MAX = 256
"""Two descriptors are open for each level; names with so many segments are nobody's."""
_GONE = {errno.ENOENT, errno.ENOTDIR}
_OF_THE_FILESYSTEM = "lost+found"
_OF_THE_ENDPOINT = (LOCK_DIRECTORY, OWN_DIRECTORY)
_PART = re.compile(
    rf"\.t2g-([0-9a-f]{{16}})-[0-9]{{1,10}}\.(?:(?:{'|'.join(map(re.escape, PART_KINDS))})\Z|{WORKROOM}/.)"
)

Refuse = Callable[[str, str], None]
"""(path below the root, why)"""
LfnOf = Callable[[str], Lfn | None]
"""See `ReadableStorage.lfn_of`."""


def walk(tree: DirectoryTree, refuse: Refuse, lfn_of: LfnOf) -> Iterator[OnDisk]:
    """See `ReadableStorage.walk`."""
    open_now: list[_Open] = []
    try:
        _enter(tree, "", open_now, refuse)
        while open_now:
            directory, _, scan = open_now[-1]
            try:
                entry = next(scan, None)
            except OSError as error:
                refuse(directory, _words(error))
                entry = None
            if entry is None:
                open_now.pop().close()
                continue
            path = os.path.join(directory, entry.name)
            if path in _OF_THE_ENDPOINT:
                continue
            if _is_directory(entry):
                _enter(tree, path, open_now, refuse)
            elif not _leads_to_directory(entry):
                yield _on_disk(path, lfn_of)
    finally:
        for one in open_now:
            one.close()


def dated(tree: DirectoryTree, path: str) -> Dated | None:
    """See `ReadableStorage.dated`."""
    try:
        stat = tree.stat(path, os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise oserrors.reading(error, os.path.join(tree.root, path)) from error
    # Anybody may set the time of a file's content, nobody that of its last change.
    changed_ns = stat.st_ctime_ns
    if modes.S_ISLNK(stat.st_mode):
        with suppress(OSError):  # it leads nowhere, or out of the root
            stat = tree.stat(path)
    return Dated(file_stat(stat).version, changed_ns)


class _Open(NamedTuple):
    """A directory that is being read; its entries look at themselves through `fd`."""

    path: str
    fd: int
    scan: Any

    def close(self) -> None:
        self.scan.close()
        os.close(self.fd)


def _enter(tree: DirectoryTree, path: str, open_now: list[_Open], refuse: Refuse) -> None:
    if len(open_now) > _DEPTH_MAX:
        refuse(path, "deeper than any name of a file")
        return
    try:
        fd = tree.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            open_now.append(_Open(path, fd, os.scandir(fd)))
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        if path and error.errno in _GONE:
            return
        if path == _OF_THE_FILESYSTEM and error.errno == errno.EACCES:
            return
        refuse(path, _words(error))


def _is_directory(entry: Any) -> bool:
    try:
        return bool(entry.is_dir(follow_symlinks=False))
    except OSError:  # it cannot even be looked at: a name all the same
        return False


def _leads_to_directory(entry: Any) -> bool:
    with suppress(OSError):  # a link in a circle: a name
        return bool(entry.is_symlink() and entry.is_dir())
    return False


def _on_disk(path: str, lfn_of: LfnOf) -> OnDisk:
    at = path.rfind("/.t2g-") + 1
    part = _PART.match(path, at)
    item = part[1] if part else ""
    try:
        return OnDisk(path, None if item else lfn_of(path), item)
    except InvalidName:
        return OnDisk(path, None, "")


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
