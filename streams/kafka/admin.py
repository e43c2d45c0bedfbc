"""The topics of a site: created with what they promise, and checked before anything relies on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from streams import waits
from streams.core.names import Site
from streams.core.policy import JOURNAL_RECORD_BYTES_MAX
from streams.core.topics import Retention, Topic, wanted
from streams.errors import NeverWorks, Temporary
from streams.kafka import client
from streams.settings import Settings

ANSWER_S = 30.0
SEGMENT_BYTES = 64 * 1024 * 1024
"""Retention deletes closed segments only: small ones keep payload topics near their bound."""
CREDITS_KEPT = 5
"""Payload kept per partition, in credits: what is in flight here and in the mirror, what lags, and the open segment."""
_COPIES_SAFE = 3
"""Copies of a topic from which on two must have a record before it is acknowledged."""
_KEPT_FOR_EVER = frozenset({"cleanup.policy", "retention.ms", "retention.bytes"})
ANY_TIME = 2**63 - 1
"""Of `message.timestamp.after.max.ms`: however far ahead of the broker's clock a record is dated."""

T = TypeVar("T")
WantedTopic = tuple[str, int, Mapping[str, str]]
"""A topic to create: name, partitions, topic settings."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What `provision` did at a site: topics created, topics whose settings were put right, topics found in order."""

    site: Site
    created: tuple[str, ...]
    mended: tuple[str, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster: the id it was formatted with ("" where brokers tell none), its brokers, and of each topic how many
    partitions it has and on how many brokers a partition is."""

    id: str
    brokers: int
    partitions: Mapping[str, int]
    replication: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Promise:
    """A topic setting: what it is created with, and what is accepted when found."""

    setting: str
    value: str
    holds: Callable[[str], bool]
    expected: str


def _is(setting: str, value: str) -> _Promise:
    return _Promise(setting, value, lambda found: found == value, value)


def _at_least(setting: str, value: int, least: int, *, unbounded: str = "") -> _Promise:
    return _Promise(setting, str(value), lambda found: found == unbounded or int(found) >= least, f"{least} or more")


def _dated(topic: Topic) -> tuple[_Promise, ...]:
    """Whose clock its records carry. A site's own journals: its broker's, so that nobody can back-date a record.

    What a mirror writes keeps its date. A broker refuses one that is more than an hour ahead of its own clock unless it
    is told otherwise, and one clock that is wrong would stop every mirror that reads from it.
    """
    if topic.broker_dated:
        return (_is("message.timestamp.type", "LogAppendTime"),)
    return (
        _is("message.timestamp.type", "CreateTime"),
        _at_least("message.timestamp.after.max.ms", ANY_TIME, ANY_TIME),
    )


def _survives(topic: Topic, replication: int) -> tuple[_Promise, ...]:
    """Of what must not be lost once it is acknowledged: two brokers have it, or the disk of the one does.

    A broker whose machine stops loses what only the system's cache had: a promise to keep a file would be forgotten.
    """
    if not topic.survives_its_broker:
        return ()
    if replication >= _COPIES_SAFE:
        return (_at_least("min.insync.replicas", 2, 2),)
    return (_Promise("flush.messages", "1", lambda found: int(found) == 1, "1"),)


def _promises(settings: Settings, topic: Topic, replication: int) -> tuple[_Promise, ...]:
    registry = settings.registry
    forever = (_is("cleanup.policy", "delete"), _is("retention.ms", "-1"), *_dated(topic))
    if topic.retention is Retention.JOURNAL:
        return (
            *forever,
            *_survives(topic, replication),
            _is("retention.bytes", "-1"),
            _at_least("max.message.bytes", JOURNAL_RECORD_BYTES_MAX, 1024 * 1024),
        )
    kept = CREDITS_KEPT * registry.credit_bytes
    return (
        *forever,
        _at_least("retention.bytes", kept, kept, unbounded="-1"),
        _Promise("segment.bytes", str(SEGMENT_BYTES), lambda n: int(n) <= SEGMENT_BYTES, f"{SEGMENT_BYTES} or less"),
        _at_least("max.message.bytes", client.CHUNK_RECORD_BYTES_MAX, registry.payload_bytes + 1024 * 1024),
    )


def topic_settings(settings: Settings, topic: Topic, replication: int = 1) -> dict[str, str]:
    """What a topic is created with; `replication`: on how many brokers it is."""
    return {promise.setting: promise.value for promise in _promises(settings, topic, replication)}


def needed(settings: Settings, site: Site) -> list[Topic]:
    return wanted(site, settings.registry.peers_of(site), auditor=settings.entry(site).auditor)


def _all_wanted(settings: Settings, site: Site, brokers: int) -> list[WantedTopic]:
    partitions, replication = settings.registry.partitions, _replication(settings, site, brokers)
    return [(topic.name, partitions, topic_settings(settings, topic, replication)) for topic in needed(settings, site)]


def _replication(settings: Settings, site: Site, brokers: int) -> int:
    """On how many brokers of a cluster a topic is made."""
    return settings.entry(site).replication or min(3, brokers)


def provision(settings: Settings, sites: Iterable[Site] | None = None) -> tuple[Provisioned, ...]:
    """Create every topic that is missing at the sites (default: all), and put wrong settings right.

    Idempotent; sites in parallel. Temporary when a cluster does not answer, NeverWorks when a topic that is there has
    another partition count: that is fixed for a federation's life.
    """
    chosen = list(settings.registry.names if sites is None else sites)

    def one(site: Site) -> Provisioned:
        topics = _all_wanted(settings, site, cluster(settings, site).brokers)
        created = create_topics(settings, site, topics)
        wrong = _wrong_settings(settings, site) if len(created) < len(topics) else {}
        if wrong:
            _alter(settings, site, wrong)
        return Provisioned(site, created, tuple(wrong), len(topics) - len(created) - len(wrong))

    return tuple(_each(one, chosen))


def check(settings: Settings, sites: Iterable[Site] | None = None) -> None:
    """NeverWorks with one line if any topic of the sites (default: all) is missing or not what it must be."""
    chosen = list(settings.registry.names if sites is None else sites)
    for site, found in zip(chosen, _each(lambda site: faults(settings, site), chosen), strict=True):
        if found:
            more = f" (and {len(found) - 1} more at {site})" if len(found) > 1 else ""
            raise NeverWorks(f"{found[0]}{more}")


def faults(settings: Settings, site: Site) -> list[str]:
    """Every way in which the topics at `site` are not what they must be, a line each: topic, found, expected, mend."""
    names = [topic.name for topic in needed(settings, site)]
    found = cluster(settings, site)
    counts, partitions = found.partitions, settings.registry.partitions
    mend = "run `transfer2go topic create`"
    missing = [name for name in names if name not in counts]
    lines = [f"topic {name} does not exist at {site}; {mend}" for name in missing]
    if len(missing) == len(names):
        lines = [f"none of the {len(names)} topics exists at {site}; {mend}"]
    lines += [
        f"topic {name} at {site} has {counts[name]} partitions, expected {partitions} for the federation's life; "
        "set partitions in sites.toml to what all sites have, or remove the topic and run `transfer2go topic create`"
        for name in names
        if counts.get(name, partitions) != partitions
    ]
    for name, wrong in _wrong_settings(settings, site, found).items():
        lines += [f"topic {name} at {site} has {p.setting}={is_}, expected {p.expected}; {mend}" for p, is_ in wrong]
    return lines


def create_topics(settings: Settings, site: Site, topics: Sequence[WantedTopic]) -> tuple[str, ...]:
    """Create those that are missing, and wait until each has a leader; the names that were created.

    NeverWorks when one is there with another partition count.
    """
    admin, complaints = client.make_admin(settings, site)
    where = complaints.where
    found = client.metadata(admin, complaints)
    counts = {name: len(topic.partitions) for name, topic in found.topics.items()}
    for name, partitions, _ in topics:
        if counts.get(name, partitions) != partitions:
            raise NeverWorks(
                f"topic {name} has {counts[name]} partitions, expected {partitions}",
                where=where,
                next="partitions are fixed for a federation's life: correct sites.toml, or remove the topic",
            )
    missing = [topic for topic in topics if topic[0] not in counts]
    if not missing:
        return ()
    replication = _replication(settings, site, len(found.brokers))
    safe = {"min.insync.replicas": "2"} if replication >= _COPIES_SAFE else {}
    new = [
        NewTopic(name, num_partitions=partitions, replication_factor=replication, config={**config, **safe})
        for name, partitions, config in missing
    ]
    futures = admin.create_topics(new, operation_timeout=ANSWER_S, request_timeout=ANSWER_S)
    created = [name for name, future in futures.items() if _was_created(future, name, where)]
    _wait_for_leaders(admin, [name for name, _, _ in missing], complaints)
    return tuple(created)


def partition_counts(settings: Settings, site: Site) -> dict[str, int]:
    return dict(cluster(settings, site).partitions)


def cluster(settings: Settings, site: Site) -> Cluster:
    """The cluster that answers at the site's bootstrap addresses."""
    found = client.metadata(*client.make_admin(settings, site))
    return Cluster(
        found.cluster_id or "",
        len(found.brokers),
        {name: len(topic.partitions) for name, topic in found.topics.items()},
        {name: min((len(p.replicas) for p in t.partitions.values()), default=0) for name, t in found.topics.items()},
    )


def kept_otherwise(settings: Settings, site: Site) -> list[str]:
    """Journals at `site` that are not kept for ever, a line each; topics that do not exist are left out.

    NotAllowed or NeverWorks where the brokers do not tell.
    """
    journals = {topic.name for topic in needed(settings, site) if topic.retention is Retention.JOURNAL}
    return [
        f"topic {name} at {site} has {promise.setting}={found}, expected {promise.expected}"
        for name, wrong in _wrong_settings(settings, site).items()
        for promise, found in wrong
        if name in journals and promise.setting in _KEPT_FOR_EVER
    ]


def _was_created(future: Future[Any], name: str, where: str) -> bool:
    try:
        future.result()
    except KafkaException as e:
        if e.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise client.error_of(e.args[0], f"creating topic {name}", where) from e
    return True


def _wait_for_leaders(admin: AdminClient, names: list[str], complaints: client.Complaints) -> None:
    deadline = time.monotonic() + ANSWER_S
    while True:
        known = client.metadata(admin, complaints).topics
        without = [n for n in names if n not in known or any(p.leader < 0 for p in known[n].partitions.values())]
        if not without:
            return
        if time.monotonic() > deadline:
            raise Temporary(f"topic {without[0]} was created and has no leader yet", complaints.where, "try again")
        time.sleep(0.05)


def _wrong_settings(
    settings: Settings, site: Site, known: Cluster | None = None
) -> dict[str, list[tuple[_Promise, str]]]:
    """By topic: the promises its settings break, with what was found. Topics that do not exist are left out."""
    known = cluster(settings, site) if known is None else known
    kinds = {topic.name: topic for topic in needed(settings, site) if topic.name in known.partitions}
    if not kinds:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in kinds]
    broken: dict[str, list[tuple[_Promise, str]]] = {}
    admin, complaints = client.make_admin(settings, site)  # futures of a client that is gone fail: `admin` keeps it
    for resource, future in admin.describe_configs(resources, request_timeout=ANSWER_S).items():
        found = client.answer(future, complaints, f"asking for the settings of {resource.name}")
        for promise in _promises(settings, kinds[resource.name], known.replication[resource.name]):
            if promise.setting not in found:
                raise NeverWorks(
                    f"the brokers know no topic setting {promise.setting}",
                    where=complaints.where,
                    next="Kafka 3.6 or newer is needed",
                )
            value = str(found[promise.setting].value)
            if not promise.holds(value):
                broken.setdefault(resource.name, []).append((promise, value))
    return broken


def _alter(settings: Settings, site: Site, wrong: Mapping[str, list[tuple[_Promise, str]]]) -> None:
    """Put wrong settings right, and wait until the brokers say so: they hear of a change after the controller."""
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            name,
            incremental_configs=[
                ConfigEntry(p.setting, p.value, incremental_operation=AlterConfigOpType.SET) for p, _ in promises
            ],
        )
        for name, promises in wrong.items()
    ]
    admin, complaints = client.make_admin(settings, site)
    for resource, future in admin.incremental_alter_configs(resources, request_timeout=ANSWER_S).items():
        client.answer(future, complaints, f"changing the settings of {resource.name}")
    deadline = time.monotonic() + ANSWER_S
    while still := _wrong_settings(settings, site):
        if time.monotonic() > deadline:
            raise Temporary(f"topic {min(still)} was changed and does not show it yet", complaints.where, "try again")
        time.sleep(0.05)


def _each(one: Callable[[Site], T], sites: Sequence[Site]) -> list[T]:
    def waited(site: Site) -> T:
        with waits.on(f"the brokers of {site} to make its topics and say their settings"):
            return one(site)

    with ThreadPoolExecutor(max_workers=max(1, len(sites)), thread_name_prefix="t2g-admin") as pool:
        return list(pool.map(waited, sites))
