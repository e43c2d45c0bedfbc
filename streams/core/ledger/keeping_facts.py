"""What records of keeping, and of replicas, say of a dataset: one small row each, brought together by dataset.

Rows say names of files and words as hashes; a second reading gives the names that findings tell. No verdicts here.
"""

from __future__ import annotations

import marshal
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

from streams.core import records as m
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.rows import DATASET_BYTES, KEEPING, PLACE_BYTES, REPLICA, Codec, Rows
from streams.core.names import Dataset, IntentId, Site
from streams.core.ranges import Ranges

_HEAD = struct.Struct(">BBIQqq")
_FORM = 2
_CACHED_MAX = 256
"""Rows of steps that are at hand while others are compared with them: at most 1,000 names of files each."""
_OF_STEP = 7
_NO_STEP: tuple[int, bytes, bytes, str, None, str, str] = (0, b"", b"", "", None, "", "")
NamedHash = tuple[str, int]
"""What a claim calls a file by: "dataset", "block" or "file", and the hash of the name."""


class Kind(IntEnum):
    """Which record it was. A row's number: never another meaning for one that was used."""

    CLAIMS = 1
    ASK = 2
    PROMISE = 3
    REMOVAL = 4
    SETTLED = 5
    END = 6
    """A FilesLost that says the end of a removal."""
    HELD = 7
    LOOK = 8


RECORDS: Mapping[Kind, str] = {
    Kind.CLAIMS: "ClaimDecided",
    Kind.ASK: "LeaveAsked",
    Kind.PROMISE: "KeepPromised",
    Kind.REMOVAL: "RemovalDecided",
    Kind.SETTLED: "ChainSettled",
    Kind.END: "FilesLost",
    Kind.HELD: "FilesHeld",
    Kind.LOOK: "ReplicasChecked",
}


OF_KEEPING = frozenset(
    (
        *(m.ClaimDecided, m.LeaveAsked, m.KeepPromised, m.RemovalDecided, m.ChainSettled, m.ReplicasChecked),
        *(m.FilesHeld, m.FilesLost),
    )
)
"""Classes of records that facts are made of; of a loss only where it ends a removal."""


class Claimed(NamedTuple):
    """A claim as a step notes it."""

    name: str
    endpoint: str
    names: tuple[NamedHash, ...]
    lands: bool
    intent: IntentId | None

    def protects_from(self, cause: IntentId | None) -> bool:
        """That of a move's source protects from all asks but those of its own intent."""
        return self.lands or self.intent is None or self.intent != cause


class Claims(NamedTuple):
    noted: tuple[Claimed, ...]
    ended: tuple[str, ...]


class Ask(NamedTuple):
    """`words`: of each file those known of it."""

    block: int
    endpoint: str
    files: array[int]
    words: tuple[array[int], ...]
    asked: tuple[Site, ...]
    not_before_ms: int
    copies: int

    def words_of(self) -> dict[int, array[int]]:
        return dict(zip(self.files, self.words, strict=True))


class Promise(NamedTuple):
    asker: Site
    ask_no: int
    ask_sha256: bytes
    files: array[int]


class Group(NamedTuple):
    """Files removed on the same promises: (site, number) each. `first`: the number of the first in the record."""

    first: int
    files: array[int]
    promises: tuple[tuple[Site, int], ...]
    endpoints: tuple[str, ...]


class Removal(NamedTuple):
    at_ms: int
    ask_no: int
    groups: tuple[Group, ...]
    kept: array[int]

    def files(self) -> Iterator[tuple[int, int]]:
        """Number and name of each file that it removes."""
        for group in self.groups:
            yield from enumerate(group.files, group.first)


class End(NamedTuple):
    """Of a removal: of each file the words that are taken back."""

    endpoint: str
    removal: bytes
    files: array[int]
    words: tuple[array[int], ...]


class Held(NamedTuple):
    """`blocks`: each with the numbers of its files. `landed`: a transfer brought them."""

    endpoint: str
    word: int
    landed: bool
    files: array[int]
    blocks: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]

    def block_of(self, number: int) -> int:
        return next(block for block, spans in self.blocks if any(a <= number < b for a, b in spans))


class Look(NamedTuple):
    """Files that a plane found, for who answers an ask, behind step `noted_no` of the own chain."""

    ask_sha256: bytes
    noted_no: int
    files: array[int]


Said = Look | Claims | Ask | Promise | Removal | End | Held | None


class KeepingFact(NamedTuple):
    """One record. `no` and what follows but `said`: of a step of a chain, else 0, empty, None.

    `is_first`: its number had not stood in its partition before. `by`, `reason`: as people said them.
    """

    kind: Kind
    is_first: bool
    place: LogPosition
    life: int
    seq: int
    at_ms: int
    logged_ms: int
    no: int
    sha256: bytes
    prev_sha256: bytes
    process: str
    cause: IntentId | None
    by: str
    reason: str
    said: Said

    @property
    def site(self) -> Site:
        """Whose word it is: of a copy the site whose topic it is."""
        origin, dot, _ = self.place.topic.partition(".")
        return Site(origin) if dot else self.place.site

    @property
    def is_original(self) -> bool:
        return "." not in self.place.topic


class KeepingFacts:
    """Facts in `rows`, by dataset. What is put again under its place is the same fact."""

    def __init__(self, rows: Rows, codec: Codec) -> None:
        self._rows, self._codec = rows, codec
        self.step_at: Callable[[Dataset, LogPosition], KeepingFact] = lru_cache(_CACHED_MAX)(self._step_at)
        """A step or an end, of a dataset, at its place."""

    def add(self, place: LogPosition, origin: m.Origin, message: m.Message, logged_ms: int, *, is_first: bool) -> bool:
        """Whether the record is one of these, and was put."""
        found = self._packed(message, origin)
        if found is None:
            return False
        kind, words = found
        dataset: str = message.dataset  # type: ignore[union-attr]
        head = _HEAD.pack(kind, is_first, self._codec.life(origin), origin.seq, origin.at_ms, logged_ms)
        prefix = REPLICA if kind is Kind.HELD else KEEPING
        key = prefix + self._codec.dataset(dataset) + self._codec.place(place)
        self._rows.put(key, head + marshal.dumps(words, _FORM))
        return True

    def datasets(self) -> Iterator[Dataset]:
        """Those of which anything of keeping was said."""
        end = len(KEEPING) + DATASET_BYTES
        for packed, _ in groupby(self._rows.scan(KEEPING), key=lambda row: row[0][len(KEEPING) : end]):
            yield self._codec.dataset_of(packed)

    def steps(self, dataset: Dataset) -> Iterator[KeepingFact]:
        """Steps of all its chains, looks, and ends of removals; those of a partition in its order."""
        return self._of(KEEPING, dataset)

    def held(self, dataset: Dataset) -> Iterator[KeepingFact]:
        """What was said to be held of it."""
        return self._of(REPLICA, dataset)

    def _of(self, kind: bytes, dataset: Dataset) -> Iterator[KeepingFact]:
        prefix = kind + self._codec.dataset(dataset)
        for key, row in self._rows.scan(prefix):
            yield self._fact(key[len(prefix) :], row)

    def _step_at(self, dataset: Dataset, place: LogPosition) -> KeepingFact:
        at = self._codec.place(place)
        ((_, row),) = self._rows.scan(KEEPING + self._codec.dataset(dataset) + at)
        return self._fact(at, row)

    # a record as a row, and back

    def _packed(self, message: m.Message, origin: m.Origin) -> tuple[Kind, tuple[Any, ...]] | None:
        names = self._names
        match message:
            case m.ClaimDecided():
                noted = tuple(
                    (
                        *(claim.claim, claim.endpoint),
                        tuple((s.kind.value, self._codec.file(s.name)) for s in claim.selectors),
                        *(claim.lands, _text(claim.intent)),
                    )
                    for claim in message.noted
                )
                return Kind.CLAIMS, (*_step(message), noted, message.ended)
            case m.LeaveAsked():
                return Kind.ASK, (
                    *(*_step(message), self._codec.file(message.block), message.endpoint),
                    names(file.lfn for file in message.files),
                    tuple(self._words(file.words) for file in message.files),
                    *(tuple(map(str, message.asked)), message.not_before_ms, message.copies),
                )
            case m.KeepPromised():
                ask = str(message.asker), message.ask_no, bytes.fromhex(message.ask_sha256)
                return Kind.PROMISE, (*_step(message), *ask, names(message.promised))
            case m.RemovalDecided():
                groups = tuple(
                    (names(group.lfns), tuple((str(one.site), one.no) for one in group.promises), group.endpoints)
                    for group in message.removed
                )
                kept = names(file.lfn for file in message.kept)
                return Kind.REMOVAL, (*_step(message), message.at_ms, message.ask_no, groups, kept)
            case m.ChainSettled():
                return Kind.SETTLED, _step(message)
            case m.ReplicasChecked():
                found = names(file.lfn for file in message.found)
                return Kind.LOOK, (bytes.fromhex(message.ask_sha256), message.noted_no, found)
            case m.FilesLost() if message.removal_sha256:
                taken = tuple(self._words(one.words) for one in message.taken)
                sha256 = bytes.fromhex(message.removal_sha256)
                return Kind.END, (message.endpoint, sha256, names(message.lfns), taken)
            case m.FilesHeld():
                blocks: dict[str, list[int]] = {}
                for number, file in enumerate(message.files):
                    blocks.setdefault(file.block, []).append(number)
                return Kind.HELD, (
                    *(message.endpoint, self._word(m.word_of(message, origin)), message.manifest is not None),
                    names(file.lfn for file in message.files),
                    tuple((self._codec.file(block), Ranges.of(*some).spans) for block, some in blocks.items()),
                )
        return None

    def _names(self, lfns: Iterable[str]) -> bytes:
        return array("Q", [self._codec.file(lfn) for lfn in lfns]).tobytes()

    def _words(self, words: Iterable[str]) -> bytes:
        return array("Q", [self._word(word) for word in words]).tobytes()

    def _word(self, word: str) -> int:
        return self._codec.content(word.encode())

    def _fact(self, place: bytes, row: bytes) -> KeepingFact:
        number, is_first, life, seq, at_ms, logged_ms = _HEAD.unpack_from(row)
        kind, told = Kind(number), marshal.loads(row[_HEAD.size :])
        of_chain = kind not in (Kind.END, Kind.HELD, Kind.LOOK)
        no, sha256, prev_sha256, process, cause, by, reason = told[:_OF_STEP] if of_chain else _NO_STEP
        said = _said(kind, told[_OF_STEP:] if of_chain else told)
        where = self._codec.place_of(place[:PLACE_BYTES])
        head = kind, bool(is_first), where, life, seq, at_ms, logged_ms
        served = None if cause is None else IntentId(cause)
        return KeepingFact(*head, no, sha256, prev_sha256, process, served, by, reason, said)


def _step(step: m.ChainStep) -> tuple[int, bytes, bytes, str, str | None, str, str]:
    sha256 = bytes.fromhex(m.step_sha256(step))  # type: ignore[arg-type]
    people = str(step.by), str(step.reason)
    return step.no, sha256, bytes.fromhex(step.prev_sha256), step.process, _text(step.cause), *people


def _text(name: str | None) -> str | None:
    return None if name is None else str(name)


def _said(kind: Kind, words: tuple[Any, ...]) -> Said:
    match kind:
        case Kind.CLAIMS:
            noted, ended = words
            return Claims(tuple(Claimed(*claim) for claim in noted), ended)
        case Kind.ASK:
            block, endpoint, files, known, asked, not_before_ms, copies = words
            return Ask(block, endpoint, _array(files), _arrays(known), asked, not_before_ms, copies)
        case Kind.PROMISE:
            asker, ask_no, ask_sha256, files = words
            return Promise(asker, ask_no, ask_sha256, _array(files))
        case Kind.REMOVAL:
            at_ms, ask_no, groups, kept = words
            return Removal(at_ms, ask_no, tuple(_groups(groups)), _array(kept))
        case Kind.END:
            endpoint, removal, files, taken = words
            return End(endpoint, removal, _array(files), _arrays(taken))
        case Kind.HELD:
            endpoint, word, landed, files, blocks = words
            return Held(endpoint, word, landed, _array(files), blocks)
        case Kind.LOOK:
            ask_sha256, noted_no, files = words
            return Look(ask_sha256, noted_no, _array(files))
        case Kind.SETTLED:
            return None


def _groups(groups: Iterable[tuple[bytes, tuple[tuple[str, int], ...], tuple[str, ...]]]) -> Iterator[Group]:
    first = 0
    for files, promises, endpoints in groups:
        group = Group(first, _array(files), tuple((Site(site), no) for site, no in promises), endpoints)
        yield group
        first += len(group.files)


def _array(packed: bytes) -> array[int]:
    return array("Q", packed)


def _arrays(packed: Iterable[bytes]) -> tuple[array[int], ...]:
    return tuple(map(_array, packed))
