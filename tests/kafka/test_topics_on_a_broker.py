"""Topics created and checked on a real broker: what is asked is there, and every departure is named with its mend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from streams.auditing.replaying import EXIT_CLEAN, EXIT_INCOMPLETE, audit
from streams.core import topics
from streams.core.names import Site
from streams.errors import NeverWorks, NotFound, Temporary
from streams.kafka import admin, client
from streams.kafka.admin import check, create_topics, faults, provision
from streams.kafka.reader import LogReader, Record
from streams.kafka.replay import replay
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
    kafka = client.make_admin(settings, A)[0]
    for future in kafka.delete_topics(list(gone), operation_timeout=20).values() if gone else ():
        future.result()
    while set(gone) & admin.partition_counts(settings, A).keys():
        time.sleep(0.02)


def _set(settings: Settings, topic: str, **values: str) -> None:
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in values.items()
    ]
    kafka = client.make_admin(settings, A)[0]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for future in kafka.incremental_alter_configs([resource]).values():
        future.result()
    while any(_settings_of(settings, topic)[name.replace("_", ".")] != value for name, value in values.items()):
        time.sleep(0.02)


def _settings_of(settings: Settings, topic: str) -> dict[str, Any]:
    kafka = client.make_admin(settings, A)[0]
    (future,) = kafka.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result().items()}


def test_every_wanted_topic_is_created_once_and_the_check_agrees(empty: Settings) -> None:
    assert faults(empty, A) == ["none of the 28 topics exists at T1_A; run `transfer2go topic create`"]
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
    assert {name for name in wanted if _settings_of(empty, name)["flush.messages"] == "1"} == {"keeping"}
    journal = _settings_of(empty, "transfers")
    assert (journal["cleanup.policy"], journal["retention.ms"], journal["retention.bytes"]) == ("delete", "-1", "-1")


def test_what_must_survive_its_broker_is_on_its_disk_or_on_two(empty: Settings) -> None:
    def promised(name: str, replication: int) -> set[tuple[str, str]]:
        found = admin.topic_settings(empty, topics.Topic(name, topics.Retention.JOURNAL), replication)
        return {(key, value) for key, value in found.items() if key in ("flush.messages", "min.insync.replicas")}

    assert promised(topics.KEEPING, 1) == promised(topics.KEEPING, 2) == {("flush.messages", "1")}
    assert promised(topics.KEEPING, 3) == {("min.insync.replicas", "2")}
    assert promised(topics.remote(B, topics.KEEPING), 1) == promised(topics.MANIFESTS, 1) == set(), "no copy, no other"


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
    _set(empty, "keeping", flush_messages="1000")
    assert faults(empty, A) == [
        "topic keeping at T1_A has flush.messages=1000, expected 1; run `transfer2go topic create`",
        "topic transfers at T1_A has cleanup.policy=compact, expected delete; run `transfer2go topic create`",
        "topic transfers at T1_A has retention.ms=3600000, expected -1; run `transfer2go topic create`",
        "topic chunks-to-T2_B at T1_A has retention.bytes=1000000, expected 335544320 or more; "
        "run `transfer2go topic create`",
        "topic chunks-to-T2_B at T1_A has segment.bytes=1073741824, expected 67108864 or less; "
        "run `transfer2go topic create`",
    ]
    with pytest.raises(NeverWorks, match=r"and 4 more at T1_A"):
        check(empty, [A])
    (mended,) = provision(empty, [A])
    assert set(mended.mended) == {"keeping", "transfers", "chunks-to-T2_B"}
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
    kafka = client.make_admin(empty, A)[0]
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


AN_HOUR_MS, UNBOUNDED = 3_600_000, str(2**63 - 1)


def _put(settings: Settings, topic: str, at_ms: int, *values: bytes) -> str:
    """Records of one date in partition 0; why the broker refused the last of them, "" when it took it."""
    why: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": settings.entry(A).bootstrap, "linger.ms": 0, "log_level": 0})
    for value in values:
        producer.produce(topic, value, partition=0, timestamp=at_ms, on_delivery=lambda error, _: why.append(error))
        assert producer.flush(20) == 0
    return "" if why[-1] is None else why[-1].name()


def _read(settings: Settings, name: str, start: Any = "beginning") -> list[Record]:
    """What stands in a topic; a broker that has just made it may first say that it does not lead it."""
    for _ in range(50):
        try:
            return list(replay(settings, A, [name], start=start))
        except Temporary:
            time.sleep(0.2)
    return list(replay(settings, A, [name], start=start))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_a_copy_takes_what_a_clock_ahead_has_dated_and_refuses_it_without_the_setting(empty: Settings) -> None:
    provision(empty, [A])
    ahead_ms = _now_ms() + 2 * AN_HOUR_MS
    for name in ("T2_B.manifests", "chunks-to-T2_B", "T2_B.chunks-to-T1_A"):
        assert _put(empty, name, ahead_ms, b"x") == ""
        (record,) = _read(empty, name)
        assert record.timestamp_ms == ahead_ms
        _set(empty, name, message_timestamp_after_max_ms=str(AN_HOUR_MS))
        assert _put(empty, name, ahead_ms, b"x") == "INVALID_TIMESTAMP"
    assert len(faults(empty, A)) == 3
    provision(empty, [A])
    assert _put(empty, "T2_B.manifests", ahead_ms, b"x") == ""


def test_a_sites_own_journals_carry_the_brokers_time(empty: Settings) -> None:
    provision(empty, [A])
    before_ms = _now_ms()
    for at_ms in (before_ms - 24 * AN_HOUR_MS, before_ms + 24 * AN_HOUR_MS):
        assert _put(empty, "transfer-intents", at_ms, b"x") == ""
    times = [record.timestamp_ms for record in _read(empty, "transfer-intents")]
    assert all(abs(at_ms - before_ms) < 60_000 for at_ms in times)


def test_a_running_federation_gets_the_topics_and_the_times_it_lacks(empty: Settings) -> None:
    """As one looked before: no topic of decisions, every record dated by its writer."""
    before = {
        topic.name: {
            name: value
            for name, value in admin.topic_settings(empty, topic).items()
            if not name.startswith("message.timestamp")
        }
        for topic in topics.wanted(A, [B])
        if "intent-decisions" not in topic.name
    }
    create_topics(empty, A, [(name, 4, config) for name, config in before.items()])
    old_ms = _now_ms() - 24 * AN_HOUR_MS
    assert _put(empty, "manifests", old_ms, b"before") == ""
    told = faults(empty, A)
    assert "topic intent-decisions does not exist at T1_A; run `transfer2go topic create`" in told
    assert "topic T2_B.intent-decisions does not exist at T1_A; run `transfer2go topic create`" in told
    assert (
        "topic manifests at T1_A has message.timestamp.type=CreateTime, expected LogAppendTime; "
        "run `transfer2go topic create`" in told
    )
    with pytest.raises(NeverWorks):
        check(empty, [A])
    (done,) = provision(empty, [A])
    assert set(done.created) == {"intent-decisions", "T2_B.intent-decisions"}
    assert set(done.mended) == before.keys()
    check(empty, [A])
    assert _put(empty, "manifests", old_ms, b"behind") == ""
    assert [r.timestamp_ms > old_ms for r in _read(empty, "manifests")] == [False, True]


def test_what_is_found_by_time_across_the_change_and_among_equal_times(empty: Settings) -> None:
    """Dated by a clock two hours ahead before, by the broker behind; then many of one millisecond."""
    create_topics(empty, A, [("manifests", 4, {}), ("T2_B.manifests", 4, {"index.interval.bytes": "1"})])
    _set(empty, "manifests", message_timestamp_after_max_ms=UNBOUNDED)
    assert _put(empty, "manifests", _now_ms() + 2 * AN_HOUR_MS, b"ahead") == ""
    provision(empty, [A])
    since_ms = _now_ms()
    assert _put(empty, "manifests", 0, b"one", b"two") == ""
    found = _read(empty, "manifests", start=since_ms - 1000)
    assert [r.value for r in found] == [b"ahead", b"one", b"two"], "nothing behind is passed over"
    same_ms = _now_ms()
    assert _put(empty, "T2_B.manifests", same_ms - 5, b"before") == ""
    assert _put(empty, "T2_B.manifests", same_ms, *(b"%d" % n for n in range(50))) == ""
    with LogReader(empty, A) as reader:
        place = ("T2_B.manifests", 0)
        assert reader.offsets_at([place], same_ms)[place] == 1
        assert reader.offsets_at([place], same_ms - 1)[place] == 1
    producer = Producer({"bootstrap.servers": empty.entry(A).bootstrap, "linger.ms": 200, "log_level": 0})
    for _ in range(3):  # batches of many records, each of one time
        for number in range(100):
            producer.produce("manifests", b"%d" % number, partition=1)
        assert producer.flush(20) == 0
    batched = [r for r in _read(empty, "manifests") if r.partition == 1]
    with LogReader(empty, A) as reader:
        for at_ms in {r.timestamp_ms for r in batched}:
            first = next(r.offset for r in batched if r.timestamp_ms >= at_ms)
            assert reader.offsets_at([("manifests", 1)], at_ms)[("manifests", 1)] == first


def test_an_audit_refuses_journals_that_are_not_kept_for_ever(empty: Settings) -> None:
    provision(empty, [A])
    assert audit(empty, sites=[A]).exit_code == EXIT_CLEAN
    _set(empty, topics.MANIFESTS, retention_ms="86400000")
    with pytest.raises(NeverWorks, match=r"topic manifests at T1_A has retention.ms=86400000, expected -1"):
        audit(empty, sites=[A])
    provision(empty, [A])
    report = audit(empty, sites=[A])
    assert (report.exit_code, report.judgement.unseen) == (EXIT_CLEAN, ())


def test_an_audit_without_a_journal_is_incomplete(empty: Settings) -> None:
    provision(empty, [A])
    _remove(empty, topics.TRANSFERS, topics.remote(B, topics.COMPLETIONS))
    report = audit(empty, sites=[A])
    assert report.exit_code == EXIT_INCOMPLETE
    (line,) = report.judgement.unseen
    assert line == "T1_A has no transfers, T2_B.completion-records: run `transfer2go topic create`"
    provision(empty, [A])
