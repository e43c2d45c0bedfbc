"""Sealed sizes of a journal, and a tree's way past them: where its root was not what a seal says, and since when.

Memory: 50 bytes for each sealed size. No seal is judged here; what a contradiction means says seals.py.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import NamedTuple

from streams.core.ledger.trees import JournalTree
from streams.core.names import Site

SIZES_MAX = 1 << 16
"""Sealed sizes that are kept of a journal; of more every second one is left out, and counted."""
_NEVER = 1 << 63
_ROOT = 32


class SealName(NamedTuple):
    """Number of a seal in its site's chain."""

    site: Site
    no: int

    def __str__(self) -> str:
        return f"seal {self.no} of {self.site}"


class SealedSizes:
    """What is sealed of one journal, by ascending size; each entry is a size, a root, and whose seal says so."""

    __slots__ = ("_sizes_max", "left_out", "nos", "roots", "sealers", "sites", "sizes", "walks")

    def __init__(self, sizes_max: int) -> None:
        self._sizes_max = sizes_max
        self.sizes, self.nos, self.sealers = array("Q"), array("Q"), array("H")
        self.roots = bytearray()
        self.sites: list[Site] = []
        self.walks: list[SealWalk] = []
        self.left_out = 0

    def add(self, size: int, root: bytes, seal: SealName) -> None:
        if seal.site not in self.sites:
            self.sites.append(seal.site)
        at = len(self.sizes) if not self.sizes or size >= self.sizes[-1] else bisect_right(self.sizes, size)
        self.sizes.insert(at, size)
        self.nos.insert(at, seal.no)
        self.sealers.insert(at, self.sites.index(seal.site))
        self.roots[at * _ROOT : at * _ROOT] = root
        for walk in self.walks:
            walk.sealed_later(size, root, seal)
        if len(self.sizes) > self._sizes_max:
            self._thin()

    def _thin(self) -> None:
        """Leave out every second entry but the last; or, of a journal that is read already, what was compared."""
        if self.walks:
            passed = min(min(walk.passed for walk in self.walks), len(self.sizes) - 1)
            keep = list(range(passed, len(self.sizes)))
            for walk in self.walks:
                walk.passed -= passed
        else:
            keep = [*range(0, len(self.sizes) - 1, 2), len(self.sizes) - 1]
            self.left_out += len(self.sizes) - len(keep)
        self.roots = bytearray().join(self.root(at) for at in keep)
        self.sizes = array("Q", (self.sizes[at] for at in keep))
        self.nos = array("Q", (self.nos[at] for at in keep))
        self.sealers = array("H", (self.sealers[at] for at in keep))

    def root(self, at: int) -> bytes:
        return bytes(self.roots[at * _ROOT : (at + 1) * _ROOT])

    def seal(self, at: int) -> SealName:
        return SealName(self.sites[self.sealers[at]], self.nos[at])


class Contradiction(NamedTuple):
    """A seal of `size` records whose root is not that of the tree. `good`: the last one before that is, and its size.

    `offset`: of the first record behind what is known to be as sealed; None where that was not seen.
    """

    seal: SealName
    size: int
    good: SealName | None
    good_size: int
    offset: int | None


class SealWalk:
    """One tree, at one site, past the sealed sizes of its journal. `next`: the size at which it wants to be told."""

    __slots__ = ("_after", "_good", "_pending", "_sealed", "bad", "late", "next", "passed", "site", "tree")

    def __init__(self, site: Site, tree: JournalTree, sealed_sizes: SealedSizes) -> None:
        self.site, self.tree, self._sealed = site, tree, sealed_sizes
        self.bad: dict[Site, Contradiction] = {}
        """The first contradiction with the seals of a site."""
        self.late = 0
        """Seals of sizes whose root could not be told any more when they were heard."""
        self.passed = bisect_right(sealed_sizes.sizes, tree.size)
        """Entries of sizes that the tree has reached."""
        self._good: dict[Site, tuple[SealName, int]] = {}
        self._after: dict[Site | None, int] = {}
        """Offset of the record behind the last size that is as a site sealed it; without a site, of the first."""
        self._pending: list[Site | None] = [None] if tree.size == 0 else []
        self.next = 1 if tree.size == 0 else self._due()
        sealed_sizes.walks.append(self)

    def _due(self) -> int:
        return self._sealed.sizes[self.passed] if self.passed < len(self._sealed.sizes) else _NEVER

    def reach(self, offset: int) -> None:
        """The tree has grown to `next` by the record at this offset."""
        size, sealed_sizes = self.tree.size, self._sealed
        for site in self._pending:
            self._after[site] = offset
        self._pending.clear()
        root = self.tree.root if self._due() == size else b""
        while self._due() == size:
            self._hold(sealed_sizes.seal(self.passed), size, sealed_sizes.root(self.passed) == root)
            self.passed += 1
        self.next = size + 1 if self._pending else self._due()

    def _hold(self, seal: SealName, size: int, is_good: bool) -> None:
        if seal.site in self.bad:
            return
        good, good_size = self._good.get(seal.site, (None, 0))
        if is_good:
            self._good[seal.site] = seal, size
            self._pending.append(seal.site)
        else:
            offset = self._after.get(seal.site if good is not None else None)
            self.bad[seal.site] = Contradiction(seal, size, good, good_size, offset)

    def sealed_later(self, size: int, root: bytes, seal: SealName) -> None:
        """A seal is heard while the tree grows; its entry is among those that were passed, or not."""
        if size > self.tree.size:
            self.next = min(self.next, size)
            return
        self.passed += 1
        mine = self.tree.root_at(size)
        if mine is None:
            self.late += 1
        elif mine != root:
            self._hold(seal, size, False)
        elif size == self.tree.size:
            self._hold(seal, size, True)
            self.next = min(self.next, size + 1)
        elif size > self._good.get(seal.site, (seal, 0))[1]:
            self._good[seal.site] = seal, size
            self._after.pop(seal.site, None)  # which record stands behind it was not seen
