"""Opening parts beside all else: what is there already is read back for minutes, and nothing waits for that."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from streams.core.commands import WriteManifests
from streams.core.names import IntentId, ManifestId, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import (
    ChunksServed,
    FailureClass,
    ManifestWritten,
    Message,
    PartLost,
    PartOpened,
    Reason,
    Scope,
    Unit,
)
from streams.core.records import TransferIntent as Intent
from streams.core.selectors import Kind, Selector
from streams.errors import NotFound, StorageError
from streams.planes.destination import landing as landing_module
from streams.planes.destination.coordinator import part_files
from streams.planes.host import child as child_module
from streams.planes.host import order_queues
from streams.planes.host.child import Child
from streams.planes.host.order_queues import LONG_S, OPENERS, REST, SLICE_S, Assignments, Ends, Openings, Writes
from streams.planes.orders import Assign, Forget, Open, Serve, Start, Stop, Write
from streams.storage.endpoint import Endpoint, Wanted
from streams.storage.posix import PosixEndpoint
from tests.planes.feed import Receiver, listed
from tests.planes.stage import (
    ALL,
    DATASET,
    PARTITIONS,
    A,
    B,
    Clusters,
    Listener,
    PlaneHere,
    open_order,
    partition,
    request_of,
    settings_of,
)

WHY = Reason(Scope.POLICY, FailureClass.PERMANENT, "stop", Text("cancelled by somebody"))
MANY = OPENERS + 8
"""More than the threads that open, and than orders were ever read ahead."""


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Gated(PosixEndpoint):
    """Judges what is there already only while its gate is open."""

    def __init__(self, root: str) -> None:
        super().__init__(root, name="default")
        self.gate = threading.Event()
        self.judging = 0

    def present_group(self, wanted: Sequence[Wanted]) -> list[bool | StorageError]:
        self.judging += 1
        assert self.gate.wait(60)
        return super().present_group(wanted)


class GatedChild(Child):
    endpoint: Gated

    def open_storage(self) -> Endpoint:
        return self.endpoint


class Plane(PlaneHere):
    child: GatedChild

    def __init__(self, clusters: Clusters, root: Path) -> None:
        self.settings = settings_of(A, clusters, root)
        self.storage = root / A / "storage"
        child = GatedChild(Start(self.settings, "plane-here", "1"))
        child.endpoint = Gated(str(self.storage))
        super().__init__(child)

    def close(self) -> None:
        self.child.endpoint.gate.set()
        super().close()


@pytest.fixture
def plane(clusters: Clusters, tmp_path: Path) -> Iterator[Plane]:
    one = Plane(clusters, tmp_path)
    yield one
    one.close()


@pytest.fixture
def listener(clusters: Clusters) -> Iterator[Listener]:
    one = Listener(clusters)
    yield one
    one.close()


def test_nothing_waits_for_what_is_read_back(
    plane: Plane, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked for what it has, a site goes on serving, cancelling, writing manifests and taking partitions over."""
    bodies = [listed(plane.storage, {f"/store/there/{n}": b"x" * 1000}) for n in range(MANY)]
    plane.tell(ALL)
    for body in bodies:
        plane.tell(open_order(body))
    wait_until(lambda: plane.child.destination is not None and plane.child.endpoint.judging == OPENERS)

    plane.tell(Serve(request_of(bodies[0])))
    listener.wait(ChunksServed, lambda m: m.manifest == bodies[0].manifest)

    running, queued = bodies[0], bodies[-1]
    for body in (running, queued):
        plane.tell(Stop(body.manifest, 1, WHY, open_order(body).manifest))
        assert listener.wait(PartLost, lambda m, body=body: m.manifest == body.manifest).reason == WHY  # type: ignore[misc]

    given = {partition(body) for body in bodies[1:-1]}
    plane.tell(Assign({p: None for p in range(PARTITIONS) if p in given}))
    assert plane.child.destination is not None
    wait_until(lambda: {place[1] for place in plane.child.receivers[0]._next} == given)  # type: ignore[attr-defined]

    with caplog.at_level(logging.WARNING, "streams.planes"):
        intent = Intent(bodies[0].intent, Text("me"), (Selector(Kind.DATASET, DATASET),), (B,))
        plane.tell(Write(WriteManifests(intent, 0, 0, "", "")))
        wait_until(lambda: "are not written now: the worker's view is not there yet" in caplog.text)

    assert not [one for one in listener.heard if isinstance(one, PartOpened)]
    plane.child.endpoint.gate.set()
    for body in bodies[1:-1]:
        listener.wait(PartOpened, lambda m, body=body: m.manifest == body.manifest)  # type: ignore[misc]
    destination = plane.child.destination
    wait_until(lambda: not destination._openings)
    for body in (running, queued):
        assert not destination.is_open(body.manifest.encode())
        told = [one for one in listener.heard if isinstance(one, PartLost | PartOpened)]
        assert [one for one in told if one.manifest == body.manifest] == [PartLost(body.manifest, 1, WHY)]
    assert not list(plane.storage.rglob(".t2g-*.part"))


def test_an_ask_for_what_is_here_does_not_delay_those_who_read_from_here(plane: Plane, listener: Listener) -> None:
    """2,000 files of 40 manifests are judged, which takes long; each request for them is served meanwhile."""
    bodies = [listed(plane.storage, {f"/store/here/{n}/{k}": b"x" * 1000 for k in range(50)}) for n in range(40)]
    plane.tell(ALL)
    for body in bodies:
        plane.tell(open_order(body))
    wait_until(lambda: plane.child.endpoint.judging == OPENERS)
    for body in bodies:
        plane.tell(Serve(request_of(body)))
    for body in bodies:
        served = listener.wait(ChunksServed, lambda m, body=body: m.manifest == body.manifest)  # type: ignore[misc]
        assert served.bytes == 50_000
    assert not [one for one in listener.heard if isinstance(one, PartOpened)]
    plane.child.endpoint.gate.set()
    for body in bodies:
        there = listener.wait(PartOpened, lambda m, body=body: m.manifest == body.manifest)  # type: ignore[misc]
        assert there.present == Ranges([(0, 50)])


def test_an_order_that_is_owed_again_is_not_queued_again(plane: Plane, listener: Listener) -> None:
    bodies = [listed(plane.storage, {f"/store/again/{n}": b"x" * 1000}) for n in range(MANY)]
    plane.tell(ALL)
    for _ in range(20):
        for body in bodies:
            plane.tell(open_order(body))
            time.sleep(0.001)
    wait_until(lambda: plane.child.endpoint.judging == OPENERS)
    last = listed(plane.storage, {"/store/again/last": b"x" * 1000})
    plane.tell(open_order(last))
    wait_until(lambda: len(plane.child.openings._new) == MANY + 1 - OPENERS)
    plane.child.endpoint.gate.set()
    listener.wait(PartOpened, lambda m: m.manifest == last.manifest)
    assert plane.child.endpoint.judging == MANY + 1


def test_a_storage_that_hangs_is_said_by_both_halves(
    clusters: Clusters, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it cannot be opened, what is asked of its files is answered with the reason, and used when it comes."""
    monkeypatch.setattr(child_module, "STORAGE_FIRST_S", 0.1)
    hung = threading.Event()

    def hang(child: GatedChild) -> Endpoint:
        assert hung.wait(60)
        return child.endpoint

    monkeypatch.setattr(GatedChild, "open_storage", hang)
    plane = Plane(clusters, tmp_path)
    body = listed(plane.storage, {"/store/hung": b"x" * 1000})
    plane.tell(ALL)
    plane.tell(open_order(body))
    lost = listener.wait(PartLost, lambda m: m.manifest == body.manifest)
    assert (lost.reason.failure_class, lost.reason.phase) == (FailureClass.TRANSIENT, "open")
    assert "the storage does not answer" in lost.reason.text
    plane.tell(Serve(request_of(body)))
    served = listener.wait(ChunksServed, lambda m: m.manifest == body.manifest)
    assert (served.ranges, served.bytes) == (EMPTY, 0)
    hung.set()
    plane.child.endpoint.gate.set()
    wait_until(lambda: plane.child.destination is not None)
    plane.tell(open_order(body, 2))
    listener.wait(PartOpened, lambda m: m.manifest == body.manifest and m.attempt == 2)
    plane.tell(Serve(request_of(body, 2)))
    listener.wait(ChunksServed, lambda m: m.manifest == body.manifest and m.bytes == 1000)
    plane.close()


# one destination, its steps by hand


@pytest.fixture
def begun(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ManifestWritten, Iterator[None]]:
    """An opening after its first step of three: two of its parts are open, since something is known of them."""
    monkeypatch.setattr(landing_module, "STEP_BYTES", 2000)
    body = listed(tmp_path / "a", {f"/store/steps/{n}": b"x" * 1000 if n else b"" for n in range(6)})
    steps = receiver.half.begin(open_order(body))
    assert steps is not None
    next(steps)
    assert len(receiver.leftovers()) == 1, "an empty file's part is made at once"
    return body, steps


def test_a_stop_ends_an_opening_that_is_under_way(
    receiver: Receiver, begun: tuple[ManifestWritten, Iterator[None]]
) -> None:
    body, steps = begun
    receiver.half.stop(Stop(body.manifest, 1, WHY, open_order(body).manifest))
    assert receiver.told == [PartLost(body.manifest, 1, WHY)]
    assert list(steps) == []
    receiver.sync()
    assert receiver.told == [PartLost(body.manifest, 1, WHY)]
    assert not receiver.half.is_open(body.manifest.encode())
    assert receiver.leftovers() == []
    assert not (receiver.root / "store/steps/0").exists()


@pytest.mark.parametrize("gone", ["forget", "leave"])
def test_an_opening_that_concerns_nobody_any_more_ends_without_a_word(
    receiver: Receiver, begun: tuple[ManifestWritten, Iterator[None]], gone: str
) -> None:
    body, steps = begun
    if gone == "forget":
        receiver.half.forget(body.manifest)
    else:
        receiver.half.leave(range(64))
    assert list(steps) == []
    receiver.sync()
    assert receiver.told == []
    assert not receiver.half.is_open(body.manifest.encode())
    assert isinstance(receiver.open(body), PartOpened)  # and can be opened again


def test_a_newer_attempt_ends_the_older_opening_and_is_owed_again(
    receiver: Receiver, begun: tuple[ManifestWritten, Iterator[None]]
) -> None:
    body, steps = begun
    assert receiver.half.begin(open_order(body)) is None
    assert receiver.half.begin(open_order(body, 2)) is None
    assert list(steps) == []
    assert receiver.told == []
    opened = receiver.open(body, 2)
    assert isinstance(opened, PartOpened)
    assert opened.attempt == 2


def test_a_stop_before_the_first_step_wins(receiver: Receiver, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/x": b""})
    steps = receiver.half.begin(open_order(body))
    assert steps is not None
    receiver.half.stop(Stop(body.manifest, 1, WHY, open_order(body).manifest))
    assert list(steps) == []
    assert receiver.told == [PartLost(body.manifest, 1, WHY)]
    assert receiver.leftovers() == []


def test_a_manifest_that_cannot_be_read_is_one_line(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body, other = (listed(tmp_path / "a", {f"/store/{name}": b"x"}) for name in "ab")
    good = open_order(body)
    for framed in (b"nonsense", open_order(other).manifest):
        steps = receiver.half.begin(Open(body.manifest, framed, 1, EMPTY, EMPTY, EMPTY))
        assert steps is not None
        assert list(steps) == []
        receiver.half.stop(Stop(body.manifest, 1, WHY, framed))
    assert len([one for one in caplog.records if "cannot be read" in one.message]) == 4
    receiver.told.clear()
    assert [list(receiver.half.begin(good) or ())] == [[False]]
    assert isinstance(receiver.told[0], PartOpened)


def test_a_fact_is_sent_again_while_a_broker_that_restarts_knows_no_topic(
    plane: Plane, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(lambda: plane.child.destination is not None)
    real, refusals = plane.child.publisher.send, [NotFound("no topic"), NotFound("no topic")]
    lost = PartLost(order(1).manifest_id, 1, WHY)

    def send(message: Message, *rest: Any) -> None:
        if message is lost and refusals:  # the plane's announcements go by the same way
            raise refusals.pop()
        real(message, *rest)

    monkeypatch.setattr(plane.child.publisher, "send", send)
    plane.child.publish(lost)
    assert not refusals
    listener.wait(PartLost, lambda m: m.manifest == lost.manifest)


# the queues


def order(n: int, size: int = 10) -> Open:
    return Open(ManifestId(f"T1_A.00000000-0000-0000-0000-000000000000.0.{n}"), b"x" * size, 1, EMPTY, EMPTY, EMPTY)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_new_openings_begin_before_older_ones_go_on() -> None:
    done: list[str] = []
    clock = Clock()
    openings = Openings(clock=clock)

    def steps(name: str, count: int, step_s: float) -> Iterator[None]:
        for step in range(count):
            done.append(f"{name}{step}")
            clock.now_s += step_s
            if (name, step) == ("a", 1):
                openings.put(order(8), steps("late", 2, SLICE_S), lambda: True)
                openings.put(order(9), steps("quick", 3, SLICE_S / 4), lambda: True)
            yield
        if len(done) == 13:
            openings.close()

    for n, name in enumerate("ab"):
        openings.put(order(n), steps(name, 4, SLICE_S), lambda: True)
    openings.run()
    assert done == ["a0", "b0", "a1", "late0", "quick0", "quick1", "quick2", "a2", "a3", "b1", "b2", "b3", "late1"]


def test_who_is_served_has_more_of_the_disk_than_what_is_read_back() -> None:
    serving = threading.Event()
    openings = Openings(serving.is_set)
    done: list[float] = []

    def steps() -> Iterator[None]:
        while True:
            time.sleep(SLICE_S)
            done.append(time.monotonic())
            yield

    serving.set()
    openings.put(order(0), steps(), lambda: True)
    threads = [threading.Thread(target=openings.run, kwargs={"only_new": new}) for new in (False, True)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(done) >= 4)
    later = done[1:]  # the first slice may be the other thread's
    assert min(b - a for a, b in pairwise(later)) >= (1 + REST) * SLICE_S * 0.9
    openings.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_an_opening_waits_for_what_was_ordered_before_it_and_nobody_waits_for_that() -> None:
    done: list[str] = []
    openings = Openings()
    go = threading.Event()

    def steps(name: str) -> Iterator[None]:
        done.append(name)
        yield from ()

    openings.put(order(0), steps("later"), go.is_set)
    openings.put(order(1), steps("now"), lambda: True)
    thread = threading.Thread(target=openings.run)
    thread.start()
    wait_until(lambda: done == ["now"])
    go.set()
    wait_until(lambda: done == ["now", "later"])
    openings.close()
    thread.join(5)
    assert not thread.is_alive()


def test_waiting_openings_have_a_bound_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(order_queues, "OPENS_BYTES_MAX", 100)
    openings = Openings()
    assert openings.has_room(order(0, 1000)), "one alone is always taken"
    for n in range(2):
        openings.put(order(n, 45), iter(()), lambda: True)
    assert [openings.has_room(order(5, 45)) for _ in range(5)] == [False] * 5
    assert len(caplog.records) == 1


def test_assignments_that_wait_become_the_last_which_leaves_what_any_of_them_took_away() -> None:
    """What came, also what was given one by one while another was carried out, is nobody else's."""
    assignments, seen = Assignments(), []
    for partitions in ({0: None, 1: None, 2: 5}, {1: None}, {1: None, 2: None, 3: 7}):
        assignments.put(Assign(partitions))

    def assign(partitions: dict[int, int | None]) -> None:
        seen.append(("assign", partitions))
        assignments.close()

    assignments.run(lambda left: seen.append(("leave", left)), assign)  # type: ignore[arg-type]
    assert seen == [("leave", {0, 2}), ("assign", {1: None, 2: None, 3: 7})]
    assert assignments.done == assignments.ordered == 3


def test_ends_wait_once_for_each_transfer_and_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_queues, "ENDS_BYTES_MAX", 100)
    ends, seen = Ends(), []
    stop = Stop(order(0).manifest_id, 1, WHY, b"x" * 60)
    for _ in range(50):
        ends.put(stop)
    ends.put(Stop(order(1).manifest_id, 1, WHY, b"x" * 60))
    ends.put(Forget(order(2).manifest_id))
    assert [ends.holds(order(n).manifest_id) for n in range(3)] == [True, False, True]

    def carry_out(one: Stop | Forget) -> None:
        assert ends.holds(one.manifest_id)
        seen.append(one)
        if isinstance(one, Forget):
            ends.close()
        raise ValueError("a defect ends no thread")

    ends.run(carry_out)
    assert seen == [stop, Forget(order(2).manifest_id)]


def written(intent: str, names: int, no: int = 0) -> WriteManifests:
    chosen = tuple(Selector(Kind.FILE, f"/store/{n:04}") for n in range(names))
    body = Intent(IntentId(f"T1_A.00000000-0000-0000-0000-{intent:>012}"), Text("me"), chosen, (B,))
    return WriteManifests(body, 0, no, "", "")


def test_manifests_to_be_written_wait_once_for_each_chain_and_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_queues, "WRITES_BYTES_MAX", 1000)
    writes = Writes()
    for no in range(3):  # of a chain that is told again the last counts
        writes.put(written("1", 60, no))
    writes.put(written("2", 60))
    writes.put(written("3", 10))
    waiting = list(iter(lambda: writes.get(0.0), None))
    assert waiting == [written("1", 60, 2), written("3", 10)]
    writes.put(written("2", 500))
    assert writes.get(None) == written("2", 500), "what alone is more than the bound can be written, too"

    monkeypatch.setattr(order_queues, "WRITES_MAX", 2)
    for n in range(4):
        writes.put(written(str(n), 1))
    assert len(list(iter(lambda: writes.get(0.0), None))) == 2
    threading.Timer(0.05, writes.close).start()
    assert writes.get(None) is None


def test_a_file_that_is_read_back_for_long_holds_one_opener_only() -> None:
    """The other leaves what takes long to the first, and opens whatever is new."""
    openings, reading, goes_on, opened = Openings(), threading.Event(), threading.Event(), list[str]()

    def long() -> Iterator[bool]:
        yield True
        reading.set()
        assert goes_on.wait(30)
        yield False

    def short(name: str) -> Iterator[bool]:
        yield False
        opened.append(name)

    threads = [threading.Thread(target=openings.run, kwargs={"only_new": new}) for new in (False, True)]
    for n in range(2):
        openings.put(order(n), long(), lambda: True)
    for thread in threads:
        thread.start()
    assert reading.wait(10)
    for n in range(2, 6):
        openings.put(order(n), short(str(n)), lambda: True)
    wait_until(lambda: sorted(opened) == ["2", "3", "4", "5"])
    goes_on.set()
    openings.close()
    for thread in threads:
        thread.join(10)


def test_an_opener_rests_no_longer_than_somebody_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    serving, done = threading.Event(), list[float]()
    openings = Openings(serving.is_set)

    def steps() -> Iterator[bool]:
        time.sleep(2 * LONG_S)
        done.append(time.monotonic())
        yield False

    monkeypatch.setattr("streams.planes.host.order_queues.REST", 1000.0)
    monkeypatch.setattr("streams.planes.host.order_queues.REST_S_MAX", 60.0)
    serving.set()
    openings.put(order(0), steps(), lambda: True)
    openings.put(order(1), steps(), lambda: True)
    thread = threading.Thread(target=openings.run)
    thread.start()
    wait_until(lambda: len(done) == 1)
    serving.clear()
    wait_until(lambda: len(done) == 2)
    openings.close()
    thread.join(10)


def test_a_file_of_the_right_name_and_size_is_known_to_be_read_back(receiver: Receiver, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/x": b"x" * 1000})
    files = part_files(Unit.BYTES, receiver.endpoint)
    assert not files.reads_back(body.items[0])
    there = Path(receiver.endpoint.local_path(body.items[0].target))
    there.parent.mkdir(parents=True)
    there.write_bytes(b"y" * 999)
    assert not files.reads_back(body.items[0])
    there.write_bytes(b"y" * 1000)
    assert files.reads_back(body.items[0])


def test_an_assignment_that_failed_is_carried_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.planes.host.order_queues.AGAIN_S", 0.01)
    assignments, left, given = Assignments(), list[frozenset[int]](), list[dict[int, int | None]]()

    def leave(partitions: frozenset[int]) -> None:
        left.append(partitions)
        if len(left) == 2:
            raise OSError("no descriptor left")

    thread = threading.Thread(target=assignments.run, args=(leave, given.append))
    thread.start()
    assignments.put(Assign({1: None, 2: None}))
    wait_until(lambda: assignments.done == 1)
    assignments.put(Assign({1: None}))
    wait_until(lambda: assignments.done == 2)
    assert (left, given) == ([frozenset(), {2}, {2}], [{1: None, 2: None}, {1: None}])
    assignments.close()
    thread.join(10)
