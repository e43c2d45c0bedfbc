"""Rows of the audit: what was said of each intent, manifest and transfer, whoever said it, in any order. No verdicts.

A row keeps every *different* word on one matter (few: one, unless something is wrong) with the place that proves it,
and for a manifest's items 24 bytes each, so that a million files fit beside each other.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Generic, NamedTuple, TypeVar, get_args

from streams.core import records as m
from streams.core.ledger.digests import sha256_of
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.traces import SiteNumbers, Step, Trace
from streams.core.names import Destination, IntentId, ManifestId, Site
from streams.core.ranges import EMPTY, Ranges

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

    Nearly always there is one, and often none: a tuple of one is a fifth of a dict of one, and one of none is nothing.
    """

    __slots__ = ("_meant", "_most", "_said")

    def __init__(self, most: int = VARIANTS_MAX) -> None:
        self._said: tuple[Claim[T], ...] = ()
        self._most = most
        self._meant: Claim[T] | None = None

    def add(self, content: int, place: LogPosition, at_ms: int, word: Callable[[], T]) -> None:
        for said in self._said:
            if said.content == content:
                if place.rank < said.place.rank:
                    said.place, said.at_ms = place, at_ms
                return
        if len(self._said) < self._most:
            self._said = (*self._said, Claim(content, word(), place, at_ms))

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
    """What the audit keeps of a ManifestWritten. `lacking`: items with a reason, which can never arrive.

    `files`: what lands. `lengths`: of the items on the manifest's line. `lfns`: names of what is read, as hashes.
    `holders`: who holds which items first, `others`: who else.
    """

    source: Site
    sha256: str
    prev_sha256: str
    last: bool
    files: Files
    lacking: Ranges
    in_entries: bool = False
    lengths: array[int] = field(default_factory=lambda: array("Q"))
    lfns: array[int] = field(default_factory=lambda: array("Q"))
    holders: tuple[tuple[Site, Ranges], ...] = ()
    others: tuple[tuple[Site, Ranges], ...] = ()

    @property
    def items(self) -> int:
        return len(self.files.names)

    @property
    def starts(self) -> list[int]:
        """Where each item begins on the line, and where the line ends."""
        return list(accumulate(self.lengths, initial=0))

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
    priority: int = 5


class LastHeard(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class LandedWord:
    """What a plane said of the files that items became, as far as no record said it before: three numbers an item."""

    place: LogPosition
    items: array[int]
    """Item, bytes, adler32."""


@dataclass(slots=True)
class TransferClaims:
    """A manifest at one destination. `evidence`: items that planes said are sealed or present.

    Of what follows `report` all is of originals only. `present`: items that planes found there; `verified`: positions
    that they told of; `attempts`: those opened; `told`: those of which anything was told. `adopted`: what need
    not have come, being there from before; `adopted_first`: the same of an attempt with none before it.
    """

    completions: Words[m.CompletionRecord] = field(default_factory=Words)
    closed: Words[m.CompletionRecord] = field(default_factory=Words)
    held: Words[Files] = field(default_factory=lambda: Words(HELD_MAX))
    planned: LogPosition | None = None
    heard: LastHeard | None = None
    evidence: Ranges = EMPTY
    report: ReportClaim | None = None
    present: Ranges = EMPTY
    verified: Ranges = EMPTY
    sealed: Ranges = EMPTY
    attempts: Ranges = EMPTY
    told: Ranges = EMPTY
    adopted: Ranges = EMPTY
    adopted_first: Ranges = EMPTY
    trace: Trace | None = None
    landed: list[LandedWord] | None = None

    def traced(self) -> Trace:
        if self.trace is None:
            self.trace = Trace()
        return self.trace


@dataclass(slots=True)
class ManifestClaims:
    """`of`: its intent's row."""

    of: IntentClaims
    written: Words[ManifestClaim] = field(default_factory=Words)
    transfers: defaultdict[Destination, TransferClaims] = field(default_factory=lambda: defaultdict(TransferClaims))


@dataclass(frozen=True, slots=True)
class Asking:
    """The last IntentAsked of its kind in its partition, of originals only. `priority`: where that is asked for."""

    place: LogPosition
    at_ms: int
    priority: int | None = None


@dataclass(slots=True)
class Askings:
    """What somebody asked of an intent later."""

    cancel: Asking | None = None
    close: Asking | None = None
    priority: Asking | None = None
    priorities: set[int] = field(default_factory=set)
    """All that were asked for, in copies too."""
    kinds: set[m.Asked] = field(default_factory=set)
    """What was asked for, in copies too."""

    def add(self, message: m.IntentAsked, place: LogPosition, at_ms: int, is_original: bool) -> None:
        self.kinds.add(message.asked)
        if message.priority is not None:
            self.priorities.add(message.priority)
        if not is_original:
            return
        asking = Asking(place, at_ms, message.priority)
        match message.asked:
            case m.Asked.CANCEL:
                self.cancel = self.cancel or asking
            case m.Asked.CLOSE:
                self.close = self.close or asking
            case m.Asked.PRIORITY:
                self.priority = asking


@dataclass(slots=True)
class IntentClaims:
    bodies: Words[m.TransferIntent] = field(default_factory=Words)
    decisions: dict[int, Words[DecisionClaim]] = field(default_factory=dict)
    """By decision_no."""
    manifests: dict[tuple[int, int], ManifestClaims] = field(default_factory=dict)
    """By (source_no, no)."""
    heard: LastHeard | None = None
    askings: Askings | None = None

    @property
    def decision(self) -> Claim[DecisionClaim] | None:
        return self.decisions[max(self.decisions)].first if self.decisions else None

    def open_transfers(self) -> Iterator[tuple[int, int, Destination, TransferClaims | None]]:
        """(source_no, no, destination) of the decided chain without a last word; None: nothing was said of it."""
        if self.decision is None:
            return
        decided = self.decision.word
        for (source_no, no), manifest in sorted(self.manifests.items()):
            for destination in decided.body.destinations if source_no == decided.source_no else ():
                transfer = manifest.transfers.get(destination)
                if transfer is None or not transfer.completions:
                    yield source_no, no, destination, transfer

    @property
    def is_listed(self) -> bool:
        """Whether the last manifest of the decided chain is written."""
        decision = self.decision
        return decision is not None and any(
            said.word.last
            for (source_no, _), manifest in self.manifests.items()
            if source_no == decision.word.source_no and (said := manifest.written.first) is not None
        )


class Claims:
    def __init__(self) -> None:
        self.intents: defaultdict[IntentId, IntentClaims] = defaultdict(IntentClaims)
        self.sites = SiteNumbers()
        self._manifests: dict[ManifestId, ManifestClaims] = {}

    def manifest(self, manifest: ManifestId) -> ManifestClaims:
        found = self._manifests.get(manifest)
        if found is None:
            intent = self.intents[manifest.intent]
            found = self._manifests[manifest] = ManifestClaims(intent)
            intent.manifests[manifest.source_no, manifest.no] = found
        return found

    def known(self, manifest: ManifestId) -> ManifestClaims | None:
        """The manifest's row, if anything was said of it."""
        return self._manifests.get(manifest)

    def seals_of(self, site: Site) -> Counter[int]:
        """How many transfers say of each name (a hash) that it is sealed or was found at the site."""
        found: Counter[int] = Counter()
        for row in self._manifests.values():
            written = row.written.first
            if written is None or (transfer := row.transfers.get(site)) is None:
                continue
            names = written.word.files.names
            for start, stop in transfer.evidence:
                found.update(names[start:stop])
        return found

    def fold(
        self,
        place: LogPosition,
        origin: m.Origin,
        message: m.Message,
        content: int,
        logged_ms: int,
        is_original: bool,
    ) -> None:
        """Enter a fact; the same fact again, from another copy or number, changes nothing but its best proof.

        `logged_ms`: when its log took it. `is_original`: it stands where it was written.
        """
        kind, at_ms = type(message), origin.at_ms
        if kind in _OF_TRANSFER:
            told: _OfTransfer = message  # type: ignore[assignment]
            manifest = self.manifest(told.manifest)
            row = manifest.transfers[getattr(told, "destination", None) or origin.site]
            heard = LastHeard(logged_ms, place, kind.__name__)
            if heard.later(row.heard):
                row.heard = heard
            if heard.later(manifest.of.heard):
                manifest.of.heard = heard
            self._of_transfer(row, place, told, content, logged_ms, at_ms)
            if is_original:
                self._trace(row, place, origin, told)
            return
        intent = _intent_of(message)
        if intent is None:
            return
        heard, asked = LastHeard(logged_ms, place, kind.__name__), self.intents[intent]
        if heard.later(asked.heard):
            asked.heard = heard
        match message:
            case m.IntentAsked():
                asked.askings = asked.askings or Askings()
                asked.askings.add(message, place, at_ms, is_original)
            case m.TransferIntent():
                asked.bodies.add(content, place, at_ms, lambda: message)
            case m.IntentDecided():
                said = asked.decisions.setdefault(message.decision_no, Words())
                said.add(content, place, at_ms, lambda: _decided(message, asked.bodies))
            case m.ManifestWritten():
                self.manifest(message.manifest).written.add(content, place, at_ms, lambda: _written(message))
            case m.FilesHeld() if message.manifest is not None:
                row = self.manifest(message.manifest).transfers[message.site]
                row.held.add(content, place, at_ms, lambda: Files.of_held(message.files))
            case _:
                pass

    def _of_transfer(
        self, row: TransferClaims, place: LogPosition, told: _OfTransfer, content: int, logged_ms: int, at_ms: int
    ) -> None:
        match told:
            case m.TransferPlanned():
                if row.planned is None or place.rank < row.planned.rank:
                    row.planned = place
            case m.TransferReported():
                report = ReportClaim((logged_ms, place.offset), told.waits_for)
                if row.report is None or row.report.order <= report.order:
                    row.report = report
            case m.TransferProgress():
                row.evidence = _shared(row.evidence | told.sealed)
            case m.PartOpened():
                row.evidence = _shared(row.evidence | told.present)
            case m.CompletionRecord():
                row.completions.add(content, place, at_ms, lambda: row.closed.shared(told))
            case m.TransferClosed() if told.acknowledged:
                row.closed.add(content, place, at_ms, lambda: row.completions.shared(told.completion))
            case _:
                pass

    def _trace(self, row: TransferClaims, place: LogPosition, origin: m.Origin, told: _OfTransfer) -> None:
        """What an original says of bytes on their way."""
        at_ms = origin.at_ms
        match told:
            case m.TransferProgress():
                self._told(row, place, told, at_ms)
                if told.adopted:
                    row.adopted = _shared(row.adopted | told.adopted)
                    if told.attempt <= 1:
                        row.adopted_first = _shared(row.adopted_first | told.adopted)
                _landed(row, place, told.landed)
            case m.ChunksRequested():
                step = Step.ASKED if told.plane == _LOG else Step.ASKED_OF_DOOR
                if told.plane.startswith(_TOOL):
                    step = Step.ASKED_OF_TOOL
                trace, source = row.traced(), self.sites.number(told.source)
                for start, stop in told.ranges:
                    trace.add(step, source, place, told.request_no, at_ms, start, stop)
            case m.ChunksServed():
                trace, source = row.traced(), self.sites.number(told.source)
                for start, stop in told.ranges or ((0, 0),):
                    trace.add(Step.SERVED, source, place, told.request_no, at_ms, start, stop)
            case m.PartOpened():
                row.present = _shared(row.present | told.present)
                row.attempts = _shared(row.attempts | Ranges.of(told.attempt))
                _landed(row, place, told.landed)
            case m.LeaseExpired():
                row.traced().add(Step.LAPSED, self.sites.number(told.source), place, told.request_no, at_ms)
            case m.PartLost():
                row.traced().add(Step.LOST, self.sites.number(origin.site), place, told.attempt, at_ms)
            case _:
                pass

    def _told(self, row: TransferClaims, place: LogPosition, message: m.TransferProgress, at_ms: int) -> None:
        """Enter what no progress said before, with the record that says so."""
        verified, sealed = message.verified - row.verified, message.sealed - row.sealed
        is_first = message.attempt not in row.told and bool(message.verified or message.sealed)
        if not (verified or sealed or is_first):
            return
        trace, by, attempt = row.traced(), self.sites.number(message.destination.site), message.attempt
        if is_first:
            row.told = _shared(row.told | Ranges.of(attempt))
            trace.add(Step.TOLD, by, place, attempt, at_ms)
        for start, stop in verified:
            trace.add(Step.VERIFIED, by, place, attempt, at_ms, start, stop)
        for start, stop in sealed:
            trace.add(Step.SEALED, by, place, attempt, at_ms, start, stop)
        row.verified, row.sealed = _shared(row.verified | verified), _shared(row.sealed | sealed)


_LOG = "log"
"""The carrier of which the log itself has the payload."""
_TOOL = "tool-"
"""What begins the word for a tool."""

_OfTransfer = (
    m.TransferPlanned
    | m.TransferDecided
    | m.PartOpened
    | m.PartLost
    | m.LeaseExpired
    | m.SourceFailed
    | m.TransferClosed
    | m.ChunksRequested
    | m.ChunksServed
    | m.TransferProgress
    | m.TransferReported
    | m.CompletionRecord
)
_OF_TRANSFER = frozenset(get_args(_OfTransfer))
"""What is heard of a transfer: at its destination, or of it where the record says."""


def _landed(row: TransferClaims, place: LogPosition, landed: tuple[m.Landed, ...]) -> None:
    """Enter what no record said before of what items became."""
    if not landed:
        return
    words = row.landed if row.landed is not None else []
    known = {tuple(word.items[at : at + 3]) for word in words for at in range(0, len(word.items), 3)}
    new = [one for one in ((each.item, each.bytes, int(each.adler32, 16)) for each in landed) if one not in known]
    if new:
        row.landed = [*words, LandedWord(place, array("Q", [number for one in new for number in one]))]


def _written(message: m.ManifestWritten) -> ManifestClaim:
    items = message.items
    files = Files.of_items(items)
    lengths = array("Q", [item.length for item in items])
    whole = all(item.lfn == item.target for item in items)
    return ManifestClaim(
        message.source,
        sha256_of(message),
        message.prev_sha256,
        message.last,
        files,
        _shared(Ranges.of(*(n for n, item in enumerate(items) if item.reason is not None))),
        message.unit is m.Unit.ENTRIES,
        files.bytes if lengths == files.bytes else lengths,
        files.names if whole else array("Q", [name_hash(item.lfn) for item in items]),
        _by_site((n, item.holder) for n, item in enumerate(items) if item.holder is not None),
        _by_site((n, site) for n, item in enumerate(items) for site in item.others),
    )


def _by_site(items: Iterable[tuple[int, Site]]) -> tuple[tuple[Site, Ranges], ...]:
    found: dict[Site, list[int]] = {}
    for number, site in items:
        found.setdefault(site, []).append(number)
    return tuple((site, _shared(Ranges.of(*numbers))) for site, numbers in found.items())


@lru_cache(4096)
def _shared(ranges: Ranges) -> Ranges:
    """One of all that are equal: of most transfers the same few."""
    return ranges


def _intent_of(message: m.Message) -> IntentId | None:
    """The intent that a fact is about; None for facts about sites and refusals."""
    intent = getattr(message, "intent", None)
    if intent is None and (manifest := getattr(message, "manifest", None)) is not None:
        intent = manifest.intent
    return intent


def _decided(message: m.IntentDecided, bodies: Words[m.TransferIntent]) -> DecisionClaim:
    body = bodies.shared(message.body)
    return DecisionClaim(message.verdict, message.source, message.source_no, body, message.priority)
