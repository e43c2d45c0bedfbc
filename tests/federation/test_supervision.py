"""The supervisor over small real processes, and what `down` may kill."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from streams.cli.status import is_follower_to_be
from streams.core.names import Site
from streams.errors import NeverWorks, Temporary
from streams.federation import local, plan, process
from streams.federation.java import Java, Jvm
from streams.federation.process import RunningPart
from streams.federation.supervisor import Supervisor
from tests.process_ends import has_ended
from tests.system_tools import tool

SLEEPS = [sys.executable, "-S", "-c", "import time; time.sleep(300)"]


def until(done: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def watching(state: Path, *parts: RunningPart) -> Supervisor:
    record = plan.FederationRecord((), 1)
    found = Supervisor(state, record, Jvm(Java(Path("java"), "21"), (), state / "log4j2.properties"))
    for part in parts:
        found.add(part)
        part.start()
    return found


def part(state: Path, name: str, *command: str) -> RunningPart:
    return RunningPart(name, [*command], lambda: os.environ, state / "logs" / f"{name}.log", lambda: True)


def test_a_part_that_is_started_again_gets_the_configuration_of_now(tmp_path: Path) -> None:
    """A local worker has a door unless its site's own file speaks of doors; the file may change while it runs."""
    site = plan.SitePlan(Site("T1_A"), 20_000, 1)
    own = tmp_path / site.name / "site.toml"
    own.parent.mkdir()
    own.write_text("")
    found = watching(tmp_path)
    worker = found.worker(site, 0)
    worker.command = [sys.executable, "-S", "-c", "import os; print(os.environ.get('T2G_DOOR_HOST'), flush=True)"]
    for text in ("", "[door]\n"):
        own.write_text(text)
        worker.start()
        assert worker.popen is not None
        worker.popen.wait(10)
    assert worker.log.read_text().split() == ["127.0.0.1", "None"]


def test_a_part_that_may_be_killed_and_is_not_ready_in_time_is_started_anew_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.federation.supervisor.PARTS_READY_S", 0.3)
    late = part(tmp_path, "mirror", *SLEEPS)
    late.killable, late.probe = True, lambda: late.restarts == 1
    found = watching(tmp_path, late)
    try:
        found._start_and_wait([late])
        assert (late.state, late.restarts) == ("ready", 1)
        late.probe = lambda: False
        with pytest.raises(Temporary, match="not ready within 0 s: mirror"):
            found._start_and_wait([late])
        assert late.restarts == 2
    finally:
        process.stop([late])


def test_what_asks_to_be_started_again_is_at_once(tmp_path: Path) -> None:
    one = part(tmp_path, "worker", "/bin/sh", "-c", "echo bye; exit 75")
    found = watching(tmp_path, one)
    assert one.popen is not None
    one.popen.wait(10)
    one.command = SLEEPS
    found.watch()
    try:
        assert one.popen is not None, "running again"
        assert one.restarts == 1
        assert one.why.startswith("asked to be started again")
        assert one.why.endswith("last line: bye")
    finally:
        found.stop_all()


def test_what_ends_at_once_every_time_is_started_ever_more_slowly(tmp_path: Path) -> None:
    one = part(tmp_path, "worker", "/bin/sh", "-c", "exit 3")
    found = watching(tmp_path, one)
    until(lambda: (found.watch(), one.restarts >= 3)[1])
    wait_s = one.not_before - time.monotonic()
    assert 1.0 < wait_s <= 2.0
    assert "exit code 3" in one.why
    started = one.restarts
    for _ in range(20):
        found.watch()
    assert one.restarts == started, "not before its time"
    found.stop_all()


def test_what_asks_to_be_started_again_every_time_is_started_ever_more_slowly_and_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = part(tmp_path, "T1_A-worker-0", "/bin/sh", "-c", "echo no space left; exit 75")
    found = watching(tmp_path, one)
    until(lambda: (found.watch(), one.restarts >= 4)[1])
    found.stop_all()
    said = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    after = "T1_A-worker-0 asked to be started again after 0 s"
    assert said == [
        f"{after}{when}; last line: no space left" for when in ("", *(f", starts in {n} s" for n in (1, 2, 4)))
    ]


@pytest.mark.parametrize("anew", [False, True])
def test_a_federation_whose_directory_is_removed_ends_and_leaves_nothing_there(tmp_path: Path, *, anew: bool) -> None:
    state = tmp_path / "state"
    state.mkdir()
    one = part(state, "worker", *SLEEPS)
    found = watching(state, one)
    pid = one.popen.pid if one.popen is not None else 0
    shutil.rmtree(state)
    if anew:
        (tmp_path / "other").mkdir()  # or it would have the inode of the one that was removed
        state.mkdir()
    found.run()
    found.stop_all()
    assert not psutil.pid_exists(pid)
    assert list(state.iterdir()) == [] if anew else not state.exists()


def test_stop_ends_all_even_the_stubborn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_S", 0.5)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"
    )
    parts = [part(tmp_path, "A-broker", *SLEEPS), part(tmp_path, "A-worker-0", sys.executable, "-c", deaf)]
    found = watching(tmp_path, *parts)
    until(lambda: parts[1].log.read_text() == "deaf\n")
    pids = [p.popen.pid for p in parts if p.popen]
    found.stop_all()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    record = plan.read_record(tmp_path)
    assert record is not None
    assert not record.running
    assert {p.state for p in record.parts} == {"stopped"}


def test_a_long_log_is_cut_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOG_BYTES_MAX", 20_000)
    monkeypatch.setattr(process, "LOG_BYTES_KEPT", 5_000)
    talks = f"i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exec {tool('sleep')} 300"
    one = part(tmp_path, "talker", "/bin/sh", "-c", talks)
    found = watching(tmp_path, one)
    until(lambda: (found.watch(), one.log.with_suffix(".log.1").exists())[1])
    try:
        until(lambda: (found.watch(), one.log.stat().st_size < 20_001)[1])
        assert one.log.with_suffix(".log.1").stat().st_size == 5_000
        assert one.restarts == 0
    finally:
        found.stop_all()


def test_a_worker_that_reads_its_tables_is_waited_for_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.federation.supervisor.PARTS_READY_S", 0.2)
    found = watching(tmp_path)
    slow, began = replace(part(tmp_path, "T2_B-worker-0", *SLEEPS), recovers=True), time.monotonic()
    slow.probe = lambda: time.monotonic() > began + 1.0
    try:
        found._start_and_wait([found.add(slow)])
        assert slow.state == "ready"
        record = plan.read_record(tmp_path)
        assert record is not None
        assert record.step == "waiting for T2_B-worker-0 to read its tables"
        mirror = part(tmp_path, "mirror", *SLEEPS)
        mirror.probe = lambda: False
        with pytest.raises(Temporary, match="not ready within 0 s: mirror"):
            found._start_and_wait([found.add(mirror)])
    finally:
        found.stop_all()


def test_a_part_that_cannot_be_started_now_is_started_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BACKOFF_MAX_S", 0.2)
    one, other = part(tmp_path, "worker", *SLEEPS), part(tmp_path, "mirror", *SLEEPS)
    found = watching(tmp_path, one, other)
    assert one.popen is not None
    one.popen.kill()
    one.popen.wait(10)
    start, refused = RunningPart.start, list[str]()

    def full(self: RunningPart) -> None:
        if len(refused) < 2:
            refused.append(self.name)
            raise OSError(28, "No space left on device")
        start(self)

    monkeypatch.setattr(RunningPart, "start", full)
    monkeypatch.setattr(plan, "write_record", no_room)
    try:
        found.watch()
        assert (one.popen, one.state) == (None, "failing")
        assert one.why == "cannot be started: No space left on device, tried again in 0 s"
        until(lambda: (found.watch(), one.popen is not None)[1])
        assert refused == ["worker", "worker"]
        assert other.popen is not None
        assert other.popen.poll() is None, "what runs goes on"
    finally:
        found.stop_all()


def no_room(*_: object) -> None:
    raise Temporary("cannot write: No space left on device", "federation.json")


def test_a_site_that_cannot_be_added_now_leaves_the_others_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.federation.supervisor.RELOAD_AGAIN_S", 0.2)
    one = part(tmp_path, "T1_A-broker", *SLEEPS)
    found, tries = watching(tmp_path, one), list[int]()

    def not_ready() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise Temporary("not ready within 90 s: T3_C-broker")
        found.publish("ready", ready=True)
        found.stopping = True

    monkeypatch.setattr(found, "bring_up", not_ready)
    plan.write_record(tmp_path, found.record)
    found.reload = True
    said: list[str] = []
    real = plan.write_record
    monkeypatch.setattr(plan, "write_record", lambda state, record: (said.append(record.fault), real(state, record)))
    try:
        found.run()
        assert len(tries) == 3
        assert "not ready within 90 s: T3_C-broker" in said
        assert (found.record.ready, found.record.fault) == (True, "")
        assert one.popen is not None
        assert one.popen.poll() is None
    finally:
        found.stop_all()


def test_a_killed_supervisor_takes_its_parts_along(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.federation.test_supervision import part, watching, SLEEPS
found = watching(Path({str(tmp_path)!r}), part(Path({str(tmp_path)!r}), "worker", *SLEEPS))
print(found.parts["worker"].popen.pid, flush=True)
time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert psutil.pid_exists(pid)
        owner.kill()
    until(lambda: has_ended(pid))


def test_down_kills_its_own_and_never_a_stranger(tmp_path: Path) -> None:
    """The number of a dead part may belong to anybody by now: only the time of its start tells."""
    own, stranger = (subprocess.Popen(SLEEPS) for _ in range(2))
    try:
        parts = (
            plan.FederationPart("own", own.pid, psutil.Process(own.pid).create_time(), "ready"),
            plan.FederationPart("stranger", stranger.pid, psutil.Process(stranger.pid).create_time() - 60, "ready"),
        )
        plan.write_record(tmp_path, replace(plan.FederationRecord((), 1), pid=2**22 + 1, created=1.0, parts=parts))
        local.down(tmp_path)
        assert own.wait(10) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        for process in (own, stranger):
            process.kill()
            process.wait()


def test_a_port_that_is_taken_is_named_with_who_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Temporary) as caught:
            plan.check_ports([plan.SitePlan(Site("T1_A"), port)])
        line = str(caught.value)
    assert f"port {port} of T1_A is taken" in line
    assert f"pid {os.getpid()}" in line
    assert "\n" not in line


def test_ports_are_chosen_once_and_kept(tmp_path: Path) -> None:
    first = plan.planned(["T1_A", "T2_B"], None, workers=1, credit_bytes=1)
    plan.write_record(tmp_path, first)
    again = plan.planned(["T2_B", "T3_C"], plan.read_record(tmp_path), workers=1, credit_bytes=1)
    assert again.sites[:2] == first.sites
    assert len({port for site in again.sites for port in site.ports}) == sum(len(site.ports) for site in again.sites)


def test_followers_are_in_the_plan_once_somebody_wants_them(tmp_path: Path) -> None:
    first = plan.planned(["T1_A"], None, workers=1, credit_bytes=1)
    assert not first.followers
    second = plan.planned(["T1_A"], first, workers=1, credit_bytes=1, followers=True)
    plan.write_record(tmp_path, second)
    found = plan.read_record(tmp_path)
    assert found is not None
    assert plan.planned(["T1_A"], found, workers=1, credit_bytes=1).followers
    before = (tmp_path / "federation.json").read_text().replace(',\n "followers": true', "")
    assert "followers" not in before
    (tmp_path / "federation.json").write_text(before)
    assert plan.read_record(tmp_path) == first, "as an earlier release wrote it"
    (site,) = found.sites
    assert site.follower_port in site.ports
    assert len(set(site.ports)) == len(site.ports)


def test_a_follower_starts_behind_all_else_with_its_site_s_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.federation.supervisor.FOLLOWERS_AFTER_S", 0.5)
    site, found = plan.SitePlan(Site("T1_A"), 20_000, 1), watching(tmp_path)
    one = found.follower(site)
    assert one.command[-2:] == ["--metrics", str(site.follower_port)]
    one.command = [sys.executable, "-S", "-c", "import os; print(os.environ['T2G_SITE_CONFIG'], flush=True)"]
    found.watch()
    assert one.popen is None
    until(lambda: (found.watch(), one.popen is not None or one.restarts > 0)[1])
    until(lambda: one.log.exists() and one.log.read_text() != "")
    assert one.log.read_text().splitlines()[0] == str(tmp_path / "T1_A" / "site.toml")
    found.stop_all()


@pytest.mark.parametrize(
    ("state", "restarts", "is_to_be"),
    [("starting", 0, True), ("stopped", 0, True), ("starting", 1, False), ("failing", 3, False), ("ready", 0, False)],
)
def test_a_follower_that_starts_first_is_nothing_that_is_not_ready(state: str, restarts: int, is_to_be: bool) -> None:
    part = local.PartStatus("T1_A-follower", state, 1, 1, restarts, 1, "")
    assert is_follower_to_be(part) == is_to_be
    assert not is_follower_to_be(replace(part, name="T1_A-worker-0"))


def test_a_record_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "federation.json").write_text('{"sites": 3}')
    with pytest.raises(NeverWorks) as caught:
        plan.read_record(tmp_path)
    assert str(tmp_path / "federation.json") in str(caught.value)


def test_up_never_touches_clusters_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text('[sites.T1_A]\nbootstrap = "elsewhere:9092"\n')
    with pytest.raises(NeverWorks, match="clusters of your own"):
        local.up(tmp_path, tmp_path / "cache")
    with pytest.raises(NeverWorks, match="not removed"):
        local.down(tmp_path, purge=True)
    assert [p.name for p in tmp_path.iterdir()] == ["sites.toml"]
