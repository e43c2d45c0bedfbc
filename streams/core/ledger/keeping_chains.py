"""One chain of keeping as the log has it: which steps count, and for which files a removal's ask was open.

The steps of one site about one dataset, in the order of their partition. Written apart from the machine that it
judges, and held to it by tests. Heads of steps are remembered, and the files of asks that are open; what else a step
says is read from its row again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.core.ledger.findings import LogPosition
from streams.core.ledger.keeping_facts import Ask, Claimed, Claims, KeepingFact, Kind, NamedHash, Promise, Removal
from streams.core.ledger.numbering import Class
from streams.core.names import IntentId, Site

OPEN_ASKS_MAX = 16
"""An ask beyond them does not open."""
REMEMBERED_MAX = 256
"""A step of another history counts as long past, where so many steps stand behind its number."""
_CLOSED_MAX = 64
"""Asks that have ended of which it is known how."""


class Step(NamedTuple):
    """The head of a step that was heard."""

    kind: Kind
    no: int
    sha256: bytes
    place: LogPosition
    at_ms: int
    logged_ms: int


class Dispute(NamedTuple):
    """`other` begins another history: it continues what does not count, or leaves out a number. `why`: in words."""

    last: Step | None
    other: Step
    why: str


class Ending(NamedTuple):
    """Why an ask is not open for a file, and the step that says so."""

    words: str
    place: LogPosition


class Unordered(NamedTuple):
    """A file that a removal names and that was not open in its ask: its number there."""

    number: int
    ending: Ending


class CountedRemoval(NamedTuple):
    """A step that removes files. `ask`: of its site, None where there is no such ask. `unordered`: what it may not."""

    step: Step
    ask: Step | None
    unordered: tuple[Unordered, ...]
    too_early_ms: int
    """By how much it comes before its ask allows; then it removes nothing."""


class LiveClaim(NamedTuple):
    claim: Claimed
    no: int
    place: LogPosition


@dataclass(slots=True)
class _OpenAsk:
    step: Step
    process: str
    cause: IntentId | None
    said: Ask
    files: set[int]
    over: dict[int, Ending] = field(default_factory=dict)
    all_over: Ending | None = None

    def ending_of(self, file: int) -> Ending:
        found = self.over.get(file) or self.all_over
        return found or Ending("it was not asked for in it", self.step.place)


class _Covered:
    """Claims by what they cover."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, NamedHash], dict[str, LiveClaim]] = {}

    def add(self, live: LiveClaim) -> None:
        for name in live.claim.names:
            self._by_name.setdefault((live.claim.endpoint, name), {})[live.claim.name] = live

    def drop(self, live: LiveClaim) -> None:
        for name in live.claim.names:
            of_name = self._by_name[live.claim.endpoint, name]
            del of_name[live.claim.name]
            if not of_name:
                del self._by_name[live.claim.endpoint, name]

    def over(self, endpoint: str, names: Iterable[NamedHash]) -> Iterator[LiveClaim]:
        for name in names:
            yield from self._by_name.get((endpoint, name), {}).values()


class Chain:
    """Fed one record after the other; then read."""

    def __init__(self, site: Site, dataset: int) -> None:
        """`dataset`: the hash of its name."""
        self.site = site
        self.steps: dict[int, Step] = {}
        """Those that count, by number."""
        self.removals: list[CountedRemoval] = []
        self.disputes: list[Dispute] = []
        self.settled_no = 0
        """The last number that an operator gave."""
        self.claims: dict[str, LiveClaim] = {}
        """Those that live at its end."""
        self.asked_for = 0
        """Files that its asks are open for at its end."""
        self.known: dict[bytes, Step] = {}
        """Steps that were heard, whatever became of them."""
        self._dataset = dataset
        self._covered = _Covered()
        self._last: Step | None = None
        self._remembered: list[bytes] = []
        self._highest_no = 0
        self._is_disputed = False
        self._asks: dict[int, _OpenAsk] = {}
        self._closed: OrderedDict[int, _OpenAsk] = OrderedDict()

    @property
    def dispute(self) -> Dispute | None:
        """The one that nobody has settled."""
        return self.disputes[-1] if self._is_disputed else None

    def close(self) -> None:
        """All has been heard: what is needed only to go on is forgotten."""
        self.asked_for = sum(len(ask.files) for ask in self._asks.values())
        self._asks.clear()
        self._closed.clear()

    def hear(self, fact: KeepingFact) -> Class:
        """The next record of the partition; whether it counts, repeats one, or does not count."""
        step = Step(fact.kind, fact.no, fact.sha256, fact.place, fact.at_ms, fact.logged_ms)
        if fact.sha256 in self.known:
            return Class.DUPLICATE
        self.known[fact.sha256] = step
        if fact.kind is Kind.SETTLED:
            return self._settle(fact, step)
        if self._is_disputed:
            self._highest_no = max(self._highest_no, fact.no)
            return Class.SUPERSEDED
        return self._continue(fact, step)

    # numbers and digests

    def _settle(self, fact: KeepingFact, step: Step) -> Class:
        last = 0 if self._last is None else self._last.no
        if step.no <= (self._highest_no if self._is_disputed else last):
            return Class.SUPERSEDED
        self._close_others("", Ending(f"an operator settled the chain in step {step.no}", step.place))
        self._is_disputed, self._remembered, self.settled_no = False, [], step.no
        self._count(fact, step)
        return Class.APPLIED

    def _continue(self, fact: KeepingFact, step: Step) -> Class:
        last_no, last = (0, b"") if self._last is None else (self._last.no, self._last.sha256)
        if step.no == last_no + 1 and fact.prev_sha256 == last:
            self._count(fact, step)
            return Class.APPLIED
        if step.no > last_no + 1:
            why = f"leaves out {_numbers(last_no + 1, step.no - 1)}"
        elif step.no == last_no + 1 or self._is_of_another_history(step.no, fact.prev_sha256):
            why = "continues a step that does not count"
        else:
            return Class.SUPERSEDED
        self.disputes.append(Dispute(self._last, step, why))
        self._is_disputed, self._highest_no = True, max(last_no, step.no)
        return Class.SUPERSEDED

    def _is_of_another_history(self, no: int, prev_sha256: bytes) -> bool:
        """Of a number that was given: not where what the given one continues is long past."""
        assert self._last is not None
        at = no - (self._last.no - len(self._remembered) + 1)
        if at < 0 or (at == 0 and no > 1):
            return False
        return prev_sha256 != (self._remembered[at - 1] if at else b"")

    def _count(self, fact: KeepingFact, step: Step) -> None:
        if fact.kind is not Kind.CLAIMS:  # which aborts what it protects, whoever asked for it
            self._close_others(fact.process, Ending(f"another process wrote step {step.no}", step.place))
        match fact.said:
            case Claims():
                self._claim(fact.said, step)
            case Ask():
                self._ask(fact, fact.said, step)
            case Promise():
                self._abort(set(fact.said.files), Ending(f"{self.site} promised it in step {step.no}", step.place))
            case Removal():
                self._remove(fact.said, step)
            case _:
                pass
        self.steps[step.no] = self._last = step
        self._remembered.append(step.sha256)
        del self._remembered[:-REMEMBERED_MAX]

    # what steps do

    def names_of(self, block: int, file: int) -> tuple[NamedHash, ...]:
        return ("dataset", self._dataset), ("block", block), ("file", file)

    def covering(self, endpoint: str, block: int, file: int) -> LiveClaim | None:
        """A claim that lives at the end and under which files land."""
        over = self._covered.over(endpoint, self.names_of(block, file))
        return next((live for live in over if live.claim.lands), None)

    def _claim(self, said: Claims, step: Step) -> None:
        for name in said.ended:
            if (over := self.claims.pop(name, None)) is not None:
                self._covered.drop(over)
        noted = _Covered()
        for claim in said.noted:
            live = LiveClaim(claim, step.no, step.place)
            noted.add(live)
            if claim.name not in self.claims:  # a live one is what it was
                self.claims[claim.name] = live
                self._covered.add(live)
        for ask in list(self._asks.values()):
            for file in list(ask.files):
                if (by := self._protecting(noted, ask, file)) is not None:
                    self._end(ask, file, _by_claim(by))

    def _protecting(self, covered: _Covered, ask: _OpenAsk, file: int) -> LiveClaim | None:
        over = covered.over(ask.said.endpoint, self.names_of(ask.said.block, file))
        return next((live for live in over if live.claim.protects_from(ask.cause)), None)

    def _ask(self, fact: KeepingFact, said: Ask, step: Step) -> None:
        ask = _OpenAsk(step, fact.process, fact.cause, said, set())
        if len(self._asks) >= OPEN_ASKS_MAX:
            ask.all_over = Ending(f"{OPEN_ASKS_MAX} asks were open before it", step.place)
            self._remember(ask)
            return
        others = {file: one for one in self._asks.values() if one.said.endpoint == said.endpoint for file in one.files}
        for file in said.files:
            if (live := self._protecting(self._covered, ask, file)) is not None:
                ask.over[file] = _by_claim(live)
            elif (other := others.get(file)) is not None:
                ask.over[file] = Ending(f"step {other.step.no} had asked for it", other.step.place)
            else:
                ask.files.add(file)
        if ask.files:
            self._asks[step.no] = ask
        else:
            self._remember(ask)

    def _remove(self, said: Removal, step: Step) -> None:
        ask = self._asks.get(said.ask_no) or self._closed.get(said.ask_no)
        known = self.steps.get(said.ask_no)
        if ask is None and known is not None and known.kind is Kind.ASK:
            gone = Ending("it had ended long before", known.place)
            unordered = tuple(Unordered(number, gone) for number, _ in said.files())
            self._counted(CountedRemoval(step, known, unordered, 0), said)
            return
        if ask is None:
            none = Ending("no ask has that number", step.place if known is None else known.place)
            unordered = tuple(Unordered(number, none) for number, _ in said.files())
            self._counted(CountedRemoval(step, None, unordered, 0), said)
            return
        unordered = tuple(
            Unordered(number, ask.ending_of(file)) for number, file in said.files() if file not in ask.files
        )
        too_early_ms = max(0, ask.said.not_before_ms - said.at_ms)
        self._counted(CountedRemoval(step, ask.step, unordered, too_early_ms), said)
        for file in said.kept:
            self._end(ask, file, Ending(f"step {step.no} keeps it", step.place))
        for _, file in said.files() if not too_early_ms else ():
            self._end(ask, file, Ending(f"step {step.no} removed it", step.place))

    def _counted(self, removal: CountedRemoval, said: Removal) -> None:
        if said.groups:
            self.removals.append(removal)

    def _abort(self, files: set[int], ending: Ending) -> None:
        for ask in list(self._asks.values()):
            for file in files & ask.files:
                self._end(ask, file, ending)

    def _close_others(self, process: str, ending: Ending) -> None:
        for ask in [ask for ask in self._asks.values() if ask.process != process]:
            ask.files.clear()
            ask.all_over = ending
            self._remember(self._asks.pop(ask.step.no))

    def _end(self, ask: _OpenAsk, file: int, ending: Ending) -> None:
        if file not in ask.files:
            return
        ask.files.discard(file)
        ask.over[file] = ending
        if not ask.files:
            self._remember(self._asks.pop(ask.step.no))

    def _remember(self, ask: _OpenAsk) -> None:
        self._closed[ask.step.no] = ask
        if len(self._closed) > _CLOSED_MAX:
            self._closed.popitem(last=False)


def _by_claim(live: LiveClaim) -> Ending:
    return Ending(f"claim {live.claim.name} of step {live.no} covers it", live.place)


def _numbers(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"
