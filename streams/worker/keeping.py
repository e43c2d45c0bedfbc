"""What a worker does about keeping, for the datasets that it owns: it answers sites that would remove their files, and
has removals here go on (removing.py).

One thread. For each open ask that names this site: the number of the chain's last step is noted, claims apart, the
plane reads the files back, the view reaches the ends of its journals, each file is asked for at the gate, and the
answer goes out behind the chain's last number. After another step than a claim all begins anew; a claim changes nothing
of what is on the disk, and takes the number only. What is lost on the way is owed again.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from streams.core import records as m
from streams.core.keeping import duties, gates
from streams.core.keeping.chains import ChainRow, OpenAsk
from streams.core.keeping.gates import FileHere, PlacedFile
from streams.core.names import Block, Dataset, Lfn, Site, Text, shown
from streams.planes import orders
from streams.worker.removing import RemovalTasks, RemovalViews, sooner

log = structlog.get_logger(__name__)

CATCH_UP_S = 5.0
LOOK_S = 60.0
"""A plane that was told to read files back is told again after this: it may have ended. One that still reads passes the
repeat over."""
SAID_S = 30.0
"""An answer is on its way for as long as the publisher keeps trying, and is not said again."""
AGAIN_S = 2.0
TICK_S = 0.001
SCAN_S = 60.0
"""All open asks are looked through this often: what woke nobody, or another worker that is gone, is found."""
DEFAULT_ENDPOINT = ""

Publish = Callable[[m.Message, Callable[[Exception | None], None]], None]


class KeepingViews(Protocol):
    """What keeping tasks read; each as of the last batch."""

    def catch_up(self, timeout_s: float) -> bool: ...

    def chain(self, site: Site, dataset: Dataset) -> ChainRow: ...

    def chains(self, dataset: Dataset) -> dict[Site, ChainRow]: ...

    def asking(self) -> Iterator[tuple[Site, Dataset]]: ...

    def leaving(self, site: Site) -> Iterator[Dataset]:
        """Datasets in which removals of a site go on."""

    def file(
        self, site: Site, block: Block, leaving: m.LeavingFile, endpoint: str, found: PlacedFile | None
    ) -> FileHere: ...


class Telling(Protocol):
    def tell(self, order: orders.Order) -> bool: ...


@dataclass
class _Look:
    """An ask that is being answered: behind which number, since when, and what the plane found."""

    asker: Site
    sha256: str
    noted_no: int
    told_s: float
    checks: m.ReplicasChecked | None = None
    said_s: float | None = None

    @property
    def told_as(self) -> tuple[Site, str, int]:
        return self.asker, self.sha256, self.noted_no


@dataclass
class _Due:
    """Datasets to attend to, each at a time (monotonic, s); bounded by the datasets that have chains."""

    at: dict[Dataset, float] = field(default_factory=dict)
    heap: list[tuple[float, Dataset]] = field(default_factory=list)
    """What `at` has, and entries that no longer count."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, dataset: Dataset, at_s: float) -> None:
        with self.changed:
            if at_s < self.at.get(dataset, float("inf")):
                self.at[dataset] = at_s
                heapq.heappush(self.heap, (at_s, dataset))
                self.changed.notify()

    def first(self) -> tuple[float, Dataset] | None:
        """The earliest; the lock is held."""
        while self.heap and self.at.get(self.heap[0][1]) != self.heap[0][0]:
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None

    def take(self) -> Dataset:
        """The earliest, away; the lock is held."""
        _, dataset = heapq.heappop(self.heap)
        del self.at[dataset]
        return dataset


class KeepingTasks:
    """`heard` from the view's thread, `start`, `stop`. `owns`: whether this worker answers for a dataset now.

    `process`: who it says it is in its steps, another text at each start.
    """

    def __init__(
        self,
        here: Site,
        views: KeepingViews,
        plane: Telling,
        publish: Publish,
        owns: Callable[[Dataset], bool],
        process: str,
        now_ms: Callable[[], int],
        elapsed_s: Callable[[], float] = time.monotonic,
        *,
        removals: RemovalViews,
    ) -> None:
        self.here, self.views, self.plane, self.publish = here, views, plane, publish
        self.owns, self.process, self.now_ms, self.elapsed_s = owns, process, now_ms, elapsed_s
        self.removals = RemovalTasks(here, removals, plane, publish, process, now_ms, self.put, elapsed_s)
        self._looks: dict[Dataset, _Look] = {}
        self._due = _Due()
        self._scan_s = 0.0
        self._plane_is_new = False
        self._running = True
        self._thread = threading.Thread(target=self._run, name="keeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._due.changed:
            self._running = False
            self._due.changed.notify()

    def plane_restarted(self) -> None:
        """From any thread: what the plane before was told is told to the new one."""
        self._plane_is_new = True
        self.scan_soon()

    def scan_soon(self) -> None:
        """From any thread: a partition woke, say, so that asks are this worker's which were nobody's."""
        with self._due.changed:
            self._scan_s = 0.0
            self._due.changed.notify()

    def put(self, dataset: Dataset) -> None:
        """From any thread: the dataset is attended to soon."""
        self._due.put(dataset, self.elapsed_s())

    def heard(self, fact: m.ChainStep | m.ReplicasChecked | m.FilesLost) -> None:
        """From any thread, once the view shows it."""
        if isinstance(fact, m.ReplicasChecked) and fact.asker == self.here:
            self.removals.heard(fact)
            return
        if isinstance(fact, m.ReplicasChecked):
            look = self._looks.get(fact.dataset)
            if look is None or look.told_as != (fact.asker, fact.ask_sha256, fact.noted_no):
                return  # of another ask, or from before the number was noted
            look.checks = fact
        self._due.put(fact.dataset, self.elapsed_s())

    def _run(self) -> None:
        while (dataset := self._next()) is not None:
            self.attend(dataset)

    def _next(self) -> Dataset | None:
        """The next dataset that is due; None at the end."""
        while True:
            now = self.elapsed_s()
            if now >= self._scan_s:
                self._scan_s = now + SCAN_S
                self.scan()
            with self._due.changed:
                if not self._running:
                    return None
                due = self._due.first()
                if due is not None and due[0] <= now:
                    return self._due.take()
                self._due.changed.wait(max(0.0, min(self._scan_s, due[0] if due else self._scan_s) - now))

    def scan(self) -> None:
        """Puts datasets with an open ask, or with a removal here that goes on, and finds removals that are open."""
        if self._plane_is_new:
            self._plane_is_new = False
            self._looks.clear()
            self.removals.plane_restarted()
        try:
            for _, dataset in self.views.asking():
                self.put(dataset)
            for dataset in self.views.leaving(self.here):
                self.put(dataset)
            self.removals.scan()
        except Exception:
            log.exception("open asks are not looked through")

    def attend(self, dataset: Dataset) -> None:
        """Does what comes next about a dataset; a failure is logged and stays owed."""
        try:
            if self.owns(dataset):
                again_s = sooner(self._attend(dataset), self.removals.attend(dataset))
            else:
                self._leave(dataset)
                self.removals.leave(dataset)
                again_s = None
        except Exception:
            log.exception("not answered, owed again", dataset=dataset)
            again_s = AGAIN_S
        if again_s is not None:
            # What is left of a wait may be less than a clock can tell: it would be due again at once, and nothing done.
            self._due.put(dataset, self.elapsed_s() + (max(again_s, TICK_S) if again_s else 0.0))

    def _leave(self, dataset: Dataset) -> None:
        """Another worker owns it now, or nothing is owed."""
        self._looks.pop(dataset, None)

    def _attend(self, dataset: Dataset) -> float | None:
        """When to look again, in s; None: when something is heard."""
        own = self.views.chain(self.here, dataset)
        chains = self.views.chains(dataset)
        owed = next(duties.answers_owed(own, (chains[site] for site in sorted(chains))), None)
        if owed is None:
            self._leave(dataset)
            return None
        now, look = self.elapsed_s(), self._looks.get(dataset)
        stale = look is None or look.told_as != (owed.asker, owed.ask.sha256, own.acted_no)
        if look is None or stale or (look.checks is None and now - look.told_s >= LOOK_S):
            return self._tell(own, owed)
        if look.checks is None:
            return LOOK_S
        if look.said_s is not None and now - look.said_s < SAID_S:
            return SAID_S
        if not self.views.catch_up(CATCH_UP_S):
            return AGAIN_S
        own = self.views.chain(self.here, dataset)
        if own.acted_no != look.noted_no:
            return 0.0
        self._answer(own, look, look.checks)
        return SAID_S

    def _tell(self, own: ChainRow, owed: duties.AnswerAsk) -> float:
        ask = owed.ask
        # Before the order: its answer is kept only where it is waited for.
        self._looks[own.dataset] = _Look(owed.asker, ask.sha256, own.acted_no, self.elapsed_s())
        if self.plane.tell(orders.Check(own.dataset, owed.asker, ask.no, ask.sha256, own.acted_no, owed.lfns)):
            return LOOK_S
        del self._looks[own.dataset]
        return AGAIN_S

    def _answer(self, own: ChainRow, look: _Look, checks: m.ReplicasChecked) -> None:
        """Of a view that has caught up since the plane looked. `own`: with the noted number, behind which this goes."""
        asker = self.views.chain(look.asker, own.dataset)
        ask = next((ask for ask in asker.asks if ask.sha256 == look.sha256), None)
        if ask is None:
            self._leave(own.dataset)  # it has ended meanwhile
            return
        promised, refused = list[Lfn](), list[m.KeptFile]()
        found = {file.lfn: PlacedFile(file.bytes, file.adler32, file.version) for file in checks.found}
        missing = {file.lfn: file.reason for file in checks.missing}
        for lfn in (*found, *missing):
            leaving = ask.by_lfn.get(lfn)
            if leaving is None:
                continue
            file = self.views.file(self.here, ask.block, leaving, DEFAULT_ENDPOINT, found.get(lfn))
            why = gates.why_no_promise(own, asker, ask, file)
            if why is None:
                promised.append(lfn)
            else:
                more = f" ({missing[lfn]})" if lfn in missing else ""
                refused.append(m.KeptFile(lfn, Text(shown(why + more, 390))))
        if promised or refused:
            self._say(own, look, ask, tuple(promised), tuple(refused))

    def _say(
        self, own: ChainRow, look: _Look, ask: OpenAsk, promised: tuple[Lfn, ...], refused: tuple[m.KeptFile, ...]
    ) -> None:
        def acknowledged(error: Exception | None) -> None:
            if error is not None:
                look.said_s = None
                self._due.put(own.dataset, self.elapsed_s() + AGAIN_S)

        look.said_s = self.elapsed_s()
        step = m.KeepPromised(
            *own.next_head,
            self.process,
            self.now_ms(),
            Text("worker"),
            ask.cause,
            Text(""),
            look.asker,
            ask.no,
            ask.sha256,
            promised,
            refused,
        )
        try:
            self.publish(step, acknowledged)
        except Exception:
            look.said_s = None
            raise
