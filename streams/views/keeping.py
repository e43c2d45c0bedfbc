"""Chains of keeping, folded by core/keeping into rows part by part, in one batch with the offsets behind their steps.

    c DATASET \\0 SITE \\0 !            head: state, last number and digest, dispute
    c DATASET \\0 SITE \\0 c CLAIM      a live claim;  a NO  an open ask;  p NO  a promise given;  d NO  a digest
    n DATASET \\0 SITE \\0 ENDPOINT \\0 KIND \\0 NAME \\0 CLAIM     empty: what a live claim covers
    l SITE \\0 ENDPOINT \\0 LFN \\0 DATASET \\0 CLAIM            empty: who claims a file by its name
    r INTENT \\0 SITE \\0 DATASET           how far a removal has come: files and bytes gone, kept, and going
    v INTENT \\0 SITE \\0 DATASET \\0 LFN    a file that an ask of it kept: its bytes and why
    i INTENT \\0 SITE \\0 DATASET \\0 CLAIM                      empty: the live claims of an intent
    q DATASET \\0 SITE                  empty: the chain has open asks
    g DATASET \\0 SITE \\0 LFN \\0 ENDPOINT          the removal that counted and has not ended
    w DATASET \\0 SITE \\0 NO SHA \\0 LFN \\0 ENDPOINT   empty: the same by the step that removes
    e DATASET \\0 SITE \\0 LFN \\0 ENDPOINT \\0 SHA  a removal that has ended, whether or not it counted yet

A step changes few parts; a chain may have thousands, most of them claims, which are read one by one. Steps of a chain
stand in one partition, in order; the end of a removal stands in another topic, so it may be heard first.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from streams.core.keeping import words
from streams.core.keeping.chains import (
    ChainRow,
    ChainState,
    Claims,
    CountedRemoval,
    Dispute,
    FoldedStep,
    GivenPromise,
    OpenAsk,
    StepHeard,
    before_step,
    fold,
)
from streams.core.keeping.gates import FileHere, OtherDataset, PlacedFile
from streams.core.keeping.words import ReplicaRow
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site
from streams.core.records import FilesLost, KeepingStep, LeavingFile, NotedClaim, RemovalDecided
from streams.core.records.keeping import names_of
from streams.core.selectors import Kind
from streams.views import rows
from streams.wire import avro

CHAIN, ASKING, GOING, OF_STEP, ENDED, COVERED, NAMED, OF_INTENT = b"c", b"q", b"g", b"w", b"e", b"n", b"l", b"i"
PROGRESS, KEPT = b"r", b"v"
_HEAD, _CLAIM, _ASK, _PROMISE, _DIGEST = b"!", b"c", b"a", b"p", b"d"
_KNOWN_MAX = 8
"""Chains kept as rows of memory, by who folds and by who reads, without their claims; a full one is some 10 MB."""

T = TypeVar("T")
ChainId = tuple[Site, Dataset]


@dataclass(frozen=True, slots=True)
class _Head:
    state: ChainState
    no: int
    sha256: str
    dispute: Dispute | None
    acted_no: int = 0


_NO_STEP = _Head(ChainState.EMPTY, 0, "", None)


def chain_key(dataset: str, site: str) -> bytes:
    return CHAIN + f"{dataset}\0{site}\0".encode()


def place_key(prefix: bytes, dataset: str, site: str, lfn: str, endpoint: str) -> bytes:
    return prefix + f"{dataset}\0{site}\0{lfn}\0{endpoint}".encode()


def step_key(dataset: str, site: str, no: int, sha256: str, lfn: str = "", endpoint: str = "") -> bytes:
    """Without a name: what all of the step begin with."""
    return OF_STEP + f"{dataset}\0{site}\0{no:016x}{sha256}\0".encode() + (f"{lfn}\0{endpoint}" if lfn else "").encode()


def covered_key(dataset: str, site: str, endpoint: str, kind: str, name: str, claim: str = "") -> bytes:
    return COVERED + f"{dataset}\0{site}\0{endpoint}\0{kind}\0{name}\0{claim}".encode()


def named_key(site: str, endpoint: str, lfn: str, dataset: str = "", claim: str = "") -> bytes:
    return NAMED + "\0".join((site, endpoint, lfn, dataset, claim) if claim else (site, endpoint, lfn, "")).encode()


def intent_key(intent: str, site: str = "", dataset: str = "", claim: str = "") -> bytes:
    """With none of the last three: what all of the intent begin with."""
    return OF_INTENT + "\0".join((intent, *(part for part in (site, dataset, claim) if part))).encode()


def removal_key(prefix: bytes, intent: str, site: str, dataset: str = "", lfn: str = "") -> bytes:
    return prefix + "\0".join(part for part in (intent, site, dataset, lfn) if part).encode()


class Removed(NamedTuple):
    """How far an intent's removal has come at a site in a dataset: files gone, kept by asks, and going."""

    files: int = 0
    bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    going: int = 0
    going_bytes: int = 0


class StoredClaims:
    """The live claims of a chain as the rows have them, and what a batch changes of them."""

    def __init__(self, db: Any, site: str, dataset: str, changed: dict[str, NotedClaim | None] | None = None) -> None:
        """`changed`: by name, None where a claim ends."""
        self._db, self._site, self._dataset, self.changed = db, site, dataset, changed or {}

    def __iter__(self) -> Iterator[NotedClaim]:
        prefix = chain_key(self._dataset, self._site) + _CLAIM
        stored = {key[len(prefix) :].decode(): _unpack(NotedClaim, row) for key, row in rows.scan(self._db, prefix)}
        live = {**stored, **self.changed}
        return (claim for _, claim in sorted(live.items()) if claim is not None)

    def __eq__(self, other: object) -> bool:
        """Whether the same claims are live; reads all of them."""
        return isinstance(other, Iterable) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def named(self, claim: str) -> NotedClaim | None:
        return self.changed[claim] if claim in self.changed else self.stored(claim)

    def stored(self, claim: str) -> NotedClaim | None:
        """Before the batch."""
        row = self._db.get(chain_key(self._dataset, self._site) + _CLAIM + claim.encode())
        return None if row is None else _unpack(NotedClaim, row)

    def protecting(self, endpoint: str, block: Block, lfn: Lfn, cause: IntentId | None) -> NotedClaim | None:
        for claim in self.changed.values():
            if claim is not None and claim.covers(endpoint, block, lfn) and claim.protects_from(cause):
                return claim
        for kind, name in names_of(block, lfn):
            prefix = covered_key(self._dataset, self._site, endpoint, kind, name)
            for key, _ in rows.scan(self._db, prefix):
                claim = self.named(key[len(prefix) :].decode())
                if claim is not None and claim.protects_from(cause):
                    return claim
        return None

    def after(self, noted: Iterable[NotedClaim], ended: Collection[str]) -> StoredClaims:
        changed = dict(self.changed)
        for name in ended:
            if self.named(name) is not None:
                changed[name] = None
        for claim in noted:
            if changed.get(claim.claim, self.stored(claim.claim)) is None:
                changed[claim.claim] = claim
        return StoredClaims(self._db, self._site, self._dataset, changed)

    def rows(self) -> dict[bytes, bytes | None]:
        """Those that the batch changes; None where one goes."""
        found: dict[bytes, bytes | None] = {}
        for name, claim in self.changed.items():
            before = self.stored(name)
            if before is not None:
                found |= dict.fromkeys(self._index(before))
            found[chain_key(self._dataset, self._site) + _CLAIM + name.encode()] = None
            if claim is not None:
                found[chain_key(self._dataset, self._site) + _CLAIM + name.encode()] = _pack(claim)
                found |= dict.fromkeys(self._index(claim), b"")
        return found

    def _index(self, claim: NotedClaim) -> Iterator[bytes]:
        for selector in claim.selectors:
            if selector.kind is Kind.FILE:
                yield named_key(self._site, claim.endpoint, selector.name, self._dataset, claim.claim)
            place = (self._dataset, self._site, claim.endpoint, selector.kind, selector.name)
            yield covered_key(*place, claim.claim)
        if claim.intent is not None:
            yield intent_key(claim.intent, self._site, self._dataset, claim.claim)


class Chains:
    """What the rows say. Safe to share between threads; as old as the last batch."""

    def __init__(self, db: Any) -> None:
        self._db = db
        self._known: OrderedDict[ChainId, tuple[bytes | None, ChainRow]] = OrderedDict()
        """By the head that they were read behind: each step that counts changes it."""
        self._lock = Lock()

    def chain(self, site: Site, dataset: Dataset) -> ChainRow:
        name, head_key = (site, dataset), chain_key(dataset, site) + _HEAD
        with self._lock:
            head, row = self._known.get(name, (b"", None))
        now = self._db.get(head_key)
        while row is None or now != head:
            head = now
            row = read_chain(self._db, site, dataset)
            now = self._db.get(head_key)
        with self._lock:
            self._known[name] = head, row
            self._known.move_to_end(name)
            while len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        return row

    def claims(self, site: Site, dataset: Dataset) -> Claims:
        """The live ones, of which each question reads few rows."""
        return StoredClaims(self._db, site, dataset)

    def claims_of(self, intent: IntentId, site: Site) -> Iterator[tuple[Dataset, str]]:
        """The live claims of an intent at a site, by dataset and name."""
        for key, _ in rows.scan(self._db, intent_key(intent, site) + b"\0"):
            _, _, dataset, claim = key.decode().split("\0")
            yield Dataset(dataset), claim

    def chains(self, dataset: Dataset) -> dict[Site, ChainRow]:
        """Of each site that ever said something of the dataset."""
        prefix = CHAIN + f"{dataset}\0".encode()
        return {site: self.chain(site, dataset) for site, _ in list(self._ids(prefix, prefix))}

    def ids(self, behind: ChainId | None = None) -> Iterator[ChainId]:
        """Every chain, by dataset and site."""
        return self._ids(CHAIN, b"" if behind is None else chain_key(behind[1], behind[0]) + b"\xff")

    def _ids(self, prefix: bytes, start: bytes) -> Iterator[ChainId]:
        """The rest of a chain is passed over: it may have thousands of claims."""
        while (found := next(rows.scan(self._db, prefix, start), None)) is not None:
            dataset, site, _ = found[0][1:].split(b"\0", 2)
            yield Site(site.decode()), Dataset(dataset.decode())
            start = CHAIN + dataset + b"\0" + site + b"\0\xff"

    def going_steps(self, site: Site, dataset: Dataset) -> Iterator[tuple[int, str]]:
        """Steps, by number and digest, of which some removals that counted have not ended."""
        prefix = OF_STEP + f"{dataset}\0{site}\0".encode()
        start = prefix
        while (found := next(rows.scan(self._db, prefix, start), None)) is not None:
            step = found[0][len(prefix) :].split(b"\0", 1)[0]
            yield int(step[:16], 16), step[16:].decode()
            start = prefix + step + b"\0\xff"

    def going(self, site: Site, dataset: Dataset, step: tuple[int, str]) -> tuple[CountedRemoval, ...]:
        """Those of a step that have not ended, by LFN."""
        prefix = step_key(dataset, site, *step)
        places = [key[len(prefix) :].decode().split("\0") for key, _ in rows.scan(self._db, prefix)]
        keys = [place_key(GOING, dataset, site, *place) for place in places]
        found = self._db.get(keys) if keys else []
        return tuple(_unpack(CountedRemoval, row) for row in found if row is not None)

    def claiming(self, site: Site) -> Iterator[IntentId]:
        """Intents with live claims at a site."""
        start = OF_INTENT
        while (found := next(rows.scan(self._db, OF_INTENT, start), None)) is not None:
            intent, of, *_ = found[0][1:].decode().split("\0")
            if of == site:
                yield IntentId(intent)
            start = OF_INTENT + f"{intent}\0{of}\0".encode() + b"\xff"

    def removed(self, intent: IntentId, site: Site) -> Iterator[tuple[Dataset, Removed]]:
        """How far a removal has come, by dataset."""
        for key, row in rows.scan(self._db, removal_key(PROGRESS, intent, site) + b"\0"):
            yield Dataset(key.split(b"\0")[2].decode()), Removed(*json.loads(row))

    def kept(self, intent: IntentId, site: Site, dataset: Dataset) -> Iterator[tuple[Lfn, int, str]]:
        """Files that asks of a removal kept: name, bytes, why."""
        prefix = removal_key(KEPT, intent, site, dataset) + b"\0"
        for key, row in rows.scan(self._db, prefix):
            size, why = json.loads(row)
            yield Lfn(key[len(prefix) :].decode()), size, why

    def are_kept(self, intent: IntentId, site: Site, dataset: Dataset, lfns: Sequence[Lfn]) -> list[bool]:
        found = self._db.get([removal_key(KEPT, intent, site, dataset, lfn) for lfn in lfns]) if lfns else []
        return [row is not None for row in found]

    def leaving(self, site: Site) -> Iterator[Dataset]:
        """Datasets in which removals of a site go on."""
        start = GOING
        while (found := next(rows.scan(self._db, GOING, start), None)) is not None:
            dataset, of, *_ = found[0][1:].decode().split("\0")
            if of == site:
                yield Dataset(dataset)
            start = GOING + f"{dataset}\0{of}\0".encode() + b"\xff"

    def asking(self) -> Iterator[ChainId]:
        """Chains with open asks, by dataset and site."""
        for key, _ in rows.scan(self._db, ASKING):
            dataset, site = key[1:].decode().split("\0")
            yield Site(site), Dataset(dataset)

    def file(self, site: Site, block: Block, leaving: LeavingFile, endpoint: str, found: PlacedFile | None) -> FileHere:
        """A file of a site as the catalogue has it now, beside what its plane found, with claims in other datasets.

        What the catalogue has not is as in the ask.
        """
        row = self._db.get(rows.file_key(leaving.lfn))
        entries = rows.unpack_file(row)
        file = self._file(site, endpoint, entries, leaving.lfn, block, leaving.bytes, leaving.adler32)
        # Another site's word too says of which datasets a file is; who brings it before that is heard claims its name.
        of = dict.fromkeys(self._claimed_in(site, endpoint, leaving.lfn), block)
        of |= {Dataset(e.dataset): Block(f"{e.dataset}#{e.block}") for e in entries}
        others = {other.dataset: other for other in file.others}
        for dataset, its_block in of.items():
            if dataset == block.dataset:
                continue
            claim = self.claims(site, Dataset(dataset)).protecting(endpoint, its_block, leaving.lfn, None)
            if claim is not None:
                replica = others[dataset].replica if dataset in others else words.NEVER_HELD
                others[Dataset(dataset)] = OtherDataset(Dataset(dataset), replica, claim.claim)
        return replace(file, found=found, others=tuple(others[name] for name in sorted(others)))

    def files(
        self, site: Site, endpoint: str, named: Sequence[tuple[Lfn, Block, int, Adler32 | None]]
    ) -> list[FileHere]:
        """Files at an endpoint of a site as the catalogue has them now, without other datasets' claims.

        What it has not is as it is `named`.
        """
        stored = self._db.get([rows.file_key(lfn) for lfn, *_ in named]) if named else []
        return [self._file(site, endpoint, rows.unpack_file(row), *one) for one, row in zip(named, stored, strict=True)]

    def _file(
        self,
        site: Site,
        endpoint: str,
        entries: Sequence[rows.Entry],
        lfn: Lfn,
        block: Block,
        size: int,
        adler32: Adler32 | None,
    ) -> FileHere:
        replica, others, owner = words.NEVER_HELD, list[OtherDataset](), ""
        for e in entries:
            if (e.site, e.endpoint) != (site, endpoint):
                continue
            going = self.going_at(site, Dataset(e.dataset), lfn, endpoint)
            row = ReplicaRow(frozenset((*e.words, *e.taken)), frozenset(e.taken), going)
            if e.dataset == block.dataset:
                replica, size, adler32, owner = row, e.bytes, Adler32(e.adler32), e.owner
            else:
                others.append(OtherDataset(Dataset(e.dataset), row))
        known = any(e.dataset == block.dataset for e in entries)
        return FileHere(lfn, block, endpoint, size, adler32, replica, None, tuple(others), known, owner)

    def _claimed_in(self, site: Site, endpoint: str, lfn: Lfn) -> Iterator[Dataset]:
        """Datasets in whose chain of the site a file is claimed by its name."""
        for key, _ in rows.scan(self._db, named_key(site, endpoint, lfn)):
            yield Dataset(key.split(b"\0")[3].decode())

    def going_at(self, site: Site, dataset: Dataset, lfn: Lfn, endpoint: str) -> CountedRemoval | None:
        row = self._db.get(place_key(GOING, dataset, site, lfn, endpoint))
        return None if row is None else _unpack(CountedRemoval, row)


def read_chain(db: Any, site: Site, dataset: Dataset) -> ChainRow:
    """A chain that nothing is known of is empty."""
    prefix = chain_key(dataset, site)
    head = _NO_STEP
    asks, promises, digests = list[OpenAsk](), list[GivenPromise](), list[str]()
    if (row := db.get(prefix + _HEAD)) is not None:
        head = _unpack(_Head, row)
        asks = [_unpack(OpenAsk, row) for _, row in rows.scan(db, prefix + _ASK)]
        promises = [_unpack(GivenPromise, row) for _, row in rows.scan(db, prefix + _PROMISE)]
        digests = [row.decode() for _, row in rows.scan(db, prefix + _DIGEST)]
    return ChainRow(
        site,
        dataset,
        head.state,
        head.no,
        head.sha256,
        tuple(digests),
        head.acted_no,
        StoredClaims(db, site, dataset),
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
        """Other rows than those of chains."""
        self.touched = 0
        """Removals, and files that ended one: what memory grows with."""

    def take(self, step: KeepingStep) -> StepHeard:
        """The next step of its chain. What it removes goes on until its FilesLost, which may be heard already."""
        name = step.site, step.dataset
        if name not in self._after:
            self._before[name] = self._known.get(name) or read_chain(self._db, *name)
            self._after[name] = self._before[name]
        before = self._after[name]
        folded: FoldedStep = fold(before, step)
        self._after[name] = folded.row
        self.touched += 1 + len(folded.removals)
        for removal in folded.removals:
            place = step.dataset, step.site, removal.lfn, removal.endpoint
            if self._get(_ended_key(*place, removal.sha256)) is None:
                self._goes(step.site, step.dataset, removal)
            else:
                self._count_removed(step.site, step.dataset, removal)
        ask = before_step(before, step).ask(step.ask_no) if isinstance(step, RemovalDecided) else None
        if folded.heard is StepHeard.COUNTS and isinstance(step, RemovalDecided) and ask is not None:
            self._count_kept(step, ask)
        return folded.heard

    def _goes(self, site: Site, dataset: Dataset, removal: CountedRemoval) -> None:
        key = place_key(GOING, dataset, site, removal.lfn, removal.endpoint)
        if (row := self._get(key)) is not None:
            self._goes_no_more(site, dataset, _unpack(CountedRemoval, row))
        self._places[key] = _pack(removal)
        self._places[_going_key(dataset, site, removal)] = b""
        if removal.cause is not None:
            self._add(removal.cause, site, dataset, Removed(going=1, going_bytes=removal.bytes))

    def _goes_no_more(self, site: Site, dataset: Dataset, removal: CountedRemoval) -> None:
        self._places[place_key(GOING, dataset, site, removal.lfn, removal.endpoint)] = None
        self._places[_going_key(dataset, site, removal)] = None
        if removal.cause is not None:
            self._add(removal.cause, site, dataset, Removed(going=-1, going_bytes=-removal.bytes))

    def _count_kept(self, step: RemovalDecided, ask: OpenAsk) -> None:
        if ask.cause is None:
            return
        for kept in step.kept:
            file = ask.by_lfn.get(kept.lfn)
            if file is None:
                continue
            key = removal_key(KEPT, ask.cause, step.site, step.dataset, kept.lfn)
            if self._get(key) is None:
                self._add(ask.cause, step.site, step.dataset, Removed(0, 0, 1, file.bytes))
            self._places[key] = json.dumps([file.bytes, kept.reason]).encode()

    def _count_removed(self, site: Site, dataset: Dataset, removal: CountedRemoval) -> None:
        if removal.cause is None:
            return
        key = removal_key(KEPT, removal.cause, site, dataset, removal.lfn)
        was_kept = self._get(key) is not None
        more = Removed(1, removal.bytes, -1 if was_kept else 0, -removal.bytes if was_kept else 0)
        self._add(removal.cause, site, dataset, more)
        if was_kept:
            self._places[key] = None

    def _add(self, intent: IntentId, site: Site, dataset: Dataset, more: Removed) -> None:
        key = removal_key(PROGRESS, intent, site, dataset)
        row = self._get(key)
        before = Removed() if row is None else Removed(*json.loads(row))
        self._places[key] = json.dumps([a + b for a, b in zip(before, more, strict=True)]).encode()

    def end(self, lost: FilesLost) -> None:
        """A FilesLost that ends a removal of its files."""
        self.touched += len(lost.lfns)
        for lfn in lost.lfns:
            place = lost.dataset, lost.site, lfn, lost.endpoint
            self._places[_ended_key(*place, lost.removal_sha256)] = b""
            row = self._get(place_key(GOING, *place))
            going = None if row is None else _unpack(CountedRemoval, row)
            if going is not None and going.sha256 == lost.removal_sha256:
                self._goes_no_more(lost.site, lost.dataset, going)
                self._count_removed(lost.site, lost.dataset, going)

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
            self._known[name] = replace(after, claims=StoredClaims(self._db, *name))
        for name in list(self._known)[:-_KNOWN_MAX]:
            del self._known[name]


def _changed(before: ChainRow, after: ChainRow) -> dict[bytes, bytes | None]:
    """The rows that differ; None where one goes."""
    prefix = chain_key(after.dataset, after.site)
    was, is_ = _parts(before), _parts(after)
    changed: dict[bytes, bytes | None] = {prefix + part: None for part in was if part not in is_}
    changed |= {prefix + part: _pack(value) for part, value in is_.items() if was.get(part) != value}
    assert isinstance(after.claims, StoredClaims)
    changed |= after.claims.rows()
    if bool(before.asks) != bool(after.asks):
        changed[ASKING + f"{after.dataset}\0{after.site}".encode()] = b"" if after.asks else None
    return changed


def _parts(row: ChainRow) -> dict[bytes, Any]:
    first = row.no - len(row.digests) + 1
    head = _Head(row.state, row.no, row.sha256, row.dispute, row.acted_no)
    return {
        **({} if head == _NO_STEP else {_HEAD: head}),
        **{_numbered(_ASK, ask.no): ask for ask in row.asks},
        **{_numbered(_PROMISE, given.no): given for given in row.promises},
        **{_numbered(_DIGEST, first + n): digest for n, digest in enumerate(row.digests)},
    }


def _numbered(part: bytes, no: int) -> bytes:
    return part + b"%016x" % no


def _going_key(dataset: str, site: str, removal: CountedRemoval) -> bytes:
    return step_key(dataset, site, removal.no, removal.sha256, removal.lfn, removal.endpoint)


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
