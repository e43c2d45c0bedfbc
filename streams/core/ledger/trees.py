"""A journal as a tree: one root for so many records in their order. Two logs of one root and size are the same records.

The shape is RFC 6962's: a leaf is SHA-256 over 0x00 and the record, a node SHA-256 over 0x01 and its two children, the
left of which is the largest full tree that leaves something on the right. A record is its key, its value and each
header, in their order, each with its length. Here is arithmetic only; what a journal's records are says cuts.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

Headers = Iterable[tuple[str, bytes | None]]

BLOCK = 256
"""Leaves whose root is kept, to find where two logs part without keeping a leaf each: 32 bytes a block."""
RECENT_BLOCKS = 4
"""Last blocks of a journal that is followed whose leaves are kept: 32 KB a journal."""
EMPTY_ROOT = sha256(b"").digest()
_LENGTH = struct.Struct(">I").pack
_NONE = b"\xff" * 4
"""A length that no field has: it is absent."""


def leaf_of(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """The hash (32 bytes) of a record as it stands in a log."""
    parts = [b"\x00", _NONE if key is None else _LENGTH(len(key)), key or b""]
    parts += _NONE if value is None else _LENGTH(len(value)), value or b""
    for name, content in headers:
        parts += _name(name), _NONE if content is None else _LENGTH(len(content)), content or b""
    return sha256(b"".join(parts)).digest()


@lru_cache(256)
def _name(name: str) -> bytes:
    encoded = name.encode()
    return len(encoded).to_bytes(4, "big") + encoded


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """Grows by one leaf at a time; keeps a hash for each full tree in it, which are as many as bits in its size."""

    __slots__ = ("_full", "size")

    def __init__(self) -> None:
        self.size = 0
        self._full: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        trailing = self.size = self.size + 1
        while not trailing & 1:
            leaf = sha256(b"\x01" + self._full.pop() + leaf).digest()
            trailing >>= 1
        self._full.append(leaf)

    @property
    def full(self) -> list[bytes]:
        """Roots of the full trees in it, the largest first."""
        return self._full

    @property
    def root(self) -> bytes:
        """32 bytes; of what was appended so far."""
        return _root_over(self._full)


def _root_over(full: list[bytes]) -> bytes:
    if not full:
        return EMPTY_ROOT
    root = full[-1]
    for left in reversed(full[:-1]):
        root = _node(left, root)
    return root


class JournalTree:
    """A journal's tree, with the root of each full block, and roots at sizes that were asked for before they came."""

    __slots__ = ("_block", "_blocks", "_marks", "_top")

    def __init__(self, marks: Iterable[int] = ()) -> None:
        """`marks`: sizes at which the root is kept."""
        self._top, self._block = Tree(), Tree()
        self._blocks = bytearray()
        self._marks: dict[int, bytes | None] = dict.fromkeys(marks)

    @property
    def size(self) -> int:
        return self._top.size * BLOCK + self._block.size

    @property
    def root(self) -> bytes:
        return _root_over([*self._top.full, *self._block.full])

    def append(self, leaf: bytes) -> None:
        block = self._block
        block.append(leaf)
        if block.size == BLOCK:  # a block is a power of two: a tree of their roots has the shape of one of leaves
            root = block.root
            self._blocks += root
            self._top.append(root)
            self._block = Tree()
        if self._marks and self.size in self._marks:
            self._marks[self.size] = self.root

    def root_at(self, size: int) -> bytes | None:
        """The root of the first `size` records, None where it cannot be told any more, or not yet."""
        if size == self.size:
            return self.root
        if (marked := self._marks.get(size)) is not None:
            return marked
        if size % BLOCK or size > self.size:
            return None
        tree = Tree()
        for at in range(0, size // BLOCK * 32, 32):
            tree.append(bytes(self._blocks[at : at + 32]))
        return tree.root

    def parts_from(self, other: JournalTree) -> int | None:
        """The first record of the block in which two logs differ, as far as they are compared; None if in none."""
        full = min(len(self._blocks), len(other._blocks))
        if self._blocks[:full] != other._blocks[:full]:
            at = next(n for n in range(0, full, 32) if self._blocks[n : n + 32] != other._blocks[n : n + 32])
            return at // 32 * BLOCK
        if self.size == other.size and self.root != other.root:
            return full // 32 * BLOCK
        return None

    def compared(self, other: JournalTree) -> int:
        """How many records from the first on `parts_from` looks at: all of two logs of one size, else full blocks."""
        if self.size == other.size:
            return self.size
        return min(len(self._blocks), len(other._blocks)) // 32 * BLOCK


class RecentTree(JournalTree):
    """Of a journal that is read while it grows: the root at each of its last sizes, and no block before them.

    A seal of a copy's original comes when the copy has grown past it. Bounded memory; not compared with another tree.
    """

    __slots__ = ("_recent",)

    def __init__(self, marks: Iterable[int] = ()) -> None:
        super().__init__(marks)
        self._recent: list[tuple[int, list[bytes], bytearray]] = []
        """Of each block: the size before it, the roots of the full trees before it, and its leaves."""

    def append(self, leaf: bytes) -> None:
        if self._block.size == 0:
            self._recent = [*self._recent[1 - RECENT_BLOCKS :], (self.size, list(self._top.full), bytearray())]
        self._recent[-1][2].extend(leaf)
        super().append(leaf)
        self._blocks.clear()

    def root_at(self, size: int) -> bytes | None:
        if size == self.size or size in self._marks:
            return super().root_at(size)
        for start, full, leaves in self._recent:
            if start < size <= start + len(leaves) // 32:
                block = Tree()
                for at in range(0, (size - start) * 32, 32):
                    block.append(bytes(leaves[at : at + 32]))
                return _root_over([*full, *block.full])
        return None
