"""A plane's sources, wired: of whole files, and of entries and objects, whose unpacking must not delay those."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from streams.core import parts
from streams.core.messages import ChunksRequested, Message
from streams.core.policy import PAYLOAD_BYTES_MAX
from streams.core.stores import Store
from streams.planes.byte_source import FileBytes, FileKeys, FileObjects
from streams.planes.entry_files import Shelf
from streams.planes.entry_source import FileEntries
from streams.planes.source import SendChunk, Source, wall_ms
from streams.settings import Settings
from streams.storage.endpoint import Endpoint

RECORD_ROOM_BYTES = 32 * 1024
"""Of a record with one large entry: left for its headers."""


class Sources(NamedTuple):
    files: Source
    entries: Source
    objects: Source
    keys: Source
    """Files that are keys of stores: those on disk do not wait for an answer over a network."""
    stores: tuple[Store, ...] = ()

    def of(self, request: ChunksRequested) -> Source:
        """Who serves it: the items of a request are of one kind."""
        selection = request.items[0].selection if request.items else ""
        if selection.startswith(parts.ENTRIES):
            return self.entries
        if selection:
            return self.objects
        return self.keys if any(store.holds(request.items[0].lfn) for store in self.stores) else self.files

    def close(self) -> None:
        for source in (self.files, self.entries, self.objects, self.keys):
            source.close()


def sources(
    settings: Settings,
    endpoint: Endpoint,
    send_chunk: SendChunk,
    publish: Callable[[Message], None],
    shelf: Shelf,
) -> Sources:
    """Each has a `run` for a thread of its own."""
    size, codec = settings.registry.payload_bytes, settings.policy.payload_codec
    # What the client queues for the broker bounds a record too, and is mostly smaller than the broker's bound.
    record_bytes = min(PAYLOAD_BYTES_MAX, max(settings.chunk_queue_bytes, 5 * size)) - RECORD_ROOM_BYTES
    files = Source(settings.here, FileBytes(endpoint), size, send_chunk, publish, wall_ms)
    supply = FileEntries(endpoint, size, codec, record_bytes, shelf)
    entries = Source(settings.here, supply, size, send_chunk, publish, wall_ms)
    unpacked = FileObjects(endpoint, str(Path(settings.datadir) / "unpacked"))
    objects = Source(settings.here, unpacked, size, send_chunk, publish, wall_ms)
    keys = Source(settings.here, FileKeys(endpoint), size, send_chunk, publish, wall_ms)
    return Sources(files, entries, objects, keys, settings.stores)
