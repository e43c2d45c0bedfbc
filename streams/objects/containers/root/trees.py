"""A TTree as an object: its baskets are copied as they are, and the tree is told where they now lie.

Of the tree's own record only those positions change; it is kept unpacked, so that its bytes are no compressor's.
uproot reads the tree to find them, and once more from the result, to prove that they were found.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from streams.core.names import shown
from streams.errors import StorageError, permanent
from streams.events.checked_file import CheckedFile
from streams.events.formats.root.file import keys_of, open_root
from streams.objects.containers.root.keys import DIRECTORIES, NARROW_MAX, KeyHead, Place, unpacked_object
from streams.objects.containers.root.layout import Contents, Copy, Layout, LayoutReader, lay_out, uuid_of
from streams.objects.limits import damaged

BASKETS_MAX = 200_000
"""Of one tree: their places are held in memory, about 200 bytes for each."""


def tree_layout(file: CheckedFile, head: KeyHead, place: Place) -> Layout:
    """Raises StorageError, permanent, for a tree that cannot travel; anything for tables that cannot be."""
    tables = list(_tables(file, place, _read_tree(file, place.key.start)))
    baskets = sorted(
        {(int(start), int(size)) for _, *table in tables for start, size in zip(*table, strict=True) if start}
    )
    if len(baskets) > BASKETS_MAX:
        raise _cannot(place, f"it has {len(baskets):,} baskets, {BASKETS_MAX:,} at most", file)
    _require_baskets(file, baskets)
    original = bytes(unpacked_object(file, place.key))

    def unpacked(moved: Mapping[int, int]) -> bytes:
        written, at = bytearray(original), 0
        for name, starts, _ in tables:
            if not starts.any():
                continue
            before = starts.tobytes()
            found = original.find(before, at)
            at = found if found >= 0 else original.find(before)
            if at < 0:
                raise _cannot(place, f"where its branch {shown(name)!r} lies is told in an unknown way", file)
            written[at : at + len(before)] = _moved(starts, moved).tobytes()
            at += len(before)
        return bytes(written)

    layout = lay_out(file, head, Contents(place, uuid_of(head, place.key, original), baskets, unpacked))
    _require_same(file, place, layout, tables)
    return layout


def _read_tree(file: CheckedFile, start: int | None) -> Any:
    """The tree whose key lies at `start`, or the only object there is."""
    for _, _, classname, key in keys_of(open_root(file)):
        if int(key.fSeekKey) == start or (start is None and classname not in DIRECTORIES):
            return key.get()
    raise ValueError("the tree is not there any more")


Table = tuple[str, Any, Any]


def _tables(file: CheckedFile, place: Place, tree: Any) -> Iterator[Table]:
    """Of each branch its name and where its baskets lie, in the order in which they are streamed."""
    for branch in _streamed(tree):
        if str(branch.member("fFileName", none_if_missing=True) or ""):
            raise _cannot(place, f"its branch {shown(branch.name)!r} is in another file", file)
        count = max(0, int(branch.member("fWriteBasket")))
        starts = np.asarray(branch.member("fBasketSeek"))[:count]
        starts = starts.astype(">i4" if starts.dtype.itemsize == 4 else ">i8")  # as they are stored
        sizes = np.asarray(branch.member("fBasketBytes"), dtype=np.int64)[:count]
        if len(sizes) < len(starts):
            raise damaged(f"the table of baskets of {shown(branch.name)!r} is too short", file.path)
        there = starts != 0  # others are in the tree's record itself
        if np.any(there & ((starts < 0) | (sizes < 26) | (starts > file.bytes - sizes))):
            raise damaged(f"a basket of {shown(branch.name)!r} lies outside the file", file.path)
        yield branch.name, starts, sizes


def _streamed(parent: Any) -> Iterator[Any]:
    """Branches below come before the tables of the branch they are in."""
    for branch in parent.branches:
        yield from _streamed(branch)
        yield branch


def _moved(starts: Any, moved: Mapping[int, int]) -> Any:
    """Where the baskets now lie; 0, which means nowhere, stays."""
    now = [moved[start] if start else 0 for start in starts.tolist()]
    if now and max(now) > np.iinfo(starts.dtype).max:
        raise ValueError("a basket of an old tree would lie beyond 2 GB")
    return np.array(now, dtype=starts.dtype)


def _cannot(place: Place, why: str, file: CheckedFile) -> StorageError:
    return permanent(f"the object {shown(place.name)!r} cannot travel: {why}", file.path, "ask for its entries")


def _require_baskets(file: CheckedFile, baskets: list[tuple[int, int]]) -> None:
    """Each is a record of that size, and none is inside another: so the whole is never more than the file."""
    stop = 0
    for start, size in baskets:
        raw = file.pread(start, start + 6)
        if start < stop or struct.unpack_from(">i", raw)[0] != size:
            raise damaged(f"there is no basket of {size:,} bytes at {start:,}", file.path)
        stop = start + size


def _require_same(file: CheckedFile, place: Place, layout: Layout, tables: list[Table]) -> None:
    """The tree of the result says of every basket where it now lies."""
    moved = {}
    for at, piece in zip(layout.starts, layout.pieces, strict=True):
        if isinstance(piece, Copy):
            moved[piece.start] = at
            if at > NARROW_MAX and struct.unpack(">h", file.pread(piece.start + 4, piece.start + 6))[0] <= 1000:
                raise ValueError("a basket for small files would lie beyond 2 GB")
    with LayoutReader(file.reader(), layout) as reader:
        seen = cast(CheckedFile, _Seen(reader, file.path))
        found = list(_tables(seen, place, _read_tree(seen, None)))
    for (name, starts, _), (_, now, _) in zip(tables, found, strict=True):
        if not np.array_equal(_moved(starts, moved), now):
            raise damaged(f"the tree {shown(place.name)!r} does not say where {shown(name)!r} lies", file.path)


class _Seen:
    """A reader as uproot's source wants it."""

    closed = False

    def __init__(self, reader: LayoutReader, path: str) -> None:
        self._reader = reader
        self.path = path
        self.bytes = reader.stat.bytes

    def pread(self, start: int, stop: int) -> bytes:
        start, stop = max(0, int(start)), min(int(stop), self.bytes)
        return self._reader.pread(start, stop - start) if start < stop else b""
