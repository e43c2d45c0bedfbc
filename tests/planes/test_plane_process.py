"""The child process and its pipe: orders, deaths, endings. The cluster is a mock; the process is real."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from streams.core.names import ManifestId, Text
from streams.core.records import FailureClass, PartLost, PartOpened, Reason, Scope
from streams.planes.host.plane_process import ORDERS_MAX, PlaneProcess
from streams.planes.orders import ORDER_BYTES_MAX, Assign, Forget, Stop, pack, read_order
from tests.planes.conftest import Stage
from tests.planes.stage import A, B, Clusters, manifest_of, open_order, put, settings_of

ID = ManifestId("T1_A.00000000-0000-0000-0000-000000000000.0.0")
STOP = Stop(ID, 1, Reason(Scope.POLICY, FailureClass.PERMANENT, "stop", Text("cancelled")))


def wait_until(condition, timeout_s: float = 10.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_orders_cross_a_pipe() -> None:
    orders = [Assign({1: None, 2: 17}), Forget(ID), STOP]
    pipe = io.BytesIO(b"".join(map(pack, orders)))
    assert [read_order(pipe) for _ in orders] == orders
    assert read_order(pipe) is None


def test_an_unreadable_order_is_one_error_and_the_next_is_read() -> None:
    broken = b"\x00\x00\x00\x05hello"
    pipe = io.BytesIO(broken + pack(Forget(ID)))
    with pytest.raises(ValueError, match="unreadable order of 5 bytes"):
        read_order(pipe)
    assert read_order(pipe) == Forget(ID)
    assert read_order(io.BytesIO(pack(Forget(ID))[:-1])) is None
    with pytest.raises(EOFError):
        read_order(io.BytesIO((ORDER_BYTES_MAX + 1).to_bytes(4, "big")))


def test_it_does_not_start_by_hand() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streams.planes.host.child"], input=b"", capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert b"started by a worker" in done.stderr
    assert b"Traceback" not in done.stderr


def test_bad_orders_are_skipped_and_the_good_one_is_carried_out(stage: Stage) -> None:
    child = stage.b._child
    assert child is not None
    child.waiting.put(b"\x00\x00\x00\x05hello")
    strange = pickle.dumps("not an order")
    child.waiting.put(len(strange).to_bytes(4, "big") + strange)
    stage.b.tell(STOP)
    assert stage.listener.wait(PartLost, lambda m: m.manifest == ID) == PartLost(ID, 1, STOP.reason)
    assert stage.b.alive


def test_it_ends_when_its_pipe_closes(clusters: Clusters, tmp_path: Path) -> None:
    plane = PlaneProcess(settings_of(B, clusters, tmp_path))
    plane.start()
    assert plane.pid is not None
    process = psutil.Process(plane.pid)
    plane.tell(Assign({0: None}))
    started = time.monotonic()
    plane.stop()
    assert time.monotonic() - started < 4.0
    assert not process.is_running()
    assert not plane.alive
    assert not plane.tell(STOP)
    assert plane.dropped == 1


def test_it_ends_when_its_worker_is_killed(clusters: Clusters, tmp_path: Path) -> None:
    """A worker that starts a plane, says its pid, and is killed."""
    program = (
        "import sys, time, pickle\n"
        "from streams.planes.host.plane_process import PlaneProcess\n"
        "plane = PlaneProcess(pickle.loads(sys.stdin.buffer.read()))\n"
        "plane.start()\n"
        "print(plane.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(pickle.dumps(settings_of(B, clusters, tmp_path)))
    worker.stdin.close()
    plane = psutil.Process(int(worker.stdout.readline()))
    assert plane.is_running()
    worker.kill()
    worker.wait()
    worker.stdout.close()
    wait_until(lambda: not plane.is_running() or plane.status() == psutil.STATUS_ZOMBIE)


def test_a_death_is_told_and_the_next_start_is_another_incarnation(clusters: Clusters, tmp_path: Path) -> None:
    deaths: list[tuple[str, int]] = []
    told = threading.Event()

    def on_exit(incarnation: str, code: int) -> None:
        deaths.append((incarnation, code))
        told.set()

    plane = PlaneProcess(settings_of(B, clusters, tmp_path), "w", on_exit)
    first = plane.start()
    assert plane.start() == first
    assert plane.writer == f"plane-w-1-{first[:8]}"
    assert plane.pid is not None
    os.kill(plane.pid, 9)
    assert told.wait(10)
    assert deaths == [(first, -9)]
    assert not plane.alive
    assert not plane.tell(STOP)
    second = plane.start()
    assert second != first
    assert plane.writer == f"plane-w-2-{second[:8]}"
    plane.stop()
    assert deaths == [(first, -9)]


def test_telling_never_blocks(clusters: Clusters, tmp_path: Path) -> None:
    plane = PlaneProcess(settings_of(B, clusters, tmp_path))
    plane.start()
    assert plane.pid is not None
    process = psutil.Process(plane.pid)
    process.suspend()
    started = time.monotonic()
    for _ in range(ORDERS_MAX + 3000):
        plane.tell(STOP)
    assert time.monotonic() - started < 5.0
    assert plane.dropped > 0
    process.resume()
    plane.stop()


def test_storage_that_is_not_there_is_said_and_used_when_it_comes(stage: Stage, clusters: Clusters) -> None:
    files = {"/store/late": b"x" * 10}
    put(stage.root_a, files)
    body = manifest_of(stage.root_a, files)
    stage.b.stop()
    stage.root_b.rename(stage.root_b.with_name("away"))
    stage.b.start()
    stage.b.tell(Assign(dict.fromkeys(range(4))))
    stage.b.tell(open_order(body))
    lost = stage.listener.wait(PartLost, lambda m: m.manifest == body.manifest)
    assert "create the directory, or mount the disk" in lost.reason.text
    stage.root_b.mkdir()
    time.sleep(2.1)
    stage.b.tell(open_order(body, 2))
    stage.listener.wait(PartOpened, lambda m: m.manifest == body.manifest)
    assert clusters[A] != clusters[B]
