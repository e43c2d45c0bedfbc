"""Replicas of one site by the words of its journal, in a database of a moment; memory stays bounded.

A file is held while some word of it stands, as views have it (core/keeping/words.py); its size and block are as said
last. A site's words on a file of a dataset stand in one partition, in order. Of the default endpoint only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from streams import wire
from streams.core import records as m
from streams.core.ledger.findings import LogPosition
from streams.core.names import Lfn, Site
from streams.core.topics import REPLICAS
from streams.core.topics import LogPartition as Partition
from streams.errors import WireError
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.views import rows

_FILE = b"f"
_HELD, _GONE = "+", "-"
"""How the row of a file begins: whether some dataset holds it."""
_AND = "\x1f"
_FILES_MAX = 4000
"""Rows changed in memory before they are written."""


class AuditedReplica(NamedTuple):
    """A file of a dataset at its site; `manifest` of the transfer that brought it, "" of a registration.

    `words`: those that stand; none of what is held no more. `taken`: those taken back. `lost`: of what is held no more
    those that its last loss took back, if that was an accident and no removal.
    """

    lfn: str
    dataset: str
    block: str
    bytes: int
    adler32: str
    manifest: str
    partition: int
    offset: int
    words: tuple[str, ...]
    taken: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


class AuditedReplicas:
    """Rows by LFN, one line per dataset; `heard` is the next offset of each partition that was read."""

    def __init__(self, db: Any, settings: Settings, site: Site) -> None:
        self._db, self._settings, self._site = db, settings, site
        self._changed: dict[str, dict[str, AuditedReplica]] = {}
        self.heard: dict[Partition, int] = {}

    def fold(self) -> None:
        """Read the journal as it stands now. Temporary, NotFound as of a replay."""
        for place, fact, word in self._facts({}):
            self._load(names_of(fact))
            if isinstance(fact, m.FilesHeld):
                self._hold(fact, word, place)
            else:
                self._lose(fact)
            if len(self._changed) >= _FILES_MAX:
                self._write()
        self._write()

    def _hold(self, fact: m.FilesHeld, word: str, place: LogPosition) -> None:
        dataset, manifest, fresh = str(fact.dataset), fact.manifest or "", (word,)
        for f in fact.files:
            lines = self._changed[f.lfn]
            known = lines.get(dataset)
            said = AuditedReplica(f.lfn, dataset, f.block, f.bytes, f.adler32, manifest, *place[2:], fresh)
            if known is not None:
                is_new = word not in known.words and word not in known.taken
                words = (*known.words, word) if is_new else known.words
                said = said._replace(words=words, taken=known.taken, lost=() if words else known.lost)
            lines[dataset] = said

    def _lose(self, fact: m.FilesLost) -> None:
        for n, lfn in enumerate(fact.lfns):
            known = self._changed[lfn].get(fact.dataset)
            if known is None:
                continue
            # Of before words were named, a loss takes back what its partition said before it, and again is heard anew.
            named = fact.taken[n].words if fact.taken else ()
            words = tuple(word for word in known.words if word not in named) if fact.taken else ()
            lost = () if words or fact.removal_sha256 else known.words or known.lost
            taken = tuple(sorted({*known.taken, *named}))
            self._changed[lfn][fact.dataset] = known._replace(words=words, taken=taken, lost=lost)

    def since(self) -> Iterator[m.FilesHeld | m.FilesLost]:
        """What has been written since the journal was read last. Nothing is folded."""
        for _, fact, _ in self._facts(self.heard):
            yield fact

    def all(self) -> Iterator[AuditedReplica]:
        """Every replica held, by LFN."""
        for key, row in rows.scan(self._db, _FILE):
            if row[:1] == _HELD.encode():
                yield from (one for one in _unpack(key[len(_FILE) :].decode(), row).values() if one.words)

    def lost(self) -> Iterator[AuditedReplica]:
        """Every replica that was lost by accident and is held no more, by LFN."""
        for key, row in rows.scan(self._db, _FILE):
            if row[:1] == _GONE.encode() or b"\n" in row:
                yield from (one for one in _unpack(key[len(_FILE) :].decode(), row).values() if one.lost)

    def of(self, lfn: str) -> dict[str, AuditedReplica]:
        """By dataset, those held no more too."""
        return _unpack(lfn, self._db.get(_FILE + lfn.encode()))

    def held(self, lfns: Sequence[str]) -> list[bool]:
        found = self._db.get([_FILE + lfn.encode() for lfn in lfns]) if lfns else []
        return [row is not None and row[:1] == _HELD.encode() for row in found]

    def _facts(self, start: Mapping[Partition, int]) -> Iterator[tuple[LogPosition, m.FilesHeld | m.FilesLost, str]]:
        """Each with its place and its word, "" of a loss. A partition that is new is read from its beginning."""
        for record in replay(self._settings, self._site, [REPLICAS], start=dict(start)):
            self.heard[record.topic, record.partition] = record.offset + 1
            with suppress(WireError):  # the site's workers file it as a dead letter
                heard = wire.decode(REPLICAS, record.key, record.value, record.headers, self._site)
                fact = heard.message
                if isinstance(fact, m.FilesHeld | m.FilesLost) and not fact.endpoint:
                    word = m.word_of(fact, heard.origin) if isinstance(fact, m.FilesHeld) else ""
                    yield LogPosition(self._site, *record[:3]), fact, word

    def _load(self, lfns: Sequence[str]) -> None:
        missing = [lfn for lfn in dict.fromkeys(lfns) if lfn not in self._changed]
        if missing:
            found = self._db.get([_FILE + lfn.encode() for lfn in missing])
            self._changed.update((lfn, _unpack(lfn, row)) for lfn, row in zip(missing, found, strict=True))

    def _write(self) -> None:
        changed: dict[bytes, bytes | None] = {}
        for lfn, lines in self._changed.items():
            if lines:
                is_held = any(one.words for one in lines.values())
                text = "\n".join(_packed(one) for one in lines.values())
                changed[_FILE + lfn.encode()] = ((_HELD if is_held else _GONE) + text).encode()
        rows.write(self._db, changed)
        self._changed.clear()


def names_of(fact: m.FilesHeld | m.FilesLost) -> tuple[Lfn, ...]:
    return fact.lfns if isinstance(fact, m.FilesLost) else tuple(file.lfn for file in fact.files)


def _packed(one: AuditedReplica) -> str:
    _, dataset, block, size, adler32, manifest, partition, offset, words, taken, lost = one
    told = f"{dataset}\t{block}\t{size}\t{adler32}\t{manifest}\t{partition}\t{offset}\t"
    return f"{told}{_AND.join(words)}\t{_AND.join(taken)}\t{_AND.join(lost)}"


def _unpack(lfn: str, row: bytes | None) -> dict[str, AuditedReplica]:
    found: dict[str, AuditedReplica] = {}
    for line in row[1:].decode().split("\n") if row else ():
        dataset, block, size, adler32, manifest, partition, offset, words, taken, lost = line.split("\t")
        said = _each(words), _each(taken), _each(lost)
        found[dataset] = AuditedReplica(
            lfn, dataset, block, int(size), adler32, manifest, int(partition), int(offset), *said
        )
    return found


def _each(joined: str) -> tuple[str, ...]:
    return tuple(joined.split(_AND)) if joined else ()
