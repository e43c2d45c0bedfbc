"""Topics created and checked on a real broker: what is asked is there, and every departure is named with its mend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from streams.core import topics
from streams.core.names import Site
from streams.errors import NeverWorks, NotFound, Temporary
from streams.kafka import admin, client
from streams.kafka.admin import check, create_topics, faults, provision
from streams.settings import Settings, SiteEntry

pytestmark = pytest.mark.sites
A, B = Site("T1_A"), Site("T2_B")


@pytest.fixture
def empty(real: Settings) -> Iterator[Settings]:
    """The broker without any topic of ours, before and after."""
    _remove(real)
    yield real
    _remove(real)


def _remove(settings: Settings, *names: str) -> None:
    gone = names or [n for n in admin.partition_counts(settings, A) if not n.startswith("__")]
    kafka = client.admin(settings, A)
    for future in kafka.delete_topics(list(gone), operation_timeout=20).values() if gone else ():
        future.result()
    while set(gone) & admin.partition_counts(settings, A).keys():
        time.sleep(0.02)


def _set(settings: Settings, topic: str, **values: str) -> None:
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in values.items()
    ]
    kafka = client.admin(settings, A)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for future in kafka.incremental_alter_configs([resource]).values():
        future.result()
    while any(_settings_of(settings, topic)[name.replace("_", ".")] != value for name, value in values.items()):
        time.sleep(0.02)


def _settings_of(settings: Settings, topic: str) -> dict[str, Any]:
    kafka = client.admin(settings, A)
    (future,) = kafka.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result().items()}


def test_every_wanted_topic_is_created_once_and_the_check_agrees(empty: Settings) -> None:
    assert faults(empty, A) == ["none of the 21 topics exists at T1_A; run `transfer2go topic create`"]
    (first,) = provision(empty, [A])
    wanted = {topic.name for topic in topics.wanted(A, [B])}
    assert set(first.created) == wanted
    assert {admin.partition_counts(empty, A)[name] for name in wanted} == {4}
    check(empty, [A])
    (again,) = provision(empty, [A])
    assert (again.created, again.mended, again.kept) == ((), (), len(wanted))
    payload = _settings_of(empty, "T2_B.chunks-to-T1_A")
    assert payload["retention.bytes"] == str(5 * empty.registry.credit_bytes)
    assert (payload["segment.bytes"], payload["retention.ms"]) == (str(64 << 20), "-1")
    assert int(payload["max.message.bytes"]) >= 8 << 20
    journal = _settings_of(empty, "transfers")
    assert (journal["cleanup.policy"], journal["retention.ms"], journal["retention.bytes"]) == ("delete", "-1", "-1")


def test_a_missing_topic_is_named_and_made(empty: Settings) -> None:
    provision(empty, [A])
    _remove(empty, "replicas")
    with pytest.raises(NeverWorks, match=r"^topic replicas does not exist at T1_A; run `transfer2go topic create`$"):
        check(empty, [A])
    assert [p.created for p in provision(empty, [A])] == [("replicas",)]
    check(empty, [A])


def test_settings_that_lose_records_are_named_and_mended(empty: Settings) -> None:
    provision(empty, [A])
    _set(empty, "transfers", cleanup_policy="compact", retention_ms="3600000")
    _set(empty, "chunks-to-T2_B", retention_bytes="1000000", segment_bytes=str(1 << 30))
    assert faults(empty, A) == [
        "topic transfers at T1_A has cleanup.policy=compact, expected delete; run `transfer2go topic create`",
        "topic transfers at T1_A has retention.ms=3600000, expected -1; run `transfer2go topic create`",
        "topic chunks-to-T2_B at T1_A has retention.bytes=1000000, expected 335544320 or more; "
        "run `transfer2go topic create`",
        "topic chunks-to-T2_B at T1_A has segment.bytes=1073741824, expected 67108864 or less; "
        "run `transfer2go topic create`",
    ]
    with pytest.raises(NeverWorks, match=r"and 3 more at T1_A"):
        check(empty, [A])
    (mended,) = provision(empty, [A])
    assert set(mended.mended) == {"transfers", "chunks-to-T2_B"}
    check(empty, [A])


def test_more_room_than_asked_is_fine_and_more_credit_is_not(empty: Settings) -> None:
    provision(empty, [A])
    _set(empty, "chunks-to-T2_B", retention_bytes="-1", segment_bytes="1048576", max_message_bytes="20000000")
    check(empty, [A])
    richer = replace(empty, registry=replace(empty.registry, credit_bytes=2 * empty.registry.credit_bytes))
    with pytest.raises(
        NeverWorks, match=r"topic .*chunks-to-.* retention\.bytes=335544320, expected 671088640 or more"
    ):
        check(richer, [A])


def test_another_partition_count_is_refused_by_check_and_by_creation(empty: Settings) -> None:
    kafka = client.admin(empty, A)
    kafka.create_topics([NewTopic("manifests", 3, 1)])["manifests"].result()
    while "manifests" not in admin.partition_counts(empty, A):
        time.sleep(0.02)
    with pytest.raises(NeverWorks, match="topic manifests has 3 partitions, expected 4"):
        provision(empty, [A])
    assert any("topic manifests at T1_A has 3 partitions, expected 4" in fault for fault in faults(empty, A))


def test_other_topics_are_made_with_their_own_settings(empty: Settings) -> None:
    changelog = ("t2g-worker-v1-transfers-changelog", 4, {"cleanup.policy": "compact"})
    assert create_topics(empty, A, [changelog]) == (changelog[0],)
    assert create_topics(empty, A, [changelog]) == ()
    assert _settings_of(empty, changelog[0])["cleanup.policy"] == "compact"


def test_more_replicas_than_brokers_is_said(empty: Settings) -> None:
    entry = replace(empty.entry(A), replication=3)
    settings = replace(empty, registry=replace(empty.registry, sites=(entry, empty.entry(B))))
    with pytest.raises((NeverWorks, Temporary), match=r"creating topic .* failed.*replication factor"):
        provision(settings, [A])


def test_a_site_that_is_away_or_unknown_is_said(empty: Settings) -> None:
    away = replace(empty.registry, sites=(SiteEntry(A, "127.0.0.1:9"), empty.entry(B)))
    with pytest.raises(Temporary, match=r"cluster of T1_A, 127\.0\.0\.1:9"):
        check(replace(empty, registry=away), [A])
    with pytest.raises(NotFound, match="no site T9_Z"):
        check(empty, [Site("T9_Z")])
