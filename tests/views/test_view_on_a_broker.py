"""The view over a real broker: what the mock cannot do, transactions of a mirror and a broker that goes away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.names import Adler32, Block, Lfn
from streams.core.records import HeldFile
from streams.kafka.admin import provision
from streams.kafka.publish import Publisher
from streams.registration.replica_writer import ReplicaWriter
from streams.settings import Settings, load_settings
from streams.views.view import _IDLE_MS as IDLE_MS
from streams.views.view import View
from tests.kafka.broker_process import BrokerProcess
from tests.views.journal import DATASET, PARTITIONS, A, B, held, holds, settings_for
from tests.views.test_intents import body, named

pytestmark = pytest.mark.sites


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    cache = load_settings(need_federation=False).cache
    process = BrokerProcess(tmp_path_factory.mktemp("broker"), cache)
    process.prepare()
    process.start()
    yield process
    process.stop()


@pytest.fixture
def settings(broker: BrokerProcess, tmp_path: Path) -> Settings:
    made = settings_for(broker.bootstrap, tmp_path)
    provision(made, [A])
    return made


@pytest.fixture
def view(settings: Settings) -> Iterator[View]:
    made = View(settings, settings.datadir, lambda letter: pytest.fail(letter.reason))
    made.start()
    yield made
    made.stop()


def mirror(bootstrap: str) -> Producer:
    made = Producer({"bootstrap.servers": bootstrap, "transactional.id": "mirror-of-B", "log_level": 0})
    made.init_transactions(30)
    return made


def copy(producer: Producer, *facts: m.FilesHeld) -> None:
    for seq, fact in enumerate(facts):
        origin = m.Origin(B, "w0", "i1", seq, 1000)
        producer.produce(
            topics.remote(B, topics.REPLICAS),
            value=wire.encode(fact),
            key=DATASET,
            headers=wire.headers(fact, origin),
            partition=topics.partition_of(DATASET, PARTITIONS),
        )


def test_catches_up_behind_the_marks_of_a_mirrors_transactions(broker: BrokerProcess, view: View) -> None:
    producer = mirror(broker.bootstrap)
    facts = [holds(B, held(f"/store/{n}")) for n in range(3)]
    producer.begin_transaction()
    copy(producer, *facts[:2])
    producer.commit_transaction(30)
    begun = time.monotonic()
    assert view.catch_up(20)
    producer.begin_transaction()
    copy(producer, *facts)
    producer.flush(10)
    producer.abort_transaction(30)
    assert view.catch_up(20)
    producer.begin_transaction()
    copy(producer, *facts)
    assert producer.flush(10) == 0
    assert view.catch_up(20)
    producer.commit_transaction(30)
    assert view.catch_up(20)
    assert time.monotonic() - begun < 20
    assert [len(view.catalogue.where(Lfn(f"/store/{n}"))) for n in range(3)] == [1, 1, 1]
    assert next(view.catalogue.datasets()).known.files == 3


def test_what_comes_while_readers_wait_is_applied_at_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker answers a waiting fetch when there is news. Of intents the second reader waits, and the first again."""
    monkeypatch.setattr("streams.views.view._IDLE_MS", IDLE_MS)
    monkeypatch.setattr("streams.views.view._QUIET_S", 0.5)
    view = View(settings, settings.datadir, lambda letter: pytest.fail(letter.reason))
    view.start()
    try:
        with Publisher(settings, A, "test", "cli") as publisher:
            assert view.catch_up(20)
            for number, idle_s in enumerate((1.0, 0.0, 2.0, 8.0, 0.5)):
                time.sleep(idle_s)  # one reader goes on, both do, the other waits
                begun = time.monotonic()
                publisher.send(body(number))
                publisher.send(holds(A, held(f"/store/soon{number}")))
                assert publisher.flush(10) == 0
                assert view.catch_up_intent(named(number), 10)
                assert view.catch_up(10)
                assert time.monotonic() - begun < 2.5, (
                    "a wait that was under way when a partition was ready, and a batch"
                )
                assert view.intents.snapshot(named(number)) is not None
    finally:
        view.stop()


def test_goes_on_after_the_broker_was_away(broker: BrokerProcess, settings: Settings, view: View) -> None:
    def say(name: str) -> None:
        with Publisher(settings, A, "test", "cli") as publisher:
            writer = ReplicaWriter(publisher, A)
            writer.add(HeldFile(Lfn(name), Block(f"{DATASET}#b1"), 1, Adler32("00000001"), ""))
            writer.finish()

    say("/store/before")
    assert view.catch_up(20)
    broker.stop()
    assert not view.catch_up(1)
    assert view.alive
    assert len(view.catalogue.where(Lfn("/store/before"))) == 1
    broker.start()
    say("/store/after")
    assert view.catch_up(30)
    assert len(view.catalogue.where(Lfn("/store/after"))) == 1
    assert view.progress.rebuilt == 0
