"""Sites that would remove one file, each with the product's own chain, words and gates: who is left?

What may happen: a site asks, answers any ask that was ever made, decides, gives up, tells an executor, which runs at
any later time; gets the file back under a claim; loses it by an accident and says so; starts again; has its broker's
disk put back to any state of before, once.

Views: a site knows all of its own chain (else its step is void: the number is taken), and acts on any earlier state of
any other site's journals, each for itself, older than what it acted on before too. A view that lags, repeats or goes
back shows nothing else, so no position of a view is part of a state.

Alike are states that differ only in numbers and digests of steps, which name what a step follows: an ask is known by
which of its site's asks it is. And, where `by_name` is off, states that differ only in which site is which: gates then
let any leaver promise, which the product does for the lesser name alone. That allows more than the product does, so
what holds then holds for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import NamedTuple

from streams.core.keeping import chains, duties, gates, words
from streams.core.keeping.chains import ChainRow, CountedRemoval
from streams.core.keeping.gates import FileHere, OtherDataset, PlacedFile
from streams.core.keeping.words import NEVER_HELD, ReplicaRow
from streams.core.names import Adler32, Block, Dataset, Lfn, Site, Text
from streams.core.records.keeping import (
    ChainStep,
    ClaimDecided,
    KeepingStep,
    KeepPromised,
    KeptFile,
    LeaveAsked,
    LeavingFile,
    NotedClaim,
    RemovalDecided,
    RemovedFiles,
)
from streams.core.selectors import Kind, Selector

DATASET = Dataset("/Muon/Run1/RAW")
BLOCK = Block(f"{DATASET}#1")
LFN = Lfn("/store/muon/1.root")
ADLER32 = Adler32("00000001")
DISK = "disk"
NOBODY = Text("worker")
CLAIM = NotedClaim("back", DISK, (Selector(Kind.FILE, LFN),))


class Order(NamedTuple):
    """What an executor was told, and by which process."""

    removal: CountedRemoval
    process: int


class Given(NamedTuple):
    """A promise: whose ask, which of its asks, and the promiser's row right behind it."""

    asker: int
    ask: int
    row: ChainRow


class Past(NamedTuple):
    """What was on the broker's disk at some time."""

    chain: ChainRow
    replica: ReplicaRow


class Local(NamedTuple):
    """One site. `version` of its file, 0 where there is none; `asks`: the row right behind each that it ever made."""

    chain: ChainRow
    replica: ReplicaRow
    version: int
    landed: int
    process: int
    asks: tuple[ChainRow, ...] = ()
    given: tuple[Given, ...] = ()
    orders: tuple[Order, ...] = ()
    accident: bool = False
    past: tuple[Past, ...] = ()


class Budget(NamedTuple):
    """How often each may still happen, at whatever site."""

    regains: int = 0
    accidents: int = 0
    restarts: int = 0
    restores: int = 0
    races: int = 0
    """A second worker says what it meant a record ago."""


NOTHING_ELSE = Budget()


class State(NamedTuple):
    sites: tuple[int, ...]
    budget: Budget


@dataclass
class Federation:
    """`holders`: of `sites`, those that hold the file at first."""

    sites: int
    copies: int = 1
    asks: int = 1
    holders: int = 0
    budget: Budget = NOTHING_ELSE
    by_name: bool = True

    def __post_init__(self) -> None:
        self.names = [Site(f"S_{'ABCDE'[n]}") for n in range(self.sites)]
        self.holders = self.holders or self.sites
        self.orders = [tuple(range(self.sites))] if self.by_name else list(permutations(range(self.sites)))
        self._back = [
            (n, tuple(order.index(place) for place in range(self.sites))) for n, order in enumerate(self.orders)
        ]
        self.locals: list[Local] = []
        self._numbers: dict[Local, int] = {}
        self._keys: list[tuple[int, ...]] = []
        self._shorts: dict[Hashable, int] = {}
        self._shown: list[tuple[int, ...]] = []
        self._alone: dict[int, list[tuple[str, int, str]]] = {}
        self._after: dict[Hashable, int] = {}
        self._met: dict[Hashable, list[tuple[str, int, str]]] = {}

    # States.

    def start(self) -> State:
        sites = []
        for n, name in enumerate(self.names):
            there = n < self.holders
            replica = words.held(NEVER_HELD, "w0") if there else NEVER_HELD
            sites.append(self.number(Local(ChainRow(name, DATASET), replica, int(there), 1, 0)))
        return State(tuple(sites), self.budget)

    def number(self, local: Local) -> int:
        """Locals by number, so that states are small and what follows is looked up."""
        known = self._numbers.get(local)
        if known is None:
            known = self._numbers[local] = len(self.locals)
            self.locals.append(local)
            self._keys.append(tuple(self._short(self.local_key(local, order)) for order in self.orders))
            to = (tuple(g.row.sha256 for g in local.given if g.asker == asker) for asker in range(self.sites))
            asks = tuple(row.sha256 for row in local.asks)
            self._shown.append(tuple(self._short((asks, local.version > 0, given)) for given in to))
        return known

    def _short(self, value: Hashable) -> int:
        return self._shorts.setdefault(value, len(self._shorts))

    def local_key(self, local: Local, order: tuple[int, ...]) -> Hashable:
        """What of a site matters for what follows; other sites are renamed by `order`."""
        return (
            (local.version, local.landed, local.process, local.accident),
            self._replica_key(local.replica),
            self._chain_key(local.chain, local.asks),
            len(local.asks),
            frozenset((order[given.asker], given.ask) for given in local.given),
            tuple(sorted(self._order_key(one, local) for one in local.orders)),
            tuple((self._chain_key(past.chain, local.asks), self._replica_key(past.replica)) for past in local.past),
        )

    def _replica_key(self, row: ReplicaRow) -> Hashable:
        going = row.removal and (row.removal.version, row.removal.words)
        return row.said, row.taken, going

    def _order_key(self, order: Order, local: Local) -> tuple[int, str, tuple[str, ...], bool]:
        return order.process, order.removal.version, order.removal.words, order.removal == local.replica.removal

    def _chain_key(self, chain: ChainRow, asks: tuple[ChainRow, ...]) -> Hashable:
        made = [row.sha256 for row in asks]
        opened = tuple((made.index(a.sha256), a.files[0].version, a.files[0].words, a.process) for a in chain.asks)
        return opened, len(chain.claims), chain.state

    def key(self, state: State) -> Hashable:
        rows = [self._keys[site] for site in state.sites]
        if len(self.orders) == 1:
            return tuple(row[0] for row in rows), state.budget
        # Each order with its renamed keys in their new places; the least stands for all.
        return min([tuple([rows[site][n] for site in back]) for n, back in self._back]), state.budget

    def fault(self, state: State) -> str | None:
        there = sum(self.locals[site].version > 0 for site in state.sites)
        accidents = sum(self.locals[site].accident for site in state.sites)
        least = min(self.copies, self.holders) - accidents
        return f"{there} copies are left of {least} at least" if there < least else None

    # Moves.

    def moves(self, state: State) -> Iterator[tuple[str, State]]:
        budget = state.budget
        for here, number in enumerate(state.sites):
            before, behind = state.sites[:here], state.sites[here + 1 :]
            for label, after, spent in self._at(state, here, number):
                if not spent:
                    yield label, State((*before, after, *behind), budget)
                elif left := getattr(budget, spent):
                    yield label, State((*before, after, *behind), budget._replace(**{spent: left - 1}))

    def _at(self, state: State, here: int, number: int) -> list[tuple[str, int, str]]:
        """What may happen at a site: in words, the site's number after it, and what of the budget it takes.

        Looked up where it was met before: it depends on the site, and of others on what they asked and promised to it.
        """
        met = (number, *(self._shown[site][here] for n, site in enumerate(state.sites) if n != here))
        known = self._met.get(met)
        if known is None:
            known = [
                (f"{self.names[here]} {label}", after, spent)
                for label, after, spent in self._possible(state, here, number)
                if after != number
            ]
            self._met[met] = known
        return known

    def _possible(self, state: State, here: int, number: int) -> Iterator[tuple[str, int, str]]:
        local = self.locals[number]
        if (alone := self._alone.get(number)) is None:
            alone = self._alone[number] = list(self._without_others(local))
        yield from alone
        for asker, site in enumerate(state.sites):
            for ask, row in enumerate(self.locals[site].asks if asker != here else ()):
                after = self._once(number, (asker, ask, row.sha256), self.promise, local, asker, ask, row)
                yield f"promises {self.names[asker]}'s ask {ask + 1}", after, ""
        for promises in self._promises(state, here, local):
            relied = ", ".join(self.names[n] for n, _ in promises)
            after = self._once(number, tuple(given.row.sha256 for _, given in promises), self.decide, local, promises)
            yield f"removes, relying on {relied or 'nobody'}", after, ""
        elsewhere = any(self.locals[site].version for n, site in enumerate(state.sites) if n != here)
        if local.chain.claims and not local.version and elsewhere:
            yield "gets the file again", self.number(self.land(local)), ""

    def _once(self, number: int, move: tuple[Hashable, ...], do: Callable[..., Local], *given: object) -> int:
        """The site's number after a move; what was done before is looked up."""
        known = self._after.get((number, move))
        if known is None:
            known = self._after[number, move] = self.number(do(*given))
        return known

    def _without_others(self, local: Local) -> Iterator[tuple[str, int, str]]:
        for label, do in (
            ("asks", self.ask),
            ("gives up", self.give_up),
            ("ends its claim", self.end_claim),
            ("says that it lost the file", self.say_loss),
        ):
            yield label, self.number(do(local)), ""
        for order in local.orders:
            yield "unlinks", self.number(self.unlink(local, order)), ""
        if self.budget.regains and not local.chain.claims and not local.version:
            yield "notes a claim", self.number(self.claim(local)), "regains"
        if self.budget.accidents and local.version:
            yield "loses the file by an accident", self.number(local._replace(version=0, accident=True)), "accidents"
        if self.budget.restarts:
            yield "starts again", self.number(self.restarted(local)), "restarts"
        if self.budget.races and local.past:
            yield "says a step a record too late", self.number(self.raced(local)), "races"
        for n, past in enumerate(local.past if self.budget.restores else ()):
            yield f"starts on its disk of {n + 1} records before", self.number(self.restored(local, past)), "restores"

    def _promises(self, state: State, here: int, local: Local) -> Iterator[tuple[tuple[int, Given], ...]]:
        """Choices of promises to the open ask, none to `copies` of them, one a site."""
        if not local.chain.asks:
            return
        to_it = [
            (n, given)
            for n, site in enumerate(state.sites)
            for given in self.locals[site].given
            if n != here and given.asker == here
        ]
        for size in range(self.copies + 1):
            yield from combinations(to_it, size)

    # What a site does. A gate that refuses leaves it as it was.

    def file(self, local: Local) -> FileHere:
        found = PlacedFile(1, ADLER32, f"v{local.version}") if local.version else None
        return FileHere(LFN, BLOCK, DISK, 1, ADLER32, local.replica, found)

    def head(self, local: Local) -> ChainStep:
        return ChainStep(*local.chain.next_head, f"p{local.process}", 0, NOBODY, None, Text(""))

    def say(self, local: Local, step: KeepingStep) -> Local:
        folded = chains.fold(local.chain, step)
        assert folded.heard is chains.StepHeard.COUNTS
        replica, orders = local.replica, local.orders
        for removal in folded.removals:
            replica = words.removal_counted(replica, removal)
            orders = (*orders, Order(removal, local.process))
        after = local._replace(chain=folded.row, replica=replica, orders=orders)
        return self.kept_back(local, after)

    def kept_back(self, before: Local, after: Local) -> Local:
        """Remembers what a disk might be put back to, where that may happen at all."""
        if not (self.budget.restores or self.budget.races):
            return after
        kept = before.past if self.budget.restores else ()
        return after._replace(past=(Past(before.chain, before.replica), *kept))

    def raced(self, local: Local) -> Local:
        """The worker had not heard the chain's last step when it wrote."""
        if local.past[0].chain.no == local.chain.no:
            return local
        late = local._replace(chain=local.past[0].chain)
        step = ClaimDecided(*_fields(self.head(late)), (), ("none",))
        return local._replace(chain=chains.fold(local.chain, step).row)

    def ask(self, local: Local) -> Local:
        others = tuple(name for name in self.names if name != local.chain.site)
        if len(local.asks) >= self.asks or local.accident:
            return local
        file = self.file(local)
        if gates.why_no_ask(local.chain, copies=self.copies, asked=others) or gates.why_no_leaving(
            local.chain, file, None
        ):
            return local
        leaving = LeavingFile(LFN, 1, ADLER32, f"v{local.version}", tuple(sorted(local.replica.words)))
        step = LeaveAsked(*_fields(self.head(local)), BLOCK, DISK, (leaving,), others, 0, self.copies)
        after = self.say(local, step)
        return after._replace(asks=(*after.asks, after.chain))

    def promise(self, local: Local, asker: int, ask: int, row: ChainRow) -> Local:
        if any((given.asker, given.ask) == (asker, ask) for given in local.given):
            return local
        asked = row.asks[-1]
        if gates.why_no_promise(local.chain, row, asked, self.file(local)) is not None:
            return local
        step = KeepPromised(*_fields(self.head(local)), row.site, asked.no, asked.sha256, (LFN,))
        after = self.say(local, step)
        return after._replace(given=tuple(sorted((*after.given, Given(asker, ask, after.chain)), key=lambda g: g[:2])))

    def decide(self, local: Local, promises: tuple[tuple[int, Given], ...]) -> Local:
        ask = local.chain.asks[0]
        shown = {self.names[n]: given.row for n, given in promises}
        relied = gates.promises_for(LFN, gates.answers_to(local.chain.site, ask, shown), self.names)
        if len(relied) < len(promises) or gates.why_no_removal(local.chain, ask, LFN, now_ms=0, promises=relied):
            return local
        for (_, given), named in zip(promises, relied, strict=True):
            stands = next(one for one in given.row.promises if one.no == named.no)
            assert named.site == given.row.site
            assert stands.answers(local.chain.site, ask)
        group = RemovedFiles((LFN,), relied)
        after = self.say(local, RemovalDecided(*_fields(self.head(local)), ask.no, (group,)))
        return after if len(after.orders) > len(local.orders) else local

    def give_up(self, local: Local) -> Local:
        if not local.chain.asks:
            return local
        kept = KeptFile(LFN, Text("nobody keeps it"))
        return self.say(local, RemovalDecided(*_fields(self.head(local)), local.chain.asks[0].no, (), (kept,)))

    def unlink(self, local: Local, order: Order) -> Local:
        rest = list(local.orders)
        rest.remove(order)
        worker = f"p{local.process}" if order.process == local.process else ""
        found = f"v{local.version}" if local.version else None
        why = gates.why_no_unlink(order.removal, found, ordered_by=f"p{order.process}", worker=worker, locked=True)
        after = local._replace(orders=tuple(rest))
        if why is None:
            after = after._replace(version=0)
        elif not worker:
            return after
        replica = words.lost(after.replica, order.removal.words, order.removal.sha256)
        return self.kept_back(after, after._replace(replica=replica))

    def claim(self, local: Local) -> Local:
        if gates.why_no_claim(local.chain, CLAIM) is not None:
            return local
        return self.say(local, ClaimDecided(*_fields(self.head(local)), (CLAIM,)))

    def land(self, local: Local) -> Local:
        word = f"w{local.landed}"
        if gates.why_no_part(local.chain.claims, CLAIM.claim, self.file(local), word) is not None:
            return local
        after = local._replace(
            replica=words.held(local.replica, word), version=local.landed + 1, landed=local.landed + 1, accident=False
        )
        return self.kept_back(local, after)

    def end_claim(self, local: Local) -> Local:
        still = int(not local.version)
        if gates.why_no_claim_end(local.chain, CLAIM.claim, still, 0) is not None:
            return local
        return self.say(local, ClaimDecided(*_fields(self.head(local)), (), (CLAIM.claim,)))

    def say_loss(self, local: Local) -> Local:
        if not local.accident or not local.replica.held or gates.why_no_loss(local.chain, LFN) is not None:
            return local
        return self.kept_back(local, local._replace(replica=words.lost(local.replica, local.replica.words)))

    def restarted(self, local: Local) -> Local:
        after = local._replace(process=local.process + 1)
        going = after.replica.removal
        return after._replace(orders=(*after.orders, Order(going, after.process))) if going else after

    def restored(self, local: Local, past: Past) -> Local:
        """Its broker and view know what they knew then; its files and other sites' journals are as they are."""
        return self.restarted(local._replace(chain=past.chain, replica=past.replica, past=()))

    # Healed: every journal is heard everywhere at once, and whoever owes something does it.

    def unended(self, state: State) -> str | None:
        """Which ask does not end once all is healed, a day later at the latest; None when all do."""
        rest = tuple(self.locals[site] for site in state.sites)
        for now_ms in (0, duties.ASK_ENDS_MS):
            rest = self._healed(rest, now_ms)
        for local in rest:
            if local.chain.asks or local.chain.disputed or local.replica.removal:
                return f"{local.chain.site} has open asks, a removal that goes on or a disputed chain at rest"
            if local.replica.held != bool(local.version):
                return f"at rest the catalogue of {local.chain.site} is not as its disk"
        return None

    def _healed(self, rest: tuple[Local, ...], now_ms: int) -> tuple[Local, ...]:
        for _ in range(40):
            before = rest
            for here in range(self.sites):
                rest = (*rest[:here], self._dutiful(rest, here, now_ms), *rest[here + 1 :])
            if rest == before:
                return rest
        raise AssertionError("it does not come to rest")

    def _dutiful(self, rest: tuple[Local, ...], here: int, now_ms: int) -> Local:
        local = rest[here]
        if local.chain.disputed:
            return local
        shown = {one.chain.site: one.chain for one in rest}
        local = self.say_loss(local)
        for answer in duties.answers_owed(local.chain, shown.values()):
            why = gates.why_no_promise(local.chain, shown[answer.asker], answer.ask, self.file(local))
            refused = () if why is None else (KeptFile(LFN, Text(why)),)
            promised = answer.lfns if why is None else ()
            ask = (answer.asker, answer.ask.no, answer.ask.sha256)
            local = self.say(local, KeepPromised(*_fields(self.head(local)), *ask, promised, refused))
        holders = {LFN: [one.chain.site for one in rest if one.replica.held]}
        there = (LFN,) if local.version and local.replica.held else ()
        for owed in duties.decisions_owed(
            local.chain, shown, there, holders, process=f"p{local.process}", now_ms=now_ms
        ):
            step = RemovalDecided(*_fields(self.head(local)), owed.ask_no, owed.removed, owed.kept)
            local = self.say(local, step)
        for removal in duties.removals_owed([local.replica]):
            order = Order(removal.removal, local.process)
            local = self.unlink(local._replace(orders=(order,)), order)
        local = local._replace(orders=())
        if local.chain.claims and not local.version and any(one.version for one in rest):
            local = self.land(local)
        return self.end_claim(local)


@dataclass
class Apart(Federation):
    """Each site holds the file in a dataset of its own: it asks in that chain, and answers in the asker's dataset."""

    def start(self) -> State:
        sites = []
        for n, name in enumerate(self.names):
            chain = ChainRow(name, Dataset(f"/Muon/Run{n}/RAW"))
            sites.append(self.number(Local(chain, words.held(NEVER_HELD, "w0"), 1, 1, 0)))
        return State(tuple(sites), self.budget)

    def file(self, local: Local) -> FileHere:
        return replace(super().file(local), block=Block(f"{local.chain.dataset}#1"))

    def promise(self, local: Local, asker: int, ask: int, row: ChainRow) -> Local:
        other = OtherDataset(local.chain.dataset, local.replica)
        file = replace(self.file(local), block=Block(f"{row.dataset}#1"), replica=NEVER_HELD, others=(other,))
        answers = local._replace(chain=ChainRow(local.chain.site, row.dataset))
        if gates.why_no_promise(answers.chain, row, row.asks[-1], file) is not None:
            return local
        asked = row.asks[-1]
        step = KeepPromised(*_fields(self.head(answers)), row.site, asked.no, asked.sha256, (LFN,))
        return local._replace(given=(*local.given, Given(asker, ask, chains.fold(answers.chain, step).row)))


def _fields(head: ChainStep) -> tuple[object, ...]:
    return (
        head.site,
        head.dataset,
        head.no,
        head.prev_sha256,
        head.process,
        head.at_ms,
        head.by,
        head.cause,
        head.reason,
    )
