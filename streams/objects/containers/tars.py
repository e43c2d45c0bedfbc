"""Members of tar archives, plain or compressed as a whole.

Headers are tarfile's to read. Of two members of one name the last is the one, and a hard link has the bytes of the
member before it that it names, as for `tar`. Sparse members are read with their zeros.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any, cast

from streams.core.names import shown
from streams.core.selections.objects import name_fault, safe_suffix
from streams.errors import StorageError, permanent
from streams.events.checked_file import CheckedFile
from streams.events.packing import HEAD_BYTES as PACKING_BYTES
from streams.events.packing import packing_of
from streams.objects.containers.container import HEAD_BYTES, Container, ContainerFormat
from streams.objects.found import Found, Scan, measured, named
from streams.objects.limits import (
    MEMBERS_MAX,
    RATIO_FREE_BYTES,
    bomb,
    damaged,
    member_name,
    missing_ability,
    ratio_max,
    refused,
)
from streams.objects.scratch import kept
from streams.objects.tables import TABLES
from streams.objects.unpacking import ASKED_BYTES_MAX, Forward, Unpacked
from streams.objects.windows import Spread, Window
from streams.storage.endpoint import Reader
from streams.storage.posix_reader import PosixReader

BLOCK_BYTES = 1 << 18
SEGMENTS_MAX = 100_000
"""Of all sparse members of an archive: their map is held in memory."""
_CONTINUED = b"M"
_NO_MEMBERS = (b"V", b"D")
"""The name of the volume, and a directory's list in backups."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """`stored_bytes` from `start` of the plain archive, which are all of the `bytes` unless there are `segments`.

    `segments` (offset, length): where the stored bytes are to stand among zeros. `fault`: why it cannot travel.
    """

    name: str
    bytes: int
    start: int
    fault: str | None
    segments: tuple[tuple[int, int], ...] | None = None

    @property
    def stored_bytes(self) -> int:
        return self.bytes if self.segments is None else sum(length for _, length in self.segments)


class PlainArchive(Forward):
    """A plain archive as tarfile may read it: no table larger than any real one is taken into memory."""

    def __init__(self, pread: Callable[[int, int], bytes], path: str) -> None:
        """`pread`: the bytes `[start, stop)` as far as there are any."""
        super().__init__()
        self._pread, self._path = pread, path

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= ASKED_BYTES_MAX:
            raise damaged("a table of the archive is larger than any real one", self._path)
        block = self._pread(self._at, self._at + size)
        self._at += len(block)
        return block


class TarArchive(Container):
    def __init__(self, file: CheckedFile) -> None:
        super().__init__(file)
        self._packing = packing_of(file.pread(0, PACKING_BYTES))

    def scan(self, scan: Scan) -> None:
        """One walk from front to back: what is asked for is read as it passes.

        A second one where a hard link of a packed archive is asked for, and what it links to is not.
        """
        file, packing = self.file, self._packing
        archive = _opened(file, packing)
        most = left = ratio_max(file.bytes)
        wanted: dict[str, TarMember] = {}
        refusals: dict[str, StorageError] = {}
        measures: dict[int, tuple[int, str]] = {}
        missed: dict[int, TarMember] = {}
        passed = 0
        for member in tar_members(archive, file, None if packing else file.bytes):
            if not scan.wants(member.name):
                continue
            wanted[member.name] = member
            refusals.pop(member.name, None)
            if member.fault is not None:
                refusals[member.name] = refused(member.fault, member.name, file.path)
            elif member.start in measures or member.start in missed:
                continue
            elif member.segments is not None and (left := left - member.bytes) < 0:
                refusals[member.name] = bomb("the archive", file.bytes, most, file.path)
            elif packing is not None and member.start < passed:
                missed[member.start] = member
            else:
                passed = member.start + member.stored_bytes
                measures[member.start] = measured(_blocks(archive, member, file.path))
        if isinstance(archive, Unpacked):
            archive.drain()
        if missed:
            again = _opened(file, packing)
            for start in sorted(missed):
                measures[start] = measured(_blocks(again, missed[start], file.path))
        for name, member in wanted.items():
            if name in refusals:
                scan.refuse(name, refusals[name])
            else:
                scan.add(Found(name, *measures[member.start], safe_suffix(name)))

    def reader(self, name: str, scratch: str) -> Reader:
        file, packing = self.file, self._packing
        unpacked = None
        if packing is not None:
            # The whole archive, once: nothing in its middle can be reached without what is before.
            fd = kept(scratch, (file.path, file.version, ""), lambda: Unpacked(file, packing).blocks())
            unpacked = PosixReader(fd, file.path, file.path)
        try:
            member = named(TABLES.of(file, "", lambda: tar_table(file, unpacked)), name, file.path)
            if member.fault is not None:
                raise refused(member.fault, name, file.path)
            window = Window(file.reader(), member.start, member.stored_bytes, unpacked)
            return window if member.segments is None else Spread(window, member.bytes, member.segments)
        except BaseException:
            if unpacked is not None:
                unpacked.close()
            raise


def _begins(head: bytes) -> bool:
    """Plain, or packed as a whole."""
    if packing_of(head) is not None:
        return True
    if len(head) == HEAD_BYTES and not any(head):
        return True  # an archive of nothing: its end mark
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _opened(file: CheckedFile, packing: str | None) -> PlainArchive | Unpacked:
    return PlainArchive(file.pread, file.path) if packing is None else Unpacked(file, packing)


def tar_table(file: CheckedFile, unpacked: PosixReader | None) -> dict[str, TarMember]:
    """Every member by name, of the file or of what was unpacked from it."""

    def pread(start: int, stop: int) -> bytes:
        if unpacked is None:
            return file.pread(start, stop)
        return unpacked.pread(start, max(0, min(stop, size) - start))

    size = file.bytes if unpacked is None else unpacked.stat.bytes
    return {member.name: member for member in tar_members(PlainArchive(pread, file.path), file, size)}


def tar_members(archive: PlainArchive | Unpacked, file: CheckedFile, size: int | None) -> Iterator[TarMember]:
    """Every member but directories, in order. `size` of the archive, None where that is not known yet.

    StorageError: data-bad for an archive that is cut or corrupt, permanent for a packed file that holds none.
    """
    count = at = segments = 0
    before: dict[str, TarMember] = {}  # what a hard link may mean
    path = file.path
    try:
        with tarfile.TarFile(fileobj=cast(IO[bytes], archive), mode="r") as tar:
            while (info := tar.next()) is not None:
                cast(Any, tar).members.clear()  # it would keep them all
                count += 1
                if count > MEMBERS_MAX:
                    what = f"an archive of more than {MEMBERS_MAX:,} members"
                    then = "unpack it yourself and register the files"
                    raise permanent(what, path, then)
                if info.size < 0 or info.offset_data <= at:
                    raise damaged("a header of the tar archive is corrupt", path)
                at = info.offset_data
                if info.isdir() or info.type in _NO_MEMBERS:
                    continue
                segments += len(cast(Any, info).sparse or ())
                member = _member(info, before, file, segments)
                if info.isreg() and size is not None and at + member.stored_bytes > size:
                    raise damaged(f"the tar archive ends inside its member {shown(info.name)!r}", path)
                before[member.name] = member
                yield member
            archive.seek(tar.offset)
            end = archive.read(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        if isinstance(archive, Unpacked) and not count:
            archive.drain(RATIO_FREE_BYTES)  # what is corrupt looks like no archive, too
        raise _unreadable(error, count, path, size is None) from error
    if len(end) < tarfile.BLOCKSIZE:
        raise damaged("the tar archive is cut: it ends without its end mark", path)
    if any(end):
        raise damaged("a header of the tar archive is corrupt", path)


def _blocks(archive: PlainArchive | Unpacked, member: TarMember, path: str) -> Iterator[bytes]:
    """The member's bytes, zeros where it is sparse."""
    archive.seek(member.start)
    at = 0
    for offset, length in ((0, member.bytes),) if member.segments is None else member.segments:
        yield from _zeros(offset - at)
        at = offset + length
        while length:
            block = archive.read(min(BLOCK_BYTES, length))
            if not block:
                raise damaged(f"the tar archive ends inside its member {shown(member.name)!r}", path)
            length -= len(block)
            yield block
    yield from _zeros(member.bytes - at)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(BLOCK_BYTES, count))
        count -= BLOCK_BYTES


def _member(info: tarfile.TarInfo, before: Mapping[str, TarMember], file: CheckedFile, segments: int) -> TarMember:
    """`segments`: how many there are of all members up to this one."""
    name = member_name(info.name)
    fault = name_fault(name)
    if fault is None and info.islnk():
        return _linked(name, member_name(info.linkname), before, info.offset_data)
    fault = fault or _fault(info)
    spread = _segments(info, file) if info.issparse() else None
    if spread is not None and fault is None:
        if segments > SEGMENTS_MAX:
            fault, spread = missing_ability(f"it is sparse, and there are more than {SEGMENTS_MAX:,} pieces"), ()
        elif info.size > ratio_max(file.bytes):
            fault = f"it is sparse and would become {info.size:,} bytes; unpack it yourself"
    return TarMember(name, info.size, info.offset_data, fault, spread)


def _linked(name: str, target: str, before: Mapping[str, TarMember], start: int) -> TarMember:
    """A hard link has the bytes of the member that it names, as it was when the link was made."""
    meant = before.get(target)
    if meant is None:
        return TarMember(name, 0, start, f"it is a link to {shown(target)!r}, which no member before it is")
    if meant.fault is not None:
        return TarMember(name, 0, start, f"it is a link to {shown(target)!r}: {meant.fault}")
    return replace(meant, name=name)


def _segments(info: tarfile.TarInfo, file: CheckedFile) -> tuple[tuple[int, int], ...]:
    found = [(offset, length) for offset, length in cast(Any, info).sparse or () if length]
    at = 0
    for offset, length in (*found, (info.size, 0)):
        if offset < at or length < 0:
            raise damaged(f"the map of the sparse member {shown(info.name)!r} is corrupt", file.path)
        at = offset + length
    return tuple(found)


def _fault(info: tarfile.TarInfo) -> str | None:
    if info.issym():
        return "it is a link"
    if info.ischr() or info.isblk() or info.isfifo():
        return "it is no file"
    if info.type == _CONTINUED:
        return missing_ability("it begins in another volume of the archive")
    if not info.isreg():
        return missing_ability(f"it is a member of the type {shown(ascii(info.type)[2:-1])!r}")
    return None


def _unreadable(error: tarfile.TarError, count: int, path: str, packed: bool) -> StorageError:
    if packed and not count:
        what, then = "a compressed file that holds no tar archive", "zip, tar and ROOT files hold objects"
        return permanent(what, path, then)
    return damaged(f"not a readable tar archive: {shown(str(error))}", path)


FORMAT = ContainerFormat("tar", ("tar", "tgz", "tbz2", "txz", "tzst"), TarArchive, _begins)
