"""The POSIX backend: one root directory, files under their PFNs, parts beside them.

What is here is the wiring: names to paths, opening, and the shared descriptors. Steps and crash points are told in
posix_part.py; groups in posix_group.py; a user's own files in posix_place.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from threading import Lock
from urllib.parse import SplitResult, unquote

from streams.core.names import LFN_BYTES_MAX, Lfn
from streams.core.path_rules import PathRules
from streams.core.ranges import Ranges
from streams.errors import NeverWorks, StorageError
from streams.storage import oserrors, posix_group, posix_own, posix_place, posix_removal, posix_walk, syscalls
from streams.storage.checksums import Buffer
from streams.storage.endpoint import (
    Beside,
    Dated,
    Endpoint,
    FileMissing,
    FileStat,
    OnDisk,
    Part,
    PartFileLost,
    PlacedFile,
    SealedFile,
    Wanted,
    Workroom,
    checked_tag,
    outside,
)
from streams.storage.posix_beside import PART_KINDS, SEED, PosixBeside, part_name
from streams.storage.posix_part import PosixPart
from streams.storage.posix_reader import READ_FLAGS, PosixReader, file_stat, require_regular
from streams.storage.posix_workroom import PosixWorkroom, remove
from streams.storage.tree import DirectoryTree
from streams.storage.writeback import Disk, OpenFds

OPEN_PARTS_MAX = 128
PATHS_KEPT = 4096
_PART_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK


def opened(url: SplitResult, *, name: str, rules: PathRules | None) -> Endpoint:
    """For the table of back ends."""
    if url.netloc not in ("", "localhost") or url.query or url.fragment or not url.path.startswith("/"):
        raise NeverWorks(f"not an absolute local path: {url.geturl()!r}", next="use file:///ROOT")
    return PosixEndpoint(unquote(url.path), name=name, rules=rules)


class PosixEndpoint(Endpoint):
    """Files below `root`, which must exist: a missing root is a disk not mounted more often than a new site."""

    def __init__(
        self, root: str, *, name: str = "", rules: PathRules | None = None, open_parts_max: int = OPEN_PARTS_MAX
    ) -> None:
        if rules is not None:
            rules.require_both_ways()
        try:
            self.tree = DirectoryTree(root)
        except OSError as error:
            failure = oserrors.reading(error, root)
            failure.next = "create the directory, or mount the disk"
            raise failure from error
        self.name = name
        self.root = self.tree.root
        self.fds = OpenFds(open_parts_max)
        self._given = os.path.normpath(root).rstrip("/") + "/"
        """The root as it was named, which is how rules name it."""
        self._rules = rules
        self._path_of = lru_cache(PATHS_KEPT)(self._checked_path)  # a file is asked for several times, soon
        self._disks: dict[int, Disk] = {}
        self._lock = Lock()

    def close(self) -> None:
        self.fds.close()
        for disk in self._disks.values():
            disk.close()
        self._disks.clear()
        self.tree.close()

    # names

    def pfn(self, lfn: str) -> str:
        return os.path.join(self.root, self.path(lfn))

    def path(self, lfn: str) -> str:
        """The PFN relative to the root. No segment is empty, `.`, `..` or hidden; nothing that is no name passes."""
        return self._path_of(lfn)

    def _checked_path(self, lfn: str) -> str:
        if len(lfn) > LFN_BYTES_MAX or not lfn.startswith("/") or not _is_path(lfn[1:]):
            raise outside(lfn)
        if self._rules is None:
            return lfn[1:]
        pfn = self._rules.pfn_of_one(lfn)
        path = pfn.removeprefix(self._given)
        if path == pfn or not _is_path(path):
            raise outside(lfn)
        return path

    def local_path(self, lfn: str) -> str:
        return self.pfn(lfn)

    def path_of(self, lfn: str) -> str:
        return self.path(lfn)

    def lfn_of(self, path: str) -> Lfn | None:
        if self._rules is None:
            return Lfn("/" + path)
        lfn = self._rules.lfn(self._given + path) if _is_path(path) else None
        return None if lfn is None else Lfn(lfn)

    # reading

    def stat(self, lfn: str) -> FileStat:
        pfn = self.pfn(lfn)
        try:
            stat = self.tree.stat(self.path(lfn))
        except OSError as error:
            raise oserrors.reading(error, pfn) from error
        require_regular(stat, pfn)
        return file_stat(stat)

    def open_reader(self, lfn: str, version: str | None = None) -> PosixReader:
        pfn = self.pfn(lfn)
        try:
            fd = self.tree.open(self.path(lfn), READ_FLAGS)
        except OSError as error:
            raise oserrors.reading(error, pfn) from error
        return PosixReader(fd, lfn, pfn, version)

    def present_group(self, wanted: Sequence[Wanted]) -> list[bool | StorageError]:
        return posix_group.present(self, wanted)

    # writing

    def place(self, lfn: str, source_path: str, *, link: bool = True) -> PlacedFile:
        return posix_place.place(self, lfn, source_path, link=link)

    def open_part(
        self,
        lfn: str,
        tag: str,
        *,
        bytes: int,
        adler32: str | None,
        verified: Iterable[tuple[int, int]] = (),
        preallocate: bool = False,
        replaces: bool = False,
    ) -> PosixPart:
        ranges = Ranges(verified)
        part = PosixPart(self, lfn, checked_tag(tag), self.path(lfn), bytes=bytes, adler32=adler32)
        try:
            fd = self._open_part_file(part, resume=bool(ranges))
            try:
                # nothing will be written to an empty file, yet it must be synced
                part.unsynced = bytes == 0
                stat = os.fstat(fd)
                self._refuse_second_name(stat, part)
                if preallocate:
                    _preallocate(fd, bytes)
                    stat = os.fstat(fd)
                part.attach(fd, stat, ranges)
                if replaces:
                    with suppress(FileMissing):
                        part.replace(self.stat(lfn).version)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise oserrors.writing(error, part.pfn) from error
        self.fds.adopt(part, fd)
        return part

    def write_part(self, lfn: str, tag: str, content: Buffer, *, adler32: str | None) -> Part:
        part = PosixPart(self, lfn, checked_tag(tag), self.path(lfn), bytes=len(content), adler32=adler32)
        try:
            fd = self._create_part_file(part, os.O_EXCL)
        except FileExistsError:  # of a process that died, or was stopped
            return super().write_part(lfn, tag, content, adler32=adler32)
        except OSError as error:
            raise oserrors.writing(error, part.pfn) from error
        try:
            part.fill(fd, content)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, OSError):
                raise oserrors.writing(error, part.pfn) from error
            raise
        self.fds.adopt(part, fd)
        return part

    def take_seed(self, lfn: str, left: str, tag: str) -> bool:
        directory = os.path.dirname(self.path(lfn))
        seed, part = part_name(checked_tag(left), SEED), part_name(checked_tag(tag))
        try:
            with self.tree.directory(directory) as fd:
                os.rename(seed, part, src_dir_fd=fd, dst_dir_fd=fd)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise oserrors.writing(error, self.pfn(lfn)) from error
        return True

    def sync_group(self, parts: Sequence[Part]) -> list[Ranges | StorageError]:
        return posix_group.sync_parts(self, self._mine(parts))

    def seal_group(self, parts: Sequence[Part]) -> list[SealedFile | StorageError]:
        return posix_group.seal_parts(self, self._mine(parts))

    def discard(self, lfn: str, tag: str) -> bool:
        directory, found = os.path.dirname(self.path(lfn)), 0
        try:
            with self.tree.directory(directory) as fd:
                for kind in PART_KINDS:
                    with suppress(FileNotFoundError):
                        os.unlink(part_name(checked_tag(tag), kind), dir_fd=fd)
                        found += 1
                found += remove(fd, tag)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise oserrors.writing(error, self.pfn(lfn)) from error
        return found > 0

    def remove_group(
        self, lfns: Sequence[str], why_not: Callable[[str, str], str | None]
    ) -> list[str | StorageError | None]:
        return posix_removal.remove(self, lfns, why_not)

    def open_beside(self, lfn: str, tag: str) -> Beside:
        return PosixBeside(self.tree, lfn, checked_tag(tag), self.path(lfn))

    def open_workroom(self, lfn: str, tag: str) -> Workroom:
        return PosixWorkroom(self.tree, lfn, checked_tag(tag), self.path(lfn))

    def settle_names(self, lfns: Sequence[str]) -> list[StorageError | None]:
        directories = [os.path.dirname(self.path(lfn)) for lfn in lfns]
        failures = self.tree.fsync_directories(dict.fromkeys(directories))
        pairs = [(lfn, failures[directory]) for lfn, directory in zip(lfns, directories, strict=True)]
        return [None if error is None else oserrors.naming(error, self.pfn(lfn)) for lfn, error in pairs]

    # walking

    def walk(self, refuse: Callable[[str, str], None]) -> Iterator[OnDisk]:
        return posix_walk.walk(self.tree, refuse, self.lfn_of)

    def dated(self, path: str) -> Dated | None:
        return posix_walk.dated(self.tree, path)

    # its own

    def read_own(self, name: str) -> bytes | None:
        return posix_own.read(self.tree, name)

    def write_own(self, name: str, content: bytes, *, once: bool = False) -> None:
        posix_own.write(self.tree, name, content, once=once)

    def aside_path(self, folder: str) -> str:
        return posix_own.aside_path(self.tree, folder)

    def set_aside(self, found: Sequence[tuple[str, str]], folder: str) -> list[str | StorageError | None]:
        return posix_own.set_aside(self.tree, found, folder)

    def lies_aside(self, path: str) -> tuple[str, int] | None:
        return posix_own.lies_aside(self.tree, path)

    def bring_back(self, paths: Sequence[str], folder: str) -> list[StorageError | None]:
        return posix_own.bring_back(self.tree, paths, folder)

    # what parts and groups share

    def unlink_part(self, directory: str, name: str) -> None:
        with self.tree.directory(directory) as fd:
            os.unlink(name, dir_fd=fd)

    def disk_of(self, device: int, directory: str) -> Disk:
        with self._lock:
            disk = self._disks.get(device)
            if disk is None:
                fd = self.tree.open(directory, os.O_RDONLY | os.O_DIRECTORY)
                disk = self._disks[device] = Disk(fd)
            return disk

    def _mine(self, parts: Sequence[Part]) -> list[PosixPart]:
        mine = [part for part in parts if isinstance(part, PosixPart)]
        assert len(mine) == len(parts), "parts of another endpoint"
        return mine

    def _open_part_file(self, part: PosixPart, *, resume: bool) -> int:
        if resume:
            try:
                return self.tree.open(part.part_path, _PART_FLAGS)
            except FileNotFoundError:
                raise PartFileLost("the part file is gone", part.pfn) from None
        return self._create_part_file(part)

    def _create_part_file(self, part: PosixPart, exclusive: int = 0) -> int:
        flags = _PART_FLAGS | os.O_CREAT | exclusive
        try:
            return self.tree.open(part.part_path, flags)
        except FileNotFoundError:
            self.tree.make_directory(part.directory)
            return self.tree.open(part.part_path, flags)

    def _refuse_second_name(self, stat: os.stat_result, part: PosixPart) -> None:
        """A part has one name. Two are left by a crash between link and unlink of a seal, or are somebody's trick."""
        require_regular(stat, os.path.join(self.root, part.part_path))
        if stat.st_nlink == 1:
            return
        self.unlink_part(part.directory, part.part_name)
        raise PartFileLost("the part has another name; it may have been sealed", part.pfn)


def _is_path(path: str) -> bool:
    return path.isprintable() and all(step and step[0] != "." for step in path.split("/"))


def _preallocate(fd: int, length_bytes: int) -> None:
    if length_bytes:
        try:
            syscalls.fallocate_keep_size(fd, length_bytes)
        except OSError as error:
            if oserrors.failure_class(error.errno) != "permanent":  # it is a wish: not every filesystem can
                raise
