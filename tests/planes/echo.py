"""The carrier `echo`, the small example of one: each record goes over a local socket, and comes back as a nod.

Sites meet below a state directory that they share. It keeps nothing: what comes while no parts are open is dropped, and
asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Client, Listener

from streams.core.names import Site
from streams.core.records import ChunkHeader, Message
from streams.errors import Temporary
from streams.planes.carriers.carrier import Carrier
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.source.open_files import OpenFileCache
from streams.planes.source.server import SendChunk
from streams.planes.source.wiring import Sources, sources
from streams.settings import Settings
from streams.storage.endpoint import ReadableStorage

NAME = "echo"
AGAIN_S = 0.05


def address(settings: Settings, site: Site) -> str:
    return str(settings.state / f"{site}.{NAME}")


def source(
    settings: Settings,
    storage: ReadableStorage,
    _: SendChunk,
    publish: Callable[[Message], None],
    open_files: OpenFileCache,
    destination: DestinationPlane,
) -> Sources:
    """The usual servers, whose records go over the socket instead of into payload topics."""

    def send(header: ChunkHeader, payload: bytes, *, wait_s: float = 0.0) -> None:
        try:
            with Client(address(settings, header.destination.site), "AF_UNIX") as connection:
                connection.send((settings.here, header, payload))
                connection.recv()
        except (OSError, EOFError) as error:
            time.sleep(min(wait_s, AGAIN_S))
            raise Temporary(f"nobody listens at {header.destination}: {error}") from error

    return sources(settings, storage, send, publish, open_files, destination)


class EchoDestination:
    def __init__(self, settings: Settings, destination: DestinationPlane, publish: Callable[[Message], None]) -> None:
        self._destination = destination
        self._address = address(settings, settings.here)
        self._listener = Listener(self._address, "AF_UNIX", backlog=16)
        self._running = True

    def assign(self, partitions: Mapping[int, int | None]) -> None:
        """It listens already."""

    def opened(self, key: bytes) -> None:
        """Nothing was kept."""

    def threads(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield NAME, self._run

    def _run(self) -> None:
        while self._running:
            with self._listener.accept() as connection:
                try:
                    site, header, payload = connection.recv()
                except EOFError:
                    continue
                self._destination.take(NAME, header.manifest.encode(), site, header, payload)
                connection.send(True)
        self._listener.close()

    def close(self) -> None:
        self._running = False
        Client(self._address, "AF_UNIX").close()


CARRIER = Carrier(NAME, source, EchoDestination)
