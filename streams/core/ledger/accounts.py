"""What arrived and what did not, added up by requester, dataset, link, site or day: out of the facts of intents.

A file counts once for each destination, when the completion of its transfer says how it ended: sealed, failed of a
class, or cancelled. Of two completions of one transfer the one counts that an audit holds to be the first; that there
are two says the audit. What has not ended counts nowhere, and what was refused moved nothing.

A file's time to completion is from when its intent was asked for (of an intent that stays open: from when its manifest
was written, if that was later) to its transfer's completion, each by the log of the site that wrote it, so two sites'
clocks are in it. Memory: some KB a row, and the facts of one intent.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from streams.core.ledger.facts import Fact, Kind, Spans, Told, Way
from streams.core.ledger.quantiles import Quantiles
from streams.core.ranges import EMPTY, Ranges

ROWS_MAX = 5_000
"""Rows of their own; what else there is, by name, is added up in one more."""
UNKNOWN = "?"
"""Who asked, or which dataset, where no record says so."""
ALREADY_THERE = "there already"
"""In the place of a link's source: the destination found the file."""
KINDS = frozenset((Kind.INTENT, Kind.MANIFEST, Kind.COMPLETION))
"""Facts that every account needs."""
KINDS_OF_LINKS = KINDS | {Kind.SERVED, Kind.REQUESTED, Kind.OPENED}
_DAY_MS = 86_400_000


class By(StrEnum):
    """What rows are of."""

    REQUESTER = "requester"
    DATASET = "dataset"
    LINK = "link"
    """From whom most of a file came, to its destination."""
    SITE = "site"
    """The destination."""
    DAY = "day"
    """Of the completion: its number since 1970, in UTC."""


class Period(NamedTuple):
    """Completions of [start_ms, stop_ms) count; None: without that end."""

    start_ms: int | None = None
    stop_ms: int | None = None

    def __contains__(self, at_ms: object) -> bool:
        assert isinstance(at_ms, int)
        return (self.start_ms is None or at_ms >= self.start_ms) and (self.stop_ms is None or at_ms < self.stop_ms)


ALWAYS = Period()


@dataclass(slots=True)
class Account:
    """One row. `failed`: files by their failure's class. `took_ms`: times to completion of the files that arrived."""

    files: int = 0
    bytes: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    took_ms: Quantiles = field(default_factory=Quantiles)

    @property
    def counted(self) -> int:
        """Files, however they ended."""
        return self.files + self.failed.total() + self.cancelled


class _Ended(NamedTuple):
    """The completion of one transfer that counts. `at_ms`: when its log took it."""

    rank: tuple[object, ...]
    at_ms: int
    told: Told

    @property
    def sealed(self) -> Ranges:
        return Ranges(self.told[2])

    @property
    def failed(self) -> list[tuple[Ranges, str]]:
        """Items, and the class of their failure."""
        return [(Ranges(spans), str(reason[1])) for spans, reason in self.told[3]]

    @property
    def cancelled(self) -> Ranges:
        return Ranges(self.told[4])

    @property
    def items(self) -> Ranges:
        return Ranges([(0, self.told[1])]) if self.told[1] else EMPTY

    @property
    def sha256(self) -> str:
        return str(self.told[6])


class _Written(NamedTuple):
    """A manifest, as its first record of these bytes says it."""

    rank: tuple[object, ...]
    at_ms: int
    source: str
    sha256: str
    sizes: array[int]
    lengths: array[int]
    datasets: tuple[tuple[str, Spans], ...]

    @property
    def starts(self) -> list[int]:
        """Where each item begins on the line, and where the line ends."""
        return list(accumulate(self.lengths, initial=0))


class _Intent:
    """The facts of one intent, as far as an account needs them."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self.asked_ms: int | None = None
        self.requester, self.is_open = UNKNOWN, False
        self.ended: dict[tuple[int, int, str], _Ended] = {}
        """By the manifest's numbers and the destination."""
        self._written: dict[tuple[int, int], dict[str, _Written]] = {}
        self._moved: dict[tuple[int, int, str], dict[str, list[Spans]]] = {}
        self._present: dict[tuple[int, int, str], Ranges] = {}
        asked: tuple[object, ...] = ()
        for fact in facts:
            words, rank = fact.words, fact.place.rank
            match fact.kind:
                case Kind.INTENT if not asked or rank < asked:
                    asked, self.asked_ms = rank, fact.logged_ms
                    self.requester, self.is_open = words[6], words[5][4]
                case Kind.MANIFEST:
                    self._write(words, rank, fact.logged_ms)
                case Kind.COMPLETION:
                    of = words[0], words[1], words[2]
                    if of not in self.ended or rank < self.ended[of].rank:
                        self.ended[of] = _Ended(rank, fact.logged_ms, words[5])
                case Kind.SERVED:
                    self._move(words, words[5])
                case Kind.REQUESTED if words[5] == Way.TOOL:
                    self._move(words, words[6])  # whom a tool asks says nothing
                case Kind.OPENED:
                    of = words[0], words[1], words[2]
                    self._present[of] = self._present.get(of, EMPTY) | Ranges(words[5])
                case _:
                    pass

    def _write(self, words: Told, rank: tuple[object, ...], at_ms: int) -> None:
        _, _, _, _, _, source, sha256, _, _, _, _, sizes, _, lengths, *_, datasets = words
        variants = self._written.setdefault((words[0], words[1]), {})
        if sha256 not in variants or rank < variants[sha256].rank:
            own = array("Q", sizes)
            line = array("Q", lengths) if lengths else own
            variants[sha256] = _Written(rank, at_ms, source, sha256, own, line, datasets)

    def _move(self, words: Told, spans: Spans) -> None:
        sources = self._moved.setdefault((words[0], words[1], words[2]), {})
        sources.setdefault(words[4], []).append(spans)

    def manifest(self, source_no: int, no: int, done: _Ended) -> _Written | None:
        """The one that the completion follows."""
        variants = self._written.get((source_no, no), {})
        return variants.get(done.sha256) or min(variants.values(), default=None)

    def took_ms(self, done: _Ended, written: _Written | None) -> int | None:
        if self.asked_ms is None:
            return None
        since = self.asked_ms
        if self.is_open and written is not None:
            since = max(since, written.at_ms)
        return max(0, done.at_ms - since)

    def came_from(self, of: tuple[int, int, str], written: _Written | None) -> Iterator[tuple[str, Ranges]]:
        """Sources, and the items that came from each: of an item that two gave, the one that gave more in all."""
        if written is None:
            return
        moved = {
            source: Ranges(span for spans in some for span in spans) for source, some in self._moved.get(of, {}).items()
        }
        told, starts = EMPTY, written.starts
        for source, positions in sorted(moved.items(), key=lambda one: (-one[1].size, one[0])):
            items = _items_at(positions, starts) - told
            told = told | items
            yield source, items
        yield ALREADY_THERE, self._present.get(of, EMPTY) - told
        # What is empty crosses by nobody's word, and what a source that died did not say came from it all the same.
        every = Ranges([(0, len(written.sizes))]) if written.sizes else EMPTY
        yield written.source, every - told - self._present.get(of, EMPTY)


def _items_at(positions: Ranges, starts: list[int]) -> Ranges:
    """The items of which any position is among these."""
    end = starts[-1]
    found = []
    for start, stop in positions:
        if start < min(stop, end):
            found.append((bisect_right(starts, start) - 1, bisect_left(starts, min(stop, end))))
    return Ranges(found)


class Accounts:
    """Rows of one account; `add` intent after intent."""

    def __init__(self, by: By, period: Period = ALWAYS, *, rows_max: int = ROWS_MAX) -> None:
        self.by, self._period, self._rows_max = by, period, rows_max
        self.rows: dict[str, Account] = {}
        self.rest = Account()
        """Of names beyond `rows_max`, the first that were met."""
        self.first_ms: int | None = None
        """When the first completion of all was logged, whatever the period."""

    @property
    def kinds(self) -> frozenset[Kind]:
        """Facts that `add` looks at."""
        return KINDS_OF_LINKS if self.by is By.LINK else KINDS

    def add(self, facts: Iterable[Fact]) -> None:
        """All facts of one intent."""
        intent = _Intent(facts)
        for of, done in sorted(intent.ended.items()):
            self.first_ms = done.at_ms if self.first_ms is None else min(self.first_ms, done.at_ms)
            if done.at_ms in self._period:
                self._count(intent, of, done)

    def _count(self, intent: _Intent, of: tuple[int, int, str], done: _Ended) -> None:
        source_no, no, destination = of
        written = intent.manifest(source_no, no, done)
        took_ms = intent.took_ms(done, written)
        match self.by:
            case By.REQUESTER:
                self._whole(intent.requester, done, took_ms)
            case By.SITE:
                self._whole(destination, done, took_ms)
            case By.DAY:
                self._whole(str(done.at_ms // _DAY_MS), done, took_ms)
            case By.DATASET:
                named = () if written is None else [(name, Ranges(spans)) for name, spans in written.datasets]
                self._parts(named, UNKNOWN, done, written, took_ms)
            case By.LINK:
                links = [(f"{name} → {destination}", items) for name, items in intent.came_from(of, written)]
                self._parts(links, f"{UNKNOWN} → {destination}", done, written, took_ms)

    def _whole(self, name: str, done: _Ended, took_ms: int | None) -> None:
        self._enter(name, done, done.items, done.told[5], took_ms)

    def _parts(
        self,
        parts: Iterable[tuple[str, Ranges]],
        other: str,
        done: _Ended,
        written: _Written | None,
        took_ms: int | None,
    ) -> None:
        """Items under the name that has them; `other`: of those that none has."""
        left = done.items
        landed = {item: size for item, size, _ in done.told[7]}
        for name, items in parts:
            items, left = items & left, left - items
            if items:
                self._enter(name, done, items, _bytes_of(items & done.sealed, written, landed), took_ms)
        if left:
            self._enter(other, done, left, _bytes_of(left & done.sealed, written, landed), took_ms)

    def _enter(self, name: str, done: _Ended, items: Ranges, size: int, took_ms: int | None) -> None:
        row = self.rows.get(name)
        if row is None:
            row = self.rest
            if len(self.rows) < self._rows_max:
                row = self.rows[name] = Account()
        sealed = (done.sealed & items).size
        row.files += sealed
        row.bytes += size
        for some, failure_class in done.failed:
            if count := (some & items).size:
                row.failed[failure_class] += count
        row.cancelled += (done.cancelled & items).size
        if took_ms is not None and sealed:
            row.took_ms.add(took_ms, sealed)


def _bytes_of(items: Ranges, written: _Written | None, landed: Mapping[int, int]) -> int:
    """Of entries what they came to, else what the manifest says; 0 where nobody says it."""
    if landed:
        return sum(landed.get(item, 0) for item in items.numbers())
    return 0 if written is None else sum(sum(written.sizes[start:stop]) for start, stop in items)
