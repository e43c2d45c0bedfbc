"""Sizes, times, tables and progress as people and pipes see them."""

from __future__ import annotations

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
    progress = screen.Progress("moving", now_s=lambda: now[0])
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
