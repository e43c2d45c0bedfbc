"""Facts about replicas and steps of keeping folded into rows: one batch of changes at a time. No reading API, no Kafka.

Facts come through the gate (wire): blocks are of their dataset, names and versions hold no control character.

A file is held while some word stands that no loss took back. Its size and block are as said last: a site's words on a
file of a dataset stand in one partition, in order, and a repeat goes on to the partition's end. Words of different
sites, or on different datasets, touch different lines. So any order between topics gives equal rows, and a repeated
tail of a partition changes nothing in the end. Totals are differences of what a file's row contributes before and
after, hence a function of the rows alone.
"""

from __future__ import annotations

from typing import Any

from streams.core.keeping.chains import ChainRow, StepHeard
from streams.core.names import IntentId
from streams.core.records import ChainStep, FilesHeld, FilesLost, IntentDecided, KeepingStep, ReplicasChecked
from streams.views import rows
from streams.views.keeping import ChainChanges, ChainId
from streams.views.rows import ALL, Entry, Total


def contribution(entries: tuple[Entry, ...]) -> dict[tuple[bytes, str], Total]:
    """What a file adds to each (totals key, site or ALL). A file nobody holds any more still counts as known."""
    found: dict[tuple[bytes, str], Total] = {}
    known: dict[bytes, tuple[bool, int]] = {}
    for e in entries:
        for key in (rows.block_key(e.dataset, e.block), rows.dataset_key(e.dataset)):
            known[key] = max(known.get(key, (False, 0)), (e.held, e.bytes))
            if e.held:
                found[key, e.site] = Total(1, e.bytes)
    for key, (_, size) in known.items():
        found[key, ALL] = Total(1, size)
    return found


class Changes:
    """Facts applied in memory over a database, written together by `write`. Memory: ~1 KB per file touched."""

    def __init__(self, db: Any, chains: dict[ChainId, ChainRow] | None = None) -> None:
        """`chains`: those of the batch before, as they were written; of one database and one writer."""
        self._db = db
        self._files: dict[str, tuple[Entry, ...]] = {}
        self._dirty: set[str] = set()
        self._members: dict[bytes, bool] = {}
        self._totals: dict[tuple[bytes, str], Total] = {}
        self._chains = ChainChanges(db, chains)
        self.news: list[ChainStep | ReplicasChecked | FilesHeld | FilesLost] = []
        """To be told once this is written."""
        self.decided: list[IntentDecided] = []
        """The same of intents."""
        self.moved: list[IntentId] = []
        """Moves of which all has arrived, and moves and removals that sites have answered, or that have ended."""
        self.extra: dict[bytes, bytes | None] = {}
        """Other rows of the same batch: offsets, announcements; None deletes."""

    @property
    def touched(self) -> int:
        return len(self._files) + self._chains.touched

    def hold(self, fact: FilesHeld, word: str) -> None:
        """`word` as `word_of` gives it. Said again after it was taken back, it no longer says that they are there."""
        self._load([file.lfn for file in fact.files])
        dataset, site, skip = str(fact.dataset), str(fact.site), len(fact.dataset) + 1
        place, words = (dataset, site, fact.endpoint), (word,)
        fresh: dict[str, list[tuple[str, int]]] = {}
        for file in fact.files:
            block = file.block[skip:]
            entry = Entry(*place, block, file.bytes, str(file.adler32), file.version, fact.owner, words)
            if self._files[file.lfn]:
                self._say(file.lfn, entry, word)
            else:
                self._files[file.lfn] = (entry,)
                fresh.setdefault(block, []).append((file.lfn, file.bytes))
        for block, named in fresh.items():
            self._first(dataset, block, site, named)

    def _say(self, lfn: str, entry: Entry, word: str) -> None:
        before = next((e for e in self._files[lfn] if e[:3] == entry[:3]), None)
        if before is not None:
            is_news = word not in before.words and word not in before.taken
            words = tuple(sorted((*before.words, word))) if is_news else before.words
            entry = entry._replace(words=words, taken=before.taken)
        self._replace(lfn, entry)

    def lose(self, fact: FilesLost) -> None:
        self._load(list(fact.lfns))
        place = (fact.dataset, fact.site, fact.endpoint)
        for n, lfn in enumerate(fact.lfns):
            e = next((e for e in self._files[lfn] if e[:3] == place), None)
            if e is None:
                continue  # its own word stands before it in this partition
            if not fact.taken:
                # Of before words were named. A repeat brings it again behind later words, which then stand again.
                self._replace(lfn, e._replace(words=()))
                continue
            taken = tuple(sorted({*e.taken, *fact.taken[n].words}))
            words = tuple(word for word in e.words if word not in taken)
            self._replace(lfn, e._replace(words=words, taken=taken))
        if fact.removal_sha256:
            self._chains.end(fact)

    def decide(self, step: KeepingStep) -> StepHeard:
        """The next step of its chain."""
        return self._chains.take(step)

    def _load(self, lfns: list[str]) -> None:
        missing = [lfn for lfn in dict.fromkeys(lfns) if lfn not in self._files]
        if missing:
            found = self._db.get([rows.file_key(lfn) for lfn in missing])
            for lfn, row in zip(missing, found, strict=True):
                self._files[lfn] = rows.unpack_file(row)

    def _replace(self, lfn: str, entry: Entry) -> None:
        old = self._files[lfn]
        if entry in old:
            return
        new = (*(e for e in old if e[:3] != entry[:3]), entry)
        self._files[lfn] = new
        self._dirty.add(lfn)
        for key, total in contribution(old).items():
            self._count(key, -total.files, -total.bytes)
        for key, total in contribution(new).items():
            self._count(key, total.files, total.bytes)
        for member in {(e.dataset, e.block) for e in old} - {(e.dataset, e.block) for e in new}:
            self._members[rows.member_key(*member, lfn)] = False
        self._members[rows.member_key(entry.dataset, entry.block, lfn)] = True

    def _first(self, dataset: str, block: str, site: str, named: list[tuple[str, int]]) -> None:
        """What `_replace` does, for files (LFN, bytes) never heard of: the usual case, made quick."""
        self._dirty.update(lfn for lfn, _ in named)
        prefix = rows.member_key(dataset, block, "")
        self._members.update((prefix + lfn.encode(), True) for lfn, _ in named)
        files, size = len(named), sum(size for _, size in named)
        for key in (rows.block_key(dataset, block), rows.dataset_key(dataset)):
            self._count((key, ALL), files, size)
            self._count((key, site), files, size)

    def _count(self, key: tuple[bytes, str], files: int, size: int) -> None:
        was = self._totals.get(key)
        self._totals[key] = Total(files, size) if was is None else Total(was[0] + files, was[1] + size)

    def write(self) -> None:
        """All of it, atomically."""
        changed: dict[bytes, bytes | None] = {}
        for lfn in self._dirty:
            changed[rows.file_key(lfn)] = rows.pack_file(self._files[lfn])
        for key, present in self._members.items():
            changed[key] = b"" if present else None
        totals: dict[bytes, rows.Totals] = {}
        for (key, site), delta in self._totals.items():
            if key not in totals:
                totals[key] = rows.unpack_totals(self._db.get(key))
            totals[key][site] = totals[key].get(site, rows.NOTHING).plus(*delta)
        for key, counted in totals.items():
            changed[key] = rows.pack_totals(counted) or None
        rows.write(self._db, changed | self._chains.rows() | self.extra)
        self._chains.written()
