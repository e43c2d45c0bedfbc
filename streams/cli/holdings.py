"""Which site holds what, folded from the journals into a catalogue of this process: for when no worker answers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from streams import wire
from streams.cli.as_of import AsOf
from streams.client.worker_api import WorkerApi
from streams.core import records as m
from streams.core import topics
from streams.core.names import Block, Dataset, Lfn, Site
from streams.core.selectors import Kind, Selector
from streams.errors import NotFound, WireError
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
    as_of: AsOf | None = None,
) -> Iterator[Heard]:
    """Facts about replicas at any site, with who wrote them, as the cluster of `at` has them.

    Of one dataset, or holding these bytes. `as_of`: as it had them at an instant, which is told when all was read.
    """
    names = topics.with_copies([topics.REPLICAS], settings.registry.peers_of(at))
    partitions = None if dataset is None else [topics.partition_of(dataset, settings.registry.partitions)]
    key = None if dataset is None else dataset.encode()
    for record in replay(settings, at, names, partitions=partitions):
        if as_of is not None and not as_of.takes(record):
            continue
        if (key is not None and record.key != key) or containing not in (record.value or b""):
            continue
        try:
            heard = wire.decode(record.topic, record.key, record.value, record.headers, at)
        except WireError:
            continue  # the site's workers file it as a dead letter
        if isinstance(heard.message, m.FilesHeld | m.FilesLost):
            yield heard
    if as_of is not None:
        as_of.tell()


@contextmanager
def catalogue(
    settings: Settings,
    at: Site,
    *,
    dataset: Dataset | None = None,
    lfn: Lfn | None = None,
    as_of: AsOf | None = None,
) -> Iterator[Catalogue]:
    """What the cluster of `at` knows now, or knew at an instant: of all, of one dataset, or of one file."""
    with scratch.database() as db:
        changes = Changes(db)
        for heard in facts(settings, at, dataset=dataset, containing=lfn.encode() if lfn else b"", as_of=as_of):
            match heard.message:
                case m.FilesHeld():
                    changes.hold(heard.message, m.word_of(heard.message, heard.origin))
                case m.FilesLost():
                    changes.lose(heard.message)
            if changes.touched >= _FILES_MAX:
                changes.write()
                changes = Changes(db)
        changes.write()
        yield Catalogue(db)


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
    settings: Settings, at: Site, chosen: Selector, prefer: Site | None = None, as_of: AsOf | None = None
) -> Generator[CatalogueFile, None, None]:
    """The files of a selection that somebody holds, as the cluster of `at` knows now, or knew at an instant."""
    lfn = Lfn(chosen.name) if chosen.kind is Kind.FILE else None
    dataset = None if lfn is not None else Dataset(chosen.name.partition("#")[0])
    cursor: str | None = ""
    with catalogue(settings, at, dataset=dataset, lfn=lfn, as_of=as_of) as known:
        while cursor is not None:
            page, cursor = known.listing([chosen], cursor, _PAGE, prefer=prefer)
            yield from (file for file in page if file.replicas)
