"""Replicas of one site by the words of its journal, in a database of a moment; memory stays bounded.

A fold of its own, apart from the catalogue's that it judges: each FilesHeld says a word of its own, a loss takes back
the words that it names, or all that were said before it where it names none. A file is held while some word stands;
a word that is said again after it was taken back stays taken back. What a file is was said last. A site's words on a
file of a dataset stand in one partition, in order.
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
_FILES_MAX = 4000
"""Rows changed in memory before they are written."""
_PART = "\x1e"
"""Between words, which are printable."""


class AuditedReplica(NamedTuple):
    """A file of a dataset that its site holds; `manifest` of the transfer that brought it, "" of a registration."""

    lfn: str
    dataset: str
    block: str
    bytes: int
    adler32: str
    manifest: str
    partition: int
    offset: int


class _Told(NamedTuple):
    """What a site said of a file of a dataset at an endpoint. `words`: those that stand; `taken`: taken back."""

    replica: AuditedReplica
    words: frozenset[str]
    taken: frozenset[str]


_Place = tuple[str, str]
"""Dataset and endpoint."""


class AuditedReplicas:
    """Rows by LFN, one line per dataset and endpoint; `heard`: the next offset of each partition that was read."""

    def __init__(self, db: Any, settings: Settings, site: Site) -> None:
        self._db, self._settings, self._site = db, settings, site
        self._changed: dict[str, dict[_Place, _Told]] = {}
        self.heard: dict[Partition, int] = {}

    def fold(self) -> None:
        """Read the journal as it stands now. Temporary, NotFound as of a replay."""
        for place, heard in self._facts({}):
            fact = heard.message
            if isinstance(fact, m.FilesHeld):
                self._load(names_of(fact))
                self._hold(place, fact, m.word_of(fact, heard.origin))
            elif isinstance(fact, m.FilesLost):
                self._load(names_of(fact))
                self._lose(fact)
            if len(self._changed) >= _FILES_MAX:
                self._write()
        self._write()

    def _hold(self, place: LogPosition, fact: m.FilesHeld, word: str) -> None:
        key = fact.dataset, fact.endpoint
        for f in fact.files:
            replica = AuditedReplica(f.lfn, fact.dataset, f.block, f.bytes, f.adler32, fact.manifest or "", *place[2:])
            before = self._changed[f.lfn].get(key, _Told(replica, frozenset(), frozenset()))
            self._changed[f.lfn][key] = _Told(replica, before.words | {word} - before.taken, before.taken)

    def _lose(self, fact: m.FilesLost) -> None:
        key = fact.dataset, fact.endpoint
        for n, lfn in enumerate(fact.lfns):
            before = self._changed[lfn].get(key)
            if before is None:
                continue
            if not fact.taken:  # of before words were named
                self._changed[lfn][key] = before._replace(words=frozenset())
                continue
            taken = before.taken.union(fact.taken[n].words)
            self._changed[lfn][key] = before._replace(words=before.words - taken, taken=taken)

    def since(self) -> Iterator[m.FilesHeld | m.FilesLost]:
        """What has been written since `fold` read the journal. Nothing is folded."""
        for _, heard in self._facts(self.heard):
            if isinstance(heard.message, m.FilesHeld | m.FilesLost):
                yield heard.message

    def all(self) -> Iterator[AuditedReplica]:
        """Every replica held, by LFN."""
        for key, row in rows.scan(self._db, _FILE):
            yield from _held(_unpack(key[len(_FILE) :].decode(), row)).values()

    def of(self, lfn: str) -> dict[str, AuditedReplica]:
        """By dataset, those that are held."""
        return _held(_unpack(lfn, self._db.get(_FILE + lfn.encode())))

    def held(self, lfns: Sequence[str]) -> list[bool]:
        found = self._db.get([_FILE + lfn.encode() for lfn in lfns])
        return [bool(_held(_unpack(lfn, row))) for lfn, row in zip(lfns, found, strict=True)]

    def _facts(self, start: Mapping[Partition, int]) -> Iterator[tuple[LogPosition, wire.Heard]]:
        # A partition that nothing was heard of is read from its beginning.
        for record in replay(self._settings, self._site, [REPLICAS], start=dict(start)):
            self.heard[record.topic, record.partition] = record.offset + 1
            with suppress(WireError):  # the site's workers file it as a dead letter
                heard = wire.decode_once(REPLICAS, record.key, record.value, record.headers, self._site)
                yield LogPosition(self._site, *record[:3]), heard

    def _load(self, lfns: Sequence[str]) -> None:
        missing = [lfn for lfn in dict.fromkeys(lfns) if lfn not in self._changed]
        if missing:
            found = self._db.get([_FILE + lfn.encode() for lfn in missing])
            self._changed.update((lfn, _unpack(lfn, row)) for lfn, row in zip(missing, found, strict=True))

    def _write(self) -> None:
        changed: dict[bytes, bytes | None] = {}
        for lfn, told in self._changed.items():
            lines = [_line(endpoint, one) for (_, endpoint), one in told.items() if one.words or one.taken]
            changed[_FILE + lfn.encode()] = "\n".join(lines).encode() if lines else None
        rows.write(self._db, changed)
        self._changed.clear()


def names_of(fact: m.FilesHeld | m.FilesLost) -> tuple[Lfn, ...]:
    return fact.lfns if isinstance(fact, m.FilesLost) else tuple(file.lfn for file in fact.files)


def _held(told: Mapping[_Place, _Told]) -> dict[str, AuditedReplica]:
    """By dataset, what some word says is there."""
    return {dataset: one.replica for (dataset, _), one in told.items() if one.words}


def _line(endpoint: str, told: _Told) -> str:
    words, taken = (_PART.join(sorted(some)) for some in (told.words, told.taken))
    return "\t".join((endpoint, words, taken, *map(str, told.replica[1:])))


def _unpack(lfn: str, row: bytes | None) -> dict[_Place, _Told]:
    found: dict[_Place, _Told] = {}
    for line in row.decode().split("\n") if row else ():
        endpoint, words, taken, dataset, block, size, adler32, manifest, partition, offset = line.split("\t")
        replica = AuditedReplica(lfn, dataset, block, int(size), adler32, manifest, int(partition), int(offset))
        found[dataset, endpoint] = _Told(replica, _parted(words), _parted(taken))
    return found


def _parted(text: str) -> frozenset[str]:
    return frozenset(text.split(_PART)) if text else frozenset()
