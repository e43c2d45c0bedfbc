"""The mover to many: one file from a source to each of N destinations, each from the one before it, a process a site.

    python -m tests.bench.chain [--rounds N] [--size BYTES] [--to N]

No brokers: each destination asks its predecessor's door at once, and pulls what that has by then. Beside it, in the
same rounds, all of them ask the source itself. Printed: copies that left the source, MB/s delivered, and their ratio.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from streams.core.channel import DOOR
from streams.core.manifest import Manifest
from streams.core.names import Destination, Site
from streams.core.ranges import Ranges
from streams.core.records import (
    ChunksOffered,
    ChunksRequested,
    ChunksServed,
    ManifestWritten,
    Message,
    SourceFailed,
    TransferProgress,
)
from streams.planes.carriers.door.fetching import DoorDestination
from streams.planes.carriers.door.offers import DoorSource
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.source.open_files import OpenFileCache
from streams.settings import Registry, Settings, SiteEntry
from streams.storage.posix import PosixEndpoint
from tests.bench.doors import HERE, PARTITIONS, A, manifests_of
from tests.planes.stage import open_order

WAIT_S = 120.0
TOLD_S = 7.0
"""A ticket of which all has left tells it 5 s later."""


def site(pipe: Connection, here: Site, names: Sequence[Site], root: Path) -> None:
    """A site's plane, until its pipe closes: each order is answered."""
    sys.setswitchinterval(0.001)
    registry = Registry(tuple(SiteEntry(name, f"{HERE}:1") for name in names))
    settings = Settings(registry, here, root, root, root, root, door_host=HERE)
    endpoint = PosixEndpoint(str(root))
    said: list[Message] = []
    changed = threading.Condition()

    def hear(message: Message) -> None:
        with changed:
            said.append(message)
            changed.notify_all()

    def until(fits: Callable[[Message], bool]) -> Message:
        with changed:
            assert changed.wait_for(lambda: any(map(fits, said)), WAIT_S), said[-3:]
        return next(filter(fits, said))

    destination = DestinationPlane(here, PARTITIONS, endpoint, hear)
    fetching = DoorDestination(settings, destination, hear)
    source = DoorSource(settings, endpoint, lambda *_, **__: None, hear, OpenFileCache(), destination)
    for side in (destination, fetching, source):
        for name, work in side.threads():
            threading.Thread(target=work, name=name, daemon=True).start()
    while not source.address:
        time.sleep(0.01)
    try:
        while True:
            match pipe.recv():
                case ManifestWritten() as body:
                    for _ in destination.begin(open_order(body)) or ():
                        pass
                    pipe.send(None)
                case ChunksRequested() as request:
                    source.serve(request)
                    pipe.send(until(lambda one, to=request.destination: _offered(one, to)))  # type: ignore[misc]
                case ChunksOffered() as offer:
                    fetching.offered(offer)
                    pipe.send(None)
                case "whole":
                    until(lambda one: isinstance(one, TransferProgress) and bool(one.sealed))
                    failed = [one for one in said if isinstance(one, SourceFailed)]
                    pipe.send(failed)
                case "served":
                    pipe.send(sum(one.bytes for one in said if isinstance(one, ChunksServed)))
    except EOFError:
        os._exit(0)


def _offered(message: Message, to: Destination) -> bool:
    return isinstance(message, ChunksOffered) and message.destination == to


def moved(root: Path, to: int, body: ManifestWritten, *, chained: bool) -> tuple[float, float]:
    """Seconds until all have it, and copies that left the source."""
    names = [A, *(Site(f"T2_D{n}") for n in range(1, to + 1))]
    total = Manifest(body).line.total
    whole = Ranges([(0, total)])
    spawn = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    for number, name in enumerate(names):
        mine, its = spawn.Pipe()
        folder = root / ("source" if not number else f"d{number}-{time.monotonic_ns()}")
        folder.mkdir(exist_ok=True)
        process = spawn.Process(target=site, args=(its, name, names, folder), daemon=True)
        process.start()
        its.close()
        pipes.append(mine)
        processes.append(process)

    def ask(number: int, what: object) -> Any:
        pipes[number].send(what)
        return pipes[number].recv()

    try:
        for number in range(1, to + 1):
            ask(number, body)
        began_s = time.perf_counter()
        for number in range(1, to + 1):
            giver = number - 1 if chained else 0
            items = Manifest(body).requested(whole, names[giver])
            request = ChunksRequested(
                body.manifest, Destination(names[number]), names[giver], 1, 1, DOOR, items, whole, 0
            )
            ask(number, ask(giver, request))
        for number in range(1, to + 1):
            pipes[number].send("whole")
        for number in range(1, to + 1):
            assert not (failed := pipes[number].recv()), failed
        took_s = time.perf_counter() - began_s
        time.sleep(TOLD_S)
        return took_s, ask(0, "served") / total
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(5)
        for left in root.glob("d*-*"):
            for path in left.rglob("*"):
                if path.is_file():
                    path.unlink()


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--size", type=int, default=1_000_000_000)
    ask.add_argument("--to", type=int, default=8)
    asked = ask.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "source" / "data" / "f"
        path.parent.mkdir(parents=True)
        block = os.urandom(1 << 20)
        with path.open("wb") as out:
            for at in range(0, asked.size, len(block)):
                out.write(block[: min(len(block), asked.size - at)])
        (body,) = manifests_of(Path(folder) / "source")
        ratios, copies, rates = [], [], []
        for _ in range(asked.rounds):
            chained_s, left = moved(Path(folder), asked.to, body, chained=True)
            separate_s, _ = moved(Path(folder), asked.to, body, chained=False)
            ratios.append(separate_s / chained_s)
            copies.append(left)
            rates.append((asked.to * asked.size / chained_s / 1e6, asked.to * asked.size / separate_s / 1e6))
        print(f"{asked.size / 1e9:.1f} GB to {asked.to}, {asked.rounds} rounds, {os.cpu_count()} cores")
        print(f"  copies that left the source, at most: {max(copies):.2f} (asked: 1.1)")
        chained, separate = (statistics.median(rate) for rate in zip(*rates, strict=True))
        print(f"  delivered: {chained:.0f} MB/s in a chain, {separate:.0f} MB/s from the source alone")
        print(f"  ratio: {statistics.median(ratios):.2f} (asked: 0.9)")


if __name__ == "__main__":
    main()
