"""Sizes, times, tables and progress as people and pipes see them."""

from __future__ import annotations

import json
import math
import re

import pytest

from streams.cli import screen


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (377_623, "378 kB"),
        (999_499, "999 kB"),
        (999_600, "1.00 MB"),
        (1e9, "1.00 GB"),
        (12.34e9, "12.34 GB"),
        (5e18, "5000 PB"),
    ],
)
def test_size(count: float, words: str) -> None:
    assert screen.size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (9.96, "10.0 s"), (59, "59 s"), (125, "2 m 05 s"), (7260, "2 h 01 m")]
)
def test_duration(seconds: float, words: str) -> None:
    assert screen.duration(seconds) == words


def test_moment() -> None:
    assert screen.moment(1_767_225_600_123) == "2026-01-01T00:00:00.123Z"
    assert screen.moment(None) == "-"


def test_a_piped_table_cuts_nothing_and_escapes_controls(capsys: pytest.CaptureFixture[str]) -> None:
    lfn = "/store/" + "x" * 900
    screen.table(("lfn", ">bytes"), [(lfn, 1234567), ("a\x1b[31mb", None)])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.split() == ["LFN", "BYTES"]
    assert second.split() == [lfn, "1,234,567"]
    assert third.split() == ["a\\x1b[31mb", "-"]


def test_progress_in_a_pipe_is_plain_lines_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = screen.ProgressLine("moving", now_s=lambda: now[0])
    for second in range(7):
        now[0] = float(second)
        progress.show(second, 10, second * 1_000_000, 10_000_000)
    progress.end(10, 10, 10_000_000, 10_000_000, "done")
    err = capsys.readouterr().err
    assert "\r" not in err
    assert "\x1b" not in err
    lines = err.splitlines()
    assert lines[1] == "moving  2/10 files  2.00 MB of 10.00 MB  1.00 MB/s  8.0 s left"
    assert lines[-1] == "moving  10/10 files  10.00 MB in 6.0 s at 1.67 MB/s  done"


def test_rate_and_time_left_are_those_of_the_window_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = screen.ProgressLine("moving", window_s=60, now_s=lambda: now[0])
    for second in range(0, 100, 10):  # all of it moves in the first 50 s
        now[0] = float(second)
        progress.show(0, 1, min(second, 50) * 1_000_000, 100_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[3] == "moving  0/1 files  30.00 MB of 100 MB  1.00 MB/s  1 m 10 s left"
    assert lines[-1] == "moving  0/1 files  50.00 MB of 100 MB  333 kB/s  2 m 30 s left"


def test_no_rate_where_nothing_moved_and_an_intents_own_duration(capsys: pytest.CaptureFixture[str]) -> None:
    progress = screen.ProgressLine("moved", now_s=lambda: 0.0)
    progress.end(3, 3, 4_290_000_000, 4_290_000_000, "done", seconds=42.9)
    progress.end(0, 3, 0, 4_290_000_000, "failed", seconds=12.0)
    progress.end(3, 3, 4_290_000_000, 4_290_000_000, "done", seconds=0.0)
    assert capsys.readouterr().err.splitlines() == [
        "moved  3/3 files  4.29 GB in 43 s at 100 MB/s  done",
        "moved  0/3 files  0 B in 12 s  failed",
        "moved  3/3 files  4.29 GB in 0.0 s  done",
    ]


def test_watched_from_the_middle_what_moved_before_is_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = screen.ProgressLine("moving", now_s=lambda: now[0])
    for second in range(7):
        now[0] = float(second)
        progress.show(500 + second, 1000, 500_000_000 + second * 1_000_000, 1_000_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "moving  500/1,000 files  500 MB of 1.00 GB"
    assert lines[1] == "moving  502/1,000 files  502 MB of 1.00 GB  1.00 MB/s  8 m 18 s left"


def _told_left(err: str) -> list[float]:
    """Seconds left, as each line tells them; -1 where it tells none."""
    found = []
    for line in err.splitlines():
        words = re.search(r"(?:(\d+) m )?([\d.]+) s left", line)
        found.append(-1.0 if words is None else float(words[1] or 0) * 60 + float(words[2]))
    return found


@pytest.mark.parametrize("small_first", [True, False])
def test_the_time_left_of_small_and_large_files_is_never_off_by_an_order(
    capsys: pytest.CaptureFixture[str], small_first: bool
) -> None:
    """2,000 files of 1 kB at 400/s and one of 1.2 GB at 150 MB/s, one after the other: 13 s."""
    now, truth = [0.0], []
    progress = screen.ProgressLine("moving", now_s=lambda: now[0])
    for half in range(26):
        now[0] = half / 2
        small_s, large_s = min(now[0], 5.0), max(0.0, now[0] - 5)
        if not small_first:
            small_s, large_s = max(0.0, now[0] - 8), min(now[0], 8.0)
        files, moved = int(small_s * 400), int(small_s * 400_000 + large_s * 150_000_000)
        files += large_s >= 8
        progress.show(files, 2001, moved, 1_202_000_000)
        told = _told_left(capsys.readouterr().err)
        if told and told[0] >= 0:
            truth.append((told[0], 13 - now[0]))
    assert truth or not small_first, "of the large one the time left is told"
    assert all(left / 10 <= told <= left * 10 + 1 for told, left in truth), truth


def test_many_small_files_are_told_by_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = screen.ProgressLine("moving", now_s=lambda: now[0])
    for second in range(7):
        now[0] = float(second)
        progress.show(second * 100, 1000, second * 120_000, 1_000_000)  # those that are left are smaller
    assert _told_left(capsys.readouterr().err)[-1] == 4.0


def test_an_outage_is_said_once_and_its_end_too(capsys: pytest.CaptureFixture[str]) -> None:
    outage = screen.Outage()
    for why in ("", "no broker (1 suppressed)", "no broker (2 suppressed)", "", "", "again", ""):
        outage.note(why)
    assert capsys.readouterr().err.splitlines() == [
        "waiting for the broker: no broker (1 suppressed)",
        "the broker answers again",
        "waiting for the broker: again",
        "the broker answers again",
    ]


def test_json_lines_are_json_whatever_is_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    def none(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    odd = {"x": float("nan"), "y": [float("inf"), {"z": -math.inf}], "t": (1.5, "ä\u202e\x1b"), "long": "n" * 50_000}
    for ascii_only in (False, True):
        screen.put_json(odd, ensure_ascii=ascii_only)
        line = capsys.readouterr().out
        assert line.count("\n") == 1
        found = json.loads(line, parse_constant=none)
        assert found == {
            "x": "NaN",
            "y": ["Infinity", {"z": "-Infinity"}],
            "t": [1.5, "ä\u202e\x1b"],
            "long": "n" * 50_000,
        }
        assert "\x1b" not in line


def test_of_the_first_few_of_a_mix_nothing_is_concluded(capsys: pytest.CaptureFixture[str]) -> None:
    """As the demo sends them: three files of 258 kB first, then 500 small ones and one of 1 GB."""
    now = [0.0]
    progress = screen.ProgressLine("moving", now_s=lambda: now[0])
    for second, files, moved in ((0, 0, 0), (2, 3, 775_000), (4, 503, 17_790_000)):
        now[0] = float(second)
        progress.show(files, 504, moved, 1_020_000_000)
    assert _told_left(capsys.readouterr().err) == [-1.0, -1.0, -1.0]


def test_a_label_hides_no_value() -> None:
    assert screen.labelled({"lfn": "/a", "entry": 1}, {"x": 2}) == {"lfn": "/a", "entry": 1, "x": 2}
    values = {"lfn": 5, "_lfn": 6, "entry": 7}
    assert screen.labelled({"lfn": "/a", "entry": 1}, values) == {"__lfn": "/a", "_entry": 1, **values}
