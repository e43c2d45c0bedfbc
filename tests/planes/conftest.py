"""A mock cluster shared by the plane tests, and on it a source A, a destination B, a mirror, a listener."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streams.core.topics import wanted
from streams.planes.process import PlaneProcess
from streams.settings import Settings
from tests.planes.stage import ALL, A, B, Listener, Mirror, settings_of


@pytest.fixture(scope="session")
def bootstrap() -> Iterator[str]:
    owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = owner.list_topics(timeout=10).brokers.values()
    for site, peer in ((A, B), (B, A)):
        for topic in wanted(site, [peer]):
            owner.list_topics(topic.name, timeout=10)
    yield ",".join(f"{one.host}:{one.port}" for one in brokers)
    owner.flush(1)


@dataclass
class Stage:
    """Two planes on one cluster. `a` and `b` are started; B reads all its partitions."""

    a: PlaneProcess
    b: PlaneProcess
    listener: Listener
    mirror: Mirror
    settings_a: Settings
    settings_b: Settings
    root_a: Path
    root_b: Path


@pytest.fixture
def stage(bootstrap: str, tmp_path: Path) -> Iterator[Stage]:
    settings_a, settings_b = (settings_of(site, bootstrap, tmp_path) for site in (A, B))
    a, b = PlaneProcess(settings_a, "a"), PlaneProcess(settings_b, "b")
    listener, mirror = Listener(bootstrap), Mirror(bootstrap)
    a.start()
    b.start()
    b.tell(ALL)
    yield Stage(a, b, listener, mirror, settings_a, settings_b, tmp_path / A / "storage", tmp_path / B / "storage")
    for end in (a.stop, b.stop, listener.close, mirror.close):
        end()
