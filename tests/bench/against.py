"""`python -m tests.bench.against COMMIT`: rows of the bench at an older commit and at this one, in turn, in one run.

Each round is old, new, old: new/old says what changed, old/old what the machine does by itself. Every run has a
federation of its own; nothing else may run meanwhile. `--only big,small,latency` chooses rows, `--rounds N` (5).
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^(?P<name>.+?)\s{2,}(?P<value>[\d.]+) (?P<unit>\S+)\s+reach")
LESS_IS_BETTER = {"s", "ms", "MB", "events"}
RUN_S = 1200


def run(tree: Path, only: str, quick: bool) -> dict[str, tuple[float, str]]:
    """Values and units of one run of a row's part in a tree, by the row's words."""
    words = [sys.executable, "-m", "tests.bench", "--rounds", "1", "--only", only, *(["--quick"] if quick else [])]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False)
    if done.returncode:
        raise SystemExit(f"{only} at {tree} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    rows = (ROW.match(line) for line in done.stdout.splitlines())
    return {_named(row["name"]): (float(row["value"]), row["unit"]) for row in rows if row is not None}


def _named(row: str) -> str:
    """By what older commits call it, which had no doors and so said no way."""
    return row.strip().replace(", in the log", "").replace("1,000 intents", "1000 intents")


def better(new: float, old: float, unit: str) -> float:
    """Over 1: new is better."""
    return old / new if unit in LESS_IS_BETTER else new / old


def main() -> None:
    ask = argparse.ArgumentParser(prog="python -m tests.bench.against", description=__doc__)
    ask.add_argument("commit")
    ask.add_argument("--only", default="latency,intents,events,small,big,entries")
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--quick", action="store_true")
    said = ask.parse_args()
    with tempfile.TemporaryDirectory(prefix="t2g-against-") as folder:
        old = Path(folder) / "old"
        subprocess.run(["git", "worktree", "add", "--detach", str(old), said.commit], cwd=ROOT, check=True)
        try:
            for only in said.only.split(","):
                compare(old, only, said.rounds, said.quick)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)


def compare(old: Path, only: str, rounds: int, quick: bool) -> None:
    changed, drift = defaultdict(list), defaultdict(list)
    for number in range(rounds):
        first, now, again = run(old, only, quick), run(ROOT, only, quick), run(old, only, quick)
        for name, (value, unit) in now.items():
            if name not in first or name not in again or not value:
                continue
            before = statistics.mean((first[name][0], again[name][0]))
            changed[name].append(better(value, before, unit))
            drift[name].append(better(again[name][0], first[name][0], unit))
            print(
                f"  round {number + 1}  {name}: old {first[name][0]}, new {value}, old {again[name][0]} {unit}",
                flush=True,
            )
    for name, ratios in changed.items():
        spread = drift[name]
        print(
            f"{name:<58} new/old {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})  "
            f"old/old {statistics.median(spread):.3f} (from {min(spread):.3f} to {max(spread):.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
