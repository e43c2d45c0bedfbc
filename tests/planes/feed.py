"""Both halves without Kafka: a source half that collects its records, a destination half fed with them by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from streams import wire
from streams.core.channel import LOG
from streams.core.names import Site
from streams.core.ranges import Ranges
from streams.core.records import ChunkHeader, ChunksRequested, ChunksServed, ManifestWritten, Message, Origin
from streams.kafka.publish import wall_ms
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.source.byte_reader import FileBytes
from streams.planes.source.server import SourceServer, Supply
from streams.storage import open_endpoint
from streams.storage.endpoint import Endpoint
from tests.planes.stage import PARTITIONS, A, B, manifest_of, open_order, put, request_of

Record = tuple[ChunkHeader, bytes]
M = TypeVar("M")
_ORIGIN = Origin(A, "plane-a-1", "incarnation", 0, 0)


class Sender:
    """A's source half over a directory or an endpoint; `serve` gives a request's records, which also pass the gate."""

    def __init__(
        self,
        root: Path,
        payload_bytes: int = 64 * 1024,
        supply: Callable[[Endpoint], Supply] = FileBytes,
        endpoint: Endpoint | None = None,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.records: list[Record] = []
        self.told: list[Message] = []
        self._done = threading.Condition()
        self.endpoint = endpoint or open_endpoint(f"file://{root}", name="default")
        self.source = SourceServer(A, supply(self.endpoint), payload_bytes, self._keep, self._tell, wall_ms)
        self._thread = threading.Thread(target=self.source.run, daemon=True)
        self._thread.start()

    def _keep(self, header: ChunkHeader, payload: bytes, *, wait_s: float = 0.0) -> None:
        wire.chunk_headers(header, _ORIGIN)
        assert sum(segment.size for segment in header.segments) == len(payload)
        self.records.append((header, payload))

    def _tell(self, message: Message) -> None:
        with self._done:
            self.told.append(message)
            self._done.notify_all()

    def serve(self, *requests: ChunksRequested) -> list[Record]:
        """Records of these requests, in the order sent, once all are served."""
        before, served = len(self.records), len(self.told)
        for request in requests:
            self.source.serve(request)
        with self._done:
            assert self._done.wait_for(lambda: len(self.told) >= served + len(requests), 10), self.told
        return self.records[before:]

    def served(self) -> list[ChunksServed]:
        return [one for one in self.told if isinstance(one, ChunksServed)]

    def close(self) -> None:
        self.source.close()
        self._thread.join()
        self.endpoint.close()


class Receiver:
    """B's destination half over a directory or an endpoint. No sync thread: `sync` is a round, when a test wants it."""

    def __init__(
        self, root: Path, clock: Callable[[], float] = time.monotonic, endpoint: Endpoint | None = None
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.told: list[Message] = []
        self.endpoint = endpoint or open_endpoint(f"file://{root}", name="default")
        self.half = DestinationPlane(B, PARTITIONS, self.endpoint, self._tell, clock)

    def _tell(self, message: Message) -> None:
        wire.encode(message)
        self.told.append(message)

    def open(self, body: ManifestWritten, attempt: int = 1, **known: Ranges) -> Message:
        """Its answer."""
        before = len(self.told)
        self.order(body, attempt, **known)
        assert len(self.told) > before
        return self.told[before]

    def order(self, body: ManifestWritten, attempt: int = 1, **known: Ranges) -> None:
        """All steps at once, by this thread."""
        for _ in self.half.begin(open_order(body, attempt, **known)) or ():
            pass

    def take(self, records: Iterable[Record], source: Site = A) -> None:
        for header, payload in records:
            self.half.take(LOG, header.manifest.encode(), source, header, payload)

    def sync(self) -> None:
        self.half.sync(list(self.half._landings.values()))

    def last(self, kind: type[M]) -> M:
        found = [one for one in self.told if isinstance(one, kind)]
        assert found, self.told
        return found[-1]

    def crash(self) -> Receiver:
        """Another one over the same directory: what a killed plane's successor finds."""
        return Receiver(self.root)

    def bytes_of(self, lfn: str) -> bytes:
        return (self.root / lfn[1:]).read_bytes()

    def leftovers(self) -> list[Path]:
        return list(self.root.rglob(".t2g-*.part"))


def listed(sender_root: Path, files: Mapping[str, bytes]) -> ManifestWritten:
    put(sender_root, files)
    return manifest_of(sender_root, files)


__all__ = ["Receiver", "Record", "Sender", "listed", "request_of"]
