"""What finds its place by time, on a real broker: own journals dated by it, copies as their originals, clocks wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from streams import wire
from streams.cli import tailing, upgrading
from streams.cli.lagging import FlowLag, Uncarried, mirror_lag, uncarried
from streams.client import worker_api
from streams.consuming import session as consuming
from streams.core import records as m
from streams.core import topics
from streams.core.names import Block, Dataset, Destination, IntentId, Lfn, Site, Text
from streams.core.ranges import Ranges
from streams.core.readers.ordered import OrderedReader
from streams.core.readers.process import ReaderProcess
from streams.core.selectors import Kind, Selector
from streams.errors import Temporary
from streams.kafka import admin, client
from streams.kafka.publish import Publisher, wall_ms
from streams.kafka.reader import Record
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.wire.release import HEADER, RELEASE, UNTOLD

pytestmark = pytest.mark.sites
A, B, ZPEAK = Site("T1_A"), Site("T2_B"), Destination("T1_A/zpeak")
HOUR_MS = 3_600_000


@pytest.fixture
def here(real: Settings) -> Iterator[Settings]:
    """Both sites on one broker: a topic of T2_B and its copy at T1_A are two topics of it."""
    _remove(real)
    admin.provision(real, [A])
    for _ in range(100):
        try:
            admin.check(real, [A])
            for name in ("manifests", "T2_B.manifests", "chunk-events"):
                list(replay(real, A, [name]))
            break
        except Temporary:
            time.sleep(0.1)
    yield real
    _remove(real)


def _remove(settings: Settings) -> None:
    gone = [name for name in admin.partition_counts(settings, A) if not name.startswith("__")]
    kafka = client.make_admin(settings, A)[0]
    for future in kafka.delete_topics(gone, operation_timeout=20).values() if gone else ():
        future.result()
    while set(gone) & admin.partition_counts(settings, A).keys():
        time.sleep(0.02)


def put(
    settings: Settings,
    topic: str,
    message: m.Message,
    origin: m.Origin,
    at_ms: int = 0,
    more: tuple[tuple[str, bytes], ...] = (),
) -> None:
    raw = m.key_of(message)
    key = raw if isinstance(raw, bytes) else raw.encode()
    producer = Producer({"bootstrap.servers": settings.entry(A).bootstrap, "log_level": 0, "linger.ms": 0})
    why: list[object] = []
    producer.produce(
        topic,
        wire.encode(message),
        key,
        partition=topics.partition_of(key, settings.registry.partitions),
        timestamp=at_ms or origin.at_ms,
        headers=[*wire.headers(message, origin), *more],
        on_delivery=lambda error, _: why.append(error),
    )
    assert producer.flush(20) == 0
    assert why == [None]


def manifest(intent: IntentId, no: int = 0) -> m.ManifestWritten:
    lfn, dataset = Lfn(f"/store/{no}.root"), Dataset("/P/Q/TIER-PART")
    item = m.Item(
        lfn, dataset, Block(f"{dataset}#b"), Lfn(f"{lfn}.x.parquet"), "entries:E", 20, 200, None, "v", B, None
    )
    return m.ManifestWritten(intent, B, 0, no, "", "", m.Unit.ENTRIES, (item,), True)


@pytest.mark.parametrize("ahead_ms", [-2 * HOUR_MS, 0, 2 * HOUR_MS, 48 * HOUR_MS], ids=["behind", "right", "2h", "2d"])
def test_a_consumer_finds_what_it_told_before_whatever_its_sources_clock_says(here: Settings, ahead_ms: int) -> None:
    intent = IntentId(f"T1_A.00000000-0000-0000-0000-{abs(ahead_ms):012d}")
    selectors = (Selector(Kind.FILE, "/store/0.root"),)
    body = m.TransferIntent(intent, Text("me"), selectors, (ZPEAK,), selection="entries:E")
    written = manifest(intent)
    with Publisher(here, A, "w0", "worker") as publisher:
        publisher.send(body)
        publisher.send(m.IntentDecided(intent, 1, m.Verdict.ACCEPTED, body, B, 0, 5))
        assert publisher.flush(20) == 0
        put(here, "T2_B.manifests", written, m.Origin(B, "w", "i", 0, wall_ms() + ahead_ms))
        told = m.TransferProgress(written.manifest, ZPEAK, 1, "stream", Ranges([(0, 12)]), Ranges())
        publisher.send(told)
        assert publisher.flush(20) == 0
    line = consuming.ReaderSession(here, A, intent)
    try:
        line.recall()
        reader = OrderedReader(line.known, line.named("zpeak"), 1000, None)
        process = ReaderProcess(reader, "w", lease_ms=1000, retry_ms=1000)
        found = line._told(process, reader.new())
        assert {name: [said for _, said in words] for name, words in found.items()} == {written.manifest: [told]}
    finally:
        line.close()


def flows(settings: Settings) -> dict[str, FlowLag]:
    return {flow.topic: flow for flow in mirror_lag(settings, A)}


def test_a_mirrors_lag_is_counted_across_the_change_and_among_equal_times(here: Settings) -> None:
    intents = [IntentId(f"T2_B.00000000-0000-0000-0000-{no:012d}") for no in range(40)]
    asked = [m.IntentAsked(intent, m.Asked.CANCEL, Text("me")) for intent in intents]
    origins = [m.Origin(B, "w", "i", no, wall_ms() + (2 * HOUR_MS if no < 5 else 0)) for no in range(40)]
    put(here, "transfer-intents", asked[0], origins[0])
    originals = {wire_key(r): r for r in replay(here, A, ["transfer-intents"])}
    for fact, origin in zip(asked[1:], origins[1:], strict=True):
        put(here, "transfer-intents", fact, origin)
    originals = {wire_key(r): r for r in replay(here, A, ["transfer-intents"])}
    for fact, origin in list(zip(asked, origins, strict=True))[:30]:  # the mirror keeps each original's time
        put(here, "T2_B.transfer-intents", fact, origin, originals[str(fact.intent).encode()].timestamp_ms)
    assert flows(here)["transfer-intents"].records == 10
    assert uncarried(here, A, wall_ms() + HOUR_MS) == []


def wire_key(record: Record) -> bytes:
    assert record.key is not None
    return record.key


def test_a_topic_that_a_mirror_passes_by_is_told_from_one_that_is_late(here: Settings) -> None:
    intent = IntentId("T2_B.00000000-0000-0000-0000-000000000001")
    body = m.TransferIntent(intent, Text("me"), (Selector(Kind.FILE, "/store/0.root"),), (A,))
    decided = m.IntentDecided(intent, 1, m.Verdict.ACCEPTED, body, B, 0, 5)
    put(here, "intent-decisions", decided, m.Origin(B, "w", "i", 0, wall_ms()))
    assert uncarried(here, A, wall_ms()) == [], "it may be under way"
    assert uncarried(here, A, wall_ms() + HOUR_MS) == [Uncarried(B, A, ("intent-decisions",))]
    put(here, "T2_B.intent-decisions", decided, m.Origin(B, "w", "i", 0, wall_ms()))
    assert uncarried(here, A, wall_ms() + HOUR_MS) == []


def test_the_newest_records_are_those_written_last_though_an_earlier_clock_was_ahead() -> None:
    def record(partition: int, offset: int, at_ms: int) -> Record:
        return Record("manifests", partition, offset, at_ms, b"", b"", None)

    ahead = [record(0, n, 9_000 + n) for n in range(3)]
    behind = [record(0, 3 + n, 1_000 + n) for n in range(3)]
    other = [record(1, n, 1_000 + n) for n in range(3)]
    found = tailing.newest([*behind, *other, *ahead], 4)
    assert {(r.partition, r.offset) for r in found} == {(0, 4), (0, 5), (1, 1), (1, 2)}
    everything = tailing.newest([*behind, *other, *ahead], 9)
    for partition in (0, 1):
        offsets = [r.offset for r in everything if r.partition == partition]
        assert offsets == sorted(offsets)


def announce(settings: Settings, writer: str, release: int | None, *, role: str = "worker", **said: int) -> None:
    fact = m.SiteAnnounced(B, writer, "i", role, "", "d", (A,), (), 10, bool(said.get("closing")), ())
    origin = m.Origin(B, writer, "i", 0, wall_ms() - said.get("ago_ms", 0))
    more = () if release is None else ((HEADER, b"%d" % release),)
    put(settings, "T2_B.site-announcements", fact, origin, more=more)


def test_the_releases_of_living_workers_and_planes_are_told(here: Settings) -> None:
    announce(here, "w0", None)
    announce(here, "w1", RELEASE)
    announce(here, "p0", RELEASE + 1, role="plane")
    announce(here, "somebody", RELEASE + 3, role="producer")
    announce(here, "gone", RELEASE + 2, closing=1)
    announce(here, "silent", RELEASE + 2, ago_ms=60_000)
    assert upgrading.releases(here, A, B) == {UNTOLD, RELEASE, RELEASE + 1}
    assert upgrading.releases(here, A, A) == frozenset()
    (line,) = upgrading.faults(here, {A: [A, B]})
    assert (
        line == f"T2_B runs release 1 and {RELEASE} and {RELEASE + 1}, this is release {RELEASE}; upgrade its workers"
    )


def test_a_worker_that_was_killed_and_runs_again_is_one(here: Settings) -> None:
    """Its word before stays young for half a minute. Seen: doctor counted two."""
    killed = Publisher(here, A, "worker-0", "worker")
    killed.announce(api="http://127.0.0.1:1", every_s=10)
    assert killed.flush(10) == 0
    with Publisher(here, A, "worker-0", "worker") as again:
        again.announce(api="http://127.0.0.1:2", every_s=10)
        assert again.flush(10) == 0
        alive = worker_api.announcements(here, A).alive(A, wall_ms(), role="worker")
        assert [said.incarnation for said in alive] == [again.incarnation]
        assert worker_api.apis(here, A) == ["http://127.0.0.1:2"]
    killed.close()
