"""Deleting files of a POSIX filesystem, and the locks under which files that have their final names are looked at.

A file goes only while nobody puts another under its name: who deletes and who replaces (posix_part.py) hold the lock of
the name. There are 64 lock files for all names. They lie in a directory that no name leads to, and are never deleted: a
lock on a file that was made anew would be another lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol
from zlib import crc32

from streams.errors import StorageError
from streams.storage import oserrors
from streams.storage.posix_reader import file_stat, require_regular
from streams.storage.tree import DirectoryTree

LOCKS = 64
LOCK_DIRECTORY = ".t2g-locks"

WhyNot = Callable[[str, str], str | None]
"""(LFN, version found): why it stays, asked under the lock of the name."""


class NamedFiles(Protocol):
    """What of the endpoint is needed (posix.py)."""

    tree: DirectoryTree

    def path(self, lfn: str) -> str: ...

    def pfn(self, lfn: str) -> str: ...


@contextmanager
def name_lock(tree: DirectoryTree, path: str) -> Iterator[None]:
    """Nobody else deletes or replaces what has this path meanwhile. Waits; raises OSError."""
    number = f"{LOCK_DIRECTORY}/{crc32(os.fsencode(path)) % LOCKS:02d}"
    try:
        fd = tree.open(number, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except FileNotFoundError:
        tree.make_directory(LOCK_DIRECTORY)
        fd = tree.open(number, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def remove(store: NamedFiles, lfns: Sequence[str], why_not: WhyNot) -> list[str | StorageError | None]:
    """See `WritableStorage.remove_group`. One lock is held at a time.

    What a crash leaves deleted and not synced is found gone the next time, and its directory is synced then.
    """
    answers = [_remove(store, lfn, why_not) for lfn in lfns]
    gone = {no: _standing(store, lfns[no]) for no, answer in enumerate(answers) if answer is None}
    failures = store.tree.fsync_directories(dict.fromkeys(gone.values()))
    for no, directory in gone.items():
        if (error := failures[directory]) is not None:
            answers[no] = oserrors.naming(error, store.pfn(lfns[no]))
    return answers


def _standing(store: NamedFiles, lfn: str) -> str:
    """The directory of a name, or what is left above it."""
    directory = os.path.dirname(store.path(lfn))
    while directory:
        with suppress(FileNotFoundError, NotADirectoryError), store.tree.directory(directory):
            break
        directory = os.path.dirname(directory)
    return directory


def _remove(store: NamedFiles, lfn: str, why_not: WhyNot) -> str | StorageError | None:
    try:
        path, pfn = store.path(lfn), store.pfn(lfn)
        with name_lock(store.tree, path):
            try:
                stat = store.tree.stat(path, os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError):
                return None
            require_regular(stat, pfn)
            if (why := why_not(lfn, file_stat(stat).version)) is not None:
                return why
            directory, name = os.path.split(path)
            with store.tree.directory(directory) as fd:
                os.unlink(name, dir_fd=fd)
    except StorageError as error:
        return error
    except OSError as error:
        return oserrors.naming(error, store.pfn(lfn))
    return None
