"""A cluster inside the test process (librdkafka's mock: no admin, no retention), and one real broker where marked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streams.core.names import Site
from streams.core.topics import wanted
from streams.settings import Registry, Settings, SiteEntry, load_settings
from tests.kafka.broker_process import BrokerProcess

A, B = Site("T1_A"), Site("T2_B")
MOCK_PARTITIONS = 4
"""What the mock gives every topic that is touched."""


def settings_for(bootstrap: str, state: Path, *, credit_bytes: int = 64 << 20) -> Settings:
    entries = tuple(SiteEntry(site, bootstrap) for site in (A, B))
    registry = Registry(partitions=MOCK_PARTITIONS, credit_bytes=credit_bytes, sites=entries)
    return Settings(
        registry, A, state, state / "cache", state / "sites.toml", state / "data", chunk_queue_bytes=4 << 20
    )


class Mock:
    """The mock cluster; `stop` ends it as a broker that goes away."""

    def __init__(self) -> None:
        config = {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0}
        self._owner: Producer | None = Producer(config)
        brokers = self._owner.list_topics(timeout=10).brokers.values()
        self.bootstrap = ",".join(f"{b.host}:{b.port}" for b in brokers)
        for topic in wanted(A, [B]):
            self._owner.list_topics(topic.name, timeout=10)

    def stop(self) -> None:
        self._owner = None


@pytest.fixture
def mock() -> Iterator[Mock]:
    cluster = Mock()
    yield cluster
    cluster.stop()


@pytest.fixture
def settings(mock: Mock, tmp_path: Path) -> Settings:
    return settings_for(mock.bootstrap, tmp_path)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A real broker; about 4 s to start. Tests that use it are marked `sites`."""
    process = BrokerProcess(tmp_path_factory.mktemp("broker"), load_settings(need_federation=False).cache)
    process.prepare()
    process.start()
    yield process
    process.stop()


@pytest.fixture
def real(broker: BrokerProcess, tmp_path: Path) -> Settings:
    return settings_for(broker.bootstrap, tmp_path)
