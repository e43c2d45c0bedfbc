"""What a request for whole files is answered with: bytes as they lie in the storage. Sending them is source.py's."""

from __future__ import annotations

from collections import OrderedDict

from streams.core.messages import ChunksRequested, RequestedItem
from streams.errors import StorageError
from streams.planes.source import Taken
from streams.storage.endpoint import Endpoint, Reader

READERS_MAX = 32
TURN_BYTES = 1024 * 1024
"""Sent of one request before another has its turn: records of one partition in a row share a batch, in every hop."""


class FileBytes:
    """Used by one thread."""

    idle_s = 0.0

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._readers: OrderedDict[tuple[str, str], Reader] = OrderedDict()

    def turn_bytes(self, waiting: int) -> int:
        return TURN_BYTES

    def take(self, request: ChunksRequested, item: RequestedItem, offset: int, length: int, room_bytes: int) -> Taken:
        length = min(length, room_bytes)
        return Taken(length, self._reader(item).pread(offset, length))

    def close(self) -> None:
        while self._readers:
            self._readers.popitem()[1].close()

    def _reader(self, item: RequestedItem) -> Reader:
        name = (item.lfn, item.version)
        reader = self._readers.get(name)
        if reader is None:
            reader = self._endpoint.open_reader(item.lfn, item.version or None)
            if reader.stat.bytes != item.length:
                reader.close()
                what = f"the file has {reader.stat.bytes:,} bytes where {item.length:,} were registered"
                raise StorageError(what, item.lfn, "register it again", failure_class="data-bad")
            self._readers[name] = reader
            if len(self._readers) > READERS_MAX:
                self._readers.popitem(last=False)[1].close()
        return reader
