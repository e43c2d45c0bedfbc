"""Workers of one pool on real brokers: they come, go and die, and every range is counted once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import uproot

from streams.client.producer import IntentHandle
from streams.core import records as m
from streams.core import topics
from streams.core.selections.parts import entries_of, filed
from tests.events.event_files import ZMUMU
from tests.sites.rig import B, Rig, Spot, completions, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]

ENTRIES = 160_000
TAKE = ["sh", "-c", 'sleep "$3"; cp "$1" "$2"', "take", "{in}", "{out}"]
"""The range as it is: what a command starts and imports would cost more than all the rest."""
CLI = [sys.executable, "-c", "from streams.cli import main; main()"]


class Hand:
    """A worker process; what it tells of its ranges is in a file."""

    def __init__(self, rig: Rig, folder: Path, name: str, intent: str, *words: str) -> None:
        self.out, self.err = folder / f"{name}.jsonl", folder / f"{name}.err"
        env = {key: value for key, value in os.environ.items() if not key.startswith("T2G_")}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*CLI, "--state", str(rig.state), "--site", B, "event", "work", intent, "--json", *words],
                stdout=out,
                stderr=err,
                env=env | {"TMPDIR": str(folder)},
            )

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def wait(self, timeout_s: float = 120) -> int:
        code = self.process.wait(timeout_s)
        assert "Traceback" not in self.err.read_text(), self.err.read_text()
        return code

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


Hire = Callable[..., Hand]


@pytest.fixture
def hire(rig: Rig, tmp_path: Path) -> Iterator[Hire]:
    hands: list[Hand] = []

    def start(intent: str, *words: str) -> Hand:
        hands.append(Hand(rig, tmp_path, f"worker{len(hands)}", intent, *words))
        return hands[-1]

    yield start
    for hand in hands:
        if hand.process.poll() is None:
            hand.process.kill()
            hand.process.wait(30)


def peak(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(91.2, 6.0, count)


def publish(rig: Rig, spot: Spot, files: dict[str, np.ndarray | bytes]) -> IntentHandle:
    """Registers files with a tree `events` of one column each, and asks for them at the pool `zpeak` of B."""
    contents = {}
    for name, values in files.items():
        path = rig.path(rig.sites[0], spot.lfn(name))
        if isinstance(values, np.ndarray):
            path.parent.mkdir(parents=True, exist_ok=True)
            with uproot.recreate(path) as file:
                file.mktree("events", {"M": "f8"})
                for some in np.array_split(values, 5):
                    file["events"].extend({"M": some})
        contents[spot.lfn(name)] = path.read_bytes() if isinstance(values, np.ndarray) else values
    rig.register(contents, spot.block())
    return rig.publish([spot.block()], to=[f"{B}/zpeak"], entries="events{M}")  # type: ignore[list-item]


def booked(rig: Rig, spot: Spot, intent: str) -> dict[tuple[str, int, int], m.HeldFile]:
    """The outputs by what they are of; each is there with its size, once."""
    dataset, _ = filed(spot.block())
    found: dict[tuple[str, int, int], m.HeldFile] = {}
    for held in rig.facts(B, topics.REPLICAS, key=dataset):
        for file in held.files:
            asked = entries_of(file.selection or "")
            assert asked is not None
            assert asked.stop is not None
            assert file.part_of is not None
            name = (str(file.part_of), asked.start, asked.stop)
            assert found.setdefault(name, file).lfn == file.lfn, f"{name} of {intent} has two outputs"
            assert rig.path(B, file.lfn).stat().st_size == file.bytes
    return found


def assert_tiled(spans: list[tuple[int, int]], entries: int) -> None:
    """Every entry is in just one of the ranges."""
    at = 0
    for start, stop in sorted(spans):
        assert start == at
        at = stop
    assert at == entries


def test_workers_come_go_and_die_and_every_entry_is_taken_once(
    rig: Rig, spot: Spot, hire: Hire, tmp_path: Path
) -> None:
    lfns = [spot.lfn(name) for name in ("big.root", "zmumu.root")]
    intent = publish(rig, spot, {"big.root": peak(ENTRIES, 1), "zmumu.root": ZMUMU.read_bytes()})
    words = ["--", *TAKE, "0.3"]
    stays = hire(intent.id, *words)
    until(lambda: len(stays.told) >= 2, "the first worker has done two ranges")
    more = [hire(intent.id, *words) for _ in range(3)]
    until(lambda: all(hand.told for hand in more), "each of four has done a range")
    dies, leaves, hangs = more
    orphans = until(lambda: len(found := dies.descendants()) >= 2 and found, "the one that dies has a command")
    dies.process.send_signal(signal.SIGKILL)
    hangs.process.send_signal(signal.SIGSTOP)
    leaves.process.send_signal(signal.SIGTERM)
    assert leaves.wait() == 143
    assert dies.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(orphans, 10)
    assert not alive, "its command outlived it"
    before = len(stays.told)
    assert stays.wait() == 0, stays.err.read_text()
    hangs.process.send_signal(signal.SIGCONT)
    assert hangs.wait() == 0, hangs.err.read_text()
    assert len(stays.told) > before, "nothing was left for the last one: the test is too quick"

    assert rig.wait_done(intent).last.arrived == 2
    outputs = booked(rig, spot, intent.id)
    for lfn in lfns:
        source = uproot.open(rig.path(rig.sites[0], lfn))["events"]["M"].array(library="np")
        ranges = {(start, stop): file for (of, start, stop), file in outputs.items() if of == lfn}
        assert len(ranges) == 16
        assert_tiled(list(ranges), len(source))
        taken = [pq.read_table(rig.path(B, ranges[span].lfn))["M"].to_numpy() for span in sorted(ranges)]
        assert np.array_equal(np.concatenate(taken), source)
        on_disk = list(rig.path(B, lfn).parent.glob(f"{Path(lfn).name}.*"))
        assert len(on_disk) == 16
    told = [told["output"] for hand in (stays, *more) for told in hand.told]
    assert len(told) - len(set(told)) <= 3, "a range may be worked on twice where a slot changed hands, no more"
    assert not [path for path in tmp_path.glob("t2g-work-*") if path.is_dir()][1:], (
        "only the killed one's scratch stays"
    )
    rig.audit()


def test_a_command_that_fails_on_one_file_leaves_the_rest(rig: Rig, spot: Spot, hire: Hire) -> None:
    odd, empty = b"not a ROOT file", peak(0, 0)
    intent = publish(rig, spot, {"bad.root": peak(300, 2), "good.root": peak(300, 3), "empty.root": empty, "odd": odd})
    script = 'case "$T2G_LFN" in *bad*) echo first >&2; echo "no such bin" >&2; exit 3;; esac; cp {in} {out}'
    hand = hire(intent.id, "--tries", "2", "--", "sh", "-c", script)
    assert hand.wait() == 8
    assert "no such bin" in hand.err.read_text()
    outcome = rig.wait(intent)
    assert outcome.exit_code == 8
    assert outcome.last.arrived == 2, "the empty one has no range that could fail"
    lost, never = sorted(outcome.unfinished, key=lambda one: one.lfn)
    assert (lost.lfn, never.lfn) == (spot.lfn("bad.root"), spot.lfn("odd"))
    assert never.reason.scope is m.Scope.SOURCE
    assert (lost.reason.scope, lost.reason.failure_class) == (m.Scope.AGENT, m.FailureClass.PERMANENT)
    assert "entries [" in lost.reason.text
    assert "exit code 3: no such bin" in lost.reason.text
    outputs = booked(rig, spot, intent.id)
    assert {of for of, _, _ in outputs} == {spot.lfn("good.root")}
    assert_tiled([(start, stop) for _, start, stop in outputs], 300)
    assert hire(intent.id, "--", "true").wait() == 8, "who comes late hears how it ended"
    rig.audit()


ROOT = "import sys,uproot; sys.stdout.write(str(uproot.open(sys.argv[1])['events'].num_entries))"
ARROW = "import sys,pyarrow as pa; sys.stdout.write(str(pa.ipc.open_stream(sys.stdin.buffer).read_all().num_rows))"


@pytest.mark.parametrize(("kind", "code"), [("root", ROOT), ("arrow", ARROW)], ids=["root", "arrow"])
def test_ranges_come_as_root_files_and_arrow_streams(rig: Rig, spot: Spot, hire: Hire, kind: str, code: str) -> None:
    intent = publish(rig, spot, {"f.root": peak(100, 4)})
    hand = hire(intent.id, "--input", kind, "--stdout", "--out-suffix", "txt", "--", sys.executable, "-c", code, "{in}")
    assert hand.wait() == 0, hand.err.read_text()
    outputs = booked(rig, spot, intent.id)
    found = {(start, stop): rig.path(B, file.lfn).read_text() for (_, start, stop), file in outputs.items()}
    assert found == {(0, 64): "64", (64, 100): "36"}


def test_a_cancelled_intent_ends_every_worker_with_one_last_word(rig: Rig, spot: Spot, hire: Hire) -> None:
    intent = publish(rig, spot, {"f.root": peak(4000, 5)})
    sleeps = hire(intent.id, "--", "sleep", "600")
    commands = until(lambda: len(found := sleeps.descendants()) >= 2 and found, "it has a command")
    works = hire(intent.id, "--", "sh", "-c", "sleep 0.3; cp {in} {out}")
    until(lambda: works.told, "some ranges are done")
    intent.cancel()
    assert [hand.wait() for hand in (sleeps, works)] == [6, 6]
    _, alive = psutil.wait_procs(commands, 10)
    assert not alive
    said = completions(rig.facts(B, topics.COMPLETIONS, key=intent.id), intent.id)
    assert said
    assert len(set(map(repr, said))) == 1
    rig.audit()
