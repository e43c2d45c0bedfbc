"""A ROOT file of one object that is never written: where its pieces lie, and the reader that puts them together.

Not here: what an object is, which it is (objects.py).
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from streams.events.checked_file import CheckedFile
from streams.objects.containers.root.keys import (
    BEGIN,
    BIG_FROM,
    KEY_BYTES_MAX,
    Directory,
    KeyHead,
    Place,
    RootKey,
    string_written,
)
from streams.objects.windows import require_within
from streams.storage.endpoint import FileStat, Reader
from streams.storage.posix_reader import PosixReader

FILE_NAME = b"object.root"
_DIRECTORY_BYTES = 60
_POSITIONS_AT = 18
_SLACK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Copy:
    """A record of the source, `record_bytes` from `start`, whose key is to have other positions."""

    start: int
    record_bytes: int
    directory_start: int


Piece = bytes | Copy


@dataclass(slots=True)
class Layout:
    """Pieces in order; `starts[n]` is where piece n begins."""

    starts: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    total_bytes: int = 0

    def add(self, piece: Piece) -> int:
        """Where it begins."""
        start = self.total_bytes
        self.starts.append(start)
        self.pieces.append(piece)
        self.total_bytes += piece.record_bytes if isinstance(piece, Copy) else len(piece)
        return start

    def fill(self, start: int, piece: bytes) -> None:
        """Put a piece in the place of another of the same length."""
        self.pieces[self.starts.index(start)] = piece

    def __len__(self) -> int:
        """In lines of a table: what it takes of memory."""
        return len(self.pieces) + sum(len(piece) for piece in self.pieces if isinstance(piece, bytes)) // 400


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into the file besides directories. `unpacked`: the object where its own record will not do, given
    where its baskets (source's position: own) lie; `uuid`: 16 bytes."""

    place: Place
    uuid: bytes
    baskets: Sequence[tuple[int, int]] = ()
    unpacked: Callable[[Mapping[int, int]], bytes] | None = None


def lay_out(file: CheckedFile, head: KeyHead, contents: Contents) -> Layout:
    """The whole file. ValueError where positions are too large for the keys there are."""
    key = contents.place.key
    size = key.record_bytes + key.object_bytes + sum(size for _, size in contents.baskets) + head.streamers_bytes
    big = size + _SLACK_BYTES > BIG_FROM
    layout = Layout()
    layout.add(bytes(BEGIN))
    sources = [head.begin + head.name_bytes, *(directory.data_start for directory in contents.place.directories)]
    found = [Directory.read(file, source) for source in sources]
    above = _directories(layout, contents.place, found[0].created, big)
    inner = above[-1].start
    moved = {start: layout.add(Copy(start, size, inner)) for start, size in contents.baskets}
    key = replace(key, start=layout.total_bytes, directory_start=inner)
    if contents.unpacked is None:
        layout.add(Copy(contents.place.key.start, key.record_bytes, inner))
    else:
        unpacked = contents.unpacked(moved)
        key = replace(key, record_bytes=key.key_bytes + len(unpacked), object_bytes=len(unpacked))
        layout.add(key.written() + unpacked)
    for n, (directory, source) in enumerate(zip(above, found, strict=True)):
        held = above[n + 1] if n + 1 < len(above) else key
        keys = struct.pack(">i", 1) + held.written()
        keys_start = layout.total_bytes
        record = _record(directory, keys_start, directory.start, keys, big)
        layout.add(record)
        names = _names(directory) if n == 0 else b""
        written = replace(
            source,
            keys_bytes=len(record),
            name_bytes=directory.key_bytes + len(names),
            start=directory.start,
            parent_start=directory.directory_start,
            keys_start=keys_start,
            uuid=contents.uuid,
        ).written(big)
        layout.fill(directory.start, directory.written() + names + written)
    _end(layout, head, above[0], contents.uuid, big)
    return layout


def _directories(layout: Layout, place: Place, date: int, big: bool) -> list[RootKey]:
    """Room for the file's own directory and those the object is in; their keys."""
    own = RootKey(0, 0, date, 1, 0, 0, b"TFile", FILE_NAME, b"", big)
    above: list[RootKey] = []
    for key in (own, *place.directories):
        parent = above[-1].start if above else 0
        key = replace(key, start=layout.total_bytes, directory_start=parent, big=big, told_bytes=0)
        size = _DIRECTORY_BYTES + (0 if above else len(_names(key)))
        key = replace(key, record_bytes=key.key_bytes + size, object_bytes=size)
        layout.add(bytes(key.record_bytes))
        above.append(key)
    return above


def _end(layout: Layout, head: KeyHead, own: RootKey, uuid: bytes, big: bool) -> None:
    """The streamers, the free space (none but what is behind), and the head, which knows them all."""
    streamers_start = 0
    if head.streamers_bytes:
        streamers_start = layout.add(Copy(head.streamers_start, head.streamers_bytes, own.start))
    free_start = layout.total_bytes
    form, version = (">hqq", 1001) if big else (">hii", 1)
    size = len(_record(own, free_start, own.start, bytes(struct.calcsize(form)), big))
    free = struct.pack(form, version, free_start + size, max(BIG_FROM, 2 * (free_start + size) if big else 0))
    layout.add(_record(own, free_start, own.start, free, big))
    written = replace(
        head,
        begin=BEGIN,
        end=layout.total_bytes,
        free_start=free_start,
        free_bytes=size,
        name_bytes=own.key_bytes + len(_names(own)),
        streamers_start=streamers_start,
        uuid=uuid,
    )
    layout.fill(0, written.written(big))


def _record(directory: RootKey, start: int, directory_start: int, content: bytes, big: bool) -> bytes:
    """A record of a directory's own: its list of keys, or the file's free space."""
    key = replace(directory, start=start, directory_start=directory_start, big=big, object_bytes=len(content), cycle=1)
    return replace(key, record_bytes=key.key_bytes + len(content)).written() + content


def _names(own: RootKey) -> bytes:
    return string_written(own.name) + string_written(own.title)


class LayoutReader(Reader):
    """Takes over `source`, whose version is checked at each read."""

    def __init__(self, source: PosixReader, layout: Layout) -> None:
        self._source, self._layout = source, layout
        self.lfn = source.lfn
        self.stat = FileStat(layout.total_bytes, source.stat.version)

    def readinto(self, offset: int, view: memoryview) -> None:
        require_within(self, offset, view.nbytes)
        layout = self._layout
        at = bisect_right(layout.starts, offset) - 1
        copied = False
        while view.nbytes:
            piece, within = layout.pieces[at], offset - layout.starts[at]
            size = min(view.nbytes, (piece.record_bytes if isinstance(piece, Copy) else len(piece)) - within)
            if isinstance(piece, Copy):
                self._copy(piece, layout.starts[at], within, view[:size])
                copied = True
            else:
                view[:size] = piece[within : within + size]
            view, offset, at = view[size:], offset + size, at + 1
        if not copied:
            self._source.pread(0, 0)  # reads nothing, but the version is checked

    def close(self) -> None:
        self._source.close()

    def _copy(self, copy: Copy, start: int, within: int, view: memoryview) -> None:
        self._source.readinto(copy.start + within, view)
        if within >= KEY_BYTES_MAX:
            return
        key = bytearray(self._source.pread(copy.start, min(copy.record_bytes, KEY_BYTES_MAX)))
        big = struct.unpack_from(">h", key, 4)[0] > 1000
        struct.pack_into(">qq" if big else ">ii", key, _POSITIONS_AT, start, copy.directory_start)
        size = min(view.nbytes, len(key) - within)
        view[:size] = key[within : within + size]


def uuid_of(head: KeyHead, key: RootKey, unpacked: bytes | memoryview) -> bytes:
    """The same for the same object of the same file, and for no other."""
    digest = hashlib.sha256(head.uuid + key.classname + b"\0" + key.name + b"\0" + key.title)
    digest.update(f";{key.cycle};{key.start};{key.date};{key.record_bytes}".encode())
    digest.update(unpacked)
    return UUID(bytes=digest.digest()[:16], version=5).bytes
