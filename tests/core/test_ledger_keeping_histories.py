"""The audit over histories of the product's own chains, words and gates: clean ones are, and a missing guard shows."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from streams.core.keeping import chains, gates
from streams.core.ledger.findings import Invariant, Judgement
from tests.audit.history import LATER_MS
from tests.core.keeping_federation import Budget
from tests.core.keeping_records import Journals, Told
from tests.core.keeping_search import search
from tests.core.test_ledger_order import _interleaved

I13, I18 = Invariant.LAST_COPY, Invariant.REMOVAL
Patch = pytest.MonkeyPatch
FEDERATIONS: dict[str, Callable[[], Told]] = {
    "three sites, two asks each": lambda: Told(3, asks=2),
    "four sites, two copies": lambda: Told(4, copies=2),
    "three sites, a copy comes back, an accident, starts": lambda: Told(3, asks=3, budget=Budget(2, 1, 2)),
    "three sites of which two hold": lambda: Told(3, holders=2, asks=2, budget=Budget(1, 0, 1)),
}
HISTORIES = 60


def told(world: Journals) -> Judgement:
    world.close()
    world.mirror()
    return world.judge(now_ms=LATER_MS)


@pytest.mark.parametrize("name", FEDERATIONS)
def test_in_histories_of_the_product_nothing_is_found(name: str) -> None:
    """Whatever the order of partitions and the repeats of mirrors."""
    removals = 0
    for seed in range(HISTORIES):
        chance = random.Random(seed)
        world = Journals(FEDERATIONS[name]())
        world.walk(chance, 60)
        judged = told(world)
        assert judged.broken == (), seed
        removals += judged.checked[I13]
        order = [chance.randrange(1000) for _ in range(100)]
        assert world.judge(_interleaved(world, order), now_ms=LATER_MS) == judged, seed
        for key in [key for key in world.partitions() if "." in key[1] and world.logs[key]]:
            world.append(*key, chance.choice(world.logs[key])[1])
        again = world.judge(now_ms=LATER_MS)
        assert [one.words for one in again.findings] == [one.words for one in judged.findings], seed
        assert again.checked[I18] == judged.checked[I18]
    assert removals > HISTORIES / 10, "of histories without removals nothing is learnt"


def test_of_brokers_that_were_put_back_both_histories_are_found_and_no_last_copy_is_lost() -> None:
    parted = 0
    for seed in range(2 * HISTORIES):
        chance = random.Random(seed)
        world = Journals(Told(3, asks=2, budget=Budget(restores=1)))
        world.walk(chance, 60)
        found = [one for one in told(world).broken if one.invariant in (I13, I18)]
        strange = [one.words for one in found if not any(word in one.words for word in ("two histories", "disputed"))]
        assert not strange, seed
        parted += bool(found)
    assert parted > HISTORIES / 10


def a_promise_aborts_nothing(patch: Patch) -> Told:
    patch.setattr(chains, "abort_own", lambda row, promised: row)
    return Told(2)


def a_removal_needs_no_promise(patch: Patch) -> Told:
    patch.setattr(gates, "why_no_removal", lambda *_, **__: None)
    return Told(2)


def a_promise_while_the_removal_goes_on(patch: Patch) -> Told:
    patch.setattr(gates, "why_it_goes", lambda *_: None)
    return Told(3)


LOSE = [a_promise_aborts_nothing, a_removal_needs_no_promise, a_promise_while_the_removal_goes_on]


@pytest.mark.parametrize("plant", LOSE, ids=lambda plant: plant.__name__)
def test_a_missing_guard_shows_in_the_log(plant: Callable[[Patch], Told], monkeypatch: Patch) -> None:
    """In the shortest history in which the last copy is lost."""
    federation = plant(monkeypatch)
    found = search(federation)
    assert found.fault
    world = Journals(federation)
    for words in found.history:
        world.go(next(state for label, state in federation.moves(world.state) if label == words))
    assert {one.invariant for one in told(world).broken} == {I13, I18}


def test_where_the_last_copy_goes_it_is_found(monkeypatch: Patch) -> None:
    """Whoever promises to who would leave, and keeps the own ask open."""
    a_promise_aborts_nothing(monkeypatch)
    monkeypatch.setattr(gates, "why_not_the_leaver", lambda here, asker: None)
    lost = 0
    for seed in range(4 * HISTORIES):
        world = Journals(Told(2, asks=3))
        world.walk(random.Random(seed), 60)
        gone = world.federation.fault(world.state) is not None
        lost += gone
        found = {one.invariant for one in told(world).broken}
        assert not gone or {I13, I18} <= found, seed
    assert lost >= 10
