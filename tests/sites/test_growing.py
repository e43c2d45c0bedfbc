"""Open intents on real sites: what is registered later flows at once, whatever is killed, until they are closed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from streams.client.producer import IntentHandle
from streams.consuming.stream import EventStream
from streams.core import records as m
from streams.core import topics
from streams.core.intent import State
from tests.sites.rig import A, B, Files, Rig, Spot, completions, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]


def _files(spot: Spot, *tails: str, size: int = 3_000) -> dict[str, bytes]:
    return {spot.lfn(tail): noise(size, tail) for tail in tails}


def _flow(rig: Rig, files: Files, block: str, what: str) -> float:
    """Registers files at A; how long until the last is whole at B."""
    rig.register(files, block)  # type: ignore[arg-type]
    return _arrive(rig, files, what)


def _arrive(rig: Rig, files: Files, what: str) -> float:
    begin_s = time.monotonic()
    until(lambda: all(rig.path(B, lfn).exists() for lfn in files), f"{what}: all at {B}", every_s=0.02)
    took_s = time.monotonic() - begin_s
    print(f"\n{what}: {len(files)} files at {B} {took_s:.2f} s after they were registered")
    rig.assert_arrived(files)
    return took_s


def _taken(rig: Rig, handle: IntentHandle) -> list[str]:
    """LFNs of the chain as the source wrote it, which must have none twice."""
    written = [w for w in rig.facts(A, topics.MANIFESTS, key=handle.id) if isinstance(w, m.ManifestWritten)]
    chain: dict[int, m.ManifestWritten] = {}
    for one in written:
        chain.setdefault(one.no, one)
    lfns = [str(item.lfn) for no in sorted(chain) for item in chain[no].items]
    assert len(lfns) == len(set(lfns)), "a file is in two manifests"
    assert sorted(chain) == list(range(len(chain)))
    return lfns


def test_a_dataset_flows_while_it_grows(rig: Rig, spot: Spot) -> None:
    """Nothing is there when it is asked for; later names are smaller, in other blocks too; then it is closed."""
    handle = rig.publish([spot.dataset], source=A, until="close")
    until(lambda: handle.snapshot().state is State.ACTIVE, "accepted though nothing is there")
    everything: dict[str, bytes] = {}
    for n, tails in enumerate((["m", "n"], ["a", "b"], ["0"], ["z"])):
        files = _files(spot, *tails)
        _flow(rig, files, spot.block(f"b{3 - n}"), f"round {n}")
        everything |= files
    until(lambda: handle.snapshot().idle, "all that it took has arrived, and it is open")
    assert handle.snapshot().exit_code == 5
    rig.register(last := _files(spot, "last"), spot.block())
    handle.close_intake()
    outcome = rig.wait_done(handle)
    everything |= last
    rig.assert_arrived(everything)
    assert sorted(_taken(rig, handle)) == sorted(everything)
    rig.register(late := _files(spot, "late"), spot.block())
    time.sleep(3)
    assert not any(rig.path(B, lfn).exists() for lfn in late), "closed: takes nothing more"
    assert outcome.last.arrived == len(everything)
    rig.audit()


@pytest.mark.parametrize("who", ["worker", "plane"])
def test_the_source_is_killed_while_files_come(rig: Rig, spot: Spot, who: str) -> None:
    handle = rig.publish([spot.dataset], source=A, until="close")
    everything = _files(spot, *(f"{n:03}" for n in range(20, 40)))
    _flow(rig, everything, spot.block(), "before")
    name = f"{A}-worker-0"
    before, plane = rig.part(name), rig.plane_pid(name)
    for n in range(10):
        more = _files(spot, f"{19 - n:03}")
        everything |= more
        rig.register(more, spot.block())
        if n == 4:
            rig.kill(name) if who == "worker" else os.kill(plane, signal.SIGKILL)
        time.sleep(0.1)
    _arrive(rig, everything, f"after kill -9 of the {who}")
    if who == "worker":
        rig.until_back(before)
    _flow(rig, again := _files(spot, "000-again"), spot.block(), "after that")
    handle.close_intake()
    rig.wait_done(handle)
    everything |= again
    assert sorted(_taken(rig, handle)) == sorted(everything)
    said = completions(rig.facts(B, topics.COMPLETIONS, key=handle.id), handle.id)
    assert sum(one.sealed.size for one in set(said)) == len(everything)
    rig.audit()


def test_until_so_many(rig: Rig, spot: Spot) -> None:
    handle = rig.publish([spot.dataset], source=A, until=3)
    _flow(rig, two := _files(spot, "x", "y"), spot.block(), "two of three")
    assert not handle.snapshot().ended
    rig.register(more := _files(spot, "a", "b"), spot.block())
    outcome = rig.wait_done(handle)
    assert outcome.last.arrived == 3
    assert sum(rig.path(B, lfn).exists() for lfn in two | more) == 3


def test_until_a_time(rig: Rig, spot: Spot) -> None:
    handle = rig.publish([spot.dataset], source=A, until=datetime.now(UTC) + timedelta(seconds=6))
    _flow(rig, files := _files(spot, "x", "y"), spot.block(), "before the time")
    outcome = rig.wait_done(handle)
    assert outcome.last.arrived == len(files)


def test_entries_of_a_growing_dataset_reach_a_consumer(rig: Rig, spot: Spot) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def add(tail: str, first: int, count: int) -> None:
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.table({"n": list(range(first, first + count))}), sink)
        rig.register({spot.lfn(f"{tail}.parquet"): sink.getvalue().to_pybytes()}, spot.block())

    live = (f"{B}/live",)  # asked for at B, so that its source hears through the mirror that it is closed
    handle = rig.publish([spot.dataset], live, home=B, source=A, entries="[:]", until="close")  # type: ignore[arg-type]
    came: list[tuple[float, int]] = []

    def read() -> None:
        with EventStream(handle.id, settings=rig.settings(B), timeout_s=60) as stream:
            for batch in stream:
                came.extend((time.monotonic(), n) for n in batch.arrow.to_pydict()["n"])

    reading = threading.Thread(target=read)
    reading.start()
    for n, tail in enumerate("mza"):
        add(tail, 1000 * n, 1000)
        begin_s = time.monotonic()
        until(_has(came, 1000 * (n + 1)), f"the entries of file {n}", every_s=0.02)
        print(f"\n1,000 entries of file {n} read {came[-1][0] - begin_s:.2f} s after it was registered")
    handle.close_intake()
    reading.join(60)
    assert not reading.is_alive(), "the stream ends when the intent does"
    assert [n for _, n in came] == list(range(3000))
    rig.wait_done(handle)
    rig.audit()


def _has(came: list[tuple[float, int]], count: int) -> Callable[[], bool]:
    return lambda: len(came) >= count
