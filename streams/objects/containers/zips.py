"""Members of zip archives: the table, what is refused of it, a member's bytes.

A member must be exactly what the table says. A line of the table that cannot be read is one member that cannot travel;
a table that does not hold together is a damaged archive. Of two members of one name the last in the table is the one,
as for `unzip`.
"""

from __future__ import annotations

import bz2
import lzma
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from streams.core.names import shown
from streams.core.selections.objects import name_fault, safe_suffix
from streams.errors import StorageError, permanent
from streams.events.checked_file import NOT_SUPPORTED, CheckedFile, unsupported
from streams.objects.containers.container import Container, ContainerFormat
from streams.objects.found import Found, Scan, measured, named
from streams.objects.limits import (
    MEMBERS_MAX,
    TABLE_BYTES_MAX,
    bomb,
    damaged,
    member_name,
    missing_ability,
    ratio_max,
    refused,
    unpacked_max,
)
from streams.objects.scratch import kept
from streams.objects.tables import TABLES
from streams.objects.unpacking import UNPACKING_ERRORS, XZ_MEMORY_BYTES, Zlib, Zstd, cannot_unpack
from streams.objects.windows import Window
from streams.storage.endpoint import Reader
from streams.storage.posix_reader import PosixReader

BLOCK_BYTES = 1 << 18
SMALL_BYTES = 1 << 20
"""A packed member up to this size is unpacked into memory at each opening: sooner done than a file is synced."""
STORED, DEFLATED, BZIP2, LZMA, ZSTD, XZ = 0, 8, 12, 14, 93, 95
_READ = (STORED, DEFLATED, BZIP2, LZMA, ZSTD, XZ)
_METHODS = {1: "shrunk", 2: "reduced", 3: "reduced", 4: "reduced", 5: "reduced", 6: "imploded", 9: "deflate64"}
"""Names of some that are not read."""
_METHODS |= {10: "imploded", 18: "terse", 19: "lz77", 94: "mp3", 97: "wavpack", 98: "PPMd"}
_AES = 99

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LINE = struct.Struct("<4s4B4H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_EXTRA = struct.Struct("<2H")
_WIDE = 0xFFFFFFFF
_WIDE_EXTRA, _NAME_EXTRA = 0x0001, 0x7075
_ENCRYPTED, _SIZES_BEHIND, _PATCHED, _UTF8, _MASKED = 0x1, 0x8, 0x20, 0x800, 0x2000
_UNIX = 3
_VERSION_MAX = 63
"""6.3 is the last version of the format that says how a member is read."""


_Raw = bytes


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A line of the table. `fault`: why it cannot travel."""

    name: str
    bytes: int
    packed_bytes: int
    crc32: int
    header_start: int
    method: int
    fault: str | None
    raw_name: _Raw
    """As it stands in the table."""


@dataclass(frozen=True, slots=True)
class _Table:
    """Where the table lies; `shift` is what stands before the archive, which its positions do not count."""

    start: int
    bytes: int
    lines: int
    shift: int


class ZipArchive(Container):
    def scan(self, scan: Scan) -> None:
        file = self.file
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

    def reader(self, name: str, scratch: str) -> Reader:
        file = self.file
        member = named(TABLES.of(file, "", lambda: {one.name: one for one in zip_members(file)}), name, file.path)
        if member.fault is not None:
            raise refused(member.fault, name, file.path)
        if member.method == STORED:
            return Window(file.reader(), data_start(file, member), member.bytes)
        source = file.reader()
        try:
            if member.bytes <= SMALL_BYTES:
                return Window(source, 0, member.bytes, b"".join(unpack(file, member)))
            fd = kept(scratch, (file.path, file.version, name), lambda: unpack(file, member))
            return Window(source, 0, member.bytes, PosixReader(fd, file.path, name))
        except BaseException:
            source.close()
            raise


def _begins(head: bytes) -> bool:
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"))


def has_table(file: CheckedFile) -> bool:
    """Whether the table of an archive ends this file, whatever it begins with.

    So it is behind a program that unpacks it, or behind the mark of an archive that could have been split.
    """
    try:
        table = _table(file)
    except StorageError as error:
        if error is file.failed:
            raise
        return error.failure_class == "permanent"
    return table.lines > 0 and file.pread(table.start, table.start + 4) == b"PK\x01\x02"


def zip_members(file: CheckedFile) -> list[ZipMember]:
    """The table, directories left out. StorageError: data-bad for a table that cannot be, permanent for too large."""
    table = _table(file)
    if not table.lines and not table.bytes:
        return []
    raw = file.pread(table.start, table.start + table.bytes)
    members: list[ZipMember] = []
    at = count = 0
    while at < len(raw):
        if len(raw) - at < _LINE.size or raw[at : at + 4] != b"PK\x01\x02":
            raise damaged("the zip archive's table is corrupt", file.path)
        count += 1
        member, at = _line(raw, at, table.shift, file.path)
        if member is not None:
            members.append(member)
    if count != table.lines:
        raise damaged(f"the zip archive's table has {count:,} lines where {table.lines:,} are told", file.path)
    overlapping = _overlapping(members, table.start)
    return [
        replace(member, fault="its bytes are another member's too")
        if at in overlapping and member.fault is None
        else member
        for at, member in enumerate(members)
        if not member.raw_name.endswith(b"/")
    ]


def data_start(file: CheckedFile, member: ZipMember) -> int:
    """Where the member's packed bytes begin. StorageError, data-bad, where its own header says other than the table."""
    raw = file.pread(member.header_start, member.header_start + _LOCAL.size)
    if len(raw) < _LOCAL.size or not raw.startswith(b"PK\x03\x04"):
        raise damaged(f"the member {shown(member.name)!r} is not where the table says", file.path)
    _, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(raw)
    name_start = member.header_start + _LOCAL.size
    name = file.pread(name_start, name_start + name_bytes)
    same = (name, method, bool(flags & _ENCRYPTED)) == (member.raw_name, member.method, False)
    if not flags & _SIZES_BEHIND and _WIDE not in (packed, size):
        same = same and (crc, packed, size) == (member.crc32, member.packed_bytes, member.bytes)
    start = name_start + name_bytes + extra_bytes
    if not same:
        what = f"the header of the member {shown(member.name)!r} and the table say different things"
        raise damaged(what, file.path)
    if start + member.packed_bytes > file.bytes:
        raise damaged(f"the member {shown(member.name)!r} reaches beyond the end", file.path)
    return int(start)


def unpack(file: CheckedFile, member: ZipMember) -> Iterator[bytes]:
    """The member's bytes in pieces; StorageError, data-bad, unless they are as many as told, with the crc32 told."""
    start = data_start(file, member)
    named = f"the member {shown(member.name)!r}"
    size = crc = 0
    try:
        for block in _blocks(file, member, start):
            size += len(block)
            crc = zlib.crc32(block, crc)
            if size > member.bytes:
                break
            yield block
    except UNPACKING_ERRORS as error:
        raise cannot_unpack(error, named, file.path) from error
    if size != member.bytes:
        longer = "more" if size > member.bytes else f"{size:,}"
        raise damaged(f"{named} has {longer} bytes, the table says {member.bytes:,}", file.path)
    if crc != member.crc32:
        raise damaged(f"{named} has another crc32 than the table says", file.path)


def _blocks(file: CheckedFile, member: ZipMember, start: int) -> Iterator[bytes]:
    if member.method == STORED:
        yield from _packed(file, member, start)
    elif member.method == ZSTD:
        stream = Zstd(file, start, start + member.packed_bytes)
        while block := stream.unpacked(BLOCK_BYTES):
            yield block
    else:
        yield from _decoded(file, member, start)


def _packed(file: CheckedFile, member: ZipMember, start: int) -> Iterator[bytes]:
    stop = start + member.packed_bytes
    for at in range(start, stop, BLOCK_BYTES):
        yield file.pread(at, min(stop, at + BLOCK_BYTES))


def _decoded(file: CheckedFile, member: ZipMember, start: int) -> Iterator[bytes]:
    """At most one block more than the table says."""
    decoder: Any = None
    size = 0
    for packed in _packed(file, member, start):
        if decoder is None:
            decoder, packed = _decoder(member, packed, file.path)
        while not decoder.eof and size <= member.bytes:
            block = decoder.decompress(packed, BLOCK_BYTES)
            size += len(block)
            packed = b""
            if block:
                yield block
            if decoder.needs_input and not block:
                break
    # lzma may leave its end unmarked: then the table alone says where it is
    if (decoder is None or not decoder.eof) and size < member.bytes + (member.method != LZMA):
        raise damaged(f"the member {shown(member.name)!r} ends in its middle", file.path)


def _decoder(member: ZipMember, packed: bytes, path: str) -> tuple[Any, bytes]:
    """A decoder, and what of the member's first bytes is its to decode."""
    if member.method == DEFLATED:
        return Zlib(-15), packed
    if member.method == BZIP2:
        return bz2.BZ2Decompressor(), packed
    if member.method == XZ:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES), packed
    head, size = packed[:4], int.from_bytes(packed[2:4], "little")
    if len(head) < 4 or size != 5 or len(packed) < 9 or packed[4] >= 9 * 5 * 5:
        raise damaged(f"the member {shown(member.name)!r} does not say how it is packed", path)
    properties, dictionary = packed[4], int.from_bytes(packed[5:9], "little")
    if dictionary > XZ_MEMORY_BYTES:
        what = f"the member {shown(member.name)!r} cannot travel: {NOT_SUPPORTED}it needs too much memory"
        raise unsupported(what, path, "unpack it yourself")
    filters = {
        "id": lzma.FILTER_LZMA1,
        "dict_size": max(4096, dictionary),
        "lc": properties % 9,
        "lp": properties // 9 % 5,
        "pb": properties // 45,
    }
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[filters]), packed[9:]


def _line(raw: bytes, at: int, shift: int, path: str) -> tuple[ZipMember | None, int]:
    """The member of the line at `at`, None for a directory that is nothing else, and where the next line begins."""
    fields = _LINE.unpack_from(raw, at)
    system, needed, flags, method = fields[2], fields[3], fields[5], fields[6]
    crc, packed, size, name_bytes, extra_bytes, comment_bytes, disk, _, attributes, start = fields[9:]
    name_at = at + _LINE.size
    extra_at = name_at + name_bytes
    end = extra_at + extra_bytes + comment_bytes
    if end > len(raw):
        raise damaged("the zip archive's table is cut", path)
    raw_name = raw[name_at:extra_at]
    extras = _extras(raw[extra_at : extra_at + extra_bytes])
    if _WIDE in (size, packed, start):
        wide = extras.get(_WIDE_EXTRA, b"")
        numbers = [size, packed, start]
        for n, number in enumerate(numbers):
            if number == _WIDE and len(wide) >= 8:
                numbers[n], wide = int.from_bytes(wide[:8], "little"), wide[8:]
            elif number == _WIDE and n == 2:
                raise damaged("the zip archive's table says of a member no place", path)
        size, packed, start = numbers
    name = member_name(_name(raw_name, flags, extras))
    fault = name_fault(name) or _fault(system, needed, flags, method, disk, attributes, size, packed)
    return ZipMember(name, size, packed, crc, start + shift, method, fault, raw_name), end


def _extras(raw: bytes) -> dict[int, bytes]:
    """By kind; what is cut is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while len(raw) - at >= _EXTRA.size:
        kind, size = _EXTRA.unpack_from(raw, at)
        at += _EXTRA.size
        if size > len(raw) - at:
            break
        found.setdefault(kind, raw[at : at + size])
        at += size
    return found


def _name(raw: bytes, flags: int, extras: dict[int, bytes]) -> str:
    """The member's name. An extra field may say it in UTF-8 beside the old way."""
    told = extras.get(_NAME_EXTRA, b"")
    if len(told) > 5 and told[0] == 1 and int.from_bytes(told[1:5], "little") == zlib.crc32(raw):
        raw, flags = told[5:], _UTF8
    return raw.decode("utf-8", "surrogateescape") if flags & _UTF8 else raw.decode("cp437")


def _fault(
    system: int, needed: int, flags: int, method: int, disk: int, attributes: int, size: int, packed: int
) -> str | None:
    kind = stat.S_IFMT(attributes >> 16) if system == _UNIX else 0
    if flags & (_ENCRYPTED | _MASKED) or method == _AES:
        return missing_ability("it is encrypted")
    if kind == stat.S_IFLNK:
        return "it is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "it is no file"
    if disk not in (0, 0xFFFF):
        return missing_ability("it is in another part of a split archive")
    if method not in _READ:
        named = f" ({_METHODS[method]})" if method in _METHODS else ""
        return missing_ability(f"it is packed by method {method}{named}")
    if flags & _PATCHED:
        return missing_ability("it is a patch")
    if needed > _VERSION_MAX:
        return missing_ability(f"it needs version {needed // 10}.{needed % 10} of the format")
    if method == STORED and size != packed:
        return "the table gives it two sizes"
    if method != STORED and size > unpacked_max(packed):
        return f"{packed:,} bytes would become {size:,}; unpack it yourself"
    return None


def _overlapping(members: list[ZipMember], table_start: int) -> set[int]:
    """Which members share bytes with another or with the table: so are bombs made."""
    bad: set[int] = set()
    stop, last = 0, 0
    for at in sorted(range(len(members)), key=lambda at: members[at].header_start):
        member = members[at]
        end = member.header_start + _LOCAL.size + len(member.raw_name) + member.packed_bytes
        if member.header_start < stop:
            bad.update((at, last))
        if end > table_start:
            bad.add(at)
        if end > stop:
            stop, last = end, at
    return bad


def _table(file: CheckedFile) -> _Table:
    """Where the table is. StorageError: data-bad where there is none, permanent where it is too large to be read."""
    start = max(0, file.bytes - _END.size - 0xFFFF)
    tail = file.pread(start, file.bytes)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        if file.pread(0, 4) == b"PK\x07\x08":
            raise _split(file)
        raise damaged("the zip archive is cut: its table is not at its end", file.path)
    _, disk, table_disk, _, lines, size, told_start, _ = _END.unpack_from(tail, at)
    end = start + at
    if file.pread(end - 20, end).startswith(b"PK\x06\x07"):
        where = end - 20 - _END64.size
        end64 = file.pread(where, where + _END64.size)
        if end64.startswith(b"PK\x06\x06") and len(end64) == _END64.size:
            _, _, _, _, disk, table_disk, _, lines, size, told_start = _END64.unpack(end64)
            end = where
    if disk not in (0, 0xFFFF) or table_disk not in (0, 0xFFFF):
        raise _split(file)
    if lines > MEMBERS_MAX or size > TABLE_BYTES_MAX:
        what = f"an archive of {lines:,} members, {MEMBERS_MAX:,} at most"
        raise permanent(what, file.path, "unpack it yourself and register the files")
    if size > end:
        raise damaged("the zip archive is cut: its table is longer than what is left", file.path)
    shift = end - size - told_start
    if shift < 0:
        raise damaged("the zip archive is cut: its table is not where it says", file.path)
    return _Table(end - size, size, lines, shift)


def _split(file: CheckedFile) -> StorageError:
    return unsupported(f"{NOT_SUPPORTED}a part of a split zip archive", file.path, "join its parts first")


FORMAT = ContainerFormat("zip", ("zip",), ZipArchive, _begins, has_table)
