"""A destination gives on what it gets while it comes: two destinations of one manifest, real files and doors."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streams.core.channel import DOOR, Giver
from streams.core.manifest import Manifest
from streams.core.names import Destination, Site, Text
from streams.core.ranges import Ranges
from streams.core.records import (
    ChunksOffered,
    ChunksRequested,
    ChunksServed,
    FailureClass,
    Message,
    Reason,
    Scope,
    SourceFailed,
    TransferProgress,
)
from streams.doors import sending
from streams.errors import StorageError
from streams.planes.carriers.door import offers, pulls
from streams.planes.carriers.door.fetching import DoorDestination
from streams.planes.carriers.door.offers import DoorSource
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.orders import Stop
from streams.planes.source.open_files import OpenFileCache
from streams.settings import Registry, Settings, SiteEntry
from streams.storage.posix import PosixEndpoint
from tests.doors.conftest import HERE
from tests.planes.stage import PARTITIONS, A, B, manifest_of, open_order, put
from tests.planes.test_door_carrier import wait

MIB = 1 << 20
C = Site("T2_C")


class Place:
    """One site's plane: what it gets, and its door."""

    def __init__(self, site: Site, root: Path) -> None:
        self.site, self.root = site, root
        root.mkdir()
        registry = Registry(tuple(SiteEntry(name, "127.0.0.1:1") for name in (A, B, C)))
        settings = Settings(registry, site, root, root, root, root, door_host=HERE)
        self.endpoint = PosixEndpoint(str(root))
        self.told, self.said = list[Message](), list[Message]()
        self.destination = DestinationPlane(site, PARTITIONS, self.endpoint, self.told.append)
        self.fetching = DoorDestination(settings, self.destination, self.told.append)
        self.source = DoorSource(
            settings, self.endpoint, lambda *_, **__: None, self.said.append, OpenFileCache(), self.destination
        )
        for side in (self.destination, self.fetching, self.source):
            for name, work in side.threads():
                threading.Thread(target=work, name=name, daemon=True).start()
        wait(lambda: self.source.address, site)

    def close(self) -> None:
        for part in (self.source, self.fetching, self.destination, self.endpoint):
            part.close()

    def of(self, kind: type) -> list[Message]:
        return [one for one in self.told if isinstance(one, kind)]


class Chain:
    """A manifest of A's files that B and C get, C from B. What A would give B is written by hand, when a test likes."""

    def __init__(self, root: Path, sizes: tuple[int, ...]) -> None:
        self.files = {f"/data/f{n:04}": os.urandom(size) for n, size in enumerate(sizes)}
        put(root / "a", self.files)
        self.body = manifest_of(root / "a", self.files)
        self.manifest = Manifest(self.body)
        self.line = b"".join(self.files.values())
        self.whole = Ranges([(0, len(self.line))])
        self.b, self.c = Place(B, root / "b"), Place(C, root / "c")

    def open(self, *places: Place) -> None:
        for place in places:
            for _ in place.destination.begin(open_order(self.body)) or ():
                pass

    def comes(self, start: int, stop: int, *, last: bool = False) -> None:
        """So much of the line is there at B."""
        giver = Giver(A, DOOR, 1)
        assert self.b.destination.take_line(
            self.body.manifest.encode(), giver, start, memoryview(self.line)[start:stop], last=last
        )

    def request(self, number: int = 1) -> ChunksRequested:
        items = self.manifest.requested(self.whole, B)
        return ChunksRequested(self.body.manifest, Destination(C), B, number, 1, DOOR, items, self.whole, 0)

    def ask(self) -> None:
        """C asks B; the offer is handed over when it is made."""
        self.b.source.serve(self.request())

    def offered(self) -> list[ChunksOffered]:
        return [one for one in self.b.said if isinstance(one, ChunksOffered)]

    def hand_over(self) -> None:
        wait(self.offered, self.b.said)
        self.c.fetching.offered(self.offered()[-1])

    def synced_at_c(self) -> Ranges:
        told = [one.verified for one in self.c.told if isinstance(one, TransferProgress)]
        return told[-1] if told else Ranges()

    def failed_at_c(self) -> list[SourceFailed]:
        return [one for one in self.c.told if isinstance(one, SourceFailed)]

    def wait_whole(self, place: Place) -> None:
        def sealed() -> bool:
            told = [one.sealed for one in place.told if isinstance(one, TransferProgress)]
            return bool(told) and told[-1].covers(0, len(self.files))

        wait(sealed, place.told)
        for lfn, content in self.files.items():
            assert (place.root / lfn[1:]).read_bytes() == content

    def close(self) -> None:
        self.b.close()
        self.c.close()


@pytest.fixture
def chain_of(tmp_path: Path) -> Iterator[Callable[..., Chain]]:
    made: list[Chain] = []

    def make(*sizes: int) -> Chain:
        made.append(Chain(tmp_path, sizes))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_grows_is_given_on_as_it_comes_and_what_is_sealed_from_its_file(chain_of: Callable[..., Chain]) -> None:
    chain = chain_of(20 * MIB + 7, 300, 0, 70_000)
    chain.open(chain.b, chain.c)
    chain.ask()
    chain.hand_over()
    chain.comes(0, 3 * MIB)
    wait(lambda: chain.synced_at_c().covers(0, 3 * MIB), chain.c.told)
    assert not (chain.b.root / "data/f0000").exists()
    assert chain.synced_at_c().size <= 3 * MIB, "no byte that is not there"
    chain.comes(3 * MIB, len(chain.line), last=True)
    chain.wait_whole(chain.b)
    chain.wait_whole(chain.c)
    wait(lambda: any(isinstance(one, ChunksServed) for one in chain.b.said), chain.b.said)
    assert not chain.failed_at_c()


def test_a_hole_is_never_given_on(chain_of: Callable[..., Chain]) -> None:
    """A part's file has zeros where nothing was written, also below what was."""
    chain = chain_of(12 * MIB)
    chain.open(chain.b, chain.c)
    chain.comes(8 * MIB, 12 * MIB)
    chain.ask()
    chain.hand_over()
    wait(lambda: chain.synced_at_c() & Ranges([(9 * MIB, 10 * MIB)]), chain.c.told)
    assert not chain.synced_at_c() & Ranges([(0, 8 * MIB)])
    chain.comes(0, 8 * MIB, last=True)
    chain.wait_whole(chain.c)


def test_one_that_was_done_before_it_was_asked_gives_its_files(chain_of: Callable[..., Chain]) -> None:
    chain = chain_of(9 * MIB, 1_000)
    chain.open(chain.b, chain.c)
    chain.comes(0, len(chain.line), last=True)
    chain.wait_whole(chain.b)
    chain.b.destination.forget(chain.body.manifest)
    chain.ask()
    chain.hand_over()
    chain.wait_whole(chain.c)


def test_one_that_is_asked_a_moment_too_early_is_ready_when_it_knows(chain_of: Callable[..., Chain]) -> None:
    chain = chain_of(9 * MIB)
    chain.open(chain.c)
    chain.ask()
    time.sleep(0.3)
    assert not chain.offered()
    chain.open(chain.b)
    chain.hand_over()
    chain.comes(0, len(chain.line), last=True)
    chain.wait_whole(chain.c)


def test_one_that_never_gets_it_is_left_and_no_item_fails(
    chain_of: Callable[..., Chain], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not planned, not admitted, cancelled: others have it."""
    monkeypatch.setattr(offers, "EARLY_S", 0.2)
    chain = chain_of(9 * MIB, 500)
    chain.open(chain.c)
    chain.ask()
    chain.hand_over()
    wait(chain.failed_at_c, chain.c.told)
    (failed,) = chain.failed_at_c()
    assert (failed.source, failed.plane, failed.items) == (B, DOOR, Ranges())
    assert all(not one.failed for one in chain.c.told if isinstance(one, TransferProgress))


def test_one_whose_transfer_is_stopped_in_the_middle_is_left(
    chain_of: Callable[..., Chain], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "RETRIES_S", (0.01,))
    chain = chain_of(20 * MIB)
    chain.open(chain.b, chain.c)
    chain.ask()
    chain.hand_over()
    chain.comes(0, 2 * MIB)
    wait(lambda: chain.synced_at_c().covers(0, 2 * MIB), chain.c.told)
    why = Reason(Scope.POLICY, FailureClass.PERMANENT, "stop", Text("cancelled by who may"))
    order = open_order(chain.body)
    chain.b.destination.stop(Stop(chain.body.manifest, 1, why, order.manifest))
    wait(chain.failed_at_c, chain.c.told)
    assert {(one.items, one.reason.failure_class) for one in chain.failed_at_c()} == {
        (Ranges(), FailureClass.TRANSIENT)
    }
    assert chain.synced_at_c().covers(0, 2 * MIB), "what came stays"


def test_while_it_has_nothing_the_wait_is_told_and_ends(
    chain_of: Callable[..., Chain], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress that is none keeps the lease; after WAITS_S the relay is left, with words."""
    monkeypatch.setattr(sending, "WAIT_S", 0.1)
    monkeypatch.setattr(pulls, "WAITS_S", 1.5)
    chain = chain_of(9 * MIB)
    chain.open(chain.b, chain.c)
    chain.ask()
    chain.hand_over()
    wait(lambda: len(chain.c.of(TransferProgress)) >= 3, chain.c.told)
    assert not chain.synced_at_c()
    wait(chain.failed_at_c, chain.c.told)
    (failed,) = chain.failed_at_c()
    assert "T2_B has waited for it itself for" in failed.reason.text
    assert failed.reason.failure_class is FailureClass.TRANSIENT


def test_bytes_that_come_end_the_wait(chain_of: Callable[..., Chain], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "WAIT_S", 0.1)
    monkeypatch.setattr(pulls, "WAITS_S", 1.0)
    chain = chain_of(9 * MIB)
    chain.open(chain.b, chain.c)
    chain.ask()
    chain.hand_over()
    for at in range(0, 9 * MIB, MIB):
        time.sleep(0.4)
        chain.comes(at, at + MIB, last=at == 8 * MIB)
    chain.wait_whole(chain.c)
    assert not chain.failed_at_c()


def test_one_that_says_nothing_is_left_before_its_lease_ends(
    chain_of: Callable[..., Chain], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process stands still: connections are made, and nobody answers."""
    monkeypatch.setattr(pulls, "SILENT_S", 0.5)
    chain = chain_of(9 * MIB)
    chain.open(chain.b, chain.c)
    chain.ask()
    wait(chain.offered, chain.b.said)
    with socket.create_server((HERE, 0)) as silent:
        (door,) = chain.offered()[-1].doors
        moved = replace(door, url=f"http://{HERE}:{silent.getsockname()[1]}")
        began_s = time.monotonic()
        chain.c.fetching.offered(replace(chain.offered()[-1], doors=(moved,)))
        wait(chain.failed_at_c, chain.c.told)
    assert time.monotonic() - began_s < 4, "not tried as often as a door that holds files"


def test_a_door_that_has_files_of_its_own_gives_no_growing_one_by_version(chain_of: Callable[..., Chain]) -> None:
    """A version binds a file of the holder's; a part has none."""
    chain = chain_of(9 * MIB)
    chain.open(chain.b, chain.c)
    items = tuple(replace(item, version="9437184:1:1") for item in chain.request().items)
    chain.b.source.serve(replace(chain.request(), items=items))
    chain.hand_over()
    wait(chain.failed_at_c, chain.c.told)
    assert not chain.synced_at_c()


def test_an_item_that_is_not_in_the_transfer_is_not_given(chain_of: Callable[..., Chain]) -> None:
    """Whatever number it is asked under."""
    chain = chain_of(9 * MIB, 500)
    chain.open(chain.b, chain.c)
    chain.comes(0, len(chain.line), last=True)
    request = chain.request()
    swapped = replace(request.items[0], lfn=request.items[1].lfn)
    with pytest.raises(StorageError, match="is not what"):
        chain.b.destination.open_reader(chain.body.manifest, swapped)
