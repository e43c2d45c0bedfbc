"""Chains of keeping, folded by core/keeping into rows part by part, in one batch with the offsets behind their steps.

    c DATASET \\0 SITE \\0 !            head: state, last number and digest, dispute
    c DATASET \\0 SITE \\0 c CLAIM      a live claim;  a NO  an open ask;  p NO  a promise given;  d NO  a digest
    q DATASET \\0 SITE                  empty: the chain has open asks
    g DATASET \\0 SITE \\0 LFN \\0 ENDPOINT          the removal that counted and has not ended
    e DATASET \\0 SITE \\0 LFN \\0 ENDPOINT \\0 SHA  a removal that has ended, whether or not it counted yet

A step changes few parts; a chain may have thousands. Steps of a chain stand in one partition, in order; the end of a
removal stands in another topic, so it may be heard first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from streams.core.keeping import words
from streams.core.keeping.chains import (
    ChainRow,
    ChainState,
    CountedRemoval,
    Dispute,
    FoldedStep,
    GivenPromise,
    OpenAsk,
    StepHeard,
    fold,
)
from streams.core.keeping.gates import FileHere, OtherDataset, PlacedFile
from streams.core.keeping.words import ReplicaRow
from streams.core.names import Adler32, Block, Dataset, Lfn, Site
from streams.core.records import FilesLost, KeepingStep, LeavingFile, NotedClaim
from streams.views import rows
from streams.wire import avro

CHAIN, ASKING, GOING, ENDED = b"c", b"q", b"g", b"e"
_HEAD, _CLAIM, _ASK, _PROMISE, _DIGEST = b"!", b"c", b"a", b"p", b"d"
_KNOWN_MAX = 8
"""Chains kept as rows of memory from one batch to the next; a full one is some 10 MB."""

T = TypeVar("T")
ChainId = tuple[Site, Dataset]


@dataclass(frozen=True, slots=True)
class _Head:
    state: ChainState
    no: int
    sha256: str
    dispute: Dispute | None


def chain_key(dataset: str, site: str) -> bytes:
    return CHAIN + f"{dataset}\0{site}\0".encode()


def place_key(prefix: bytes, dataset: str, site: str, lfn: str, endpoint: str) -> bytes:
    return prefix + f"{dataset}\0{site}\0{lfn}\0{endpoint}".encode()


class Chains:
    """What the rows say. Safe to share between threads; as old as the last batch."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def chain(self, site: Site, dataset: Dataset) -> ChainRow:
        return read_chain(self._db, site, dataset)

    def chains(self, dataset: Dataset) -> dict[Site, ChainRow]:
        """Of each site that ever said something of the dataset."""
        prefix = CHAIN + f"{dataset}\0".encode()
        sites = (key.split(b"\0")[1].decode() for key, _ in rows.scan(self._db, prefix) if key.endswith(b"\0" + _HEAD))
        return {site: self.chain(site, dataset) for site in map(Site, list(sites))}

    def ids(self, behind: ChainId | None = None) -> Iterator[ChainId]:
        """Every chain, by dataset and site."""
        start = b"" if behind is None else chain_key(behind[1], behind[0]) + b"\xff"
        for key, _ in rows.scan(self._db, CHAIN, start):
            dataset, site, part = key[1:].split(b"\0", 2)
            if part == _HEAD:
                yield Site(site.decode()), Dataset(dataset.decode())

    def going(self, site: Site, dataset: Dataset) -> Iterator[CountedRemoval]:
        """Removals that counted and have not ended, by LFN."""
        for _, row in rows.scan(self._db, GOING + f"{dataset}\0{site}\0".encode()):
            yield _unpack(CountedRemoval, row)

    def asking(self) -> Iterator[ChainId]:
        """Chains with open asks, by dataset and site."""
        for key, _ in rows.scan(self._db, ASKING):
            dataset, site = key[1:].decode().split("\0")
            yield Site(site), Dataset(dataset)

    def file(self, site: Site, block: Block, leaving: LeavingFile, endpoint: str, found: PlacedFile | None) -> FileHere:
        """A file of a site as the catalogue has it now, beside what its plane found.

        What the catalogue has not is as in the ask.
        """
        lfn, dataset = leaving.lfn, str(block.dataset)
        replica, others = words.NEVER_HELD, list[OtherDataset]()
        size, adler32 = leaving.bytes, leaving.adler32
        for e in rows.unpack_file(self._db.get(rows.file_key(lfn))):
            if (e.site, e.endpoint) != (site, endpoint):
                continue
            going = self.going_at(site, Dataset(e.dataset), lfn, endpoint)
            known = ReplicaRow(frozenset((*e.words, *e.taken)), frozenset(e.taken), going)
            if e.dataset == dataset:
                replica, size, adler32 = known, e.bytes, Adler32(e.adler32)
            else:
                other = self.chain(site, Dataset(e.dataset))
                claim = other.covered.protecting(endpoint, Block(f"{e.dataset}#{e.block}"), lfn, None)
                others.append(OtherDataset(Dataset(e.dataset), known, claim.claim if claim else ""))
        return FileHere(lfn, block, endpoint, size, adler32, replica, found, tuple(others))

    def going_at(self, site: Site, dataset: Dataset, lfn: Lfn, endpoint: str) -> CountedRemoval | None:
        row = self._db.get(place_key(GOING, dataset, site, lfn, endpoint))
        return None if row is None else _unpack(CountedRemoval, row)


def read_chain(db: Any, site: Site, dataset: Dataset) -> ChainRow:
    """A chain that nothing is known of is empty."""
    prefix = chain_key(dataset, site)
    head = _Head(ChainState.EMPTY, 0, "", None)
    claims, asks, promises, digests = list[NotedClaim](), list[OpenAsk](), list[GivenPromise](), list[str]()
    for key, row in rows.scan(db, prefix):
        match key[len(prefix) : len(prefix) + 1]:
            case b"!":
                head = _unpack(_Head, row)
            case b"c":
                claims.append(_unpack(NotedClaim, row))
            case b"a":
                asks.append(_unpack(OpenAsk, row))
            case b"p":
                promises.append(_unpack(GivenPromise, row))
            case _:
                digests.append(row.decode())
    return ChainRow(
        site,
        dataset,
        head.state,
        head.no,
        head.sha256,
        tuple(digests),
        tuple(claims),
        tuple(asks),
        tuple(promises),
        head.dispute,
    )


class ChainChanges:
    """Steps and ends of removals applied in memory over a database; `rows` are what they change.

    `known`: chains as the database has them, which `written` brings up to date: what is in it is not read again.
    """

    def __init__(self, db: Any, known: dict[ChainId, ChainRow] | None = None) -> None:
        self._db, self._known = db, {} if known is None else known
        self._before: dict[ChainId, ChainRow] = {}
        self._after: dict[ChainId, ChainRow] = {}
        self._places: dict[bytes, bytes | None] = {}
        self.touched = 0
        """Removals, and files that ended one: what memory grows with."""

    def take(self, step: KeepingStep) -> StepHeard:
        """The next step of its chain. What it removes goes on until its FilesLost, which may be heard already."""
        name = step.site, step.dataset
        if name not in self._after:
            self._before[name] = self._known.get(name) or read_chain(self._db, *name)
            self._after[name] = self._before[name]
        folded: FoldedStep = fold(self._after[name], step)
        self._after[name] = folded.row
        self.touched += 1 + len(folded.removals)
        for removal in folded.removals:
            place = step.dataset, step.site, removal.lfn, removal.endpoint
            if self._get(_ended_key(*place, removal.sha256)) is None:
                self._places[place_key(GOING, *place)] = _pack(removal)
        return folded.heard

    def end(self, lost: FilesLost) -> None:
        """A FilesLost that ends a removal of its files."""
        self.touched += len(lost.lfns)
        for lfn in lost.lfns:
            place = lost.dataset, lost.site, lfn, lost.endpoint
            self._places[_ended_key(*place, lost.removal_sha256)] = b""
            going = self._get(place_key(GOING, *place))
            if going is not None and _unpack(CountedRemoval, going).sha256 == lost.removal_sha256:
                self._places[place_key(GOING, *place)] = None

    def _get(self, key: bytes) -> bytes | None:
        if key in self._places:
            return self._places[key]
        found: bytes | None = self._db.get(key)
        return found

    def rows(self) -> dict[bytes, bytes | None]:
        changed = dict(self._places)
        for name, after in self._after.items():
            changed |= _changed(self._before[name], after)
        return changed

    def written(self) -> None:
        """The rows are in the database."""
        if not self._after:
            return
        for name, after in self._after.items():
            self._known.pop(name, None)
            self._known[name] = after
        for name in list(self._known)[:-_KNOWN_MAX]:
            del self._known[name]


def _changed(before: ChainRow, after: ChainRow) -> dict[bytes, bytes | None]:
    """The rows that differ; None where one goes."""
    prefix = chain_key(after.dataset, after.site)
    was, is_ = _parts(before), _parts(after)
    changed: dict[bytes, bytes | None] = {prefix + part: None for part in was if part not in is_}
    changed |= {prefix + part: _pack(value) for part, value in is_.items() if was.get(part) != value}
    if bool(before.asks) != bool(after.asks):
        changed[ASKING + f"{after.dataset}\0{after.site}".encode()] = b"" if after.asks else None
    return changed


def _parts(row: ChainRow) -> dict[bytes, Any]:
    first = row.no - len(row.digests) + 1
    head = {} if row == ChainRow(row.site, row.dataset) else {_HEAD: _Head(row.state, row.no, row.sha256, row.dispute)}
    return {
        **head,
        **{_CLAIM + claim.claim.encode(): claim for claim in row.claims},
        **{_numbered(_ASK, ask.no): ask for ask in row.asks},
        **{_numbered(_PROMISE, given.no): given for given in row.promises},
        **{_numbered(_DIGEST, first + n): digest for n, digest in enumerate(row.digests)},
    }


def _numbered(part: bytes, no: int) -> bytes:
    return part + b"%016x" % no


def _ended_key(dataset: str, site: str, lfn: str, endpoint: str, sha256: str) -> bytes:
    return place_key(ENDED, dataset, site, lfn, endpoint) + b"\0" + sha256.encode()


def _pack(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    kind: Any = type(value)
    return json.dumps(avro.writer(kind)(value), separators=(",", ":")).encode()


def _unpack(kind: type[T], row: bytes) -> T:
    cls: Any = kind
    value: T = avro.reader(cls)(json.loads(row))
    return value
