"""A site's view of chains of keeping and of replicas, folded by the product's own core, as late as it likes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.keeping import words
from streams.core.keeping.chains import ChainRow, Claims, fold
from streams.core.keeping.gates import FileHere
from streams.core.keeping.words import NEVER_HELD, ReplicaRow
from streams.core.names import Adler32, Dataset, IntentId, Lfn, Site
from streams.worker.landing_claims import NamedFile

if TYPE_CHECKING:
    from world import World

READ = (topics.KEEPING, topics.REPLICAS)


class SimView:
    """Of one site; it survives a crash, as rows and offsets are written together. Endpoints are not told apart."""

    def __init__(self, world: World, here: Site, partitions: int) -> None:
        self.world, self.here = world, here
        names = topics.with_copies(READ, [name for name in world.names if name != here])
        self.journals = [(name, world.logs[here, name, p]) for name in names for p in range(partitions)]
        self._own = [n for n, (name, _) in enumerate(self.journals) if name in READ]
        self._heard = [0] * len(self.journals)
        self.rows: dict[tuple[Site, Dataset], ChainRow] = {}
        self.replicas: dict[tuple[Site, Dataset, Lfn], ReplicaRow] = defaultdict(lambda: NEVER_HELD)
        self.held: dict[Lfn, dict[Dataset, m.HeldFile]] = defaultdict(dict)
        """As said last of each file, by whichever site."""
        self.on_step: Callable[[m.ChainStep], None] = lambda step: None

    def hear_some(self, most: int = 4) -> bool:
        """Some of what is in one journal."""
        behind = [n for n, (_, log) in enumerate(self.journals) if self._heard[n] < len(log)]
        if not behind:
            return False
        n = self.world.rng.choice(behind)
        self._hear(n, min(len(self.journals[n][1]), self._heard[n] + self.world.rng.randrange(1, most + 1)))
        return True

    def _hear(self, n: int, stop: int) -> None:
        name, log = self.journals[n]
        for record in log[self._heard[n] : stop]:
            heard = wire.decode(name, record.key, record.value, record.headers, self.here)
            self._heard[n] += 1
            self._fold(heard.message, heard.origin)

    def _fold(self, message: m.Message, origin: m.Origin) -> None:
        match message:
            case m.FilesHeld():
                for file in message.files:
                    key = message.site, message.dataset, file.lfn
                    self.replicas[key] = words.held(self.replicas[key], m.word_of(message, origin))
                    self.held[file.lfn][message.dataset] = file
            case m.FilesLost():
                for n, lfn in enumerate(message.lfns):
                    key = message.site, message.dataset, lfn
                    taken = message.taken[n].words if message.taken else None
                    self.replicas[key] = words.lost(self.replicas[key], taken, message.removal_sha256)
            case m.ChainStep():
                folded = fold(self.chain(message.site, message.dataset), message)  # type: ignore[arg-type]
                self.rows[message.site, message.dataset] = folded.row
                for removal in folded.removals:
                    key = message.site, message.dataset, removal.lfn
                    self.replicas[key] = words.removal_counted(self.replicas[key], removal)
                self.on_step(message)

    # what tasks ask of

    def catch_up_own(self, timeout_s: float) -> bool:
        return self._catch_up(self._own)

    def catch_up(self, timeout_s: float) -> bool:
        return self._catch_up(range(len(self.journals)))

    def _catch_up(self, numbers: Sequence[int]) -> bool:
        if self.world.chance(0.05):
            return False
        for n in numbers:
            self._hear(n, len(self.journals[n][1]))
        return True

    def chain(self, site: Site, dataset: Dataset) -> ChainRow:
        return self.rows.get((site, dataset)) or ChainRow(site, dataset)

    def chains(self, dataset: Dataset) -> dict[Site, ChainRow]:
        return {site: row for (site, of), row in sorted(self.rows.items()) if of == dataset}

    def claims(self, site: Site, dataset: Dataset) -> Claims:
        return self.chain(site, dataset).claims

    def claiming(self) -> Iterator[IntentId]:
        for row in list(self.rows.values()):
            yield from {claim.intent for claim in row.claims if row.site == self.here and claim.intent is not None}

    def claims_of(self, intent: IntentId) -> Iterator[tuple[Dataset, str]]:
        for row in list(self.rows.values()):
            if row.site == self.here:
                yield from [(row.dataset, claim.claim) for claim in row.claims if claim.intent == intent]

    def asking(self) -> Iterator[tuple[Site, Dataset]]:
        yield from [key for key, row in self.rows.items() if row.asks]

    def files(self, site: Site, endpoint: str, named: Sequence[NamedFile]) -> list[FileHere]:
        return [self._file(site, endpoint, *one) for one in named]

    def _file(self, site: Site, endpoint: str, lfn: Lfn, block: Any, size: int, adler32: Adler32 | None) -> FileHere:
        dataset = block.dataset
        replica, known = self.replicas[site, dataset, lfn], self.held[lfn].get(dataset)
        if replica is not NEVER_HELD and known is not None:
            size, adler32 = known.bytes, known.adler32
        return FileHere(lfn, block, endpoint, size, adler32, replica, None, (), known is not None)

    def file(self, site: Site, block: Any, leaving: m.LeavingFile, endpoint: str, found: Any) -> FileHere:
        return replace(self._file(site, endpoint, leaving.lfn, block, leaving.bytes, leaving.adler32), found=found)
