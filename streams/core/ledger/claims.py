"""What was said of one intent, its manifests and transfers, by whomever, in any order: its facts folded. No verdicts.

Every *different* word on one matter is kept (few: one, unless something is wrong) with the place that proves it, and
for a manifest's items 24 bytes each. It is made of an intent's rows when that is judged, and forgotten after it.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Generic, NamedTuple, TypeVar

from streams.core import records as m
from streams.core.ledger.facts import NAMES, NO_ADLER, WORDS_AT, Fact, Kind, Spans, Told, Way, is_by_url
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.traces import SiteNumbers, Step, Trace
from streams.core.names import Adler32, Dataset, Destination, IntentId, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges

T = TypeVar("T")
VARIANTS_MAX = 8
"""Different words kept on one matter; more of them prove nothing more."""
HELD_MAX = 1000
"""FilesHeld of one transfer: one per dataset, so at most one per item."""


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
        return f"adler32 {a:08x}, not {b:08x}" if a != b and NO_ADLER not in (a, b) else ""


@dataclass(frozen=True, slots=True)
class HeldWord:
    """A FilesHeld of a transfer."""

    dataset: Dataset
    files: Files


@dataclass(frozen=True, slots=True)
class Body:
    """What is kept of a TransferIntent; two that differ in anything have two digests."""

    digest: bytes
    destinations: tuple[Destination, ...]
    deadline_ms: int | None
    priority: int
    open: bool
    removes: bool = False
    leaving: tuple[str, ...] = ()
    """Sites that files leave, by a removal or a move, in so many `parts` each."""
    parts: int = 0


@dataclass(frozen=True, slots=True)
class AnswerClaim:
    """A SiteAnswered: whether a site takes part, and who says so."""

    answer: m.Answer
    by: str


@dataclass(frozen=True, slots=True)
class RemovalWord:
    """A RemovalReported: files that are gone, their bytes, files that stay."""

    removed: int
    bytes: int
    kept: int


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
    body: Body
    priority: int


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
    held: Words[HeldWord] = field(default_factory=lambda: Words(HELD_MAX))
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
    of_sites: set[tuple[m.Asked, str, str]] = field(default_factory=set)
    """What was asked of sites, by whom, of which, in copies too."""

    def add(self, asked: m.Asked, priority: int | None, place: LogPosition, at_ms: int, is_original: bool) -> None:
        self.kinds.add(asked)
        if priority is not None:
            self.priorities.add(priority)
        if not is_original:
            return
        asking = Asking(place, at_ms, priority)
        match asked:
            case m.Asked.CANCEL:
                self.cancel = self.cancel or asking
            case m.Asked.CLOSE:
                self.close = self.close or asking
            case m.Asked.PRIORITY:
                self.priority = asking


@dataclass(slots=True)
class IntentClaims:
    bodies: Words[Body] = field(default_factory=Words)
    decisions: dict[int, Words[DecisionClaim]] = field(default_factory=dict)
    """By decision_no."""
    manifests: dict[tuple[int, int], ManifestClaims] = field(default_factory=dict)
    """By (source_no, no)."""
    heard: LastHeard | None = None
    askings: Askings | None = None
    answers: dict[tuple[str, int], Words[AnswerClaim]] = field(default_factory=dict)
    """By site and answer_no."""
    removed: dict[tuple[int, Destination], Words[RemovalWord]] = field(default_factory=dict)
    """Last words of a removal, by part and site."""

    @property
    def decision(self) -> Claim[DecisionClaim] | None:
        return self.decisions[max(self.decisions)].first if self.decisions else None

    @property
    def denied(self) -> frozenset[str]:
        """Sites that take no part: of each the first answer that is not pending counts."""
        found: dict[str, m.Answer] = {}
        for (site, _), said in sorted(self.answers.items()):
            if said.first is not None and found.get(site, m.Answer.PENDING) is m.Answer.PENDING:
                found[site] = said.first.word.answer
        return frozenset(site for site, answer in found.items() if answer is m.Answer.DENIED)

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


class _Fold:
    """The facts of one intent, in any order of partitions; the same fact again changes nothing but its best proof."""

    def __init__(self, intent: IntentId, sites: SiteNumbers) -> None:
        self.row = IntentClaims()
        self._intent, self._sites = intent, sites

    def fold(self, fact: Fact) -> None:
        words, kind, row = fact.words, fact.kind, self.row
        heard = LastHeard(fact.logged_ms, fact.place, NAMES[kind])
        if kind in _OF_TRANSFER:
            transfer = self._manifest(words).transfers[_destination(words[2])]
            if heard.later(transfer.heard):
                transfer.heard = heard
            if heard.later(row.heard):
                row.heard = heard
            self._of_transfer(transfer, fact)
            if fact.is_original:
                self._trace(transfer, fact)
            return
        if heard.later(row.heard):
            row.heard = heard
        content, place, at_ms, told = fact.content, fact.place, fact.at_ms, words[WORDS_AT:]
        match kind:
            case Kind.ASKED:
                row.askings = row.askings or Askings()
                row.askings.add(m.Asked(told[0]), told[1], place, at_ms, fact.is_original)
                if told[3] is not None:
                    row.askings.of_sites.add((m.Asked(told[0]), told[2], told[3]))
            case Kind.ANSWERED:
                answers = row.answers.setdefault((words[4], words[3]), Words())
                answers.add(content, place, at_ms, lambda: AnswerClaim(m.Answer(told[0]), told[1]))
            case Kind.INTENT:
                row.bodies.add(content, place, at_ms, lambda: _body(told[0]))
            case Kind.DECIDED:
                row.decisions.setdefault(words[3], Words()).add(content, place, at_ms, lambda: _decided(told))
            case Kind.MANIFEST:
                self._manifest(words).written.add(content, place, at_ms, lambda: _written(told))
            case Kind.HELD:
                transfer = self._manifest(words).transfers[_destination(words[2])]
                transfer.held.add(content, place, at_ms, lambda: HeldWord(Dataset(words[4]), _files(*told)))
            case Kind.REMOVED:
                removed, size, kept, _, is_last, _ = told
                if is_last:
                    said = row.removed.setdefault((words[1], _destination(words[2])), Words())
                    said.add(content, place, at_ms, lambda: RemovalWord(removed, size, kept))
            case _:
                pass

    def _manifest(self, words: Told) -> ManifestClaims:
        key = words[0], words[1]
        found = self.row.manifests.get(key)
        if found is None:
            found = self.row.manifests[key] = ManifestClaims()
        return found

    def _completion(self, words: Told, told: Told) -> m.CompletionRecord:
        ended, items, sealed, failed, cancelled, size, manifest_sha256, landed, destination = told
        return m.CompletionRecord(
            self._intent,
            ManifestId.of(self._intent, words[0], words[1]),
            _destination(destination),
            m.Ended(ended),
            items,
            _ranges(sealed),
            tuple(m.FailedItems(_ranges(spans), _reason(reason)) for spans, reason in failed),
            _ranges(cancelled),
            size,
            manifest_sha256,
            tuple(m.Landed(item, its_bytes, Adler32(f"{adler:08x}")) for item, its_bytes, adler in landed),
        )

    def _of_transfer(self, row: TransferClaims, fact: Fact) -> None:
        words, place = fact.words, fact.place
        match fact.kind:
            case Kind.PLANNED:
                if row.planned is None or place.rank < row.planned.rank:
                    row.planned = place
            case Kind.REPORTED:
                order = fact.logged_ms, place.offset
                if row.report is None or row.report.order <= order:
                    row.report = ReportClaim(order, words[5])
            case Kind.PROGRESS:
                row.evidence = row.evidence | _ranges(words[6])
            case Kind.OPENED:
                row.evidence = row.evidence | _ranges(words[5])
            case Kind.COMPLETION:
                row.completions.add(fact.content, place, fact.at_ms, lambda: self._completion(words, words[5]))
            case Kind.CLOSED if words[4]:
                row.closed.add(fact.content, place, fact.at_ms, lambda: self._completion(words, words[5]))
            case _:
                pass

    def _trace(self, row: TransferClaims, fact: Fact) -> None:
        """What an original says of bytes on their way."""
        words, place, at_ms = fact.words, fact.place, fact.at_ms
        match fact.kind:
            case Kind.PROGRESS:
                self._told(row, fact)
                adopted = _ranges(words[8])
                if adopted:
                    row.adopted = row.adopted | adopted
                    if words[3] <= 1:
                        row.adopted_first = row.adopted_first | adopted
                _landed(row, place, words[7])
            case Kind.REQUESTED:
                step = _ASKED[words[5]]
                trace, source = row.traced(), self._site(words[4])
                for start, stop in words[6]:
                    trace.add(step, source, place, words[3], at_ms, start, stop)
            case Kind.SERVED:
                trace, source = row.traced(), self._site(words[4])
                step = Step.GIVEN_BY_URL if is_by_url(words) else Step.SERVED
                for start, stop in words[5] or ((0, 0),):
                    trace.add(step, source, place, words[3], at_ms, start, stop)
            case Kind.OPENED:
                row.present = row.present | _ranges(words[5])
                row.attempts = row.attempts | Ranges.of(words[3])
                _landed(row, place, words[6])
            case Kind.LAPSED:
                row.traced().add(Step.LAPSED, self._site(words[4]), place, words[3], at_ms)
            case Kind.LOST:
                row.traced().add(Step.LOST, self._site(words[2]), place, words[3], at_ms)
            case _:
                pass

    def _told(self, row: TransferClaims, fact: Fact) -> None:
        """Enter what no progress said before, with the record that says so."""
        attempt, place, at_ms = fact.words[3], fact.place, fact.at_ms
        verified, sealed = _ranges(fact.words[5]), _ranges(fact.words[6])
        is_first = attempt not in row.told and bool(verified or sealed)
        verified, sealed = verified - row.verified, sealed - row.sealed
        if not (verified or sealed or is_first):
            return
        trace, by = row.traced(), self._site(_destination(fact.words[2]).site)
        if is_first:
            row.told = row.told | Ranges.of(attempt)
            trace.add(Step.TOLD, by, place, attempt, at_ms)
        for start, stop in verified:
            trace.add(Step.VERIFIED, by, place, attempt, at_ms, start, stop)
        for start, stop in sealed:
            trace.add(Step.SEALED, by, place, attempt, at_ms, start, stop)
        row.verified, row.sealed = row.verified | verified, row.sealed | sealed

    def _site(self, name: str) -> int:
        return self._sites.number(Site(name))


def claims_of(intent: IntentId, facts: Iterable[Fact], sites: SiteNumbers) -> IntentClaims:
    """All that was said of an intent. `sites`: numbers in traces."""
    folded = _Fold(intent, sites)
    for fact in facts:
        folded.fold(fact)
    return folded.row


_ASKED = {Way.LOG: Step.ASKED, Way.DOOR: Step.ASKED_OF_DOOR, Way.TOOL: Step.ASKED_OF_TOOL}
_OF_TRANSFER = frozenset(Kind) - {
    *(Kind.INTENT, Kind.ASKED, Kind.DECIDED, Kind.ANSWERED, Kind.MANIFEST, Kind.HELD, Kind.REMOVED)
}
"""What is heard of a transfer: at its destination, or of it where the record says."""


def _landed(row: TransferClaims, place: LogPosition, landed: Told) -> None:
    """Enter what no record said before of what items became."""
    if not landed:
        return
    words = row.landed if row.landed is not None else []
    known = {tuple(word.items[at : at + 3]) for word in words for at in range(0, len(word.items), 3)}
    new = [one for one in landed if one not in known]
    if new:
        row.landed = [*words, LandedWord(place, array("Q", [number for one in new for number in one]))]


@lru_cache(4096)
def _destination(name: str) -> Destination:
    return Destination(name)


@lru_cache(4096)
def _ranges(spans: Spans) -> Ranges:
    """One of all that are equal: of most transfers the same few."""
    return Ranges(spans)


def _reason(told: Told) -> m.Reason:
    scope, failure_class, phase, text = told
    return m.Reason(m.Scope(scope), m.FailureClass(failure_class), phase, Text(text))


def _body(told: Told) -> Body:
    digest, destinations, *rest = told
    return Body(digest, tuple(map(_destination, destinations)), *rest)


def _decided(told: Told) -> DecisionClaim:
    verdict, source, source_no, priority, body = told
    return DecisionClaim(m.Verdict(verdict), None if source is None else Site(source), source_no, _body(body), priority)


def _array(code: str, packed: bytes) -> array[int]:
    return array(code, packed)


def _files(names: bytes, sizes: bytes, adlers: bytes) -> Files:
    return Files(_array("Q", names), _array("Q", sizes), _array("q", adlers))


def _written(told: Told) -> ManifestClaim:
    source, sha256, prev_sha256, last, in_entries, names, sizes, adlers, lengths, lfns, lacking, *by_site, _ = told
    files = _files(names, sizes, adlers)
    holders, others = (tuple((Site(site), _ranges(spans)) for site, spans in some) for some in by_site)
    return ManifestClaim(
        *(Site(source), sha256, prev_sha256, last, files, _ranges(lacking), in_entries),
        lengths=_array("Q", lengths) if lengths else files.bytes,
        lfns=_array("Q", lfns) if lfns else files.names,
        holders=holders,
        others=others,
    )
