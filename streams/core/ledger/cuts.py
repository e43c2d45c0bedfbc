"""A cut through all journals, by their sizes and roots, and its digest: one line that two auditors compare.

A journal is what a site wrote into a partition of a topic of its own. Its records are counted in the order in which
each number first stands, so a mirror that repeats has the same journal; records without a legible origin of that site
are left out. The digest is over the journals that every site holds: whoever reads one cluster may compare it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from streams.core import records as m
from streams.core.ledger.spans import SpanSet
from streams.core.ledger.trees import JournalTree
from streams.core.names import Site
from streams.core.topics import TO_EVERY_PEER, split

WriterNumber = tuple[Site, str, int]
"""Of a record: its site, the incarnation of its writer, and its number."""


class JournalId(NamedTuple):
    """Of a site's own topic, whose name it has there."""

    site: Site
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.site} {self.topic}[{self.partition}]"


class JournalRoot(NamedTuple):
    """So many records of a journal, and their root (hex)."""

    journal: JournalId
    size: int
    root: str


def digest_of(journals: Iterable[JournalRoot]) -> str:
    """sha256 (hex) over what every site holds, in one order, empty journals left out."""
    shared = sorted(one for one in journals if one.size and one.journal.topic in TO_EVERY_PEER)
    summed = sha256()
    for (site, topic, partition), size, root in shared:
        summed.update(f"{site}\t{topic}\t{partition}\t{size}\t{root}\n".encode())
    return summed.hexdigest()


class _Grown:
    """A journal as it stands at a site."""

    __slots__ = ("journal", "seen", "site", "tree")

    def __init__(self, journal: JournalId, tree: JournalTree) -> None:
        self.journal, self.site, self.tree = journal, journal.site, tree
        self.seen: defaultdict[str, SpanSet] = defaultdict(SpanSet)


class ClusterTrees:
    """Trees of one site's cluster: of its own journals, and of its copies of its peers'.

    `marks`: sizes at which roots of a journal are kept.
    """

    def __init__(self, site: Site, *, marks: Callable[[JournalId], Iterable[int]] = lambda _: ()) -> None:
        self.site = site
        self.trees: dict[JournalId, JournalTree] = {}
        self._marks = marks
        self._by_place: dict[tuple[str, int], _Grown] = {}

    def hear(self, topic: str, partition: int, number: WriterNumber | None, leaf: bytes) -> _Grown | None:
        """The next record of a partition; `topic` as it is named here. Each number of a writer counts once.

        The journal that it made longer; None where it did not count.
        """
        grown = self._by_place.get((topic, partition))
        if grown is None:
            grown = self._by_place[topic, partition] = self._new(topic, partition)
        if number is None or number[0] != grown.site or not grown.seen[number[1]].add(number[2]):
            return None
        grown.tree.append(leaf)
        return grown

    def _new(self, topic: str, partition: int) -> _Grown:
        writer, base = split(topic)
        journal = JournalId(writer or self.site, base, partition)
        tree = self.trees[journal] = JournalTree(self._marks(journal))
        return _Grown(journal, tree)


class JournalRoots:
    """Trees of the journals that are read, originals and copies. `at`: sizes at which roots are wanted."""

    def __init__(self, at: Mapping[JournalId, int] | None = None) -> None:
        self._at = at
        self._clusters: dict[Site, ClusterTrees] = {}

    def hear(self, site: Site, topic: str, partition: int, origin: m.Origin | None, leaf: bytes) -> bool:
        """The next record of a partition at a site; `topic` as it is named there. Whether it is one of the cut."""
        if (cluster := self._clusters.get(site)) is None:
            at = self._at
            marks = (lambda _: ()) if at is None else (lambda journal: (at.get(journal, 0),))
            cluster = self._clusters[site] = ClusterTrees(site, marks=marks)
        number = None if origin is None else (origin.site, origin.incarnation, origin.seq)
        grown = cluster.hear(topic, partition, number, leaf)
        return grown is not None and (self._at is None or grown.tree.size <= self._at.get(grown.journal, 0))

    def roots(self) -> list[JournalRoot]:
        """Of each journal, by its original where that was read, else by its longest copy; at the wanted sizes."""
        best: dict[JournalId, tuple[Site, JournalTree]] = {}
        read = [
            (site, *one)
            for site, cluster in sorted(self._clusters.items())
            for one in cluster.trees.items()
            if one[1].size
        ]
        for site, journal, tree in read:
            known = best.get(journal)
            if known is None or site == journal.site or (known[0] != journal.site and tree.size > known[1].size):
                best[journal] = site, tree
        found = []
        for journal, (_, tree) in sorted(best.items(), key=lambda one: one[0]):
            size = tree.size if self._at is None else min(tree.size, self._at.get(journal, 0))
            root = tree.root_at(size)
            assert root is not None, "each size was marked before anything was read, or is the last"
            found.append(JournalRoot(journal, size, root.hex()))
        return found
