"""Replicas of one site by the last word of its journal, in a database of a moment; memory stays bounded.

Registered or brought is the same here: the last FilesHeld or FilesLost of each (dataset, LFN) counts. A site's word on
a file of a dataset stands in one partition, in order.
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


class AuditedReplicas:
    """Rows by LFN, one line per dataset; `heard` is the next offset of each partition that was read."""

    def __init__(self, db: Any, settings: Settings, site: Site) -> None:
        self._db, self._settings, self._site = db, settings, site
        self._changed: dict[str, dict[str, AuditedReplica]] = {}
        self.heard: dict[Partition, int] = {}

    def fold(self) -> None:
        """Read the journal as it stands now. Temporary, NotFound as of a replay."""
        for place, fact in self._facts({}):
            names = names_of(fact)
            self._load(names)
            for lfn in names:
                self._changed[lfn].pop(fact.dataset, None)
            if isinstance(fact, m.FilesHeld):
                for f in fact.files:
                    self._changed[f.lfn][fact.dataset] = AuditedReplica(
                        f.lfn, fact.dataset, f.block, f.bytes, f.adler32, fact.manifest or "", *place[2:]
                    )
            if len(self._changed) >= _FILES_MAX:
                self._write()
        self._write()

    def since(self) -> Iterator[m.FilesHeld | m.FilesLost]:
        """What has been written since `fold` read the journal. Nothing is folded."""
        for _, fact in self._facts(self.heard):
            yield fact

    def all(self) -> Iterator[AuditedReplica]:
        """Every replica held, by LFN."""
        for key, row in rows.scan(self._db, _FILE):
            yield from _unpack(key[len(_FILE) :].decode(), row).values()

    def of(self, lfn: str) -> dict[str, AuditedReplica]:
        return _unpack(lfn, self._db.get(_FILE + lfn.encode()))

    def held(self, lfns: Sequence[str]) -> list[bool]:
        return [row is not None for row in self._db.get([_FILE + lfn.encode() for lfn in lfns])]

    def _facts(self, start: Mapping[Partition, int]) -> Iterator[tuple[LogPosition, m.FilesHeld | m.FilesLost]]:
        # A partition that nothing was heard of is read from its beginning.
        for record in replay(self._settings, self._site, [REPLICAS], start=dict(start)):
            self.heard[record.topic, record.partition] = record.offset + 1
            with suppress(WireError):  # the site's workers file it as a dead letter
                fact = wire.decode(REPLICAS, record.key, record.value, record.headers, self._site).message
                if isinstance(fact, m.FilesHeld | m.FilesLost):
                    yield LogPosition(self._site, *record[:3]), fact

    def _load(self, lfns: Sequence[str]) -> None:
        missing = [lfn for lfn in dict.fromkeys(lfns) if lfn not in self._changed]
        if missing:
            found = self._db.get([_FILE + lfn.encode() for lfn in missing])
            self._changed.update((lfn, _unpack(lfn, row)) for lfn, row in zip(missing, found, strict=True))

    def _write(self) -> None:
        changed: dict[bytes, bytes | None] = {}
        for lfn, lines in self._changed.items():
            text = "\n".join("\t".join(map(str, replica[1:])) for replica in lines.values())
            changed[_FILE + lfn.encode()] = text.encode() if lines else None
        rows.write(self._db, changed)
        self._changed.clear()


def names_of(fact: m.FilesHeld | m.FilesLost) -> tuple[Lfn, ...]:
    return fact.lfns if isinstance(fact, m.FilesLost) else tuple(file.lfn for file in fact.files)


def _unpack(lfn: str, row: bytes | None) -> dict[str, AuditedReplica]:
    found: dict[str, AuditedReplica] = {}
    for line in row.decode().split("\n") if row else ():
        dataset, block, size, adler32, manifest, partition, offset = line.split("\t")
        found[dataset] = AuditedReplica(lfn, dataset, block, int(size), adler32, manifest, int(partition), int(offset))
    return found
