"""One site's cluster in a ledger on the disk, judged while it is read: what is found new is told once it has stood.

Partitions are read side by side, so that what a record follows from may be heard a moment later; and a mirror that
failed begins again. So what is found is told where it is still found `SETTLED_S` later, when all that stood in the
cluster at the first look has been read.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from streams import wire
from streams.auditing.coverage import Journals, find_journals, refuse, unseen
from streams.auditing.entering import Entrance
from streams.auditing.index import AuditIndex
from streams.auditing.origins import origin_of
from streams.auditing.pinned_keys import seals_of
from streams.auditing.replaying import moment, worker_group
from streams.core import records as m
from streams.core.ledger.cuts import JournalId
from streams.core.ledger.findings import Finding, FindingList, Invariant, LogPosition, Severity
from streams.core.ledger.live import LiveLedger
from streams.core.ledger.telling import name_of
from streams.core.ledger.trees import JournalTree, leaf_of
from streams.core.names import Site
from streams.core.sealing import SealChain
from streams.core.topics import ANNOUNCEMENTS, SEALS, LogPartition, split
from streams.errors import CLUSTER_AWAY, NotFound, Transfer2goError, WireError
from streams.kafka.reader import LogReader, Record, committed_offsets
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.wire.release import RELEASE

ROUND_S = 5.0
"""What was heard of is judged so often,"""
QUIET_S = 10.0
"""so often where nothing but announcements was heard,"""
IDLE_S = 60.0
"""and so often where nothing was: time alone makes an open intent stale."""
SHARE = 20
"""Judging takes a part of the time: it is that much longer until the next round than a round takes."""
SETTLED_S = 10.0
CHECKS_MAX = 10
"""Looks at what was found new that are under way; more waits for their end."""
SIZES_MAX = 256
"""Sealed sizes kept of a journal: what has been compared is forgotten."""
CHAIN_MAX = 2048
"""Seals kept of a site: the last day and a half."""
LIVE_MANIFESTS_MAX = 20_000
"""Manifests that are remembered for the plans that repeat them: 3.4 MB."""
LOOKED_BACK = 50_000
"""Records of a partition, its last ones, in which what a finding speaks of is looked up."""
_OWN_WORDS = frozenset((SEALS, ANNOUNCEMENTS))

Tell = Callable[[str], None]


class JournalChanged(Exception):
    """A journal is not what was read of it: nothing that was read before counts. `finding` tells which."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.words)
        self.finding = finding


@dataclass(frozen=True, slots=True)
class _Check:
    """Findings (by their names) that are new, when they were found, and where the cluster ended then."""

    names: frozenset[bytes]
    began_ms: int
    since_s: float
    ends: Mapping[LogPartition, int]


@dataclass(slots=True)
class LiveCounts:
    """What there is to tell of a follower. `found`: as of the last round, by invariant and severity; `told`: of all."""

    records: int = 0
    found: Counter[tuple[Invariant, Severity]] = field(default_factory=Counter)
    told: Counter[tuple[Invariant, Severity]] = field(default_factory=Counter)
    judged_ms: int = 0
    """When the last round was."""
    round_s: float = 0.0
    """How much of a core's time it took."""


class LiveAudit:
    """`every_ms`: how often the site seals. One thread; nothing of it may be used behind an exception in it."""

    def __init__(self, settings: Settings, site: Site, index: AuditIndex, *, every_ms: int) -> None:
        self.site, self._settings, self._index = site, settings, index
        self._seals = seals_of(settings, sizes_max=SIZES_MAX, chain_max=CHAIN_MAX)
        self.ledger = LiveLedger(
            settings.registry.names,
            site,
            partitions=settings.registry.partitions,
            auditors=[entry.name for entry in settings.registry.sites if entry.auditor],
            release=RELEASE,
            seals=self._seals,
            rows=index,
            salt=index.salt,
            beside=SealChain(site),
        )
        self._entrance = Entrance(self.ledger, LIVE_MANIFESTS_MAX)
        self._every_ms = every_ms
        self.counts = LiveCounts()
        self._trees: dict[JournalId, JournalTree] = {}
        self._starts: dict[LogPartition, int] = {}
        self._checks: list[_Check] = []
        self._is_dirty, self._is_loud = True, True
        """Whether anything was heard since the last round; whether more than announcements."""
        self._judged_s = -1e9
        self._began_ms = 0
        """When the first reading began."""

    @property
    def chain(self) -> SealChain:
        """The site's own seals."""
        chain: SealChain = self.ledger.beside
        return chain

    @property
    def trees(self) -> Mapping[JournalId, JournalTree]:
        """Of all journals of the cluster."""
        if len(self._trees) != self.ledger.partitions_heard:
            self._trees = self.ledger.trees(self.site)
        return self._trees

    @property
    def sealed_ms(self) -> dict[Site, int]:
        """Of each site that seals, when it last did."""
        return self._seals.last_ms

    # reading

    def go_on(self) -> None:
        """Stand where the index does. NeverWorks for one that is damaged."""
        if self._index.go_on(self.ledger):
            self._starts = self.ledger.next_offsets(self.site)
        self.chain.every(self._every_ms)

    def save(self) -> None:
        """Make what was heard and told the cut."""
        self._index.save(self.ledger, is_last=False)

    def close(self) -> None:
        """The same, for the last time: the next start has nothing to drop."""
        self._index.save(self.ledger)

    def read_on(self, found: Journals, tell: Tell, heard: Callable[[Record], None]) -> dict[LogPartition, int]:
        """All that stands there now, seals first; `heard` after each record. Where to read on.

        JournalChanged where a journal is shorter than what was read of it, or its last record another.
        """
        self._began_ms = _now_ms()
        self._note_bounds(found)
        lines, lost = unseen(self._settings, [found])
        for line in lines:
            tell(line)
        for site, topic in sorted(lost):
            self.ledger.lose(site, topic)
        for names in _in_order(found):
            tell(f"reading {len(names)} journals at {self.site}")
            before = {place: start - 1 for place, start in self._starts.items() if place[0] in names}
            for record in replay(self._settings, self.site, names, start=before):
                if record.offset >= self._starts.get((record.topic, record.partition), 0):
                    heard(record)
                else:
                    self._compare(record)
        return {**found.begins, **self.ledger.next_offsets(self.site)}

    def _note_bounds(self, found: Journals) -> None:
        with LogReader(self._settings, self.site) as reader:
            places = reader.partitions_of(found.present)
            found.begins.update(reader.begin_offsets(places))
            found.ends.update(reader.end_offsets(places))
        self.refuse_shorter(found.ends)

    def refuse_shorter(self, ends: Mapping[LogPartition, int]) -> None:
        """JournalChanged where a journal ends before what was read of it."""
        known = sorted(self.ledger.next_offsets(self.site).items())
        shorter = [(place, ends.get(place, 0), start) for place, start in known if ends.get(place, 0) < start]
        if shorter:
            (topic, partition), end, start = shorter[0]
            more = f" (and {len(shorter) - 1} more partitions are shorter)" if shorter[1:] else ""
            words = (
                f"{topic}[{partition}] of {self.site} ends at offset {end}, and was read to {start}{more}: was it "
                "deleted, or its cluster replaced?"
            )
            raise JournalChanged(Finding(Invariant.NO_GAP, Severity.BROKEN, words))

    def _compare(self, record: Record) -> None:
        place = LogPosition(self.site, *record[:3])
        if not self.ledger.is_as_read(place, leaf_of(record.key, record.value, record.headers or ())):
            words = f"{place} is not the record that was read there before"
            raise JournalChanged(Finding(Invariant.NO_GAP, Severity.BROKEN, words, (place,)))

    def hear(self, record: Record) -> m.JournalsSealed | m.SiteAnnounced | None:
        """The next record of its partition; returned are seals and announcements that are the site's own word."""
        place = LogPosition(self.site, *record[:3])
        self._entrance.enter(place, record)
        self.counts.records += 1
        self._is_dirty = True
        self._is_loud |= not record.topic.endswith(ANNOUNCEMENTS)
        if self.ledger.watches(place):
            self._locate(place, record)
        if record.topic not in _OWN_WORDS:
            return None
        try:
            said = wire.decode(record.topic, record.key, record.value, record.headers, self.site).message
        except WireError:  # a worker buries it
            return None
        if isinstance(said, m.JournalsSealed):
            return said if self._seals.hear(place, said, record.timestamp_ms) else None
        return said if isinstance(said, m.SiteAnnounced) else None

    # judging

    def first_news(self) -> list[Finding]:
        """What is to be told behind the first reading: it came to all that stood there, as an audit does."""
        found = self._fresh(self._began_ms, {})
        if found or self.ledger.must_look_up:
            self._look_up()
            found = self._fresh(self._began_ms, self._committed())
        return self._told(found)

    def news(self, now_s: float, ends: Callable[[], dict[LogPartition, int]]) -> list[Finding]:
        """What is to be told now. `now_s`: monotonic; `ends`: of all journals, as the cluster says now."""
        over = [check for check in self._checks if self._is_over(check, now_s)]
        if over:
            return self._checked(over)
        every_s = max(self._every_s, SHARE * self.counts.round_s)
        if now_s - self._judged_s < every_s:
            return []
        self._judged_s = now_s
        known = frozenset(name for check in self._checks for name in check.names)
        fresh = frozenset(map(name_of, self._fresh(_now_ms(), {}))) - known
        if (fresh or self.ledger.must_look_up) and len(self._checks) < CHECKS_MAX:
            began_ms, bounds = _now_ms(), ends()
            self.refuse_shorter(bounds)
            self._look_up()
            names = frozenset(map(name_of, self._fresh(began_ms, self._committed()))) - known
            self._checks += [_Check(names, began_ms, now_s, bounds)] if names else []
        return []

    @property
    def _every_s(self) -> float:
        return ROUND_S if self._is_loud else QUIET_S if self._is_dirty else IDLE_S

    def _is_over(self, check: _Check, now_s: float) -> bool:
        since_s = now_s - check.since_s
        if not SETTLED_S <= since_s < 3 * SETTLED_S:  # a mark of a transaction is at the end of some, and no record
            return since_s >= SETTLED_S
        here = self.ledger.next_offsets(self.site)
        return all(here.get(place, 0) >= end for place, end in check.ends.items())

    def _checked(self, over: list[_Check]) -> list[Finding]:
        self._checks = [check for check in self._checks if check not in over]
        found = self._fresh(min(check.began_ms for check in over), self._committed())
        names = frozenset(name for check in over for name in check.names)
        return self._told([finding for finding in found if name_of(finding) in names])

    def _told(self, findings: list[Finding]) -> list[Finding]:
        """Those that there is room to remember."""
        found = [finding for finding in findings if self.ledger.told.tell(finding, _now_ms())]
        self.counts.told.update((finding.invariant, finding.severity) for finding in found)
        return found

    def _fresh(self, began_ms: int, committed: Mapping[LogPartition, int]) -> list[Finding]:
        """Judge, and what was not told yet of it. What was written since `began_ms` may miss what it follows from."""
        started = time.process_time()
        findings = FindingList(began_ms, _now_ms(), moment=moment)
        places = {(self.site, *place): offset for place, offset in committed.items()}
        found = self.ledger.judge(began_ms, committed=places, findings=findings).findings
        self._is_dirty = self._is_loud = False
        self.counts.found = Counter((one.invariant, one.severity) for one in found)
        self.counts.judged_ms = findings.began_ms
        self.counts.round_s = time.process_time() - started
        return self.ledger.told.news(found, _now_ms())

    def _committed(self) -> dict[LogPartition, int]:
        """How far the workers have read, where that is told."""
        try:
            return committed_offsets(self._settings, self.site, worker_group(self._settings, self.site))
        except Transfer2goError:
            return {}

    def _look_up(self) -> None:
        """Find the records that gaps, contradictions, letters and contents speak of, among the last of each."""
        ends = self.ledger.next_offsets(self.site)
        wanted = {(topic, at) for site, topic, at in self.ledger.wanted() if site == self.site} & ends.keys()
        names = {topic for topic, _ in wanted}
        start = {place: end - LOOKED_BACK if place in wanted else end for place, end in ends.items()}
        try:
            for record in replay(self._settings, self.site, sorted(names), start=start) if names else ():
                if (record.topic, record.partition) in wanted:
                    self._locate(LogPosition(self.site, *record[:3]), record)
        except CLUSTER_AWAY:  # told without them
            return

    def _locate(self, place: LogPosition, record: Record) -> None:
        origin = origin_of(record.headers or ())
        if origin is not None:
            content = self.ledger.content_of(record.value)
            self.ledger.locate(place, origin, content, partial(_message, record, self.site))


def _message(record: Record, site: Site) -> m.Message | None:
    try:
        return wire.decode(record.topic, record.key, record.value, record.headers, site).message
    except WireError:
        return None


def _now_ms() -> int:
    return int(time.time() * 1000)


def _in_order(found: Journals) -> Iterator[list[str]]:
    """What is sealed is known before it is read; originals stand before copies."""
    for names in (found.own, found.copies):
        yield [name for name in names if split(name)[1] == SEALS]
    for names in (found.own, found.copies):
        yield [name for name in names if split(name)[1] != SEALS]


def journals_at(settings: Settings, site: Site) -> Journals:
    """What there is to read. NotFound where nothing can be sealed, NeverWorks for a cluster of another site."""
    found = find_journals(settings, site)
    refuse(settings, [found])
    if SEALS in found.missing:
        raise NotFound(f"no topic {SEALS} at {site}", next="run `transfer2go topic create`")
    return found


def index_of(settings: Settings, site: Site) -> Path:
    """Where a site's follower keeps its index."""
    return settings.state / site / "follow-index"
