"""Operations on names beneath one root, none of which can leave it, and the durability of names.

Paths are relative to the root ("" is the root). Everything raises OSError; EXDEV says "this leads out of the root".
No content is read or written here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from streams.storage import syscalls

_NO_SUCH_CALL = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}
OWN_DIRECTORY = ".t2g-endpoint"
"""At the root: what the endpoint keeps for itself. No name of a file leads to a hidden directory."""
_KNOWN_DURABLE_MAX = 4096
_RACES_MAX = 16


class DirectoryTree:
    """The root directory, held open: what is mounted over its path later is not written to."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        self._openat2 = self._has_openat2()
        self._durable: dict[str, int] = {}

    def close(self) -> None:
        os.close(self.fd)

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        """Open beneath the root. Links are followed only while they stay inside; add O_NOFOLLOW for the last one."""
        for _ in range(_RACES_MAX if self._openat2 else 0):
            try:
                return syscalls.open_beneath(self.fd, path, flags, mode)
            except OSError as error:
                if error.errno == errno.EAGAIN:  # a rename elsewhere raced with the kernel's walk
                    continue
                if error.errno == errno.EXDEV:  # maybe an absolute link that points back inside
                    break
                raise
        return self._walk(path, flags, mode)

    @contextmanager
    def directory(self, path: str) -> Iterator[int]:
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    def stat(self, path: str, flags: int = 0) -> os.stat_result:
        """Of what the name leads to beneath the root; with O_NOFOLLOW of a link itself."""
        fd = self.open(path, os.O_PATH | flags)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def lstat(self, path: str) -> os.stat_result:
        """Of the name itself. It may look through links that lead out: use it to recognise an inode, nothing else."""
        return os.stat(path, dir_fd=self.fd, follow_symlinks=False)

    def make_directory(self, path: str) -> None:
        """Make it and what is missing above it. Not durable yet: `fsync_directories` of it is owed before a claim."""
        try:
            os.close(self.open(path, os.O_RDONLY | os.O_DIRECTORY))
        except FileNotFoundError:
            above, name = os.path.split(path)
            self.make_directory(above)
            with self.directory(above) as fd, suppress(FileExistsError):
                os.mkdir(name, dir_fd=fd)

    def rename_noreplace(self, directory_fd: int, old: str, new: str, into_fd: int | None = None) -> None:
        """Within one directory, or into another; FileExistsError if `new` is taken.

        Where the filesystem cannot, link and unlink: a crash between the two leaves one file under both names, which
        `open_part` recognises.
        """
        into_fd = directory_fd if into_fd is None else into_fd
        try:
            syscalls.rename_noreplace(directory_fd, old, into_fd, new)
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise
            os.link(old, new, src_dir_fd=directory_fd, dst_dir_fd=into_fd, follow_symlinks=False)
            os.unlink(old, dir_fd=directory_fd)

    def fsync_directories(self, paths: Iterable[str]) -> dict[str, OSError | None]:
        """Make the names in these directories durable, and the names of the directories themselves up to the root.

        A directory once seen durable (by path and inode) is not climbed from again, whoever made it.
        """
        done: dict[str, int] = {}
        answers: dict[str, OSError | None] = {}
        for path in paths:
            if path in answers:
                continue
            try:
                self._fsync_upwards(path, done)
                answers[path] = None
            except OSError as error:
                answers[path] = error
        return answers

    def _fsync_upwards(self, path: str, done: dict[str, int]) -> None:
        inode = self._fsync_directory(path, done)
        while path and self._durable.get(path) != inode:
            above = os.path.dirname(path)
            inode_above = self._fsync_directory(above, done)
            if len(self._durable) >= _KNOWN_DURABLE_MAX:
                self._durable.clear()
            self._durable[path] = inode
            path, inode = above, inode_above

    def _fsync_directory(self, path: str, done: dict[str, int]) -> int:
        if path not in done:
            with self.directory(path) as fd:
                try:
                    os.fsync(fd)
                except OSError as error:
                    if error.errno != errno.EINVAL:  # a filesystem that has no such thing as syncing a directory
                        raise
                done[path] = os.fstat(fd).st_ino
        return done[path]

    def _has_openat2(self) -> bool:
        try:
            os.close(syscalls.open_beneath(self.fd, "", os.O_RDONLY | os.O_DIRECTORY))
        except OSError:  # an old kernel, or a container's filter
            return False
        return True

    def _walk(self, path: str, flags: int, mode: int) -> int:
        """Without openat2: resolve the links first, then take the resolved path step by step, following none."""
        above, name = os.path.split(os.path.join(self.root, path) if path else self.root)
        if flags & os.O_NOFOLLOW:
            resolved = os.path.join(os.path.realpath(above), name)
        else:
            resolved = os.path.realpath(os.path.join(above, name))
        inside = os.path.relpath(resolved, self.root)
        steps = [] if inside == "." else inside.split("/")
        if ".." in steps:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.fd)
        for at, step in enumerate(steps):
            last = at == len(steps) - 1
            step_flags = flags if last else os.O_RDONLY | os.O_DIRECTORY
            try:
                deeper = os.open(step, step_flags | os.O_NOFOLLOW, mode, dir_fd=fd)
            finally:
                os.close(fd)
            fd = deeper
        return fd
