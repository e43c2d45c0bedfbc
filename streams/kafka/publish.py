"""The one gate out: every record of the product is keyed, placed, numbered and sent here. It decides nothing.

Faust's own producer carries changelogs only. Records of control and payload records go through two lanes with an
incarnation each: payload must not make control wait, nor a failed payload give up control.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from streams import waits, wire
from streams.core import topics
from streams.core.closing import Closing
from streams.core.names import Site
from streams.core.records import ChunkHeader, LastSequence, Message, Origin, SiteAnnounced
from streams.core.topics import LogPartition
from streams.errors import Temporary
from streams.kafka import client
from streams.kafka.sequenced_producer import Headers, OnAck, SequencedProducer
from streams.settings import Settings
from streams.wire import release


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def writer_of(what: str) -> str:
    """A writer's name for a program that runs now and then: what it is, on which machine, and its process."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{what}-{socket.gethostname()}-{os.getpid()}")[:120]


class Publisher(Closing):
    """Sends a site's records. Thread-safe; nothing blocks but `flush`, `close` and `send_chunk` when told to wait.

    `writer` names the process for ever (a worker's number, a user's host), `role` what it is (worker, plane, cli).
    Not `opened`: no client is made before `open`, or the first record.
    """

    def __init__(
        self,
        settings: Settings,
        site: Site,
        writer: str,
        role: str,
        *,
        now_ms: Callable[[], int] = wall_ms,
        opened: bool = True,
    ) -> None:
        self._settings, self._now_ms = settings, now_ms
        self.site, self.writer, self.role = site, writer, role
        self._partitions = settings.registry.partitions
        self._lane: SequencedProducer | None = None
        self._chunks: SequencedProducer | None = None
        self._opening = threading.Lock()
        if opened:
            self.open()

    def open(self) -> None:
        """Make the client of control, if there is none yet. NeverWorks when librdkafka refuses its settings."""
        with self._opening:
            if self._lane is None:
                config = client.producer_config(self._settings, self.site, f"{self.role}-{self.writer}")
                self._lane = SequencedProducer(config)

    @property
    def _control(self) -> SequencedProducer:
        if self._lane is None:
            self.open()
        assert self._lane is not None
        return self._lane

    @property
    def incarnation(self) -> str:
        """Of the lane of control."""
        return self._control.incarnation

    def send(self, message: Message | wire.Framed, on_ack: OnAck | None = None) -> None:
        """Publish one record, encoded already or not.

        Temporary when the buffer is full, WireError when the record may not travel.

        `on_ack(None)` once it is in the log, else `on_ack(error)`; called on the publisher's own thread, in the order
        of the partition. It must not block.
        """
        framed = message if isinstance(message, wire.Framed) else wire.framed(message)

        def headers(incarnation: str, seq: int) -> Headers:
            own = wire.headers(framed.cls, self._origin(incarnation, seq))
            return [*own, release.header()] if framed.cls is SiteAnnounced else own

        place = (framed.topic, topics.partition_of(framed.key, self._partitions))
        self._control.send(place, framed.key, framed.value, headers, on_ack)

    def send_chunk(self, header: ChunkHeader, payload: bytes | memoryview, *, wait_s: float = 0.0) -> None:
        """Publish one payload record to the header's destination; waits up to `wait_s` for room, then Temporary."""
        lane, key = self._chunk_lane(), header.manifest.encode()
        place = (topics.chunks_to(header.destination.site), topics.partition_of(key, self._partitions))
        value = payload if isinstance(payload, bytes) else bytes(payload)
        deadline = time.monotonic() + wait_s

        def headers(incarnation: str, seq: int) -> Headers:
            return wire.chunk_headers(header, self._origin(incarnation, seq))

        while True:
            try:
                return lane.send(place, key, value, headers, None)
            except Temporary:
                if (rest := deadline - time.monotonic()) <= 0:
                    raise
                lane.wait_for_room(min(rest, 0.1))

    def _chunk_lane(self) -> SequencedProducer:
        with self._opening:
            if self._chunks is None:
                config = client.producer_config(
                    self._settings, self.site, f"{self.role}-{self.writer}-chunks", chunks=True
                )
                self._chunks = SequencedProducer(config)
            return self._chunks

    def _origin(self, incarnation: str, seq: int) -> Origin:
        return Origin(self.site, self.writer, incarnation, seq, self._now_ms())

    def _lanes(self) -> tuple[SequencedProducer, ...]:
        return tuple(lane for lane in (self._lane, self._chunks) if lane is not None)

    def announce(self, *, api: str = "", door: str = "", endpoints: tuple[str, ...] = (), every_s: int = 30) -> None:
        """Say that this writer lives, and its last numbers; another `every_s` later is expected.

        One SiteAnnounced of control, one of payload if any was sent, and a closing one for each incarnation that ended
        since: its numbers end there.
        """
        say = partial(self._announce, api=api, door=door, endpoints=endpoints, every_s=every_s)
        self._say_past(say)
        say(self._control.incarnation, self._control.acknowledged())
        if self._chunks is not None:
            say(self._chunks.incarnation, self._chunks.acknowledged())

    def _say_past(self, say: Callable[..., None]) -> None:
        for lane in self._lanes():
            for incarnation, last in lane.take_past():
                say(incarnation, last, closing=True)

    def _announce(
        self, incarnation: str, last: Mapping[LogPartition, int], *, closing: bool = False, **told: Any
    ) -> None:
        message = SiteAnnounced(
            site=self.site,
            writer=self.writer,
            incarnation=incarnation,
            role=self.role,
            registry_digest=self._settings.registry.digest,
            peers=self._settings.registry.peers_of(self.site),
            closing=closing,
            sequences=tuple(LastSequence(*place, seq) for place, seq in sorted(last.items())),
            **{"api": "", "endpoints": (), "every_s": 30, **told},
        )
        self.send(message)

    def flush(self, timeout_s: float) -> int:
        """Wait until everything sent was acknowledged or given up; how many records were not by then."""
        deadline = time.monotonic() + timeout_s
        with waits.on(f"the broker of {self.site} to acknowledge what was sent"):
            return sum(lane.flush(max(0.0, deadline - time.monotonic())) for lane in self._lanes())

    def close(self, timeout_s: float = 10.0) -> int:
        """Flush, say the last numbers if there are any, stop; how many records were given up (their on_ack knows)."""
        deadline = time.monotonic() + timeout_s
        left = self.flush(timeout_s)
        if left == 0:
            self._say_past(self._announce)
            for lane in self._lanes():
                if last := lane.acknowledged():
                    self._announce(lane.incarnation, last, closing=True)
        return sum(lane.close(max(0.0, deadline - time.monotonic())) for lane in self._lanes())
