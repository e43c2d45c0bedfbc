"""What a worker does about removals at its site, for the datasets that it owns: it asks, decides, has files deleted.

For each file that an accepted removal names, and of a move each that is at all its destinations: the plane looks at it,
the view catches up, the gate is asked, and the site asks in its chain those who hold the file too. Once enough have
promised, a step removes it, the plane deletes it and says so; where they refuse, or nobody else holds it, it stays and
that is reported. The last pass over a selection finds nothing to ask for. All but which files a pass has passed by is
read off the view again, by whoever goes on.

A move's source has a claim of its intent, which keeps its files from all removals but this. Its files are taken as they
are said to have landed; what nobody heard of, as after a restart, the passes behind the last completion find.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple, Protocol

import structlog

from streams.core import records as m
from streams.core.keeping import duties, gates
from streams.core.keeping.chains import ASKS_OPEN_MAX, ChainRow, CountedRemoval, OpenAsk
from streams.core.keeping.gates import FileHere, PlacedFile
from streams.core.keeping.words import ReplicaRow
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site, Text, shown
from streams.core.records.limits import FILES_MAX
from streams.core.selectors import Kind, Selector
from streams.planes import orders
from streams.worker.removal_reports import PassedFiles, removal_report, waits_for

log = structlog.get_logger(__name__)

CATCH_UP_S = 5.0
LOOK_S = 60.0
"""A plane that was told to look at files, or to delete them, is told again after this: it may have ended."""
TOLD_MAX = 16
"""Steps of a dataset that the plane has to delete for at a time."""
STEPS_MAX = 1_024
"""Steps whose removals go on that are looked at in one go."""
SAID_S = 10.0
"""A step on its way is said again after this."""
AGAIN_S = 2.0
REPORT_S = 2.0
"""A removal that goes on reports itself this often."""
PAGE = 2_000
"""Files of a selection that are looked at in one go: some 50 ms of the thread."""
LAG_S = 60.0
"""A file that has arrived, and of which the catalogue here does not know that yet, is waited for so long."""
LANDED_MAX = 20_000
"""Files of a move that landed and are not looked at yet; of more the last passes find the rest."""
DEFAULT_ENDPOINT = ""
NOBODYS = Dataset("/Nobody/nobody/NOBODY")
"""Under which files are that no site is known to hold: whoever would own it says that they are not here."""

Publish = Callable[[m.Message, Callable[[Exception | None], None]], None]


class HeldHere(NamedTuple):
    """A file of a selection that this site holds, and who else does in the same dataset."""

    lfn: Lfn
    block: Block
    bytes: int
    adler32: str
    holders: tuple[Site, ...]
    words: Mapping[Site, tuple[str, ...]]
    """By which each of them holds it (core/keeping/words.py)."""


class MovedFiles(NamedTuple):
    """Of a move: whether some of it has closed at a destination, and whether all of it has at each.

    `files`: so many at least have arrived at every destination, once all is closed. `to`: the destinations that take
    part, as far as is known: those that deny it get nothing.
    """

    some: bool
    all: bool
    files: int
    to: frozenset[Site]


class RemovalViews(Protocol):
    """What is read; each as of the last batch."""

    def catch_up(self, timeout_s: float) -> bool: ...

    def chain(self, site: Site, dataset: Dataset) -> ChainRow: ...

    def chains(self, dataset: Dataset) -> dict[Site, ChainRow]: ...

    def going_steps(self, site: Site, dataset: Dataset) -> Iterator[tuple[int, str]]:
        """Steps, by number and digest, whose removals have not all ended."""

    def going(self, site: Site, dataset: Dataset, step: tuple[int, str]) -> Sequence[CountedRemoval]: ...

    def file(
        self, site: Site, block: Block, leaving: m.LeavingFile, endpoint: str, found: PlacedFile | None
    ) -> FileHere: ...

    def files(
        self, site: Site, endpoint: str, named: Sequence[tuple[Lfn, Block, int, Adler32 | None]]
    ) -> list[FileHere]:
        """The same of many, without what other datasets claim."""

    def held(self, selectors: Sequence[Selector], cursor: str, limit: int) -> tuple[list[HeldHere], str | None]:
        """Of a selection the files that are held here, and the cursor behind what was looked at."""

    def holders(self, dataset: Dataset, lfns: Sequence[Lfn]) -> dict[Lfn, tuple[Site, ...]]:
        """Who holds these files in a dataset, this site too."""

    def dataset_of(self, lfns: Sequence[Lfn]) -> Dataset | None:
        """Of which dataset files are: the first by name of those in which this site holds one, else of all."""

    def removed(self, intent: IntentId, dataset: Dataset) -> tuple[int, int, int, int, int, int]:
        """Of a removal here: files and bytes gone, those that asks kept, and those that are going."""

    def are_kept(self, intent: IntentId, dataset: Dataset, lfns: Sequence[Lfn]) -> list[bool]: ...

    def kept(self, intent: IntentId, dataset: Dataset) -> Iterator[tuple[Lfn, int, str]]: ...

    def reported(self, intent: IntentId) -> Collection[int]:
        """Parts of a removal of which this site has said its last word."""

    def arrivals(self, intent: IntentId) -> MovedFiles: ...

    def takes_part(self, intent: IntentId) -> bool:
        """Whether this site lets it take files away."""

    def is_over(self, intent: IntentId) -> bool:
        """Whether the last words of all its sites are heard."""

    def removals(self) -> Iterator[m.IntentDecided]:
        """Accepted intents that name this site and have not ended."""


class Telling(Protocol):
    def tell(self, order: orders.Order) -> bool: ...


@dataclass
class _Look:
    """Files of one block that the plane looks at, as they were in the view when it was told to."""

    block: Block
    files: dict[Lfn, HeldHere]
    rows: dict[Lfn, ReplicaRow]
    sha256: str
    noted_no: int
    told_s: float
    checks: m.ReplicasChecked | None = None


@dataclass
class _Part:
    """How far this worker is with a part of a removal in one dataset."""

    number: int
    dataset: Dataset
    selectors: tuple[Selector, ...]
    covers: tuple[int, ...] = ()
    """Other parts that are done with it: files that are named beside the dataset that they are of."""
    cursor: str = ""
    listed: bool = False
    pending: list[HeldHere] = field(default_factory=list)
    look: _Look | None = None
    passed: PassedFiles = field(default_factory=PassedFiles)
    asked: bool = False
    """Whether this pass asked for any: then there is another one, for an ask may have been void, or ended otherwise."""
    reported: m.RemovalReported | None = None
    reported_s: float = 0.0
    over: bool = False
    destinations: frozenset[Site] = frozenset()
    """Of a move: where a file must be before it leaves."""
    owner: str | None = None
    """Of a move: files that others registered stay."""
    is_last_pass: bool = True
    """Whether all of a move has arrived; of a removal nothing need to."""
    arrived_s: float = 0.0
    """Since when all of it has, as far as is known here."""
    expected: int = 0
    """Files of a move that have arrived everywhere, at least."""
    listed_s: float = 0.0

    def begin_pass(self, now_s: float) -> None:
        self.cursor, self.listed, self.passed, self.asked, self.listed_s = "", False, PassedFiles(), False, now_s


@dataclass(frozen=True, slots=True)
class _Said:
    no: int
    at_s: float


class RemovalTasks:
    """`decided` and `heard` from the views' threads, `attend` and `scan` from the thread of keeping.

    `due` has a dataset attended to. `owns`: whether this worker acts for a dataset now.
    """

    def __init__(
        self,
        here: Site,
        views: RemovalViews,
        plane: Telling,
        publish: Publish,
        process: str,
        now_ms: Callable[[], int],
        due: Callable[[Dataset], None],
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.here, self.views, self.plane, self.publish = here, views, plane, publish
        self.process, self.now_ms, self.due, self.elapsed_s = process, now_ms, due, elapsed_s
        self._lock = threading.Lock()
        self._open: dict[IntentId, m.IntentDecided] = {}
        self._open_in: dict[Dataset, dict[IntentId, None]] = {}
        """In which datasets the open ones may have files."""
        self._parts: dict[Dataset, dict[IntentId, _Part]] = {}
        self._landed: dict[tuple[Dataset, IntentId], list[Lfn]] = {}
        """Files of moves that were said to be at a destination."""
        self._missed: set[tuple[Dataset, IntentId]] = set()
        """Of which more landed than is remembered: the selection is looked through again."""
        self._said: dict[Dataset, _Said] = {}
        self._told: dict[Dataset, dict[str, float]] = {}
        """Steps that the plane was told to delete for, by digest: when."""

    # what is open

    def scan(self) -> None:
        """Finds the removals that are open, and datasets in which some go on."""
        for decision in self.views.removals():
            self.decided(decision)

    def decided(self, decision: m.IntentDecided) -> None:
        """What a home decided of an intent by which files leave this site."""
        body = decision.body
        if self.here not in m.leaving_sites(body) or decision.verdict in (m.Verdict.REFUSED, m.Verdict.RELEASED):
            return
        datasets = self._datasets(body)
        with self._lock:
            known = self._open.get(decision.intent)
            if known is None or known.decision_no < decision.decision_no:
                self._open[decision.intent] = decision
            for dataset in datasets:
                self._open_in.setdefault(dataset, {})[decision.intent] = None
        for dataset in datasets:
            self.due(dataset)

    def _datasets(self, body: m.TransferIntent) -> Iterable[Dataset]:
        """Where files of it may be: datasets that it names, and that of the files that it names."""
        named = (*m.parts_of(body), self._dataset_of_files(body))
        return dict.fromkeys(dataset for dataset in named if dataset is not None)

    def _dataset_of_files(self, body: m.TransferIntent) -> Dataset | None:
        files = [Lfn(s.name) for s in body.selectors if s.kind is Kind.FILE]
        return (self.views.dataset_of(files) or NOBODYS) if files else None

    def landed(self, fact: m.FilesHeld) -> None:
        """Files were said to be at a site; of moves from here."""
        intent = None if fact.manifest is None else fact.manifest.intent
        with self._lock:
            decision = None if intent is None else self._open.get(intent)
            if decision is None or intent is None or fact.site not in decision.body.destinations:
                return
            if decision.body.verb is not m.Verb.MOVE:
                return
            waiting = self._landed.setdefault((fact.dataset, intent), [])
            if len(waiting) + len(fact.files) <= LANDED_MAX:
                waiting += (file.lfn for file in fact.files)
            else:
                self._missed.add((fact.dataset, intent))
        self.due(fact.dataset)

    def arrived(self, intent: IntentId) -> None:
        """All of an intent has arrived, or a site has answered it."""
        for dataset in self._datasets_of(intent):
            self.due(dataset)

    def heard(self, checks: m.ReplicasChecked) -> None:
        """What the plane found of files that this site itself would remove."""
        for part in list(self._parts.get(checks.dataset, {}).values()):
            look = part.look
            if look is not None and (look.sha256, look.noted_no) == (checks.ask_sha256, checks.noted_no):
                look.checks = checks
        self.due(checks.dataset)

    def plane_restarted(self) -> None:
        """What the plane before was told is told to the new one."""
        self._told.clear()
        for parts in self._parts.values():
            for part in parts.values():
                part.look = None

    def leave(self, dataset: Dataset) -> None:
        """Another worker acts for it now."""
        self._parts.pop(dataset, None)
        self._said.pop(dataset, None)
        self._told.pop(dataset, None)
        with self._lock:
            for place in [place for place in self._landed if place[0] == dataset]:
                self._forget_landed(place)

    def _forget_landed(self, place: tuple[Dataset, IntentId]) -> None:
        self._landed.pop(place, None)
        self._missed.discard(place)

    # what comes next

    def attend(self, dataset: Dataset) -> float | None:
        """Does what comes next; when to look again, in s, or None: when something is heard."""
        own, now_s = self.views.chain(self.here, dataset), self.elapsed_s()
        if own.disputed:
            return None
        again_s = self._delete(dataset, now_s)
        if not self._is_saying(own):
            for ask in own.asks:
                again_s = sooner(again_s, self._ends_s(ask))
            again_s = sooner(again_s, self._decide(own))
        with self._lock:
            open_here = [(intent, self._open[intent]) for intent in self._open_in.get(dataset, ())]
        for intent, decision in open_here:
            again_s = sooner(again_s, self._go_on(self.views.chain(self.here, dataset), intent, decision))
            self._forget_ended(own, intent, decision)
        said = self._said.get(dataset)
        return again_s if said is None else sooner(again_s, max(0.0, SAID_S - (now_s - said.at_s)))

    def _is_saying(self, own: ChainRow) -> bool:
        """Whether a step is on its way: the next one goes behind it."""
        said = self._said.get(own.dataset)
        if said is None:
            return False
        if own.no >= said.no or self.elapsed_s() - said.at_s >= SAID_S:
            del self._said[own.dataset]
            return False
        return True

    def _forget_ended(self, own: ChainRow, intent: IntentId, decision: m.IntentDecided) -> None:
        """All that this site has to say of it is said; or it has ended without this site, which denied it."""
        is_over = self.views.is_over(intent) and not any(ask.cause == intent for ask in own.asks)
        if is_over or len(self.views.reported(intent)) >= len(m.parts_of(decision.body)):
            with self._lock:
                self._open.pop(intent, None)
                for dataset in [dataset for dataset, intents in self._open_in.items() if intent in intents]:
                    del self._open_in[dataset][intent]
                    if not self._open_in[dataset]:
                        del self._open_in[dataset]
                    self._forget_landed((dataset, intent))
            for parts in self._parts.values():
                parts.pop(intent, None)

    def _delete(self, dataset: Dataset, now_s: float) -> float | None:
        """Has the plane delete what steps removed and what has not ended."""
        steps = list(islice(self.views.going_steps(self.here, dataset), STEPS_MAX))
        before = self._told.pop(dataset, {})
        if not steps:
            return None
        told = self._told[dataset] = {sha256: before[sha256] for _, sha256 in steps if sha256 in before}
        due = [step for step in steps if now_s - told.get(step[1], -LOOK_S) >= LOOK_S]
        # What was told of before and did not end may never end: it holds up nothing else.
        due.sort(key=lambda step: step[1] in told)
        for step in due[: max(0, TOLD_MAX - (len(steps) - len(due)))]:
            removals = tuple(self.views.going(self.here, dataset, step))
            if not removals:
                continue
            body = self._body(removals[0].cause)
            why = Text("removed" if body is None else shown(_why_gone(body), 390))
            if self.plane.tell(orders.Remove(dataset, removals, self.process, why)):
                told[step[1]] = now_s
        return max(AGAIN_S, min((LOOK_S - (now_s - at_s) for at_s in told.values()), default=0.0))

    def _body(self, cause: IntentId | None) -> m.TransferIntent | None:
        decision = None if cause is None else self._open.get(cause)
        return None if decision is None else decision.body

    # own asks

    def _decide(self, own: ChainRow) -> float | None:
        """Decides one ask of which something can be decided; None where nothing can."""
        chains = self.views.chains(own.dataset) if own.asks else {}
        for ask in own.asks:
            if not self._has_news(ask, chains):
                continue
            if not self.views.catch_up(CATCH_UP_S):
                return AGAIN_S
            now = self.views.chain(self.here, own.dataset)
            if (owed := self._owed(now, ask)) is not None:
                head = (*now.next_head, *self._head(ask.cause))
                step = m.RemovalDecided(*head, owed.ask_no, owed.removed, owed.kept)
                return self._say(step)
        return None

    def _ends_s(self, ask: OpenAsk) -> float:
        """When an ask that nobody answers ends."""
        return max(1.0, (ask.at_ms + duties.ASK_ENDS_MS - self.now_ms()) / 1000)

    def _has_news(self, ask: OpenAsk, chains: Mapping[Site, ChainRow]) -> bool:
        if ask.process != self.process or self._is_cancelled(ask.cause) or not ask.copies:
            return True
        answered = any(gates.answers_to(self.here, ask, chains).values())
        return answered or self.now_ms() >= ask.at_ms + duties.ASK_ENDS_MS

    def _is_cancelled(self, cause: IntentId | None) -> bool:
        decision = None if cause is None else self._open.get(cause)
        return decision is not None and decision.verdict is not m.Verdict.ACCEPTED

    def _owed(self, own: ChainRow, ask: OpenAsk) -> duties.DecideAsk | None:
        """What becomes of an ask's files by now, on a view that has caught up."""
        still = own.ask(ask.no)
        if still is None:
            return None
        if self._is_cancelled(still.cause):
            return duties.DecideAsk(
                still.no, (), tuple(m.KeptFile(file.lfn, Text("its intent was cancelled")) for file in still.files)
            )
        lfns = [file.lfn for file in still.files]
        holders = self.views.holders(own.dataset, lfns)
        here = {lfn for lfn, sites in holders.items() if self.here in sites}
        owed = duties.decisions_owed(
            replace(own, asks=(still,)),
            self.views.chains(own.dataset),
            here,
            holders,
            process=self.process,
            now_ms=self.now_ms(),
        )
        return next(owed, None)

    # what is to be asked

    def _go_on(self, own: ChainRow, intent: IntentId, decision: m.IntentDecided) -> float | None:
        part = self._part(own.dataset, intent, decision)
        if part is None or part.over:
            return None
        if decision.verdict is m.Verdict.ACCEPTED and not self.views.takes_part(intent):
            return None  # until it is answered, which is heard of
        again_s: float | None = None
        moved = self.views.arrivals(intent) if decision.body.verb is m.Verb.MOVE else None
        if moved is not None:
            part.destinations = moved.to
        if decision.verdict is not m.Verdict.ACCEPTED:
            part.listed, part.pending, part.look, part.asked, part.is_last_pass = True, [], None, False, True
        elif moved is not None and not part.is_last_pass and moved.all:
            part.is_last_pass, part.expected, part.arrived_s = True, moved.files, self.elapsed_s()
            part.begin_pass(part.arrived_s)
        elif part.asked and self._is_idle(own, part, intent):
            if part.is_last_pass:
                part.begin_pass(self.elapsed_s())
            else:
                part.asked = False
        elif self._is_early(part, intent):
            again_s = AGAIN_S
            if self.elapsed_s() - part.listed_s >= AGAIN_S and self._is_idle(own, part, intent):
                part.begin_pass(self.elapsed_s())
        if decision.verdict is m.Verdict.ACCEPTED and part.destinations and own.claims.named(intent) is None:
            again_s = self._claim(own, part, intent)
        if part.look is not None and self._is_saying(own):
            pass
        elif part.look is not None:
            again_s = sooner(again_s, self._asked(own, part, decision))
        elif len(own.asks) < ASKS_OPEN_MAX:
            # Also while a step is on its way: looking takes as long as saying.
            again_s = sooner(again_s, self._look(own, part, intent))
        return sooner(again_s, self._report(own.dataset, part, decision))

    def _is_early(self, part: _Part, intent: IntentId) -> bool:
        """Whether files of a move have arrived of which the catalogue here does not know that yet: a mirror lags."""
        if not part.is_last_pass or self.elapsed_s() - part.arrived_s >= LAG_S or not part.destinations:
            return False
        known = sum(part.passed.files.values())
        for dataset in dict.fromkeys((part.dataset, *self._datasets_of(intent))):
            removed, _, kept, *_ = self.views.removed(intent, dataset)
            known += removed + kept
        return known < part.expected

    def _datasets_of(self, intent: IntentId) -> list[Dataset]:
        with self._lock:
            return [dataset for dataset, intents in self._open_in.items() if intent in intents]

    def _claim(self, own: ChainRow, part: _Part, intent: IntentId) -> float | None:
        """Notes the claim of a move's source; it ends behind the move (landing_claims.py)."""
        if self._is_saying(own) or not part.selectors:
            return None
        claim = m.NotedClaim(intent, DEFAULT_ENDPOINT, part.selectors, lands=False, intent=intent)
        head = (*own.next_head, *self._head(intent))
        return self._say(m.ClaimDecided(*head, (claim,), ()))

    def _is_idle(self, own: ChainRow, part: _Part, intent: IntentId) -> bool:
        """Whether all that this pass asked for has ended."""
        if not part.listed or part.pending or part.look is not None or self._is_saying(own):
            return False
        if any(ask.cause == intent for ask in own.asks):
            return False
        *_, going, _ = self.views.removed(intent, own.dataset)
        return not going

    def _part(self, dataset: Dataset, intent: IntentId, decision: m.IntentDecided) -> _Part | None:
        """What of the removal is in this dataset: a part of its own, or files that it names."""
        parts = self._parts.setdefault(dataset, {})
        if intent in parts:
            return parts[intent]
        of = m.parts_of(decision.body)
        files, covers = tuple(s for s in decision.body.selectors if s.kind is Kind.FILE), tuple[int, ...]()
        if dataset in of:
            number = of.index(dataset)
            whole = (s for s in decision.body.selectors if s.kind is not Kind.FILE)
            selectors = tuple(s for s in whole if s.name.partition("#")[0] == dataset)
            if dataset == self._dataset_of_files(decision.body):
                selectors, covers = (*selectors, *files), (len(of) - 1,)
        elif dataset == NOBODYS and not self.views.catch_up(CATCH_UP_S):
            return None  # who holds them may be said already
        elif dataset == self._dataset_of_files(decision.body):
            number, selectors = len(of) - 1, files
        else:
            return None
        part = _Part(number, dataset, selectors, covers)
        if decision.body.verb is m.Verb.MOVE:
            part.owner, part.is_last_pass = m.owner_of(decision.body), False
            moved = self.views.arrivals(intent)
            part.destinations, part.listed = moved.to, not moved.some  # what arrives from now on is heard of
        part.over = {number, *covers} <= set(self.views.reported(intent))
        parts[intent] = part
        return part

    def _look(self, own: ChainRow, part: _Part, intent: IntentId) -> float | None:
        """Has the plane look at the next files of one block."""
        if not part.pending:
            self._take_landed(part, intent)
        if not part.pending and not part.listed:
            self._list(part, intent)
        if not part.pending:
            return None if part.listed else 0.0
        block = part.pending[0].block
        files = {file.lfn: file for file in part.pending if file.block == block}
        files = dict(islice(files.items(), FILES_MAX))
        named = [(file.lfn, file.block, file.bytes, Adler32(file.adler32)) for file in files.values()]
        rows = {row.lfn: row.replica for row in self.views.files(self.here, DEFAULT_ENDPOINT, named)}
        digest = hashlib.sha256(f"{intent} {own.acted_no} {' '.join(files)}".encode()).hexdigest()
        order = orders.Check(
            part.dataset, self.here, own.acted_no + 1, digest, own.acted_no, tuple(files), read_back=False
        )
        # Before the order: its answer is kept only where it is waited for.
        part.look = _Look(block, files, rows, digest, own.acted_no, self.elapsed_s())
        if not self.plane.tell(order):
            part.look = None
            return AGAIN_S
        return LOOK_S

    def _list(self, part: _Part, intent: IntentId) -> None:
        found, cursor = self.views.held(part.selectors, part.cursor, PAGE)
        part.cursor, part.listed = cursor or "", cursor is None
        self._add(part, intent, found)

    def _take_landed(self, part: _Part, intent: IntentId) -> None:
        """Files of a move that were heard to have landed."""
        with self._lock:
            waiting = self._landed.get((part.dataset, intent), [])
            lfns = dict.fromkeys(waiting[:PAGE])
            del waiting[:PAGE]
            missed = not lfns and (part.dataset, intent) in self._missed
            self._missed -= {(part.dataset, intent)} if missed else set()
        if missed:
            part.begin_pass(self.elapsed_s())
        if lfns:
            found, _ = self.views.held([Selector(Kind.FILE, lfn) for lfn in lfns], "", len(lfns))
            self._add(part, intent, found)

    def _add(self, part: _Part, intent: IntentId, found: list[HeldHere]) -> None:
        """Those that may leave, as far as names and holders say, are to be looked at."""
        for file in found:
            if file.block.dataset != part.dataset:
                part.passed.add(file.lfn, file.bytes, f"it is of {file.block.dataset}: name it in a removal of its own")
        found = [file for file in found if file.block.dataset == part.dataset]
        if part.destinations:
            found = [file for file in found if _has_arrived(file, intent, part.destinations)]
        kept = self.views.are_kept(intent, part.dataset, [file.lfn for file in found])
        part.pending = [file for file, is_kept in zip(found, kept, strict=True) if not is_kept]

    def _file(self, file: HeldHere, found: PlacedFile | None) -> FileHere:
        leaving = m.LeavingFile(file.lfn, file.bytes, Adler32(file.adler32), "", ())
        return self.views.file(self.here, file.block, leaving, DEFAULT_ENDPOINT, found)

    def _asked(self, own: ChainRow, part: _Part, decision: m.IntentDecided) -> float | None:
        """Asks for those files that were looked at and may go; what may not is passed by."""
        look = part.look
        assert look is not None
        if look.checks is None:
            left_s = LOOK_S - (self.elapsed_s() - look.told_s)
            if left_s <= 0:
                part.look = None
                return 0.0
            return left_s
        if not self.views.catch_up(CATCH_UP_S):
            return AGAIN_S
        own, body = self.views.chain(self.here, own.dataset), decision.body
        if len(own.asks) >= ASKS_OPEN_MAX:
            return None
        seen = {one.lfn: PlacedFile(one.bytes, None, one.version) for one in look.checks.seen}
        gone = {one.lfn: one.reason for one in look.checks.missing}
        leaving: dict[tuple[Site, ...], list[m.LeavingFile]] = {}
        later = set[Lfn]()
        """What happened to them meanwhile: they are looked at again."""
        holders = self.views.holders(own.dataset, list(look.files))
        for lfn, before in look.rows.items():
            now = self._file(look.files[lfn], seen.get(lfn))
            asked = tuple(site for site in holders.get(lfn, ()) if site != self.here)
            if now.replica != before and now.replica.held:
                later.add(lfn)
                continue
            why = gates.why_no_leaving(own, now, decision.intent, part.owner) or _why_last(asked, body.copies)
            if why is None:
                assert now.found is not None
                words = tuple(sorted(now.replica.words))
                version = now.found.version
                file = m.LeavingFile(lfn, now.bytes, Adler32(look.files[lfn].adler32), version, words)
                leaving.setdefault(asked, []).append(file)
            elif not now.replica.held:
                continue  # it is gone already
            elif not any(lfn in ask.by_lfn for ask in own.asks if ask.cause == decision.intent):
                part.passed.add(lfn, now.bytes, f"{why}{f' ({gone[lfn]})' if lfn in gone else ''}")
        if not leaving:
            self._looked_at(part, look.files.keys() - later)
            return AGAIN_S if later else 0.0
        asked, files = max(leaving.items(), key=lambda one: len(one[1]))
        later |= {file.lfn for group in leaving.values() if group is not files for file in group}
        self._looked_at(part, look.files.keys() - later)
        part.asked = True
        head = (*own.next_head, *self._head(decision.intent))
        return self._say(
            m.LeaveAsked(*head, look.block, DEFAULT_ENDPOINT, tuple(files), asked, self.now_ms(), body.copies)
        )

    @staticmethod
    def _looked_at(part: _Part, lfns: Iterable[Lfn]) -> None:
        part.look = None
        over = set(lfns)
        part.pending = [file for file in part.pending if file.lfn not in over]

    # steps

    def _head(self, cause: IntentId | None) -> tuple[str, int, Text, IntentId | None, Text]:
        """Process, time, by whom, for which intent, why."""
        body = self._body(cause)
        by, reason = (Text("worker"), Text("")) if body is None else (body.requester, body.reason)
        return self.process, self.now_ms(), by, cause, reason

    def _say(self, step: m.ClaimDecided | m.LeaveAsked | m.RemovalDecided) -> float:
        dataset = step.dataset
        self._said[dataset] = _Said(step.no, self.elapsed_s())

        def acknowledged(error: Exception | None) -> None:
            if error is not None:
                self._said.pop(dataset, None)
                self.due(dataset)

        try:
            self.publish(step, acknowledged)
        except Exception:
            self._said.pop(dataset, None)
            raise
        return SAID_S

    # reports

    def _report(self, dataset: Dataset, part: _Part, decision: m.IntentDecided) -> float | None:
        intent = decision.intent
        now_s, is_listed = self.elapsed_s(), part.listed and part.look is None and not part.pending and not part.asked
        is_listed = is_listed and part.is_last_pass and not self._is_early(part, intent)
        if not is_listed and now_s - part.reported_s < REPORT_S:
            return REPORT_S - (now_s - part.reported_s)
        if {part.number, *part.covers} <= set(self.views.reported(intent)):
            part.over = True
            return None
        said = self._report_of(part, decision)
        wait_s = SAID_S if said.last and part.reported == said else 0.0 if said.last else REPORT_S
        if now_s - part.reported_s < wait_s:
            return wait_s - (now_s - part.reported_s)
        if part.reported == said and not said.last:
            return None
        part.reported, part.reported_s = said, now_s

        def acknowledged(error: Exception | None) -> None:
            if error is not None:
                part.reported = None
                self.due(dataset)

        self.publish(said, acknowledged)
        for number in part.covers if said.last else ():
            nothing = m.RemovalReported(intent, self.here, number, 0, 0, 0, 0, 0, 0, last=True)
            self.publish(nothing, acknowledged)
        return SAID_S if said.last else None

    def _report_of(self, part: _Part, decision: m.IntentDecided) -> m.RemovalReported:
        """How far a part has come. Of one that was cancelled no word is the last: it would be done."""
        dataset, intent = part.dataset, decision.intent
        asks = [ask for ask in self.views.chain(self.here, dataset).asks if ask.cause == intent]
        so_far = self.views.removed(intent, dataset)
        idle = not part.asked and self._is_idle(self.views.chain(self.here, dataset), part, intent)
        is_cancelled = decision.verdict is not m.Verdict.ACCEPTED
        last = idle and part.is_last_pass and not is_cancelled and not self._is_early(part, intent)
        waits = "" if last or (idle and is_cancelled) else waits_for(asks, so_far, arrives=idle)
        place = intent, self.here, part.number
        kept, pending = self.views.kept(intent, dataset), [file.bytes for file in part.pending]
        return removal_report(place, so_far, kept, part.passed, asks, pending, waits, last=last)


def _has_arrived(file: HeldHere, intent: IntentId, destinations: Collection[Site]) -> bool:
    """Whether each destination has it by a landing of this intent: a file that was no part of it stays."""
    of_intent = f"{intent}."
    return all(any(word.startswith(of_intent) for word in file.words.get(site, ())) for site in destinations)


def _why_gone(body: m.TransferIntent) -> str:
    if body.verb is m.Verb.MOVE:
        return f"moved to {' and '.join(body.destinations)} for {body.requester}"
    return f"removed for {body.requester}: {body.reason}"


def _why_last(asked: Collection[Site], copies: int) -> str | None:
    """Why no ask could come to enough promises."""
    if len(asked) >= copies:
        return None
    if not asked:
        return "it is the last copy"
    return f"{copies} other copies are wanted, and {', '.join(sorted(asked))} has one"


def sooner(one_s: float | None, other_s: float | None) -> float | None:
    return min((s for s in (one_s, other_s) if s is not None), default=None)
