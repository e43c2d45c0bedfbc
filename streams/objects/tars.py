"""Members of tar archives, plain or compressed as a whole. Not here: where an unpacked archive is kept.

Headers are tarfile's to read. Of two members of one name the last is the one, as for `tar`.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from streams.core.named import safe_suffix
from streams.core.names import shown
from streams.errors import StorageError
from streams.events.counted import CountedFile
from streams.objects.found import Found, Scan, measured
from streams.objects.limits import MEMBERS_MAX, damaged, member_fault, member_name, refused
from streams.objects.unpacking import ASKED_BYTES_MAX, Unpacked
from streams.storage.posix_reader import PosixReader

BLOCK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class TarMember:
    """`[start, start + bytes)` of the plain archive. `fault`: why it cannot travel."""

    name: str
    bytes: int
    start: int
    fault: str | None


class Plain(io.RawIOBase):
    """A plain archive as tarfile may read it: no table larger than any real one is taken into memory."""

    def __init__(self, pread: Callable[[int, int], bytes], path: str) -> None:
        """`pread`: the bytes `[start, stop)` as far as there are any."""
        super().__init__()
        self._pread, self._path = pread, path
        self._at = 0

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= ASKED_BYTES_MAX:
            raise damaged("a table of the archive is larger than any real one", self._path)
        block = self._pread(self._at, self._at + size)
        self._at += len(block)
        return block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (self._at if whence == os.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def scan_tar(file: CountedFile, packing: str | None, scan: Scan) -> None:
    """One walk from front to back: what is asked for is read as it passes."""
    archive = Plain(file.pread, file.path) if packing is None else Unpacked(file, packing)
    for member in tar_members(archive, file.path, None if packing else file.bytes):
        if not scan.wants(member.name):
            continue
        if member.fault is not None:
            scan.refuse(member.name, refused(member.fault, member.name, file.path))
            continue
        size, adler = measured(_blocks(archive, member, file.path))
        scan.add(Found(member.name, size, adler, safe_suffix(member.name)))
    if isinstance(archive, Unpacked):
        archive.drain()


def tar_table(file: CountedFile, unpacked: PosixReader | None) -> dict[str, TarMember]:
    """Every member by name, of the file or of what was unpacked from it."""

    def pread(start: int, stop: int) -> bytes:
        if unpacked is None:
            return file.pread(start, stop)
        return unpacked.pread(start, max(0, min(stop, size) - start))

    size = file.bytes if unpacked is None else unpacked.stat.bytes
    return {member.name: member for member in tar_members(Plain(pread, file.path), file.path, size)}


def tar_members(archive: Plain | Unpacked, path: str, size: int | None) -> Iterator[TarMember]:
    """Every member but directories, in order. `size` of the archive, None where that is not known yet.

    StorageError: data-bad for an archive that is cut or corrupt, permanent for a packed file that holds none.
    """
    count = at = 0
    try:
        with tarfile.TarFile(fileobj=cast(IO[bytes], archive), mode="r") as tar:
            while (info := tar.next()) is not None:
                cast(Any, tar).members.clear()  # it would keep them all
                count += 1
                if count > MEMBERS_MAX:
                    what = f"an archive of more than {MEMBERS_MAX:,} members"
                    then = "unpack it yourself and register the files"
                    raise StorageError(what, path, then, failure_class="permanent")
                if info.size < 0 or info.offset_data <= at:
                    raise damaged("a header of the tar archive is corrupt", path)
                at = info.offset_data
                if info.isreg() and size is not None and at + info.size > size:
                    raise damaged(f"the tar archive ends inside its member {shown(info.name)!r}", path)
                if not info.isdir():
                    yield _member(info)
            archive.seek(tar.offset)
            end = archive.read(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        raise _unreadable(error, count, path, size is None) from error
    if len(end) < tarfile.BLOCKSIZE:
        raise damaged("the tar archive is cut: it ends without its end mark", path)
    if any(end):
        raise damaged("a header of the tar archive is corrupt", path)


def _blocks(archive: Plain | Unpacked, member: TarMember, path: str) -> Iterator[bytes]:
    archive.seek(member.start)
    left = member.bytes
    while left:
        block = archive.read(min(BLOCK_BYTES, left))
        if not block:
            raise damaged(f"the tar archive ends inside its member {shown(member.name)!r}", path)
        left -= len(block)
        yield block


def _member(info: tarfile.TarInfo) -> TarMember:
    name = member_name(info.name)
    return TarMember(name, info.size, info.offset_data, member_fault(name) or _fault(info))


def _fault(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "it is a link"
    if not info.isreg():
        return "it is no file"
    if info.issparse():
        return "it is sparse"
    return None


def _unreadable(error: tarfile.TarError, count: int, path: str, packed: bool) -> StorageError:
    if packed and not count:
        what, then = "a compressed file that holds no tar archive", "zip, tar and ROOT files hold objects"
        return StorageError(what, path, then, failure_class="permanent")
    return damaged(f"not a readable tar archive: {shown(str(error))}", path)
