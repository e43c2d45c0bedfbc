"""Which site holds what, folded from the journals into a catalogue of this process: for when no worker answers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from streams import wire
from streams.auditing.points import PastPoint
from streams.cli import as_of as as_ofs
from streams.client.worker_api import WorkerApi
from streams.core import records as m
from streams.core import topics
from streams.core.names import Block, Dataset, Lfn, Site
from streams.core.selectors import Kind, Selector
from streams.errors import NotFound, WireError
from streams.kafka.reader import Record
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.views import scratch
from streams.views.catalogue import Catalogue, CatalogueFile
from streams.views.folding import Changes
from streams.wire import Heard

if TYPE_CHECKING:
    from streams.registration.registering import Replica, ReplicasOf

_PAGE = 1000
_QUERY_CHARS = 48_000
"""An HTTP server takes 64 KiB in its first line."""
_FILES_MAX = 4000


def facts(
    settings: Settings,
    at: Site,
    *,
    dataset: Dataset | None = None,
    containing: bytes = b"",
    as_of: PastPoint | None = None,
) -> Iterator[Heard]:
    """Facts about replicas at any site, with who wrote them, as the cluster of `at` has them.

    Of one dataset, or holding these bytes. `as_of`: as it had them then, which is told when all was read.
    """
    for record in _replayed(settings, at, dataset):
        if as_of is not None and not as_of.takes(at, record):
            continue
        if containing in (record.value or b"") and (heard := _fact(record, at, dataset)) is not None:
            yield heard
    if as_of is not None:
        as_ofs.check_any(as_of)
        as_ofs.tell(as_of)


def _replayed(settings: Settings, at: Site, dataset: Dataset | None) -> Iterator[Record]:
    """The journals of replicas, of one dataset the partition that it stands in."""
    names = topics.with_copies([topics.REPLICAS], settings.registry.peers_of(at))
    partitions = None if dataset is None else [topics.partition_of(dataset, settings.registry.partitions)]
    return replay(settings, at, names, partitions=partitions)


def _fact(record: Record, at: Site, dataset: Dataset | None) -> Heard | None:
    if dataset is not None and record.key != dataset.encode():
        return None
    try:
        heard = wire.decode(record.topic, record.key, record.value, record.headers, at)
    except WireError:
        return None  # the site's workers file it as a dead letter
    return heard if isinstance(heard.message, m.FilesHeld | m.FilesLost) else None


class _Folding:
    """Facts into a database, some at a time."""

    def __init__(self, db: Any) -> None:
        self._db, self._changes = db, Changes(db)

    def hear(self, heard: Heard) -> None:
        match heard.message:
            case m.FilesHeld():
                self._changes.hold(heard.message, m.word_of(heard.message, heard.origin))
            case m.FilesLost():
                self._changes.lose(heard.message)
        if self._changes.touched >= _FILES_MAX:
            self.write()

    def write(self) -> None:
        self._changes.write()
        self._changes = Changes(self._db)


@contextmanager
def catalogue(
    settings: Settings,
    at: Site,
    *,
    dataset: Dataset | None = None,
    lfn: Lfn | None = None,
    as_of: PastPoint | None = None,
) -> Iterator[Catalogue]:
    """What the cluster of `at` knows now, or knew then: of all, of one dataset, or of one file."""
    with scratch.database() as db:
        folding = _Folding(db)
        for heard in facts(settings, at, dataset=dataset, containing=lfn.encode() if lfn else b"", as_of=as_of):
            folding.hear(heard)
        folding.write()
        yield Catalogue(db)


@contextmanager
def two_catalogues(
    settings: Settings, at: Site, earlier: PastPoint, later: PastPoint, dataset: Dataset | None
) -> Iterator[tuple[Any, Any]]:
    """Databases of what the cluster of `at` knew at two points of the past, by one reading; both are told.

    UsageError where `earlier` is behind `later` anywhere, NotFound where `later` is before the first record.
    """
    with scratch.database() as before, scratch.database() as after:
        was, now = _Folding(before), _Folding(after)
        for record in _replayed(settings, at, dataset):
            counted, counts = earlier.takes(at, record), later.takes(at, record)
            if counted and not counts:
                raise as_ofs.behind(earlier, later)
            if counts and (heard := _fact(record, at, dataset)) is not None:
                now.hear(heard)
                if counted:
                    was.hear(heard)
        as_ofs.check_any(later)
        for point in (earlier, later):
            as_ofs.tell(point)
        was.write()
        now.write()
        yield before, after


@contextmanager
def replicas_of(settings: Settings, at: Site, dataset: Dataset) -> Iterator[ReplicasOf]:
    """What the cluster of `at` knows of names: of `dataset` as its log stands now, of others as a worker's view does.

    Where no worker answers, the whole log is folded, once.
    """
    api = WorkerApi(settings, at)
    with ExitStack() as opened:
        known = opened.enter_context(catalogue(settings, at, dataset=dataset))
        whole: list[Catalogue] = []

        def others(lfns: Sequence[Lfn]) -> Iterator[Replica]:
            answer = None
            if not whole:
                with suppress(NotFound):  # a worker of an earlier release
                    answer = api.ask("/api/replicas", {"lfns": "\n".join(lfns)})
            if isinstance(answer, list):
                for one in answer:
                    if one["dataset"] != dataset:
                        yield Lfn(one["lfn"]), Site(one["site"]), one["bytes"], one["adler32"], one["block"]
                return
            if not whole:
                whole.append(opened.enter_context(catalogue(settings, at)))
            yield from (found for found in _held(whole[0], lfns) if Block(found[4]).dataset != dataset)

        def found(lfns: Sequence[Lfn]) -> Iterator[Replica]:
            yield from _held(known, lfns)
            for some in _askable(lfns):
                yield from others(some)

        yield found


def _held(known: Catalogue, lfns: Sequence[Lfn]) -> Iterator[Replica]:
    for lfn, one in known.replicas(lfns):
        yield lfn, one.site, one.bytes, one.adler32, one.block


def _askable(lfns: Sequence[Lfn]) -> Iterator[list[Lfn]]:
    """In parts that a query holds; of some characters of a name it makes three."""
    some: list[Lfn] = []
    size = 0
    for lfn in lfns:
        if some and (size + 3 * len(lfn) > _QUERY_CHARS or len(some) == _PAGE):
            yield some
            some, size = [], 0
        some.append(lfn)
        size += 3 * len(lfn) + 3
    if some:
        yield some


def files(
    settings: Settings, at: Site, chosen: Selector, prefer: Site | None = None, as_of: PastPoint | None = None
) -> Generator[CatalogueFile, None, None]:
    """The files of a selection that somebody holds, as the cluster of `at` knows now, or knew then."""
    lfn = Lfn(chosen.name) if chosen.kind is Kind.FILE else None
    dataset = None if lfn is not None else Dataset(chosen.name.partition("#")[0])
    cursor: str | None = ""
    with catalogue(settings, at, dataset=dataset, lfn=lfn, as_of=as_of) as known:
        while cursor is not None:
            page, cursor = known.listing([chosen], cursor, _PAGE, prefer=prefer)
            yield from (file for file in page if file.replicas)
