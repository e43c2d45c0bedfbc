"""Commands that fail, hang, write much, leave others behind; and a worker that is killed. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.core.names import Lfn
from streams.core.readers.ranges import Meant
from streams.pools.job import VARIABLES, Job, filled
from streams.pools.outputs import fault_of
from streams.running.command import TAIL_BYTES, CommandEnd, RunningCommand
from streams.settings import load_settings
from tests.process_ends import has_ended

ROOT = Path(__file__).parents[2]
OF = Meant(Lfn("/store/f.root"), "events", 64, 128, "entries:events[64:128]")


def ended(running: RunningCommand, timeout_s: float = 30.0) -> CommandEnd:
    deadline = time.monotonic() + timeout_s
    while (how := running.ended()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return how


def run(*command: str, timeout_s: float | None = None) -> CommandEnd:
    return ended(RunningCommand(command, {}, timeout_s=timeout_s))


def until(done: Callable[[], object], what: str, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def pids(path: Path, count: int) -> list[int]:
    until(lambda: path.exists() and len(path.read_text().split()) == count, "the command has started")
    return [int(pid) for pid in path.read_text().split()]


def test_how_a_command_ended_is_said() -> None:
    assert run("true").ok
    assert run("sh", "-c", "echo one >&2; echo two; exit 3").words == "ended with exit code 3: two"
    assert run("sh", "-c", "kill -SEGV $$").words == "was ended by SIGSEGV"
    assert run("sh", "-c", "kill -TERM $$").words == "was ended by SIGTERM"
    assert run("/no/such/command").words == "ended with exit code 127: /no/such/command: No such file or directory"


def test_what_it_says_is_kept_short_and_safe_to_show() -> None:
    much = "import sys\nfor _ in range(20000): sys.stderr.write('x' * 1000)\n"
    code = much + "sys.stderr.write('\\n\\x1b[31mbad\\n\\n'); sys.exit(1)"
    running = RunningCommand([sys.executable, "-c", code], {})
    how = ended(running)
    assert how.tail == "\\x1b[31mbad"
    assert len(running._tail) <= TAIL_BYTES


def test_a_hanging_command_is_killed_with_all_that_came_of_it(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    script = f"trap '' TERM INT HUP; sleep 600 & echo $! >> {told}; setsid sleep 600 & echo $! >> {told}; wait"
    running = RunningCommand(["sh", "-c", script], {}, timeout_s=1.0)
    left = pids(told, 2)
    how = ended(running)
    assert how.timed_out
    assert not how.ok
    assert how.words == "took longer than 1 s"
    for pid in left:
        until(lambda pid=pid: has_ended(pid), f"{pid} is gone")


def test_what_a_command_leaves_behind_is_killed_when_it_ends(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    assert run("sh", "-c", f"sleep 600 & echo $! >> {told}; (setsid sleep 600 & echo $! >> {told})").ok
    for pid in pids(told, 2):
        until(lambda pid=pid: has_ended(pid), f"{pid} is gone")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_worker_leaves_no_command(tmp_path: Path, number: int) -> None:
    told = tmp_path / "pids"
    script = f"sleep 600 & echo $! >> {told}; echo $$ >> {told}; trap '' TERM; wait"
    start = f"RunningCommand(['sh', '-c', {script!r}], {{}})"
    code = f"import time; from streams.running.command import RunningCommand; {start}; time.sleep(600)"
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        left = pids(told, 2)
    finally:
        worker.send_signal(number)
        worker.wait(30)
    for pid in left:
        until(lambda pid=pid: has_ended(pid), f"{pid} is gone")


def test_stop_returns_when_nothing_is_left(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    running = RunningCommand(["sh", "-c", f"sleep 600 & echo $! >> {told}; wait"], {})
    left = pids(told, 1)
    running.stop()
    assert has_ended(running.pid)
    assert all(map(has_ended, left))
    running.stop()


def test_a_command_gets_its_range_and_writes_its_output(tmp_path: Path) -> None:
    script = 'cat; echo "{start}-{stop} {lfn} $T2G_RANGE_START $T2G_RANGE_STOP $T2G_LFN {other}"'
    job = Job(("sh", "-c", script), "arrow", stdout=True)
    Path(job.input_path(str(tmp_path))).write_bytes(b"in:")
    assert ended(job.start(str(tmp_path), OF)).ok
    written = Path(job.output_path(str(tmp_path)))
    assert written.read_text() == f"in:64-128 {OF.lfn} 64 128 {OF.lfn} {{other}}\n"
    assert fault_of(str(written), allow_empty=False) is None
    job.clear(str(tmp_path))
    assert fault_of(str(written), allow_empty=False) == "wrote nothing"
    job.clear(str(tmp_path))


def test_no_output_an_empty_one_and_what_is_no_file_are_faults(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert fault_of(str(tmp_path / "none"), allow_empty=True) == "wrote nothing"
    assert fault_of(str(tmp_path / "empty"), allow_empty=False) == "wrote an empty file"
    assert fault_of(str(tmp_path / "empty"), allow_empty=True) is None
    assert fault_of(str(tmp_path / "link"), allow_empty=True) == "wrote something that is no regular file"
    assert fault_of(str(tmp_path), allow_empty=True) == "wrote something that is no regular file"


def test_words_are_filled_in_and_other_braces_stay() -> None:
    words = {"in": "/a b", "out": "{in}"}
    assert filled(["awk", "{print {in}}", "{out}", "{}"], words) == ["awk", "{print /a b}", "{in}", "{}"]


def test_a_command_may_be_transfer2go_itself(tmp_path: Path) -> None:
    """None of the variables looks like a setting written wrong."""
    load_settings(environ=dict.fromkeys(VARIABLES.values(), "1"), files=[], state=str(tmp_path), need_federation=False)


def test_the_environment_and_the_folder_are_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEN", "yes")
    out = tmp_path / "out"
    assert ended(RunningCommand(["sh", "-c", "pwd; echo $SEEN $MORE"], {"MORE": "more"}, stdout=str(out))).ok
    assert out.read_text().split() == [os.path.realpath(tmp_path), "yes", "more"]
