"""Beside a target on a POSIX filesystem: files that somebody else opens by path and writes, and the final name.

What is written into them, and when it is synced, is not known here.
"""

from __future__ import annotations

import os

from streams.storage import oserrors
from streams.storage.endpoint import Beside
from streams.storage.tree import DirectoryTree

SEED = "seed.part"
WORKROOM = "tool"
"""A directory in which a program writes."""
PART_KINDS = ("part", "final.part", SEED)
"""A part of bytes, or a spool of entries; the file that grows from the spool; a part that was not the file."""


class PosixBeside(Beside):
    """Holds the directory open: whatever its path means later, files are opened in this one, beneath the root."""

    def __init__(self, tree: DirectoryTree, lfn: str, tag: str, path: str) -> None:
        self.lfn = lfn
        self.pfn = os.path.join(tree.root, path)
        directory, self._name = os.path.split(path)
        self._tree, self._tag = tree, tag
        try:
            try:
                self._fd = tree.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                tree.make_directory(directory)
                self._fd = tree.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise oserrors.writing(error, self.pfn) from error

    def path(self, kind: str) -> str:
        return f"/proc/self/fd/{self._fd}/{part_name(self._tag, kind)}"

    def name(self, kind: str) -> bool:
        try:
            self._tree.rename_noreplace(self._fd, part_name(self._tag, kind), self._name)
        except FileExistsError:
            return False
        except OSError as error:
            raise oserrors.writing(error, self.pfn) from error
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def part_name(tag: str, kind: str = "part") -> str:
    return f".t2g-{tag}.{kind}"
