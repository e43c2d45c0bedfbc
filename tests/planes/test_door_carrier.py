"""Both sides of the carrier `door`, an offer being handed from one to the other: no Kafka, real files and sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streams.core.channel import DOOR
from streams.core.manifest import Manifest
from streams.core.names import Destination, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import (
    ChunksOffered,
    ChunksRequested,
    ChunksServed,
    FailureClass,
    Message,
    OfferedDoor,
    Reason,
    Scope,
    SourceFailed,
    TransferProgress,
)
from streams.core.store_names import Store
from streams.doors import tickets
from streams.planes.carriers.door import offers, pulls
from streams.planes.carriers.door.fetching import DoorDestination
from streams.planes.carriers.door.offers import DoorSource
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.source.open_files import OpenFileCache
from streams.settings import Registry, Settings, SiteEntry
from streams.storage import open_endpoint
from streams.storage.endpoint import Endpoint
from streams.storage.posix import PosixEndpoint
from tests.certificates import self_signed
from tests.doors.conftest import HERE
from tests.planes.stage import PARTITIONS, A, B, manifest_of, open_order, put

MIB = 1 << 20


class Ways:
    """A source with a door and a destination; what the source says in the payload's place is kept, and handed over."""

    def __init__(
        self,
        root: Path,
        sizes: tuple[int, ...],
        *,
        door_host: str = HERE,
        opens: bool = True,
        keys: Mapping[str, bytes] | None = None,
        stores: tuple[Store, ...] = (),
        **door: Any,
    ) -> None:
        """`keys`: of `stores`, by LFN, behind the files of these sizes."""
        self.files = {f"/data/f{n:04}": os.urandom(size) for n, size in enumerate(sizes)}
        self.root_a, self.root_b = root / "a", root / "b"
        self.root_a.mkdir(exist_ok=True)
        put(self.root_a, self.files)
        self.files |= keys or {}
        self.root_b.mkdir()
        self.body = manifest_of(self.root_a, self.files, stores=stores)
        self.manifest = Manifest(self.body)
        self.whole = Ranges([(0, self.manifest.line.total)])
        registry = Registry(tuple(SiteEntry(site, "127.0.0.1:1") for site in (A, B)))
        self.settings = Settings(registry, A, root, root, root, root, door_host=door_host, stores=stores, **door)
        self.endpoint_a: Endpoint = open_endpoint(f"file://{self.root_a}", stores=stores)
        self.endpoint_b = PosixEndpoint(str(self.root_b))
        self.said, self.told = list[Message](), list[Message]()
        self.destination = DestinationPlane(B, PARTITIONS, self.endpoint_b, self.told.append)
        self.fetching = DoorDestination(replace(self.settings, site=B), self.destination, self.told.append)
        self.at_source = DestinationPlane(A, PARTITIONS, self.endpoint_a, self.said.append)
        self.source = self.another_source(opens=opens and bool(door_host))
        for side in (self.destination, self.fetching):
            _run(side)
        steps = self.destination.begin(open_order(self.body))
        assert steps is not None
        for _ in steps:
            pass

    def another_source(self, *, opens: bool = True) -> DoorSource:
        source = DoorSource(
            self.settings, self.endpoint_a, _no_payload, self.said.append, OpenFileCache(), self.at_source
        )
        _run(source)
        if opens:
            wait(lambda: source.address, self.said)
        return source

    def request(self, number: int = 1, ranges: Ranges | None = None) -> ChunksRequested:
        wanted = self.whole if ranges is None else ranges
        items = self.manifest.requested(wanted, A)
        return ChunksRequested(self.body.manifest, Destination(B), A, number, 1, DOOR, items, wanted, 0)

    def ask(self, *requests: ChunksRequested) -> list[ChunksOffered]:
        known = len(self.offers())
        for request in requests:
            self.source.serve(request)
        wait(lambda: len(self.offers()) >= known + len(requests), self.said)
        return self.offers()[known:]

    def offers(self) -> list[ChunksOffered]:
        return [one for one in self.said if isinstance(one, ChunksOffered)]

    def served(self) -> list[ChunksServed]:
        return [one for one in self.said if isinstance(one, ChunksServed)]

    def failed(self) -> list[SourceFailed]:
        return [one for one in self.told if isinstance(one, SourceFailed)]

    def wait_whole(self) -> None:
        def sealed() -> bool:
            told = [one.sealed for one in self.told if isinstance(one, TransferProgress)]
            return bool(told) and told[-1].covers(0, len(self.files))

        wait(sealed, self.told)
        for lfn, content in self.files.items():
            assert (self.root_b / lfn[1:]).read_bytes() == content

    def close(self) -> None:
        for part in (self.source, self.fetching, self.destination, self.endpoint_a, self.endpoint_b):
            part.close()


def _no_payload(*_: Any, **__: Any) -> None:
    pytest.fail("payload in the log")


def _run(side: Any) -> None:
    for name, work in side.threads():
        threading.Thread(target=work, name=name, daemon=True).start()


def wait(what: Callable[[], object], seen: object) -> None:
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until, seen
        time.sleep(0.01)


@pytest.fixture
def ways_of(tmp_path: Path) -> Iterator[Callable[..., Ways]]:
    with contextlib.ExitStack() as stack:

        def made(*sizes: int, **how: Any) -> Ways:
            ways = Ways(tmp_path, sizes, **how)
            stack.callback(ways.close)
            return ways

        yield made


def test_a_request_becomes_an_offer_and_what_left_is_told(
    ways_of: Callable[..., Ways], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "SENT_S", 0.1)
    ways = ways_of(9 * MIB, 0, 5_000, 3)
    (offer,) = ways.ask(ways.request())
    assert (offer.source, offer.request_no, offer.ranges, offer.reason) == (A, 1, ways.whole, None)
    assert [(door.kind, door.url) for door in offer.doors] == [("t2g", ways.source.address)]
    ways.destination.offered(offer)
    ways.wait_whole()
    wait(ways.served, ways.said)
    (served,) = ways.served()
    assert (served.plane, served.request_no, served.ranges, served.bytes) == (DOOR, 1, ways.whole, ways.whole.size)
    assert ways.failed() == []


def test_a_request_told_again_has_the_same_ticket(ways_of: Callable[..., Ways]) -> None:
    ways = ways_of(1_000)
    first, second = ways.ask(ways.request(), ways.request())
    assert first == second
    ways.destination.offered(first)
    ways.destination.offered(second)
    ways.wait_whole()


def test_a_source_without_a_door_says_so(ways_of: Callable[..., Ways]) -> None:
    ways = ways_of(1_000, door_host="")
    assert ways.source.address == ""
    (offer,) = ways.ask(ways.request())
    assert offer.doors == ()
    ways.destination.offered(offer)
    (failed,) = ways.failed()
    assert (failed.source, failed.request_no, failed.plane, failed.items) == (A, 1, DOOR, EMPTY)
    assert failed.reason == Reason(Scope.SOURCE, FailureClass.TRANSIENT, "read", Text("T1_A has no open door"))


def test_parts_of_files_are_not_given(ways_of: Callable[..., Ways]) -> None:
    ways = ways_of(1_000)
    request = ways.request()
    items = tuple(replace(item, selection="objects:h1") for item in request.items)
    (offer,) = ways.ask(replace(request, items=items))
    assert offer.reason is not None
    assert (offer.reason.failure_class, offer.reason.text) == (FailureClass.PERMANENT, "a door gives whole files")


def test_a_door_with_a_certificate_speaks_https(ways_of: Callable[..., Ways], tmp_path: Path) -> None:
    certificate = self_signed(tmp_path / "door.pem")
    ways = ways_of(3 * MIB, 0, 5_000, door_cert=certificate, door_ca=certificate)
    (offer,) = ways.ask(ways.request())
    assert offer.doors[0].url.startswith("https://")
    ways.destination.offered(offer)
    ways.wait_whole()
    assert ways.failed() == []


@pytest.mark.parametrize("ca", [None, "another.pem", "rubbish.pem"])
def test_a_certificate_that_nobody_signed_whom_we_believe(
    ways_of: Callable[..., Ways], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ca: str | None
) -> None:
    monkeypatch.setattr(pulls, "RETRIES_S", (0.01,))
    self_signed(tmp_path / "another.pem")
    (tmp_path / "rubbish.pem").write_text("no certificate")
    believed = {} if ca is None else {"door_ca": tmp_path / ca}
    ways = ways_of(1_000, door_cert=self_signed(tmp_path / "door.pem"), **believed)
    (offer,) = ways.ask(ways.request())
    ways.destination.offered(offer)
    wait(ways.failed, ways.told)
    assert {one.reason.failure_class for one in ways.failed()} == {FailureClass.AUTH}


@pytest.mark.parametrize(
    ("announce", "told"),
    [("door.example", "http://door.example:{}"), ("[::1]:7", "http://[::1]:7"), ("x:9", "http://x:9")],
)
def test_a_door_is_announced_where_peers_reach_it(ways_of: Callable[..., Ways], announce: str, told: str) -> None:
    ways = ways_of(1_000, door_announce=announce)
    (offer,) = ways.ask(ways.request())
    assert ways.source._door is not None
    expected = told.format(ways.source._door.port)
    assert (ways.source.address, [door.url for door in offer.doors]) == (expected, [expected])


def test_a_certificate_that_cannot_be_read_opens_no_door(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "a"
    root.mkdir()
    settings = Settings(
        Registry(), A, root, root, root, root, door_host=HERE, door_cert=tmp_path / "no.pem", door_key=tmp_path / "no"
    )
    endpoint = PosixEndpoint(str(root))
    destination = DestinationPlane(A, PARTITIONS, endpoint, lambda _: None)
    source = DoorSource(settings, endpoint, _no_payload, lambda _: None, OpenFileCache(), destination)
    _run(source)
    wait(lambda: "the door's certificate cannot be used" in caplog.text, caplog)
    assert source.address == ""
    source.close()


def test_while_a_door_cannot_open_what_is_asked_is_refused(
    ways_of: Callable[..., Ways], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "RETRY_S", 0.05)
    with socket.create_server((HERE, 0)) as taken:
        ways = ways_of(1_000, door_port=taken.getsockname()[1], opens=False)
        (offer,) = ways.ask(ways.request())
        assert offer.reason is not None
        assert offer.reason.text == "T1_A has no open door"
    wait(lambda: ways.source.address, ways.said)
    (offer,) = ways.ask(ways.request(2))
    ways.destination.offered(offer)
    ways.wait_whole()


@pytest.mark.parametrize(
    "door", [OfferedDoor("t2g", "http:///t2g", "t"), OfferedDoor("other", "http://a:1", "t")], ids=["nowhere", "kind"]
)
def test_a_door_that_speaks_something_else_is_refused(ways_of: Callable[..., Ways], door: OfferedDoor) -> None:
    ways = ways_of(1_000)
    (offer,) = ways.ask(ways.request())
    ways.destination.offered(replace(offer, doors=(door,)))
    (failed,) = ways.failed()
    assert failed.reason.text == "no door of T1_A speaks what is spoken here"


def test_an_offer_to_another_destination_passes_by(ways_of: Callable[..., Ways]) -> None:
    ways = ways_of(1_000)
    (offer,) = ways.ask(ways.request())
    for other in (Destination("T3_C"), Destination("T2_B/reader")):
        ways.destination.offered(replace(offer, destination=other))
    time.sleep(0.2)
    assert not [one for one in ways.told if isinstance(one, TransferProgress)]


def test_a_plane_that_began_anew_offers_under_the_same_number(ways_of: Callable[..., Ways]) -> None:
    """The tickets of the one before open nothing: the door is not there, or it does not know them."""
    ways = ways_of(3 * MIB)
    (old,) = ways.ask(ways.request())
    ways.source.close()
    ways.source = ways.another_source()
    (new,) = ways.ask(ways.request())
    assert new.request_no == old.request_no
    assert new.doors[0].ticket != old.doors[0].ticket
    ways.destination.offered(replace(old, doors=(replace(old.doors[0], url=new.doors[0].url),)))
    wait(ways.failed, ways.told)
    (failed,) = ways.failed()
    assert failed.reason.failure_class is FailureClass.AUTH
    ways.destination.offered(new)
    ways.wait_whole()


def test_what_is_there_is_not_fetched_again_and_told_again(ways_of: Callable[..., Ways]) -> None:
    """A reader that goes back in the log hears old offers."""
    ways = ways_of(1_000, 2_000)
    first, second = ways.ask(ways.request(1, Ranges([(0, 1_000)])), ways.request(2, ways.whole))
    ways.destination.offered(first)
    wait(lambda: [p for p in ways.told if isinstance(p, TransferProgress) and p.sealed.covers(0, 1)], ways.told)
    ways.destination.offered(second)
    ways.wait_whole()
    known = len(ways.told)
    ways.destination.offered(first)
    wait(lambda: len(ways.told) > known, ways.told)
    assert isinstance(ways.told[-1], TransferProgress)
    (ticket,) = (t for token, t in ways.source._tickets._tickets.items() if token == second.doors[0].ticket)
    assert ticket.sent == Ranges([(1_000, 3_000)])


def test_a_request_that_finds_no_room_waits(ways_of: Callable[..., Ways], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "ITEMS_MAX", 1)
    monkeypatch.setattr(tickets, "SENT_S", 0.1)
    monkeypatch.setattr(offers, "ROOM_S", 0.05)
    ways = ways_of(1_000, 2_000)
    (first,) = ways.ask(ways.request(1, Ranges([(0, 1_000)])))
    ways.source.serve(ways.request(2, Ranges([(1_000, 3_000)])))
    time.sleep(0.3)
    assert len(ways.offers()) == 1
    ways.destination.offered(first)
    wait(lambda: len(ways.offers()) == 2, ways.said)
    ways.destination.offered(ways.offers()[1])
    ways.wait_whole()
    assert ways.failed() == []


@pytest.mark.parametrize(("sizes", "alone"), [((100_000,) * 300, True), ((100_000_000,), False)])
def test_small_files_come_over_one_connection(
    ways_of: Callable[..., Ways], monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], alone: bool
) -> None:
    made = list[pulls.DoorConnection]()

    class Counted(pulls.DoorConnection):
        def __init__(self, *words: Any, **named: Any) -> None:
            super().__init__(*words, **named)
            made.append(self)

    monkeypatch.setattr(pulls, "DoorConnection", Counted)
    ways = ways_of(*sizes)
    (offer,) = ways.ask(ways.request())
    ways.fetching.offered(offer)
    ways.wait_whole()
    assert (len(made) == 1) == alone
