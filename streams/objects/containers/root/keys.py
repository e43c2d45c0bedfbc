"""The records of a ROOT file: header, directories, keys, read and written as bytes. Not here: what a key's object is.

Numbers are big-endian; a record begins with its key. Files and keys beyond 2 GB have wider positions ("big").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Self

from streams.events.checked_file import CheckedFile

BEGIN = 100
BIG_FROM = 2_000_000_000
KEYS_MAX = 200_000
DEPTH_MAX = 32
NARROW_MAX = (1 << 31) - 1
DIRECTORIES = ("TDirectory", "TDirectoryFile")

_HEAD = struct.Struct(">4siiiiiiiBiiiH16s")
_HEAD_BIG = struct.Struct(">4siiqqiiiBiqiH16s")
_KEY = struct.Struct(">ihiIhhii")
_KEY_BIG = struct.Struct(">ihiIhhqq")
_DIRECTORY = struct.Struct(">hIIiiiii")
_DIRECTORY_BIG = struct.Struct(">hIIiiqqq")
KEY_BYTES_MAX = _KEY_BIG.size
_LIST_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class KeyHead:
    """The first bytes of a file. `version` without the mark of big files."""

    version: int
    begin: int
    end: int
    free_start: int
    free_bytes: int
    name_bytes: int
    compression: int
    streamers_start: int
    streamers_bytes: int
    uuid: bytes

    @classmethod
    def read(cls, file: CheckedFile) -> Self:
        raw = file.pread(0, _HEAD_BIG.size)
        fields = _HEAD.unpack_from(raw)
        if fields[1] >= 1_000_000:
            fields = _HEAD_BIG.unpack(raw)
        _, version, begin, end, free, free_bytes, _, name_bytes, _, packing, info, info_bytes, _, uuid = fields
        if end > file.bytes:
            raise ValueError(f"it says that it has {end:,} bytes, there are {file.bytes:,}")
        return cls(
            version % 1_000_000, begin, end, free, free_bytes, name_bytes, packing, info, max(0, info_bytes), uuid
        )

    def written(self, big: bool) -> bytes:
        """With `BEGIN` bytes."""
        form, version, units = (_HEAD_BIG, 1_000_000, 8) if big else (_HEAD, 0, 4)
        raw = form.pack(
            b"root",
            self.version + version,
            self.begin,
            self.end,
            self.free_start,
            self.free_bytes,
            1,
            self.name_bytes,
            units,
            self.compression,
            self.streamers_start,
            self.streamers_bytes,
            1,
            self.uuid,
        )
        return raw.ljust(BEGIN, b"\0")


@dataclass(frozen=True, slots=True)
class RootKey:
    """What a record begins with. `record_bytes` as stored; `object_bytes` once unpacked, without the key."""

    record_bytes: int
    object_bytes: int
    date: int
    cycle: int
    start: int
    directory_start: int
    classname: bytes
    name: bytes
    title: bytes
    big: bool
    version: int = 4
    told_bytes: int = 0
    """What the key says of its own length, 0 for what it is. Some directories' say that of another class name."""

    @classmethod
    def read(cls, raw: bytes, at: int = 0) -> Self:
        """ValueError or struct.error for what is none."""
        fields = _KEY.unpack_from(raw, at)
        big = fields[1] > 1000
        if big:
            fields = _KEY_BIG.unpack_from(raw, at)
        size, version, object_bytes, date, key_bytes, cycle, start, directory_start = fields
        stop = at + (_KEY_BIG if big else _KEY).size
        strings = []
        for _ in range(3):
            string, stop = _string(raw, stop)
            strings.append(string)
        if size < key_bytes or key_bytes <= 0 or object_bytes < 0 or start < 0 or version <= 0:
            raise ValueError("a key's lengths do not agree")
        classname, name, title = strings
        positions = cycle, start, directory_start
        return cls(size, object_bytes, date, *positions, classname, name, title, big, version % 1000, key_bytes)

    @property
    def header_bytes(self) -> int:
        """Of the key as it is written."""
        form = _KEY_BIG if self.big else _KEY
        return form.size + sum(len(string_written(s)) for s in (self.classname, self.name, self.title))

    @property
    def key_bytes(self) -> int:
        return self.told_bytes or self.header_bytes

    @property
    def data_start(self) -> int:
        return self.start + self.key_bytes

    @property
    def is_packed(self) -> bool:
        return self.record_bytes - self.key_bytes != self.object_bytes

    def written(self) -> bytes:
        if not self.big and max(self.start, self.directory_start) > NARROW_MAX:
            raise ValueError("a key for small files would lie beyond 2 GB")
        form, version = (_KEY_BIG, self.version + 1000) if self.big else (_KEY, self.version)
        strings = b"".join(string_written(s) for s in (self.classname, self.name, self.title))
        counts = self.object_bytes, self.date, form.size + len(strings), self.cycle
        return form.pack(self.record_bytes, version, *counts, self.start, self.directory_start) + strings


@dataclass(frozen=True, slots=True)
class Directory:
    """As it is stored. `name_bytes` lie between the record's start and this; the keys are in a record of their own."""

    created: int
    changed: int
    keys_bytes: int
    name_bytes: int
    start: int
    parent_start: int
    keys_start: int
    uuid: bytes

    @classmethod
    def read(cls, file: CheckedFile, at: int) -> Self:
        raw = file.pread(at, at + _DIRECTORY_BIG.size + 18)
        fields = _DIRECTORY.unpack_from(raw)
        if fields[0] > 1000:
            fields = _DIRECTORY_BIG.unpack_from(raw)
        _, created, changed, keys_bytes, name_bytes, start, parent_start, keys_start = fields
        return cls(created, changed, keys_bytes, name_bytes, start, parent_start, keys_start, b"")

    def written(self, big: bool) -> bytes:
        form, version = (_DIRECTORY_BIG, 1005) if big else (_DIRECTORY, 5)
        numbers = astuple(self)[:-1]
        return form.pack(version, *numbers) + b"\0\1" + self.uuid + (b"" if big else bytes(12))


@dataclass(frozen=True, slots=True)
class Place:
    """A key that is no directory, and the keys of the directories it is in, the outermost first."""

    name: str
    key: RootKey
    directories: tuple[RootKey, ...]


def walk(file: CheckedFile, head: KeyHead) -> Iterator[Place]:
    """Every object, directories' before those in them. ValueError for what cannot be."""
    root = Directory.read(file, head.begin + head.name_bytes)
    todo: list[tuple[str, Directory, tuple[RootKey, ...]]] = [("", root, ())]
    seen = {root.keys_start}
    count = 0
    while todo:
        prefix, directory, above = todo.pop(0)
        for key in _keys(file, directory):
            count += 1
            if count > KEYS_MAX:
                raise ValueError(f"more than {KEYS_MAX:,} keys")
            name = prefix + key.name.decode("utf-8", "surrogateescape")
            if key.classname.decode("latin-1") not in DIRECTORIES:
                yield Place(name, key, above)
            elif len(above) < DEPTH_MAX:
                inner = Directory.read(file, key.data_start)
                if inner.keys_start not in seen:
                    seen.add(inner.keys_start)
                    todo.append((name + "/", inner, (*above, key)))


def _keys(file: CheckedFile, directory: Directory) -> Iterator[RootKey]:
    if not directory.keys_start:
        return
    if not 0 <= directory.keys_bytes <= _LIST_BYTES_MAX:
        raise ValueError("a directory's list of keys is larger than any real one")
    raw = file.pread(directory.keys_start, directory.keys_start + directory.keys_bytes)
    if len(raw) < directory.keys_bytes:
        raise ValueError("it ends inside a directory's list of keys")
    at = RootKey.read(raw).header_bytes
    (count,) = struct.unpack_from(">i", raw, at)
    at += 4
    for _ in range(count):
        key = RootKey.read(raw, at)
        at += key.header_bytes
        yield key


def _string(raw: bytes, at: int) -> tuple[bytes, int]:
    length, start = raw[at], at + 1
    if length == 255:
        (length,) = struct.unpack_from(">i", raw, start)
        start += 4
    if length < 0 or start + length > len(raw):
        raise ValueError("a name ends beyond its record")
    return raw[start : start + length], start + length


def string_written(text: bytes) -> bytes:
    return (bytes([len(text)]) if len(text) < 255 else b"\xff" + struct.pack(">i", len(text))) + text


def unpacked_object(file: CheckedFile, key: RootKey) -> bytes | memoryview:
    """The object as it is streamed, without its key. Raises anything for what cannot be unpacked."""
    raw = file.pread(key.data_start, key.start + key.record_bytes)
    if not key.is_packed:
        return raw
    import uproot
    from uproot.source.chunk import Chunk
    from uproot.source.cursor import Cursor

    chunk = Chunk.wrap(None, raw)
    found = uproot.compression.decompress(chunk, Cursor(0), {}, len(raw), key.object_bytes)
    return memoryview(found.raw_data).cast("B")
