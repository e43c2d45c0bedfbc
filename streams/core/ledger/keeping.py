"""I13, I14, I18: what sites promised, removed and gave up, a dataset at a time, by a fold of the ledger's own.

A removal names an ask that is open, and promises to that ask from sites that hold the file; its end takes back what the
ask named; and decisions leave as many copies as they should. What it cannot prove: that a plane told the truth of its
disk; what an accident took between a promise and the removal that relies on it, for no order joins two sites'
journals: a place that an accident emptied counts as left by decisions; that a removal for good was admitted.

Chains are folded by their own partitions alone (keeping_chains.py), words of replicas are sets (keeping_files.py):
neither asks for an order between topics. Of a dataset the heads of its steps are in memory, and files a slice at a
time. A second reading gives the names of files that findings tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import FindingList, Invariant, LogPosition, Severity
from streams.core.ledger.journals import PartitionId
from streams.core.ledger.keeping_datasets import KeptDataset, Reclass
from streams.core.ledger.keeping_facts import KeepingFacts
from streams.core.ledger.keeping_faults import Fault, FileOf, KeepingFaults, called
from streams.core.ledger.keeping_files import FileJudge
from streams.core.ledger.keeping_steps import StepJudge
from streams.core.ledger.rows import Codec, Rows
from streams.core.ledger.stale import Staleness
from streams.core.names import IntentId, Lfn, Site

_I13, _I14, _I18 = Invariant.LAST_COPY, Invariant.CLAIMED, Invariant.REMOVAL


class KeepingJudge:
    """What was said of keeping, and what of it does not stand."""

    def __init__(self, rows: Rows, codec: Codec, was_asked: Callable[[IntentId], bool], reclass: Reclass) -> None:
        """`was_asked`: whether anybody asked for an intent.

        `reclass`: told of each original that did not change its chain when it came.
        """
        self._facts, self._codec = KeepingFacts(rows, codec), codec
        self._was_asked, self._reclass = was_asked, reclass
        self._found: KeepingFaults | None = None
        self._asked: dict[LogPosition, list[int]] = {}
        self._lfns: dict[FileOf, Lfn] = {}

    def hear(self, place: LogPosition, origin: m.Origin, message: m.Message, logged_ms: int, *, is_first: bool) -> None:
        """The next record of its journal; what is of no keeping is passed over."""
        if self._facts.add(place, origin, message, logged_ms, is_first=is_first):
            self._found = None

    def absorbed(self) -> None:
        """Rows were put otherwise than by hearing."""
        self._found = None

    def asked(self) -> Iterator[PartitionId]:
        """Partitions to be read once more for the names of files that findings tell."""
        self._asked, self._lfns = {}, {}
        self._found = self._look()
        for fault in self._found.faults.values():
            if fault.file is not None:
                self._asked.setdefault(fault.file.place, []).append(fault.file.number)
        yield from {place[:3] for place in self._asked}

    def locate(self, place: LogPosition, message: Callable[[], m.Message | None]) -> None:
        numbers = self._asked.get(place)
        lfns = _lfns_of(message()) if numbers else ()
        for number in numbers or ():
            if number < len(lfns):
                self._lfns[FileOf(place, number)] = lfns[number]

    def judge(
        self,
        sites: Iterable[Site],
        has: Callable[[Site, str], bool],
        now_ms: int,
        staleness: Staleness,
        findings: FindingList,
    ) -> None:
        """`sites`: of the federation; `has`: whether a journal of a site was read whole."""
        found = self._found = self._found or self._look()
        everyone = tuple((site, topic) for site in sorted(sites) for topic in (topics.KEEPING, topics.REPLICAS))
        is_whole = all(has(*journal) for journal in everyone)
        for invariant, counts in ((_I18, found.steps), (_I14, found.claimed)):
            for site, count in sorted(counts.items()):
                if has(site, topics.KEEPING) and has(site, topics.REPLICAS):
                    findings.check(invariant, count)
                else:
                    findings.cannot(invariant, f"what {site} keeps: not read", count)
        if is_whole:
            findings.check(_I13, found.removed)
        elif found.removed:
            findings.cannot(_I13, "copies of what was removed: not every site was read", found.removed)
        for fault in found.faults.values():
            needs = fault.needs or everyone
            if all(has(*journal) for journal in needs):
                self._tell(fault, findings)
            else:
                unread = sorted({site for site, topic in needs if not has(site, topic)})
                findings.cannot(fault.invariant, f"what {', '.join(unread)} said of it: not read")
        for invariant, count in found.more.items():
            findings.find(invariant, f"{count} more of the same kinds")
        self._judge_open(found, has, now_ms, staleness, findings)

    def _tell(self, fault: Fault, findings: FindingList) -> None:
        words = fault.before
        if fault.file is not None:
            words += self._lfns.get(fault.file) or f"file {fault.file.number} of its record"
            words += f" (and {fault.count - 1} more files)" if fault.count > 1 else ""
        words += fault.after
        if fault.severity is Severity.NOTE:
            findings.note(fault.invariant, words, *fault.records)
        else:
            findings.miss(fault.invariant, words, fault.at_ms, *fault.records)

    def _judge_open(
        self,
        found: KeepingFaults,
        has: Callable[[Site, str], bool],
        now_ms: int,
        staleness: Staleness,
        findings: FindingList,
    ) -> None:
        for site, count in found.asked_for.items():
            if count and has(site, topics.KEEPING):
                findings.wait(_I18, "files asked for and neither removed nor kept yet", count)
        open_words = "files whose removal is decided and whose end is not said yet"
        if found.more_open:
            findings.wait(_I18, open_words, found.more_open)
        for one in found.still_open:
            if not (has(one.site, topics.KEEPING) and has(one.site, topics.REPLICAS)):
                continue
            findings.wait(_I18, open_words, one.files)
            since_ms = findings.past(one.step.logged_ms)
            if now_ms - since_ms >= staleness.after_ms:
                words = (
                    f"{called(one.step, one.site, one.dataset)} is open since {findings.moment(one.step.logged_ms)}: "
                    f"the end of {one.files} files is not said"
                )
                (findings.find if staleness.is_finding else findings.note)(_I18, words, one.step.place)

    def _look(self) -> KeepingFaults:
        found, was_asked = KeepingFaults(), lru_cache(1024)(self._was_asked)
        for dataset in self._facts.datasets():
            kept = KeptDataset(dataset, self._codec.file(dataset), self._facts, self._reclass)
            FileJudge(kept, StepJudge(kept, was_asked, found).judge(), found).judge()
        return found


def _lfns_of(message: m.Message | None) -> tuple[Lfn, ...]:
    """Files of a record, as faults number them."""
    match message:
        case m.KeepPromised():
            return message.promised
        case m.RemovalDecided():
            return tuple(lfn for group in message.removed for lfn in group.lfns)
        case m.FilesLost():
            return message.lfns
    return ()
