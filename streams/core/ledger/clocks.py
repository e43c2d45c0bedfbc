"""Dates that cannot be true: of a writer, and of a log whose broker dates what it takes.

A date is a word like any other. Where one lies after the audit itself, its clock is told with both times, and what it
dated counts as old (`FindingList.past`).
"""

from __future__ import annotations

from collections.abc import Iterable

from streams.core.ledger.findings import CLOCK_TOLERANCE_MS, FindingList, Invariant
from streams.core.ledger.journals import Journal
from streams.core.ledger.numbering import ClockReading, Stream
from streams.core.names import Site

_CLOCK = Invariant.CLOCK


def judge_clocks(streams: Iterable[Stream], journals: Iterable[Journal], findings: FindingList) -> None:
    """A finding for each writer and each site's log that is ahead of the auditor; a note for one ahead of its log."""
    moment = findings.moment
    now = moment(findings.latest_ms - CLOCK_TOLERANCE_MS)
    writers: dict[tuple[Site, str], tuple[ClockReading | None, ClockReading | None]] = {}
    for stream in streams:
        key = stream.id.site, stream.writer
        latest, ahead = writers.get(key, (None, None))
        writers[key] = _later(latest, stream.latest), _later(ahead, stream.ahead)
    for (site, writer), (latest, ahead) in sorted(writers.items()):
        findings.check(_CLOCK)
        if latest is not None and latest.at_ms > findings.latest_ms:
            words = f"the clock of {writer} at {site} said {moment(latest.at_ms)} when the auditor's says {now}"
            findings.find(_CLOCK, words, latest.place)
        elif ahead is not None and ahead.at_ms > CLOCK_TOLERANCE_MS:
            words = f"the clock of {writer} at {site} was {ahead.at_ms // 1000:,} s ahead of its broker's"
            findings.note(_CLOCK, words, ahead.place)
    logs: dict[Site, ClockReading | None] = {}
    for journal in journals:
        if journal.is_original:
            logs[journal.site] = _later(logs.get(journal.site), journal.dated)
    for site, latest in sorted(logs.items()):
        if latest is not None and latest.at_ms > findings.latest_ms:
            words = f"a broker of {site} dated a record {moment(latest.at_ms)} when the auditor's clock says {now}"
            findings.find(_CLOCK, words, latest.place)


def _later(one: ClockReading | None, other: ClockReading | None) -> ClockReading | None:
    """Of two of one time the original, and of two originals the first by place: the same in any reading order."""
    if one is None or other is None:
        return one or other
    if one.at_ms != other.at_ms:
        return one if one.at_ms > other.at_ms else other
    return one if one.place.rank <= other.place.rank else other
