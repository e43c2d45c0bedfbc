"""MirrorMaker 2 in dedicated mode: the properties that carry journals and payload between sites.

Only names and settings live here; supervisor.py runs the process. Each line follows a measured rule: worker
settings count only with the target's alias in front, flows are listed one by one, names follow the default policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from streams.federation.broker import RECORD_BYTES_MAX

MAIN_CLASS = "org.apache.kafka.connect.mirror.MirrorMaker"
HEAP = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC")
ONE_NODE_FACTORS = (
    "replication.factor",
    "config.storage.replication.factor",
    "offset.storage.replication.factor",
    "status.storage.replication.factor",
    "offset-syncs.topic.replication.factor",
    "checkpoints.topic.replication.factor",
    "heartbeats.topic.replication.factor",
)


@dataclass(frozen=True, slots=True)
class Flow:
    """Topics of `source` that are copied to `target`, where each is called `source.topic`."""

    source: str
    target: str
    topics: tuple[str, ...]


def properties(bootstraps: Mapping[str, str], flows: Sequence[Flow]) -> dict[str, str]:
    """Settings of one mirror process for `flows`; `bootstraps` maps a site to its servers."""
    used = sorted({flow.source for flow in flows} | {flow.target for flow in flows})
    lines = {"clusters": ", ".join(used)}
    for site in used:
        lines[f"{site}.bootstrap.servers"] = bootstraps[site]
    for key in ONE_NODE_FACTORS:
        lines[key] = "1"
    lines |= {
        "emit.heartbeats.enabled": "false",
        "emit.checkpoints.enabled": "false",
        "sync.group.offsets.enabled": "false",
        "sync.topic.acls.enabled": "false",
        "sync.topic.configs.enabled": "false",
        "refresh.groups.enabled": "false",
        "refresh.topics.interval.seconds": "5",
        "plugin.discovery": "service_load",  # the usual scan of every class costs 5 s and 100 MB
    }
    for site in used:
        lines |= _client_lines(site)
    for flow in flows:
        lines[f"{flow.source}->{flow.target}.enabled"] = "true"
        lines[f"{flow.source}->{flow.target}.topics"] = ",".join(flow.topics)
        lines[f"{flow.source}->{flow.target}.tasks.max"] = "2"
    for source in used:
        for target in used:
            if source != target:
                lines.setdefault(f"{source}->{target}.enabled", "false")
    return lines


def _client_lines(site: str) -> dict[str, str]:
    return {
        f"{site}.plugin.discovery": "service_load",
        f"{site}.exactly.once.source.support": "enabled",
        f"{site}.producer.transaction.timeout.ms": "10000",
        f"{site}.offset.flush.interval.ms": "5000",
        f"{site}.scheduled.rebalance.max.delay.ms": "0",
        f"{site}.session.timeout.ms": "6000",
        f"{site}.heartbeat.interval.ms": "1500",
        f"{site}.producer.linger.ms": "5",
        f"{site}.producer.batch.size": "262144",
        f"{site}.producer.max.request.size": str(RECORD_BYTES_MAX),
        f"{site}.consumer.max.poll.records": "2000",
        f"{site}.consumer.max.partition.fetch.bytes": "4194304",
    }


def topics_of(flows: Iterable[Flow], site: str) -> set[str]:
    """The mirrored copies that `flows` write at `site`."""
    return {f"{flow.source}.{topic}" for flow in flows if flow.target == site for topic in flow.topics}
