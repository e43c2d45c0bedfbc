"""What a carrier says of itself: its name, which requests have as `plane`, and the two sides of it that a plane runs.

Both sides are made once the storage is open, and live as long as the plane. What a side lacks for now, a broker or a
peer, it waits for in its threads. Not here: which carrier brings a transfer, and on which channel (core/channel.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from streams.core.records import ChunksRequested, Message
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.source.open_files import OpenFileCache
from streams.planes.source.server import SendChunk
from streams.settings import Settings
from streams.storage.endpoint import ReadableStorage


class CarrierSide(Protocol):
    def threads(self) -> Iterable[tuple[str, Callable[[], None]]]:
        """What runs until `close`, each in a thread of this name."""

    def close(self) -> None: ...


class SourceSide(CarrierSide, Protocol):
    """Answers the requests that name the carrier."""

    @property
    def busy(self) -> bool:
        """Whether anybody is served just now."""

    @property
    def address(self) -> str:
        """Where it can be connected to, which its site announces; "" for nowhere."""

    def serve(self, request: ChunksRequested) -> None:
        """Take a request; waits for nothing. Its destination side gets bytes, or reasons; its end is a ChunksServed."""


class DestinationSide(CarrierSide, Protocol):
    """Hands what comes to `DestinationPlane.take`, which checks it and writes it at its position."""

    def assign(self, partitions: Mapping[int, int | None]) -> None:
        """See orders.Assign. Returns when nothing that is asked for afterwards can be missed, or after `close`."""

    def opened(self, key: bytes) -> None:
        """The parts of this transfer are open: what came before is wanted now."""


@dataclass(frozen=True, slots=True)
class Carrier:
    name: str
    source: Callable[
        [Settings, ReadableStorage, SendChunk, Callable[[Message], None], OpenFileCache, DestinationPlane], SourceSide
    ]
    """Of the site's settings and storage, the way into payload topics, the way into journals, files kept open, and the
    half that knows what is on its way here."""
    destination: Callable[[Settings, DestinationPlane, Callable[[Message], None]], DestinationSide]
    """Of the site's settings, the half that takes what comes, and the way into journals."""
