"""A site's view of chains of keeping and of replicas, folded by the product's own core, as late as it likes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.intent import IntentRow, denied_by, is_landed
from streams.core.keeping import words
from streams.core.keeping.chains import ChainRow, Claims, CountedRemoval, StepHeard, before_step, fold
from streams.core.keeping.gates import FileHere
from streams.core.keeping.words import NEVER_HELD, ReplicaRow
from streams.core.names import Adler32, Dataset, IntentId, Lfn, Site
from streams.core.owed import takes_part
from streams.core.selectors import Kind, Selector
from streams.views.keeping import Removed
from streams.worker.landing_claims import NamedFile
from streams.worker.removing import HeldHere, MovedFiles

if TYPE_CHECKING:
    from world import World

READ = (topics.KEEPING, topics.REPLICAS)


class SimView:
    """Of one site; it survives a crash, as rows and offsets are written together. Endpoints are not told apart."""

    def __init__(self, world: World, here: Site, partitions: int) -> None:
        self.world, self.here = world, here
        names = topics.with_copies(READ, [name for name in world.names if name != here])
        names.append(topics.REPLICA_CHECKS)
        self.journals = [(name, world.logs[here, name, p]) for name in names for p in range(partitions)]
        self._own = [n for n, (name, _) in enumerate(self.journals) if name in READ]
        self._heard = [0] * len(self.journals)
        self.rows: dict[tuple[Site, Dataset], ChainRow] = {}
        self.replicas: dict[tuple[Site, Dataset, Lfn], ReplicaRow] = defaultdict(lambda: NEVER_HELD)
        self.held_files: dict[Lfn, dict[Dataset, m.HeldFile]] = defaultdict(dict)
        """As said last of each file, by whichever site."""
        self.going_now: dict[tuple[Site, Dataset, Lfn], CountedRemoval] = {}
        self.ended_now: set[tuple[Site, Dataset, Lfn, str]] = set()
        self.gone: dict[tuple[IntentId, Dataset], Removed] = defaultdict(Removed)
        self.kept_now: dict[tuple[IntentId, Dataset, Lfn], tuple[int, str]] = {}
        """Of this site's own removals."""
        self.on_fact: Callable[[m.ChainStep | m.FilesHeld | m.FilesLost | m.ReplicasChecked], None] = lambda fact: None
        self.intent_row: Callable[[IntentId], IntentRow | None] = lambda intent: None
        self.decisions: Callable[[], Iterable[m.IntentDecided]] = tuple

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
                    self.held_files[file.lfn][message.dataset] = file
                if message.manifest is not None:
                    self.on_fact(message)
            case m.FilesLost():
                for n, lfn in enumerate(message.lfns):
                    key = message.site, message.dataset, lfn
                    taken = message.taken[n].words if message.taken else None
                    self.replicas[key] = words.lost(self.replicas[key], taken, message.removal_sha256)
                    self.ended_now.add((*key, message.removal_sha256))
                    going = self.going_now.get(key)
                    if going is not None and going.sha256 == message.removal_sha256:
                        self._is_gone(self.going_now.pop(key), message.site)
                self.on_fact(message)
            case m.ReplicasChecked():
                self.on_fact(message)
            case m.ChainStep():
                self._step(message)
                self.on_fact(message)

    def _step(self, step: m.ChainStep) -> None:
        before = self.chain(step.site, step.dataset)
        folded = fold(before, step)  # type: ignore[arg-type]
        self.rows[step.site, step.dataset] = folded.row
        for removal in folded.removals:
            key = step.site, step.dataset, removal.lfn
            self.replicas[key] = words.removal_counted(self.replicas[key], removal)
            if (*key, removal.sha256) in self.ended_now:
                self._is_gone(removal, step.site)
            else:
                self.going_now[key] = removal
        if not isinstance(step, m.RemovalDecided) or step.site != self.here or folded.heard is not StepHeard.COUNTS:
            return
        ask = before_step(before, step).ask(step.ask_no)
        for kept in step.kept if ask is not None and ask.cause is not None else ():
            assert ask is not None
            assert ask.cause is not None
            if (file := ask.by_lfn.get(kept.lfn)) is not None:
                self.kept_now[ask.cause, step.dataset, kept.lfn] = file.bytes, kept.reason

    def _is_gone(self, removal: CountedRemoval, site: Site) -> None:
        if removal.cause is not None and site == self.here:
            dataset = removal.block.dataset
            before = self.gone[removal.cause, dataset]
            files, size = before.files + 1, before.bytes + removal.bytes
            self.gone[removal.cause, dataset] = before._replace(files=files, bytes=size)
            self.kept_now.pop((removal.cause, dataset, removal.lfn), None)

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

    def is_released(self, intent: IntentId) -> bool:
        row = self.intent_row(intent)
        if row is None or row.decision is None or not row.ended:
            return False
        return row.decision.verdict is m.Verdict.RELEASED or self.here in row.leaving

    def is_over(self, intent: IntentId) -> bool:
        row = self.intent_row(intent)
        return row is not None and row.ended

    def leaving(self, site: Site) -> Iterator[Dataset]:
        yield from {dataset for of, dataset, _ in self.going_now if of == site}

    def going_steps(self, site: Site, dataset: Dataset) -> Iterator[tuple[int, str]]:
        yield from sorted({(one.no, one.sha256) for key, one in self.going_now.items() if key[:2] == (site, dataset)})

    def going(self, site: Site, dataset: Dataset, step: tuple[int, str]) -> Sequence[CountedRemoval]:
        of_site = [one for key, one in sorted(self.going_now.items()) if key[:2] == (site, dataset)]
        return [one for one in of_site if (one.no, one.sha256) == step]

    def held(self, selectors: Sequence[Selector], cursor: str, limit: int) -> tuple[list[HeldHere], str | None]:
        """Three at a time."""
        found: list[HeldHere] = []
        for (site, dataset, lfn), row in sorted(self.replicas.items()):
            known = self.held_as(dataset, lfn)
            names = {(Kind.FILE, str(lfn)), (Kind.BLOCK, str(known.block)), (Kind.DATASET, str(dataset))}
            if site != self.here or not row.held or lfn <= cursor or not names & {(s.kind, s.name) for s in selectors}:
                continue
            if len(found) == 3:
                return found, found[-1].lfn
            holders = self._holders(dataset, lfn)
            standing = {of: tuple(sorted(self.replicas[of, dataset, lfn].words)) for of in holders}
            found.append(HeldHere(lfn, known.block, known.bytes, known.adler32, holders, standing))
        return found, None

    def held_as(self, dataset: Dataset, lfn: Lfn) -> m.HeldFile:
        return self.held_files[lfn][dataset]

    def _holders(self, dataset: Dataset, lfn: Lfn) -> tuple[Site, ...]:
        rows = ((site, self.replicas.get((site, dataset, lfn), NEVER_HELD)) for site in self.world.names)
        return tuple(site for site, row in rows if row.held)

    def holders(self, dataset: Dataset, lfns: Sequence[Lfn]) -> dict[Lfn, tuple[Site, ...]]:
        return {lfn: sites for lfn in lfns if (sites := self._holders(dataset, lfn))}

    def dataset_of(self, lfns: Sequence[Lfn]) -> Dataset | None:
        of = {(site == self.here, d) for (site, d, lfn), row in self.replicas.items() if lfn in lfns and row.held}
        known = {d for lfn in lfns if lfn in self.held_files for d in self.held_files[lfn]}
        here = {dataset for is_here, dataset in of if is_here}
        return min(here or {dataset for _, dataset in of} or known, default=None)

    def removed(self, intent: IntentId, dataset: Dataset) -> Removed:
        kept = [size for (cause, of, _), (size, _) in self.kept_now.items() if (cause, of) == (intent, dataset)]
        going = [
            one.bytes
            for (site, of, _), one in self.going_now.items()
            if (site, of, one.cause) == (self.here, dataset, intent)
        ]
        return self.gone[intent, dataset]._replace(
            kept=len(kept), kept_bytes=sum(kept), going=len(going), going_bytes=sum(going)
        )

    def are_kept(self, intent: IntentId, dataset: Dataset, lfns: Sequence[Lfn]) -> list[bool]:
        return [(intent, dataset, lfn) in self.kept_now for lfn in lfns]

    def kept(self, intent: IntentId, dataset: Dataset) -> Iterator[tuple[Lfn, int, str]]:
        for (cause, of, lfn), (size, why) in sorted(self.kept_now.items()):
            if (cause, of) == (intent, dataset):
                yield lfn, size, why

    def arrivals(self, intent: IntentId) -> MovedFiles:
        row = self.intent_row(intent)
        if row is None:
            return MovedFiles(some=False, all=False, files=0, to=frozenset())
        to = [one for one in row.destinations if one not in denied_by(row.answers)]
        sides = [row.closed_at(destination, row.chain.source_no) for destination in to]
        fewest = min((side.sealed for side in sides), default=0)
        lost = sum(side.failed + side.cancelled for side in sides)
        all_ = is_landed(row.chain, (side.manifests for side in sides))
        known = frozenset(destination.site for destination in to)
        return MovedFiles(any(side.manifests for side in sides), all_, max(0, fewest - lost), known)

    def takes_part(self, intent: IntentId) -> bool:
        row = self.intent_row(intent)
        return row is not None and takes_part(row.answer_of(self.here), self.world.policy(self.here))

    def reported(self, intent: IntentId) -> list[int]:
        row = self.intent_row(intent)
        return [] if row is None else list(row.closed_at(self.here, 0).manifests.numbers())

    def removals(self) -> Iterator[m.IntentDecided]:
        yield from self.decisions()

    def asking(self) -> Iterator[tuple[Site, Dataset]]:
        yield from [key for key, row in self.rows.items() if row.asks]

    def files(self, site: Site, endpoint: str, named: Sequence[NamedFile]) -> list[FileHere]:
        return [self._file(site, endpoint, *one) for one in named]

    def _file(self, site: Site, endpoint: str, lfn: Lfn, block: Any, size: int, adler32: Adler32 | None) -> FileHere:
        dataset = block.dataset
        replica, known = self.replicas.get((site, dataset, lfn), NEVER_HELD), self.held_files[lfn].get(dataset)
        if replica is not NEVER_HELD and known is not None:
            size, adler32 = known.bytes, known.adler32
        return FileHere(lfn, block, endpoint, size, adler32, replica, None, (), known is not None)

    def file(self, site: Site, block: Any, leaving: m.LeavingFile, endpoint: str, found: Any) -> FileHere:
        return replace(self._file(site, endpoint, leaving.lfn, block, leaving.bytes, leaving.adler32), found=found)
