"""The mirror's and the broker's settings keep every rule that was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.core.names import Site
from streams.core.policy import JOURNAL_RECORD_BYTES_MAX
from streams.core.topics import chunks_to, mirrored, remote, wanted
from streams.federation import broker, mirror
from streams.federation.broker import Broker
from streams.federation.mirror import Flow

SITES = ("T1_A", "T2_B", "T2_C")


def mesh(sites: tuple[str, ...]) -> list[Flow]:
    return [Flow(a, b, mirrored(Site(b))) for a in sites for b in sites if a != b]


def settings(sites: tuple[str, ...]) -> dict[str, str]:
    return mirror.properties({site: f"127.0.0.1:{n}" for n, site in enumerate(sites, 1000)}, mesh(sites))


def enabled(lines: dict[str, str]) -> set[tuple[str, str]]:
    on = [key.removesuffix(".enabled") for key, value in lines.items() if "->" in key and value == "true"]
    return {(flow.split("->")[0], flow.split("->")[1]) for flow in on if "." not in flow}


@pytest.mark.parametrize("count", [2, 3])
def test_every_topic_of_every_flow_is_listed_once(count: int) -> None:
    lines = settings(SITES[:count])
    listed: list[tuple[str, str, str]] = []
    for source, alias in enabled(lines):
        target = alias.split("-payload-of-")[0]
        assert lines[f"{alias}.bootstrap.servers"] == lines[f"{target}.bootstrap.servers"]
        listed += [(source, target, topic) for topic in lines[f"{source}->{alias}.topics"].split(",")]
    expected = [(flow.source, flow.target, topic) for flow in mesh(SITES[:count]) for topic in flow.topics]
    assert sorted(listed) == sorted(expected)


def test_what_is_not_a_flow_is_switched_off() -> None:
    """MirrorMaker would otherwise open a connector for every ordered pair of aliases."""
    lines = settings(SITES)
    aliases = lines["clusters"].split(", ")
    assert len(aliases) == 3 + 6
    pairs = {f"{a}->{b}.enabled" for a in aliases for b in aliases if a != b}
    assert pairs <= lines.keys()
    assert len(enabled(lines)) == 12


def test_payload_never_shares_a_connector_with_journals() -> None:
    lines = settings(SITES)
    for source, alias in enabled(lines):
        topics = lines[f"{source}->{alias}.topics"].split(",")
        payload = [topic for topic in topics if topic.startswith("chunks-to-")]
        assert payload == (topics if "-payload-of-" in alias else [])
    groups = {f"{alias}.group.id" for alias in lines["clusters"].split(", ") if "-payload-of-" in alias}
    assert len({lines[group] for group in groups}) == 6, "one Connect group each, or they would share work"


def test_worker_settings_stand_under_every_alias() -> None:
    """Without the target's alias in front they are silently ignored."""
    lines = settings(SITES)
    for alias in lines["clusters"].split(", "):
        assert lines[f"{alias}.exactly.once.source.support"] == "disabled"
        assert lines[f"{alias}.plugin.discovery"] == "service_load"
        largest = 8 * 1024 * 1024 if "-payload-of-" in alias else JOURNAL_RECORD_BYTES_MAX
        assert int(lines[f"{alias}.producer.max.request.size"]) > largest
        assert int(lines[f"{alias}.producer.buffer.memory"]) >= int(lines[f"{alias}.producer.max.request.size"])


@pytest.mark.parametrize(("count", "session_ms"), [(2, 6000), (3, 15000)])
def test_workers_of_many_flows_look_up_less_often(count: int, session_ms: int) -> None:
    """A worker that misses two beats is still in its group, and one read of its topics ends before its request does."""
    lines = settings(SITES[:count])
    for alias in lines["clusters"].split(", "):
        assert int(lines[f"{alias}.session.timeout.ms"]) == session_ms
        assert int(lines[f"{alias}.heartbeat.interval.ms"]) * 3 <= session_ms
        assert lines[f"{alias}.retry.backoff.ms"] == lines[f"{alias}.retry.backoff.max.ms"]
        assert int(lines[f"{alias}.retry.backoff.ms"]) < int(lines[f"{alias}.heartbeat.interval.ms"])
        assert int(lines[f"{alias}.fetch.max.wait.ms"]) < 30_000


def test_records_keep_their_order_without_transactions() -> None:
    """Connect's own default is one request in flight and no idempotence."""
    lines = settings(SITES)
    for alias in lines["clusters"].split(", "):
        assert lines[f"{alias}.producer.enable.idempotence"] == "true"
        assert lines[f"{alias}.producer.max.in.flight.requests.per.connection"] == "5"


def test_every_flow_says_how_its_tasks_are() -> None:
    found = mirror.status_topics(mesh(SITES))
    assert set(found) == set(SITES)
    lines = settings(SITES)
    kept = {value for key, value in lines.items() if key.endswith(".status.storage.topic")}
    assert {topic for topics in found.values() for topic in topics if "-payload-of-" in topic} == kept
    assert all(len(topics) == 4 for topics in found.values()), "journals and payload of two peers"


def test_every_flow_hears_what_its_tasks_shall_do() -> None:
    """MirrorMaker calls the topic so by itself where nothing is said: of journals."""
    lines = settings(SITES)
    told = {mirror.config_topic(topic) for topics in mirror.status_topics(mesh(SITES)).values() for topic in topics}
    own = {value for key, value in lines.items() if key.endswith(".config.storage.topic")}
    assert told == own | {f"mm2-configs.{site}.internal" for site in SITES}


def test_the_default_policy_and_no_checkpoints() -> None:
    lines = settings(SITES)
    assert not [key for key in lines if "replication.policy" in key]
    assert lines["emit.checkpoints.enabled"] == lines["emit.heartbeats.enabled"] == "false"
    assert lines["emit.offset-syncs.enabled"] == "false"
    assert not [key for key in lines if "offset-syncs.topic" in key], "MirrorSourceConnector refuses to start with it"
    assert lines["refresh.topics.interval.seconds"] == "30"


def test_copies_are_the_topics_that_are_provisioned() -> None:
    names = [Site(site) for site in SITES]
    for site in names:
        copies = {topic.name for topic in wanted(site, names) if "." in topic.name}
        carried = {remote(Site(f.source), topic) for f in mesh(SITES) if f.target == site for topic in f.topics}
        assert carried == copies
        assert f"{next(n for n in names if n != site)}.{chunks_to(site)}" in copies


def test_heap_grows_with_the_flows() -> None:
    """One that idles with 20 flows keeps 268 MB, and beside that there must be room for what it moves."""
    for flows in (2, 6, 20, 58):
        _, most, young, *_ = mirror.heap(flows)
        each = mirror.sizes(flows)
        old = int(most[4:-1]) - int(young[4:-1])
        assert old >= 60 + flows * (8 + (each.payload_tasks * each.buffer_bytes + (4 << 20) >> 20))
        assert int(young[4:-1]) >= flows * each.payload_tasks * 2 * each.fetch_bytes >> 20
    assert mirror.heap(58)[1] == "-Xmx1984m"


def test_a_broker_listens_on_loopback_only_and_takes_large_records(tmp_path: Path) -> None:
    lines = broker.server_properties(Broker("T1_A", tmp_path, 1234, 1235))
    assert {address.split("//")[1].split(":")[0] for address in lines["listeners"].split(",")} == {"127.0.0.1"}
    assert int(lines["message.max.bytes"]) > 8 * 1024 * 1024
    assert lines["auto.create.topics.enable"] == "false"
    assert lines["log.retention.ms"] == "-1"


def test_properties_are_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    broker.write_properties(path, {"a": "1", "b": "2"})
    broker.write_properties(path, {"a": "3"})
    assert path.read_text() == "a=3\n"
    assert [p.name for p in tmp_path.iterdir()] == ["server.properties"]
