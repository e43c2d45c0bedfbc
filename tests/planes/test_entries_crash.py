"""kill -9 of a plane that lands entries, at its system calls; what was told is there, and a successor ends the job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_plane_killed_at_any_step_is_succeeded(tmp_path: Path) -> None:
    """Every seventh step; for all of them say 1."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("entries_killed.py"), str(tmp_path), "7"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8
