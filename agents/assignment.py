"""Which partitions this worker owns, and when each has caught up: old facts ask for nothing.

Faust announces all partitions as revoked at each rebalance, so only old − new is dropped, when the assignment is known.
A partition new here sleeps until its tables are recovered and its topics are read up to the end offsets noted then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from faust.types import TP

from agents import process
from streams.worker.dispatcher import Dispatcher

log = structlog.get_logger(__name__)

POLL_S = 0.05
TELL_S = 10.0


class Assignment:
    """Follows an app's assignment and wakes its partitions; `on_awake` is called after each."""

    def __init__(
        self,
        app: Any,
        dispatcher: Dispatcher,
        guard: process.StallGuard,
        topics: frozenset[str],
        on_awake: Callable[[], None],
    ) -> None:
        self.app, self.dispatcher, self.guard, self.topics, self.on_awake = app, dispatcher, guard, topics, on_awake
        self._waking: asyncio.Task[None] | None = None
        self._passed: dict[TP, int] = {}
        """Of places whose end the position has passed: how often the consumer had fetched by then."""

    @property
    def owned(self) -> set[int]:
        return set(self.dispatcher.scheduler.owned)

    @property
    def awake(self) -> bool:
        """Whether this worker takes part and every partition it owns has caught up; owning none is fine."""
        caught_up = self._waking is not None and self._waking.done()
        return caught_up and all(map(self.dispatcher.scheduler.is_awake, self.owned))

    async def on_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        """Drops what went elsewhere at once; what is new is owned, asleep."""
        now = {tp.partition for tp in assigned if tp.topic in self.topics}
        for partition in self.owned - now:
            self.dispatcher.drop(partition)
        for partition in now - self.owned:
            self.dispatcher.scheduler.own(partition)

    async def on_recovered(self, _app: Any, **_: Any) -> None:
        """Tables are whole: starts to wake what sleeps. A rebalance meanwhile starts it anew."""
        process.spare_the_loop()
        self.guard.longest_s = 0.0
        if self._waking is not None:
            self._waking.cancel()
        self._waking = asyncio.create_task(self._wake())

    async def _wake(self) -> None:
        try:
            await self._catch_up()
        except Exception as error:
            # A task's fault is heard by nobody, and a worker that sleeps for ever looks alive to its group.
            log.exception("not caught up")
            process.die("a partition cannot be woken", why=f"{type(error).__name__}: {error}")

    async def _catch_up(self) -> None:
        asleep = {p for p in self.owned if not self.dispatcher.scheduler.is_awake(p)}
        consumer = self.app.consumer
        places = [tp for tp in consumer.assignment() if tp.topic in self.topics and tp.partition in asleep]
        ends = await consumer.highwaters(*places) if places else {}
        behind = {p: {tp for tp in places if tp.partition == p and ends.get(tp)} for p in asleep}
        self._passed = {}
        told_s = time.monotonic()
        while behind:
            if time.monotonic() - told_s > TELL_S:
                told_s = time.monotonic()
                await self._tell(behind, ends)
            for partition in list(behind):
                behind[partition] = {tp for tp in behind[partition] if not await self._reached(tp, ends[tp])}
                if not behind[partition]:
                    del behind[partition]
                    await self._wake_one(partition)
            await asyncio.sleep(POLL_S if behind else 0)
        if asleep:
            log.info("caught up", partitions=sorted(asleep))

    async def _tell(self, behind: dict[int, set[TP]], ends: dict[TP, int]) -> None:
        """Says what is waited for, if it takes long."""
        for tp in sorted(set().union(*behind.values())):
            position = await self.app.consumer.position(tp)
            unheard = self.app.consumer.unheard(tp)
            log.info("catching up", topic=tp.topic, partition=tp.partition, end=ends[tp], at=position, unheard=unheard)

    async def _reached(self, tp: TP, end: int) -> bool:
        # The position passes transaction markers, which no event ever shows, and what is on its way here still.
        consumer = self.app.consumer
        position = await consumer.position(tp)
        if position is None or position < end:
            return False
        # A partition that woke before its last facts closed transfers a second time (seen, at an upgrade).
        if consumer.fetches <= self._passed.setdefault(tp, consumer.fetches):
            return False
        return all(offset >= end for offset in consumer.unheard(tp))

    async def _wake_one(self, partition: int) -> None:
        scheduler = self.dispatcher.scheduler
        scheduler.begin_slice()
        for _ in self.dispatcher.waking(partition):
            if scheduler.slice_is_over:
                await asyncio.sleep(0)
                scheduler.begin_slice()
        self.on_awake()
