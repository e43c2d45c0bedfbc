"""A plane's sources, wired: of whole files, and of entries and objects, whose unpacking must not delay those."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from streams.core.policy import PAYLOAD_BYTES_MAX
from streams.core.records import ChunksRequested, Message, RequestedItem
from streams.core.selections import parts
from streams.core.store_names import Store
from streams.errors import StorageError
from streams.kafka.publish import wall_ms
from streams.planes.source.byte_reader import FileBytes, FileKeys, FileObjects
from streams.planes.source.entry_reader import FileEntries
from streams.planes.source.open_files import OpenFileCache
from streams.planes.source.server import ReadPiece, SendChunk, SourceServer
from streams.settings import Settings
from streams.storage.endpoint import ReadableStorage

RECORD_ROOM_BYTES = 32 * 1024
"""Of a record with one large entry: left for its headers."""


MIXED = "*"


class Sources(NamedTuple):
    files: SourceServer
    entries: SourceServer
    objects: SourceServer
    keys: Mapping[str, SourceServer]
    """Files that are keys of stores, by store: none waits for the answer of another store, and files on disk for none.

    Requests for keys of several stores have a source of their own, MIXED.
    """
    stores: tuple[Store, ...] = ()

    def serve(self, request: ChunksRequested) -> None:
        self.of(request).serve(request)

    def of(self, request: ChunksRequested) -> SourceServer:
        """Who serves it: the items of a request are of one kind."""
        selection = request.items[0].selection if request.items else ""
        if parts.means_entries(selection):
            return self.entries
        if selection:
            return self.objects
        names = {store.name for item in request.items for store in self.stores if store.holds(item.lfn)}
        return self.keys[names.pop() if len(names) == 1 else MIXED] if names else self.files

    def all(self) -> Iterator[tuple[str, SourceServer]]:
        """Each by a name."""
        yield from (("files", self.files), ("entries", self.entries), ("objects", self.objects))
        yield from ((f"keys-{name}", source) for name, source in self.keys.items())

    def threads(self) -> Iterator[tuple[str, Callable[[], None]]]:
        return ((name, source.run) for name, source in self.all())

    @property
    def busy(self) -> bool:
        """Whether anybody is served just now."""
        return any(source.busy for _, source in self.all())

    @property
    def address(self) -> str:
        """Payload needs no address: it goes through the log."""
        return ""

    def close(self) -> None:
        for _, source in self.all():
            source.close()


class NoSupply:
    """What a source has for requests that it cannot serve, for the reason that `why` gives of each."""

    idle_s = 0.0

    def __init__(self, why: Callable[[ChunksRequested], str]) -> None:
        self._why = why

    def turn_bytes(self, waiting: int) -> int:
        return 1

    def take(
        self, request: ChunksRequested, item: RequestedItem, offset: int, length: int, room_bytes: int
    ) -> ReadPiece:
        raise StorageError(self._why(request))

    def close(self) -> None:
        pass


def refusing(
    settings: Settings,
    why: Callable[[ChunksRequested], str],
    send_chunk: SendChunk,
    publish: Callable[[Message], None],
) -> SourceServer:
    """A source that cannot read for now whatever it is asked for."""
    return SourceServer(settings.here, NoSupply(why), settings.registry.payload_bytes, send_chunk, publish, wall_ms)


def sources(
    settings: Settings,
    endpoint: ReadableStorage,
    send_chunk: SendChunk,
    publish: Callable[[Message], None],
    open_files: OpenFileCache,
    _destination: object = None,
) -> Sources:
    """What is on its way here is given by the door alone."""
    size, codec = settings.registry.payload_bytes, settings.policy.payload_codec
    # What the client queues for the broker bounds a record too, and is mostly smaller than the broker's bound.
    record_bytes = min(PAYLOAD_BYTES_MAX, max(settings.chunk_queue_bytes, 5 * size)) - RECORD_ROOM_BYTES
    files = SourceServer(settings.here, FileBytes(endpoint), size, send_chunk, publish, wall_ms)
    supply = FileEntries(endpoint, size, codec, record_bytes, open_files)
    entries = SourceServer(settings.here, supply, size, send_chunk, publish, wall_ms)
    unpacked = FileObjects(endpoint, str(Path(settings.datadir) / "unpacked"))
    objects = SourceServer(settings.here, unpacked, size, send_chunk, publish, wall_ms)
    names = [store.name for store in settings.stores]
    keys = {
        name: SourceServer(settings.here, FileKeys(endpoint), size, send_chunk, publish, wall_ms)
        for name in (names if len(names) < 2 else [*names, MIXED])
    }
    return Sources(files, entries, objects, keys, settings.stores)
