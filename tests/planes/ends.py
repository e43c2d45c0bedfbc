"""A real door, the pull engine and a real destination, without Kafka; and a way between them that flips a bit."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from streams.core.manifest import Manifest
from streams.core.names import Destination
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import ManifestWritten, Message, PartOpened, SourceFailed, TransferProgress
from streams.doors.server import Door
from streams.doors.tickets import Tickets
from streams.planes.carriers.door.addresses import Address, Offer
from streams.planes.carriers.door.pulls import Pulls
from streams.planes.destination.coordinator import DestinationPlane
from streams.storage.posix import PosixEndpoint
from tests.doors.conftest import HERE, running
from tests.planes.stage import PARTITIONS, A, B, manifest_of, open_order, put

MIB = 1 << 20


class Ends:
    """A source's door and a destination that pulls from it."""

    def __init__(self, root: Path, files: dict[str, bytes]) -> None:
        self.files, self.told = files, list[Message]()
        self.root_a, self.root_b = root / "a", root / "b"
        put(self.root_a, files)
        self.root_b.mkdir()
        self.body: ManifestWritten = manifest_of(self.root_a, files)
        self.manifest = Manifest(self.body)
        self.total = self.manifest.line.total
        self.endpoint_a, self.endpoint_b = PosixEndpoint(str(self.root_a)), PosixEndpoint(str(self.root_b))
        self.tickets = Tickets()
        self.door = Door(self.endpoint_a, self.tickets, HERE)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Ends:
        self._stack.enter_context(running(self.door))
        self._begin()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.pulls.close()
        self.destination.close()
        self.endpoint_a.close()
        self.endpoint_b.close()

    @property
    def framed(self) -> bytes:
        return open_order(self.body).manifest

    def open(self, attempt: int = 1, *, repair: bool = False, **known: Ranges) -> None:
        order = open_order(self.body, attempt, sealed=self.sealed(), repair=repair, **known)
        for _ in self.destination.begin(order) or ():
            pass

    def restart(self, attempt: int, **known: Ranges) -> None:
        """Another plane over the same directory; the one before is left as a kill would leave it."""
        self.pulls.close()
        self.destination.close()
        self._begin()
        self.open(attempt, **known)

    def unversioned(self) -> None:
        """From now on the door is asked as who is not the holder is: for whatever stands there."""
        items = tuple(replace(item, version="") for item in self.body.items)
        self.manifest = Manifest(replace(self.body, items=items))

    def _begin(self) -> None:
        self.destination = DestinationPlane(B, PARTITIONS, self.endpoint_b, self.told.append)
        self.pulls = Pulls(self.destination, stall_s=1)
        for side in (self.destination, self.pulls):
            for name, work in side.threads():
                threading.Thread(target=work, name=name, daemon=True).start()

    def token(self, ranges: Ranges | None = None) -> str:
        wanted = ranges or Ranges([(0, self.total)])
        token = self.tickets.make(self.manifest.requested(wanted, A), wanted, Destination(B), lambda _: None)
        assert token is not None
        return token

    def offer(self, number: int = 1, port: int | None = None, ranges: Ranges | None = None, token: str = "") -> Offer:
        wanted = ranges or Ranges([(0, self.total)])
        address = Address(HERE, port or self.door.port)
        return Offer(self.body.manifest, A, number, wanted, address, token or self.token(wanted))

    def opened(self, attempt: int) -> PartOpened:
        return next(one for one in self.told if isinstance(one, PartOpened) and one.attempt == attempt)

    def progress(self) -> list[TransferProgress]:
        return [one for one in self.told if isinstance(one, TransferProgress)]

    def sealed(self) -> Ranges:
        sealed = EMPTY
        for one in self.progress():
            sealed = sealed | one.sealed
        return sealed

    def failed(self) -> list[SourceFailed]:
        return [one for one in self.told if isinstance(one, SourceFailed)]

    def wait(self, what: Callable[[], object], wait_s: float = 20) -> None:
        until = time.monotonic() + wait_s
        while not what():
            assert time.monotonic() < until, self.told
            time.sleep(0.01)

    def wait_whole(self) -> None:
        self.wait(lambda: self.sealed().covers(0, len(self.files)))
        for lfn, content in self.files.items():
            assert (self.root_b / lfn[1:]).read_bytes() == content


class FlippingWay:
    """Between who connects to `port` and a door. Of what the door sends on its first connection one bit is flipped."""

    def __init__(self, door_port: int, at: int) -> None:
        """`at`: of the bytes that the door sends there, heads included; -1: none."""
        self._listener = socket.create_server((HERE, 0))
        self.port: int = self._listener.getsockname()[1]
        self.passed = 0
        """Bytes that the door sent, on all connections."""
        self._door_port, self._at, self._first = door_port, at, True
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                door = socket.create_connection((HERE, self._door_port))
                flip, self._first = self._at if self._first else -1, False
                threading.Thread(target=self._pass, args=(client, door, -1, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(door, client, flip, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, flip: int, counted: bool) -> None:
        at = 0
        with source, sink, contextlib.suppress(OSError):
            while piece := bytearray(source.recv(1 << 16)):
                if at <= flip < at + len(piece):
                    piece[flip - at] ^= 1
                at += len(piece)
                self.passed += len(piece) if counted else 0
                sink.sendall(piece)
