"""What the agents read: every topic exists, each family is keyed as its rows are, and nothing is missing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from agents import families
from agents.changelogs import Changelogs
from agents.families import intent_topics, request_topics, transfer_topics
from agents.process import StallGuard
from streams.core import records, topics
from streams.core.names import Site
from streams.worker.rows import TableFailed
from tests.core import example as x
from tests.worker.rig import Rig

SITES = (x.A, x.B, x.C)


@pytest.mark.parametrize("here", SITES)
def test_agents_read_what_exists_and_what_they_need(here: Site) -> None:
    peers = tuple(site for site in SITES if site != here)
    families = [intent_topics(peers), transfer_topics(here, peers), request_topics(here, peers)]
    read = [name for names in families for name in names]
    assert len(read) == len(set(read)), "each by one agent"
    wanted = {topic.name for topic in topics.wanted(here, SITES)}
    assert set(read) <= wanted
    elsewhere = {
        topics.REPLICAS,
        topics.KEEPING,
        topics.ANNOUNCEMENTS,
        topics.SEALS,
        topics.REPLICA_CHECKS,
        topics.DEAD_LETTERS,
    }
    left = {name for name in wanted - set(read) if topics.split(name)[1] not in elsewhere}
    assert all("chunks-to-" in name for name in left), f"journals nobody reads: {left}"


@pytest.mark.parametrize(
    ("message", "family"),
    [
        (x.body(), 0),
        (x.decided(), 0),
        (x.written(), 0),
        (x.reported(), 0),
        (x.completed(), 0),
        (x.planned(x.written()), 1),
        (x.progress(), 1),
        (x.requested(1, x.Ranges([(0, 5)]), source=x.B), 1),
    ],
)
def test_every_fact_of_a_row_is_in_the_family_of_its_key(message: object, family: int) -> None:
    peers = (x.A, x.C)
    names = [intent_topics(peers), transfer_topics(x.B, peers)][family]
    assert records.topic_of(message) in names  # type: ignore[arg-type]
    assert records.key_of(message) == (x.INTENT, x.MANIFEST)[family]  # type: ignore[arg-type]


# What an agent does with a record: it takes the next, and so acknowledges this one, only when it is done with.


class Died(BaseException):
    """The process ended here."""


class Stream:
    """An agent's stream: notes which record was taken behind which."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records, self.taken = records, 0

    async def events(self) -> AsyncIterator[Any]:
        for record in self.records:
            self.taken += 1
            yield SimpleNamespace(message=SimpleNamespace(**record))


class Publisher:
    def __init__(self) -> None:
        self.acks: list[Callable[[Exception | None], None]] = []

    def send(self, _message: object, on_ack: Callable[[Exception | None], None]) -> None:
        self.acks.append(on_ack)


def agent_of(
    rig: Rig, publisher: Publisher, changelogs: Changelogs | None = None, guard: StallGuard | None = None
) -> Callable[[Any], Any]:
    """The intents' agent, as it is declared to Faust."""
    agents: dict[str, Callable[[Any], Any]] = {}

    def agent(_topic: object, *, name: str, concurrency: int) -> Callable[[Callable[[Any], Any]], None]:
        assert concurrency == 1, "records of a partition are heard in their order"
        return lambda hear: agents.update({name: hear})

    producer = SimpleNamespace(changelogs=changelogs or Changelogs(MagicMock()))
    app: Any = SimpleNamespace(topic=lambda *names, **_: names, agent=agent, producer=producer)
    guard = guard or StallGuard()
    read = families.register(app, rig.dispatcher, publisher, guard, rig.here, (x.B, x.C))
    assert set(agents) == {"intents", "transfers", "requests"}
    assert {*intent_topics((x.B, x.C)), *transfer_topics(x.A, (x.B, x.C)), *request_topics(x.A, (x.B, x.C))} == read
    return agents["intents"]


def test_changelogs_ask_the_guard_before_they_write() -> None:
    changelogs, guard = Changelogs(MagicMock()), StallGuard()
    asyncio.run(agent_of(Rig(x.A), Publisher(), changelogs, guard)(Stream([])))
    assert changelogs.guard == guard.refuse_stall


def test_a_refused_record_is_done_with_when_its_dead_letter_is_in_the_log() -> None:
    async def story() -> None:
        rig, publisher = Rig(x.A), Publisher()
        stream = Stream([{**rig.record(x.body()), "value": b"?"}, rig.record(x.body())])
        hearing = asyncio.create_task(agent_of(rig, publisher)(stream))
        await asyncio.sleep(0.01)
        assert (stream.taken, len(publisher.acks)) == (1, 1)
        assert rig.turns.intent_row(x.INTENT) is None
        publisher.acks[0](None)
        await asyncio.wait_for(hearing, 5)
        assert stream.taken == 2
        assert rig.intent().body == x.body()
        assert len(publisher.acks) == 1

    asyncio.run(story())


@pytest.mark.parametrize("error", [TableFailed("disk full"), OSError("disk full"), MemoryError()], ids=repr)
def test_what_the_environment_breaks_ends_the_worker_before_the_next_record(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_what: str, **words: object) -> None:
        raise Died(words["offset"], words["why"])

    monkeypatch.setattr(families, "die", die)
    rig, publisher = Rig(x.A), Publisher()
    stream = Stream([rig.record(x.body()), rig.record(x.decided())])
    rig.tables["intents"].broken = error
    with pytest.raises(Died, match=type(error).__name__) as died:
        asyncio.run(agent_of(rig, publisher)(stream))
    assert died.value.args[0] == stream.records[0]["offset"]
    assert stream.taken == 1
    assert publisher.acks == [], "no dead letter: the record is not at fault"


def test_a_letter_that_cannot_be_sent_ends_the_worker_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to Faust the agent would begin anew, behind a record that is acknowledged and whose letter is lost."""

    def die(_what: str, **words: object) -> None:
        raise Died(words["offset"])

    def send(_message: object, _on_ack: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(families, "die", die)
    rig, publisher = Rig(x.A), Publisher()
    monkeypatch.setattr(publisher, "send", send)
    stream = Stream([{**rig.record(x.body()), "value": b"?"}, rig.record(x.body())])
    with pytest.raises(Died):
        asyncio.run(agent_of(rig, publisher)(stream))
    assert stream.taken == 1


def test_headers_are_heard_as_faust_hands_them_over() -> None:
    rig, publisher = Rig(x.A), Publisher()
    record = rig.record(x.body())
    stream = Stream([{**record, "headers": dict(record["headers"])}, {**record, "headers": record["headers"]}])
    asyncio.run(agent_of(rig, publisher)(stream))
    assert rig.dispatcher.counts == {"applied": 2, "dead": 0}


def test_a_large_record_is_decoded_beside_the_loop_and_heard_on_it_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, publisher = Rig(x.A), Publisher()
    full = x.written(items=[x.item(n, 100) for n in range(1000)])
    records = [rig.record(x.body()), rig.record(full), {**rig.record(full), "key": b"another"}, rig.record(x.decided())]
    decode, turn = rig.dispatcher.decode, rig.dispatcher._turn
    where: list[tuple[str, int, str]] = []
    here = threading.get_ident()

    def decoding(topic: str, key: bytes | None, value: bytes | None, headers: Any) -> Any:
        where.append(("decode", len(value or b""), "loop" if threading.get_ident() == here else "thread"))
        return decode(topic, key, value, headers)

    def turning(topic: str, partition: int, heard: Any, value: bytes) -> str | None:
        where.append(("turn", len(value), "loop" if threading.get_ident() == here else "thread"))
        return turn(topic, partition, heard, value)

    monkeypatch.setattr(rig.dispatcher, "decode", decoding)
    monkeypatch.setattr(rig.dispatcher, "_turn", turning)

    async def story() -> None:
        hearing = asyncio.create_task(agent_of(rig, publisher)(Stream(records)))
        while not publisher.acks:
            await asyncio.sleep(0.01)
        publisher.acks[0](None)
        await asyncio.wait_for(hearing, 5)

    asyncio.run(story())
    sizes = [len(record["value"]) for record in records]
    assert sizes[1] > families.ASIDE_BYTES > max(sizes[0], sizes[3])
    assert where == [
        *(("decode", sizes[0], "loop"), ("turn", sizes[0], "loop")),
        *(("decode", sizes[1], "thread"), ("turn", sizes[1], "loop")),
        ("decode", sizes[2], "thread"),
        *(("decode", sizes[3], "loop"), ("turn", sizes[3], "loop")),
    ]
    assert rig.dispatcher.counts == {"applied": 3, "dead": 1}
