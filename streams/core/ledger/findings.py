"""What an audit says: places, findings, what waits, what cannot be checked. Values and their collector; no judging."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from streams.core.names import Site

FINDINGS_MAX = 10_000
"""Findings kept of one invariant, and so many notes; the rest are counted only: a ruined log exhausts no memory."""
CLOCK_TOLERANCE_MS = 300_000
"""A record dated so much after the auditor's own time was dated by a wrong clock."""


class LogPosition(NamedTuple):
    """Where a record stands: the site whose cluster it was read from, topic, partition, offset."""

    site: Site
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.site} {self.topic}[{self.partition}]@{self.offset}"

    @property
    def rank(self) -> tuple[bool, Site, str, int, int]:
        """Sorts an original before its mirrored copies: the same record proves a finding in any reading order."""
        return ("." in self.topic, *self)


class Invariant(StrEnum):
    """Of the design's invariants, those that this ledger can check."""

    CONSERVATION = "I1"
    NO_LIE = "I2"
    ONE_EFFECT = "I4"
    FENCING = "I5"
    NOT_SILENT = "I6"
    NO_GAP = "I7"
    LAST_COPY = "I13"
    CLAIMED = "I14"
    REMOVAL = "I18"
    CLOCK = "clock"
    """No record is dated after the audit: every other check that asks how old something is leans on it."""
    SEAL = "seal"
    """Journals and copies are as they were sealed, and each site's seals are one chain."""


class Severity(StrEnum):
    BROKEN = "broken"
    """The invariant does not hold."""
    NOTE = "note"
    """Odd, allowed by the design, worth a look."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise, in words, with the records that prove it."""

    invariant: Invariant
    severity: Severity
    words: str
    records: tuple[LogPosition, ...] = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """`count` things of which no verdict is possible, and why."""

    invariant: Invariant
    words: str
    count: int


@dataclass(frozen=True, slots=True)
class PartitionCount:
    """How a partition's records at one site ended; `pending` await a worker's verdict, `silent` never got one."""

    site: Site
    topic: str
    partition: int
    records: int
    applied: int
    duplicate: int
    superseded: int
    dead_lettered: int
    pending: int
    silent: int


@dataclass(frozen=True, slots=True)
class IntentCounts:
    """Conservation in numbers. `files` and `bytes` are sealed ones, over all destinations."""

    intents: int = 0
    undecided: int = 0
    refused: int = 0
    accepted: int = 0
    done: int = 0
    partly: int = 0
    failed: int = 0
    cancelled: int = 0
    open: int = 0
    manifests: int = 0
    completions: int = 0
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """The ledger's answer.

    `waiting`: not ended yet; `unchecked`: not checkable from here, which may be as it should; `unseen`: what an audit
    has to see and could not, a line each, so that nobody may call it clean.
    """

    checked: Mapping[Invariant, int]
    found: Mapping[Invariant, int]
    findings: tuple[Finding, ...]
    waiting: tuple[Remark, ...]
    unchecked: tuple[Remark, ...]
    partitions: tuple[PartitionCount, ...]
    counts: IntentCounts
    unseen: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity is Severity.BROKEN)

    @property
    def notes(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity is Severity.NOTE)


@dataclass(slots=True)
class FindingList:
    """Collects what the judges say.

    What was written since `began_ms`, while reading, may miss what it follows from. `ended_ms`: when reading ended, by
    default at once.
    """

    began_ms: int
    ended_ms: int | None = None
    moment: Callable[[int], str] = str
    """How a time (ms of the epoch) is said to people."""

    checked: Counter[Invariant] = field(default_factory=Counter)
    found: Counter[Invariant] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    _kept: Counter[tuple[Invariant, Severity]] = field(default_factory=Counter)
    _waiting: Counter[tuple[Invariant, str]] = field(default_factory=Counter)
    _unchecked: Counter[tuple[Invariant, str]] = field(default_factory=Counter)

    @property
    def latest_ms(self) -> int:
        """What is dated later was dated by a wrong clock."""
        return (self.began_ms if self.ended_ms is None else max(self.began_ms, self.ended_ms)) + CLOCK_TOLERANCE_MS

    def past(self, at_ms: int) -> int:
        """`at_ms`; 0 where that cannot be true: what a wrong clock dated is old, or it would be in flight for ever."""
        return at_ms if at_ms <= self.latest_ms else 0

    def check(self, invariant: Invariant, count: int = 1) -> None:
        self.checked[invariant] += count

    def find(self, invariant: Invariant, words: str, *records: LogPosition | None) -> None:
        self.found[invariant] += 1
        self._keep(Finding(invariant, Severity.BROKEN, words, tuple(r for r in records if r is not None)))

    def miss(self, invariant: Invariant, words: str, at_ms: int, *records: LogPosition | None) -> None:
        """Something is absent beside what was written at `at_ms`."""
        if self.past(at_ms) < self.began_ms:
            self.find(invariant, words, *records)
        else:
            self.wait(invariant, "written while the audit was reading")

    def note(self, invariant: Invariant, words: str, *records: LogPosition | None) -> None:
        self._keep(Finding(invariant, Severity.NOTE, words, tuple(r for r in records if r is not None)))

    def wait(self, invariant: Invariant, words: str, count: int = 1) -> None:
        self._waiting[invariant, words] += count

    def cannot(self, invariant: Invariant, words: str, count: int = 1) -> None:
        self._unchecked[invariant, words] += count

    def _keep(self, finding: Finding) -> None:
        kind = finding.invariant, finding.severity
        self._kept[kind] += 1
        if self._kept[kind] <= FINDINGS_MAX:
            self.findings.append(finding)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was found or noted, and nothing waits."""
        return not (self.findings or self.found or self._waiting or self.unseen)

    @property
    def unchecked(self) -> list[Remark]:
        return [Remark(i, w, n) for (i, w), n in sorted(self._unchecked.items())]

    def absorb(self, part: FindingList) -> None:
        """Take over what `part` has, and empty it."""
        for invariant, count in part.checked.items():
            self.checked[invariant] += count
        for (invariant, words), count in part._unchecked.items():
            self._unchecked[invariant, words] += count
        part.checked.clear()
        part._unchecked.clear()
        if part.is_quiet:
            return
        self.found.update(part.found)
        self._waiting.update(part._waiting)
        for finding in part.findings:
            self._keep(finding)
        part.found.clear()
        part._waiting.clear()
        part._kept.clear()
        part.findings.clear()

    def close(self, partitions: tuple[PartitionCount, ...], counts: IntentCounts) -> Judgement:
        def order(finding: Finding) -> tuple[str, str, str, list[tuple[bool, Site, str, int, int]]]:
            return (finding.severity, finding.invariant, finding.words, [r.rank for r in finding.records])

        return Judgement(
            checked={i: self.checked[i] for i in Invariant},
            found={i: self.found[i] for i in Invariant},
            findings=tuple(sorted(self.findings, key=order)),
            waiting=tuple(Remark(i, w, n) for (i, w), n in sorted(self._waiting.items())),
            unchecked=tuple(self.unchecked),
            partitions=partitions,
            counts=counts,
            unseen=tuple(self.unseen),
        )
