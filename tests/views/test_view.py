"""The view's thread over an in-process broker: catching up, resuming, refusing, starting anew."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.names import Lfn
from streams.errors import NeverWorks, Temporary
from streams.settings import Settings
from streams.views import rows
from streams.views.catalogue import Catalogue
from streams.views.folding import Changes
from streams.views.view import View
from streams.wire.release import HEADER, UNTOLD
from tests.views.journal import DATASET, A, B, Journal, held, holds, lost, settings_for


@contextmanager
def viewing(settings: Settings, letters: list[m.DeadLetter] | None = None) -> Iterator[View]:
    kept: list[m.DeadLetter] = [] if letters is None else letters
    view = View(settings, settings.datadir, kept.append)
    view.start()
    try:
        yield view
    finally:
        view.stop()


def sites_of(view: View, lfn: str) -> list[str]:
    return [r.site for r in view.catalogue.where(Lfn(lfn))]


def announced(writer: str = "w0", *, api: str = "http://127.0.0.1:6066", digest: str = "d") -> m.SiteAnnounced:
    return m.SiteAnnounced(A, writer, "i1", "worker", api, digest, (B,), ("posix",), 5, False, ())


def test_sees_its_own_and_its_peers_records(journal: Journal, settings: Settings) -> None:
    journal.say(holds(A, held("/store/x"), held("/store/y")))
    journal.say(holds(B, held("/store/x")), site=B)
    journal.say(announced(), at_ms=50_000)
    journal.flush()
    with viewing(settings) as view:
        assert view.catch_up(10)
        assert sites_of(view, "/store/x") == [A, B]
        assert sites_of(view, "/store/y") == [A]
        assert [a.api for a in view.sites.alive(A, 51_000)] == ["http://127.0.0.1:6066"]
        journal.say(lost(A, "/store/x"))
        journal.flush()
        assert view.catch_up(10)
        assert sites_of(view, "/store/x") == [B]


def test_an_announcements_release_is_read_from_its_header(journal: Journal, settings: Settings) -> None:
    journal.say(announced("w0"))
    journal.say(announced("w1"), incarnation="i1", more=((HEADER, b"7"),))
    journal.flush()
    with viewing(settings) as view:
        assert view.catch_up(10)
        assert {a.writer: a.release for a in view.sites.announced()} == {"w0": UNTOLD, "w1": 7}


def test_nothing_is_opened_before_it_is_told(journal: Journal, settings: Settings) -> None:
    view = View(settings, settings.datadir, print, opened=False)
    assert not settings.datadir.exists()
    view.start()
    assert view.catch_up(10)
    view.stop()
    View(settings, settings.datadir, print, opened=False).stop()


def test_a_lone_record_is_seen_soon(journal: Journal, settings: Settings) -> None:
    with viewing(settings) as view:
        assert view.catch_up(10)
        took_s = []
        for number in range(5):
            journal.say(holds(A, held(f"/store/{number}")))
            journal.flush()
            begun = time.monotonic()
            assert view.catch_up(10)
            took_s.append(time.monotonic() - begun)
            assert sites_of(view, f"/store/{number}") == [A]
        assert min(took_s) < 1.0


def test_resumes_behind_the_last_applied_record(journal: Journal, settings: Settings) -> None:
    journal.say(holds(A, held("/store/x")))
    journal.flush()
    with viewing(settings) as view:
        assert view.catch_up(10)
        assert view.progress.applied == 1
    journal.say(holds(A, held("/store/y")))
    journal.flush()
    with viewing(settings) as view:
        assert view.catch_up(10)
        assert view.progress.applied == 1
        assert sites_of(view, "/store/x") == sites_of(view, "/store/y") == [A]
        totals = next(view.catalogue.datasets())
        assert totals.known.files == 2


CHILD = """
import sys, time
from pathlib import Path
from tests.views.journal import settings_for
from streams.views.view import View
view = View(settings_for(sys.argv[1], Path(sys.argv[2])), Path(sys.argv[2]) / "worker-0", print)
view.start()
while view.alive and view.progress.applied < int(sys.argv[3]):
    time.sleep(0.001)
print("so far" if view.alive else view.progress, flush=True)
time.sleep(60)
"""


def test_resumes_exactly_after_kill_9(journal: Journal, settings: Settings, tmp_path: Path) -> None:
    records = 300
    for number in range(records):
        journal.say(holds(A, *(held(f"/store/{number}/{n}", block=f"b{number % 7}") for n in range(5))))
    journal.flush()
    for least in (1, 20, 40):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, journal.bootstrap, str(tmp_path), str(least)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        try:
            if child.stdout.readline() != "so far\n":
                pytest.fail("the child ended early")
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
        records += 100
        for number in range(records - 100, records):
            journal.say(holds(A, *(held(f"/store/{number}/{n}", block=f"b{number % 7}") for n in range(5))))
        journal.flush()
    with viewing(settings) as view:
        assert view.catch_up(20)
        assert 0 < view.progress.applied < records
        (dataset,) = view.catalogue.datasets()
        assert dataset.known == dataset.per_site[A] == (records * 5, records * 50)
        assert sum(b.known.files for b in view.catalogue.blocks(DATASET)) == records * 5


def test_a_refused_record_is_handed_over_and_the_good_ones_go_on(journal: Journal, settings: Settings) -> None:
    journal.put(topics.REPLICAS, DATASET.encode(), b"poison", [("avro-fp", b"12345678")])
    journal.say(holds(A, held("/store/x")))
    journal.put(topics.REPLICAS, DATASET.encode(), None, [])
    journal.say(holds(A, held("/store/y")))
    journal.flush()
    letters: list[m.DeadLetter] = []
    with viewing(settings, letters) as view:
        assert view.catch_up(10)
        assert sites_of(view, "/store/x") == sites_of(view, "/store/y") == [A]
        assert view.progress.refused == 2
    assert [(letter.topic, letter.offset, letter.value) for letter in letters] == [
        (topics.REPLICAS, 0, b"poison"),
        (topics.REPLICAS, 2, b""),
    ]
    with viewing(settings, letters) as view:
        assert view.catch_up(10)
    assert len(letters) == 2


def test_a_fault_of_ours_in_one_record_is_its_dead_letter(
    journal: Journal, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the worker ends on it, again at every start."""
    hold = Changes.hold

    def faulty(self: Changes, fact: m.FilesHeld, word: str) -> None:
        if fact.files[0].lfn == "/store/x":
            raise KeyError("a fault of ours")
        hold(self, fact, word)

    monkeypatch.setattr(Changes, "hold", faulty)
    journal.say(holds(A, held("/store/x")))
    journal.say(holds(A, held("/store/y")))
    journal.flush()
    letters: list[m.DeadLetter] = []
    with viewing(settings, letters) as view:
        assert view.catch_up(10)
        assert sites_of(view, "/store/y") == [A]
    (letter,) = letters
    assert "the view could not take it: KeyError: 'a fault of ours'" in letter.reason


def test_one_wrong_clock_takes_no_other_writer_for_old(journal: Journal, settings: Settings) -> None:
    """A command on a laptop a day and an hour ahead says its closing word: the workers live on."""
    now_ms = time.time_ns() // 1_000_000
    journal.say(announced("w0"), at_ms=now_ms)
    journal.say(replace(announced("laptop"), closing=True), at_ms=now_ms + 25 * 3600 * 1000)
    journal.say(announced("w0"), at_ms=now_ms)
    journal.flush()
    with viewing(settings) as view:
        assert view.catch_up(10)
        assert [said.writer for said in view.sites.alive(A, now_ms)] == ["w0"]


def test_a_site_cannot_speak_for_another(journal: Journal, settings: Settings) -> None:
    journal.say(holds(A, held("/store/x")), site=B)
    journal.flush()
    letters: list[m.DeadLetter] = []
    with viewing(settings, letters) as view:
        assert view.catch_up(10)
        assert sites_of(view, "/store/x") == []
    assert "the word of T1_A" in letters[0].reason


def test_a_dead_letter_that_cannot_be_published_yet_is_tried_again(journal: Journal, settings: Settings) -> None:
    journal.put(topics.REPLICAS, DATASET.encode(), b"poison", [])
    journal.say(holds(A, held("/store/x")))
    journal.flush()
    tries: list[m.DeadLetter] = []

    def third_time(letter: m.DeadLetter) -> None:
        tries.append(letter)
        if len(tries) < 3:
            raise Temporary("the broker is away")

    view = View(settings, settings.datadir, third_time)
    view.start()
    try:
        assert view.catch_up(10)
        assert sites_of(view, "/store/x") == [A]
    finally:
        view.stop()
    assert len(tries) == 3


def test_stops_while_a_dead_letter_waits_and_reads_it_again(journal: Journal, settings: Settings) -> None:
    journal.put(topics.REPLICAS, DATASET.encode(), b"poison", [])
    journal.flush()
    faults: list[Exception] = []

    def never(letter: m.DeadLetter) -> None:
        raise Temporary("the broker is away")

    view = View(settings, settings.datadir, never, faults.append)
    view.start()
    assert not view.catch_up(0.5)
    view.stop()
    assert not faults
    letters: list[m.DeadLetter] = []
    with viewing(settings, letters) as again:
        assert again.catch_up(10)
    assert len(letters) == 1


def test_a_fault_is_told_and_nothing_is_claimed_after_it(journal: Journal, settings: Settings) -> None:
    journal.put(topics.REPLICAS, DATASET.encode(), b"poison", [])
    journal.flush()
    faults: list[Exception] = []

    def broken(letter: m.DeadLetter) -> None:
        raise RuntimeError("a bug")

    view = View(settings, settings.datadir, broken, faults.append)
    view.start()
    assert not view.catch_up(10)
    assert not view.alive
    view.stop()
    assert [str(f) for f in faults] == ["a bug"]


def test_another_table_version_is_folded_anew(journal: Journal, settings: Settings, tmp_path: Path) -> None:
    journal.say(holds(A, held("/store/x")))
    journal.flush()
    with viewing(settings) as view:
        assert view.catch_up(10)
        view._db[rows.file_key("/store/ghost")] = rows.pack_file(
            [rows.Entry(DATASET, A, "", "b1", 1, "0" * 8, "", words=("w",))]
        )
        assert sites_of(view, "/store/ghost") == [A]
    with viewing(settings_for(journal.bootstrap, tmp_path, table_version=2)) as view:
        assert view.catch_up(10)
        assert view.progress.applied == 1
        assert view.progress.rebuilt == 1
        assert sites_of(view, "/store/x") == [A]
        assert sites_of(view, "/store/ghost") == []


def test_a_view_ahead_of_its_journal_is_folded_anew(journal: Journal, settings: Settings) -> None:
    journal.say(holds(A, held("/store/x")))
    journal.flush()
    with viewing(settings) as view:
        assert view.catch_up(10)
        view._db[rows.offset_key(topics.REPLICAS, topics.partition_of(DATASET, 4))] = b"1000"
    with viewing(settings) as view:
        assert view.catch_up(10)
        assert view.progress.rebuilt == view.progress.applied == 1


def test_a_journal_that_was_put_back_and_grew_past_the_view_is_folded_anew(tmp_path: Path) -> None:
    """The same broker id, as many records and more, but another one where the view stopped."""
    before, after = Journal(), Journal()
    for journal, last in ((before, "/store/lost"), (after, "/store/instead")):
        journal.touch(*topics.with_copies(topics.TO_EVERY_PEER, [B]))
        journal.say(holds(A, held("/store/x")))
        journal.say(holds(A, held(last)))
    after.say(holds(A, held("/store/later")))
    for journal in (before, after):
        journal.flush()
    place = rows.offset_key(topics.REPLICAS, topics.partition_of(DATASET, 4))
    with viewing(settings_for(before.bootstrap, tmp_path)) as view:
        assert view.catch_up(10)
        assert sites_of(view, "/store/lost") == [A]
        assert view._db.get(place).startswith(b"2 ")
    # The mock gives each cluster an id; a broker that was put back keeps its own.
    db = rows.open_primary(str(tmp_path / "worker-0" / "view"))
    ids = [journal._producer.list_topics(timeout=10).cluster_id.encode() for journal in (before, after)]
    stamp = db[rows.STAMP] = db[rows.STAMP].replace(*ids)
    db.close()
    with viewing(settings_for(after.bootstrap, tmp_path)) as view:
        assert view.catch_up(10)
        assert sites_of(view, "/store/lost") == []
        assert sites_of(view, "/store/instead") == sites_of(view, "/store/later") == [A]
        assert (view._db.get(rows.STAMP), view.progress.rebuilt) == (stamp, 1), "told by the record alone"
    with viewing(settings_for(after.bootstrap, tmp_path)) as view:
        assert view.catch_up(10)
        assert (view.progress.rebuilt, view.progress.applied) == (0, 0), "the same journal is gone on with"


def test_a_journal_that_becomes_shorter_under_a_running_view_ends_it(
    journal: Journal, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.say(holds(A, held("/store/x")))
    journal.flush()
    faults: list[Exception] = []
    view = View(settings, settings.datadir, print, faults.append)
    view.start()
    assert view.catch_up(10)
    sample = view._ends.sample
    short = (topics.REPLICAS, topics.partition_of(DATASET, 4))
    monkeypatch.setattr(view._ends, "sample", lambda *a: {**(sample(*a) or {}), short: 0})
    assert not view.catch_up(10)
    assert not view.alive
    view.stop()
    assert ["shorter than what the view has heard" in str(fault) for fault in faults] == [True]


def test_a_peers_topic_that_comes_later(journal: Journal, tmp_path: Path) -> None:
    other = Journal()
    other.touch(topics.REPLICAS, topics.KEEPING, topics.ANNOUNCEMENTS, topics.SEALS)
    other.say(holds(A, held("/store/y")))
    with viewing(settings_for(other.bootstrap, tmp_path)) as view:
        assert not view.catch_up(1)
        other.say(holds(B, held("/store/x")), site=B)
        other.touch(*(topics.remote(B, base) for base in (topics.KEEPING, topics.ANNOUNCEMENTS, topics.SEALS)))
        other.flush()
        until = time.monotonic() + 30
        while not view.catch_up(5):
            assert time.monotonic() < until
            time.sleep(0.2)
        assert sites_of(view, "/store/x") == [B]


def test_without_a_broker_nothing_is_claimed(tmp_path: Path) -> None:
    with viewing(settings_for("127.0.0.1:1", tmp_path)) as view:
        assert not view.catch_up(0.5)
        assert view.catalogue.where(Lfn("/store/x")) == []


def test_a_second_owner_is_refused_in_one_line(journal: Journal, settings: Settings) -> None:
    with viewing(settings), pytest.raises(NeverWorks, match="another process has this view open"):
        View(settings, settings.datadir, print)


READER = """
import sys
from streams.core.names import Lfn
from streams.views.catalogue import Catalogue
catalogue = Catalogue.open_secondary(sys.argv[1], sys.argv[2])
for line in sys.stdin:
    catalogue.refresh()
    print(len(catalogue.where(Lfn(line.strip()))), sum(d.known.files for d in catalogue.datasets()), flush=True)
catalogue.close()
"""


def test_another_process_reads_along(journal: Journal, settings: Settings, tmp_path: Path) -> None:
    with viewing(settings) as view:
        assert view.catch_up(10)
        command = [sys.executable, "-c", READER, str(view.path), str(tmp_path / "secondary")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            for number in range(1, 4):
                journal.say(holds(A, held(f"/store/{number}")))
                journal.flush()
                assert view.catch_up(10)
                reader.stdin.write(f"/store/{number}\n")
                reader.stdin.flush()
                assert reader.stdout.readline() == f"1 {number}\n"
                view._db.flush()
            reader.stdin.close()
            assert reader.wait(10) == 0


def test_a_secondary_in_process_sees_after_refresh(journal: Journal, settings: Settings, tmp_path: Path) -> None:
    with viewing(settings) as view:
        assert view.catch_up(10)
        secondary = Catalogue.open_secondary(str(view.path), str(tmp_path / "secondary"))
        journal.say(holds(A, held("/store/x")))
        journal.flush()
        assert view.catch_up(10)
        secondary.refresh()
        assert [r.site for r in secondary.where(Lfn("/store/x"))] == [A]
        secondary.close()
