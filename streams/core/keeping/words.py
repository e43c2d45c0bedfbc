"""A file at a place: the words that say it is there, those taken back, and the removal that goes on. Pure.

A place is an endpoint of a site; the row is of one (place, dataset, LFN). Each landing and each registration says a
word of its own: the manifest, or a random one. A loss takes back the words that it names. The file is held while some
word stands. So repeats and any order give the same row: a word said again after it was taken back stays taken back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from streams.core.keeping.chains import CountedRemoval

NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """`removal`: the last that counted and is not known to have ended. `ended`: digests of those that have."""

    said: frozenset[str] = NONE
    taken: frozenset[str] = NONE
    removal: CountedRemoval | None = None
    ended: frozenset[str] = NONE

    @property
    def words(self) -> frozenset[str]:
        """Those that stand."""
        return self.said - self.taken

    @property
    def held(self) -> bool:
        return bool(self.words)


NEVER_HELD = ReplicaRow()


def held(row: ReplicaRow, word: str) -> ReplicaRow:
    """After a FilesHeld that says `word` of it."""
    return replace(row, said=row.said | {word})


def lost(row: ReplicaRow, words: Collection[str] | None, removal_sha256: str = "") -> ReplicaRow:
    """After a FilesLost. `removal_sha256`: the step whose removal it ends, "" for none.

    `words` None is a record of before they were named: nothing stands that its partition said before it. A repeat of
    the partition's tail brings it again behind words that came later, and then these: none of them stays taken back.
    """
    if words is None:
        return replace(row, said=row.said & row.taken)
    ended = row.ended | {removal_sha256} if removal_sha256 else row.ended
    return _going(replace(row, taken=row.taken | frozenset(words), ended=ended))


def removal_counted(row: ReplicaRow, removal: CountedRemoval) -> ReplicaRow:
    """After a step that removes it came to count; its end may have been heard before."""
    if row.removal is not None and row.removal.no > removal.no:
        return row
    return _going(replace(row, removal=removal))


def _going(row: ReplicaRow) -> ReplicaRow:
    over = row.removal is not None and row.removal.sha256 in row.ended
    return replace(row, removal=None) if over else row
