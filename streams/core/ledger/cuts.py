"""A cut through all journals, by their sizes and roots, and its digest: one line that two auditors compare.

A journal is what a site wrote into a partition of a topic of its own. Its records are counted in the order in which
each number first stands, so a mirror that repeats has the same journal; records without a legible origin of that site
are left out. The digest is over the journals that every site holds: whoever reads one cluster may compare it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from streams.core import records as m
from streams.core.ledger.spans import SpanSet
from streams.core.ledger.trees import JournalTree
from streams.core.names import Site
from streams.core.topics import TO_EVERY_PEER, split


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


class JournalRoots:
    """Trees of the journals that are read, originals and copies. `at`: sizes at which roots are wanted."""

    def __init__(self, at: Mapping[JournalId, int] | None = None) -> None:
        self._at = at
        self._trees: dict[tuple[Site, JournalId], JournalTree] = {}
        self._seen: defaultdict[tuple[Site, JournalId], defaultdict[str, SpanSet]]
        self._seen = defaultdict(lambda: defaultdict(SpanSet))

    def hear(self, site: Site, topic: str, partition: int, origin: m.Origin | None, leaf: bytes) -> None:
        """The next record of a partition at a site; `topic` as it is named there."""
        writer, base = split(topic)
        journal = JournalId(writer or site, base, partition)
        if (
            origin is None
            or origin.site != journal.site
            or not self._seen[site, journal][origin.incarnation].add(origin.seq)
        ):
            return
        tree = self._trees.get((site, journal))
        if tree is None:
            marks = () if self._at is None else (self._at.get(journal, 0),)
            tree = self._trees[site, journal] = JournalTree(marks)
        tree.append(leaf)

    def roots(self) -> list[JournalRoot]:
        """Of each journal, by its original where that was read, else by its longest copy; at the wanted sizes."""
        best: dict[JournalId, tuple[Site, JournalTree]] = {}
        for (site, journal), tree in sorted(self._trees.items(), key=lambda one: one[0]):
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
