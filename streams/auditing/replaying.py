"""The audit: every journal of every site through the gate into the ledger, and, if asked, a look at the disks.

Nothing is judged here (core/ledger does that) and nothing is ever written. Ends are noted first, those of seals before
the copies' and these before the originals', so that what is sealed was read, and whatever a copy holds was read at its
origin too. Seals are also read first, since trees keep roots of sizes that they were told of only, and manifests before
what repeats them. A copy that is bit for bit a record already heard is not decoded again, nor is a manifest in a plan.
Gaps and contradictions are looked up in a second reading of the
few partitions they stand in.

Facts lie in an index (index.py): an audit of the whole federation goes on where the last one stopped, and judges again
what was heard of since, and what had not ended.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from streams import wire
from streams.auditing.coverage import Journals, find_journals, kept_otherwise, refuse, refuse_unkept, unseen
from streams.auditing.digesting import Cut
from streams.auditing.disks import disks_reachable
from streams.auditing.entering import Entrance, few_collections
from streams.auditing.index import AuditIndex, RowsOver, open_index
from streams.auditing.origins import origin_of
from streams.auditing.pinned_keys import seals_of
from streams.auditing.points import Instant, KeptCut, PastPoint
from streams.auditing.processes import in_processes
from streams.auditing.storage import StorageTally, check_storage
from streams.core import records as m
from streams.core.ledger import Ledger
from streams.core.ledger.cuts import JournalRoot, digest_of
from streams.core.ledger.findings import CLOCK_TOLERANCE_MS, FindingList, Invariant, Judgement, LogPosition
from streams.core.ledger.shares import Share
from streams.core.ledger.stale import Staleness
from streams.core.ledger.traffic import DAY_MS, Traffic
from streams.core.ledger.trees import leaf_of
from streams.core.names import Site
from streams.core.sampling import Sample
from streams.core.topics import MANIFESTS, SEALS, split
from streams.errors import NeverWorks, Transfer2goError, WireError
from streams.kafka.reader import LogReader, Record, committed_offsets
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.wire.release import RELEASE

EXIT_CLEAN, EXIT_BROKEN, EXIT_INCOMPLETE = 0, 1, 5
"""A broken invariant is "other" in the table: trying again does not mend it, and it says nothing of what was asked."""
STALE_S = 3600.0
"""An open intent without news for so long should be looked at."""

SAVED_EACH = 1_000_000
"""Records after which a cut is made, so that an audit that is killed goes on there."""
_ANEW = "`transfer2go audit --fresh` reads all journals again"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was read, what it amounts to. `unreachable`: sites that could not be read whole, and why."""

    judgement: Judgement
    sites: tuple[Site, ...]
    unreachable: Mapping[Site, str]
    records: int
    seconds: float
    storage: StorageTally | None
    left_out: tuple[Site, ...] = ()
    """Sites of the federation that were not asked for."""
    strict: bool = False
    """Whether notes count as findings."""
    disks_unread: tuple[Site, ...] = ()
    """Sites whose disks are in reach and were not asked for."""
    digest: str = ""
    """Of all that was read, as `audit digest` tells it."""
    known: int = 0
    """Records that earlier audits had read."""
    journals: tuple[JournalRoot, ...] = ()
    """What was read, as `audit digest` tells it."""
    sealed_ms: Mapping[Site, int] = field(default_factory=dict)
    """Of each site of which a seal was read, when it sealed last."""
    traffic: Traffic | None = None
    """What arrived over each link in the last days, where that was asked for."""

    @property
    def is_complete(self) -> bool:
        """Whether everything that was asked for could be looked at."""
        looked = not self.unreachable and not self.judgement.unseen
        return looked and (self.storage is None or not self.storage.unreachable)

    @property
    def exit_code(self) -> int:
        if self.judgement.broken or (self.strict and self.judgement.notes):
            return EXIT_BROKEN
        return EXIT_CLEAN if self.is_complete else EXIT_INCOMPLETE


def audit(
    settings: Settings,
    *,
    sites: Iterable[Site] = (),
    storage: bool = False,
    sample: Sample | None = None,
    stale_s: float | None = None,
    strict: bool = False,
    now_ms: int | None = None,
    index: Path | None = None,
    fresh: bool = False,
    until: PastPoint | None = None,
    processes: int = 1,
    traffic_days: int = 0,
    tell: Tell = lambda _: None,
) -> AuditReport:
    """Replay and judge. `sites`: whose clusters (and disks) to look at, default all; NotFound for an unknown one.

    NeverWorks where the registry and the clusters do not speak of the same federation (audit_coverage).
    `storage`: what sites hold is compared with their disks, both ways; of a `sample` of it contents are read.
    An open intent without news for `stale_s` is a finding; by default one without news for an hour is a note.
    `index`: where facts are kept, so that the next audit of the federation goes on; by default they are thrown away.
    `fresh`: what is kept there is thrown away first. Temporary where another audit is at work on it, or its disk is
    full; NeverWorks where it is of something else.
    `until`: judged as the journals stood then, from their first records, in an index of its own; a kept cut is also
    compared with what was read. Disks are looked at as they are now, so not `storage` with it.
    `processes`: so many read; what is found does not depend on their number.
    `traffic_days`: of so many days, today the last, it is counted what arrived over each link.
    `tell` hears what is being done, a line each. A site that cannot be read is reported, never raised.
    """
    began, is_now, now_ms = time.monotonic(), now_ms is None, int(time.time() * 1000) if now_ms is None else now_ms
    chosen = [settings.entry(site).name for site in sites] or list(settings.registry.names)
    found = _Found.at(settings, chosen)
    findings = FindingList(now_ms, moment=moment)
    index = None if until is not None else index
    with _indexed(settings, found.journals, index, fresh) as kept:
        reading = _Reading(settings, found, kept, index is not None, findings, tell, until)
        reading.go_on()
        reading.note_ends()
        reading.check_coverage()
        processes = min(processes, settings.registry.partitions)
        if processes > 1:
            reading.read_in_shares(processes)
        else:
            reading.read()
        reading.ledger.lose_renewed(findings)
        reading.look_up()
        seconds = time.monotonic() - began
        tally = None
        if storage:
            tell("reading files back")
            unread = set(chosen) - set(reading.readable)
            tally = check_storage(settings, chosen, findings, sample=sample, now_ms=now_ms, unread=unread)
        if is_now:
            findings.ended_ms = int(time.time() * 1000)
        roots = tuple(reading.ledger.roots())
        if until is not None:
            now_ms = _judged_as_of(until, findings)
            if isinstance(until, KeptCut):
                _compare(until.cut, roots, set(reading.readable), findings)
        committed = {(site, *place): o for site, told in reading.committed.items() for place, o in told.items()}
        staleness = Staleness(int((STALE_S if stale_s is None else stale_s) * 1000), stale_s is not None)
        judgement = reading.ledger.judge(
            now_ms, committed=committed, staleness=staleness, findings=findings, lengths=until is None
        )
        traffic = reading.ledger.traffic(now_ms // DAY_MS, traffic_days) if traffic_days else None
        if index is not None:
            kept.save(reading.ledger)
    return AuditReport(
        judgement,
        tuple(reading.readable),
        reading.unreachable,
        reading.records,
        seconds,
        tally,
        left_out=tuple(site for site in settings.registry.names if site not in chosen),
        strict=strict,
        disks_unread=() if storage or until is not None else tuple(disks_reachable(settings, chosen)),
        digest=digest_of(roots),
        known=reading.known,
        journals=roots,
        sealed_ms=reading.ledger.sealed_ms,
        traffic=traffic,
    )


def _judged_as_of(until: PastPoint, findings: FindingList) -> int:
    """When reading "began" (ms): whatever follows from a record that was left out may miss it.

    Clocks of two brokers may differ, so that holds for what is a little older too.
    """
    if isinstance(until, Instant):
        findings.ended_ms = until.at_ms
    elif findings.ended_ms is None:
        findings.ended_ms = findings.began_ms
    now_ms = until.at_ms if isinstance(until, Instant) else findings.began_ms
    now_ms = min(now_ms, now_ms if until.left_out_ms is None else until.left_out_ms)
    findings.began_ms = now_ms - CLOCK_TOLERANCE_MS
    return now_ms


def _compare(cut: Cut, roots: Iterable[JournalRoot], read: Collection[Site], findings: FindingList) -> None:
    """Journals must be as the cut has them; of those whose site was not read that may be unknown."""
    now, lacking = {one.journal: one for one in roots}, 0
    for journal, then in sorted(cut.journals.items()):
        found = now.get(journal)
        if not then.size or found == then:
            continue
        if journal.site in read or (found is not None and found.size == then.size):
            findings.find(Invariant.SEAL, f"{journal} is not as the cut has it: rewritten, or records are gone")
        else:
            lacking += 1
    if lacking:
        findings.unseen.append(f"of {lacking} journals of the cut not all that it counts was read")


@contextmanager
def _indexed(settings: Settings, found: Iterable[Journals], path: Path | None, fresh: bool) -> Iterator[AuditIndex]:
    """The index at `path`, or one of a moment."""
    identity = identity_of(settings, found)
    with ExitStack() as stack:
        if path is None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="t2g-audit-")))
        yield stack.enter_context(open_index(path, identity, fresh=fresh))


def identity_of(settings: Settings, found: Iterable[Journals]) -> dict[str, str]:
    """What an index of these clusters is of, each in words."""
    pinned = sorted((e.name, e.root_key.hex(), sorted(e.revoked_keys.items())) for e in settings.registry.sites)
    return {
        "release": str(RELEASE),
        "sites": ", ".join(sorted(settings.registry.names)),
        "partitions": str(settings.registry.partitions),
        "root keys": hashlib.sha256(repr(pinned).encode()).hexdigest()[:16],
        **{f"cluster at {one.site}": one.cluster.id for one in found if one.cluster.id},
    }


def moment(at_ms: int) -> str:
    """A time in UTC; a number where no calendar has it: a forged date may be any."""
    try:
        return datetime.fromtimestamp(at_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms after 1970"


def worker_group(settings: Settings, site: Site) -> str:
    """The consumer group of a site's workers: Faust's app id, with the generation of their tables."""
    return f"transfer2go-{site}-v{settings.registry.generation}"


def _only(base: str, topics: Iterable[str]) -> list[str]:
    return [topic for topic in topics if split(topic)[1] == base]


def _but(topics: Iterable[str], *bases: str) -> list[str]:
    return [topic for topic in topics if split(topic)[1] not in bases]


class _Changed(NeverWorks):
    """A journal is not what the index has read of it."""


@dataclass(slots=True)
class _Found:
    """What there is to read of each site, or why not."""

    journals: list[Journals] = field(default_factory=list)
    unreachable: dict[Site, str] = field(default_factory=dict)

    @classmethod
    def at(cls, settings: Settings, chosen: Iterable[Site]) -> Self:
        """NeverWorks where it is not of the federation."""
        found = cls()
        for site in chosen:
            try:
                found.journals.append(find_journals(settings, site))
            except Transfer2goError as error:
                found.unreachable[site] = str(error)
        refuse(settings, found.journals)
        return found


@dataclass(frozen=True, slots=True)
class _Part:
    """What one of several processes reads: a share of the partitions, and all seals, into an index at `path`.

    It goes on from `kept`, over the rows of the index at `under`.
    """

    settings: Settings
    found: _Found
    share: Share
    path: Path
    salt: bytes
    under: Path
    kept: tuple[Any, ...]
    until: PastPoint | None


@dataclass(frozen=True, slots=True)
class _PartRead:
    """What its ledger knew, beside the rows at its path."""

    kept: tuple[Any, ...]
    unreachable: Mapping[Site, str]
    until: PastPoint | None


def _read_part(part: _Part) -> _PartRead:
    part.path.mkdir(parents=True)
    rows = RowsOver(AuditIndex(part.path, part.salt), part.under)
    try:
        findings = FindingList(0)  # nothing is found while reading
        reading = _Reading(part.settings, part.found, rows, False, findings, lambda _: None, part.until, part.share)
        reading.ledger.go_on(part.kept)
        reading.ledger.hear_a_share()
        reading.note_starts()
        reading.read()
        kept = reading.ledger.kept()
        rows.own.flush()
    finally:
        rows.close()
    return _PartRead(kept, part.found.unreachable, part.until)


class _Reading:
    """One pass over all journals, from where `index` stands, and a narrow second one."""

    def __init__(
        self,
        settings: Settings,
        found: _Found,
        index: AuditIndex | RowsOver,
        keeps: bool,
        findings: FindingList,
        tell: Tell,
        until: PastPoint | None = None,
        share: Share | None = None,
    ) -> None:
        """`keeps`: whether the index outlives this audit. `share`: the partitions to read, but for seals; else all."""
        self.settings, self.findings, self.tell, self._until = settings, findings, tell, until
        self._wanted = found
        self._partitions = None if share is None else [p for p in range(settings.registry.partitions) if p in share]
        self.unreachable, self._journals, self._rows = found.unreachable, found.journals, index
        self.committed: dict[Site, dict[tuple[str, int], int]] = {}
        self.records = self.known = 0
        self._starts: dict[Site, dict[tuple[str, int], int]] = {}
        """Where each journal is read on; nothing of those that are read from their first record."""
        self._next_cut = SAVED_EACH if keeps else None
        self.ledger = Ledger(
            settings.registry.names,
            partitions=settings.registry.partitions,
            read=self.readable,
            auditors=[entry.name for entry in settings.registry.sites if entry.auditor],
            release=RELEASE,
            seals=seals_of(settings),
            rows=index,
            salt=index.salt,
        )
        self._entrance = Entrance(self.ledger)

    def go_on(self) -> None:
        """Stand where the last audit of this index stopped."""
        if self._index.go_on(self.ledger):
            self.note_starts()

    def note_starts(self) -> None:
        """Where the ledger stands now: only what is behind that is read."""
        self.known = self.ledger.records
        self._starts = {found.site: self.ledger.next_offsets(found.site) for found in self._journals}

    @property
    def _index(self) -> AuditIndex:
        """Of an audit as a whole."""
        assert isinstance(self._rows, AuditIndex)
        return self._rows

    @property
    def _found(self) -> list[Journals]:
        return [journals for journals in self._journals if journals.site not in self.unreachable]

    @property
    def readable(self) -> list[Site]:
        return [journals.site for journals in self._found]

    def _try(self, site: Site, read: Callable[[], None]) -> None:
        try:
            read()
        except Transfer2goError as error:
            if error is self._rows.fault or isinstance(error, _Changed):
                raise
            self.unreachable.setdefault(site, str(error))

    def _each(self, read: Callable[[Journals], None]) -> None:
        for journals in self._found:
            self._try(journals.site, partial(read, journals))
            if journals.site in self.unreachable:
                self.ledger.lose(journals.site)

    def note_ends(self) -> None:
        """How far workers got, then the ends of the seals, of the copies, of the originals.

        What is written between the two looks is in flight: whatever takes time is done before the first.
        """
        readers: dict[Site, LogReader] = {}

        def ends(found: Journals, topics: Iterable[str]) -> None:
            wanted = set(topics)
            places = [place for place in found.begins if place[0] in wanted]
            found.ends.update(readers[found.site].end_offsets(places))

        with ExitStack() as opened:

            def connect(found: Journals) -> None:
                reader = readers[found.site] = opened.enter_context(LogReader(self.settings, found.site))
                found.begins.update(reader.begin_offsets(reader.partitions_of(found.present)))

            if self._until is None:  # what workers have read by now says nothing of then
                self._each(self._note_committed)
            self._each(connect)
            self._each(lambda found: ends(found, _only(SEALS, found.present)))
            self._each(lambda found: ends(found, _but(found.copies, SEALS)))
            self._each(lambda found: ends(found, _but(found.own, SEALS)))
        self._each(self._refuse_shorter)

    def _refuse_shorter(self, found: Journals) -> None:
        for (topic, partition), start in self._starts.get(found.site, {}).items():
            end = found.ends.get((topic, partition), 0)
            if end < start:
                raise _Changed(
                    f"{topic}[{partition}] of {found.site} ends at offset {end}, the last audit had read it to {start}",
                    str(self._rows.path),
                    f"was it deleted, or its cluster replaced? {_ANEW}",
                )

    def _note_committed(self, found: Journals) -> None:
        site = found.site
        try:
            self.committed[site] = committed_offsets(self.settings, site, worker_group(self.settings, site))
        except Transfer2goError:
            self.findings.cannot(Invariant.NOT_SILENT, f"how far the workers of {site} have read: not told")

    def check_coverage(self) -> None:
        """Before anything is read: what cannot be seen is told, and proves nothing by being absent."""
        unkept: list[str] = []
        self._each(lambda found: unkept.extend(kept_otherwise(self.settings, found.site, self.findings)))
        refuse_unkept(unkept)
        lines, lost = unseen(self.settings, self._found)
        self.findings.unseen += lines
        for site, topic in sorted(lost):
            self.ledger.lose(site, topic)

    def read(self) -> None:
        with few_collections():
            self._read()

    def _read(self) -> None:
        self._each(lambda found: self._replay(found, _only(SEALS, found.own)))
        self._each(lambda found: self._replay(found, _only(SEALS, found.copies)))
        self._each(lambda found: self._replay(found, _only(MANIFESTS, found.own), self._partitions))
        self._each(lambda found: self._replay(found, _but(found.own, SEALS, MANIFESTS), self._partitions))
        self._each(lambda found: self._replay(found, _but(found.copies, SEALS), self._partitions))

    def read_in_shares(self, processes: int) -> None:
        """Read by so many processes, each its share from where the ledger stands."""
        self.tell(f"reading the journals of {len(self._found)} sites in {processes} processes")
        beside = self._index.path / "shares"
        shutil.rmtree(beside, ignore_errors=True)  # of an audit that was killed
        kept = self.ledger.kept()
        self._index.flush()
        under, salt = self._index.path, self._index.salt
        shares = [Share(no, processes) for no in range(processes)]
        parts = [
            _Part(self.settings, self._wanted, one, beside / str(one.no), salt, under, kept, self._until)
            for one in shares
        ]
        try:
            what = f"{processes} processes to read the journals"
            for part, read in zip(parts, in_processes(_read_part, parts, what), strict=True):
                self._absorb(part, read)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        self.records = self.ledger.records - self.known

    def _absorb(self, part: _Part, read: _PartRead) -> None:
        rows = AuditIndex(part.path, part.salt)
        try:
            self.ledger.absorb(read.kept, rows, part.share)
        finally:
            rows.close()
        if self._until is not None and read.until is not None:
            self._until.absorb(read.until)
        for site, why in read.unreachable.items():
            if site not in self.unreachable:
                self.unreachable[site] = why
                self.ledger.lose(site)

    def _replay(self, found: Journals, topics: list[str], partitions: Iterable[int] | None = None) -> None:
        if not topics:
            return
        self.tell(f"reading {len(topics)} journals at {found.site}")
        starts = self._starts.get(found.site, {})
        # The last record that was read is read once more, to see that it is still the one.
        before = {place: start - 1 for place, start in starts.items() if place[0] in topics}
        for record in replay(self.settings, found.site, topics, partitions=partitions, start=before):
            if record.offset < starts.get((record.topic, record.partition), 0):
                self._compare(LogPosition(found.site, *record[:3]), record)
            else:
                self._fold(found, record)

    def _compare(self, place: LogPosition, record: Record) -> None:
        if not self.ledger.is_as_read(place, leaf_of(record.key, record.value, record.headers or ())):
            raise _Changed(f"{place} is not the record that the last audit read there", str(self._rows.path), _ANEW)

    def _fold(self, found: Journals, record: Record) -> None:
        place = LogPosition(found.site, *record[:3])
        if place.offset >= found.ends[place.topic, place.partition]:
            return
        if self._until is not None and not self._until.takes(place.site, record):
            return
        self.records += 1
        self._entrance.enter(place, record)
        if self._next_cut is not None and self.records >= self._next_cut:
            self._next_cut += SAVED_EACH
            self._index.save(self.ledger, is_last=False)

    def look_up(self) -> None:
        """Find the records that gaps, contradictions, letters and contents speak of."""
        wanted_in = self.ledger.wanted()
        if wanted_in:
            self.tell(f"looking up records in {len(wanted_in)} partitions")
        for site, topic, partition in wanted_in:
            if site not in self.unreachable:
                self._try(site, partial(self._locate, site, topic, partition))

    def _locate(self, site: Site, topic: str, partition: int) -> None:
        for record in replay(self.settings, site, [topic], partitions=[partition]):
            origin = origin_of(record.headers or ())
            place = LogPosition(site, *record[:3])
            if origin is not None and (self._until is None or place.offset < self._until.ends.get(place[:3], 0)):
                content = self.ledger.content_of(record.value)
                self.ledger.locate(place, origin, content, partial(_message, record, site))


def _message(record: Record, site: Site) -> m.Message | None:
    try:
        return wire.decode(record.topic, record.key, record.value, record.headers, site).message
    except WireError:
        return None
