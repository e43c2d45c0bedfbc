"""kill -9 of a writer before and after every system call that matters: see crash_runner.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("variant", ["modern", "no-renameat2"])
def test_kill_9_at_every_step(tmp_path: Path, variant: str) -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("crash_runner.py"), tmp_path, variant],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
