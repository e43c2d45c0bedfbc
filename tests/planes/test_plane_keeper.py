"""A worker without a plane gets another, whatever ended the last one and however long none can be started."""

from __future__ import annotations

import errno
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from streams.planes.host import keeper as keeper_module
from streams.planes.host import plane_process as process
from streams.planes.host.keeper import FIRST_S, LONGEST_S, PlaneKeeper
from tests.planes.stage import A, B, settings_of

LASTING = "import sys; sys.stdin.buffer.read()"
SHORT = "pass"


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Kept:
    """A keeper of small programs that stand for planes; `failing` raises what a start shall fail with."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program = LASTING
        self.failing: Callable[[], None] = lambda: None
        self.pids: list[int] = []
        self.started = 0
        real = subprocess.Popen

        def popen(_: object, **options: Any) -> subprocess.Popen[bytes]:
            self.failing()
            made = real([sys.executable, "-S", "-c", self.program], **options)
            self.pids.append(made.pid)
            return made

        monkeypatch.setattr(process.subprocess, "Popen", popen)
        self.keeper = PlaneKeeper(settings_of(B, {A: "unused", B: "unused"}, root), "w", self._count)
        self.plane = self.keeper.plane

    def _count(self) -> None:
        self.started += 1


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    one = Kept(tmp_path, monkeypatch)
    yield one
    one.keeper.stop()


def test_a_plane_that_ended_is_followed_by_another(kept: Kept) -> None:
    kept.keeper.start()
    for number in (1, 2, 3):
        wait_until(lambda number=number: kept.started == number)  # type: ignore[misc]
        assert kept.plane.alive
        os.kill(kept.pids[-1], 9)
    wait_until(lambda: kept.started == 4)
    assert len(set(kept.pids)) == 4
    assert kept.plane.writer.startswith("plane-w-4-")


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN, errno.EMFILE])
def test_a_start_that_fails_is_tried_again(kept: Kept, caplog: pytest.LogCaptureFixture, number: int) -> None:
    failures = iter(range(3))

    def fail() -> None:
        if next(failures, None) is not None:
            raise OSError(number, os.strerror(number))

    kept.failing = fail
    with caplog.at_level(logging.WARNING, "streams.planes.host.keeper"):
        kept.keeper.start()
        assert not kept.plane.alive
        wait_until(lambda: kept.started == 1)
    assert kept.plane.alive
    said = [one.getMessage() for one in caplog.records if one.name == "streams.planes.host.keeper"]
    assert said == [
        f"the plane cannot be started: {os.strerror(number)}; another is started in {wait_s:.1f} s"
        for wait_s in (FIRST_S, 2 * FIRST_S, 4 * FIRST_S)
    ]
    os.kill(kept.pids[-1], 9)
    wait_until(lambda: kept.started == 2)


def test_a_plane_that_nobody_could_watch_is_not_left_behind(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if thread.name == "plane_watch" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    kept.keeper.start()
    wait_until(lambda: kept.started == 1)
    assert refused
    assert not psutil.pid_exists(kept.pids[0])
    assert psutil.pid_exists(kept.pids[1])


def test_planes_that_die_at_once_are_started_less_and_less_often(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper_module, "FIRST_S", 0.05)
    monkeypatch.setattr(keeper_module, "LONGEST_S", 0.4)
    kept.program = SHORT
    kept.keeper.start()

    def waits() -> list[float]:
        found = (re.search(r"another is started in ([0-9.]+) s", one.getMessage()) for one in caplog.records)
        return [float(one[1]) for one in found if one]

    wait_until(lambda: len(waits()) >= 5)
    assert waits()[:5] == [0.1, 0.1, 0.2, 0.4, 0.4]  # the first is 0.05, as it is said
    monkeypatch.setattr(keeper_module, "LIVED_S", 0.0)
    caplog.clear()
    wait_until(lambda: len(waits()) >= 2)
    assert set(waits()) == {0.1}
    assert LONGEST_S == 30.0


def test_stopping_ends_the_waiting_and_nothing_is_started_any_more(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "FIRST_S", 30.0)
    kept.program = SHORT
    kept.keeper.start()
    wait_until(lambda: kept.started == 1 and not kept.plane.alive)
    started_s = time.monotonic()
    kept.keeper.stop()
    kept.keeper._thread.join(5)
    assert not kept.keeper._thread.is_alive()
    assert time.monotonic() - started_s < 5.0
    assert len(kept.pids) == 1


def test_a_fault_of_whoever_is_told_ends_nothing(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        kept.started += 1
        raise RuntimeError("the loop is closed")

    monkeypatch.setattr(kept.keeper, "_started", fails)
    kept.keeper.start()
    wait_until(lambda: kept.started == 1)
    os.kill(kept.pids[-1], 9)
    wait_until(lambda: kept.started == 2)
    assert kept.plane.alive
