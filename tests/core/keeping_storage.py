"""One site's storage: intents that bring a file, removals, late executors, two workers, and the views that they act on.

Another site promises whatever is asked for (that half is keeping_federation.py), and asks for a promise of this one.

What may happen: a claim is noted, a transfer planned, its part opened, a file landed, adopted, or put in a damaged
one's place, its word said, its claim ended; a worker notes the chain's last number and looks at the file, lets its view
catch up, and asks or promises; a removal is decided; executors are told, once more and too late too, take the lock and
look, unlink or not, and say so. Between any two of these anything else may.

Views: a part is opened on any earlier state of any journal, each for itself, for its worker may lag. A worker that asks
or promises has caught up with what there was, and writes behind the number that it noted, or its step is void.

Alike are only states that are equal: a view may lag to anywhere, so a chain's whole history is part of the state.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise, product
from typing import NamedTuple

from streams.core.keeping import chains, gates, words
from streams.core.keeping.chains import ChainRow, CountedRemoval, StepHeard
from streams.core.keeping.gates import FileHere, OtherDataset, PlacedFile
from streams.core.keeping.words import NEVER_HELD, ReplicaRow
from streams.core.names import Adler32, Block, Dataset, Lfn, Site, Text
from streams.core.records.keeping import (
    ClaimDecided,
    KeepingStep,
    KeepPromised,
    LeaveAsked,
    LeavingFile,
    NotedClaim,
    ReliedOn,
    RemovalDecided,
    RemovedFiles,
)
from streams.core.selectors import Kind, Selector

HERE, OTHER = Site("S_A"), Site("S_Z")
LFN = Lfn("/store/muon/1.root")
ADLER32 = Adler32("00000001")
DISK = "disk"
PROCESS = "p"


class Said(NamedTuple):
    """A FilesHeld that says `word`, or a FilesLost of `lost` with a removal's digest."""

    word: str = ""
    lost: tuple[str, ...] = ()
    removal: str = ""


class Phase(Enum):
    NEW = "new"
    PLANNED = "planned"
    ALLOWED = "allowed"
    """Its gate was open; its part looks at what is there some time later, and adopts it at once."""
    FOUND = "found"
    """Its part found the file there, and asks once more before it adopts it."""
    OPEN = "open"
    LANDED = "landed"
    """Under its name; its word is not said yet."""
    SAID = "said"
    OVER = "over"


class Transfer(NamedTuple):
    """`on`: the version that its part found under the name, 0 for none. `seen`: as of a `Look`."""

    phase: Phase = Phase.NEW
    on: int = 0
    seen: tuple[tuple[int, int], ...] = ()


class Look(NamedTuple):
    """What a worker means to say, of which dataset, behind which number, of which version; how far its view then was.

    `seen`: of each dataset, steps and facts of replicas; empty until it has caught up.
    """

    promises: bool
    dataset: int
    no: int
    version: int
    seen: tuple[tuple[int, int], ...] = ()


class Executor(NamedTuple):
    """`looked`: what it found under the lock, which it holds since; None before that. `done`: it may say so."""

    dataset: int
    removal: CountedRemoval
    looked: int | None = None
    done: bool = False


class State(NamedTuple):
    version: int
    landed: int
    chains: tuple[int, ...]
    said: tuple[tuple[Said, ...], ...]
    transfers: tuple[Transfer, ...]
    executors: tuple[Executor, ...] = ()
    looks: tuple[Look, ...] = ()
    told: int = 0


class History(NamedTuple):
    """All rows of a chain, the first without a step, and what they removed."""

    rows: tuple[ChainRow, ...]
    removals: tuple[CountedRemoval, ...] = ()


class Wish(NamedTuple):
    """An intent for the file, of which dataset; one that repairs replaces what is there."""

    dataset: int = 0
    repairs: bool = False


@dataclass
class StorageSite:
    """The file is there at first, as version 1, in dataset 0, unless it is `empty`.

    `asks`, `promises`: how many, of each dataset. `adopts_caught_up`: whether a part that finds the file there asks its
    gate once more. `falls_back`: whether a transfer that is over may be planned again, its row being one of before;
    then `opens_caught_up`: whether its part's gate is asked of a view that does not lag. `opens_later`: whether all may
    happen between that and the part's look at what is there, which it then adopts at once.
    """

    wishes: tuple[Wish, ...] = (Wish(),)
    datasets: int = 1
    asks: tuple[int, ...] = (1,)
    promises: tuple[int, ...] = (0,)
    executors: int = 2
    workers: int = 1
    empty: bool = False
    adopts_caught_up: bool = True
    falls_back: bool = False
    opens_caught_up: bool = False
    opens_later: bool = False

    def __post_init__(self) -> None:
        self.names = [Dataset(f"/Muon/Run{n + 1}/RAW") for n in range(self.datasets)]
        self.histories: list[History] = []
        self._numbers: dict[History, int] = {}
        self._rows: dict[Hashable, ReplicaRow] = {}
        self._after: dict[Hashable, int] = {}
        self.askers: list[ChainRow] = []
        for name in self.names:
            leaving = (LeavingFile(LFN, 1, ADLER32, "v1", ("w",)),)
            step = LeaveAsked(*_head(ChainRow(OTHER, name)), Block(f"{name}#1"), DISK, leaving, (HERE,))
            self.askers.append(chains.fold(ChainRow(OTHER, name), step).row)

    def start(self) -> State:
        empty = tuple(self.number(History((ChainRow(HERE, name),))) for name in self.names)
        if self.empty:
            return State(0, 0, empty, tuple(() for _ in self.names), tuple(Transfer() for _ in self.wishes))
        said = ((Said("w0"),), *(() for _ in self.names[1:]))
        return State(1, 1, empty, said, tuple(Transfer() for _ in self.wishes))

    def number(self, history: History) -> int:
        known = self._numbers.get(history)
        if known is None:
            known = self._numbers[history] = len(self.histories)
            self.histories.append(history)
        return known

    def key(self, state: State) -> Hashable:
        return state

    # What the journals say.

    def row(self, state: State, dataset: int) -> ChainRow:
        return self.histories[state.chains[dataset]].rows[-1]

    def replica(self, state: State, dataset: int, steps: int, facts: int) -> ReplicaRow:
        """After so many steps and facts of a dataset."""
        key = (state.chains[dataset], steps, state.said[dataset][:facts])
        known = self._rows.get(key)
        if known is None:
            known = NEVER_HELD
            for fact in state.said[dataset][:facts]:
                known = words.held(known, fact.word) if fact.word else words.lost(known, fact.lost, fact.removal)
            for removal in self.histories[state.chains[dataset]].removals:
                if removal.no <= steps:
                    known = words.removal_counted(known, removal)
            self._rows[key] = known
        return known

    def now(self, state: State) -> tuple[tuple[int, int], ...]:
        """How far each dataset's journals go."""
        return tuple((self.row(state, n).no, len(state.said[n])) for n in range(self.datasets))

    def truth(self, state: State, dataset: int) -> ReplicaRow:
        return self.replica(state, dataset, *self.now(state)[dataset])

    def file(self, state: State, dataset: int, version: int, seen: tuple[tuple[int, int], ...]) -> FileHere:
        others = []
        for n, name in enumerate(self.names):
            if n != dataset:
                chain = self.histories[state.chains[n]].rows[seen[n][0]]
                claim = chain.claims.protecting(DISK, Block(f"{name}#1"), LFN, None)
                others.append(OtherDataset(name, self.replica(state, n, *seen[n]), claim.claim if claim else ""))
        found = PlacedFile(1, ADLER32, f"v{version}") if version else None
        replica = self.replica(state, dataset, *seen[dataset])
        block = Block(f"{self.names[dataset]}#1")
        return FileHere(LFN, block, DISK, 1, ADLER32, replica, found, tuple(others))

    # What is wrong.

    def fault(self, state: State) -> str | None:
        for n, (wish, transfer) in enumerate(zip(self.wishes, state.transfers, strict=True)):
            landed = transfer.phase in (Phase.LANDED, Phase.SAID)
            if landed and not state.version and self.row(state, wish.dataset).claims.named(f"i{n}") is not None:
                return f"what landed under the live claim i{n} is not on the disk"
        for n, number in enumerate(state.chains):
            row, removals = self.histories[number].rows[-1], self.histories[number].removals
            last = max((given.no for given in row.promises if given.promised), default=0)
            if last and not state.version and all(removal.no < last for removal in removals):
                return f"what step {last} of dataset {n} promised to keep is not on the disk"
        return self._catalogue_fault(state)

    def _catalogue_fault(self, state: State) -> str | None:
        """At rest, the catalogue is as the disk."""
        busy = (
            any(t.phase in (Phase.ALLOWED, Phase.FOUND, Phase.OPEN, Phase.LANDED) for t in state.transfers)
            or state.executors
        )
        rows = [self.truth(state, n) for n in range(self.datasets)]
        if busy or any(row.removal for row in rows):
            return None
        if any(row.held for row in rows) != bool(state.version):
            held = [self.names[n] for n, row in enumerate(rows) if row.held]
            return f"at rest {', '.join(held) or 'no dataset'} holds the file, and the disk has version {state.version}"
        return None

    # Moves.

    def moves(self, state: State) -> Iterator[tuple[str, State]]:
        for n in range(len(self.wishes)):
            yield from self._transfer(state, n)
        for n in range(self.datasets):
            yield from self._chain(state, n)
        for look in dict.fromkeys(state.looks):
            yield from self._look(state, look)
        for executor in dict.fromkeys(state.executors):
            yield from self._executor(state, executor)

    def locked(self, state: State) -> bool:
        """Whether an executor holds the lock of the name."""
        return any(e.looked is not None and not e.done for e in state.executors)

    def _transfer(self, state: State, n: int) -> Iterator[tuple[str, State]]:
        wish, transfer, name = self.wishes[n], state.transfers[n], f"i{n}"
        row = self.row(state, wish.dataset)

        def at(phase: Phase, on: int = 0, **changed: object) -> State:
            transfers = (*state.transfers[:n], Transfer(phase, on), *state.transfers[n + 1 :])
            return state._replace(transfers=transfers, **changed)  # type: ignore[arg-type]

        if transfer.phase is not Phase.OVER and self.never_claimed(state, n):
            yield f"{name}: its claim is noted", self.claim(state, n)
        still_open = transfer.phase in (Phase.ALLOWED, Phase.FOUND, Phase.OPEN)
        unheard = transfer.phase is Phase.LANDED
        if (still_open or unheard) and gates.why_no_claim_end(row, name, still_open, unheard) is None:
            step = ClaimDecided(*_head(row), (), (name,))
            yield f"{name}: its claim ends", self.counted(state, wish.dataset, step)
        match transfer.phase:
            case Phase.NEW:
                if any(gates.why_no_landing(view.claims, name) is None for view in self._views(state, wish.dataset)):
                    yield f"{name}: planned", at(Phase.PLANNED)
            case Phase.PLANNED:
                if self.opens_later:
                    if self.may_open(state, n):
                        yield f"{name}: its part may be opened", at(Phase.ALLOWED)
                elif not self.locked(state) and self.may_open(state, n):
                    if state.version and not wish.repairs:
                        yield f"{name}: its part finds version {state.version}", at(Phase.FOUND, state.version)
                    else:
                        found = f"version {state.version}" if state.version else "nothing"
                        yield f"{name}: opens its part beside {found}", at(Phase.OPEN, state.version)
            case Phase.ALLOWED:
                if state.version and not wish.repairs:
                    yield f"{name}: adopts version {state.version}", at(Phase.LANDED)
                else:
                    yield f"{name}: opens its part", at(Phase.OPEN, state.version)
            case Phase.FOUND:
                if not transfer.seen and self.adopts_caught_up:
                    found = Transfer(Phase.FOUND, transfer.on, self.now(state))
                    caught_up = (*state.transfers[:n], found, *state.transfers[n + 1 :])
                    yield f"{name}: its worker catches up", state._replace(transfers=caught_up)
                elif state.version != transfer.on or self.why_not_adopted(state, n) is not None:
                    yield f"{name}: does not adopt it", at(Phase.PLANNED)
                else:
                    yield f"{name}: adopts version {state.version}", at(Phase.LANDED)
            case Phase.OPEN:
                yield from self._seal(state, n)
            case Phase.LANDED:
                yield f"{name}: says its word", self.say(at(Phase.SAID), wish.dataset, Said(f"w{name}"))
            case Phase.SAID:
                if gates.why_no_claim_end(row, name, 0, 0) is None:
                    step = ClaimDecided(*_head(row), (), (name,))
                    yield f"{name}: its claim ends", self.counted(at(Phase.OVER), wish.dataset, step)
            case Phase.OVER:
                if self.falls_back:
                    yield f"{name}: its row falls back", at(Phase.PLANNED)

    def never_claimed(self, state: State, n: int) -> bool:
        rows = self.histories[state.chains[self.wishes[n].dataset]].rows
        return all(row.claims.named(f"i{n}") is None for row in rows)

    def claim(self, state: State, n: int) -> State:
        dataset = self.wishes[n].dataset
        claim = NotedClaim(f"i{n}", DISK, (Selector(Kind.DATASET, self.names[dataset]),))
        row = self.row(state, dataset)
        if gates.why_no_claim(row, claim) is not None:
            return state
        return self.counted(state, dataset, ClaimDecided(*_head(row), (claim,)))

    def _views(self, state: State, dataset: int) -> tuple[ChainRow, ...]:
        return self.histories[state.chains[dataset]].rows

    def may_open(self, state: State, n: int) -> bool:
        """Whether the gate opens on some state of the journals that a lagging view may show."""
        wish = self.wishes[n]
        if self.opens_caught_up:
            now = self.file(state, wish.dataset, state.version, self.now(state))
            return gates.why_no_part(self.row(state, wish.dataset).claims, f"i{n}", now, f"wi{n}") is None
        far = [product(range(steps + 1), range(facts + 1)) for steps, facts in self.now(state)]
        return any(
            gates.why_no_part(
                self._views(state, wish.dataset)[seen[wish.dataset][0]].claims,
                f"i{n}",
                self.file(state, wish.dataset, state.version, seen),
                f"wi{n}",
            )
            is None
            for seen in product(*far)
        )

    def why_not_adopted(self, state: State, n: int) -> str | None:
        """What is there may be another chain's, which removes it: the gate is asked again, of a view that caught up."""
        wish, transfer = self.wishes[n], state.transfers[n]
        if not transfer.seen:
            return None
        row = self._views(state, wish.dataset)[transfer.seen[wish.dataset][0]]
        file = self.file(state, wish.dataset, transfer.on, transfer.seen)
        return gates.why_no_part(row.claims, f"i{n}", file, f"wi{n}")

    def _landed(self, state: State, n: int) -> State:
        transfers = (*state.transfers[:n], Transfer(Phase.LANDED), *state.transfers[n + 1 :])
        return state._replace(transfers=transfers, version=state.landed + 1, landed=state.landed + 1)

    def _seal(self, state: State, n: int) -> Iterator[tuple[str, State]]:
        on = state.transfers[n].on
        found = f"v{state.version}" if state.version else None
        if not state.version:
            yield f"i{n}: lands version {state.landed + 1}", self._landed(state, n)
        elif on and gates.why_no_exchange(f"v{on}", found, locked=not self.locked(state)) is None:
            yield f"i{n}: puts version {state.landed + 1} in the place of version {on}", self._landed(state, n)
        elif on != state.version:
            transfers = (*state.transfers[:n], Transfer(Phase.PLANNED), *state.transfers[n + 1 :])
            yield f"i{n}: another file is there, its part is opened again", state._replace(transfers=transfers)

    def _chain(self, state: State, n: int) -> Iterator[tuple[str, State]]:
        row = self.row(state, n)
        of = f" in dataset {n}" if self.datasets > 1 else ""
        if len(state.looks) < self.workers and not self.locked(state):
            steps = self.histories[state.chains[n]].rows
            asked = sum(len(b.asks) > len(a.asks) for a, b in pairwise(steps))
            for promises, may in ((False, asked < self.asks[n]), (True, len(row.promises) < self.promises[n])):
                if may:
                    look = Look(promises, n, row.no, state.version)
                    would = "promise" if promises else "ask"
                    yield f"a worker that would {would}{of} looks", self._with(state, (*state.looks, look))
        for ask in row.asks:
            relied = (ReliedOn(OTHER, 1),)
            if gates.why_no_removal(row, ask, LFN, now_ms=0, promises=relied) is None:
                step = RemovalDecided(*_head(row), ask.no, (RemovedFiles((LFN,), relied),))
                yield f"the removal{of} is decided", self.counted(state, n, step)
        for removal in self.histories[state.chains[n]].removals:
            if state.told < self.executors:
                told = tuple(sorted((*state.executors, Executor(n, removal)), key=repr))
                yield (
                    f"an executor of step {removal.no}{of} is told",
                    state._replace(executors=told, told=state.told + 1),
                )

    def _with(self, state: State, looks: tuple[Look, ...]) -> State:
        return state._replace(looks=tuple(sorted(looks)))

    def _look(self, state: State, look: Look) -> Iterator[tuple[str, State]]:
        rest = list(state.looks)
        rest.remove(look)
        would = "promise" if look.promises else "ask"
        if not look.seen:
            yield (
                f"the worker that would {would} catches up",
                self._with(state, (*rest, look._replace(seen=self.now(state)))),
            )
            return
        state = self._with(state, tuple(rest))
        row = self.histories[state.chains[look.dataset]].rows[look.no]
        step = self._promise(state, row, look) if look.promises else self._ask(state, row, look)
        if step is None:
            yield f"the worker that would {would} may not", state
        else:
            yield f"it {would}s", self.counted(state, look.dataset, step)

    def _ask(self, state: State, row: ChainRow, look: Look) -> KeepingStep | None:
        file = self.file(state, look.dataset, look.version, look.seen)
        if gates.why_no_ask(row, copies=1, asked=(OTHER,)) or gates.why_no_leaving(row, file, None):
            return None
        leaving = LeavingFile(LFN, 1, ADLER32, f"v{look.version}", tuple(sorted(file.replica.words)))
        return LeaveAsked(*_head(row), file.block, DISK, (leaving,), (OTHER,))

    def _promise(self, state: State, row: ChainRow, look: Look) -> KeepingStep | None:
        file = self.file(state, look.dataset, look.version, look.seen)
        asker = self.askers[look.dataset]
        if gates.why_no_promise(row, asker, asker.asks[0], file) is not None:
            return None
        return KeepPromised(*_head(row), OTHER, asker.asks[0].no, asker.asks[0].sha256, (LFN,))

    def _executor(self, state: State, executor: Executor) -> Iterator[tuple[str, State]]:
        rest = list(state.executors)
        rest.remove(executor)

        def then(*others: Executor, version: int = state.version) -> State:
            return state._replace(executors=tuple(sorted((*rest, *others), key=repr)), version=version)

        who = f"the executor of step {executor.removal.no}"
        if executor.done:
            lost = Said("", self.taken_back(state, executor), executor.removal.sha256)
            yield f"{who} says FilesLost", self.say(then(), executor.dataset, lost)
        elif executor.looked is None:
            if not self.locked(state):
                found = f"version {state.version}" if state.version else "nothing"
                yield f"{who} takes the lock and finds {found}", then(executor._replace(looked=state.version))
        else:
            found_version = f"v{executor.looked}" if executor.looked else None
            why = gates.why_no_unlink(executor.removal, found_version, ordered_by=PROCESS, worker=PROCESS, locked=True)
            over = executor._replace(looked=None, done=True)
            if why is None:
                yield f"{who} unlinks version {state.version}", then(over, version=0)
            else:
                yield f"{who} leaves it: {why}", then(over)

    def unended(self, state: State) -> str | None:
        """Which ask or removal does not end once executors run; None when all do."""
        state = state._replace(looks=())
        for _ in range(40):
            asks = [(n, ask) for n in range(self.datasets) for ask in self.row(state, n).asks]
            owed = [(n, self.truth(state, n).removal) for n in range(self.datasets) if self.truth(state, n).removal]
            if state.executors:
                state = next(after for _, after in self._executor(state, self._runnable(state)))
            elif owed:
                n, removal = owed[0]
                assert removal is not None
                state = state._replace(executors=(Executor(n, removal),))
            elif asks:
                n, ask = asks[0]
                group = RemovedFiles((LFN,), (ReliedOn(OTHER, 1),))
                state = self.counted(state, n, RemovalDecided(*_head(self.row(state, n)), ask.no, (group,)))
            else:
                return None
        return "an ask or a removal does not end"

    def _runnable(self, state: State) -> Executor:
        return next((e for e in state.executors if e.looked is not None or e.done), state.executors[0])

    def taken_back(self, state: State, executor: Executor) -> tuple[str, ...]:
        """The words that its FilesLost names: those of the ask."""
        return executor.removal.words

    def say(self, state: State, dataset: int, fact: Said) -> State:
        said = (*state.said[:dataset], (*state.said[dataset], fact), *state.said[dataset + 1 :])
        return state._replace(said=said)

    def counted(self, state: State, dataset: int, step: KeepingStep) -> State:
        """The state after a step was published, whatever became of it."""
        number = state.chains[dataset]
        after = self._after.get((number, step))
        if after is None:
            history = self.histories[number]
            folded = chains.fold(history.rows[-1], step)
            if folded.heard is StepHeard.COUNTS:
                grown = History((*history.rows, folded.row), (*history.removals, *folded.removals))
                after = self.number(grown)
            else:
                after = number
            self._after[number, step] = after
        return state._replace(chains=(*state.chains[:dataset], after, *state.chains[dataset + 1 :]))


def _head(row: ChainRow) -> tuple[object, ...]:
    return (*row.next_head, PROCESS, 0, Text("worker"), None, Text(""))
