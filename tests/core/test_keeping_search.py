"""Every interleaving of small federations and of one site's storage, run by the product's own chains, words and gates.

What holds is searched whole, and the number of states is part of the test: a search that became smaller is seen. Then
each guard is taken away in turn, by another function in its place, and the search must find the history that it guards
against. What the worlds do, and which states they call alike, they say themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from streams.core.keeping import chains, gates
from streams.core.keeping.chains import ChainRow, CoveredNames, GivenPromise, StepHeard
from streams.core.keeping.gates import FileHere
from streams.core.records.keeping import ChainStep, NotedClaim
from streams.core.selectors import Kind, Selector
from tests.core import keeping_federation as federation
from tests.core import keeping_storage as storage
from tests.core.keeping_federation import Apart, Budget, Federation
from tests.core.keeping_search import World, search
from tests.core.keeping_stand_ins import Looked, StandIns
from tests.core.keeping_storage import Executor, StorageSite, Wish

Patch = pytest.MonkeyPatch


class Ends(Federation):
    """Healed, every ask ends from every state."""

    def fault(self, state: federation.State) -> str | None:
        return super().fault(state) or self.unended(state)


class StorageEnds(StorageSite):
    def fault(self, state: storage.State) -> str | None:
        return super().fault(state) or self.unended(state)


def opened_later(wishes: tuple[Wish, ...] = (Wish(),), **k: Any) -> StorageSite:
    return StorageSite(wishes, opens_caught_up=True, opens_later=True, adopts_caught_up=False, **k)


def any_leaver_promises(patch: Patch) -> None:
    patch.setattr(gates, "why_not_the_leaver", lambda here, asker: None)


# Which site is which does not matter where any leaver may promise, so those are searched together.
ANY_LEAVER: dict[str, tuple[Callable[[], Federation], int]] = {
    "three sites, two asks each": (lambda: Federation(3, asks=2, by_name=False), 33_095),
    "four sites, two copies, an ask each": (lambda: Federation(4, copies=2, by_name=False), 7_106),
    "three sites, a disk put back": (lambda: Federation(3, budget=Budget(restores=1), by_name=False), 16_098),
    "three sites, a copy comes back": (lambda: Federation(3, budget=Budget(regains=1), by_name=False), 1_085),
    "two sites, two asks each, a disk put back": (
        lambda: Federation(2, asks=2, budget=Budget(restores=1), by_name=False),
        10_379,
    ),
}
BY_NAME: dict[str, tuple[Callable[[], World[Any]], int]] = {
    "three sites": (lambda: Ends(3), 1_998),
    "three sites, a worker that comes too late": (lambda: Ends(3, budget=Budget(races=1)), 3_606),
    "three sites, an accident": (lambda: Ends(3, budget=Budget(accidents=1)), 10_827),
    "three sites, a copy comes back": (lambda: Ends(3, budget=Budget(regains=1)), 6_264),
    "two sites, an accident, a copy comes back, a start": (lambda: Ends(2, budget=Budget(1, 1, 1)), 2_854),
    "two sites, a dataset each": (lambda: Apart(2), 9),
    "two sites, a worker that comes too late": (lambda: Ends(2, budget=Budget(races=1)), 54),
    "one site, one intent, one removal": (StorageEnds, 143),
    "one site and dataset, a file that is found is adopted at once": (lambda: StorageEnds(adopts_caught_up=False), 136),
    "one site, two intents, one removal": (lambda: StorageEnds((Wish(), Wish())), 3_902),
    "one site, one intent, two removals": (lambda: StorageEnds(asks=(2,)), 1_644),
    "one site, a removal and a promise": (lambda: StorageEnds(promises=(1,)), 1_901),
    "one site, a repair, two removals": (lambda: StorageEnds((Wish(repairs=True),), asks=(2,)), 1_650),
    "one site, an intent whose row falls back": (
        lambda: StorageEnds(falls_back=True, opens_caught_up=True, asks=(2,)),
        2_111,
    ),
    "one site, two datasets, both wanted": (
        lambda: StorageEnds((Wish(0), Wish(1)), 2, (1, 0), (0, 0), empty=True),
        1_253,
    ),
    "one site, two datasets, the other wanted": (lambda: StorageEnds((Wish(1),), 2, (1, 0), (0, 0)), 171),
    "one site, two datasets, a repair": (lambda: StorageEnds((Wish(1, True),), 2, (1, 0), (0, 0), workers=2), 1_644),
    "one site, two datasets, a removal and a promise": (
        lambda: StorageEnds((Wish(1),), 2, (1, 0), (0, 1), executors=1, workers=2),
        10_084,
    ),
    "one site, two endpoints": (StandIns, 1_333),
    # What the product does: the gate is asked of a view that has caught up, the part is opened some time later.
    "opened later, two intents": (lambda: opened_later((Wish(), Wish())), 3_086),
    "opened later, two removals": (lambda: opened_later(asks=(2,)), 1_755),
    "opened later, a repair, two removals": (lambda: opened_later((Wish(repairs=True),), asks=(2,)), 1_785),
    "opened later, an intent whose row falls back": (lambda: opened_later(falls_back=True, asks=(2,)), 2_222),
    "opened later, two datasets, both wanted": (
        lambda: opened_later((Wish(0), Wish(1)), datasets=2, asks=(1, 1), promises=(0, 0)),
        17_742,
    ),
    "opened later, two datasets, a repair": (
        lambda: opened_later((Wish(1, True),), datasets=2, asks=(1, 0), promises=(0, 0), workers=2),
        677,
    ),
    "opened later, two datasets, a removal and a promise": (
        lambda: opened_later((Wish(1),), datasets=2, asks=(1, 0), promises=(0, 1), executors=1, workers=2),
        5_117,
    ),
}


@pytest.mark.parametrize("name", ANY_LEAVER)
def test_copies_are_left_whoever_promises(name: str, monkeypatch: Patch) -> None:
    any_leaver_promises(monkeypatch)
    world, states = ANY_LEAVER[name]
    found = search(world())
    assert not found.fault, found.history
    assert found.states == states


@pytest.mark.parametrize("name", BY_NAME)
def test_no_interleaving_is_bad(name: str) -> None:
    world, states = BY_NAME[name]
    found = search(world())
    assert not found.fault, found.history
    assert found.states == states


class EachApart(Federation):
    """No two states are alike; what would be is kept in `alike`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.alike: set[Hashable] = set()

    def key(self, state: federation.State) -> Hashable:
        self.alike.add(super().key(state))
        return state


ALIKE: dict[str, dict[str, Any]] = {
    "three sites": {"sites": 3},
    "two asks each": {"sites": 2, "asks": 2},
    "a disk put back": {"sites": 2, "budget": Budget(restores=1)},
    "an accident, a copy comes back": {"sites": 2, "budget": Budget(regains=1, accidents=1)},
}


@pytest.mark.parametrize("name", ALIKE)
def test_states_called_alike_are_alike(name: str, monkeypatch: Patch) -> None:
    """All states are searched, and the classes that they fall into are those of the search that merges them."""
    any_leaver_promises(monkeypatch)
    every = EachApart(**ALIKE[name], by_name=False)
    found, merged = search(every), search(Federation(**ALIKE[name], by_name=False))
    assert (found.fault, merged.fault) == ("", "")
    assert len(every.alike) == merged.states < found.states


# Guards taken away.


def nothing_refused(*_: Any, **__: Any) -> None:
    return None


def a_promise_aborts_nothing(patch: Patch) -> World[Any]:
    patch.setattr(chains, "abort_own", lambda row, promised: row)
    return Federation(2)


def a_removal_needs_no_promise(patch: Patch) -> World[Any]:
    patch.setattr(gates, "why_no_removal", nothing_refused)
    return Federation(2)


def a_promise_while_the_removal_goes_on(patch: Patch) -> World[Any]:
    patch.setattr(gates, "why_it_goes", nothing_refused)
    return Federation(3)


def asks_outlive_their_process(patch: Patch) -> World[Any]:
    """Of two sites one has its disk put back to before its last promise."""
    patch.setattr(chains, "of_process", lambda row, process: row)
    any_leaver_promises(patch)
    return Federation(2, asks=2, budget=Budget(restores=1), by_name=False)


class NamedAlike(Federation):
    """A process is named as the one before it."""

    def head(self, local: federation.Local) -> ChainStep:
        return replace(super().head(local), process="p")


def processes_are_named_alike(patch: Patch) -> World[Any]:
    any_leaver_promises(patch)
    return NamedAlike(2, asks=2, budget=Budget(restores=1), by_name=False)


def a_promise_names_an_ask_by_number(patch: Patch) -> World[Any]:
    patch.setattr(GivenPromise, "answers", lambda self, asker, ask: (self.asker, self.ask_no) == (asker, ask.no))
    any_leaver_promises(patch)
    return Federation(2, asks=2, budget=Budget(restores=1), by_name=False)


def an_executor_outlives_its_process(patch: Patch) -> World[Any]:
    guarded = gates.why_no_unlink
    patch.setattr(gates, "why_no_unlink", lambda *a, **k: guarded(*a, **{**k, "worker": k["ordered_by"]}))
    any_leaver_promises(patch)
    return Federation(3, budget=Budget(restores=1), by_name=False)


def a_lost_race_is_a_dispute(patch: Patch) -> World[Any]:
    judged = chains.of_taken_number

    def taken(row: ChainRow, step: Any, sha256: str) -> StepHeard:
        what = judged(row, step, sha256)
        return StepHeard.DISPUTES if what is StepHeard.VOID else what

    patch.setattr(chains, "of_taken_number", taken)
    return Ends(2, budget=Budget(races=1))


def an_ask_for_what_is_lost_goes_on(patch: Patch) -> World[Any]:
    """Nobody ends it, and the loss waits for its end."""
    ends = federation.duties.decisions_owed
    patch.setattr(
        federation.duties,
        "decisions_owed",
        lambda chain, shown, there, holders, **k: [
            owed for owed in ends(chain, shown, (federation.LFN,), holders, **{**k, "now_ms": 0}) if owed.removed
        ],
    )
    return Ends(2, budget=Budget(accidents=1))


def holders_are_counted_by_name_alone(patch: Patch) -> World[Any]:
    """Two sites hold one LFN in a dataset each."""
    patch.setattr(gates, "why_not_of_this_dataset", nothing_refused)
    return Apart(2)


def a_transfer_is_planned_before_its_claim(patch: Patch) -> World[Any]:
    claim = (Selector(Kind.FILE, storage.LFN),)
    patch.setattr(gates, "claim_shown", lambda claims, name: NotedClaim(name, storage.DISK, claim))
    return StorageSite()


def a_removal_is_not_waited_for(patch: Patch) -> World[Any]:
    patch.setattr(gates, "why_it_goes", nothing_refused)
    return StorageSite()


def a_version_is_not_compared(patch: Patch) -> World[Any]:
    guarded = gates.why_no_unlink
    patch.setattr(gates, "why_no_unlink", lambda removal, found, **k: guarded(removal, found and removal.version, **k))
    return StorageSite()


def a_claim_aborts_nothing(patch: Patch) -> World[Any]:
    patch.setattr(chains, "abort_protected", lambda row, noted: row)
    return StorageSite()


def an_ask_opens_under_a_claim(patch: Patch) -> World[Any]:
    patch.setattr(CoveredNames, "protecting", nothing_refused)
    return StorageSite()


def a_claim_ends_before_its_words_are_heard(patch: Patch) -> World[Any]:
    patch.setattr(gates, "why_no_claim_end", nothing_refused)
    return StorageSite()


class WordsOfNow(StorageSite):
    """FilesLost takes back the words known when it is said."""

    def taken_back(self, state: storage.State, executor: Executor) -> tuple[str, ...]:
        return tuple(sorted({*executor.removal.words, *self.truth(state, executor.dataset).words}))


def a_loss_takes_back_later_words(patch: Patch) -> World[Any]:
    return WordsOfNow()


class LaggingPart(StorageSite):
    """A worker knows of the claim from elsewhere, and judges the file by a view that lags behind it."""

    def may_open(self, state: storage.State, n: int) -> bool:
        dataset = self.wishes[n].dataset
        far = [product(range(steps + 1), range(facts + 1)) for steps, facts in self.now(state)]
        return any(
            gates.why_no_part(self.row(state, dataset).claims, f"i{n}", self.file(state, dataset, 0, seen), "w") is None
            for seen in product(*far)
        )


def a_part_is_opened_on_a_lagging_view(patch: Patch) -> World[Any]:
    return LaggingPart(adopts_caught_up=False)


def a_file_is_adopted_on_a_lagging_view(patch: Patch) -> World[Any]:
    """Of another dataset of the site, whose word is not heard yet: no number orders two chains."""
    return StorageSite((Wish(1),), 2, (1, 0), (0, 0), adopts_caught_up=False)


def a_row_that_fell_back_opens_on_a_lagging_view(patch: Patch) -> World[Any]:
    """Such a view shows the claim, and neither its end nor that the word was taken back: the file comes once more."""
    return StorageSite(falls_back=True)


def an_ask_minds_no_claim_of_another_chain(patch: Patch) -> World[Any]:
    guarded = gates.why_not_of_this_dataset

    def blind(file: FileHere) -> str | None:
        return guarded(replace(file, others=tuple(replace(other, claim="") for other in file.others)))

    patch.setattr(gates, "why_not_of_this_dataset", blind)
    return StorageSite((Wish(0), Wish(1)), 2, (1, 0), (0, 0), empty=True)


def what_another_dataset_holds_is_adopted_later(patch: Patch) -> World[Any]:
    patch.setattr(gates, "held_elsewhere", nothing_refused)
    return opened_later((Wish(1),), datasets=2, asks=(1, 0), promises=(0, 0))


def what_is_opened_later_minds_no_removal(patch: Patch) -> World[Any]:
    patch.setattr(gates, "why_it_goes", nothing_refused)
    return opened_later()


def a_file_is_exchanged_without_the_lock(patch: Patch) -> World[Any]:
    guarded = gates.why_no_exchange
    patch.setattr(gates, "why_no_exchange", lambda on, found, locked: guarded(on, found, locked=True))
    return StorageSite((Wish(1, True),), 2, (1, 0), (0, 0), workers=2)


def a_loss_is_said_while_an_own_ask_is_open(patch: Patch) -> World[Any]:
    patch.setattr(gates, "why_no_loss", nothing_refused)
    return StandIns()


class OldLooks(StandIns):
    def fresh(self, looked: Looked, chain: ChainRow) -> bool:
        return True


def an_own_copy_was_looked_at_behind_another_number(patch: Patch) -> World[Any]:
    return OldLooks()


# The history's length: it is the shortest there is.
PLANTED: dict[Callable[[Patch], World[Any]], int] = {
    a_promise_aborts_nothing: 8,
    a_removal_needs_no_promise: 6,
    a_promise_while_the_removal_goes_on: 12,
    asks_outlive_their_process: 9,
    processes_are_named_alike: 9,
    a_promise_names_an_ask_by_number: 10,
    an_executor_outlives_its_process: 13,
    a_lost_race_is_a_dispute: 2,
    an_ask_for_what_is_lost_goes_on: 2,
    holders_are_counted_by_name_alone: 8,
    a_transfer_is_planned_before_its_claim: 12,
    a_removal_is_not_waited_for: 12,
    a_version_is_not_compared: 15,
    a_claim_aborts_nothing: 12,
    an_ask_opens_under_a_claim: 12,
    a_claim_ends_before_its_words_are_heard: 15,
    a_loss_takes_back_later_words: 17,
    a_part_is_opened_on_a_lagging_view: 11,
    a_file_is_adopted_on_a_lagging_view: 11,
    a_row_that_fell_back_opens_on_a_lagging_view: 19,
    an_ask_minds_no_claim_of_another_chain: 18,
    what_another_dataset_holds_is_adopted_later: 11,
    what_is_opened_later_minds_no_removal: 11,
    a_file_is_exchanged_without_the_lock: 11,
    a_loss_is_said_while_an_own_ask_is_open: 6,
    an_own_copy_was_looked_at_behind_another_number: 8,
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_guard_that_is_missing_is_found(plant: Callable[[Patch], World[Any]], monkeypatch: Patch) -> None:
    found = search(plant(monkeypatch))
    assert found.fault, "no history shows what the guard is for"
    assert len(found.history) == PLANTED[plant], found.history
