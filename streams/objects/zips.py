"""Members of zip archives: the table, what is refused of it, a member's bytes. Not here: where they are kept unpacked.

The table is zipfile's to read; members are read here, since a member must be exactly what the table says. Of two
members of one name the last in the table is the one, as for `unzip`.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

from streams.core.named import safe_suffix
from streams.errors import StorageError
from streams.events.counted import CountedFile
from streams.objects.found import Found, Scan, measured
from streams.objects.limits import (
    MEMBERS_MAX,
    TABLE_BYTES_MAX,
    bomb,
    damaged,
    member_fault,
    member_name,
    ratio_max,
    refused,
    unpacked_max,
)

BLOCK_BYTES = 1 << 18
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1
_SIZES_BEHIND = 0x8


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A line of the table. `fault`: why it cannot travel."""

    name: str
    bytes: int
    packed_bytes: int
    crc32: int
    header_start: int
    deflated: bool
    fault: str | None
    raw_name: str


def zip_members(file: CountedFile) -> list[ZipMember]:
    """The table, directories left out. StorageError: data-bad for a table that cannot be, permanent for too large."""
    if not _table_bytes(file):
        return []
    try:
        with zipfile.ZipFile(cast(IO[bytes], file)) as archive:
            infos = archive.infolist()
            table_start = archive.start_dir
    except zipfile.BadZipFile as error:
        raise damaged(f"not a readable zip archive: {str(error).lower()}", file.path) from error
    if len(infos) > MEMBERS_MAX:
        raise _too_many(len(infos), file)
    overlapping = _overlapping(infos, table_start)
    return [_member(info, overlapping) for info in infos if not info.is_dir()]


def scan_zip(file: CountedFile, scan: Scan) -> None:
    most = left = ratio_max(file.bytes)
    for member in {member.name: member for member in zip_members(file)}.values():
        if not scan.wants(member.name):
            continue
        if member.fault is not None:
            scan.refuse(member.name, refused(member.fault, member.name, file.path))
            continue
        try:
            left -= member.bytes
            if left < 0:
                raise bomb("the archive", file.bytes, most, file.path)
            size, adler = measured(unpack(file, member))
            scan.add(Found(member.name, size, adler, safe_suffix(member.name)))
        except StorageError as error:
            if error is file.failed:
                raise
            scan.refuse(member.name, error)


def data_start(file: CountedFile, member: ZipMember) -> int:
    """Where the member's packed bytes begin. StorageError, data-bad, where its own header says other than the table."""
    raw = file.pread(member.header_start, member.header_start + _LOCAL.size)
    if len(raw) < _LOCAL.size or not raw.startswith(b"PK\x03\x04"):
        raise damaged(f"the member {member.name!r} is not where the table says", file.path)
    _, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(raw)
    name_start = member.header_start + _LOCAL.size
    name = file.pread(name_start, name_start + name_bytes).decode("utf-8" if flags & 0x800 else "cp437", "replace")
    told = (name, method == zipfile.ZIP_DEFLATED, bool(flags & _ENCRYPTED))
    same = told == (member.raw_name, member.deflated, False)
    if not flags & _SIZES_BEHIND and 0xFFFFFFFF not in (packed, size):
        same = same and (crc, packed, size) == (member.crc32, member.packed_bytes, member.bytes)
    start = name_start + name_bytes + extra_bytes
    if not same:
        raise damaged(f"the header of the member {member.name!r} and the table say different things", file.path)
    if start + member.packed_bytes > file.bytes:
        raise damaged(f"the member {member.name!r} reaches beyond the end", file.path)
    return int(start)


def unpack(file: CountedFile, member: ZipMember) -> Iterator[bytes]:
    """The member's bytes in pieces; StorageError, data-bad, unless they are as many as told, with the crc32 told."""
    start = data_start(file, member)
    blocks = _inflated(file, member, start) if member.deflated else _stored(file, member, start)
    size = crc = 0
    for block in blocks:
        size += len(block)
        crc = zlib.crc32(block, crc)
        if size > member.bytes:
            break
        yield block
    if size != member.bytes:
        longer = "more" if size > member.bytes else f"{size:,}"
        raise damaged(f"the member {member.name!r} has {longer} bytes, the table says {member.bytes:,}", file.path)
    if crc != member.crc32:
        raise damaged(f"the member {member.name!r} has another crc32 than the table says", file.path)


def _stored(file: CountedFile, member: ZipMember, start: int) -> Iterator[bytes]:
    stop = start + member.packed_bytes
    for at in range(start, stop, BLOCK_BYTES):
        yield file.pread(at, min(stop, at + BLOCK_BYTES))


def _inflated(file: CountedFile, member: ZipMember, start: int) -> Iterator[bytes]:
    """At most one block more than the table says."""
    decoder = zlib.decompressobj(-15)
    size = 0
    try:
        for packed in _stored(file, member, start):
            while packed and not decoder.eof and size <= member.bytes:
                block = decoder.decompress(packed, BLOCK_BYTES)
                packed = decoder.unconsumed_tail
                size += len(block)
                yield block
        while not decoder.eof and size <= member.bytes and (block := decoder.decompress(b"", BLOCK_BYTES)):
            size += len(block)
            yield block
    except zlib.error as error:
        raise damaged(f"cannot unpack the member {member.name!r}: it is corrupt", file.path) from error
    if not decoder.eof and size <= member.bytes:
        raise damaged(f"the member {member.name!r} ends in its middle", file.path)


def _member(info: zipfile.ZipInfo, overlapping: set[int]) -> ZipMember:
    name = member_name(info.orig_filename)
    return ZipMember(
        name,
        info.file_size,
        info.compress_size,
        info.CRC,
        info.header_offset,
        info.compress_type == zipfile.ZIP_DEFLATED,
        member_fault(name) or _fault(info, overlapping),
        info.orig_filename,
    )


def _fault(info: zipfile.ZipInfo, overlapping: set[int]) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if kind == stat.S_IFLNK:
        return "it is a link"
    if kind not in (0, stat.S_IFREG):
        return "it is no file"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"it is packed by method {info.compress_type}; stored and deflated can be read"
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        return "the table gives it two sizes"
    if id(info) in overlapping:
        return "its bytes are another member's too"
    if info.compress_type == zipfile.ZIP_DEFLATED and info.file_size > unpacked_max(info.compress_size):
        return f"{info.compress_size:,} bytes would become {info.file_size:,}; unpack it yourself"
    return None


def _overlapping(infos: list[zipfile.ZipInfo], table_start: int) -> set[int]:
    """ids of members that share bytes with another or with the table: so are bombs made."""
    bad: set[int] = set()
    stop, last = 0, None
    for info in sorted(infos, key=lambda info: info.header_offset):
        end = info.header_offset + _LOCAL.size + len(info.orig_filename) + info.compress_size
        if info.header_offset < stop:
            bad.update((id(info), id(last)))
        if end > table_start:
            bad.add(id(info))
        if end > stop:
            stop, last = end, info
    return bad


def _table_bytes(file: CountedFile) -> int:
    """Bytes of the table, which zipfile reads whole into memory. StorageError where that is too much."""
    start = max(0, file.bytes - _END.size - 0xFFFF)
    tail = file.pread(start, file.bytes)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise damaged("the zip archive is cut: its table is not at its end", file.path)
    *_, entries, size, _, _ = _END.unpack_from(tail, at)
    if entries == 0xFFFF or size == 0xFFFFFFFF:
        end64 = file.pread(start + at - 20 - _END64.size, start + at - 20)
        if end64.startswith(b"PK\x06\x06") and len(end64) == _END64.size:
            *_, entries, size, _ = _END64.unpack(end64)
    if entries > MEMBERS_MAX or size > TABLE_BYTES_MAX:
        raise _too_many(entries, file)
    return int(size)


def _too_many(count: int, file: CountedFile) -> StorageError:
    what = f"an archive of {count:,} members, {MEMBERS_MAX:,} at most"
    return StorageError(what, file.path, "unpack it yourself and register the files", failure_class="permanent")
