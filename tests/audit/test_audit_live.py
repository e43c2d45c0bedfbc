"""A follower at work: what is planted while it reads is told within 30 s, once; a restart goes on where it was."""

from __future__ import annotations

import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streams import wire
from streams.auditing.following import FollowerState, follow
from streams.auditing.index import open_index
from streams.auditing.live import LiveAudit, index_of, journals_at
from streams.auditing.metrics import address_of, served
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Finding, Invariant, LogPosition, Severity
from streams.core.names import Site
from streams.core.ranges import EMPTY, Ranges
from streams.core.topics import LogPartition
from streams.errors import Temporary, UsageError
from streams.kafka.reader import LogReader
from streams.kafka.replay import replay
from streams.settings import Settings
from tests.audit.conftest import Stage
from tests.audit.history import A, B, Federation, Log, Rec, healthy, origin_of
from tests.audit.sealing import SealedWorld

Key = tuple[Site, str, int]
Build = Callable[..., Stage]
TOLD_S = 30.0


@pytest.fixture(autouse=True)
def the_mock_is_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says after 5 s that it knows no groups, and of news only when a fetch has waited."""
    monkeypatch.setattr("streams.auditing.live.committed_offsets", lambda *_: {})
    monkeypatch.setattr("streams.auditing.following._FETCH_WAIT_MS", 200)


class _Stop(Exception):
    pass


@dataclass
class Follower:
    """One at work in a thread; `found`: when (s behind its start) each finding was told."""

    settings: Settings
    state: FollowerState = field(default_factory=FollowerState)
    found: list[tuple[float, Finding]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    ended: BaseException | None = None
    _stopping: bool = False

    def run(self) -> None:
        started = time.monotonic()

        def on_away(_: str) -> None:
            if self._stopping:
                raise _Stop

        try:
            follow(
                self.settings,
                every_s=1.0,
                on_finding=lambda one: self.found.append((time.monotonic() - started, one)),
                tell=self.said.append,
                on_away=on_away,
                state=self.state,
            )
        except BaseException as error:  # noqa: BLE001  told to who waits
            self.ended = error

    def until(self, done: Callable[[], object], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert self.ended is None, self.ended
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}; told: {self.findings}"
            time.sleep(0.05)

    @property
    def findings(self) -> list[Finding]:
        return [one for _, one in self.found]


@contextmanager
def following(settings: Settings) -> Iterator[Follower]:
    """It is told to stop at the end, between two records."""
    at = Follower(replace(settings, keys=settings.state / A / "keys"))
    thread = threading.Thread(target=at.run)
    thread.start()
    try:
        yield at
    finally:
        at._stopping = True
        thread.join(30)
        assert not thread.is_alive()
    assert isinstance(at.ended, _Stop), at.ended


def play(at: Stage, logs: Mapping[Key, Log], before: Mapping[Key, Log]) -> None:
    """What `logs` have beyond what `before` has."""
    for site, cluster in at.clusters.items():
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 0})
        for key, log in sorted(logs.items()):
            for _, rec in log[len(before.get(key, [])) :] if key[0] == site else []:
                producer.produce(
                    key[1], rec.value, rec.key, partition=key[2], headers=list(rec.headers), timestamp=rec.at_ms
                )
        assert producer.flush(10) == 0


def of(follower: Follower, words: str) -> list[Finding]:
    return [one for one in follower.findings if words in one.words]


def at_another_time(rec: Rec) -> Rec:
    """The record as if its writer had had another clock."""
    origin = wire.decode_value(m.Origin, dict(rec.headers)[wire.ORIGIN] or b"")
    said = replace(origin, at_ms=origin.at_ms + 1)
    return replace(rec, headers=tuple((h, wire.encode(said) if h == wire.ORIGIN else v) for h, v in rec.headers))


def planted(world: Federation) -> tuple[LogPosition, LogPosition]:
    """A loss, a number with two contents, a rival completion at B: records that the latter two are told with.

    And a copy that is not the history which B sealed, where the seal comes when the copy has grown past it.
    """
    loser = world.writer(A, "loser", "cli")
    lost = [loser.announce() for _ in range(3)][1]
    world.drop(lost)
    liar = world.writer(A, "liar", "cli")
    first = liar.announce()
    second = world.append(*first[:3], at_another_time(world.at(first)))
    rival = world.writer(B, "worker-9", "worker")
    place = world.where(B, topics.COMPLETIONS)[0]
    said = world.decoded(place, world.at(place)).message
    assert isinstance(said, m.CompletionRecord)
    whole = Ranges([(0, said.items)])
    rival.say(replace(said, ended=m.Ended.CANCELLED, sealed=EMPTY, failed=(), cancelled=whole, bytes=0))
    teller = world.writer(B, "teller", "cli")
    for _ in range(3):
        told = teller.announce()
    SealedWorld(world).seal(B)
    for _ in range(3):
        teller.announce()
    world.mirror()
    copies = world.records(A, topics.remote(B, topics.ANNOUNCEMENTS))
    altered = next(where for where, rec in copies if rec == world.at(told))
    world.put(altered, at_another_time(world.at(altered)))
    rivals = world.records(A, topics.remote(B, topics.COMPLETIONS))
    completed = next(where for where, rec in rivals if (by := origin_of(rec)) is not None and by.writer == rival.name)
    return played(world, second), played(world, completed)


def played(world: Federation, place: LogPosition) -> LogPosition:
    """Where a record stands in a cluster, whose offsets have no holes."""
    log = world.logs[place[:3]]
    return place._replace(offset=next(at for at, (offset, _) in enumerate(log) if offset == place.offset))


EXPECTED = {
    "gap: number 1 of loser at T1_A": Invariant.NO_GAP,
    "number 0 of liar at T1_A": Invariant.NO_GAP,
    "two different completions of": Invariant.ONE_EFFECT,
    f"{A}'s copy of {B} {topics.ANNOUNCEMENTS}[": Invariant.SEAL,
}
"""Words of what is planted."""


def test_what_is_planted_while_it_reads_is_told_once_with_its_records(
    stage: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ROUND_S", "QUIET_S", "SETTLED_S"):
        monkeypatch.setattr(f"streams.auditing.live.{name}", 1.0)
    at, before, world = stage(A, B), healthy(A, B), healthy(A, B)
    at.play(before)
    with following(at.settings) as first:
        first.until(lambda: first.state.seals, "the first seal", 20)
        assert first.found == []
        second, completed = planted(world)
        without_seals = {key: log for key, log in world.logs.items() if topics.split(key[1])[1] != topics.SEALS}
        play(at, without_seals, before.logs)
        read = sum(len(log) for (site, _, _), log in without_seals.items() if site == A)
        first.until(lambda: first.state.counts.records >= read, "all is read", 10)
        play(at, world.logs, {**before.logs, **without_seals})
        first.until(lambda: all(of(first, words) for words in EXPECTED), "all that was planted", 60)
        told = {words: of(first, words) for words in EXPECTED}
        assert {words: [one.invariant for one in some] for words, some in told.items()} == {
            words: [invariant] for words, invariant in EXPECTED.items()
        }
        assert second in told["number 0 of liar at T1_A"][0].records
        assert completed in told["two different completions of"][0].records
        assert "is not the history that T2_B sealed" in told[f"{A}'s copy of {B} {topics.ANNOUNCEMENTS}["][0].words
        assert {one.words for one in first.findings} == {one.words for some in told.values() for one in some}
        assert first.state.counts.told[Invariant.NO_GAP, Severity.BROKEN] == 2
    with following(at.settings) as again:
        again.until(lambda: again.state.seals, "its first seal", 20)
        assert again.found == [], "it was told before"
        assert again.state.counts.found[Invariant.NO_GAP, Severity.BROKEN] == 2, "and is found still"
        assert again.state.counts.records < 30, "what was read is on the disk"


def test_what_is_planted_is_told_within_30_s_of_the_seal(stage: Build, tmp_path: Path) -> None:
    """Of the follower's own time, a second a look."""
    at, before, world = stage(A, B), healthy(A, B), healthy(A, B)
    at.play(before)
    with open_index(tmp_path / "index", {}) as index:
        live = LiveAudit(at.settings, A, index, every_ms=60_000)
        live.go_on()
        ends = live.read_on(journals_at(at.settings, A), lambda _: None, live.hear)
        assert live.first_news() == []
        now_s = 1000.0
        planted(world)
        without_seals = {key: log for key, log in world.logs.items() if topics.split(key[1])[1] != topics.SEALS}
        told: list[Finding] = []
        for logs, known in ((without_seals, before.logs), (world.logs, {**before.logs, **without_seals})):
            play(at, logs, known)
            for record in replay(at.settings, A, sorted({topic for topic, _ in ends}), start=ends):
                live.hear(record)
                ends[record.topic, record.partition] = record.offset + 1
            for _ in range(4):  # the seal comes in the middle of a look at what was found before it
                told += live.news(now_s, lambda: ends)
                now_s += 1
        sealed_s = now_s - 4
        while len(told) < len(EXPECTED):
            told += live.news(now_s, lambda: ends)
            now_s += 1
            assert now_s - sealed_s < TOLD_S, told
    assert all(any(words in one.words for one in told) for words in EXPECTED)


@pytest.mark.parametrize("is_at_work", [False, True])
def test_a_journal_that_got_shorter_is_told_and_all_is_read_anew(
    stage: Build, monkeypatch: pytest.MonkeyPatch, is_at_work: bool
) -> None:
    at, world = stage(A, B), healthy(A, B)
    at.play(world)
    monkeypatch.setattr("streams.auditing.following._LOOKED_EACH_S", 0.5)
    ends, shortened = LogReader.end_offsets, (topics.DECISIONS, world.where(A, topics.DECISIONS)[0].partition)

    def shorter(reader: LogReader, places: Iterable[LogPartition]) -> dict[LogPartition, int]:
        found = ends(reader, places)
        if shortened in found:
            found[shortened] = 0
            monkeypatch.setattr(LogReader, "end_offsets", ends)
        return found

    with following(at.settings) as again:
        again.until(lambda: again.state.seals, "the first seal", 20)
        if is_at_work:
            monkeypatch.setattr(LogReader, "end_offsets", shorter)
            again.until(lambda: again.findings, "the loss", 20)
            again.until(lambda: f"all journals at {A} are read anew" in again.said, "what becomes of it", 5)
            again.until(lambda: not again.state.is_reading, "all is read", 20)
    if not is_at_work:
        monkeypatch.setattr(LogReader, "end_offsets", shorter)
        with following(at.settings) as again:
            again.until(lambda: again.state.seals, "its first seal", 20)
    words = f"{topics.DECISIONS}[{shortened[1]}] of {A} ends at offset 0, and was read to 1"
    assert [one.words.partition(":")[0] for one in again.findings] == [words]
    assert f"all journals at {A} are read anew" in again.said


def test_a_record_that_is_another_than_was_read_is_told(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    at = stage(A, B)
    at.play(healthy(A, B))
    with following(at.settings) as first:
        first.until(lambda: first.state.seals, "the first seal", 20)
    monkeypatch.setattr("streams.auditing.live.leaf_of", lambda *_: b"another")
    with following(at.settings) as again:
        again.until(lambda: again.state.seals, "its first seal", 20)
    (found,) = again.findings
    assert found.words == f"{found.records[0]} is not the record that was read there before"


def test_an_index_of_another_federation_is_read_anew(stage: Build) -> None:
    at = stage(A, B)
    at.play(healthy(A, B))
    index_of(at.settings, A).mkdir(parents=True)
    (index_of(at.settings, A) / "cut").write_bytes(b"x" * 40)
    with following(at.settings) as one:
        one.until(lambda: one.state.seals, "the first seal", 20)
    assert one.found == []
    assert any("damaged" in line and line.endswith("all journals are read anew") for line in one.said), one.said


def test_metrics_are_what_prometheus_reads(stage: Build) -> None:
    state = FollowerState(is_reading=False, seals=3, sealed_ms={B: 1000})
    state.counts.records, state.counts.told = 7, Counter({(Invariant.NO_GAP, Severity.BROKEN): 2})
    with served(("127.0.0.1", 0), A, state) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            kind, text = answer.headers["Content-Type"], answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/else", timeout=5)
        with pytest.raises(Temporary, match="cannot listen"), served(("127.0.0.1", port), A, state):
            pass
    assert kind.startswith("text/plain; version=0.0.4")
    lines = text.splitlines()
    assert 'transfer2go_follow_up{site="T1_A"} 1' in lines
    assert 'transfer2go_follow_records_total{site="T1_A"} 7' in lines
    assert 'transfer2go_follow_findings_total{site="T1_A",invariant="I7",severity="broken"} 2' in lines
    for line in lines:
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+\{[^{}]*\} [-+.e\d]+", line), line
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("text", ["", "x", "host:", "host:0", "host:70000", "9464x", "host:-1"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        address_of(text)


def test_addresses() -> None:
    assert address_of("9464") == ("127.0.0.1", 9464)
    assert address_of("0.0.0.0:9464") == ("0.0.0.0", 9464)
    assert address_of("[::1]:9464") == ("::1", 9464)
