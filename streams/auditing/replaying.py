"""The audit: every journal of every site through the gate into the ledger, and, if asked, a look at the disks.

Nothing is judged here (core/ledger does that) and nothing is ever written. Ends are noted first, those of seals before
the copies' and these before the originals', so that what is sealed was read, and whatever a copy holds was read at its
origin too. Seals are also read first, since trees keep roots of sizes that they were told of only. A copy that is bit
for bit a record already heard is not decoded again. Gaps and contradictions are looked up in a second reading of the
few partitions they stand in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from streams import wire
from streams.auditing.coverage import Journals, find_journals, kept_otherwise, refuse, refuse_unkept, unseen
from streams.auditing.disks import disks_reachable
from streams.auditing.entering import enter
from streams.auditing.origins import origin_of
from streams.auditing.pinned_keys import seals_of
from streams.auditing.storage import StorageTally, check_storage
from streams.core import records as m
from streams.core.ledger import Ledger
from streams.core.ledger.cuts import digest_of
from streams.core.ledger.findings import FindingList, Invariant, Judgement, LogPosition
from streams.core.ledger.stale import Staleness
from streams.core.names import Site
from streams.core.sampling import Sample
from streams.core.topics import SEALS, split
from streams.errors import Transfer2goError, WireError
from streams.kafka.reader import LogReader, Record, committed_offsets
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.wire.release import RELEASE

EXIT_CLEAN, EXIT_BROKEN, EXIT_INCOMPLETE = 0, 1, 5
"""A broken invariant is "other" in the table: trying again does not mend it, and it says nothing of what was asked."""
STALE_S = 3600.0
"""An open intent without news for so long should be looked at."""

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
    tell: Tell = lambda _: None,
) -> AuditReport:
    """Replay and judge. `sites`: whose clusters (and disks) to look at, default all; NotFound for an unknown one.

    NeverWorks where the registry and the clusters do not speak of the same federation (audit_coverage).
    `storage`: what sites hold is compared with their disks, both ways; of a `sample` of it contents are read.
    An open intent without news for `stale_s` is a finding; by default one without news for an hour is a note.
    `tell` hears what is being done, a line each. A site that cannot be read is reported, never raised.
    """
    began, is_now, now_ms = time.monotonic(), now_ms is None, int(time.time() * 1000) if now_ms is None else now_ms
    chosen = [settings.entry(site).name for site in sites] or list(settings.registry.names)
    reading = _Reading(settings, chosen, FindingList(now_ms, moment=_moment), tell)
    reading.note_ends()
    reading.check_coverage()
    reading.read()
    reading.look_up()
    seconds = time.monotonic() - began
    tally = None
    if storage:
        tell("reading files back")
        unread = set(chosen) - set(reading.readable)
        tally = check_storage(settings, chosen, reading.findings, sample=sample, now_ms=now_ms, unread=unread)
    if is_now:
        reading.findings.ended_ms = int(time.time() * 1000)
    committed = {(site, *place): o for site, told in reading.committed.items() for place, o in told.items()}
    staleness = Staleness(int((STALE_S if stale_s is None else stale_s) * 1000), stale_s is not None)
    judgement = reading.ledger.judge(now_ms, committed=committed, staleness=staleness, findings=reading.findings)
    return AuditReport(
        judgement,
        tuple(reading.readable),
        reading.unreachable,
        reading.records,
        seconds,
        tally,
        left_out=tuple(site for site in settings.registry.names if site not in chosen),
        strict=strict,
        disks_unread=() if storage else tuple(disks_reachable(settings, chosen)),
        digest=digest_of(reading.ledger.roots()),
    )


def _moment(at_ms: int) -> str:
    """A time in UTC; a number where no calendar has it: a forged date may be any."""
    try:
        return datetime.fromtimestamp(at_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms after 1970"


def worker_group(settings: Settings, site: Site) -> str:
    """The consumer group of a site's workers: Faust's app id, with the generation of their tables."""
    return f"transfer2go-{site}-v{settings.registry.generation}"


def _seals(topics: Iterable[str]) -> list[str]:
    return [topic for topic in topics if split(topic)[1] == SEALS]


def _but_seals(topics: Iterable[str]) -> list[str]:
    return [topic for topic in topics if split(topic)[1] != SEALS]


class _Reading:
    """One pass over all journals, and a narrow second one."""

    def __init__(self, settings: Settings, chosen: list[Site], findings: FindingList, tell: Tell) -> None:
        self.settings, self.findings, self.tell = settings, findings, tell
        self.unreachable: dict[Site, str] = {}
        self.committed: dict[Site, dict[tuple[str, int], int]] = {}
        self.records = 0
        self.sites: list[Journals] = []
        for site in chosen:
            self._try(site, partial(self._find, site))
        refuse(settings, self._found)
        self.ledger = Ledger(
            settings.registry.names,
            partitions=settings.registry.partitions,
            read=self.readable,
            auditors=[entry.name for entry in settings.registry.sites if entry.auditor],
            release=RELEASE,
            seals=seals_of(settings),
        )

    @property
    def _found(self) -> list[Journals]:
        return [journals for journals in self.sites if journals.site not in self.unreachable]

    @property
    def readable(self) -> list[Site]:
        return [journals.site for journals in self._found]

    def _try(self, site: Site, read: Callable[[], None]) -> None:
        try:
            read()
        except Transfer2goError as error:
            self.unreachable.setdefault(site, str(error))

    def _find(self, site: Site) -> None:
        self.sites.append(find_journals(self.settings, site))

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

            self._each(self._note_committed)
            self._each(connect)
            self._each(lambda found: ends(found, _seals(found.present)))
            self._each(lambda found: ends(found, _but_seals(found.copies)))
            self._each(lambda found: ends(found, _but_seals(found.own)))

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
        self._each(lambda found: self._replay(found, _seals(found.own)))
        self._each(lambda found: self._replay(found, _seals(found.copies)))
        self._each(lambda found: self._replay(found, _but_seals(found.own)))
        self._each(lambda found: self._replay(found, _but_seals(found.copies)))
        self.ledger.lose_renewed(self.findings)

    def _replay(self, found: Journals, topics: list[str]) -> None:
        if not topics:
            return
        self.tell(f"reading {len(topics)} journals at {found.site}")
        for record in replay(self.settings, found.site, topics):
            self._fold(found, record)

    def _fold(self, found: Journals, record: Record) -> None:
        place = LogPosition(found.site, *record[:3])
        if place.offset >= found.ends[place.topic, place.partition]:
            return
        self.records += 1
        enter(self.ledger, place, record)

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
            if origin is not None:
                place = LogPosition(site, *record[:3])
                self.ledger.locate(place, origin, hash(record.value), partial(_message, record, site))


def _message(record: Record, site: Site) -> m.Message | None:
    try:
        return wire.decode(record.topic, record.key, record.value, record.headers, site).message
    except WireError:
        return None
