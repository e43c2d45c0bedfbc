"""A directory beside a target on a POSIX filesystem, in which a program that is not ours writes a file by its path.

The file has a name that nobody had before: a program that an earlier or a stopped plane left at work writes to another,
or to none, since whoever takes the room empties it first.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat as modes
from collections.abc import Iterator
from contextlib import suppress

from streams.errors import StorageError, permanent
from streams.storage import oserrors
from streams.storage.endpoint import Workroom
from streams.storage.posix_beside import WORKROOM, part_name
from streams.storage.posix_reader import READ_FLAGS, PosixReader
from streams.storage.tree import DirectoryTree

_ENTRIES_MAX = 10_000
_TRIES = 5
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class PosixWorkroom(Workroom):
    """Holds the directory open: what a path means later plays no part in what is read and deleted."""

    def __init__(self, tree: DirectoryTree, lfn: str, tag: str, path: str) -> None:
        self.lfn = lfn
        self._pfn = os.path.join(tree.root, path)
        self._tree, self._tag = tree, tag
        self._directory = os.path.dirname(path)
        self._name = secrets.token_hex(8)
        room = os.path.join(self._directory, part_name(tag, WORKROOM))
        self.path = os.path.join(tree.root, room, self._name)
        try:
            tree.make_directory(self._directory)
            with tree.directory(self._directory) as fd:
                remove(fd, tag)
                os.mkdir(part_name(tag, WORKROOM), dir_fd=fd)
            self._fd = tree.open(room, _FLAGS)
        except OSError as error:
            raise oserrors.writing(error, self._pfn) from error

    def used(self) -> int:
        return sum(_sizes(self._fd))

    def open_reader(self) -> PosixReader:
        try:
            fd = os.open(self._name, READ_FLAGS | os.O_NOFOLLOW, dir_fd=self._fd)
        except FileNotFoundError:
            raise StorageError("it has written no file", self._pfn) from None
        except OSError as error:
            if os.path.islink(f"/proc/self/fd/{self._fd}/{self._name}"):
                raise permanent("it has made a symbolic link in place of a file", self._pfn) from error
            raise oserrors.reading(error, self._pfn) from error
        return PosixReader(fd, self.lfn, self._pfn)

    def close(self) -> None:
        if self._fd < 0:
            return
        try:
            with self._tree.directory(self._directory) as fd:
                if self._is_ours(fd):
                    remove(fd, self._tag)
        except FileNotFoundError:
            pass  # the target's directory is gone with it
        except OSError as error:
            raise oserrors.writing(error, self._pfn) from error
        finally:
            os.close(self._fd)
            self._fd = -1

    def _is_ours(self, directory: int) -> bool:
        """Whether the room's name leads to the directory made here. While that is open, no other is taken for it."""
        named = os.stat(part_name(self._tag, WORKROOM), dir_fd=directory, follow_symlinks=False)
        made = os.fstat(self._fd)
        return (made.st_dev, made.st_ino) == (named.st_dev, named.st_ino)


def remove(directory: int, tag: str) -> bool:
    """Delete the room of a tag with all that is in it; whether there was one. OSError for what cannot be deleted."""
    name = part_name(tag, WORKROOM)
    for _ in range(_TRIES):
        try:
            stat = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        with suppress(FileNotFoundError):  # a program deletes its own files meanwhile
            if modes.S_ISDIR(stat.st_mode):
                shutil.rmtree(name, dir_fd=directory)
            else:
                os.unlink(name, dir_fd=directory)
            return True
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _sizes(fd: int) -> Iterator[int]:
    """Of the files in a directory, not of those in directories below: no tool is known to make any."""
    with suppress(OSError), os.scandir(fd) as found:
        for number, entry in enumerate(found):
            if number >= _ENTRIES_MAX:
                return
            with suppress(OSError):
                yield entry.stat(follow_symlinks=False).st_size
