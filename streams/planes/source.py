"""The source half of the in-log plane: requests in, payload records out. It keeps nothing that outlives a request.

Requests are served in turn, about 1 MiB of each, one request of a (manifest, destination) at a time. What cannot be
read is said in the payload's place, as a segment with a reason; what may be readable later is left out, and is asked
for again when the lease ends.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Condition
from typing import Protocol

from streams.core.manifest import RequestLine, chunks
from streams.core.messages import (
    ChunkHeader,
    ChunksRequested,
    ChunksServed,
    FailureClass,
    Message,
    Reason,
    RequestedItem,
    Scope,
    Segment,
)
from streams.core.names import Destination, ManifestId, Site
from streams.core.policy import SEGMENTS_MAX
from streams.core.ranges import EMPTY, Ranges
from streams.errors import StorageError, Temporary
from streams.planes.landing import reason_of
from streams.storage.checksums import crc32c
from streams.storage.endpoint import Endpoint, Reader

log = logging.getLogger(__name__)

REASONS_BYTES_MAX = 5000
"""Of one record's reasons: the header of 256 segments stays under its cap."""
READERS_MAX = 32
TURN_BYTES = 1024 * 1024
"""Sent of one request before another has its turn: records of one partition in a row share a batch, in every hop."""
SERVED_MAX = 8192
ROOM_S = 1.0
ITEMS_MAX = 50_000
"""Items of waiting requests, at about 400 bytes; beyond, requests are dropped, and asked for again."""


class SendChunk(Protocol):
    """`Publisher.send_chunk`: waits for room, else raises Temporary."""

    def __call__(self, header: ChunkHeader, payload: bytes, *, wait_s: float = ...) -> None: ...


Key = tuple[ManifestId, Destination]
Piece = tuple[RequestedItem, int, int]


@dataclass(eq=False)
class _Stream:
    """A request being served."""

    request: ChunksRequested
    cuts: Iterator[tuple[int, int]]
    line: RequestLine
    pieces: deque[Piece] = field(default_factory=deque)
    at: int = 0
    refused: dict[int, Reason] = field(default_factory=dict)
    sent: Ranges = EMPTY
    sent_bytes: int = 0
    superseded: bool = False

    def load(self) -> bool:
        """Have the next chunk's pieces ready; False when there is none."""
        while not self.pieces:
            cut = next(self.cuts, None)
            if cut is None:
                return False
            self.at = cut[0]
            self.pieces.extend(self.line.pieces(*cut))
        return True


class Source:
    def __init__(
        self,
        here: Site,
        endpoint: Endpoint,
        payload_bytes: int,
        send_chunk: SendChunk,
        publish: Callable[[Message], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._here = here
        self._endpoint = endpoint
        self._payload_bytes = payload_bytes
        self._send_chunk = send_chunk
        self._publish = publish
        self._now_ms = now_ms
        self._wake = Condition()
        self._waiting: OrderedDict[Key, deque[_Stream]] = OrderedDict()
        self._served: OrderedDict[tuple[ManifestId, Destination, int], None] = OrderedDict()
        self._readers: OrderedDict[tuple[str, str], Reader] = OrderedDict()
        self._items = 0
        self._running = True

    def serve(self, request: ChunksRequested) -> None:
        """Take a request in (order thread). A number is served once; one whose lease ended, never."""
        name = (request.manifest, request.destination, request.request_no)
        if request.source != self._here or name in self._served:
            return
        if self._now_ms() >= request.until_ms:
            log.info("%s request %d came after its lease had ended", request.manifest, request.request_no)
            return
        if self._items and self._items + len(request.items) > ITEMS_MAX:
            log.warning("%s request %d: too many are waiting; dropped", request.manifest, request.request_no)
            return
        self._served[name] = None
        if len(self._served) > SERVED_MAX:
            self._served.popitem(last=False)
        stream = _Stream(request, chunks(request, self._payload_bytes), RequestLine(request.items))
        with self._wake:
            self._items += len(request.items)
            waiting = self._waiting.setdefault(name[:2], deque())
            for older in waiting:
                # The destination has given it up, or it would not ask for the same again.
                older.superseded = older.superseded or bool(older.request.ranges & request.ranges)
            waiting.append(stream)
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._running = False
            self._wake.notify()

    def run(self) -> None:
        """The source thread: until `close`. A request that cannot be served is dropped with a line in the log."""
        while self._running:
            with self._wake:
                if not self._waiting:
                    self._close_readers()
                    self._wake.wait()
                    continue
                key, streams = next(iter(self._waiting.items()))
                stream = streams[0]
            try:
                more = self._send_turn(stream)
            except Exception:
                log.exception("%s request %d is dropped", stream.request.manifest, stream.request.request_no)
                more = False
            with self._wake:
                if not more:
                    self._items -= len(streams.popleft().request.items)
                self._waiting.move_to_end(key)
                if not streams:
                    del self._waiting[key]

    def _send_turn(self, stream: _Stream) -> bool:
        """Send some of the request's records; whether there are more."""
        until = stream.sent_bytes + TURN_BYTES
        while self._send_one(stream):
            if stream.sent_bytes >= until:
                return True
        return False

    def _send_one(self, stream: _Stream) -> bool:
        """Send the request's next record; whether there are more."""
        request = stream.request
        if self._now_ms() >= request.until_ms:
            log.info("%s request %d: its lease ended while it was served", request.manifest, request.request_no)
            return False
        if stream.superseded:
            log.info("%s request %d: what is left of it was asked for again", request.manifest, request.request_no)
            return False
        if not stream.load():
            return False
        segments: list[Segment] = []
        parts: list[bytes] = []
        start, reasons_bytes = stream.at, 0
        while stream.pieces and len(segments) < SEGMENTS_MAX and reasons_bytes < REASONS_BYTES_MAX:
            item, offset, length = stream.pieces.popleft()
            read = self._read(stream, item, offset, length)
            stream.at += length
            if read is None:
                if segments:
                    stream.at -= length
                    stream.pieces.appendleft((item, offset, length))
                    break
                start = stream.at
            elif isinstance(read, bytes):
                parts.append(read)
                segments.append(Segment(item.no, offset, length, length, crc32c(read)))
            else:
                reasons_bytes += len(read.text) + 64
                segments.append(Segment(item.no, offset, length, 0, None, read))
        more = stream.load() if not stream.pieces else True
        if segments:
            stop = start + sum(segment.length for segment in segments)
            payload = parts[0] if len(parts) == 1 else b"".join(parts)
            header = ChunkHeader(
                request.manifest, request.destination, request.request_no, start, stop, tuple(segments), last=not more
            )
            if not self._send(header, payload, request.until_ms):
                return False
            stream.sent |= Ranges([(start, stop)])
            stream.sent_bytes += len(payload)
        if not more and stream.sent:
            self._publish(
                ChunksServed(
                    request.manifest,
                    self._here,
                    request.destination,
                    request.request_no,
                    stream.sent,
                    stream.sent_bytes,
                )
            )
        return more

    def _send(self, header: ChunkHeader, payload: bytes, until_ms: int) -> bool:
        while self._running:
            try:
                self._send_chunk(header, payload, wait_s=ROOM_S)
            except Temporary:  # the broker is away or slow; what waits longer than the lease is dropped by it
                if self._now_ms() >= until_ms:
                    return False
                continue
            return True
        return False

    def _read(self, stream: _Stream, item: RequestedItem, offset: int, length: int) -> bytes | Reason | None:
        """The bytes, why there are none for good, or None where trying later may help."""
        known = stream.refused.get(item.no)
        if known is not None:
            return known if known.failure_class is not FailureClass.TRANSIENT else None
        try:
            return self._reader(item).pread(offset, length)
        except StorageError as error:
            reason = stream.refused[item.no] = reason_of(error, "read", Scope.SOURCE)
            log.warning("%s item %d: %s", stream.request.manifest, item.no, reason.text)
            return reason if reason.failure_class is not FailureClass.TRANSIENT else None

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

    def _close_readers(self) -> None:
        while self._readers:
            self._readers.popitem()[1].close()


def wall_ms() -> int:
    return time.time_ns() // 1_000_000
