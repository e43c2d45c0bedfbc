"""A source without a door answers requests over connections that it makes to its destination's: real files, sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streams.core.channel import DOOR
from streams.core.records import ChunksRequested, FailureClass
from streams.doors.dialling import Capability
from streams.planes.carriers.door import offers, pulls
from streams.planes.carriers.door.fetching import DoorDestination
from streams.planes.carriers.door.offers import DoorSource
from streams.planes.orders import Expect
from streams.planes.source.open_files import OpenFileCache
from streams.storage.posix import PosixEndpoint
from tests.doors.conftest import HERE
from tests.planes.stage import A, B
from tests.planes.test_door_carrier import Ways, _no_payload, _run, wait

MIB = 1 << 20
TICKET = "t" * 43


class DialWays(Ways):
    """The source has no door; the destination has one, which expects what its worker tells."""

    def __init__(self, root: Path, sizes: tuple[int, ...], **door: Any) -> None:
        super().__init__(root, sizes, door_host="", opens=False)
        theirs = replace(self.settings, site=B, door_host=HERE, **door)
        self.host = DoorSource(
            theirs, self.endpoint_b, _no_payload, self.told.append, OpenFileCache(), self.destination
        )
        _run(self.host)
        wait(lambda: self.host.address, self.told)

    def request_to_dial(self, number: int = 1, ticket: str = "") -> ChunksRequested:
        """As the worker makes it, which tells its plane first."""
        ticket = ticket or f"{number:043}"
        self.destination.expect(Expect(self.body.manifest, A, number, ticket))
        return replace(self.request(number), capability=f"{self.host.address} {ticket}")

    def hand_over(self, request: ChunksRequested) -> None:
        (offer,) = self.ask(request)
        self.fetching.offered(offer)

    def close(self) -> None:
        self.host.close()
        super().close()


@pytest.fixture
def ways_of(tmp_path: Path) -> Iterator[Callable[..., DialWays]]:
    made: list[DialWays] = []

    def make(*sizes: int, **door: Any) -> DialWays:
        made.append(DialWays(tmp_path, sizes, **door))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_files_come_over_a_connection_that_the_source_makes(ways_of: Callable[..., DialWays]) -> None:
    ways = ways_of(20 * MIB + 3, 0, 70_000)
    ways.hand_over(ways.request_to_dial())
    ways.wait_whole()
    assert not ways.failed()
    wait(lambda: ways.served(), ways.said)
    (told,) = ways.served()
    assert (told.bytes, told.plane) == (ways.manifest.line.total, DOOR)


def test_told_again_it_is_the_same_offer(ways_of: Callable[..., DialWays]) -> None:
    ways = ways_of(3 * MIB)
    request = ways.request_to_dial()
    (first,) = ways.ask(request)
    (again,) = ways.ask(request)
    assert again == first
    for offer in (first, again):
        ways.fetching.offered(offer)
    ways.wait_whole()
    assert not ways.failed()


def test_a_door_that_is_open_is_offered_whatever_a_request_says(tmp_path: Path) -> None:
    ways = Ways(tmp_path, (100,))
    try:
        (offer,) = ways.ask(replace(ways.request(), capability=f"http://127.0.0.1:1 {TICKET}"))
        assert [door.kind for door in offer.doors] == [offers.KIND]
    finally:
        ways.close()


def test_a_door_that_cannot_be_reached_from_the_source_is_a_reason(ways_of: Callable[..., DialWays]) -> None:
    ways = ways_of(100)
    (offer,) = ways.ask(replace(ways.request(), capability=f"http://127.0.0.1:1 {TICKET}"))
    assert offer.reason is not None
    assert offer.reason.failure_class is FailureClass.TRANSIENT
    assert offer.reason.text == (
        "T1_A has no open door, and cannot connect to that of T2_B: the door cannot be reached: Connection refused"
    )
    ways.fetching.offered(offer)
    (failed,) = ways.failed()
    assert (failed.request_no, failed.plane) == (1, DOOR)


def test_a_door_that_does_not_expect_it_is_a_reason(ways_of: Callable[..., DialWays]) -> None:
    ways = ways_of(100)
    (offer,) = ways.ask(replace(ways.request(), capability=f"{ways.host.address} {TICKET}"))
    assert offer.reason is not None
    assert "lets nobody in: it answers 401" in offer.reason.text


def test_a_connection_that_breaks_ends_its_request_and_the_next_brings_the_rest(
    ways_of: Callable[..., DialWays], monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = ways_of(40 * MIB)
    came = 0
    real = ways.destination.take_line

    def take(key: bytes, giver: Any, start: int, view: memoryview, *, last: bool = False) -> bool:
        nonlocal came
        came += len(view)
        if giver.request_no == 1 and came > 10 * MIB and ways.source._answers is not None:
            for connection in list(ways.source._answers._connections):
                connection.hang_up()
        return real(key, giver, start, view, last=last)

    monkeypatch.setattr(ways.destination, "take_line", take)
    ways.hand_over(ways.request_to_dial())
    wait(lambda: ways.failed(), ways.told)
    assert ways.failed()[0].reason.failure_class is FailureClass.TRANSIENT
    ways.hand_over(ways.request_to_dial(2))
    ways.wait_whole()
    assert came < 60 * MIB, "what came stays"


def test_a_source_that_does_not_come_is_waited_for_so_long(
    ways_of: Callable[..., DialWays], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "DIALS_S", 0.2)
    ways = ways_of(100)
    (offer,) = ways.ask(ways.request_to_dial())
    made = ways.fetching._lobby.take(next(iter(ways.fetching._lobby._waiting)), 5.0)
    assert made is not None
    made.close()
    began_s = time.monotonic()
    ways.fetching.offered(offer)
    wait(lambda: ways.failed(), ways.told)
    assert time.monotonic() - began_s < 3
    assert ways.failed()[0].reason.text == "T1_A does not connect to the door here"


def test_what_comes_from_a_destination_that_was_killed_is_refused(ways_of: Callable[..., DialWays]) -> None:
    """A new plane expects nothing that the one before was told of."""
    ways = ways_of(100)
    request = ways.request_to_dial()
    ways.fetching.close()
    ways.fetching = DoorDestination(replace(ways.settings, site=B), ways.destination, ways.told.append)
    ways.host.close()
    ways.host = DoorSource(
        replace(ways.settings, site=B, door_host=HERE),
        PosixEndpoint(str(ways.root_b)),
        _no_payload,
        ways.told.append,
        OpenFileCache(),
        ways.destination,
    )
    _run(ways.host)
    wait(lambda: ways.host.address, ways.told)
    capability = Capability.parse(request.capability)
    assert capability is not None
    (offer,) = ways.ask(replace(request, capability=f"{ways.host.address} {capability.ticket}"))
    assert offer.reason is not None
