"""Which site holds what, folded from the journals into a catalogue of this process: for when no worker answers.

The folding and the reading are the views'; the database lies in a scratch directory, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streams import wire
from streams.core import messages as m
from streams.core import topics
from streams.core.names import Dataset, Lfn, Site
from streams.core.selection import Selector
from streams.errors import WireError
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.views import scratch
from streams.views.catalogue import Catalogue, CatalogueFile
from streams.views.folding import Changes

_PAGE = 1000
_FILES_MAX = 4000


def facts(
    settings: Settings, at: Site, *, dataset: Dataset | None = None, containing: bytes = b""
) -> Iterator[m.FilesHeld | m.FilesLost]:
    """Facts about replicas at any site, as the cluster of `at` has them; of one dataset, or holding these bytes."""
    peers = [name for name in settings.registry.names if name != at]
    names = [topics.REPLICAS, *(topics.remote(peer, topics.REPLICAS) for peer in peers)]
    partitions = None if dataset is None else [topics.partition_of(dataset, settings.registry.partitions)]
    key = None if dataset is None else dataset.encode()
    for record in replay(settings, at, names, partitions=partitions, committed=False):
        if (key is not None and record.key != key) or containing not in (record.value or b""):
            continue
        try:
            message = wire.decode(record.topic, record.key, record.value, record.headers, at).message
        except WireError:
            continue  # the site's workers file it as a dead letter
        if isinstance(message, m.FilesHeld | m.FilesLost):
            yield message


@contextmanager
def catalogue(
    settings: Settings, at: Site, *, dataset: Dataset | None = None, lfn: Lfn | None = None
) -> Iterator[Catalogue]:
    """What the cluster of `at` knows now: of all, of one dataset, or of one file."""
    with scratch.database() as db:
        changes = Changes(db)
        for fact in facts(settings, at, dataset=dataset, containing=lfn.encode() if lfn else b""):
            changes.hold(fact) if isinstance(fact, m.FilesHeld) else changes.lose(fact)
            if changes.touched >= _FILES_MAX:
                changes.write()
                changes = Changes(db)
        changes.write()
        yield Catalogue(db)


def files(known: Catalogue, chosen: Selector, prefer: Site | None = None) -> Iterator[CatalogueFile]:
    """The files of a selection that somebody holds."""
    cursor: str | None = ""
    while cursor is not None:
        page, cursor = known.listing([chosen], cursor, _PAGE, prefer=prefer)
        yield from (file for file in page if file.replicas)
