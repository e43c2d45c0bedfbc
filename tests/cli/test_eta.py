"""When an intent will have arrived, by what moved in the last minute; or what it waits for, and who says so where."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from streams.cli import eta as etas
from streams.cli.eta import Eta, News, Pace, Said, estimate, last_said
from streams.client.intent_snapshot import IntentFold, Snapshot
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import LogPosition
from streams.core.names import Text
from streams.core.ranges import Ranges
from streams.kafka.reader import Record
from streams.kafka.replay import replay
from streams.settings import Settings
from tests.cli.conftest import Run, rows
from tests.cli.test_verbs import half_done
from tests.producer.conftest import A, B, C, Hand, completed, written
from tests.producer.test_watching import BODY, INTENT

MB = 1_000_000
NOW_MS = 10_000_000
FILES = written(INTENT, [60 * MB, 40 * MB], last=True)
ONE = replace(BODY, destinations=(B,))
DECIDED = m.IntentDecided(INTENT, 1, m.Verdict.ACCEPTED, ONE, B, 0, 5)


def report(verified: int, waits: str = "", **more: Any) -> m.TransferReported:
    return m.TransferReported(INTENT, FILES.manifest, B, 1, "active", verified, 100 * MB, 0, 0, 2, Text(waits), **more)


def standing(*facts: m.Message, body: m.TransferIntent = ONE) -> Snapshot:
    fold = IntentFold(INTENT)
    for fact in (body, replace(DECIDED, body=body), *facts):
        fold.hear(fact, 1000)
    return fold.snapshot()


def said(at_ms: int, offset: int = 0) -> Said:
    return Said(at_ms, LogPosition(A, f"{B}.{topics.REPORTS}", 3, offset))


def news(*facts: tuple[int, m.Message]) -> News:
    """Facts, each so many seconds ago."""
    found = News()
    for offset, (ago_s, fact) in enumerate(facts):
        found.hear(fact, said(NOW_MS - 1000 * ago_s, offset))
    return found


def of(snapshot: Snapshot, found: News) -> Eta:
    told = estimate(snapshot, found, NOW_MS)
    assert told is not None
    return told


def test_what_is_left_by_the_rate_of_the_last_minute() -> None:
    told = of(standing(FILES, report(30 * MB)), news((50, report(0)), (20, report(10 * MB)), (5, report(30 * MB))))
    assert (told.left_bytes, told.bytes_per_s) == (70 * MB, 600_000)
    assert told.at_ms == NOW_MS + 116_666
    assert (told.why, told.record) == ("", None)
    assert told.in_words(NOW_MS) == (
        "ETA 1970-01-01T02:48:36.666Z, in 1 m 57 s: 70.00 MB left at 600 kB/s, the rate of the last minute"
    )


def test_the_order_in_which_topics_are_read_does_not_matter() -> None:
    facts = [(50, report(0)), (20, report(10 * MB)), (5, report(30 * MB, "x")), (2, completed(FILES, C))]
    wanted = news(*facts).moved(NOW_MS, 0)
    for seed in range(20):
        mixed = random.Random(seed).sample([*facts, facts[1]], 5)
        found = News()
        for ago_s, fact in mixed:
            found.hear(fact, said(NOW_MS - 1000 * ago_s))
        assert found.moved(NOW_MS, 0) == wanted


def test_a_transfer_that_completed_counts_whole_and_is_told_once() -> None:
    found = news((40, report(20 * MB)), (10, completed(FILES, B)), (9, replace(report(100 * MB), state="closed")))
    assert found.moved(NOW_MS, 0) == (80 * MB, 40)


def test_an_attempt_that_was_lost_takes_back_nothing_that_moved() -> None:
    found = news((50, report(10 * MB)), (40, report(50 * MB)), (30, report(0)), (10, report(20 * MB)))
    assert found.moved(NOW_MS, 0) == (60 * MB, 50)


def test_what_moved_before_the_last_minute_is_no_rate() -> None:
    waits = report(30 * MB, "T1_A to answer request 4")
    found = news((300, report(0)), (200, report(30 * MB)), (190, waits), (130, waits))
    told = of(standing(FILES, waits), found)
    assert (told.at_ms, told.bytes_per_s, told.left_bytes) == (None, 0, 70 * MB)
    assert told.why == f"waits for T1_A to answer request 4 (at {B})"
    assert (told.since_ms, told.record) == (NOW_MS - 190_000, said(0, 3).place)
    assert told.in_words(NOW_MS) == (
        f"ETA none: waits for T1_A to answer request 4 (at {B}), since 1970-01-01T02:43:30.000Z, "
        f"last said in {A} {B}.{topics.REPORTS}[3]@3"
    )
    assert told.as_object()["record"] == {"site": A, "topic": f"{B}.{topics.REPORTS}", "partition": 3, "offset": 3}


def test_other_words_are_not_who_says_it() -> None:
    waits = report(30 * MB, "a place")
    found = news((190, report(30 * MB, "an answer")), (130, waits), (20, report(30 * MB, "")))
    told = of(standing(FILES, waits), found)
    assert (told.since_ms, told.record) == (NOW_MS - 130_000, said(0, 1).place)


def test_before_its_files_are_known_the_last_record_of_all_tells() -> None:
    fold = IntentFold(INTENT)
    fold.hear(ONE, 1000)
    told = of(fold.snapshot(), news((30, ONE)))
    assert told.in_words(NOW_MS).startswith("ETA none: waits for its home's decision, since 1970-01-01T02:46:10.000Z")
    assert told.record == said(0).place
    listed = of(standing(), news((30, ONE), (20, DECIDED)))
    assert (listed.why, listed.record) == (f"waits for the manifests of {B}", said(0, 1).place)


def test_nothing_said_of_a_wait_is_told_as_that() -> None:
    told = of(standing(FILES, report(30 * MB)), news((200, report(30 * MB))))
    assert told.why == "nothing has moved for a minute"
    assert told.record == said(0).place
    assert of(standing(FILES, report(30 * MB)), News()).record is None


def test_of_what_failed_nothing_is_left() -> None:
    first = written(INTENT, [50 * MB, 50 * MB], last=False)
    done = completed(first, B, failed=Ranges.of(1))
    second = written(INTENT, [100 * MB], no=1, prev=done.manifest_sha256)
    snapshot = standing(first, second, done)
    assert snapshot.bytes - snapshot.arrived_bytes == 150 * MB
    assert of(snapshot, news()).left_bytes == 75 * MB, "one of two that are not there comes"
    last = standing(FILES, report(100 * MB, "its files to be sealed"))
    told = of(last, news((5, report(0)), (1, report(100 * MB))))
    assert (told.left_bytes, told.at_ms) == (0, None)
    assert told.why.startswith("waits for its files to be sealed")


def test_of_open_transfers_what_is_left_is_as_they_report_it() -> None:
    """Whatever failed elsewhere: of a closed manifest a file of 900 MB, of the open one 700 bytes are to come."""
    first = written(INTENT, [10, 900 * MB], last=False)
    done = completed(first, B, failed=Ranges.of(1))
    second = written(INTENT, [1000], no=1, prev=done.manifest_sha256)
    told = m.TransferReported(INTENT, second.manifest, B, 1, "active", 300, 1000, 0, 0, 1, Text(""))
    assert of(standing(first, second, done, told), News()).left_bytes == 700


def test_of_entries_items_are_taken_for_equally_large() -> None:
    in_entries = replace(report(0), unit=m.Unit.ENTRIES, total=1000)
    found = news((50, in_entries), (10, replace(in_entries, verified=500)))
    assert found.moved(NOW_MS, 50 * MB) == (50 * MB, 50)
    done = news((50, in_entries), (10, completed(FILES, B)))
    assert done.moved(NOW_MS, 50 * MB)[0] == 100 * MB


def test_where_more_files_may_come_that_is_said() -> None:
    told = of(standing(replace(FILES, last=False), report(30 * MB)), news((50, report(0)), (5, report(30 * MB))))
    assert told.in_words(NOW_MS).endswith("; more files may come")
    assert told.as_object()["final"] is False


def test_an_intent_that_has_ended_has_no_eta() -> None:
    assert estimate(standing(FILES, completed(FILES, B)), News(), NOW_MS) is None


def test_while_it_is_watched_its_pace_is_that_of_what_is_seen() -> None:
    first, later = standing(FILES, report(30 * MB)), standing(FILES, report(50 * MB))
    pace = Pace(first, news((20, report(20 * MB)), (5, report(30 * MB))), NOW_MS)
    assert pace.note(first, NOW_MS) == (10 * MB, 20)
    assert pace.note(later, NOW_MS + 20_000) == (30 * MB, 40)
    assert pace.note(later, NOW_MS + 60_000) == (20 * MB, 60)
    assert pace.note(later, NOW_MS + 90_000) == (0, 70), "what moved more than a minute ago is forgotten"
    assert len(pace._points) <= 4
    told = estimate(later, News(), NOW_MS, (20 * MB, 40))
    assert told is not None
    assert told.bytes_per_s == MB / 2


# the verbs


@pytest.fixture
def journals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From when on they are read: the mock cluster knows no offsets by time, and gives all."""
    starts: list[int] = []

    def from_the_beginning(settings: Settings, site: str, names: Any, *, start: int, **given: Any) -> Iterator[Record]:
        starts.append(start)
        return replay(settings, site, names, **given)

    monkeypatch.setattr(etas, "replay", from_the_beginning)
    return starts


def test_show_says_what_it_waits_for_and_where_that_stands(run: Run, hand: Hand, journals: list[int]) -> None:
    body = half_done(hand)
    place = rf"{A} {B}\.{topics.REPORTS}\[\d\]@0"
    shown = run("intent", "show", body.intent).stdout
    words = rf"ETA none: waits for T2_B to answer request 4 \(at T2_B\), since \S+Z, last said in {place}"
    assert re.search(words, shown), shown
    (told,) = rows(run("intent", "show", body.intent, "--json"))
    assert told["eta"]["at"] is None
    assert told["eta"]["record"]["topic"] == f"{B}.{topics.REPORTS}"
    assert abs(journals[0] - (time.time() * 1000 - 65_000)) < 30_000


def test_show_without_journals_says_the_rest(run: Run, hand: Hand) -> None:
    body = half_done(hand)
    shown = run("intent", "show", body.intent)
    assert shown.exit_code == 0
    assert "ETA none: waits for T2_B to answer request 4 (at T2_B)" in shown.stdout


def test_watch_as_json_has_it_too(run: Run, hand: Hand, journals: list[int]) -> None:
    body = half_done(hand)
    (told, *_) = rows(run("intent", "watch", body.intent, "--json", "--timeout", "1"))
    assert told["eta"]["why"] == "waits for T2_B to answer request 4 (at T2_B)"
    assert told["eta"]["left_bytes"] == 700
    assert len(journals) == 1, "once, as nothing changed"


def test_watch_says_who_said_last_what_it_waits_for(run: Run, hand: Hand, journals: list[int]) -> None:
    body = half_done(hand)
    watched = run("intent", "watch", body.intent, "--timeout", "8")
    said = rf"waits for T2_B to answer request 4 .*last said in {A} {B}\.{topics.REPORTS}"
    assert re.search(said, watched.stderr), watched.stderr
    assert re.search(f"ETA none: {said}", watched.stdout), "as `show` does, where it is still open"


def test_the_record_is_that_of_its_words() -> None:
    waits = report(30 * MB, "a place")
    assert last_said(standing(FILES, waits), news((9, waits), (8, report(0, "else")))) == said(0, 0).place
