"""`python -m tests.bench.flip`: one bit of a large file flipped on its way; what comes again, and how long it takes.

    python -m tests.bench.flip [--size BYTES] [--directory DIRECTORY]

A door, a way that flips a bit, the pull engine and the product's own part files in one process, without brokers. What a
transfer tool does that compares the whole at its end, and copies it again, is the first attempt's time once more.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from streams.core.manifest import Manifest
from streams.core.names import Destination
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import Message, PartLost, TransferProgress
from streams.doors.server import Door
from streams.doors.tickets import Tickets
from streams.planes.carriers.door.addresses import Address, Offer
from streams.planes.carriers.door.pulls import Pulls
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.orders import Open
from streams.storage.posix import PosixEndpoint
from streams.wire import encode
from tests.bench.doors import HERE, PARTITIONS, A, B, make, manifests_of
from tests.planes.ends import FlippingWay

WAIT_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.flip", description=__doc__)
    parser.add_argument("--size", type=int, default=10_000_000_000)
    parser.add_argument("--directory", default=tempfile.gettempdir())
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=said.directory) as directory, contextlib.ExitStack() as stack:
        source, target = Path(directory) / "a", Path(directory) / "b"
        make(source, [said.size])
        target.mkdir()
        (body,) = manifests_of(source)
        manifest, whole, told = Manifest(body), Ranges([(0, said.size)]), list[Message]()
        there, here = (stack.enter_context(PosixEndpoint(str(root))) for root in (source, target))
        tickets = Tickets()
        door = Door(there, tickets, HERE)
        destination = DestinationPlane(B, PARTITIONS, here, told.append)
        pulls = Pulls(destination)
        for side in (door, destination, pulls):
            stack.callback(side.close)
            for name, work in side.threads():
                threading.Thread(target=work, name=name, daemon=True).start()
        way = FlippingWay(door.port, 50_000_000)
        stack.callback(way.close)
        before = 0
        for attempt, over in ((1, PartLost), (2, TransferProgress)):
            began_s = time.monotonic()
            for _ in destination.begin(Open(body.manifest, encode(body), attempt, EMPTY, EMPTY, EMPTY)) or ():
                pass
            token = tickets.make(manifest.requested(whole, A), whole, Destination(B), lambda _: None)
            assert token is not None
            pulls.offered(Offer(body.manifest, A, attempt, whole, Address(HERE, way.port), token))
            _wait(lambda over=over: any(isinstance(one, over) and _ended(one) for one in told))
            took_s, crossed = time.monotonic() - began_s, way.passed - before
            print(f"attempt {attempt}: {crossed / 1e6:,.1f} MB crossed in {took_s:.1f} s", flush=True)
            before = way.passed


def _ended(message: Message) -> bool:
    return not isinstance(message, TransferProgress) or bool(message.sealed)


def _wait(what: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < until, "it does not end"
        time.sleep(0.02)


if __name__ == "__main__":
    main()
