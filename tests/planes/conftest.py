"""Mock clusters shared by the plane tests, and on them a source A, a destination B, a mirror, a listener."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streams.core.topics import wanted
from streams.planes.host.plane_process import PlaneProcess
from streams.settings import Settings
from tests.planes.ends import Ends
from tests.planes.feed import Receiver, Sender
from tests.planes.stage import ALL, A, B, Clusters, Listener, Mirror, settings_of


@pytest.fixture(scope="session")
def clusters() -> Clusters:
    """A mock cluster for each of the two sites, living as long as the producers that made them: to the process's end.

    librdkafka may abort while it takes a mock cluster down whose clients were killed (seen twice at the end of a whole
    run, in its C code, never elsewhere); so these two are never taken down.
    """
    found = {}
    for site, peer in ((A, B), (B, A)):
        owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
        brokers = owner.list_topics(timeout=10).brokers.values()
        for topic in wanted(site, [peer]):
            owner.list_topics(topic.name, timeout=10)
        found[site] = ",".join(f"{one.host}:{one.port}" for one in brokers)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
    return found


@dataclass
class Stage:
    """Two planes on a cluster each. `a` and `b` are started; B reads all its partitions."""

    a: PlaneProcess
    b: PlaneProcess
    listener: Listener
    mirror: Mirror
    settings_a: Settings
    settings_b: Settings
    root_a: Path
    root_b: Path


@pytest.fixture
def stage(clusters: Clusters, tmp_path: Path) -> Iterator[Stage]:
    settings_a, settings_b = (settings_of(site, clusters, tmp_path) for site in (A, B))
    a, b = PlaneProcess(settings_a, "a"), PlaneProcess(settings_b, "b")
    listener, mirror = Listener(clusters), Mirror(clusters)
    a.start()
    b.start()
    b.tell(ALL)
    yield Stage(a, b, listener, mirror, settings_a, settings_b, tmp_path / A / "storage", tmp_path / B / "storage")
    for end in (a.stop, b.stop, listener.close, mirror.close):
        end()


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    """A's source half over `a`, without Kafka."""
    one = Sender(tmp_path / "a")
    yield one
    one.close()


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    """B's destination half over `b`, without Kafka."""
    return Receiver(tmp_path / "b")


@pytest.fixture
def ends_of(tmp_path: Path) -> Iterator[Callable[..., Ends]]:
    """A door at one end and a destination at the other, of files with these sizes."""
    with contextlib.ExitStack() as stack:
        yield lambda *sizes: stack.enter_context(
            Ends(tmp_path, {f"/data/f{n:04}": os.urandom(size) for n, size in enumerate(sizes)})
        )
