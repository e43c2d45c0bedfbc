"""A consumer hears every record and commits none unheard, whatever its group does.

Faust's consumer, queues and recovery are the real ones; the broker is in memory, and answers when it likes.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import faust
import pytest
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata
from faust.tables.recovery import Recovery
from faust.types import TP
from mode.utils.queues import FlowControlEvent, FlowControlQueue

from agents import consumer as consuming

PLACES = (TP("facts", 0), TP("facts", 1))
CHANGELOG = TP("changelog", 0)
BATCH = 7
SEEDS = 100


class _Record(SimpleNamespace):
    topic: str
    partition: int
    offset: int


class _Broker:
    """Two partitions of facts with holes, as transactions leave them, and what a group committed."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self.rng = rng
        self.records = {tp: [n for n in range(size) if rng.random() < 0.8] for tp in PLACES}
        self.committed: dict[TP, int] = {}
        self.position = dict.fromkeys(PLACES, 0)
        self.refuses = False
        self._coordinator = self._fetcher = self._subscriptions = self
        self._closed, self._max_poll_records = False, BATCH

    def assignment(self) -> set[TP]:
        return {*PLACES, CHANGELOG}

    def reassign(self) -> None:
        self.position = {tp: self.committed.get(tp, 0) for tp in PLACES}
        self.refuses = False

    def seek(self, tp: TP, offset: int) -> None:
        self.position[tp] = offset

    def fetch_context(self) -> Any:
        return MagicMock()

    async def pause(self) -> None:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)

    async def fetch_committed_offsets(self, places: Iterable[TP]) -> dict[TP, OffsetAndMetadata]:
        await self.pause()
        return {tp: OffsetAndMetadata(self.committed[tp], "") for tp in places if tp in self.committed}

    async def seek_to_committed(self) -> dict[TP, int | None]:
        """As aiokafka does it, for Faust's own consumer."""
        for tp in PLACES:
            await self.pause()
            if self.committed.get(tp):
                self.seek(tp, self.committed[tp])
        return {tp: self.committed.get(tp) for tp in PLACES}

    async def beginning_offsets(self, places: Iterable[TP]) -> dict[TP, int]:
        await self.pause()
        return dict.fromkeys(places, 0)

    async def fetched_records(self, active: set[TP], timeout: float, max_records: int) -> dict[TP, list[_Record]]:
        for _ in range(20):
            fetched: dict[TP, list[_Record]] = {}
            for tp in PLACES:
                offsets = [n for n in self.records[tp] if n >= self.position[tp]][:max_records]
                if tp in active and offsets:
                    self.position[tp] = offsets[-1] + 1
                    fetched[tp] = [_Record(topic=tp.topic, partition=tp.partition, offset=n) for n in offsets]
            if fetched:
                return fetched
            await asyncio.sleep(0)
        return {}

    async def commit(self, offsets: Mapping[TP, Any]) -> None:
        await self.pause()
        if self.refuses:
            raise CommitFailedError("already rebalanced")
        self.committed.update({tp: found.offset for tp, found in offsets.items()})


def _in_one_loop(base: type) -> type:
    class Thread(base):  # type: ignore[misc]
        """A consumer's thread whose calls run in the tests' loop, and whose answers take their time."""

        async def call_thread(self, fun: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
            broker: _Broker = self._consumer
            await broker.pause()
            answer = await fun(*args, **options)
            await broker.pause()
            return answer

        def assignment(self) -> set[TP]:
            return {*PLACES, CHANGELOG}

    return Thread


class _Worker:
    """An app, as far as a consumer, a stream and a recovery need one."""

    def __init__(self, broker: _Broker, consumer: type, thread: type) -> None:
        self.broker, self.heard = broker, {tp: set[int]() for tp in PLACES}
        self.app = app = MagicMock()
        self.generation = app.consumer_generation_id = 1
        app.in_transaction = app.client_only = app.should_stop = app.unassigned = False
        app.in_recovery, app.rebalancing = False, False
        app.conf.broker_commit_every, app.conf.ConsumerScheduler = None, lambda: SimpleNamespace(iterate=_turns)
        app.conf.stream_wait_empty, app.conf.broker_request_timeout, app.conf.broker_session_timeout = True, 5.0, 10.0
        app.flow_control = FlowControlEvent()
        app._attachments.publish_for_tp_offset = _nothing
        app.topics.acks_enabled_for = lambda topic: topic == "facts"
        app.tables.changelog_topics = {"changelog"}
        app.producer.flush = app._producer_flush = app.on_rebalance_complete.send = _nothing
        app.on_partitions_revoked.send = app._fetcher.maybe_start = app.crash = _nothing
        self.queue: Any = FlowControlQueue(maxsize=5, flow_control=app.flow_control, clear_on_resume=True)

        class Tested(consumer):  # type: ignore[misc]
            def _new_consumer_thread(self) -> Any:
                here = asyncio.get_running_loop()
                made = _in_one_loop(thread)(self, loop=here, thread_loop=here, beacon=self.beacon)
                made._consumer = broker
                return made

            async def sleep(self, _: float) -> None:
                await asyncio.sleep(0)

            def highwater(self, tp: TP) -> int:
                return 0

            def _to_message(self, tp: TP, record: Any) -> Any:
                message = faust.types.tuples.ConsumerMessage(
                    tp.topic, tp.partition, record.offset, 0.0, 0, [], b"", b"", 0, tp=tp,
                    generation_id=app.consumer_generation_id,
                )  # fmt: skip
                message.refcount = 1
                return message

        transport = MagicMock(app=app)
        self.consumer = app.consumer = Tested(
            transport, self._deliver, lambda revoked: faust.App._on_partitions_revoked(app, revoked), self._assigned
        )
        app._consumer_wait_empty = lambda consumer, _: consumer.wait_empty()
        self.recovery = MagicMock(app=app, tables=MagicMock(values=lambda: ()))
        self.recovery._is_changelog_tp = lambda tp: tp == CHANGELOG
        self.recovery._wait = lambda doing, timeout: doing

    async def _deliver(self, message: Any) -> None:
        await self.app.flow_control.acquire()
        await self.queue.put(message)

    async def _assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.consumer.pause_partitions(assigned)

    async def stream(self) -> None:
        """Takes one after the other, as Faust's does."""
        app, consumer = self.app, self.consumer
        while True:
            message = await self.queue.get()
            if not app.flow_control.is_active() or message.generation_id != app.consumer_generation_id:
                continue
            message.tracked = True
            consumer._unacked_messages.add(message)
            await self.broker.pause()
            self.heard[message.tp].add(message.offset)
            message.refcount = 0
            consumer.ack(message)
            del message

    async def commits(self) -> None:
        while True:
            await self.consumer.commit()
            self.check()
            for _ in range(self.broker.rng.randrange(12)):
                await asyncio.sleep(0)

    def check(self) -> None:
        """A worker that dies now has heard all that is committed."""
        for tp, offset in self.broker.committed.items():
            missing = {n for n in self.broker.records[tp] if n < offset} - self.heard[tp]
            assert not missing, f"{tp.partition}: committed up to {offset}, never heard: {sorted(missing)}"

    async def recover(self) -> None:
        """What follows an assignment: changelogs are read, the flow on or not, then streams go on."""
        rng, generation = self.broker.rng, self.generation
        await self.broker.pause()
        if rng.random() < 0.7:
            self.app.flow_control.resume()
            self.consumer.resume_flow()
        for _ in range(rng.randrange(8)):
            await asyncio.sleep(0)
        await Recovery.on_recovery_completed(self.recovery, generation)

    async def rebalance(self) -> None:
        self.broker.refuses = self.broker.rng.random() < 0.3
        await self.consumer.on_partitions_revoked(self.broker.assignment())
        self.check()
        await self.broker.pause()
        self.broker.reassign()
        self.generation += 1
        self.app.consumer_generation_id = self.generation
        if isinstance(self.consumer._thread, consuming.ConsumerThread):
            self.consumer._thread.position_no += 1
        await self.consumer.on_partitions_assigned(self.broker.assignment(), self.generation)


async def _nothing(*_: object, **__: object) -> None: ...


def _turns(records: Mapping[TP, list[Any]]) -> Any:
    return iter([(tp, record) for tp, batch in records.items() for record in batch])


async def live(seed: int, consumer: type = consuming.Consumer, thread: type = consuming.ConsumerThread) -> None:
    rng = random.Random(seed)
    broker = _Broker(rng, rng.randrange(10, 60))
    worker = _Worker(broker, consumer, thread)
    worker.consumer.stop_flow()
    await worker.consumer.on_partitions_assigned(broker.assignment(), 1)
    fetcher = MagicMock()
    fetcher._stopped.is_set = lambda: False
    tasks = [
        asyncio.create_task(doing)
        for doing in (worker.consumer._drain_messages(fetcher), worker.stream(), worker.commits(), worker.recover())
    ]
    for _ in range(rng.randrange(4)):
        for _ in range(rng.randrange(40)):
            await asyncio.sleep(0)
        await worker.rebalance()
        tasks.append(asyncio.create_task(worker.recover()))
    for _ in range(3000):
        await asyncio.sleep(0)
        if all(broker.committed.get(tp, 0) > broker.records[tp][-1] for tp in PLACES):
            break
    for task in tasks:
        if task.done() and (fault := task.exception()) is not None:
            raise fault
        task.cancel()
    worker.check()
    behind = {tp.partition: (broker.committed.get(tp), broker.records[tp][-1]) for tp in PLACES}
    assert all(broker.committed.get(tp, 0) > broker.records[tp][-1] for tp in PLACES), f"never committed: {behind}"


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(FlowControlEvent, "resume", consuming._resume_once)
    gc.freeze()  # Faust collects in every rebalance, and need not look at what the tests hold
    yield
    gc.unfreeze()


def test_every_record_is_heard_and_none_is_committed_unheard() -> None:
    """With Faust's own consumer and the earlier repairs of its commits 62 of 300 failed: 19 lost records, 43 stood."""
    for seed in range(SEEDS):
        try:
            asyncio.run(live(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_a_record_that_reaches_no_stream_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "LOST_S", 0.0)
    monkeypatch.setattr(consuming, "die", _died)
    deliver = _Worker._deliver

    async def loses_one(self: _Worker, message: Any) -> None:
        if message.offset != broken[message.tp]:
            await deliver(self, message)

    monkeypatch.setattr(_Worker, "_deliver", loses_one)
    broken = {tp: _Broker(random.Random(1), 40).records[tp][3] for tp in PLACES}
    with pytest.raises(_Died, match="reached no stream"):
        asyncio.run(live(1))


class _Died(Exception):
    pass


def _died(what: str, **_: object) -> None:
    raise _Died(what)


def test_fetches_are_short_while_a_worker_begins_and_long_while_nothing_comes() -> None:
    thread = consuming.ConsumerThread.__new__(consuming.ConsumerThread)
    thread._positioned_s = 100.0
    waits = [thread._wait_ms(False, 100.0 + s) for s in (0, consuming.BEGIN_S, consuming.QUIET_S)]
    assert waits == [consuming.BEGIN_MS, consuming.USUAL_MS, consuming.IDLE_MS]
    assert thread._wait_ms(True, 500.0) == consuming.USUAL_MS
    assert thread._wait_ms(False, 500.0 + consuming.QUIET_S) == consuming.IDLE_MS


def test_while_many_records_come_a_fetch_waits_for_more_and_a_lone_one_does_not() -> None:
    async def run(records: int) -> tuple[float, bool]:
        thread = consuming.ConsumerThread.__new__(consuming.ConsumerThread)
        fetcher = MagicMock()
        told = asyncio.get_running_loop().create_future()
        fetcher._fetch_waiters = {told}
        fetcher._notify = lambda waiter: waiter.set_result(None)

        async def fetch(*_: object) -> bool:
            return True

        fetcher._proc_fetch_request = fetch
        thread._pace(fetcher)
        thread._recent, thread._counted_s = float(records), time.monotonic()
        begun_s = time.monotonic()
        assert await fetcher._proc_fetch_request("assignment", 1, "request")
        return time.monotonic() - begun_s, told.done()

    took_s, told = asyncio.run(run(200))
    assert 0.02 <= took_s < consuming.PACE_MAX_S
    assert told, "what came is delivered meanwhile"
    took_s, _ = asyncio.run(run(1_000))
    assert consuming.PACE_MAX_S <= took_s < 1.0
    for records in (14, 100_000):
        _, told = asyncio.run(run(records))
        assert not told, "it did not wait"


def test_what_many_records_are_is_forgotten_soon() -> None:
    thread = consuming.ConsumerThread.__new__(consuming.ConsumerThread)
    thread._recent, thread._counted_s = 1000.0, 50.0
    assert thread._still_counted(50.0) == 1000.0
    assert thread._still_counted(50.0 + consuming.HALF_S) == 500.0
    assert thread._still_counted(52.0) < consuming.BUSY_RECORDS


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_delivery_that_waits_goes_on_where_it_waited(steps: int) -> None:
    seen: list[int] = []

    async def delivery() -> None:
        for step in range(steps):
            await asyncio.sleep(0.001 if step % 2 else 0)
            seen.append(step)

    async def run() -> bool:
        begun = consuming._Begun(delivery())
        at_once = begun.done
        if not at_once:
            await asyncio.ensure_future(begun)
        return at_once

    assert asyncio.run(run()) is (steps == 0)
    assert seen == list(range(steps))


def test_a_delivery_that_is_held_up_ends_with_the_flow_and_a_fault_of_one_is_raised() -> None:
    ended: list[str] = []

    async def held_up() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def faulty(late: bool) -> None:
        if late:
            await asyncio.sleep(0)
        raise ValueError("faulty")

    async def run() -> None:
        service: Any = consuming.Consumer.__new__(consuming.Consumer)
        service.loop = asyncio.get_running_loop()
        service._stopped, service._crashed = asyncio.Event(), asyncio.Event()
        suspended = asyncio.Event()
        service.loop.call_later(0.01, suspended.set)
        await asyncio.wait_for(service.wait_first(held_up(), suspended.wait()), 5)
        await asyncio.sleep(0)
        assert ended == ["cancelled"]
        for late in (False, True):
            with pytest.raises(ValueError, match="faulty"):
                await service.wait_first(faulty(late), asyncio.Event().wait())

    asyncio.run(run())
