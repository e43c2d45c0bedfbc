"""Publishing and replaying against a real broker: transactions, restarts, logins over TLS in both client libraries."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from faust import auth
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from streams import wire
from streams.core import topics
from streams.core.names import IntentId, Site, Text
from streams.core.records import Asked, IntentAsked
from streams.errors import NotAllowed
from streams.kafka import admin, client
from streams.kafka.publish import Publisher
from streams.kafka.replay import end_offsets, replay
from streams.settings import Settings
from tests.kafka.broker_process import PASSWORD, TLS, USER, BrokerProcess
from tests.kafka.tailing import tail

pytestmark = pytest.mark.sites
A, B = Site("T1_A"), Site("T2_B")


@pytest.fixture
def topic(real: Settings, request: pytest.FixtureRequest) -> str:
    """A topic of this test's own, of one partition."""
    name = f"own-{abs(hash(request.node.name)):x}"
    admin.create_topics(real, A, [(name, 1, {})])
    return name


@pytest.fixture
def transactional(real: Settings, request: pytest.FixtureRequest) -> Producer:
    config = {"bootstrap.servers": real.entry(A).bootstrap, "transactional.id": request.node.name, "log_level": 0}
    producer = Producer(config)
    producer.init_transactions(30)
    return producer


def asked(no: int) -> IntentAsked:
    return IntentAsked(IntentId(f"T1_A.{no:08d}-0000-0000-0000-000000000000"), Asked.CANCEL, Text("tester"))


def values(settings: Settings, topic: str) -> list[bytes | None]:
    return [record.value for record in replay(settings, A, [topic])]


def until_ended(settings: Settings, topic: str, end: int) -> None:
    """A broker answers that a transaction is over before its marker stands in the topic."""
    deadline = time.monotonic() + 10
    while end_offsets(settings, A, [topic]) != {(topic, 0): end}:
        assert time.monotonic() < deadline, f"no marker before {end}"
        time.sleep(0.02)


def test_markers_at_the_end_neither_show_nor_hang(real: Settings, topic: str, transactional: Producer) -> None:
    """A mirror that somebody else set up may use transactions. What it gave up is a repeat, known by its number."""
    for no, end in enumerate((transactional.commit_transaction, transactional.abort_transaction)):
        transactional.begin_transaction()
        transactional.produce(topic, str(no))
        transactional.flush(10)
        end(10)
        until_ended(real, topic, 2 * no + 2)
    started = time.monotonic()
    assert values(real, topic) == [b"0", b"1"], "as the agents read"
    assert list(replay(real, A, [topic], start={(topic, 0): 3})) == [], "a marker is all that is left"
    assert time.monotonic() - started < 5


def test_an_open_transaction_holds_no_reader_up(real: Settings, topic: str, transactional: Producer) -> None:
    """A broker that stands still may forget how one ended: it stays open for ever, and what is behind it counts."""
    transactional.begin_transaction()
    transactional.produce(topic, b"open")
    transactional.flush(10)
    plain = Producer({"bootstrap.servers": real.entry(A).bootstrap, "log_level": 0})
    plain.produce(topic, b"behind")
    assert plain.flush(10) == 0
    assert values(real, topic) == [b"open", b"behind"]
    assert end_offsets(real, A, [topic]) == {(topic, 0): 2}
    transactional.abort_transaction(10)


def test_starts_by_time_find_the_first_record_written_then(real: Settings, topic: str) -> None:
    producer = Producer({"bootstrap.servers": real.entry(A).bootstrap, "log_level": 0})
    for at_ms in (1_000, 2_000, 3_000):
        producer.produce(topic, str(at_ms), timestamp=at_ms)
    assert producer.flush(10) == 0
    found = {at: [r.value for r in replay(real, A, [topic], start=at)] for at in (0, 1_500, 3_000, 3_001)}
    assert found == {0: [b"1000", b"2000", b"3000"], 1_500: [b"2000", b"3000"], 3_000: [b"3000"], 3_001: []}


def test_records_sent_while_the_broker_restarts_all_arrive_once_in_order(real: Settings, broker: BrokerProcess) -> None:
    admin.provision(real, [A])
    acks: list[Exception | None] = []
    publisher = Publisher(real, A, "w0", "worker")
    first = publisher.incarnation
    for no in range(200):
        publisher.send(asked(no), acks.append)
    broker.stop()
    for no in range(200, 400):
        publisher.send(asked(no), acks.append)
    broker.start()
    for no in range(400, 600):
        publisher.send(asked(no), acks.append)
    assert publisher.close(30) == 0
    assert acks == [None] * 600
    assert publisher.incarnation == first
    seqs: dict[int, list[int]] = defaultdict(list)
    for record in replay(real, A, [topics.INTENTS]):
        origin = wire.decode(record.topic, record.key, record.value, record.headers, A).origin
        if origin.incarnation == first:
            seqs[record.partition].append(origin.seq)
    assert sum(map(len, seqs.values())) == 600
    assert all(found == list(range(len(found))) for found in seqs.values())


def test_a_tail_goes_on_after_the_broker_was_restarted(real: Settings, broker: BrokerProcess, topic: str) -> None:
    seen: list[bytes | None] = []
    done = threading.Event()

    def follow() -> None:
        seen.extend(r.value for r in tail(real, A, [topic], start="beginning", stop=done.is_set))

    producer = Producer({"bootstrap.servers": real.entry(A).bootstrap, "log_level": 0})
    producer.produce(topic, b"before")
    assert producer.flush(10) == 0
    follower = threading.Thread(target=follow)
    follower.start()
    try:
        _until(lambda: seen == [b"before"])
        broker.stop()
        broker.start()
        producer.produce(topic, b"after")
        assert producer.flush(20) == 0
        _until(lambda: len(seen) == 2)
    finally:
        done.set()
        follower.join(10)
    assert seen == [b"before", b"after"]


def _until(true: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.05)


@pytest.fixture
def secured(real: Settings, broker: BrokerProcess) -> Callable[..., Settings]:
    """Settings that reach the broker through SASL_SSL, with one setting or other changed."""

    def make(**changed: str) -> Settings:
        kafka = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
            "ssl.ca.location": str(TLS / "certificate.pem"),
            **{name.replace("_", "."): value for name, value in changed.items()},
        }
        entry = replace(real.entry(A), bootstrap=broker.secure_bootstrap, kafka=kafka)
        return replace(real, registry=replace(real.registry, sites=(entry, real.entry(B))))

    return make


def test_everything_works_through_a_login_over_tls(secured: Callable[..., Settings]) -> None:
    settings = secured()
    admin.provision(settings, [A])
    admin.check(settings, [A])
    with Publisher(settings, A, "tls", "cli") as publisher:
        publisher.send(asked(700))
        assert publisher.flush(10) == 0
    assert asked(700).intent.encode() in {record.key for record in replay(settings, A, [topics.INTENTS])}


def test_a_wrong_password_is_called_so(secured: Callable[..., Settings]) -> None:
    settings = secured(sasl_password="guessed")
    for attempt in (
        lambda: list(replay(settings, A, [topics.INTENTS])),
        lambda: admin.check(settings, [A]),
    ):
        with pytest.raises(NotAllowed, match=r"uthentication.*\[kafka\]") as caught:
            attempt()
        assert "guessed" not in str(caught.value)
    said: list[Exception | None] = []
    settings = secured(sasl_password="guessed", delivery_timeout_ms="1000")
    publisher = Publisher(settings, A, "tls", "cli")
    publisher.send(asked(1), said.append)
    publisher.flush(10)
    publisher.close(0)
    assert [type(error) for error in said] == [NotAllowed]


def test_an_untrusted_certificate_is_refused(secured: Callable[..., Settings], tmp_path: Path) -> None:
    settings = secured(ssl_ca_location="/etc/ssl/certs")
    with pytest.raises(NotAllowed, match=r"certificate verify failed"):
        list(replay(settings, A, [topics.INTENTS]))


@pytest.mark.parametrize("change", [{}, {"sasl_password": "guessed"}])
def test_the_agents_client_logs_in_with_the_same_settings(
    secured: Callable[..., Settings], broker: BrokerProcess, topic: str, change: dict[str, str]
) -> None:
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError

    found: dict[str, Any] = client.faust_broker(secured(**change), A, auth)
    assert found["broker"] == f"kafka://{broker.secure_bootstrap}"
    options = credentials_to_aiokafka_auth(found["broker_credentials"])

    async def topics_seen() -> set[str]:
        kafka = AIOKafkaClient(bootstrap_servers=broker.secure_bootstrap, **options)
        try:
            await kafka.bootstrap()
            return set((await kafka.fetch_all_metadata()).topics())
        finally:
            await kafka.close()
            await every_socket_closed()

    async def every_socket_closed() -> None:
        """TLS says goodbye first, also where a login was refused; a loop that ends before leaves its socket open, and
        some later test is blamed for it."""
        watched = asyncio.get_running_loop()._selector.get_map()  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            while len(watched) > 1:  # the loop's own
                await asyncio.sleep(0.01)

    if change:
        with pytest.raises(KafkaError):
            asyncio.run(topics_seen())
    else:
        assert topic in asyncio.run(topics_seen())
