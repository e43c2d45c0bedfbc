"""Both planes as processes, a mock cluster for each site, a mirror between: bytes go from A's storage to B's."""

from __future__ import annotations

import os
import random
import threading

from streams.core.ranges import Ranges
from streams.core.records import ChunksServed, Message, PartOpened, TransferProgress
from streams.planes.orders import Assign, Forget, Serve
from tests.planes.conftest import Stage
from tests.planes.stage import ALL, manifest_of, open_order, partition, put, request_of

NOISE = random.Random(1)


def opened(stage: Stage, body) -> PartOpened:  # type: ignore[no-untyped-def]
    return stage.listener.wait(PartOpened, lambda m: m.manifest == body.manifest)


def sealed(stage: Stage, body, items: int) -> TransferProgress:  # type: ignore[no-untyped-def]
    def all_there(m: TransferProgress) -> bool:
        return m.manifest == body.manifest and m.sealed == Ranges([(0, items)])

    return stage.listener.wait(TransferProgress, all_there)


def test_one_file_crosses(stage: Stage) -> None:
    files = {"/store/one/file.root": NOISE.randbytes(1_000_000)}
    put(stage.root_a, files)
    body = manifest_of(stage.root_a, files)
    stage.b.tell(open_order(body))
    answer = opened(stage, body)
    assert not answer.present
    assert not answer.failed
    stage.a.tell(Serve(request_of(body)))
    sealed(stage, body, 1)
    served = stage.listener.wait(ChunksServed, lambda m: m.manifest == body.manifest)
    assert served.bytes == 1_000_000
    assert (stage.root_b / "store/one/file.root").read_bytes() == files["/store/one/file.root"]
    stage.b.tell(Forget(body.manifest))


def test_many_files_of_three_manifests_cross(stage: Stage) -> None:
    bodies = []
    for n in range(3):
        files = {f"/store/many{n}/d{k % 3}/{k}": NOISE.randbytes(k * 40) for k in range(200)}
        put(stage.root_a, files)
        bodies.append((manifest_of(stage.root_a, files), files))
    for body, _ in bodies:
        stage.b.tell(open_order(body))
    for body, _ in bodies:
        opened(stage, body)
        stage.a.tell(Serve(request_of(body)))
    for body, files in bodies:
        sealed(stage, body, 200)
        for lfn, content in files.items():
            assert (stage.root_b / lfn[1:]).read_bytes() == content
    progress = [one for one in stage.listener.heard if isinstance(one, TransferProgress)]
    assert len(progress) <= 3 * 3 * 2, "facts about many files travel together"


def test_payload_that_came_before_its_part_was_open_is_read_again(stage: Stage) -> None:
    """As after a restart: the partition is read, the transfer opens a moment later."""
    files = {"/store/early": NOISE.randbytes(600_000)}
    put(stage.root_a, files)
    body = manifest_of(stage.root_a, files)
    later = {"/store/later": NOISE.randbytes(1000)}
    put(stage.root_a, later)
    other = manifest_of(stage.root_a, later)
    while partition(other) != partition(body):
        other = manifest_of(stage.root_a, later)
    stage.b.tell(open_order(other))
    opened(stage, other)
    stage.a.tell(Serve(request_of(body)))
    stage.listener.wait(ChunksServed, lambda m: m.manifest == body.manifest)
    stage.a.tell(Serve(request_of(other)))
    sealed(stage, other, 1)  # the same partition: so the earlier records were passed over
    stage.b.tell(open_order(body))
    sealed(stage, body, 1)
    assert (stage.root_b / "store/early").read_bytes() == files["/store/early"]


def test_a_plane_killed_in_the_middle_of_a_file_is_succeeded(stage: Stage) -> None:
    """kill -9 after a part was told; the successor opens with what the row knows and is asked for the rest only."""
    size = 4_000_000
    files = {"/store/killed": NOISE.randbytes(size)}
    put(stage.root_a, files)
    body = manifest_of(stage.root_a, files)
    half = Ranges([(0, size // 2)])
    stage.b.tell(open_order(body))
    opened(stage, body)
    stage.a.tell(Serve(request_of(body, 1, half)))
    told = stage.listener.wait(TransferProgress, lambda m: m.manifest == body.manifest and m.verified == half)
    stage.a.tell(Serve(request_of(body, 2, Ranges([(size // 2, size * 3 // 4)]))))
    assert stage.b.pid is not None
    os.kill(stage.b.pid, 9)
    stage.listener.heard.clear()
    first = stage.b.incarnation
    while stage.b.alive:
        threading.Event().wait(0.01)
    assert stage.b.start() != first
    stage.b.tell(ALL)
    stage.b.tell(open_order(body, verified=told.verified))
    assert opened(stage, body).attempt == 1
    stage.a.tell(Serve(request_of(body, 3, Ranges([(0, size)]) - told.verified)))
    sealed(stage, body, 1)
    assert (stage.root_b / "store/killed").read_bytes() == files["/store/killed"]
    assert not list(stage.root_b.rglob(".t2g-*.part"))


def test_a_source_plane_killed_while_it_serves_is_asked_again(stage: Stage) -> None:
    size = 4_000_000
    files = {"/store/source": NOISE.randbytes(size)}
    put(stage.root_a, files)
    body = manifest_of(stage.root_a, files)
    stage.b.tell(open_order(body))
    opened(stage, body)
    stage.a.tell(Serve(request_of(body)))
    assert stage.a.pid is not None
    os.kill(stage.a.pid, 9)
    while stage.a.alive:
        threading.Event().wait(0.01)
    stage.a.start()
    stage.a.tell(Serve(request_of(body, 2)))
    sealed(stage, body, 1)
    assert (stage.root_b / "store/source").read_bytes() == files["/store/source"]


def test_what_is_damaged_on_the_way_is_asked_for_again(stage: Stage) -> None:
    files = {"/store/damaged": NOISE.randbytes(1_000_000)}
    put(stage.root_a, files)
    body = manifest_of(stage.root_a, files)
    damaged = []

    def spoil(value: bytes) -> bytes | None:
        if len(damaged) < 2:
            damaged.append(value)
            return value[:100] + b"!!!!" + value[104:] if len(damaged) == 1 else None
        return value

    stage.mirror.spoil = spoil
    stage.b.tell(open_order(body))
    opened(stage, body)
    stage.a.tell(Serve(request_of(body)))
    rest = Ranges([(524_288, 1_000_000)])
    stage.listener.wait(TransferProgress, lambda m: m.manifest == body.manifest and m.verified == rest)
    stage.a.tell(Serve(request_of(body, 2, Ranges([(0, 524_288)]))))
    sealed(stage, body, 1)
    assert (stage.root_b / "store/damaged").read_bytes() == files["/store/damaged"]


def test_partitions_come_and_go_without_a_gap(stage: Stage) -> None:
    """Kept partitions go on where they are while others are taken away and given back."""
    files = {"/store/assigned": NOISE.randbytes(2_000_000)}
    put(stage.root_a, files)
    body = manifest_of(stage.root_a, files)
    stage.b.tell(open_order(body))
    opened(stage, body)
    stage.a.tell(Serve(request_of(body)))
    for _ in range(5):
        stage.b.tell(Assign({partition(body): None}))
        stage.b.tell(ALL)
    sealed(stage, body, 1)
    stage.b.tell(Assign({p: None for p in range(4) if p != partition(body)}))
    before = count(stage.listener.heard, body)
    stage.b.tell(open_order(body))
    stage.a.tell(Serve(request_of(body, 2)))
    stage.listener.wait(ChunksServed, lambda m: m.manifest == body.manifest and m.request_no == 2)
    assert count(stage.listener.heard, body) == before


def count(heard: list[Message], body) -> int:  # type: ignore[no-untyped-def]
    return sum(isinstance(one, PartOpened | TransferProgress) and one.manifest == body.manifest for one in heard)
