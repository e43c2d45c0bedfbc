"""A cluster a site inside the test process (librdkafka's mock), filled with the journals of a history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streams.core.names import Site
from streams.core.topics import wanted
from streams.kafka import admin
from streams.settings import Registry, Settings, SiteEntry
from tests.audit.history import PARTITIONS, A, World


class MockCluster:
    """The mock gives every topic that is touched 4 partitions; it has no transactions, so offsets have no holes."""

    def __init__(self, site: Site, sites: tuple[Site, ...]) -> None:
        config = {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0}
        self._owner: Producer | None = Producer(config)
        brokers = self._owner.list_topics(timeout=10).brokers.values()
        self.bootstrap = ",".join(f"{b.host}:{b.port}" for b in brokers)
        for topic in wanted(site, sites):
            found = self._owner.list_topics(topic.name, timeout=10).topics[topic.name]
            assert len(found.partitions) == PARTITIONS

    def stop(self) -> None:
        self._owner = None


@dataclass
class Stage:
    """Clusters up and empty; `play` writes a world into them."""

    settings: Settings
    clusters: dict[Site, MockCluster]

    def play(self, world: World) -> None:
        for site, cluster in self.clusters.items():
            producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 0})
            for (where, topic, partition), log in sorted(world.logs.items()):
                for _, rec in log if where == site else []:
                    producer.produce(
                        topic,
                        value=rec.value,
                        key=rec.key,
                        partition=partition,
                        headers=list(rec.headers),
                        timestamp=rec.at_ms,
                    )
            assert producer.flush(10) == 0


@pytest.fixture(autouse=True)
def mock_tells_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mock has no controller to ask for a topic's settings; tests/kafka/test_topics_on_a_broker asks a real one."""
    monkeypatch.setattr(admin, "kept_otherwise", lambda settings, site: [])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    made: list[MockCluster] = []

    def build(*sites: Site) -> Stage:
        clusters = {site: MockCluster(site, sites) for site in sites}
        made.extend(clusters.values())
        entries = tuple(SiteEntry(site, cluster.bootstrap) for site, cluster in clusters.items())
        registry = Registry(partitions=PARTITIONS, sites=entries)
        settings = Settings(registry, A, tmp_path, tmp_path / "cache", tmp_path / "sites.toml", tmp_path / "client")
        return Stage(settings, clusters)

    yield build
    for cluster in made:
        cluster.stop()
