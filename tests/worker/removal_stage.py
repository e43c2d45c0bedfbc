"""Sites with views over real rows, planes over memory, and the workers' tasks of keeping: what one says all hear.

Time stands still until a test moves it. Nothing is lost here, and nothing repeated: the simulation does that.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streams import wire
from streams.core import records as m
from streams.core.keeping.chains import ChainRow, Claims, CountedRemoval
from streams.core.keeping.gates import FileHere, PlacedFile
from streams.core.names import Adler32, Block, Dataset, Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.selectors import Selector
from streams.planes import orders
from streams.planes.destination.removing import removed
from streams.planes.source.checking import checked
from streams.views import rows
from streams.views.catalogue import Catalogue
from streams.views.folding import Changes
from streams.views.keeping import Chains, Removed
from streams.worker.keeping import KeepingTasks
from streams.worker.removing import HeldHere, MovedFiles
from tests.storage.contract import adler_of, land
from tests.storage.memory import MemoryEndpoint

A, B, C = Site("S_A"), Site("S_B"), Site("S_C")
DATASET = Dataset("/Muon/Run1/RAW")


def lfn(number: int) -> Lfn:
    return Lfn(f"/store/muon/{number:04}.root")


def block(number: int = 1, dataset: Dataset = DATASET) -> Block:
    return Block(f"{dataset}#{number}")


def content(name: Lfn) -> bytes:
    return f"what is in {name}".encode()


@dataclass
class SitePart:
    """One site: its view, disk and worker. `away`: its worker does nothing. `deaf`: it hears no other site."""

    stage: Stage
    here: Site
    db: Any
    disk: MemoryEndpoint = field(default_factory=MemoryEndpoint)
    away: bool = False
    idle: bool = False
    """Another worker of the site acts for every dataset."""
    deaf: bool = False
    starts: int = 0
    late: list[m.Message] = field(default_factory=list)
    """What it has not heard yet."""
    told: list[tuple[int, orders.Remove]] = field(default_factory=list)
    """What its plane was told to delete, and when (ms)."""

    def __post_init__(self) -> None:
        self.view, self.catalogue = Chains(self.db), Catalogue(self.db)
        self.ended: dict[IntentId, set[int]] = {}
        self.start()

    def start(self) -> None:
        """Another process of the worker."""
        self.starts += 1
        self.process = f"{self.here}-{self.starts}"
        self.tasks = KeepingTasks(
            self.here,
            self,
            self,
            self.publish,
            lambda dataset: not self.away and not self.idle,
            self.process,
            lambda: self.stage.now_ms,
            lambda: self.stage.now_ms / 1000,
            removals=self,
        )

    # the view

    def catch_up(self, timeout_s: float) -> bool:
        return not self.late or self.deaf

    def chain(self, site: Site, dataset: Dataset) -> ChainRow:
        return self.view.chain(site, dataset)

    def chains(self, dataset: Dataset) -> dict[Site, ChainRow]:
        return self.view.chains(dataset)

    def claims(self, site: Site, dataset: Dataset) -> Claims:
        return self.view.claims(site, dataset)

    def asking(self) -> Iterator[tuple[Site, Dataset]]:
        return self.view.asking()

    def leaving(self, site: Site) -> Iterator[Dataset]:
        return self.view.leaving(site)

    def going_steps(self, site: Site, dataset: Dataset) -> Iterator[tuple[int, str]]:
        return self.view.going_steps(site, dataset)

    def going(self, site: Site, dataset: Dataset, step: tuple[int, str]) -> Sequence[CountedRemoval]:
        return self.view.going(site, dataset, step)

    def file(self, site: Site, of: Block, leaving: m.LeavingFile, endpoint: str, found: PlacedFile | None) -> FileHere:
        return self.view.file(site, of, leaving, endpoint, found)

    def files(
        self, site: Site, endpoint: str, named: Sequence[tuple[Lfn, Block, int, Adler32 | None]]
    ) -> list[FileHere]:
        return self.view.files(site, endpoint, named)

    def held(self, selectors: Sequence[Selector], cursor: str, limit: int) -> tuple[list[HeldHere], str | None]:
        files, behind = self.catalogue.listing(selectors, cursor, limit, prefer=self.here)
        found = []
        for file in files:
            mine = next((one for one in file.replicas if one.site == self.here), None)
            if mine is not None:
                replicas = [one for one in file.replicas if one.dataset == mine.dataset]
                holders, words = tuple(one.site for one in replicas), {one.site: one.words for one in replicas}
                found.append(HeldHere(file.lfn, mine.block, mine.bytes, mine.adler32, holders, words))
        return found, behind

    def holders(self, dataset: Dataset, lfns: Sequence[Lfn]) -> dict[Lfn, tuple[Site, ...]]:
        found: dict[Lfn, tuple[Site, ...]] = {}
        for name, one in self.catalogue.replicas(lfns):
            if one.dataset == dataset:
                found[name] = (*found.get(name, ()), one.site)
        return found

    def dataset_of(self, lfns: Sequence[Lfn]) -> Dataset | None:
        found = [one for _, one in self.catalogue.replicas(lfns)]
        here = {one.dataset for one in found if one.site == self.here}
        return min(here or {one.dataset for one in found}, default=None)

    def removed(self, intent: IntentId, dataset: Dataset) -> Removed:
        return dict(self.view.removed(intent, self.here)).get(dataset, Removed())

    def are_kept(self, intent: IntentId, dataset: Dataset, lfns: Sequence[Lfn]) -> list[bool]:
        return self.view.are_kept(intent, self.here, dataset, lfns)

    def kept(self, intent: IntentId, dataset: Dataset) -> Iterator[tuple[Lfn, int, str]]:
        return self.view.kept(intent, self.here, dataset)

    def arrivals(self, intent: IntentId) -> MovedFiles:
        to = frozenset(d.site for d in self.stage.decisions[intent].body.destinations) - self.stage.denied
        return self.stage.moved.get(intent, MovedFiles(some=False, all=False, files=0, to=to))._replace(to=to)

    def is_over(self, intent: IntentId) -> bool:
        return False

    def takes_part(self, intent: IntentId) -> bool:
        return (self.here, intent) not in self.stage.waiting

    def reported(self, intent: IntentId) -> set[int]:
        return self.ended.get(intent, set())

    def removals(self) -> Iterator[m.IntentDecided]:
        yield from (one for one in self.stage.decisions.values() if one.verdict is m.Verdict.ACCEPTED)

    # plane and log

    def tell(self, order: orders.Order) -> bool:
        match order:
            case orders.Check():
                self.publish(checked(self.here, self.disk, order))
            case orders.Remove():
                self.told.append((self.stage.now_ms, order))
                said = removed(self.here, self.disk, order, lambda: self.process)
                if said is not None:
                    self.publish(said)
        return True

    def publish(self, message: m.Message, on_ack: Callable[[Exception | None], None] = lambda error: None) -> None:
        wire.encode(message)
        self.stage.said.append(message)
        for site in self.stage.sites.values():
            if site is self or not isinstance(message, m.ReplicasChecked):
                site.late.append(message)
        on_ack(None)

    def hear(self) -> bool:
        """The next of what was said, but what comes from others while it is deaf."""
        for n, message in enumerate(self.late):
            if self.deaf and m.author(message) != self.here:
                continue
            del self.late[n]
            self._apply(message)
            return True
        return False

    def _apply(self, message: m.Message) -> None:
        changes = Changes(self.db)
        match message:
            case m.FilesHeld():
                changes.hold(message, message.word or str(message.manifest))
            case m.FilesLost():
                changes.lose(message)
            case m.ChainStep():
                changes.decide(message)  # type: ignore[arg-type]
            case m.RemovalReported() if message.last and message.site == self.here:
                self.ended.setdefault(message.intent, set()).add(message.part)
        changes.write()
        if isinstance(message, m.ChainStep | m.ReplicasChecked | m.FilesLost):
            self.tasks.heard(message)
        elif isinstance(message, m.FilesHeld):
            self.tasks.removals.landed(message)

    def work(self) -> bool:
        """One dataset that is due now is attended to."""
        if self.away:
            return False
        due = self.tasks._due.first()
        if due is None or due[0] > self.stage.now_ms / 1000:
            return False
        self.tasks.attend(self.tasks._due.take())
        return True


class Stage:
    """`say` for who is no worker, `run` until nothing is due now."""

    def __init__(self, path: Path, names: Sequence[Site] = (A, B, C)) -> None:
        self.now_ms = 1_000_000
        self.said: list[m.Message] = []
        self.decisions: dict[IntentId, m.IntentDecided] = {}
        self.moved: dict[IntentId, MovedFiles] = {}
        """How far moves have come at their destinations."""
        self.waiting: set[tuple[Site, IntentId]] = set()
        """Sites at which an intent waits for approval."""
        self.denied: set[Site] = set()
        self.sites: dict[Site, SitePart] = {}
        for name in names:
            self.sites[name] = SitePart(self, name, rows.open_primary(str(path / name)))

    def close(self) -> None:
        for site in self.sites.values():
            site.db.close()

    def place(
        self,
        site: Site,
        *numbers: int,
        dataset: Dataset = DATASET,
        number: int = 1,
        spoilt: bool = False,
        manifest: ManifestId | None = None,
        owner: str = "",
    ) -> None:
        """Files are at a site, and its catalogue says so: they landed by a manifest, or somebody registered them."""
        part, files = self.sites[site], []
        for n in numbers:
            data = content(lfn(n))
            if lfn(n) not in part.disk.files:
                land(part.disk, lfn(n), data[:-1] + b"!" if spoilt else data, item=n)
            files.append(m.HeldFile(lfn(n), block(number, dataset), len(data), Adler32(adler_of(data)), "v"))
        word = "" if manifest is not None else f"{site}-{uuid.uuid4()}"
        part.publish(m.FilesHeld(dataset, site, tuple(files), manifest, owner=owner, word=word))

    def claim(self, site: Site, *selectors: Selector, name: str = "somebody", dataset: Dataset = DATASET) -> None:
        head = (*self.sites[site].chain(site, dataset).next_head, "claims", self.now_ms, Text("w"), None, Text(""))
        self.sites[site].publish(m.ClaimDecided(*head, (m.NotedClaim(name, "", selectors),), ()))
        self.run()

    def ask(
        self, at: Sequence[Site], *selectors: Selector, copies: int = 1, verdict: m.Verdict = m.Verdict.ACCEPTED
    ) -> IntentId:
        """A removal that its home has accepted."""
        intent = IntentId(f"{A}.{uuid.UUID(int=len(self.decisions) + 1)}")
        body = m.TransferIntent(
            intent, Text("ann"), selectors, tuple(at), verb=m.Verb.REMOVE, copies=copies, reason=Text("full")
        )
        self.decide(m.IntentDecided(intent, 1, verdict, body, None, 0, 5))
        return intent

    def move(self, source: Site, to: Sequence[Site], *selectors: Selector) -> IntentId:
        """A move that its home has accepted."""
        intent = IntentId(f"{A}.{uuid.UUID(int=len(self.decisions) + 1)}")
        body = m.TransferIntent(
            intent,
            Text("ann@desk"),
            selectors,
            tuple(Destination(site) for site in to),
            source,
            verb=m.Verb.MOVE,
            release_from=(source,),
        )
        self.decide(m.IntentDecided(intent, 1, m.Verdict.ACCEPTED, body, source, 0, 5))
        return intent

    def arrived(self, intent: IntentId, files: int) -> None:
        """All of a move is closed at its destinations; so many files have arrived at each."""
        self.moved[intent] = MovedFiles(some=True, all=True, files=files, to=frozenset())
        for site in self.sites.values():
            site.tasks.removals.arrived(intent)

    def decide(self, decision: m.IntentDecided) -> None:
        self.decisions[decision.intent] = decision
        for site in self.sites.values():
            site.tasks.removals.decided(decision)

    def run(self, passes_s: float = 0) -> None:
        """Everything that is due by now, and by a later time."""
        until_ms = self.now_ms + int(passes_s * 1000)
        for _ in range(100_000):
            moved = False
            for site in self.sites.values():
                while site.hear():
                    moved = True
                moved |= site.work()
            if moved:
                continue
            if self.now_ms >= until_ms:
                return
            self.now_ms = min(until_ms, self.now_ms + 500)
        raise AssertionError("it does not come to rest")

    # what came of it

    def files(self, site: Site) -> set[Lfn]:
        return set(self.sites[site].disk.files)

    def last(self, intent: IntentId, site: Site) -> dict[int, m.RemovalReported]:
        """The last words of a site, by part."""
        said = [one for one in self.said if isinstance(one, m.RemovalReported)]
        return {one.part: one for one in said if (one.intent, one.site, one.last) == (intent, site, True)}

    def report(self, intent: IntentId, site: Site) -> tuple[int, dict[str, int]]:
        """Of a removal of one part: how many files went, and why others stay."""
        (found,) = self.last(intent, site).values()
        return found.removed, {kept.reason: kept.files for kept in found.reasons}
