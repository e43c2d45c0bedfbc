"""`audit tables`: every table folded anew from the topics, byte for byte against what the workers keep. Read-only.

1. How far the workers have committed is noted; then the ends of their changelogs, and their directories are opened;
   then the ends of their journals. A commit is made when the changelog has what it stands for, so the tables are folds
   of all records before the first places, and of none behind the last.
2. The changelogs are read, the last row of each key kept, and the journals are folded up to those ends.
3. What was heard between the two is not known: of an intent or a transfer with such a record nothing is compared. Of
   workers at rest there is none.
4. How far they have committed is noted again: who has not passed those ends by then lags, or is not there.

A directory's tables are compared where they are as far as the changelog; others are of a worker that had the partition
before, and are read on before anything is asked of them. Views say themselves how far they have read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from streams.auditing import catalogue_fold, worker_directories
from streams.auditing.coverage import Journals, find_journals, refuse, unseen
from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE, worker_group
from streams.auditing.table_comparing import Comparison, RowDifference, TableComparer, TableTally
from streams.auditing.table_fold import NoRoom, TableFold, place_of, room, row_key, table_prefix
from streams.auditing.worker_directories import WorkerDirectory
from streams.core import topics
from streams.core.ledger.findings import LogPosition
from streams.core.names import Site
from streams.core.topics import LogPartition
from streams.errors import NeverWorks, NotFound, Temporary, Transfer2goError
from streams.kafka.reader import LogReader, Record, committed_offsets
from streams.kafka.replay import replay
from streams.settings import Settings, generation_in_words
from streams.views import rows as views
from streams.views import scratch
from streams.views.view import FORMAT as VIEW_FORMAT
from streams.worker import rows

Tell = Callable[[str], None]

CHANGELOG = "changelog"
_LIVE = b"L"
_PUT = struct.Struct(">Q?")
"""Offset of a key's last record in the changelog, and whether that holds a row."""


@dataclass
class TablesReport:
    """What was compared, and what could not be.

    `unreachable`: sites that could not be read, and why. `unseen`: what has to be seen and was not, a line each.
    `remarks`: what is as it should be, and was not compared.
    """

    sites: tuple[Site, ...]
    comparison: Comparison = field(default_factory=Comparison)
    unreachable: dict[Site, str] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    records: int = 0

    @property
    def tallies(self) -> list[TableTally]:
        return self.comparison.tallies

    @property
    def differences(self) -> list[RowDifference]:
        """The first ten."""
        return self.comparison.differences

    @property
    def exit_code(self) -> int:
        if self.comparison.different:
            return EXIT_BROKEN
        return EXIT_INCOMPLETE if self.unreachable or self.unseen else EXIT_CLEAN


def audit_tables(settings: Settings, *, sites: Iterable[Site] = (), tell: Tell = lambda _: None) -> TablesReport:
    """Of `sites`, by default all: what their workers keep, against what their journals give.

    NotFound for a site that the federation does not have; NeverWorks where the registry and the clusters do not speak
    of the same federation; Temporary where the temporary directory is full. A site that cannot be read is reported.
    """
    chosen = [settings.entry(site).name for site in sites] or list(settings.registry.names)
    report = TablesReport(tuple(chosen))
    found: list[Journals] = []
    for site in chosen:
        try:
            found.append(find_journals(settings, site))
        except Transfer2goError as error:
            report.unreachable[site] = str(error)
    refuse(settings, found)
    for journals in found:
        try:
            with room(), ExitStack() as opened:
                _Site(settings, journals, report, opened, tell).run()
        except Transfer2goError as error:
            if isinstance(error, NoRoom):
                raise
            report.unreachable[journals.site] = str(error)
    report.unseen += unseen(settings, [one for one in found if one.site not in report.unreachable])[0]
    return report


class _Site:
    """One site: its changelogs, its journals, and the directories of its workers that are here."""

    def __init__(
        self, settings: Settings, journals: Journals, report: TablesReport, opened: ExitStack, tell: Tell
    ) -> None:
        self._settings, self._journals, self._report = settings, journals, report
        self._opened, self._tell = opened, tell
        self.site = journals.site
        self._partitions = settings.registry.partitions
        self._peers = settings.registry.peers_of(self.site)
        self._group = worker_group(settings, self.site)
        self._changelogs = {name: f"{self._group}-{name}-changelog" for name in rows.NAMES}
        self._db: Any = opened.enter_context(scratch.database())
        self._fold = TableFold(self._db, self.site, self._partitions)
        self._last_put: dict[LogPartition, int] = {}
        """The last offset of each partition of a changelog."""

    def run(self) -> None:
        site = self.site
        self._check_topics()
        read = [*topics.with_copies(topics.OF_INTENTS, self._peers), *topics.of_transfers(site, self._peers)]
        committed = self._committed()
        with LogReader(self._settings, site) as reader:
            put_ends = reader.end_offsets(reader.partitions_of(self._changelogs.values()))
            directories = self._directories()
            places = reader.partitions_of(self._journals.present)
            self._journals.begins.update(reader.begin_offsets(places))
            self._journals.ends.update(reader.end_offsets(places))
        self._read_changelogs(put_ends)
        self._tell(f"folding {len(read)} journals at {site}")
        ends = self._journals.ends
        for record in self._before(ends, read):
            place = (record.topic, record.partition)
            self._fold.hear(record, site, hovering=record.offset >= committed.get(place, 0))
        self._report.records += self._fold.records
        if self._fold.hovering:  # at rest nobody is asked again
            self._note_lag(self._committed())
        self._compare_changelogs()
        for directory in directories:
            self._compare_directory(directory)
        self._compare_views([directory for directory in directories if directory.view is not None])

    def _check_topics(self) -> None:
        there = self._journals.cluster.partitions
        missing = [topic for topic in self._changelogs.values() if topic not in there]
        if not missing:
            return
        pattern = re.compile(rf"transfer2go-{re.escape(self.site)}-v(\d+)-{rows.NAMES[0]}-changelog")
        others = sorted(int(found[1]) for name in there if (found := pattern.fullmatch(name)))
        wanted = self._settings.registry.generation
        if len(missing) == len(self._changelogs) and others:
            raise NeverWorks(
                f"the workers of {self.site} keep tables of {generation_in_words(others[-1])}, "
                f"and this is {generation_in_words(wanted)}",
                next="audit with their release and their sites.toml",
            )
        raise NotFound(
            f"{self.site} has no topic {missing[0]} that this login may see",
            next="has a worker of this release ever run there? else ask for the right to read the changelogs",
        )

    def _committed(self) -> dict[LogPartition, int]:
        return committed_offsets(self._settings, self.site, self._group)

    def _directories(self) -> list[WorkerDirectory]:
        generation = self._settings.registry.generation
        paths = worker_directories.found_directories(self._settings, self.site)
        found = []
        for path in paths:
            try:
                one = self._opened.enter_context(worker_directories.opened(path, generation, self._partitions))
            except Temporary as error:
                self._report.unseen.append(str(error))
                continue
            if one.generations and not one.tables:
                self._report.unseen.append(
                    f"{path} has tables of {generation_in_words(one.generations[-1])}, "
                    f"and this is {generation_in_words(generation)}: they are not compared"
                )
            found.append(one)
        if not paths:
            self._report.remarks.append(
                f"no directory of a worker of {self.site} is here: its changelogs are compared, its catalogue is not"
            )
        return found

    def _before(self, ends: Mapping[LogPartition, int], names: Iterable[str]) -> Iterator[Record]:
        """Records of topics that stand before these ends."""
        for record in replay(self._settings, self.site, names):
            if record.offset < ends.get((record.topic, record.partition), 0):
                yield record

    # what the workers keep

    def _read_changelogs(self, ends: Mapping[LogPartition, int]) -> None:
        self._tell(f"reading {len(self._changelogs)} changelogs at {self.site}")
        table_of = {topic: name for name, topic in self._changelogs.items()}
        for record in self._before(ends, self._changelogs.values()):
            key = row_key(_LIVE, table_of[record.topic], record.partition, record.key or b"")
            packed = _PUT.pack(record.offset, record.value is not None)
            self._db.put(key, packed + (record.value or b""))
            self._last_put[record.topic, record.partition] = record.offset

    def _live(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        prefix = table_prefix(_LIVE, table)
        for key, row in views.scan(self._db, prefix):
            if _PUT.unpack_from(row)[1]:
                yield key[len(prefix) :], row[_PUT.size :]

    def _live_row(self, table: str) -> Callable[[bytes], bytes | None]:
        prefix = table_prefix(_LIVE, table)

        def get(key: bytes) -> bytes | None:
            row = self._db.get(prefix + key)
            return None if row is None or not _PUT.unpack_from(row)[1] else row[_PUT.size :]

        return get

    def _put(self, table: str, key: bytes) -> LogPosition | None:
        row = self._db.get(table_prefix(_LIVE, table) + key)
        if row is None:
            return None
        return LogPosition(self.site, self._changelogs[table], place_of(key)[0], _PUT.unpack_from(row)[0])

    # comparing

    @property
    def _comparer(self) -> TableComparer:
        return TableComparer(self._fold, self.site, self._report.comparison, self._put)

    def _compare_changelogs(self) -> None:
        self._tell(f"comparing the tables of {self.site}")
        everywhere = frozenset(range(self._partitions))
        for table in rows.NAMES:
            self._comparer.compare(table, CHANGELOG, self._live(table), self._live_row(table), everywhere)

    def _compare_directory(self, directory: WorkerDirectory) -> None:
        behind = 0
        for table in rows.NAMES:
            topic = self._changelogs[table]
            there = sorted(partition for name, partition in directory.tables if name == table)
            current = [
                partition
                for partition in there
                if directory.persisted(table, partition) >= self._last_put.get((topic, partition), -1)
            ]
            behind += len(there) - len(current)

            def found(name: str = table, partitions: list[int] = current) -> Iterator[tuple[bytes, bytes]]:
                for partition in partitions:
                    yield from directory.rows(name, partition)

            def get(key: bytes, name: str = table) -> bytes | None:
                partition, own = place_of(key)
                db = directory.tables.get((name, partition))
                return None if db is None else db.get(own.encode())

            if current:
                self._comparer.compare(table, str(directory.path), found(), get, frozenset(current))
        if behind:
            self._report.remarks.append(
                f"{directory.path} has {behind} partitions of tables that are behind their changelogs and are not "
                "compared: another worker has them now, or this one is at work"
            )

    def _compare_views(self, directories: list[WorkerDirectory]) -> None:
        """Views that have read equally far are held against one fold."""
        by_places: dict[tuple[tuple[LogPartition, int], ...], list[WorkerDirectory]] = {}
        for one in directories:
            if not (one.view.get(views.STAMP) or b"").startswith(f"{VIEW_FORMAT} {self.site} ".encode()):
                self._report.unseen.append(f"{one.path} has a view of another format: it is not compared")
                continue
            read = catalogue_fold.places_of(one.view, self._peers, self._partitions)
            by_places.setdefault(tuple(read.items()), []).append(one)
        for places, alike in by_places.items():
            self._tell(f"folding the replicas that {self.site} knows of")
            with scratch.database() as db:
                fold, read = catalogue_fold.CatalogueFold(db), dict(places)
                for record in self._before(read, topics.with_copies([topics.REPLICAS], self._peers)):
                    fold.hear(record, self.site)
                    self._report.records += 1
                fold.write()
                for one in alike:
                    catalogue_fold.compare_view(
                        *(fold, one.view, str(one.path), self.site, self._partitions, read, self._report.comparison)
                    )

    def _note_lag(self, committed: Mapping[LogPartition, int]) -> None:
        behind = [place for place, offset in self._fold.hovering.items() if committed.get(place, 0) <= offset]
        if not committed:
            self._report.unseen.append(
                f"no worker of {self.site} has committed anything as {self._group}: nothing of it is compared; "
                "start one, and audit again when it has caught up"
            )
        elif behind:
            topic, partition = behind[0]
            more = f" and {len(behind) - 1} more partitions" if len(behind) > 1 else ""
            self._report.unseen.append(
                f"the workers of {self.site} have not heard {topic}[{partition}]{more} to the end: what stands there "
                "is not compared; does a worker run?"
            )
