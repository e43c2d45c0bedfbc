"""A partition wakes when its last fact is heard, not when the consumer's position has passed it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from types import SimpleNamespace

import pytest
from faust.types import TP

from agents import process
from agents.assignment import Assignment
from agents.process import StallGuard
from streams.core import topics
from tests.core import example as x
from tests.worker.rig import Rig

PARTITION = topics.partition_of(x.MANIFEST, 8)
PLACE = TP(topics.TRANSFERS, PARTITION)


class _Consumer:
    """Its position is that of what it has fetched; what it has fetched it delivers before it fetches again."""

    def __init__(self, end: int) -> None:
        self.at, self.end, self.fetches = 0, end, 0
        self.open: list[int] = []

    def assignment(self) -> set[TP]:
        return {PLACE}

    async def highwaters(self, *places: TP) -> dict[TP, int]:
        return dict.fromkeys(places, self.end)

    def unheard(self, _: TP) -> list[int]:
        return self.open

    async def position(self, _: TP) -> int:
        return self.at


def test_what_the_position_has_passed_and_nobody_heard_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.assignment.POLL_S", 0.001)
    monkeypatch.setattr("agents.process.spare_the_loop", lambda: None)  # this process is the tests'
    rig = Rig(awake=False)
    consumer = _Consumer(end=3)
    woke: list[bool] = []
    assignment = Assignment(
        SimpleNamespace(consumer=consumer),
        rig.dispatcher,
        StallGuard(),
        frozenset({PLACE.topic}),  # type: ignore[arg-type]
        lambda: woke.append(rig.scheduler.is_awake(PARTITION)),
    )
    rig.dispatcher.drop(PARTITION)

    async def live() -> None:
        await assignment.on_assigned(None, {PLACE})
        await assignment.on_recovered(None)
        await asyncio.sleep(0.02)
        assert not rig.scheduler.is_awake(PARTITION), "nothing is fetched"
        consumer.at, consumer.fetches = 3, 1
        await asyncio.sleep(0.02)
        assert not rig.scheduler.is_awake(PARTITION), "fetched, and perhaps on its way here"
        consumer.open, consumer.fetches = [2], 2
        await asyncio.sleep(0.02)
        assert not rig.scheduler.is_awake(PARTITION), "here, and not heard"
        assert woke == []
        consumer.open = []
        await asyncio.sleep(0.02)
        assert woke == [True]
        assert assignment.awake

    asyncio.run(live())


class Circle:
    def __init__(self) -> None:
        self.itself = self


def test_what_stands_is_passed_by_and_what_has_died_is_not_kept() -> None:
    before = gc.get_threshold()
    try:
        circle = Circle()
        alive = weakref.ref(circle)
        process.spare_the_loop()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() == process.GC_THRESHOLDS
        del circle
        gc.collect()
        assert alive() is not None, "passed by"
        process.spare_the_loop()
        assert alive() is None
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
