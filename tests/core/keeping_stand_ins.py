"""A site with a file at two endpoints, each of which it would leave and rely on the other, and two workers.

One worker asks, looks at the other copy and decides. The second finds a copy missing, and says FilesLost outside the
chain. All of it may happen in any order; one copy may be lost by an accident. Decisions must leave one copy, and no
removal may rely on a copy that its own site has said to be lost before: the chain orders the two.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from streams.core.keeping import chains, gates, words
from streams.core.keeping.chains import ChainRow
from streams.core.keeping.gates import FileHere, PlacedFile
from streams.core.keeping.words import NEVER_HELD, ReplicaRow
from streams.core.names import Adler32, Block, Dataset, Lfn, Site, Text
from streams.core.records.keeping import KeepingStep, KeptFile, LeaveAsked, LeavingFile, RemovalDecided, RemovedFiles

DATASET = Dataset("/Muon/Run1/RAW")
BLOCK = Block(f"{DATASET}#1")
LFN = Lfn("/store/muon/1.root")
ADLER32 = Adler32("00000001")
HELD = words.held(NEVER_HELD, "w0")


class Copy(NamedTuple):
    """The file at one endpoint. `telling`: a worker is about to say that it is lost, its gate was open."""

    endpoint: str
    there: bool = True
    replica: ReplicaRow = HELD
    accident: bool = False
    telling: bool = False


class Looked(NamedTuple):
    """A copy as the deciding worker saw it, behind which number."""

    no: int
    copy: Copy


class State(NamedTuple):
    chain: ChainRow
    copies: tuple[Copy, Copy] = (Copy("disk"), Copy("buffer"))
    looked: Looked | None = None
    asks: int = 0
    late: bool = False
    """A removal came to count after it was said that the copy it relies on is lost."""


@dataclass
class StandIns:
    asks: int = 3

    def start(self) -> State:
        return State(ChainRow(Site("S_A"), DATASET))

    def key(self, state: State) -> Hashable:
        return state

    def fault(self, state: State) -> str | None:
        if state.late:
            return "a removal relies on a copy that its site has said to be lost"
        there = sum(copy.there for copy in state.copies)
        return "no copy is left" if not there and not any(copy.accident for copy in state.copies) else None

    def file(self, copy: Copy) -> FileHere:
        found = PlacedFile(1, ADLER32, "v1") if copy.there else None
        return FileHere(LFN, BLOCK, copy.endpoint, 1, ADLER32, copy.replica, found)

    def say(self, state: State, step: KeepingStep) -> State:
        folded = chains.fold(state.chain, step)
        state = state._replace(chain=folded.row)
        for removal in folded.removals:
            n = 0 if state.copies[0].endpoint == removal.endpoint else 1
            copy = state.copies[n]
            state = self._with(state, n, copy._replace(replica=words.removal_counted(copy.replica, removal)))
            said = state.copies[1 - n].accident and not state.copies[1 - n].replica.held
            state = state._replace(late=state.late or said)
        return state

    def _with(self, state: State, n: int, copy: Copy) -> State:
        return state._replace(copies=(copy, state.copies[1]) if n == 0 else (state.copies[0], copy))

    def moves(self, state: State) -> Iterator[tuple[str, State]]:
        for n, copy in enumerate(state.copies):
            yield from self._asking(state, n, copy, state.copies[1 - n])
            yield from self._losing(state, n, copy)

    def _asking(self, state: State, n: int, copy: Copy, other: Copy) -> Iterator[tuple[str, State]]:
        chain = state.chain
        if state.asks < self.asks and gates.why_no_leaving(chain, self.file(copy), None) is None:
            leaving = LeavingFile(LFN, 1, ADLER32, "v1", ("w0",))
            step = LeaveAsked(*_head(chain), BLOCK, copy.endpoint, (leaving,), (Site("S_B"),))
            yield f"asks for the copy on {copy.endpoint}", self.say(state._replace(asks=state.asks + 1), step)
        for ask in chain.asks:
            if ask.endpoint != copy.endpoint:
                continue
            yield f"looks at the copy on {other.endpoint}", state._replace(looked=Looked(chain.no, other))
            looked = state.looked
            if looked is None or not self.fresh(looked, chain) or looked.copy.endpoint != other.endpoint:
                continue
            stand_ins = (self.file(looked.copy),)
            if gates.why_no_removal(chain, ask, LFN, now_ms=0, promises=(), stand_ins=stand_ins) is None:
                step = RemovalDecided(*_head(chain), ask.no, (RemovedFiles((LFN,), (), (other.endpoint,)),))
                yield f"removes from {copy.endpoint}, relying on {other.endpoint}", self.say(state, step)
        if (removal := copy.replica.removal) is not None:
            gone = copy._replace(there=False, replica=words.lost(copy.replica, removal.words, removal.sha256))
            yield f"unlinks on {copy.endpoint}", self._with(state, n, gone)

    def fresh(self, looked: Looked, chain: ChainRow) -> bool:
        return looked.no == chain.no

    def _losing(self, state: State, n: int, copy: Copy) -> Iterator[tuple[str, State]]:
        if copy.there and not any(one.accident for one in state.copies):
            gone = copy._replace(there=False, accident=True)
            yield f"loses the copy on {copy.endpoint} by an accident", self._with(state, n, gone)
        if copy.there or not copy.replica.held:
            return
        if copy.telling:
            lost = copy._replace(replica=words.lost(copy.replica, copy.replica.words), telling=False)
            yield f"says FilesLost of the copy on {copy.endpoint}", self._with(state, n, lost)
        elif gates.why_no_loss(state.chain, LFN) is None:
            yield f"would say that {copy.endpoint} has lost it", self._with(state, n, copy._replace(telling=True))
        else:
            ask = state.chain.asks_for(LFN)[0]
            kept = KeptFile(LFN, Text("another copy is lost"))
            yield f"ends its ask no {ask.no}", self.say(state, RemovalDecided(*_head(state.chain), ask.no, (), (kept,)))


def _head(row: ChainRow) -> tuple[object, ...]:
    return (*row.next_head, "p", 0, Text("worker"), None, Text(""))
