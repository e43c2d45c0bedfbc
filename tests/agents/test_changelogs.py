"""Changelogs: what goes out together, what a flush promises, and what a crash at any moment leaves of one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError, NodeNotReadyError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from faust.types import TP

from agents import changelogs
from agents.changelogs import BUILDER_BYTES, Changelogs

ONE, OTHER = TP("rows", 0), TP("rows", 1)
Row = tuple[bytes, bytes | None]


class Died(Exception):
    """The process ended here."""


class Broker:
    """A client, whose broker answers when `answers` says so: None takes a batch, an error refuses it."""

    def __init__(self, answers: Callable[[], Awaitable[Exception | None]]) -> None:
        self.answers = answers
        self.log: dict[TP, list[list[Row]]] = {}
        self.under_way: set[TP] = set()
        self.refused = 0

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(BUILDER_BYTES, 0)

    async def send_batch(self, builder: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        place = TP(topic, partition)
        assert place not in self.under_way, "none of a place may pass by the one before it"
        assert builder.closed()
        self.under_way.add(place)
        return asyncio.ensure_future(self._answered(place, _rows(bytes(builder._build()))))

    async def _answered(self, place: TP, rows: list[Row]) -> SimpleNamespace:
        error = await self.answers()
        self.under_way.remove(place)
        if error is not None:
            self.refused += 1
            raise error
        taken = self.log.setdefault(place, [])
        taken.append(rows)
        return SimpleNamespace(offset=sum(map(len, taken[:-1])))


def _rows(batch: bytes) -> list[Row]:
    read = MemoryRecords(batch)
    found = []
    while (one := read.next_batch()) is not None:
        found += [(record.key, record.value) for record in one]
    return found


async def _at_once() -> None:
    return None


def _made(answers: Callable[[], Awaitable[Exception | None]] = _at_once) -> tuple[Changelogs, Broker]:
    broker: Any = Broker(answers)
    return Changelogs(lambda: broker), broker


def _ignored(_place: TP, _offset: int) -> None:
    pass


def test_rows_put_together_go_out_together_and_of_a_row_the_last() -> None:
    async def story() -> None:
        logs, broker = _made()
        told: list[tuple[TP, int]] = []
        for key, row in ((b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"c", b"1"), (b"c", None)):
            logs.put(ONE, key, row, lambda place, offset: told.append((place, offset)))
        logs.put(OTHER, b"z", b"1", lambda place, offset: told.append((place, offset)))
        assert broker.log == {}
        await logs.flush()
        assert broker.log == {ONE: [[(b"b", b"1"), (b"a", b"2"), (b"c", None)]], OTHER: [[(b"z", b"1")]]}
        assert told == [(ONE, 2), (OTHER, 0)]
        assert logs.size == 0

    asyncio.run(story())


def test_they_go_out_by_themselves_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelogs, "LINGER_S", 0.01)

    async def story() -> None:
        logs, broker = _made()
        for number in range(3):
            logs.put(ONE, b"%d" % number, b"", _ignored)
            await asyncio.sleep(0.1)
        assert broker.log[ONE] == [[(b"0", b"")], [(b"1", b"")], [(b"2", b"")]]

    asyncio.run(story())


def test_many_bytes_go_out_at_once_in_batches_that_a_broker_takes() -> None:
    async def story() -> None:
        logs, broker = _made()
        sizes = [300_000, 900_000, *[10_000] * 100]
        for number, size in enumerate(sizes):
            logs.put(ONE, b"%d" % number, bytes(size), _ignored)
        await asyncio.sleep(0)
        assert logs.size > 0
        await logs.flush()
        batches = broker.log[ONE]
        assert [int(key) for batch in batches for key, _ in batch] == list(range(len(sizes)))
        assert [len(batch) for batch in batches[:2]] == [1, 1]
        assert all(sum(len(row or b"") for _, row in batch) <= changelogs.BATCH_BYTES for batch in batches[2:])

    asyncio.run(story())


def test_a_flush_waits_for_what_was_put_before_it_and_not_for_what_comes_behind() -> None:
    async def story() -> None:
        gate = asyncio.Event()

        async def when_open() -> None:
            await gate.wait()

        logs, broker = _made(when_open)
        logs.put(ONE, b"before", b"", _ignored)
        first = asyncio.ensure_future(logs.flush())
        await asyncio.sleep(0.01)
        logs.put(ONE, b"behind", b"", _ignored)
        second = asyncio.ensure_future(logs.flush())
        await asyncio.sleep(0.01)
        assert not first.done()
        assert not second.done()
        gate.set()
        await second
        assert broker.log[ONE] == [[(b"before", b"")], [(b"behind", b"")]]
        await first

        async def puts_for_ever() -> None:
            for number in range(10**9):
                logs.put(OTHER, b"%d" % number, bytes(100), _ignored)
                await asyncio.sleep(0)

        putting = asyncio.ensure_future(puts_for_ever())
        await asyncio.sleep(0.05)
        await asyncio.wait_for(logs.flush(), 5)
        putting.cancel()
        await logs.flush()

    asyncio.run(story())


def test_a_broker_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelogs, "AGAIN_S", 0.001)
    answers: list[Exception | None] = [NodeNotReadyError(), NodeNotReadyError(), None, None]

    async def in_turn() -> Exception | None:
        return answers.pop(0)

    async def story() -> None:
        logs, broker = _made(in_turn)
        logs.put(ONE, b"a", b"1", _ignored)
        flush = asyncio.ensure_future(logs.flush())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        logs.put(ONE, b"a", b"2", _ignored)
        await flush
        await logs.flush()
        assert broker.log[ONE] == [[(b"a", b"1")], [(b"a", b"2")]]

    asyncio.run(story())


def test_a_row_that_can_never_be_written_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[str] = []
    monkeypatch.setattr(changelogs, "die", lambda what, **_: died.append(what))

    async def refused() -> Exception:
        return MessageSizeTooLargeError()

    async def story() -> None:
        logs, broker = _made(refused)
        logs.put(ONE, b"a", b"1", _ignored)
        await logs.flush()
        assert died == ["a changelog cannot be written"]
        assert broker.log == {}

    asyncio.run(story())


def test_what_was_put_before_a_process_stood_still_does_not_go_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker has put newer rows meanwhile: these would stand behind them."""
    died: list[str] = []
    monkeypatch.setattr(changelogs, "LINGER_S", 0.01)
    monkeypatch.setattr(changelogs, "die", lambda what, **_: died.append(what))

    def stood_still() -> None:
        raise Died

    async def story() -> None:
        logs, broker = _made()
        logs.put(ONE, b"a", b"1", _ignored)
        await logs.flush()
        logs.put(ONE, b"a", b"2", _ignored)
        logs.guard = stood_still
        await asyncio.sleep(0.05)
        assert broker.log[ONE] == [[(b"a", b"1")]]
        assert died

    asyncio.run(story())


def test_no_turn_begins_while_too_much_waits_for_the_broker() -> None:
    async def story() -> None:
        gate = asyncio.Event()

        async def when_open() -> None:
            await gate.wait()

        logs, _ = _made(when_open)
        await asyncio.wait_for(logs.room(), 1)
        for number in range(9):
            logs.put(ONE, b"%d" % number, bytes(900_000), _ignored)
        await asyncio.wait_for(logs.room(), 1)
        logs.put(ONE, b"9", bytes(900_000), _ignored)
        waits = asyncio.ensure_future(logs.room())
        await asyncio.sleep(0.05)
        assert not waits.done()
        gate.set()
        await asyncio.wait_for(waits, 5)

    asyncio.run(story())


@pytest.mark.parametrize("seed", range(50))
def test_what_a_crash_leaves_is_what_was_put_up_to_some_moment(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when batches are small and refused again and again: whatever the broker has when the process ends."""
    rng = random.Random(seed)
    monkeypatch.setattr(changelogs, "LINGER_S", 0.001)
    monkeypatch.setattr(changelogs, "AGAIN_S", 0.001)
    monkeypatch.setattr(changelogs, "BATCH_BYTES", 500)
    monkeypatch.setattr(changelogs, "SEND_BYTES", 2_000)

    async def now_and_then() -> Exception | None:
        for _ in range(rng.randrange(8)):
            await asyncio.sleep(0)
        return NodeNotReadyError() if rng.random() < 0.2 else None

    async def story() -> None:
        logs, broker = _made(now_and_then)
        table: dict[TP, dict[bytes, bytes | None]] = {ONE: {}, OTHER: {}}
        moments: dict[TP, list[dict[bytes, bytes | None]]] = {ONE: [{}], OTHER: [{}]}
        for step in range(300):
            place = rng.choice((ONE, OTHER))
            key = b"%d" % rng.randrange(12)
            row = None if rng.random() < 0.2 else b"%d" % step
            table[place][key] = row
            moments[place].append(dict(table[place]))
            logs.put(place, key, row, _ignored)
            if rng.random() < 0.05:
                await logs.flush()
                assert all(_left(broker, of) == table[of] for of in table), "a flush leaves nothing out"
            elif rng.random() < 0.5:
                await asyncio.sleep(0)
            for of in table:
                assert _left(broker, of) in moments[of]
        await logs.flush()
        assert broker.refused, "or nothing was tried"

    asyncio.run(story())


def _left(broker: Broker, place: TP) -> dict[bytes, bytes | None]:
    """A table as who takes it over reads it."""
    return dict(row for batch in broker.log.get(place, []) for row in batch)
