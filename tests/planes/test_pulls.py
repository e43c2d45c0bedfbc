"""The pull engine between a real door and a real destination, without Kafka: what comes, what is told, what is not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import pytest

from streams.core.channel import LOG, Giver
from streams.core.ranges import Ranges
from streams.core.records import PartLost, SourceFailed, TransferProgress
from streams.doors.server import Door
from streams.planes.carriers.door import pulls as pulls_module
from streams.planes.carriers.door.addresses import Address, Offer
from streams.planes.carriers.door.pulls import Pulls
from tests.doors.conftest import HERE, running
from tests.planes.ends import MIB, Ends
from tests.planes.stage import A, manifest_of


def test_large_and_small_files_cross_by_the_door(ends_of: Callable[..., Ends]):
    ends = ends_of(40 * MIB + 3, 0, *[1000] * 200, 9 * MIB)
    ends.pulls.offered(ends.offer())
    ends.wait_whole()
    assert not ends.failed()
    ends.wait(lambda: not ends.pulls.busy)


def test_a_part_of_the_line_is_what_is_fetched(ends_of: Callable[..., Ends]):
    ends = ends_of(20 * MIB)
    ends.pulls.offered(ends.offer(1, ranges=Ranges([(5 * MIB, 12 * MIB)])))
    ends.wait(lambda: any(isinstance(one, TransferProgress) for one in ends.told))
    (*_, progress) = [one for one in ends.told if isinstance(one, TransferProgress)]
    assert progress.verified == Ranges([(5 * MIB, 12 * MIB)])
    ends.pulls.offered(ends.offer(2, ranges=Ranges([(0, 5 * MIB), (12 * MIB, 20 * MIB)])))
    ends.wait_whole()


def test_the_log_and_a_door_bring_parts_of_one_file(ends_of: Callable[..., Ends]):
    """Whatever the way, bytes are written by the same landing; what is there already is skipped."""
    ends = ends_of(20 * MIB)
    key = ends.body.manifest.encode()
    content = ends.files["/data/f0000"]
    assert ends.destination.take_line(key, Giver(A, LOG, 1), 3 * MIB, memoryview(content)[3 * MIB : 9 * MIB], last=True)
    ends.pulls.offered(ends.offer())
    ends.wait_whole()


def test_two_connections_write_one_file_and_nothing_is_read_back(
    ends_of: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch
):
    from streams.storage import posix_part

    monkeypatch.setattr(posix_part, "_adler_of", lambda *_: pytest.fail("read back"))
    ends = ends_of(64 * MIB)
    ends.pulls.offered(ends.offer())
    ends.wait_whole()


def test_an_item_that_is_gone_fails_and_the_others_come(ends_of: Callable[..., Ends]):
    ends = ends_of(1000, 2000, 3000, 1000)
    token = ends.token()
    (ends.root_a / "data/f0001").unlink()
    ends.pulls.offered(ends.offer(token=token))
    ends.wait(lambda: ends.sealed() == Ranges.of(0, 2, 3))
    (*_, progress) = [one for one in ends.told if isinstance(one, TransferProgress)]
    (failed,) = progress.failed
    assert failed.items == Ranges.of(1)
    assert (failed.reason.scope, failed.reason.failure_class) == ("source", "permanent")
    assert "no such file" in failed.reason.text
    assert not ends.failed(), "the request goes on"


def test_items_that_cannot_be_read_for_now_are_one_fact(ends_of: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch):
    ends = ends_of(*[1000] * 30)
    real = ends.endpoint_a.open_reader

    def busy(lfn: str, version: str | None = None) -> object:
        if int(lfn[-4:]) % 3 == 1:
            from streams.errors import StorageError

            raise StorageError("the disk is busy", lfn)
        return real(lfn, version)

    monkeypatch.setattr(ends.endpoint_a, "open_reader", busy)
    ends.pulls.offered(ends.offer(7))
    ends.wait(lambda: ends.failed())
    (said,) = ends.failed()
    assert (said.request_no, said.plane, said.items) == (7, "door", Ranges.of(*range(1, 30, 3)))
    assert said.reason.failure_class == "transient"
    ends.wait(lambda: ends.sealed() == Ranges.of(*(n for n in range(30) if n % 3 != 1)))


def test_a_door_that_nobody_opens_is_tried_and_given_up(ends_of: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pulls_module, "RETRIES_S", (0.05, 0.05, 0.05))
    ends = ends_of(1000)
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
    ends.pulls.offered(ends.offer(3, port=port))
    ends.wait(lambda: ends.failed())
    (said,) = ends.failed()
    assert (said.request_no, said.items, said.source) == (3, Ranges(), A)
    assert "cannot be reached" in said.reason.text
    assert not ends.pulls.busy


def test_a_ticket_that_ended_ends_the_request_at_once(ends_of: Callable[..., Ends]):
    ends = ends_of(1000)
    began = time.monotonic()
    ends.pulls.offered(ends.offer(4, token="x" * 43))
    ends.wait(lambda: ends.failed())
    assert time.monotonic() - began < 2
    assert ends.failed()[0].reason.failure_class == "auth"


class Breaking:
    """Stands between a destination and a door: hangs up on each connection after so many bytes, `times` times."""

    def __init__(self, port: int, after: int, times: int) -> None:
        self._port, self._after, self.left = port, after, times
        self._listener = socket.create_server((HERE, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((HERE, self._port))
                self.left -= 1
                bytes_max = self._after if self.left >= 0 else 1 << 60
                threading.Thread(target=self._serve, args=(near, far, bytes_max), daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket, bytes_max: int) -> None:
        with near, far:
            asking = threading.Thread(target=self._copy, args=(near, far, 1 << 60), daemon=True)
            asking.start()
            self._copy(far, near, bytes_max)
            asking.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket, bytes_max: int) -> None:
        with contextlib.suppress(OSError):
            while bytes_max > 0 and (block := source.recv(min(65536, bytes_max))):
                target.sendall(block)
                bytes_max -= len(block)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


def test_a_connection_that_breaks_again_and_again_goes_on_where_it_was(
    ends_of: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch
):
    """What was brought counts: a door that breaks off after each 3 MiB is slow, and no failure."""
    monkeypatch.setattr(pulls_module, "RETRIES_S", (0.01, 0.01, 0.01))
    ends = ends_of(60 * MIB)
    breaking = Breaking(ends.door.port, 3 * MIB, 12)
    ends.pulls.offered(ends.offer(port=breaking.port))
    ends.wait_whole()
    breaking.close()
    assert not ends.failed()


def test_a_door_that_never_brings_anything_is_given_up(ends_of: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pulls_module, "RETRIES_S", (0.01, 0.01, 0.01))
    ends = ends_of(30 * MIB)
    breaking = Breaking(ends.door.port, 30, 1000)
    ends.pulls.offered(ends.offer(port=breaking.port))
    ends.wait(lambda: ends.failed())
    breaking.close()
    assert len(ends.failed()) == 1


def test_a_door_that_begins_anew_offers_the_same_number_again(ends_of: Callable[..., Ends]):
    ends = ends_of(10 * MIB)
    first = ends.offer(1, token="x" * 43)
    ends.pulls.offered(first)
    ends.pulls.offered(ends.offer(1))
    ends.wait_whole()


def test_a_transfer_that_is_let_go_is_fetched_no_more(ends_of: Callable[..., Ends]):
    ends = ends_of(200 * MIB)
    ends.pulls.offered(ends.offer())
    ends.wait(lambda: (ends.root_b / "data").exists())
    ends.destination.forget(ends.body.manifest)
    ends.wait(lambda: not ends.pulls.busy, 5)
    assert not [one for one in ends.told if isinstance(one, SourceFailed | PartLost)]


def test_an_offer_of_a_transfer_that_is_not_open_is_dropped(ends_of: Callable[..., Ends]):
    ends = ends_of(1000)
    other = manifest_of(ends.root_a, ends.files)
    ends.pulls.offered(Offer(other.manifest, A, 1, Ranges([(0, 1000)]), Address(HERE, ends.door.port), ends.token()))
    ends.wait(lambda: not ends.pulls.busy)
    assert not ends.failed()


def test_a_door_with_places_for_all_is_left_for_another(ends_of: Callable[..., Ends]):
    """A thread that waits at one door for more goes to another one that has pieces."""
    ends = ends_of(1000, 1000)
    with running(Door(ends.endpoint_a, ends.tickets, HERE)) as second:
        engine = Pulls(ends.destination, connections=1)
        threads = [threading.Thread(target=work, daemon=True) for _, work in engine.threads()]
        for thread in threads:
            thread.start()
        engine.offered(ends.offer(1, ranges=Ranges([(0, 1000)])))
        ends.wait(lambda: ends.sealed() == Ranges.of(0))
        began = time.monotonic()
        engine.offered(ends.offer(2, ranges=Ranges([(1000, 2000)]), port=second.port))
        ends.wait_whole()
        assert time.monotonic() - began < pulls_module.KEEP_S / 2
        engine.close()
        for thread in threads:
            thread.join(5)


@pytest.mark.parametrize(("share", "at_least_s"), [(1.0, 1.5), (0.5, 3.0)])
def test_the_rate_of_a_link_holds_over_its_connections_and_a_part_of_the_workers_has_a_part_of_it(
    ends_of: Callable[..., Ends], share: float, at_least_s: float
):
    ends = ends_of(16 * MIB)
    ends.destination.share = share
    engine = Pulls(ends.destination, rates={A: 8 * MIB})
    for _, work in engine.threads():
        threading.Thread(target=work, daemon=True).start()
    began_s = time.monotonic()
    engine.offered(ends.offer())
    ends.wait_whole()
    took_s = time.monotonic() - began_s
    engine.close()
    assert at_least_s < took_s < at_least_s + 5, "the first pieces go at once"


def test_a_closed_engine_leaves_no_thread(ends_of: Callable[..., Ends]):
    ends = ends_of(1000)
    engine = Pulls(ends.destination)
    threads = [threading.Thread(target=work, daemon=True) for _, work in engine.threads()]
    for thread in threads:
        thread.start()
    engine.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
