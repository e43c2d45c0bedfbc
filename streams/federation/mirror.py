"""MirrorMaker 2 in dedicated mode: the properties that carry journals and payload between sites.

Only names and settings live here; supervisor.py runs the process. Each line follows a measured rule: worker
settings count only with the target's alias in front, flows are listed one by one, names follow the default policy.

A flow is two connectors, one for journals and one for payload: through a single one, a lone fact waits behind
whatever payload its task has fetched (a p50 of 220 ms against 39 ms beside a flood). One process may not hold two
connectors from A to B, but only the source's alias enters a topic's name, so payload goes to a second alias of B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from streams.core.names import Site
from streams.core.policy import JOURNAL_RECORD_BYTES_MAX
from streams.core.topics import chunks_to, mirrored
from streams.federation.broker import RECORD_BYTES_MAX
from streams.federation.java import LIGHT

MAIN_CLASS = "org.apache.kafka.connect.mirror.MirrorMaker"
_MIB = 1024 * 1024
IDLE_WAIT_MS = "10000"
"""A broker answers at once when there is news; without, each task's reader asks again after so long. Each asking costs
both some 0.2 ms."""
_WORKER_WAIT_MS = "25000"
"""The same of the workers' own readers, three a connector, of one partition each; their requests may last 30 s."""
_JOURNAL_BUFFER_BYTES = 4 * _MIB
_WORKERS_BYTES = 10 * _MIB
"""Of a flow: two Connect workers with five readers and three writers each (seen: 8 MB)."""
_FEW_FLOWS = 2
_FACTORS = (
    "replication.factor",
    "config.storage.replication.factor",
    "offset.storage.replication.factor",
    "status.storage.replication.factor",
    "checkpoints.topic.replication.factor",
    "heartbeats.topic.replication.factor",
)


@dataclass(frozen=True, slots=True)
class Flow:
    """Topics of `source` that are copied to `target`, where each is called `source.topic`."""

    source: str
    target: str
    topics: tuple[str, ...]

    @property
    def payload(self) -> tuple[str, ...]:
        return tuple(topic for topic in self.topics if topic == chunks_to(Site(self.target)))

    @property
    def journals(self) -> tuple[str, ...]:
        return tuple(topic for topic in self.topics if topic not in self.payload)

    @property
    def payload_alias(self) -> str:
        """The second name under which the target is known, for this flow's payload alone."""
        return f"{self.target}-payload-of-{self.source}"


def mesh(auditors: Mapping[Site, bool]) -> list[Flow]:
    """Every ordered pair of sites; `auditors` says of each whether it keeps its peers' chunk events too."""
    return [
        Flow(source, target, mirrored(target, target_is_auditor=audits))
        for target, audits in auditors.items()
        for source in auditors
        if source != target
    ]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a flow may use of the memory of its mirror process."""

    payload_tasks: int
    fetch_bytes: int
    buffer_bytes: int
    """Of a payload producer: at least a record. What it took once it keeps."""

    @property
    def kept_bytes(self) -> int:
        """Of a flow, while its process lives: workers and clients, and the producers' buffers."""
        return _WORKERS_BYTES + self.payload_tasks * self.buffer_bytes + _JOURNAL_BUFFER_BYTES

    @property
    def moving_bytes(self) -> int:
        """Of a flow, for milliseconds: what its payload consumers have fetched, and fetch."""
        return self.payload_tasks * 2 * self.fetch_bytes


@dataclass(frozen=True, slots=True)
class Beats:
    """How often the workers of a mirror look up while nothing is to do: two threads each."""

    backoff_ms: int
    heartbeat_ms: int
    session_ms: int
    """So long a killed mirror's place in its groups holds up the next one."""


def beats(flows: int) -> Beats:
    """Of a process with so many flows: while many of them start, a killed mirror's sessions run out anyway."""
    return Beats(1000, 2000, 6000) if flows <= _FEW_FLOWS else Beats(3000, 5000, 15000)


def sizes(flows: int) -> Sizes:
    """Of a process with so many flows: many of them share what a few may have each."""
    if flows <= _FEW_FLOWS:
        return Sizes(payload_tasks=2, fetch_bytes=8 * _MIB, buffer_bytes=16 * _MIB)
    return Sizes(payload_tasks=1, fetch_bytes=4 * _MIB, buffer_bytes=10 * _MIB)


def heap(flows: int) -> tuple[str, ...]:
    """Flags of a mirror process: what `flows` keep, what they move, and what the framework needs.

    Batches live for milliseconds; where the young generation is too small for them they crowd the old one, and the
    whole heap is collected three times a second. The old one must hold what is kept: with 256 MB a mirror of 20 flows
    collected all the time, and ended in the middle of 200 MB to four sites.
    """
    each = sizes(flows)
    kept = 128 + flows * each.kept_bytes // _MIB
    moving = max(128, flows * each.moving_bytes // _MIB)
    return ("-Xms64m", f"-Xmx{kept + moving}m", f"-Xmn{moving}m", "-XX:SurvivorRatio=2", *LIGHT)


def properties(bootstraps: Mapping[str, str], flows: Sequence[Flow], *, replication: int = 1) -> dict[str, str]:
    """Settings of one mirror process for `flows`; `bootstraps` maps a site to its servers."""
    aliases = {site: bootstraps[site] for flow in flows for site in (flow.source, flow.target)}
    lines = dict.fromkeys(_FACTORS, str(replication)) | {
        "emit.heartbeats.enabled": "false",
        "emit.checkpoints.enabled": "false",
        "emit.offset-syncs.enabled": "false",  # refused beside any "offset-syncs.topic" setting
        "heartbeats.replication.enabled": "false",
        "sync.group.offsets.enabled": "false",
        "sync.topic.acls.enabled": "false",
        "sync.topic.configs.enabled": "false",
        "refresh.groups.enabled": "false",
        "refresh.topics.interval.seconds": "30",  # each connector asks both clusters for all their topics
        "plugin.discovery": "service_load",  # the usual scan of every class costs 5 s and 300 MB
    }
    each, often = sizes(len(flows)), beats(len(flows))
    for site in aliases:
        lines |= _worker(site, often) | _journal_clients(site, each)
    for flow in flows:
        lines |= _connector(flow.source, flow.target, flow.journals, tasks=1)
        if flow.payload:
            aliases[flow.payload_alias] = bootstraps[flow.target]
            lines |= _worker(flow.payload_alias, often) | _payload_clients(flow, each)
            lines |= _group_of_its_own(flow.payload_alias)
            lines |= _connector(flow.source, flow.payload_alias, flow.payload, tasks=each.payload_tasks)
    lines |= {f"{alias}.bootstrap.servers": servers for alias, servers in aliases.items()}
    for source in aliases:
        for target in aliases:
            if source != target:
                lines.setdefault(f"{source}->{target}.enabled", "false")
    return {"clusters": ", ".join(aliases), **lines}


def _connector(source: str, alias: str, topics: Sequence[str], *, tasks: int) -> dict[str, str]:
    flow = f"{source}->{alias}"
    return {f"{flow}.enabled": "true", f"{flow}.topics": ",".join(topics), f"{flow}.tasks.max": str(tasks)}


def _worker(alias: str, often: Beats) -> dict[str, str]:
    """No transactions: every reader bears repeats, since each record has its writer's number.

    A transaction costs six writes a poll, ends its task where it ends too late, and a broker that stood still longer
    than its session may drop the marker of its end: it is open for ever then, and no task of the flow starts again.
    """
    return {
        f"{alias}.plugin.discovery": "service_load",
        f"{alias}.exactly.once.source.support": "disabled",
        f"{alias}.offset.flush.interval.ms": "1000",  # what a mirror that is killed repeats
        f"{alias}.producer.enable.idempotence": "true",
        f"{alias}.producer.max.in.flight.requests.per.connection": "5",
        f"{alias}.offset.storage.partitions": "1",
        f"{alias}.status.storage.partitions": "1",
        f"{alias}.scheduled.rebalance.max.delay.ms": "0",
        f"{alias}.fetch.max.wait.ms": _WORKER_WAIT_MS,
        f"{alias}.retry.backoff.ms": str(often.backoff_ms),
        f"{alias}.retry.backoff.max.ms": str(often.backoff_ms),
        f"{alias}.session.timeout.ms": str(often.session_ms),
        f"{alias}.heartbeat.interval.ms": str(often.heartbeat_ms),
        f"{alias}.producer.max.request.size": str(RECORD_BYTES_MAX),
    }


def _journal_clients(site: str, each: Sizes) -> dict[str, str]:
    """A lone fact goes at once; a batch of them shares what is on its way."""
    return {
        f"{site}.producer.linger.ms": "0",
        f"{site}.producer.batch.size": "131072",
        f"{site}.producer.buffer.memory": str(_JOURNAL_BUFFER_BYTES),
        f"{site}.producer.max.request.size": str(JOURNAL_RECORD_BYTES_MAX + _MIB),
        f"{site}.consumer.max.poll.records": "2000",
        f"{site}.consumer.fetch.max.wait.ms": IDLE_WAIT_MS,
        f"{site}.consumer.fetch.max.bytes": str(each.fetch_bytes),
        f"{site}.consumer.max.partition.fetch.bytes": str(_MIB),
    }


def _payload_clients(flow: Flow, each: Sizes) -> dict[str, str]:
    """Few large requests. A record larger than a limit here still passes, alone in its request."""
    alias = flow.payload_alias
    consumer = f"{flow.source}->{alias}.source.consumer"  # without "source." the source's journal settings win
    return {
        f"{alias}.producer.linger.ms": "5",
        f"{alias}.producer.batch.size": str(_MIB),
        f"{alias}.producer.buffer.memory": str(each.buffer_bytes),
        f"{consumer}.fetch.max.bytes": str(each.fetch_bytes),
        f"{consumer}.fetch.max.wait.ms": IDLE_WAIT_MS,
        f"{alias}.consumer.fetch.max.wait.ms": IDLE_WAIT_MS,
        f"{consumer}.max.partition.fetch.bytes": str(4 * _MIB),
    }


def _group_of_its_own(alias: str) -> dict[str, str]:
    """Named after the source alone by default, which both connectors of a flow share."""
    names = {"config": "mm2-configs", "offset": "mm2-offset", "status": "mm2-status"}
    return {f"{alias}.group.id": alias} | {
        f"{alias}.{kind}.storage.topic": f"{name}.{alias}.internal" for kind, name in names.items()
    }


def config_topic(status_topic: str) -> str:
    """Where the worker whose tasks are told of there hears what it shall run."""
    return status_topic.replace("mm2-status.", "mm2-configs.", 1)


def status_topics(flows: Iterable[Flow]) -> dict[str, frozenset[str]]:
    """Where Connect says at each target how the tasks of its flows are."""
    found: dict[str, set[str]] = {}
    for flow in flows:
        for alias in (flow.source, flow.payload_alias) if flow.payload else (flow.source,):
            found.setdefault(flow.target, set()).add(f"mm2-status.{alias}.internal")
    return {target: frozenset(topics) for target, topics in found.items()}
