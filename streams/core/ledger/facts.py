"""What records say of intents, manifests and transfers, as one small row each: all that a judge needs, and no more.

A row is made when its record is heard, and read back when its intent is judged. No verdicts; what facts amount to says
claims.py.
"""

from __future__ import annotations

import marshal
import struct
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from itertools import groupby
from typing import Any, NamedTuple

from streams.core import records as m
from streams.core.ledger.digests import sha256_of
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.rows import FACT, INTENT_BYTES, REMEMBERED, Codec, Rows
from streams.core.names import IntentId, Site
from streams.core.ranges import Ranges

_HEAD = struct.Struct(">BBIQQqq")
_ORIGINAL, _FIRST = 1, 2
_LOG, _TOOL, _URLS = "log", "tool-", "urls"
"""The carrier of which the log itself has the payload; what requests for tools begin with; what a source says of bytes
that others give."""
_FORM = 2
"""Of marshal: values alone, no references between them."""
_MASK = (1 << 64) - 1
NO_ADLER = -1

Spans = tuple[tuple[int, int], ...]
Told = tuple[Any, ...]


class Kind(IntEnum):
    """Which record it was. A row's number: never another meaning for one that was used."""

    INTENT = 1
    ASKED = 2
    DECIDED = 3
    MANIFEST = 4
    HELD = 5
    PLANNED = 6
    TRANSFER_DECIDED = 7
    OPENED = 8
    LOST = 9
    LAPSED = 10
    SOURCE_FAILED = 11
    CLOSED = 12
    REQUESTED = 13
    SERVED = 14
    PROGRESS = 15
    REPORTED = 16
    COMPLETION = 17
    REMOVED = 18
    ANSWERED = 19


class Way(IntEnum):
    """By what a source is asked."""

    DOOR = 0
    LOG = 1
    TOOL = 2


class Fact(NamedTuple):
    """`life`: number of its writer's incarnation. `is_first`: its number had not stood in its partition before.

    `words` begin with the numbers of the manifest's chain and of the manifest, the transfer's destination (None: it is
    of no transfer), the number of which the highest counts, and what else parts its row from others (classes.py).
    """

    kind: Kind
    is_original: bool
    is_first: bool
    place: LogPosition
    life: int
    seq: int
    content: int
    at_ms: int
    logged_ms: int
    words: Told


def _text(name: str | None) -> str | None:
    return None if name is None else str(name)


def _body(body: m.TransferIntent) -> Told:
    """What judges ask of a body, and a digest of all of it."""
    digest = sha256(repr(body).encode()).digest()[:16]
    leaving = m.leaving_sites(body)
    parts = len(m.parts_of(body)) if leaving else 0
    told = (digest, tuple(map(str, body.destinations)), body.deadline_ms, body.priority, body.open)
    return *told, body.verb is m.Verb.REMOVE, tuple(map(str, leaving)), parts


def _landed(landed: tuple[m.Landed, ...]) -> Told:
    return tuple([(one.item, one.bytes, int(one.adler32, 16)) for one in landed])


def _completion(done: m.CompletionRecord) -> Told:
    failed = tuple([(group.items.spans, _reason(group.reason)) for group in done.failed])
    told = (done.ended.value, done.items, done.sealed.spans, failed, done.cancelled.spans, done.bytes)
    return *told, done.manifest_sha256, _landed(done.landed), str(done.destination)


def _reason(reason: m.Reason) -> Told:
    return reason.scope.value, reason.failure_class.value, reason.phase, str(reason.text)


def _by_name(items: Iterable[tuple[int, str]]) -> Told:
    found: dict[str, list[int]] = {}
    for number, name in items:
        found.setdefault(name, []).append(number)
    return tuple([(str(name), _spans(numbers)) for name, numbers in found.items()])


def _spans(numbers: list[int]) -> Spans:
    """Of numbers that ascend; mostly they follow each other."""
    if not numbers:
        return ()
    first, stop = numbers[0], numbers[-1] + 1
    return ((first, stop),) if stop - first == len(numbers) else Ranges.of(*numbers).spans


def _manifest(said: m.ManifestWritten, _: Site, codec: Codec) -> Told:
    """Its head; of each item the hash of its target, its size and checksum; where another, its length and its LFN's.

    Then which items nobody holds, which each site holds first, or too, and which are of each dataset.
    """
    items = said.items
    sizes, lengths = array("Q", [i.bytes for i in items]), array("Q", [i.length for i in items])
    targets = array("Q", [codec.file(i.target) for i in items])
    adlers = array("q", [NO_ADLER if i.adler32 is None else int(i.adler32, 16) for i in items])
    is_whole = all(i.lfn == i.target for i in items)
    lfns = b"" if is_whole else array("Q", [codec.file(i.lfn) for i in items]).tobytes()
    return (
        *(said.source_no, said.no, None, 0, None),
        *(str(said.source), sha256_of(said), said.prev_sha256, said.last, said.unit is m.Unit.ENTRIES),
        *(targets.tobytes(), sizes.tobytes(), adlers.tobytes(), b"" if lengths == sizes else lengths.tobytes(), lfns),
        _spans([n for n, i in enumerate(items) if i.reason is not None]),
        _by_name([(n, i.holder) for n, i in enumerate(items) if i.holder is not None]),
        _by_name([(n, site) for n, i in enumerate(items) for site in i.others]),
        _by_name([(n, i.dataset) for n, i in enumerate(items)]),
    )


def _held(said: m.FilesHeld, _: Site, codec: Codec) -> Told:
    names = array("Q", [codec.file(f.lfn) for f in said.files]).tobytes()
    sizes = array("Q", [f.bytes for f in said.files]).tobytes()
    adlers = array("q", [int(f.adler32, 16) for f in said.files]).tobytes()
    assert said.manifest is not None
    return _of(said.manifest, said.site, 0, str(said.dataset), names, sizes, adlers)


def _way(plane: str) -> int:
    """Known by the carriers' words; of a tool's request what begins it."""
    if plane == _LOG:
        return Way.LOG.value
    return Way.TOOL.value if plane.startswith(_TOOL) else Way.DOOR.value


@lru_cache(REMEMBERED)
def _parts(manifest: str) -> tuple[str, int, int]:
    """Its intent, the number of its chain and its own."""
    intent, source_no, no = manifest.rsplit(".", 2)
    return intent, int(source_no), int(no)


def _of(manifest: str, destination: str, number: int, row: object, *more: object) -> Told:
    _, source_no, no = _parts(manifest)
    return source_no, no, str(destination), number, row, *more


_Pack = Callable[[Any, Site, Codec], Told]
_PACKED: Mapping[type, tuple[Kind, _Pack]] = {
    m.TransferIntent: (Kind.INTENT, lambda t, at, _: (0, 0, None, 0, None, _body(t), str(t.requester))),
    m.IntentAsked: (
        Kind.ASKED,
        lambda t, at, _: (0, 0, None, 0, None, t.asked.value, t.priority, str(t.asked_by), _text(t.site)),
    ),
    m.SiteAnswered: (
        Kind.ANSWERED,
        lambda t, at, _: (0, 0, None, t.answer_no, str(t.site), t.answer.value, str(t.by), str(t.reason)),
    ),
    m.IntentDecided: (
        Kind.DECIDED,
        lambda t, at, _: (
            *(0, 0, None, t.decision_no, None),
            *(t.verdict.value, _text(t.source), t.source_no, t.priority, _body(t.body)),
        ),
    ),
    m.ManifestWritten: (Kind.MANIFEST, _manifest),
    m.FilesHeld: (Kind.HELD, _held),
    m.TransferPlanned: (Kind.PLANNED, lambda t, at, _: _of(t.manifest, t.destination, t.decision_no, None)),
    m.TransferDecided: (Kind.TRANSFER_DECIDED, lambda t, at, _: _of(t.manifest, at, t.decision_no, None)),
    m.PartOpened: (
        Kind.OPENED,
        lambda t, at, _: _of(t.manifest, at, t.attempt, None, t.present.spans, _landed(t.landed)),
    ),
    m.PartLost: (Kind.LOST, lambda t, at, _: _of(t.manifest, at, t.attempt, None)),
    m.LeaseExpired: (Kind.LAPSED, lambda t, at, _: _of(t.manifest, at, t.request_no, str(t.source))),
    m.SourceFailed: (Kind.SOURCE_FAILED, lambda t, at, _: _of(t.manifest, at, 0, None)),
    m.TransferClosed: (
        Kind.CLOSED,
        lambda t, at, _: _of(t.manifest, at, 0, t.acknowledged, _completion(t.completion) if t.acknowledged else None),
    ),
    m.ChunksRequested: (
        Kind.REQUESTED,
        lambda t, at, _: _of(t.manifest, t.destination, t.request_no, str(t.source), _way(t.plane), t.ranges.spans),
    ),
    m.ChunksServed: (
        Kind.SERVED,
        lambda t, at, _: _of(
            *(t.manifest, t.destination, t.request_no, str(t.source), t.ranges.spans), *([True] * (t.plane == _URLS))
        ),
    ),
    m.TransferProgress: (
        Kind.PROGRESS,
        lambda t, at, _: _of(
            *(t.manifest, t.destination, t.attempt, str(t.destination)),
            *(t.verified.spans, t.sealed.spans, _landed(t.landed), t.adopted.spans),
        ),
    ),
    m.TransferReported: (
        Kind.REPORTED,
        lambda t, at, _: _of(t.manifest, t.destination, t.decision_no, str(t.destination), str(t.waits_for)),
    ),
    m.CompletionRecord: (
        Kind.COMPLETION,
        lambda t, at, _: _of(t.manifest, t.destination, 0, None, _completion(t)),
    ),
    m.RemovalReported: (
        Kind.REMOVED,
        lambda t, at, _: (
            *(0, t.part, str(t.site), 0, str(t.site)),
            *(t.removed, t.removed_bytes, t.kept, t.open, t.last, str(t.waits_for)),
        ),
    ),
}
NAMES: Mapping[Kind, str] = {kind: cls.__name__ for cls, (kind, _) in _PACKED.items()}
"""What each record is called."""
WORDS_AT = 5
"""Where a fact's words begin that are of its kind alone."""


def is_by_url(served: Told) -> bool:
    """Of the words of a SERVED, whether the source only said where others give it."""
    return len(served) > WORDS_AT + 1


def _of_intent(message: Any) -> str:
    return message.intent  # type: ignore[no-any-return]


def _of_manifest(message: Any) -> str | None:
    """None of a registration: that is of no intent."""
    return None if message.manifest is None else _parts(message.manifest)[0]


_OF_CLASS: Mapping[type, tuple[Kind, Callable[[Any], str | None], _Pack]] = {
    cls: (kind, _of_intent if "intent" in {f.name for f in fields(cls)} else _of_manifest, pack)
    for cls, (kind, pack) in {**_PACKED, m.PlanOutline: _PACKED[m.TransferPlanned]}.items()
}
"""Of each class its kind, its intent and its words. Of a plan nothing is kept that its outline does not say."""


class Facts:
    """Facts of intents in `rows`. What is put again under its place is the same fact."""

    def __init__(self, rows: Rows, codec: Codec) -> None:
        self._rows, self._codec = rows, codec

    def add(
        self,
        place: LogPosition,
        origin: m.Origin,
        message: m.Message | m.PlanOutline,
        content: int,
        logged_ms: int,
        *,
        is_original: bool,
        is_first: bool,
    ) -> tuple[bytes, Told] | None:
        """Its intent, as rows have it, and its words; None, and nothing put, for a record of no intent."""
        packed = _OF_CLASS.get(type(message))
        if packed is None:
            return None
        kind, of, pack = packed
        intent = of(message)
        if intent is None:
            return None
        words = pack(message, origin.site, self._codec)
        flags = _ORIGINAL * is_original | _FIRST * is_first
        life = self._codec.life(origin)
        head = _HEAD.pack(kind, flags, life, origin.seq, content & _MASK, origin.at_ms, logged_ms)
        named = self._codec.intent(intent)
        self._rows.put(FACT + named + self._codec.place(place), head + marshal.dumps(words, _FORM))
        return named, words

    def all(self, kinds: Collection[Kind] = frozenset(Kind)) -> Iterator[tuple[bytes, IntentId, list[Fact]]]:
        """Each intent, as rows have it too, and its facts, those of a partition in its order; of some `kinds` only."""
        end = len(FACT) + INTENT_BYTES
        for packed, rows in groupby(self._rows.scan(FACT), key=lambda row: row[0][len(FACT) : end]):
            facts = [self._fact(key[end:], row) for key, row in rows if row[0] in kinds]
            yield packed, self._codec.intent_of(packed), facts

    def of(self, intent: str) -> list[Fact]:
        """Of one intent; none where nothing was said of it."""
        packed = self._codec.known_intent(intent)
        return [] if packed is None else self.of_packed(packed)[2]

    def was_asked(self, intent: str) -> bool:
        """Whether anybody published its body."""
        packed = self._codec.known_intent(intent)
        return packed is not None and any(row[0] == Kind.INTENT for _, row in self._rows.scan(FACT + packed))

    def of_packed(self, packed: bytes) -> tuple[bytes, IntentId, list[Fact]]:
        """The same, of an intent as rows have it."""
        prefix = FACT + packed
        facts = [self._fact(key[len(prefix) :], row) for key, row in self._rows.scan(prefix)]
        return packed, self._codec.intent_of(packed), facts

    def _fact(self, place: bytes, row: bytes) -> Fact:
        kind, flags, life, seq, content, at_ms, logged_ms = _HEAD.unpack_from(row)
        words = marshal.loads(row[_HEAD.size :])
        return Fact(
            *(Kind(kind), bool(flags & _ORIGINAL), bool(flags & _FIRST), self._codec.place_of(place)),
            *(life, seq, content, at_ms, logged_ms, words),
        )
