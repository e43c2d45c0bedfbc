"""The ledger's fold of a chain, held to the machine's over drawn histories: the same steps count and do the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core.keeping import chains
from streams.core.keeping.chains import ChainRow, StepHeard, fold
from streams.core.ledger import keeping_chains
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.keeping_chains import Chain
from streams.core.ledger.keeping_facts import RECORDS, Held, KeepingFacts, Kind
from streams.core.ledger.numbering import Class
from streams.core.ledger.rows import Codec, MemoryRows, Names
from streams.core.names import Adler32, Block, Dataset, Lfn
from streams.core.records.keeping import KeepingStep, KeepPromised, NotedClaim
from streams.core.selectors import Kind as Selected
from streams.core.selectors import Selector
from tests.core import example as x
from tests.core.test_keeping import BUFFER, DISK, EMPTY, WHOLE, ask, head, note, removal, settle

HOW = {
    StepHeard.COUNTS: {Class.APPLIED},
    StepHeard.AGAIN: {Class.DUPLICATE},
    StepHeard.VOID: {Class.SUPERSEDED, Class.DUPLICATE},
    StepHeard.PASSED: {Class.SUPERSEDED, Class.DUPLICATE},
    StepHeard.DISPUTES: {Class.SUPERSEDED},
}
"""What the ledger calls it; of what did not count it also knows the repeats."""


class Folded:
    """A chain as the ledger folds it, over rows of encoded meaning."""

    def __init__(self) -> None:
        self.codec = Codec(Names(rows := MemoryRows()), b"")
        self.facts, self.rows = KeepingFacts(rows, self.codec), rows
        self.chain = Chain(x.A, self.codec.file(x.DATASET))
        self.offset = 0

    def hear(self, step: KeepingStep) -> Class:
        place = LogPosition(x.A, "keeping", 0, self.offset)
        origin = m.Origin(x.A, "w", "i", self.offset, self.offset)
        self.offset += 1
        assert self.facts.add(place, origin, step, 0, is_first=True)
        return self.chain.hear(self.facts.step_at(Dataset(x.DATASET), place))

    def removed(self) -> list[tuple[int, str, int]]:
        """Number, digest and name of each file that was removed by right."""
        out: list[tuple[int, str, int]] = []
        for one in self.chain.removals:
            said: Any = self.facts.step_at(Dataset(x.DATASET), one.step.place).said
            over = {number for number, _ in one.unordered}
            if one.ask is not None and not one.too_early_ms:
                out += [(one.step.no, one.step.sha256.hex(), file) for n, file in said.files() if n not in over]
        return sorted(out)

    def claims(self) -> list[tuple[object, ...]]:
        return [tuple(live.claim) for _, live in sorted(self.chain.claims.items())]

    def claimed(self, claim: NotedClaim) -> tuple[object, ...]:
        named = tuple((one.kind.value, self.codec.file(one.name)) for one in claim.selectors)
        return claim.claim, claim.endpoint, named, claim.lands, claim.intent

    def open(self) -> dict[int, set[int]]:
        return {no: set(one.files) for no, one in self.chain._asks.items()}


numbers = st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True)
CLAIMED = [
    Selector(Selected.FILE, x.lfn(1)),
    Selector(Selected.FILE, x.lfn(2)),
    Selector(Selected.BLOCK, x.BLOCK),
    Selector(Selected.DATASET, x.DATASET),
]


@st.composite
def steps(draw: st.DrawFn) -> list[KeepingStep]:
    """Mostly the next one; some lost a race, live in another history, settle, or come again."""
    out: list[KeepingStep] = []
    past = [EMPTY]
    for _ in range(draw(st.integers(0, 14))):
        base = past[max(0, len(past) - 1 - draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2])))]
        names = draw(numbers)
        process, cause = draw(st.sampled_from(["p", "p", "p", "q"])), draw(st.sampled_from([None, x.INTENT]))
        selectors = (draw(st.sampled_from(CLAIMED)),)
        lands = draw(st.booleans())
        intent = None if lands else x.INTENT
        claim = NotedClaim(f"c{names[0]}", draw(st.sampled_from([DISK, BUFFER])), selectors, lands, intent)
        asks = [a.no for a in base.asks] or [1]
        early = {"not_before_ms": 10} if draw(st.integers(0, 4)) == 0 else {}
        step: KeepingStep = draw(
            st.sampled_from(
                [
                    note(base, claim, process=process),
                    note(base, ended=(claim.claim,), process=process),
                    ask(base, *names, process=process, cause=cause, **early),
                    ask(base, *names, endpoint=BUFFER, process=process, cause=cause),
                    ask(base, *names, process=process, cause=cause),
                    removal(base, asks[-1], *names, process=process),
                    removal(base, asks[0], *names, process=process, at_ms=10),
                    removal(base, asks[0], kept=tuple(names), process=process),
                    KeepPromised(*head(base, process), x.C, 1, x.SHA256, tuple(map(x.lfn, names))),
                    settle(base),
                    settle(base, no=base.no + 20),
                    replace(note(base, claim, process=process), no=base.no + 2, prev_sha256=x.SHA256),
                    *out[-3:],
                ]
            )
        )
        out.append(step)
        past.append(fold(past[-1], step).row)
    return out


@settings(max_examples=600, deadline=None, derandomize=True)
@given(steps())
def test_the_same_steps_count_and_do_the_same(history: Sequence[KeepingStep]) -> None:
    row, folded, removed = EMPTY, Folded(), []
    for step in history:
        was = fold(row, step)
        row = was.row
        removed += [(one.no, one.sha256, folded.codec.file(one.lfn)) for one in was.removals]
        assert folded.hear(step) in HOW[was.heard], (was.heard, step)
        assert folded.removed() == sorted(removed)
        assert (folded.chain.dispute is not None) == row.disputed
        assert folded.claims() == [folded.claimed(claim) for claim in row.claims]
        assert folded.open() == {a.no: names(folded, (f.lfn for f in a.files)) for a in row.asks}


def names(folded: Folded, lfns: Iterable[Lfn]) -> set[int]:
    return {folded.codec.file(lfn) for lfn in lfns}


def test_limits_are_the_machine_s() -> None:
    assert keeping_chains.OPEN_ASKS_MAX == chains.ASKS_OPEN_MAX
    assert keeping_chains.REMEMBERED_MAX == chains.REMEMBERED_MAX
    assert set(RECORDS) == set(Kind)


@pytest.mark.parametrize("back", [1, 2, chains.REMEMBERED_MAX - 1, chains.REMEMBERED_MAX, chains.REMEMBERED_MAX + 1])
def test_of_a_number_given_long_before(back: int) -> None:
    row, folded, past = EMPTY, Folded(), list[ChainRow]()
    for number in range(chains.REMEMBERED_MAX + 4):
        past.append(row)
        step = note(row, ended=(str(number),))
        folded.hear(step)
        row = fold(row, step).row
    base = past[-back]
    for late in (note(base, ended=("late",)), replace(note(base, ended=("other",)), prev_sha256=x.SHA256)):
        was = fold(row, late)
        assert folded.hear(late) in HOW[was.heard]
        assert (folded.chain.dispute is not None) == was.row.disputed
        row = was.row


def test_so_many_asks_are_open() -> None:
    row, folded = EMPTY, Folded()
    for number in range(chains.ASKS_OPEN_MAX + 2):
        step = ask(row, number)
        folded.hear(step)
        row = fold(row, step).row
    assert set(folded.open()) == {one.no for one in row.asks} == set(range(1, chains.ASKS_OPEN_MAX + 1))
    folded.hear(removal(row, chains.ASKS_OPEN_MAX + 1, chains.ASKS_OPEN_MAX))
    assert [one.ending.words for one in folded.chain.removals[0].unordered] == ["16 asks were open before it"]


def test_a_claim_s_step_ends_no_asks_but_for_what_it_covers() -> None:
    """Whatever process of the site writes it: it is noted by who plans, and asks are of who removes."""
    one = NotedClaim("one", DISK, (Selector(Selected.FILE, x.lfn(1)),))
    folded, row = Folded(), EMPTY
    for step in (ask(row, 1, 2), note(replace(row, no=1, sha256=m.step_sha256(ask(row, 1, 2))), one, process="q")):
        folded.hear(step)
        row = replace(row, no=step.no, sha256=m.step_sha256(step))
    assert folded.open() == {1: names(folded, [x.lfn(2)])}
    folded.hear(removal(row, 1, 1, 2))
    assert [file for _, _, file in folded.removed()] == [folded.codec.file(x.lfn(2))]
    assert [one.ending.words for one in folded.chain.removals[0].unordered] == ["claim one of step 2 covers it"]


def test_any_other_step_of_another_process_ends_them() -> None:
    folded, row = Folded(), EMPTY
    folded.hear(first := ask(row, 1))
    row = fold(row, first).row
    folded.hear(second := ask(row, 2, process="q"))
    row = fold(row, second).row
    folded.hear(removal(row, 1, 1, process="q"))
    (removed,) = folded.chain.removals
    assert [one.ending.words for one in removed.unordered] == ["another process wrote step 2"]
    assert folded.removed() == []


def test_what_lives_at_the_end_covers() -> None:
    folded = Folded()
    folded.hear(note(EMPTY, WHOLE))
    block, file = folded.codec.file(x.BLOCK), folded.codec.file(x.lfn(1))
    live = folded.chain.covering(DISK, block, file)
    assert live is not None
    assert (live.claim.name, live.no) == ("whole", 1)
    assert folded.chain.covering(BUFFER, block, file) is None


def test_files_of_a_record_have_their_own_blocks() -> None:
    folded, other = Folded(), Block(f"{x.DATASET}#2")
    blocks = (x.BLOCK, other, other, x.BLOCK)
    files = tuple(m.HeldFile(x.lfn(n), block, 1, Adler32("00000001"), "v1") for n, block in enumerate(blocks))
    place, origin = LogPosition(x.A, "replicas", 0, 0), m.Origin(x.A, "w", "i", 0, 0)
    assert folded.facts.add(place, origin, m.FilesHeld(x.DATASET, x.A, files), 0, is_first=True)
    (fact,) = folded.facts.held(x.DATASET)
    assert isinstance(fact.said, Held)
    assert [fact.said.block_of(n) for n in range(4)] == [folded.codec.file(block) for block in blocks]
