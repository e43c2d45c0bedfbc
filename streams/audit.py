"""The audit: every journal of every site through the gate into the ledger, and, if asked, a look at the disks.

Nothing is judged here (core/ledger does that) and nothing is ever written. Ends are noted first, the copies' before the
originals', so that whatever a copy holds was read at its origin too. A copy that is bit for bit a record already heard
is not decoded again. Gaps and contradictions are looked up in a second reading of the few partitions they stand in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from streams import waits, wire
from streams.audit_registered import check_registered
from streams.audit_storage import Disks, StorageTally, check_completed
from streams.core import messages as m
from streams.core.ledger import Docket, Invariant, Judgement, Ledger, Place, Staleness
from streams.core.manifest import digest
from streams.core.names import Site
from streams.core.topics import Retention, wanted
from streams.errors import Transfer2goError, WireError
from streams.kafka import admin, groups
from streams.kafka.reader import Record
from streams.kafka.replay import end_offsets, replay
from streams.settings import Settings

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

    @property
    def is_complete(self) -> bool:
        """Whether everything that was asked for could be looked at."""
        return not self.unreachable and (self.storage is None or not self.storage.unreachable)

    @property
    def exit_code(self) -> int:
        if self.judgement.broken:
            return EXIT_BROKEN
        return EXIT_CLEAN if self.is_complete else EXIT_INCOMPLETE


@dataclass(slots=True)
class _Site:
    """A site's journals that exist, and the offset after the last record of each partition, as noted at the start."""

    name: Site
    own: list[str]
    copies: list[str]
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    committed: dict[tuple[str, int], int] | None = None


def _ignore(_line: str) -> None:
    pass


def audit(
    settings: Settings,
    *,
    sites: Iterable[Site] = (),
    storage: bool = False,
    registered: bool = False,
    stale_s: float | None = None,
    now_ms: int | None = None,
    clock: Callable[[], float] = time.monotonic,
    tell: Tell = _ignore,
) -> AuditReport:
    """Replay and judge. `sites`: whose clusters (and disks) to look at, default all; NotFound for an unknown one.

    `storage`: completed files are read back, and with `registered` also what sites have registered.
    An open intent without news for `stale_s` is a finding; by default one without news for an hour is a note.
    `tell` hears what is being done, a line each. A site that cannot be read is reported, never raised.
    """
    began, now_ms = clock(), int(time.time() * 1000) if now_ms is None else now_ms
    chosen = [settings.entry(site).name for site in sites] or list(settings.registry.names)
    reading = _Reading(settings, chosen, Docket(now_ms), tell)
    reading.note_ends()
    reading.read()
    reading.look_up()
    seconds = clock() - began
    tally = None
    if storage:
        tell("reading files back")
        tally = _read_back(reading, chosen, registered)
    committed = {(s.name, *place): o for s in reading.sites for place, o in (s.committed or {}).items()}
    staleness = Staleness(int((STALE_S if stale_s is None else stale_s) * 1000), stale_s is not None, _moment)
    judgement = reading.ledger.judge(now_ms, committed=committed, staleness=staleness, docket=reading.docket)
    return AuditReport(judgement, tuple(reading.readable), reading.unreachable, reading.records, seconds, tally)


def _read_back(reading: _Reading, chosen: list[Site], registered: bool) -> StorageTally:
    settings, readable, docket = reading.settings, reading.readable, reading.docket
    files = None
    with waits.on("files to be read back") as wait, closing(Disks(settings, docket, wait)) as disks:
        check_completed(settings, disks, reading.ledger, readable, chosen, docket)
        if registered:
            files = check_registered(settings, disks, readable, chosen, docket)
        else:
            docket.cannot(Invariant.NO_LIE, "files that sites have registered: not to be read")
        return disks.tally(files)


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def worker_group(settings: Settings, site: Site) -> str:
    """The consumer group of a site's workers: Faust's app id, with the generation of their tables."""
    return f"transfer2go-{site}-v{settings.registry.generation}"


class _Reading:
    """One pass over all journals, and a narrow second one."""

    def __init__(self, settings: Settings, chosen: list[Site], docket: Docket, tell: Tell) -> None:
        self.settings, self.docket, self.tell = settings, docket, tell
        self.unreachable: dict[Site, str] = {}
        self.records = 0
        self.sites: list[_Site] = []
        for site in chosen:
            self._try(site, partial(self._find_journals, site))
        self.ledger = Ledger(
            settings.registry.names,
            digest,
            partitions=settings.registry.partitions,
            read=self.readable,
            auditors=[entry.name for entry in settings.registry.sites if entry.auditor],
        )

    @property
    def readable(self) -> list[Site]:
        return [site.name for site in self.sites if site.name not in self.unreachable]

    def _try(self, site: Site, read: Callable[[], None]) -> None:
        try:
            read()
        except Transfer2goError as error:
            self.unreachable.setdefault(site, str(error))

    def _each(self, read: Callable[[_Site], None]) -> None:
        for site in self.sites:
            if site.name not in self.unreachable:
                self._try(site.name, partial(read, site))
                if site.name in self.unreachable:
                    self.ledger.lose(site.name)

    def _find_journals(self, site: Site) -> None:
        settings = self.settings
        known = admin.partition_counts(settings, site)
        peers = [name for name in settings.registry.names if name != site]
        names = [
            topic.name
            for topic in wanted(site, peers, auditor=settings.entry(site).auditor)
            if topic.retention is Retention.JOURNAL
        ]
        missing = [name for name in names if name not in known]
        if missing:
            self.docket.cannot(Invariant.NO_GAP, f"journals that do not exist at {site}", len(missing))
        there = [name for name in names if name in known]
        self.sites.append(_Site(site, [n for n in there if "." not in n], [n for n in there if "." in n]))

    def note_ends(self) -> None:
        """How far workers got, then the ends of the copies, then those of the originals."""

        def copies(site: _Site) -> None:
            site.ends.update(end_offsets(self.settings, site.name, site.copies, committed=True))

        def own(site: _Site) -> None:
            site.ends.update(end_offsets(self.settings, site.name, site.own, committed=True))

        self._each(self._note_committed)
        self._each(copies)
        self._each(own)

    def _note_committed(self, site: _Site) -> None:
        try:
            site.committed = groups.committed_offsets(self.settings, site.name, worker_group(self.settings, site.name))
        except Transfer2goError:
            self.docket.cannot(Invariant.NOT_SILENT, f"how far the workers of {site.name} have read: not told")

    def read(self) -> None:
        self._each(lambda site: self._replay(site, site.own))
        self._each(lambda site: self._replay(site, site.copies))

    def _replay(self, site: _Site, topics: list[str]) -> None:
        if not topics:
            return
        self.tell(f"reading {len(topics)} journals at {site.name}")
        for record in replay(self.settings, site.name, topics):
            self._fold(site, record)

    def _fold(self, site: _Site, record: Record) -> None:
        place = Place(site.name, *record[:3])
        if place.offset >= site.ends[place.topic, place.partition]:
            return
        self.records += 1
        headers = record.headers or ()
        whole = hash((record.key, record.value, *headers))
        if "." in place.topic:
            known = _origin(headers)
            if known is not None and self.ledger.copy(place, known, whole):
                return
        try:
            heard = wire.decode(place.topic, record.key, record.value, headers, site.name)
        except WireError as error:
            self.ledger.refuse(place, error.what, record.timestamp_ms, _origin(headers), whole)
        else:
            self.ledger.hear(place, heard.origin, heard.message, hash(record.value), whole, record.timestamp_ms)

    def look_up(self) -> None:
        """Find the records that gaps and contradictions speak of."""
        wanted_in = self.ledger.wanted()
        if wanted_in:
            self.tell(f"looking up {sum(map(len, wanted_in.values()))} records in {len(wanted_in)} partitions")
        for site, topic, partition in wanted_in:
            if site not in self.unreachable:
                self._try(site, partial(self._locate, site, topic, partition))

    def _locate(self, site: Site, topic: str, partition: int) -> None:
        for record in replay(self.settings, site, [topic], partitions=[partition]):
            origin = _origin(record.headers or ())
            if origin is not None:
                self.ledger.locate(Place(site, *record[:3]), origin)


def _origin(headers: wire.Headers) -> m.Origin | None:
    """The origin header alone, if there is a legal one."""
    for name, value in headers:
        if name == wire.ORIGIN and value is not None:
            try:
                return wire.decode_value(m.Origin, value)
            except WireError:
                return None
    return None
