"""The source half of a plane: requests in, payload records out. It keeps nothing that outlives a request.

Requests are served in turn, some of each, one request of a (manifest, destination) at a time. What cannot be read is
said in the payload's place, as a segment with a reason: a transient one where trying later may help. Then the request
goes on with its other items. What is read, and how it is cut, is a `Supply`'s: byte_reader.py, entry_reader.py.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Condition
from typing import Protocol

from streams.core.manifest import RequestLine
from streams.core.names import Destination, ManifestId, Site, Text, shown
from streams.core.policy import SEGMENTS_MAX
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import (
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
from streams.errors import CLUSTER_AWAY, StorageError
from streams.planes.reasons import reason_of
from streams.storage.checksums import crc32c

log = logging.getLogger(__name__)

EXTRAS_BYTES_MAX = 5000
"""Of one record's reasons and fingerprints: the header of 256 segments stays under its cap."""
SERVED_MAX = 8192
ROOM_S = 1.0
SEGMENT_BYTES = 4096
"""What each segment counts of a turn beside its bytes: opening a small file takes as long as sending so much."""
ITEMS_MAX = 50_000
"""Items of waiting requests, at about 400 bytes. What comes beyond is told to ask again; beyond twice as many, dropped.
"""
_BUSY = Reason(Scope.SOURCE, FailureClass.TRANSIENT, "read", Text("the source has too many requests waiting"))


class SendChunk(Protocol):
    """`Publisher.send_chunk`: waits for room, else raises Temporary."""

    def __call__(self, header: ChunkHeader, payload: bytes, *, wait_s: float = ...) -> None: ...


@dataclass(frozen=True, slots=True)
class ReadPiece:
    """The first `length` units of what was asked for: the payload, or why just they cannot be sent."""

    length: int
    payload: bytes
    fingerprint: str = ""
    reason: Reason | None = None


class Supply(Protocol):
    """What requested items hold. All but `idle_s` is called by the source's thread only."""

    idle_s: float
    """Files are kept open so long after the last request."""

    def turn_bytes(self, waiting: int) -> int:
        """Sent of one request before another has its turn, when requests of so many transfers wait."""

    def take(
        self, request: ChunksRequested, item: RequestedItem, offset: int, length: int, room_bytes: int
    ) -> ReadPiece:
        """At least one unit of `[offset, offset + length)` of the item, in at most about `room_bytes`.

        Raises StorageError for all that is asked of the item.
        """

    def close(self) -> None:
        """Close what is open; it is opened again when needed."""


StreamKey = tuple[ManifestId, Destination]


@dataclass(frozen=True, slots=True)
class _Part:
    """A segment, where it stands on the line, and its bytes."""

    start: int
    segment: Segment
    payload: bytes

    @property
    def stop(self) -> int:
        return self.start + self.segment.length

    @property
    def unread(self) -> bool:
        """Whether trying later may help."""
        reason = self.segment.reason
        return reason is not None and reason.failure_class is FailureClass.TRANSIENT


@dataclass(eq=False)
class _Stream:
    """A request being served. `piece` is what comes next: item, offset in it, length; `held` was read before it."""

    request: ChunksRequested
    pieces: Iterator[tuple[RequestedItem, int, int]]
    piece: tuple[RequestedItem, int, int] | None = None
    held: _Part | None = None
    refused: dict[int, Reason] = field(default_factory=dict)
    fault: Reason | None = None
    """Why nothing at all is read for it now."""
    answered: bool = False
    sent: Ranges = EMPTY
    """Without what cannot be read now."""
    sent_bytes: int = 0
    sent_segments: int = 0
    superseded: bool = False

    @classmethod
    def of(cls, request: ChunksRequested) -> _Stream:
        line = RequestLine(request.items)
        pieces = (piece for start, stop in request.ranges for piece in line.pieces(start, stop))
        return cls(request, pieces, next(pieces, None))

    @property
    def name(self) -> tuple[ManifestId, Destination, int]:
        return self.request.manifest, self.request.destination, self.request.request_no

    @property
    def cost(self) -> int:
        """Of what was sent, for turns."""
        return self.sent_bytes + SEGMENT_BYTES * self.sent_segments

    @property
    def more(self) -> bool:
        return self.held is not None or self.piece is not None

    def advance(self, length: int) -> None:
        """Go on behind so much of the piece."""
        assert self.piece is not None
        item, offset, left = self.piece
        self.piece = (item, offset + length, left - length) if length < left else next(self.pieces, None)


class SourceServer:
    def __init__(
        self,
        here: Site,
        supply: Supply,
        payload_bytes: int,
        send_chunk: SendChunk,
        publish: Callable[[Message], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._here = here
        self._supply = supply
        self._payload_bytes = payload_bytes
        self._send_chunk = send_chunk
        self._publish = publish
        self._now_ms = now_ms
        self._wake = Condition()
        self._waiting: OrderedDict[StreamKey, deque[_Stream]] = OrderedDict()
        self._served: OrderedDict[tuple[ManifestId, Destination, int], None] = OrderedDict()
        self._items = 0
        self._running = True

    def serve(self, request: ChunksRequested) -> None:
        """Take a request in (any thread). A number is served once; one whose lease ended, never."""
        if request.source != self._here:
            return
        if self._now_ms() >= request.until_ms:
            log.info("%s request %d came after its lease had ended", request.manifest, request.request_no)
            return
        stream = _Stream.of(request)
        name = stream.name
        with self._wake:
            if name in self._served:
                return
            if self._items and self._items + len(request.items) > ITEMS_MAX:
                if self._items + len(request.items) > 2 * ITEMS_MAX:
                    log.warning("%s request %d: too many are waiting; dropped", request.manifest, request.request_no)
                    return
                stream.fault = _BUSY
            self._served[name] = None
            if len(self._served) > SERVED_MAX:
                self._served.popitem(last=False)
            self._items += len(request.items)
            waiting = self._waiting.setdefault(name[:2], deque())
            for older in waiting:
                # The destination has given it up, or it would not ask for the same again.
                older.superseded = older.superseded or bool(older.request.ranges & request.ranges)
            waiting.append(stream)
            self._wake.notify()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def close(self) -> None:
        with self._wake:
            self._running = False
            self._wake.notify()

    def run(self) -> None:
        """The source thread: until `close`. A request that a fault of ours ends may be told again."""
        used = False
        while self._running:
            with self._wake:
                if not self._waiting:
                    if used and not (self._supply.idle_s and self._wake.wait(self._supply.idle_s)):
                        self._supply.close()
                        used = False
                    elif not used and self._running:  # asked under the lock, or the last call could be missed
                        self._wake.wait()
                    continue
                key, streams = next(iter(self._waiting.items()))
                stream, waiting = streams[0], len(self._waiting)
            used = True
            try:
                more = self._send_turn(stream, self._supply.turn_bytes(waiting))
            except Exception:
                log.exception("%s request %d is dropped", stream.request.manifest, stream.request.request_no)
                more = False
                with self._wake:
                    self._served.pop(stream.name, None)
            with self._wake:
                if not more:
                    self._items -= len(streams.popleft().request.items)
                self._waiting.move_to_end(key)
                if not streams:
                    del self._waiting[key]
        self._supply.close()

    def _send_turn(self, stream: _Stream, turn_bytes: int) -> bool:
        """Send some of the request's records; whether there are more."""
        until = stream.cost + turn_bytes
        while self._send_one(stream):
            if stream.cost >= until:
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
        parts = self._gather(stream)
        if parts:
            start, stop = parts[0].start, parts[-1].stop
            payload = parts[0].payload if len(parts) == 1 else b"".join(part.payload for part in parts)
            segments = tuple(part.segment for part in parts)
            header = ChunkHeader(
                request.manifest, request.destination, request.request_no, start, stop, segments, last=not stream.more
            )
            if not self._send(header, payload, request.until_ms):
                return False
            stream.answered = True
            unread = Ranges((part.start, part.stop) for part in parts if part.unread)
            stream.sent |= Ranges([(start, stop)]) - unread
            stream.sent_bytes += len(payload)
            stream.sent_segments += len(parts)
        if not stream.more and stream.answered:
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
        return stream.more

    def _gather(self, stream: _Stream) -> list[_Part]:
        """The next record's parts, each behind the one before; what does not go with them is held for the next."""
        parts: list[_Part] = []
        total = extras_bytes = 0
        while len(parts) < SEGMENTS_MAX and extras_bytes < EXTRAS_BYTES_MAX and total < self._payload_bytes:
            part, stream.held = stream.held or self._next(stream, self._payload_bytes - total), None
            if part is None:
                break
            if parts and (part.start != parts[-1].stop or total + len(part.payload) > self._payload_bytes):
                stream.held = part
                break
            parts.append(part)
            total += len(part.payload)
            segment = part.segment
            extras_bytes += 25 + len(segment.fingerprint) if segment.fingerprint else 0
            extras_bytes += 64 + len(segment.reason.text) if segment.reason else 0
        return parts

    def _next(self, stream: _Stream, room_bytes: int) -> _Part | None:
        """What is sent next, None at the end."""
        if stream.piece is None or stream.superseded:
            return None
        item, offset, _ = stream.piece
        taken = self._take(stream, room_bytes)
        stream.advance(taken.length)
        payload, reason = taken.payload, taken.reason
        crc = crc32c(payload) if reason is None else None
        segment = Segment(item.no, offset, taken.length, len(payload), crc, reason, taken.fingerprint)
        return _Part(item.start + offset, segment, payload)

    def _take(self, stream: _Stream, room_bytes: int) -> ReadPiece:
        """What there is of the stream's piece, or why there is nothing, for good or for now.

        An item that failed is not tried again in the same request.
        """
        assert stream.piece is not None
        item, offset, length = stream.piece
        reason = stream.fault or stream.refused.get(item.no)
        if reason is None:
            try:
                return self._supply.take(stream.request, item, offset, length, room_bytes)
            except StorageError as error:
                reason = reason_of(error, "read", Scope.SOURCE)
                log.warning("%s item %d: %s", stream.request.manifest, item.no, reason.text)
            except Exception as error:
                log.exception("%s item %d cannot be read", stream.request.manifest, item.no)
                text = Text(shown(f"the source failed: {type(error).__name__}: {error}", 390))
                reason = Reason(Scope.SOURCE, FailureClass.TRANSIENT, "read", text)
            stream.refused[item.no] = reason
        return ReadPiece(length, b"", reason=reason)

    def _send(self, header: ChunkHeader, payload: bytes, until_ms: int) -> bool:
        while self._running:
            try:
                self._send_chunk(header, payload, wait_s=ROOM_S)
            except CLUSTER_AWAY:  # or slow; what waits longer than the lease is dropped by it
                if self._now_ms() >= until_ms:
                    return False
                continue
            return True
        return False
