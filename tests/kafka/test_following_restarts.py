"""Who follows goes on when the broker restarts: nothing is lost, nothing told twice, the outage said once."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from confluent_kafka import Producer

from streams.cli import screen
from streams.client.producer import Outcome, TransferClient
from streams.core import records as m
from streams.core.names import Site, Text
from streams.kafka import admin
from streams.kafka.publish import Publisher
from streams.kafka.replay import replay
from streams.kafka.steady import SteadyReader
from streams.settings import Settings
from tests.kafka.broker_process import BrokerProcess
from tests.kafka.tailing import tail

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]
A = Site("T1_A")
DOWN_S = 14.0
"""Longer than a reader takes to notice."""


def put(settings: Settings, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": settings.entry(A).bootstrap, "linger.ms": 0, "log_level": 0})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(60) == 0


def ready(settings: Settings, *topics: str) -> None:
    for topic in topics:
        for _ in range(100):
            with contextlib.suppress(Exception):
                list(replay(settings, A, [topic]))
                break
            time.sleep(0.1)


def test_a_wait_and_a_tail_go_on_behind_a_restart(
    real: Settings, broker: BrokerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.provision(real, [A])
    ready(real, "transfer-intents", "manifests", "intent-decisions", "dead-letters")
    put(real, "manifests", b"before the start")
    heard: list[bytes | None] = []
    done, outage = threading.Event(), screen.Outage()
    tailing = threading.Thread(
        target=lambda: heard.extend(
            record.value for record in tail(real, A, ["manifests"], stop=done.is_set, on_away=outage.note)
        )
    )
    tailing.start()
    ended: list[Outcome] = []
    away: list[str] = []
    with TransferClient(real, requester="me") as client:
        handle = client.publish(["/store/f.root"], to=["T2_B"])
        waiting = threading.Thread(
            target=lambda: ended.append(handle.wait(120, lambda snapshot: away.append(handle.away)))
        )
        waiting.start()
        time.sleep(2)
        put(real, "manifests", b"1", b"2")
        broker.stop()
        time.sleep(DOWN_S)
        broker.start()
        body = handle.body
        assert body is not None
        why = m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "decide", Text("no"))
        with Publisher(real, A, "agent", "worker") as publisher:
            publisher.send(m.IntentDecided(body.intent, 1, m.Verdict.REFUSED, body, None, 0, body.priority, why))
            assert publisher.flush(60) == 0
        put(real, "manifests", b"3", b"4")
        waiting.join(60)
        deadline = time.monotonic() + 60
        while len(heard) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
    done.set()
    tailing.join(30)
    assert [(outcome.state, outcome.exit_code) for outcome in ended] == [("refused", 7)]
    assert any(away)
    assert away[-1] == ""
    assert heard == [b"1", b"2", b"3", b"4"]
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said] == ["waiting for the broker", "the broker answers again"]


def test_a_topic_that_is_not_known_yet_is_waited_for_and_read_once(real: Settings) -> None:
    with SteadyReader(real, A, {("comes-later", 0): 0}) as reader:
        assert [reader.batch(0.2) for _ in range(5)] == [[]] * 5
        admin.create_topics(real, A, [("comes-later", 1, {})])
        put(real, "comes-later", b"1", b"2")
        heard: list[bytes | None] = []
        deadline = time.monotonic() + 30
        while len(heard) < 2 and time.monotonic() < deadline:
            heard += [record.value for record in reader.batch(0.2)]
        assert reader.away == ""
        heard += [record.value for _ in range(5) for record in reader.batch(0.2)]
    assert heard == [b"1", b"2"]
