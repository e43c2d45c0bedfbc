"""Which site holds what, folded from the replicas journals themselves: for when no worker answers. Read-only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streams import wire
from streams.core import messages as m
from streams.core import topics
from streams.core.names import Dataset, Lfn, Site
from streams.errors import WireError
from streams.kafka.replay import replay
from streams.settings import Settings


@dataclass(frozen=True, slots=True)
class Holding:
    """A file at a site."""

    site: Site
    dataset: Dataset
    file: m.HeldFile


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


def held(
    settings: Settings, at: Site, *, dataset: Dataset | None = None, lfn: Lfn | None = None
) -> dict[tuple[Lfn, Site], Holding]:
    """Replicas by (LFN, site): of one dataset, or of one file."""
    found: dict[tuple[Lfn, Site], Holding] = {}
    for fact in facts(settings, at, dataset=dataset, containing=lfn.encode() if lfn else b""):
        if isinstance(fact, m.FilesHeld):
            for file in fact.files:
                if lfn is None or file.lfn == lfn:
                    found[file.lfn, fact.site] = Holding(fact.site, fact.dataset, file)
        else:
            for name in fact.lfns:
                found.pop((name, fact.site), None)
    return found
