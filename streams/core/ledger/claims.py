"""Rows of the audit: what was said of each intent, manifest and transfer, whoever said it, in any order. No verdicts.

A row keeps every *different* word on one matter (few: one, unless something is wrong) with the place that proves it,
and for a manifest's items 24 bytes each, so that a million files fit beside each other.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from streams.core import records as m
from streams.core.ledger.findings import LogPosition
from streams.core.names import Destination, IntentId, ManifestId, Site
from streams.core.ranges import EMPTY, Ranges

Digest = Callable[[m.ManifestWritten], str]
"""sha256 (hex) of a manifest's meaning; given from outside, since the ledger imports none of what it judges."""

T = TypeVar("T")
VARIANTS_MAX = 8
"""Different words kept on one matter; more of them prove nothing more."""
HELD_MAX = 1000
"""FilesHeld of one transfer: one per dataset, so at most one per item."""
_MASK = (1 << 64) - 1
_NO_ADLER = -1


@dataclass(slots=True)
class Claim(Generic[T]):
    """One word on a matter, a hash of its bytes, and the best place that proves it."""

    content: int
    word: T
    place: LogPosition
    at_ms: int


class Words(Generic[T]):
    """The different words said on one matter, by content; each keeps its lowest-ranking place.

    Nearly always there is one: a list of one is a third of a dict of one.
    """

    __slots__ = ("_meant", "_most", "_said")

    def __init__(self, most: int = VARIANTS_MAX) -> None:
        self._said: list[Claim[T]] = []
        self._most = most
        self._meant: Claim[T] | None = None

    def add(self, content: int, place: LogPosition, at_ms: int, word: Callable[[], T]) -> None:
        for said in self._said:
            if said.content == content:
                if place.rank < said.place.rank:
                    said.place, said.at_ms = place, at_ms
                return
        if len(self._said) < self._most:
            self._said.append(Claim(content, word(), place, at_ms))

    def shared(self, word: T) -> T:
        return next((said.word for said in self._said if said.word == word), word)

    def __bool__(self) -> bool:
        return bool(self._said)

    @property
    def ranked(self) -> list[Claim[T]]:
        """The first one is the one that counts: of those in one partition the earliest that may."""
        return sorted(self._said, key=lambda said: (said is not self._meant, said.place.rank))

    @property
    def first(self) -> Claim[T] | None:
        return self._meant or min(self._said, key=lambda said: said.place.rank, default=None)

    def count_only(self, may: Callable[[T], bool]) -> None:
        """Of these words only those count that `may`; where none does, nothing changes."""
        self._meant = next((said for said in self.ranked if may(said.word)), None)


@dataclass(frozen=True, slots=True)
class Files:
    """Names (as 64-bit hashes), sizes and checksums of a record's files, in its order."""

    names: array[int]
    bytes: array[int]
    adlers: array[int]

    @classmethod
    def of_items(cls, items: tuple[m.Item, ...]) -> Files:
        return cls(
            array("Q", [name_hash(i.target) for i in items]),
            array("Q", [i.bytes for i in items]),
            array("q", [_NO_ADLER if i.adler32 is None else int(i.adler32, 16) for i in items]),
        )

    @classmethod
    def of_held(cls, files: tuple[m.HeldFile, ...]) -> Files:
        return cls(
            array("Q", [name_hash(f.lfn) for f in files]),
            array("Q", [f.bytes for f in files]),
            array("q", [int(f.adler32, 16) for f in files]),
        )

    def landed(self, landed: tuple[m.Landed, ...]) -> Files:
        """These, with the sizes and checksums of what became of them; of entries no manifest can know those."""
        if not landed:
            return self
        found = Files(self.names, self.bytes[:], self.adlers[:])
        for one in landed:
            if one.item < len(found.names):
                found.bytes[one.item], found.adlers[one.item] = one.bytes, int(one.adler32, 16)
        return found

    def differ(self, mine: int, other: Files, theirs: int) -> str:
        """How file `mine` differs from `other`'s file `theirs`, in words; "" if it does not."""
        if self.bytes[mine] != other.bytes[theirs]:
            return f"{self.bytes[mine]} bytes, not {other.bytes[theirs]}"
        a, b = self.adlers[mine], other.adlers[theirs]
        return f"adler32 {a:08x}, not {b:08x}" if a != b and _NO_ADLER not in (a, b) else ""


def name_hash(name: str) -> int:
    return hash(str(name)) & _MASK


@dataclass(frozen=True, slots=True)
class ManifestClaim:
    """What the audit keeps of a ManifestWritten. `lacking`: items with a reason, which can never arrive."""

    source: Site
    sha256: str
    prev_sha256: str
    last: bool
    files: Files
    lacking: Ranges
    in_entries: bool = False

    @property
    def items(self) -> int:
        return len(self.files.names)

    def bytes_of(self, items: Ranges) -> int:
        """Sum of the sizes of `items`, those past the end left out."""
        return sum(sum(self.files.bytes[start:stop]) for start, stop in items)


@dataclass(frozen=True, slots=True)
class DecisionClaim:
    """What the audit keeps of an IntentDecided."""

    verdict: m.Verdict
    source: Site | None
    source_no: int
    body: m.TransferIntent


@dataclass(frozen=True, slots=True)
class LastHeard:
    """The record of an intent that came last: when its log took it (ms of the epoch), where it stands, its kind."""

    logged_ms: int
    place: LogPosition
    kind: str

    def later(self, other: LastHeard | None) -> bool:
        """Of two of one moment the original is meant, and of two originals the first by place: in any reading order."""
        if other is None or self.logged_ms != other.logged_ms:
            return other is None or self.logged_ms > other.logged_ms
        return self.place.rank < other.place.rank


@dataclass(frozen=True, slots=True)
class ReportClaim:
    """What a transfer waits for, in its destination's last words, and where they stand in the log."""

    order: tuple[int, int]
    waits_for: str


@dataclass(slots=True)
class TransferClaims:
    """A manifest at one destination. `evidence`: items that planes said are sealed or present."""

    completions: Words[m.CompletionRecord] = field(default_factory=Words)
    closed: Words[m.CompletionRecord] = field(default_factory=Words)
    held: Words[Files] = field(default_factory=lambda: Words(HELD_MAX))
    planned: LogPosition | None = None
    evidence: Ranges = EMPTY
    report: ReportClaim | None = None


@dataclass(slots=True)
class ManifestClaims:
    written: Words[ManifestClaim] = field(default_factory=Words)
    transfers: defaultdict[Destination, TransferClaims] = field(default_factory=lambda: defaultdict(TransferClaims))


@dataclass(slots=True)
class IntentClaims:
    bodies: Words[m.TransferIntent] = field(default_factory=Words)
    decisions: dict[int, Words[DecisionClaim]] = field(default_factory=dict)
    """By decision_no."""
    manifests: dict[tuple[int, int], ManifestClaims] = field(default_factory=dict)
    """By (source_no, no)."""
    heard: LastHeard | None = None

    @property
    def decision(self) -> Claim[DecisionClaim] | None:
        return self.decisions[max(self.decisions)].first if self.decisions else None


class Claims:
    def __init__(self, digest: Digest) -> None:
        self.intents: defaultdict[IntentId, IntentClaims] = defaultdict(IntentClaims)
        self._manifests: dict[ManifestId, ManifestClaims] = {}
        self._digest = digest

    def manifest(self, manifest: ManifestId) -> ManifestClaims:
        found = self._manifests.get(manifest)
        if found is None:
            found = self._manifests[manifest] = ManifestClaims()
            self.intents[manifest.intent].manifests[manifest.source_no, manifest.no] = found
        return found

    def known(self, manifest: ManifestId) -> ManifestClaims | None:
        """The manifest's row, if anything was said of it."""
        return self._manifests.get(manifest)

    def fold(self, place: LogPosition, origin: m.Origin, message: m.Message, content: int, logged_ms: int) -> None:
        """Enter a fact; the same fact again, from another copy or number, changes nothing but its best proof.

        `logged_ms`: when its log took it.
        """
        at_ms = origin.at_ms
        if (intent := _intent_of(message)) is not None:
            heard, asked = LastHeard(logged_ms, place, type(message).__name__), self.intents[intent]
            if heard.later(asked.heard):
                asked.heard = heard
        match message:
            case m.TransferReported():
                row = self.manifest(message.manifest).transfers[message.destination]
                report = ReportClaim((logged_ms, place.offset), message.waits_for)
                if row.report is None or row.report.order <= report.order:
                    row.report = report
            case m.TransferProgress():
                row = self.manifest(message.manifest).transfers[message.destination]
                row.evidence = row.evidence | message.sealed
            case m.PartOpened():
                row = self.manifest(message.manifest).transfers[origin.site]
                row.evidence = row.evidence | message.present
            case m.TransferIntent():
                self.intents[message.intent].bodies.add(content, place, at_ms, lambda: message)
            case m.IntentDecided():
                asked = self.intents[message.intent]
                said = asked.decisions.setdefault(message.decision_no, Words())
                said.add(content, place, at_ms, lambda: _decided(message, asked.bodies))
            case m.ManifestWritten():
                self.manifest(message.manifest).written.add(content, place, at_ms, lambda: self._written(message))
            case m.TransferPlanned():
                row = self.manifest(message.manifest).transfers[message.destination]
                if row.planned is None or place.rank < row.planned.rank:
                    row.planned = place
            case m.TransferClosed() if message.acknowledged:
                row = self.manifest(message.manifest).transfers[origin.site]
                row.closed.add(content, place, at_ms, lambda: row.completions.shared(message.completion))
            case m.CompletionRecord():
                row = self.manifest(message.manifest).transfers[message.destination]
                row.completions.add(content, place, at_ms, lambda: row.closed.shared(message))
            case m.FilesHeld() if message.manifest is not None:
                row = self.manifest(message.manifest).transfers[message.site]
                row.held.add(content, place, at_ms, lambda: Files.of_held(message.files))
            case _:
                pass

    def _written(self, message: m.ManifestWritten) -> ManifestClaim:
        return ManifestClaim(
            message.source,
            self._digest(message),
            message.prev_sha256,
            message.last,
            Files.of_items(message.items),
            Ranges.of(*(n for n, item in enumerate(message.items) if item.reason is not None)),
            message.unit is m.Unit.ENTRIES,
        )


def _intent_of(message: m.Message) -> IntentId | None:
    """The intent that a fact is about; None for facts about sites and refusals."""
    intent = getattr(message, "intent", None)
    if intent is None and (manifest := getattr(message, "manifest", None)) is not None:
        intent = manifest.intent
    return intent


def _decided(message: m.IntentDecided, bodies: Words[m.TransferIntent]) -> DecisionClaim:
    return DecisionClaim(message.verdict, message.source, message.source_no, bodies.shared(message.body))
