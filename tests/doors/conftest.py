"""A real door over real files, on loopback, and a connection to it."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from streams.core.names import Destination, Lfn, Site
from streams.core.ranges import Ranges
from streams.core.records import RequestedItem
from streams.doors.client import BUFFER_BYTES, DoorConnection
from streams.doors.server import Door, DoorLimits
from streams.doors.tickets import Ticket, Tickets
from streams.storage.posix import PosixEndpoint

HERE = "127.0.0.1"
THERE = Destination(Site("T2_B"))


@dataclass
class Stage:
    """Files laid end to end on a line, and a door that gives them."""

    root: Path
    endpoint: PosixEndpoint
    contents: list[bytes]
    items: tuple[RequestedItem, ...]
    tickets: Tickets
    door: Door
    ended: list[Ticket] = field(default_factory=list)

    @property
    def line(self) -> bytes:
        return b"".join(self.contents)

    def ticket(self, *spans: tuple[int, int]) -> str:
        ranges = Ranges(spans or [(0, len(self.line))])
        token = self.tickets.make(self.items, ranges, THERE, self.ended.append)
        assert token is not None
        return token

    def connect(self, tls: ssl.SSLContext | None = None) -> DoorConnection:
        return DoorConnection(HERE, self.door.port, tls=tls)

    def path(self, number: int) -> Path:
        return self.root / self.items[number].lfn[1:]


def pull(connection: DoorConnection, token: str, *spans: tuple[int, int]) -> dict[int, bytes]:
    """What came at which position; all spans are asked for at once."""
    came: dict[int, bytes] = {}

    def take(at: int, view: memoryview) -> None:
        came[at] = bytes(view)

    for span in spans:
        connection.ask(token, *span)
    for _ in spans:
        connection.receive(memoryview(bytearray(BUFFER_BYTES)), take)
    return came


def joined(came: dict[int, bytes]) -> bytes:
    return b"".join(came[at] for at in sorted(came))


@contextlib.contextmanager
def running(door: Door) -> Iterator[Door]:
    threads = [threading.Thread(target=work, name=name, daemon=True) for name, work in door.threads()]
    for thread in threads:
        thread.start()
    try:
        yield door
    finally:
        door.close()
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def stage_of(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """`stage_of(sizes, limits=…, rate=…, tls=…)`: a stage with files of these sizes."""
    with contextlib.ExitStack() as stack:

        def make(
            sizes: list[int], *, limits: DoorLimits | None = None, rate: float = 0.0, tls: ssl.SSLContext | None = None
        ) -> Stage:
            root = tmp_path / "store"
            root.mkdir()
            endpoint = stack.enter_context(contextlib.closing(PosixEndpoint(str(root))))
            contents, items, start = [], [], 0
            for number, size in enumerate(sizes):
                content = os.urandom(size)
                path = root / "data" / f"f{number}.root"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                lfn = Lfn(f"/data/f{number}.root")
                items.append(RequestedItem(number, lfn, start, size, endpoint.stat(lfn).version))
                contents.append(content)
                start += size
            tickets = Tickets()
            door = Door(endpoint, tickets, HERE, limits=limits, rate=rate, tls=tls)
            stack.enter_context(running(door))
            return Stage(root, endpoint, contents, tuple(items), tickets, door)

        yield make
