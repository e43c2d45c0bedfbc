"""The guard of a worker's loop: what it measures, and how little it looks when nothing happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from agents import process
from agents.process import LOOK_S, StallGuard


def _guarded(during: Callable[[StallGuard], None], *, quiet_s: float) -> StallGuard:
    """A guard that looked for some time without any turn, and what then happens on its loop."""

    async def run() -> StallGuard:
        guard = StallGuard()
        looks = asyncio.create_task(guard.tick())
        await asyncio.sleep(quiet_s)
        during(guard)
        await asyncio.sleep(3 * LOOK_S)
        looks.cancel()
        return guard

    return asyncio.run(run())


def _turn_of(seconds: float) -> Callable[[StallGuard], None]:
    def turn(guard: StallGuard) -> None:
        guard.check()
        time.sleep(seconds)

    return turn


@pytest.mark.parametrize("quiet_s", [0.0, 4 * LOOK_S])
def test_a_turn_that_keeps_the_loop_is_measured_also_behind_a_quiet_time(quiet_s: float) -> None:
    longest_s = _guarded(_turn_of(0.4), quiet_s=quiet_s).longest_s
    assert 0.4 - LOOK_S - 0.01 <= longest_s < 2.0


def test_turns_that_keep_nothing_are_no_stall() -> None:
    assert _guarded(_turn_of(0.0), quiet_s=4 * LOOK_S).longest_s < 0.3


def test_who_stood_still_ends_at_his_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[str] = []
    monkeypatch.setattr(process, "STALL_S", 0.2)
    monkeypatch.setattr(process, "QUIET_S", 0.2)
    monkeypatch.setattr(process, "die", lambda what, **_: died.append(what))

    def turns(guard: StallGuard) -> None:
        guard.check()
        assert not died
        time.sleep(0.5)
        guard.check()

    _guarded(turns, quiet_s=2 * LOOK_S)
    assert died[0].startswith("stood still")


def test_who_stood_still_writes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[str] = []
    monkeypatch.setattr(process, "STALL_S", 0.2)
    monkeypatch.setattr(process, "QUIET_S", 0.2)
    monkeypatch.setattr(process, "die", lambda what, **_: died.append(what))

    def writes(guard: StallGuard) -> None:
        guard.refuse_stall()
        assert not died
        time.sleep(0.5)
        guard.refuse_stall()

    _guarded(writes, quiet_s=2 * LOOK_S)
    assert died[0].startswith("stood still")


def test_a_loop_without_turns_is_looked_at_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    check = StallGuard.check
    monkeypatch.setattr(StallGuard, "check", lambda guard: (looks.append(guard), check(guard))[1])
    _guarded(lambda _: None, quiet_s=20 * LOOK_S)
    assert len(looks) <= 2
