"""Sites that seal what they read, with the product's own chain and trees; no broker."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from uuid import UUID

from streams import wire
from streams.auditing.origins import number_of
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.cuts import ClusterTrees
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.trees import leaf_of
from streams.core.names import Site
from streams.core.sealing import COPIES_MS, SealChain, signed_bytes
from streams.keys.files import WorkingKey
from tests.audit.history import Rec, World, Writer


class Sealer:
    """Reads one site's cluster, and makes its seals."""

    def __init__(self, site: Site, key: WorkingKey | None = None) -> None:
        self.site, self.key = site, key
        self.cluster, self.chain = ClusterTrees(site), SealChain(site)

    def hear(self, topic: str, partition: int, rec: Rec) -> None:
        if not topics.is_chunks(topics.split(topic)[1]):
            leaf = leaf_of(rec.key, rec.value, rec.headers)
            self.cluster.hear(topic, partition, number_of(rec.headers), leaf)

    def seal(self, now_ms: int) -> Iterator[m.JournalsSealed]:
        """What is due by then; it counts as published."""
        due = self.chain.due(now_ms, self.cluster.trees)
        for at in range(0, len(due), 1000):
            body = self.chain.next(now_ms, due[at : at + 1000], self.key and self.key.certificate)
            seal = replace(body, signature=self.key.sign(signed_bytes(body))) if self.key else body
            self.chain.take(seal)
            yield seal


class SealedWorld:
    """A world whose sites seal what stands in their clusters whenever they are told to."""

    def __init__(self, world: World, keys: Mapping[Site, WorkingKey] | None = None) -> None:
        self.world = world
        self.sealers = {site: Sealer(site, (keys or {}).get(site)) for site in world.sites}
        self.writers: dict[Site, Writer] = {site: world.writer(site, "sealer", "sealer") for site in world.sites}
        self._heard: dict[tuple[Site, str, int], int] = {}

    def seal(self, *sites: Site) -> list[LogPosition]:
        """Places of the new seals. Time passes, so that everything is due."""
        places = []
        self.world.clock_ms += COPIES_MS
        for site in sites or self.world.sites:
            sealer = self.sealers[site]
            for key, log in sorted(self.world.logs.items()):
                if key[0] == site:
                    for offset, rec in log:
                        if offset >= self._heard.get(key, 0):
                            sealer.hear(key[1], key[2], rec)
                            self._heard[key] = offset + 1
            places += [self.writers[site].say(seal) for seal in sealer.seal(self.world.clock_ms)]
        self.world.mirror()
        return places


def sealed(
    sites: Iterable[Site],
    logs: dict[tuple[Site, str, int], list[Rec]],
    partitions: int,
    chance: random.Random,
    times: int = 3,
) -> None:
    """Seals of all sites, added to journals that stand whole: each site seals some times while it reads its cluster."""
    for number, site in enumerate(sorted(sites)):
        sealer, incarnation, read = Sealer(site), str(UUID(int=number)), _read_in_part(site, logs, chance, times)
        log: list[Rec] = []
        for turn, heard in enumerate(read):
            for topic, partition, rec in heard:
                sealer.hear(topic, partition, rec)
            for seal in sealer.seal(turn * COPIES_MS):
                origin = m.Origin(site, "sealer", incarnation, len(log), 0)
                log.append(Rec(site.encode(), wire.encode(seal), tuple(wire.headers(seal, origin)), 0))
        place = topics.partition_of(site, partitions)
        for here in sites:
            name = topics.SEALS if here == site else topics.remote(site, topics.SEALS)
            logs[here, name, place] = list(log)


def _read_in_part(
    site: Site, logs: Mapping[tuple[Site, str, int], Sequence[Rec]], chance: random.Random, times: int
) -> list[list[tuple[str, int, Rec]]]:
    """What is read of a site's cluster between one seal and the next: all of it in the end."""
    parts: list[list[tuple[str, int, Rec]]] = [[] for _ in range(times)]
    for (here, topic, partition), log in sorted(logs.items()):
        if here == site:
            stops = [0, *sorted(chance.randrange(len(log) + 1) for _ in range(times - 1)), len(log)]
            for part, (start, stop) in zip(parts, pairwise(stops), strict=True):
                part += [(topic, partition, rec) for rec in log[start:stop]]
    return parts
