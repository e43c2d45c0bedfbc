"""Work in several processes: answers in order, an error in a line, and nobody left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from streams.auditing.processes import in_processes
from streams.errors import NotFound, Temporary, Transfer2goError


def squared(number: int) -> int:
    if number < 0:
        raise NotFound("no such number", str(number), "take another")
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 7:
        raise ValueError("seven")
    if number > 1000:
        time.sleep(60)
    return number * number


def test_answers_come_in_the_order_of_the_parts() -> None:
    assert list(in_processes(squared, [3, 1, 2], "them")) == [9, 1, 4]


def test_one_that_fails_is_told_in_a_line_and_ends_the_others() -> None:
    with pytest.raises(NotFound) as refused:
        list(in_processes(squared, [-1, 2000], "them"))
    assert str(refused.value) == "no such number (-1); take another"
    with pytest.raises(Transfer2goError, match="ValueError: seven"):
        list(in_processes(squared, [7, 2000], "them"))
    left = [" ".join(one.cmdline()) for one in psutil.Process().children()]
    assert [words for words in left if "spawn_main" in words] == []


def test_one_that_dies_is_temporary() -> None:
    with pytest.raises(Temporary) as refused:
        list(in_processes(squared, [1, 13], "them"))
    assert "ended with -9" in str(refused.value)
    assert "--processes" in str(refused.value)


_ORPHANED = """
from tests.audit.test_processes import squared
from streams.auditing.processes import in_processes
if __name__ == "__main__":
    list(in_processes(squared, [2000], "it"))
"""


def test_none_outlives_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_ORPHANED)
    parent = psutil.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    )
    deadline = time.monotonic() + 60
    while not (children := [one for one in parent.children() if "spawn_main" in " ".join(one.cmdline())]):
        assert time.monotonic() < deadline, "it starts a process"
        time.sleep(0.05)
    time.sleep(2)  # it is at work
    parent.kill()
    parent.wait(10)
    _, alive = psutil.wait_procs(children, 30)
    assert alive == []
