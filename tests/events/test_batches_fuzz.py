"""Hostile payloads: WireError or a sound batch within bounds, never the end of the process. See fuzz_runner.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_payloads_never_end_the_process(seed: int) -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzz_runner.py"), str(seed), "3000"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    refused, taken = map(int, done.stdout.split())
    assert refused > 1_000
    assert taken > 50
