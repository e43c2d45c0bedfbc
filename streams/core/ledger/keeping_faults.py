"""What is wrong with what sites keep: findings to be, each with the step or file that shows it. Values; no judging."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.core import topics
from streams.core.ledger.findings import FINDINGS_MAX, Invariant, LogPosition, Severity
from streams.core.ledger.keeping_chains import Step
from streams.core.ledger.keeping_facts import RECORDS
from streams.core.names import Dataset, Site

Journal = tuple[Site, str]
"""A site's own journal, by its topic."""


class FileOf(NamedTuple):
    """A file by its number in the record at a place."""

    place: LogPosition
    number: int


@dataclass(slots=True)
class Fault:
    """What is wrong, for `count` files of the same records; `file`: the first, told between `before` and `after`.

    `needs`: the journals that have to be read whole; none where all have to.
    """

    invariant: Invariant
    severity: Severity
    before: str
    after: str
    records: tuple[LogPosition, ...]
    at_ms: int
    needs: tuple[Journal, ...]
    file: FileOf | None
    count: int = 1


@dataclass(slots=True)
class OpenRemoval:
    """A removal that counts and whose end was not said of so many files."""

    site: Site
    dataset: Dataset
    step: Step
    files: int


@dataclass(slots=True)
class KeepingFaults:
    """What one look at all datasets amounts to. Counters are by the site whose journals they lean on."""

    faults: dict[tuple[Invariant, str, str, tuple[LogPosition, ...]], Fault] = field(default_factory=dict)
    more: Counter[Invariant] = field(default_factory=Counter)
    steps: Counter[Site] = field(default_factory=Counter)
    """Promises, removals and ends of removals."""
    claimed: Counter[Site] = field(default_factory=Counter)
    """Words of landings under claims that live."""
    asked_for: Counter[Site] = field(default_factory=Counter)
    """Files that asks are open for."""
    removed: int = 0
    """Files that some site decided to remove."""
    still_open: list[OpenRemoval] = field(default_factory=list)
    more_open: int = 0
    """Files of further ones."""

    def add(
        self,
        invariant: Invariant,
        words: str | tuple[str, str],
        records: tuple[LogPosition, ...],
        at_ms: int,
        needs: tuple[Journal, ...],
        file: FileOf | None = None,
        severity: Severity = Severity.BROKEN,
    ) -> None:
        """`words`: before and after the file's name, or all. Of files of the same records one fault is kept."""
        before, after = (words, "") if isinstance(words, str) else words
        records = tuple(dict.fromkeys(records))
        key = invariant, before, after, records
        known = self.faults.get(key)
        if known is not None:
            known.count += 1
            if file is not None and known.file is not None and file.number < known.file.number:
                known.file = file
        elif len(self.faults) < FINDINGS_MAX:
            self.faults[key] = Fault(invariant, severity, before, after, records, at_ms, needs, file)
        else:
            self.more[invariant] += 1

    def leave_open(self, removal: OpenRemoval) -> None:
        if len(self.still_open) < FINDINGS_MAX:
            self.still_open.append(removal)
        else:
            self.more_open += removal.files


def called(step: Step, site: Site, dataset: Dataset) -> str:
    """A step, in words."""
    return f"{RECORDS[step.kind]} {step.no} of {site} about {dataset}"


def endpoint_called(endpoint: str) -> str:
    return endpoint or "the default endpoint"


def chain_of(*sites: Site) -> tuple[Journal, ...]:
    """Journals of what these sites decide."""
    return tuple((site, topics.KEEPING) for site in sites)


def words_of(site: Site) -> tuple[Journal, ...]:
    """Journals of what a site decides and of what it says it holds."""
    return (site, topics.KEEPING), (site, topics.REPLICAS)
