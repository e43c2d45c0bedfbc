"""What says a thousand items is made by a thread: requests as last words, once each, and owed until they are sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from streams import wire
from streams.core import records as m
from streams.core.ranges import Ranges
from streams.worker import effects, large_manifests
from streams.worker.large_manifests import WAITING_MAX, LargeManifests
from tests.core import example as x
from tests.worker.rig import ENVIRONMENT, Rig

LARGE = x.written(items=[x.item(n, 10) for n in range(200)])


class Aside(list[Callable[[], bool]]):
    """The thread's queue, of which nothing is done until the test does it."""

    def __call__(self, act: Callable[[], bool]) -> bool:
        self.append(act)
        return True


@pytest.fixture
def rig() -> Rig:
    """The part of the large transfer is open, and its first request waits for the thread."""
    rig = Rig()
    rig.hear(x.planned(LARGE))
    rig.effects.aside = Aside()
    rig.opened(LARGE.manifest)
    return rig


def aside(rig: Rig) -> Aside:
    assert isinstance(rig.effects.aside, Aside)
    return rig.effects.aside


def test_a_large_manifests_request_is_made_off_the_loop(rig: Rig) -> None:
    assert rig.take(m.ChunksRequested) == []
    (act,) = aside(rig)
    assert act()
    (request,) = rig.take(m.ChunksRequested)
    assert request.ranges == Ranges([(0, 2000)])
    assert len(request.items) == 200
    rig.hear(request)
    rig.after(1)
    assert len(aside(rig)) == 1, "said once"


def test_it_uses_credit_while_it_waits(rig: Rig) -> None:
    assert sum(rig.scheduler.credit.outstanding(channel) for channel in rig.scheduler.credit._uses) == 2000


def test_a_request_that_cannot_be_sent_is_owed_again_under_its_number(rig: Rig) -> None:
    rig.log.full = True
    assert not aside(rig).pop()()
    rig.log.full = False
    rig.after(0)
    (act,) = aside(rig)
    assert act()
    assert [request.request_no for request in rig.take(m.ChunksRequested)] == [1]


def test_a_request_that_nobody_can_take_is_offered_again() -> None:
    rig = Rig()
    rig.hear(x.planned(LARGE))
    rig.effects.aside = lambda act: False
    rig.opened(LARGE.manifest)
    assert rig.take(m.ChunksRequested) == []
    rig.effects.aside = effects.at_once
    rig.after(0.2)
    assert [request.request_no for request in rig.take(m.ChunksRequested)] == [1]


def test_what_was_decoded_aside_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop remembers it, and lends it to the next that is asked for."""
    rig = Rig()
    rig.hear(x.planned(LARGE))
    rig.turns._bodies.clear()
    rig.effects.aside, decoded, decode = Aside(), list[object](), wire.decode_stored
    monkeypatch.setattr(wire, "decode_stored", lambda *given: (decoded.append(given), decode(*given))[1])
    rig.opened(LARGE.manifest)
    for number in (1, 2):
        (act,) = aside(rig)
        aside(rig).clear()
        act()
        (request,) = rig.take(m.ChunksRequested)
        assert request.request_no == number
        assert len(decoded) == 1
        rig.hear(request, m.LeaseExpired(LARGE.manifest, x.C, number, rig.now_ms))
        rig.after(0)


@ENVIRONMENT
def test_what_the_environment_breaks_aside_is_raised_by_the_next_command(rig: Rig, error: Exception) -> None:
    rig.log.broken = error
    assert not aside(rig).pop()()
    rig.log.broken = None
    with pytest.raises(type(error)):
        rig.after(0)


def test_the_thread_goes_on_in_order_and_ends_behind_what_waits() -> None:
    large, done, hold = LargeManifests(), list[int](), threading.Event()
    large.start()
    assert large(lambda: hold.wait(10))
    taken = [large(lambda n=n: done.append(n) is None) for n in range(WAITING_MAX + 2)]  # type: ignore[misc]
    assert taken[: WAITING_MAX - 1] == [True] * (WAITING_MAX - 1)
    assert not taken[-1], "more waits than it holds"
    hold.set()
    large.stop()
    assert done == [n for n, took in enumerate(taken) if took]


def test_while_the_log_has_no_room_it_is_asked_no_faster_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_manifests, "REFUSED_S", 0.05)
    large, tried = LargeManifests(), list[float]()
    large.start()

    def refused() -> bool:
        tried.append(time.monotonic())
        if len(tried) < 4:
            large(refused)
        return False

    large(refused)
    while len(tried) < 4:
        time.sleep(0.01)
    large.stop()
    assert tried[-1] - tried[0] >= 0.15
