"""A federation of its own without workers: up, a record each way, kill -9 of mirror and broker, found again, down.

With Java and Maven hidden from PATH and an empty HOME, as on a bare machine.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from streams.cli import seal_ages
from streams.core.names import Site
from streams.core.topics import REPORTS, chunks_to, remote
from streams.federation import local, plan
from streams.settings import load_settings

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]

A, B = Site("T1_ALONE"), Site("T2_ALONE")
PARTITIONS = 8


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    cache = load_settings(need_federation=False).cache
    state = tmp_path_factory.mktemp("alone") / "state"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("no-programs")))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("empty-home")))
        steps: list[str] = []
        try:
            local.up(state, cache, (A, B), workers=0, on_step=steps.append)
            assert steps[-1] == "ready"
            yield state
        finally:
            local.down(state, purge=True)


def record(state: Path) -> plan.FederationRecord:
    found = plan.read_record(state)
    assert found is not None
    return found


def part(state: Path, name: str) -> plan.FederationPart:
    found = next((p for p in record(state).parts if p.name == name), None)
    assert found is not None
    return found


def bootstrap(state: Path, site: Site) -> str:
    return next(s for s in record(state).sites if s.name == site).broker(state).bootstrap


def until(done: Callable[[], bool], what: str, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def crosses(
    state: Path, origin: Site, target: Site, topic: str, value_bytes: int = 40, timeout_s: float = 90.0
) -> None:
    """A record written at `origin` arrives at `target`: same bytes, key, partition and headers."""
    key = uuid.uuid4().hex
    value = key.encode() * (value_bytes // 32 + 1)
    producer = Producer(
        {"bootstrap.servers": bootstrap(state, origin), "message.max.bytes": 9_000_000, "log_level": 0, "linger.ms": 0}
    )
    producer.produce(topic, value, key, headers={"avro-fp": b"12345678"})
    assert producer.flush(30) == 0
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap(state, target),
            "group.id": "nobody",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(remote(origin, topic), n, 0) for n in range(PARTITIONS)])
        deadline = time.monotonic() + timeout_s
        while True:
            assert time.monotonic() < deadline, f"{topic} of {origin} did not reach {target}"
            heard = consumer.poll(0.2)
            if heard is not None and heard.error() is None and heard.key() == key.encode():
                break
        assert heard.value() == value
        assert heard.headers() == [("avro-fp", b"12345678")]
    finally:
        consumer.close()


def test_records_cross_both_ways(state: Path) -> None:
    crosses(state, A, B, REPORTS)
    crosses(state, B, A, REPORTS)


def test_payload_of_8_mib_crosses(state: Path) -> None:
    crosses(state, A, B, chunks_to(B), 8 * 1024 * 1024)


def test_up_again_finds_it(state: Path) -> None:
    before = record(state)
    found = local.up(state, state / "unused", (A, B), workers=0)
    assert found.found
    assert record(state).parts == before.parts
    ports = {status.name: status.port for status in local.status(state)}
    assert ports[f"{A}-broker"] != ports[f"{B}-broker"]


@pytest.mark.parametrize("name", ["mirror", f"{B}-broker"])
def test_kill_9_and_it_comes_back_with_what_it_held(state: Path, name: str) -> None:
    before = part(state, name)
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: part(state, name).pid not in (0, before.pid), "started again")
    crosses(state, A, B, REPORTS)
    crosses(state, B, A, REPORTS)
    until(lambda: part(state, name).state == "ready", "ready again")
    assert part(state, name).restarts == 1


def test_followers_are_added_seal_and_come_back(state: Path) -> None:
    found = local.up(state, state / "unused", (A, B), workers=0, followers=True)
    assert found.found
    assert found.record.followers
    names = [f"{site}-follower" for site in (A, B)]
    until(lambda: all(p.state == "ready" for p in record(state).parts if p.name in names), "both follow")
    statuses = {status.name: status for status in local.status(state)}
    for name in names:
        assert statuses[name].port, "its metrics"
        assert statuses[name].rss_bytes < 80_000_000
    settings = load_settings(environ={}, files=[], state=str(state), site=A)
    until(lambda: seal_ages.newest(settings, A) is not None, "a seal")
    before = part(state, names[0])
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: part(state, names[0]).pid not in (0, before.pid), "started again")
    until(lambda: part(state, names[0]).state == "ready", "ready again")
    assert all('"words"' not in (state / "logs" / f"{name}.log").read_text() for name in names), "findings"
    local.up(state, state / "unused", (A, B), workers=0)
    assert record(state).followers, "who does not ask for them leaves them"


def test_down_leaves_no_process(state: Path) -> None:
    owned = [psutil.Process(p.pid) for p in record(state).parts]
    owned.append(psutil.Process(record(state).pid))
    assert len(owned) == 6
    assert not [p.pid for p in owned if list(Path("/tmp").glob(f"hsperfdata_*/{p.pid}"))], "nothing outside its state"
    assert local.down(state)
    assert not [p for p in owned if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not local.down(state), "nothing is left to stop"
    assert {status.state for status in local.status(state)} == {"stopped"}
