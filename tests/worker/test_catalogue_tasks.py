"""What needs the catalogue waits for a view that has caught up, in a thread of its own; what fails stays owed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from streams.core import records as m
from streams.core.names import IntentId, Site
from streams.core.policy import Policy
from streams.core.routing import Holders
from streams.errors import Temporary
from streams.worker import catalogue_tasks
from streams.worker.catalogue_tasks import CatalogueTasks
from tests.core import example as x

UNKNOWN = Holders(0, {}, ("/store/muon/0.root",))


class Views:
    """A view that a test lets catch up, or not."""

    def __init__(self) -> None:
        self.what = Holders(2, {x.C: (2, 150)}, ())
        self.last: m.IntentDecided | None = None
        self.broken: Exception | None = None
        self.answers: list[bool] = []
        """Of the next catch-ups; then they succeed."""
        self.catch_ups = threading.Semaphore(0)
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()

    def catch_up(self, timeout_s: float) -> bool:
        assert self.gate.wait(10)
        self.count += 1
        self.catch_ups.release()
        return self.answers.pop(0) if self.answers else True

    def found(self, body: m.TransferIntent) -> Holders:
        if self.broken is not None:
            raise self.broken
        return self.what

    def decision(self, intent: IntentId) -> m.IntentDecided | None:
        return self.last

    def sites(self) -> tuple[Site, ...]:
        return (x.A, x.B, x.C)

    def alive(self) -> tuple[Site, ...]:
        return (x.A, x.B, x.C)


class Bench:
    def __init__(self, undecided_s: float) -> None:
        self.views, self.said = Views(), list[m.Message]()
        self.acks: list[Callable[[Exception | None], None]] = []
        self.full = False
        self.catalogue_tasks = CatalogueTasks(self.views, Policy(undecided_s=undecided_s), self.publish)
        self.catalogue_tasks.start()

    def publish(self, message: m.Message, on_ack: Callable[[Exception | None], None]) -> None:
        if self.full:
            raise Temporary("buffer full")
        self.said.append(message)
        self.acks.append(on_ack)

    def settled(self) -> list[m.Message]:
        """What was said, once everything asked before this is over."""
        over = threading.Event()
        self.catalogue_tasks.then(over, over.set)
        assert over.wait(10)
        return self.said


@pytest.fixture
def benches() -> Iterator[Callable[[float], Bench]]:
    made: list[Bench] = []

    def make(undecided_s: float = 60.0) -> Bench:
        made.append(Bench(undecided_s))
        return made[-1]

    yield make
    for bench in made:
        bench.catalogue_tasks.stop()
        bench.catalogue_tasks._thread.join(10)
        assert not bench.catalogue_tasks._thread.is_alive()


@pytest.fixture
def bench(benches: Callable[[float], Bench]) -> Bench:
    return benches(60.0)


def test_a_decision_is_published(bench: Bench) -> None:
    bench.catalogue_tasks.decide(x.body())
    assert bench.settled() == [x.decided()]


def test_a_decision_is_said_again_only_when_it_was_given_up(bench: Bench) -> None:
    """A busy loop hears it late, and asks meanwhile."""
    bench.full = True
    bench.catalogue_tasks.decide(x.body())
    assert bench.settled() == []
    bench.full = False
    for _ in range(3):
        bench.catalogue_tasks.decide(x.body())
        assert bench.settled() == [x.decided()]
    bench.acks[0](None)
    bench.catalogue_tasks.decide(x.body())
    assert bench.settled() == [x.decided()]
    bench.acks[0](TimeoutError("no broker"))
    bench.catalogue_tasks.decide(x.body())
    assert bench.settled() == [x.decided(), x.decided()]


def test_a_release_does_not_wait_for_the_decision_before_it_to_be_old(bench: Bench) -> None:
    bench.catalogue_tasks.decide(x.body())
    (bench.views.last,) = bench.settled()
    for _ in range(3):
        bench.catalogue_tasks.release(x.body().intent, 2)
        _, released = bench.settled()
        assert (released.verdict, released.decision_no) == (m.Verdict.RELEASED, 2)


def test_one_that_nobody_heard_for_long_is_said_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_tasks, "SAID_S", 0.0)
    for times in (1, 2):
        bench.catalogue_tasks.decide(x.body())
        assert len(bench.settled()) == times


def test_an_unknown_name_stays_undecided(bench: Bench) -> None:
    known, bench.views.what = bench.views.what, UNKNOWN
    bench.catalogue_tasks.decide(x.body())
    assert bench.settled() == []
    bench.views.what = known
    bench.catalogue_tasks.decide(x.body())
    assert bench.settled() == [x.decided()]


def test_an_unknown_name_is_refused_when_waited_long_enough(benches: Callable[[float], Bench]) -> None:
    bench = benches(0.0)
    bench.views.what = UNKNOWN
    bench.catalogue_tasks.decide(x.body())
    (decision,) = bench.settled()
    assert isinstance(decision, m.IntentDecided)
    assert decision.verdict is m.Verdict.REFUSED


def test_a_view_that_fails_loses_neither_the_thread_nor_what_waits_beside(bench: Bench) -> None:
    bench.views.broken = OSError("the view is closed")
    bench.catalogue_tasks.decide(x.body())
    assert bench.settled() == []
    bench.views.broken = None
    bench.catalogue_tasks.decide(x.body())
    assert bench.settled() == [x.decided()]


def test_one_catch_up_serves_all_that_wait(bench: Bench) -> None:
    bench.views.gate.clear()
    done: list[int] = []
    for n in range(5):
        bench.catalogue_tasks.then(n, partial(done.append, n))
    bench.views.gate.set()
    bench.settled()
    assert done == [0, 1, 2, 3, 4]
    assert bench.views.count <= 3, "the one begun, the one for the rest, and that of the check"


def test_without_a_catch_up_nothing_is_done_and_the_next_is_tried(bench: Bench) -> None:
    bench.views.answers = [False]
    bench.catalogue_tasks.decide(x.body())
    assert bench.views.catch_ups.acquire(timeout=10)
    assert bench.settled() == [], "it stays owed: the row asks again"
    bench.catalogue_tasks.decide(x.body())
    assert bench.settled() == [x.decided()]


def test_what_waits_already_is_not_asked_twice() -> None:
    views, done = Lagging(), list[int]()
    catalogue_tasks = CatalogueTasks(views, Policy(), lambda message, on_ack: None)
    catalogue_tasks.start()
    for n in (1, 2, 3):
        catalogue_tasks.then("first", partial(done.append, n))
    for n in (4, 5):
        catalogue_tasks.then("write", partial(done.append, n))
    views.reached.set()
    over = threading.Event()
    catalogue_tasks.then(over, over.set)
    assert over.wait(10)
    again = threading.Event()
    catalogue_tasks.then("write", partial(done.append, 6))
    catalogue_tasks.then(again, again.set)
    assert again.wait(10)
    catalogue_tasks.stop()
    catalogue_tasks._thread.join(10)
    assert done in ([1, 4, 6], [1, 2, 4, 6])  # the first may be under way when it is asked again


class Lagging:
    """Views that reach their ends when told to."""

    def __init__(self) -> None:
        self.reached = threading.Event()

    def catch_up(self, timeout_s: float) -> bool:
        return self.reached.wait(timeout_s)
