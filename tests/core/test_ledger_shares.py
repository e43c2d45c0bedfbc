"""Partitions read in shares, by ledgers that know nothing of each other: brought together they say what one says."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import topics
from streams.core.ledger import Ledger
from streams.core.ledger.accounts import Accounts, By
from streams.core.ledger.cuts import digest_of
from streams.core.ledger.findings import FindingList, Judgement, LogPosition
from streams.core.ledger.rows import MemoryRows
from streams.core.ledger.seals import Seals
from streams.core.ledger.shares import Share
from streams.keys.ed25519 import is_signed
from tests.audit.history import LATER_MS, PARTITIONS, A, B, C, Federation, healthy, hear, locate
from tests.core.test_ledger_order import BREAKS, _interleaved

SALT = b"salt"


def ledger(world: Federation) -> tuple[Ledger, MemoryRows]:
    rows = MemoryRows()
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


def shared(world: Federation, order: list[int], of: int) -> Ledger:
    """What `of` ledgers make of the facts, each of its share, in one."""
    whole, _ = ledger(world)
    facts = list(_interleaved(world, order))
    facts.sort(key=lambda one: not is_seal(one[0].topic))
    for no in range(of):
        share, (part, rows) = Share(no, of), ledger(world)
        for place, rec in facts:
            if is_seal(place.topic) or place.partition in share:
                hear(part, place, rec)
        whole.absorb(pickle.loads(pickle.dumps(part.kept())), rows, share)  # as another process keeps it
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
