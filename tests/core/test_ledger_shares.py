"""Partitions read in shares, by ledgers that know nothing of each other: brought together they say what one says."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from heapq import merge
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import topics
from streams.core.ledger import Ledger
from streams.core.ledger.accounts import Accounts, By
from streams.core.ledger.cuts import digest_of
from streams.core.ledger.findings import FindingList, Invariant, Judgement, LogPosition
from streams.core.ledger.rows import MemoryRows
from streams.core.ledger.seals import Seals
from streams.core.ledger.shares import Share
from streams.keys.ed25519 import is_signed
from tests.audit.history import LATER_MS, PARTITIONS, A, B, C, Federation, Rec, healthy, hear, locate
from tests.core.keeping_records import Journals, Told
from tests.core.test_ledger_order import BREAKS, _interleaved

SALT = b"salt"


class Over(MemoryRows):
    """Rows over others, as a process has them that goes on with an index which it only reads."""

    def __init__(self, under: MemoryRows) -> None:
        super().__init__()
        self.under = under

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return merge(self.under.scan(prefix), super().scan(prefix), key=lambda one: one[0])


def own(rows: Over) -> MemoryRows:
    """Without what lies below."""
    rows.under = MemoryRows()
    return rows


def ledger(world: Federation, rows: MemoryRows | None = None) -> tuple[Ledger, MemoryRows]:
    rows = MemoryRows() if rows is None else rows
    made = Ledger(
        world.sites,
        partitions=PARTITIONS,
        auditors=world.auditors,
        seals=Seals(None, is_signed),
        rows=rows,
        salt=SALT,
    )
    return made, rows


def is_seal(topic: str) -> bool:
    return topics.split(topic)[1] == topics.SEALS


def sent(kept: tuple[Any, ...]) -> tuple[Any, ...]:
    """As another process gets it."""
    return pickle.loads(pickle.dumps(kept))  # type: ignore[no-any-return]


def read_in_shares(world: Federation, whole: Ledger, facts: list[tuple[LogPosition, Rec]], of: int) -> None:
    """What `of` ledgers make of the facts that are behind what the whole one knows, each of its share, in that."""
    before, under = whole.kept(), whole._rows
    assert isinstance(under, MemoryRows)
    seals_first = sorted(facts, key=lambda one: not is_seal(one[0].topic))
    parts = []
    for no in range(of):
        share, rows = Share(no, of), Over(under)
        part, _ = ledger(world, rows)
        part.go_on(sent(before))
        part.hear_a_share()
        for place, rec in seals_first:
            if is_seal(place.topic) or place.partition in share:
                hear(part, place, rec)
        parts.append((sent(part.kept()), own(rows), share))
    for kept, rows, share in parts:
        whole.absorb(kept, rows, share)


def the_next(world: Federation, before: Ledger) -> Ledger:
    """The ledger of the next audit, over the same rows."""
    assert isinstance(before._rows, MemoryRows)
    made, _ = ledger(world, before._rows)
    made.go_on(sent(before.kept()))
    return made


def shared(world: Federation, order: list[int], of: int) -> Ledger:
    whole, _ = ledger(world)
    read_in_shares(world, whole, list(_interleaved(world, order)), of)
    return whole


def judged(made: Ledger, world: Federation) -> Judgement:
    findings = FindingList(LATER_MS)
    made.lose_renewed(findings)
    for key in made.wanted():
        for offset, rec in world.logs[key]:
            locate(made, LogPosition(*key, offset), rec)
    return made.judge(LATER_MS, findings=findings)


@pytest.mark.parametrize("hurt", BREAKS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(order=st.lists(st.integers(0, 1000), max_size=100), of=st.integers(1, PARTITIONS + 2))
def test_any_number_of_shares_says_the_same(hurt: Callable[[Federation], None], order: list[int], of: int) -> None:
    world = healthy(A, B, C)
    hurt(world)
    straight, _ = ledger(world)
    for place, rec in world.facts():
        hear(straight, place, rec)
    together = shared(world, order, of)
    assert digest_of(together.roots()) == digest_of(straight.roots())
    assert together.records == straight.records
    assert judged(together, world) == judged(straight, world)


def test_rows_of_shares_are_those_of_one_but_for_the_numbers_of_names() -> None:
    world = healthy(A, B, C)
    straight, _ = ledger(world)
    for place, rec in world.facts():
        hear(straight, place, rec)
    together = shared(world, [], 3)
    for prefix in (b"i", b"f", b"m", b"r"):
        one, other = (list(made._rows.scan(prefix)) for made in (straight, together))
        assert len(one) == len(other) > 0
    for by in By:
        rows = []
        for made in (straight, together):
            account = Accounts(by)
            for _, _, facts in made._facts.all(account.kinds):
                account.add(facts)
            rows.append({n: (r.files, r.bytes, r.failed, r.took_ms.at(0.5)) for n, r in account.rows.items()})
        assert rows[0] == rows[1]


@pytest.mark.parametrize("hurt", BREAKS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    order=st.lists(st.integers(0, 1000), max_size=100),
    stops=st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 4), st.booleans()), min_size=1, max_size=3),
)
def test_stopped_after_any_record_and_gone_on_in_shares_it_judges_alike(
    hurt: Callable[[Federation], None], order: list[int], stops: list[tuple[int, int, bool]]
) -> None:
    """By another number of them each time; judged at the stop or not."""
    world = healthy(A, B, C)
    hurt(world)
    straight, _ = ledger(world)
    for place, rec in world.facts():
        hear(straight, place, rec)
    facts = list(_interleaved(world, order))
    whole, _ = ledger(world)
    for number, of, is_judged in stops:
        read_in_shares(world, whole, facts[: number % (len(facts) + 1)], of)
        if is_judged:
            judged(whole, world)
        whole = the_next(world, whole)
    read_in_shares(world, whole, facts, 2)
    assert digest_of(whole.roots()) == digest_of(straight.roots())
    expected = judged(straight, world)
    assert judged(whole, world) == expected
    assert judged(the_next(world, whole), world) == expected, "nothing is new, and nothing is forgotten"


def test_what_is_heard_behind_shares_goes_on() -> None:
    """An audit that goes on from what several processes read."""
    world = healthy(A, B, C)
    together = shared(world, [], 2)
    BREAKS[3](world)
    straight, _ = ledger(world)
    for place, rec in world.facts():
        hear(straight, place, rec)
        hear(together, place, rec)
    assert judged(together, world) == judged(straight, world)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_kept_and_removed_is_judged_alike_in_shares(seed: int) -> None:
    world, chance = Journals(Told(3, asks=2)), random.Random(seed)
    world.walk(chance, 60)
    world.close()
    world.mirror()
    straight, _ = ledger(world)
    for place, rec in world.facts():
        hear(straight, place, rec)
    together = shared(world, [chance.randrange(1000) for _ in range(100)], chance.randrange(1, 5))
    expected = judged(straight, world)
    assert judged(together, world) == expected
    assert expected.checked[Invariant.REMOVAL], "there is something to judge"
