"""kill -9 of a writer before and after every system call that matters: see crash_runner.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("variant", ["modern", "no-renameat2", "repair"])
def test_kill_9_at_every_step(tmp_path: Path, variant: str) -> None:
    """In memory where that exists: a killed process loses nothing written, so hundreds of real syncs prove no more."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as directory:
        points = crash_points(directory, variant)
    assert points > 100


def crash_points(directory: str, variant: str) -> int:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("crash_runner.py"), directory, variant],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
