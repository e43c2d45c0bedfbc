"""However much is open, the event loop has its turn: waking, ticking and turns are held to their slice.

With full manifests, as a site has them that moves many small files. Measured in this thread's processor time, since the
machine that runs the tests may be busy with others; limits are several times what is seen on an idle one.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from streams import wire
from streams.core import records as m
from streams.core.manifest import Manifest
from streams.core.names import Adler32, Lfn, ManifestId
from streams.core.policy import MANIFEST_ITEMS_MAX, Policy
from streams.core.ranges import Ranges
from streams.planes import orders
from streams.wire import versions
from streams.worker import rows, scheduler
from streams.worker.turn import waiting_key
from tests.core import example as x
from tests.worker.rig import PARTITIONS, Rig

OPEN = 256
STEP_S = 5 * scheduler.SLICE_S
"""What no stretch of the loop may exceed."""
TURN_S = 0.005
"""A progress turn on an idle machine takes a tenth of it, with its manifest in memory or not."""
ITEMS = tuple(
    m.Item(lfn, x.DATASET, x.BLOCK, lfn, "", 1000 + n, 1000 + n, Adler32(f"{n:08x}"), f"{1000 + n},17,{n}", x.C)
    for n in range(MANIFEST_ITEMS_MAX)
    for lfn in (Lfn(f"/store/data/Run2026A/SingleMuon/NANOAOD/v1/000/{n:08}.root"),)
)
POLICY = Policy(plans_open_max=OPEN, credit_bytes=1 << 40)


@pytest.fixture(scope="module")
def full() -> dict[str, dict[str, bytes]]:
    """Tables of a destination that has OPEN full manifests of an intent planned and opened.

    As turns leave them, but for the bodies: all are that of number 0, since 256 would take a minute to make.
    """
    rig = Rig(x.B, POLICY)
    rig.hear(x.body(), x.decided())
    first = x.written(0, ITEMS, last=False)
    framed, index = wire.encode(first), rows.encode_index(Manifest(first).index)
    for no in range(OPEN):
        manifest = ManifestId.of(x.INTENT, 0, no)
        rig.tables["waiting"][waiting_key(manifest, x.C)] = framed
        rig.tables["manifests"][manifest] = framed
        rig.tables["manifests"][rows.index_key(manifest)] = index
        rig.hear(x.reported(manifest), x.opened(manifest=manifest))
    return rig.snapshot()


@pytest.fixture(autouse=True)
def _small_heap() -> Iterator[None]:
    """A worker's heap holds a worker. What the tests before have left would be searched by a collection in a slice."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def rig(full: dict[str, dict[str, bytes]]) -> Rig:
    """A new worker over these tables, asleep; its slices end by the time this thread has worked."""
    made = Rig(x.B, POLICY, awake=False)
    for name, table in full.items():
        made.tables[name].update(table)
    made.scheduler._elapsed_s = time.thread_time
    made.log.framed = []
    return made


def slowest(steps: Iterable[Any]) -> float:
    """Seconds of the longest step."""
    longest, before = 0.0, time.thread_time()
    for _ in steps:
        longest = max(longest, time.thread_time() - before)
        before = time.thread_time()
    return longest


def waking(rig: Rig, partition: int) -> Iterator[None]:
    """As assignment.py does it: a stretch of the loop a step."""
    rig.scheduler.begin_slice()
    for _ in rig.dispatcher.waking(partition):
        if rig.scheduler.slice_is_over:
            yield
            rig.scheduler.begin_slice()


def ticks(rig: Rig) -> Iterator[None]:
    while rig.dispatcher.tick():
        yield


def wake(rig: Rig) -> None:
    for partition in range(PARTITIONS):
        list(waking(rig, partition))
    list(ticks(rig))


def test_waking_and_what_falls_due_then_go_in_slices(rig: Rig) -> None:
    longest = max(slowest(waking(rig, partition)) for partition in range(PARTITIONS))
    assert longest < STEP_S
    assert slowest(ticks(rig)) < STEP_S
    assert len({order.manifest_id for order in rig.take(orders.Open)}) > 50, "as many as the plane may hold are opened"
    assert rig.log.framed is not None
    assert len(rig.log.framed) == OPEN, "every open transfer is planned again"


def test_a_tick_over_all_that_is_open_goes_in_slices(rig: Rig) -> None:
    wake(rig)
    rig.now_ms += scheduler.IDLE_MS + 1
    assert slowest(ticks(rig)) < STEP_S


def test_a_progress_turn_costs_little_however_many_are_open(rig: Rig) -> None:
    wake(rig)
    names = [ManifestId(key) for key in rig.tables["transfers"] if not key.startswith(rows.OPEN)]
    facts = [rig.record(x.progress(Ranges([(0, 1000)]), Ranges.of(0), manifest=name)) for name in names]
    rig.turns._indexes.clear()
    rig.turns._bodies.clear()
    longest, began = 0.0, time.thread_time()
    for fact in facts:
        before = time.thread_time()
        assert rig.dispatcher.hear(**fact) is None
        longest = max(longest, time.thread_time() - before)
    assert longest < STEP_S
    assert (time.thread_time() - began) / len(facts) < TURN_S


def test_a_body_goes_on_as_the_bytes_that_were_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded where it is heard, in its own record and in its plan; encoded and decoded nowhere else on the loop."""
    rig = Rig(x.B, POLICY)
    rig.hear(x.body(), x.decided())
    heard = rig.record(x.written(0, ITEMS))
    rig.log.framed = []
    monkeypatch.setattr(versions.BY_CLASS[m.ManifestWritten], "encode", lambda *_: pytest.fail("encoded again"))
    monkeypatch.setattr(wire, "decode_stored", lambda *_: pytest.fail("decoded again"))
    assert rig.dispatcher.hear(**heard) is None
    (plan,) = rig.log.framed
    headers = wire.headers(m.TransferPlanned, m.Origin(x.B, "worker-0", "i", 1, rig.now_ms))
    place = rig.scheduler.partition(x.MANIFEST)
    assert rig.dispatcher.hear(plan.topic, place, 1, plan.key, plan.value, headers) is None
    assert rig.turns.body(x.MANIFEST) == heard["value"]
    (order,) = rig.take(orders.Open)
    assert order.manifest == heard["value"]
    rig.opened()
    assert len(rig.take(m.ChunksRequested)) == 1, "of the body that the plan brought"
