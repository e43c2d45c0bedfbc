"""A reader's side of the log: one thread that hears facts and payload, asks for more, and tells how far it is.

What is heard, asked for and owed is decided in core/readers, guarded by `news`; what is owed is sent again until it is
in the log (outbox.py). No record stops the thread; a broker that stays away is said in `away` and waited for.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from streams import wire
from streams.client.follower import fact_of, topics_of_intents
from streams.consuming.outbox import Marks, Outbox
from streams.core import records as m
from streams.core import topics
from streams.core.names import Destination, IntentId, ManifestId, Site
from streams.core.readers.claims import NameClaim, writer_name
from streams.core.readers.process import ReaderProcess, Said
from streams.core.readers.reader import IntentReader, Known
from streams.core.readers.window import Ask
from streams.errors import CLUSTER_AWAY, NotFound, Temporary, Transfer2goError, UsageError, WireError
from streams.kafka.publish import Publisher, wall_ms
from streams.kafka.reader import Record
from streams.kafka.replay import StartAt, replay
from streams.kafka.steady import SteadyReader
from streams.settings import Settings
from streams.storage.checksums import crc32c

log = logging.getLogger(__name__)

POLL_S = 0.02
COMMIT_S = 0.5
ANNOUNCE_S = 30
ACK_S = 35.0
"""Longer than the producer tries to deliver one record."""
RETRY_S = 0.1
CLOCKS_MS = 60_000
"""Clocks of sites that are right differ by less."""
AHEAD_MS = 24 * 3600 * 1000
"""So far may a source's clock have been ahead of the one that dates what is told here: its broker's, once its writers'.
"""
PAUSED_MS = 600_000
"""So long may this process have stood still before it hears of a manifest that others here know already."""
KNOWN_S = 30.0
"""An intent that was published elsewhere is waited for so long."""


class ReaderSession:
    """`recall`, then `named`, then `begin`; from then on its own thread does the rest."""

    def __init__(self, settings: Settings, site: Site, intent: IntentId) -> None:
        self._settings, self._site = settings, site
        self._lease_ms = int(settings.policy.lease_s * 1000)
        self._retry_ms = int(settings.policy.source_retry_s * 1000)
        self._partitions = settings.registry.partitions
        self.known = Known(intent)
        self._of_intent = f"{intent}.".encode()
        """What keys begin with that are its manifests."""
        self._process: ReaderProcess | None = None
        self._publisher = Publisher(
            settings, site, writer_name(socket.gethostname(), os.getpid(), time.time_ns() // 1000), "consumer"
        )
        self._outbox = Outbox(self._publisher.send, heard_back=False)
        self._reader = SteadyReader(settings, site, large_records=True, away_s=5.0)
        self._places: set[tuple[str, int]] = set()
        self._noted: dict[tuple[str, int], int] = {}
        self.news = threading.Condition()
        self.away = ""
        """Why no news come at present, "" while they do."""
        self._error: Transfer2goError | None = None
        self._running = True
        self._thread: threading.Thread | None = None

    # before it is known who listens

    def recall(self) -> None:
        """Note where the intent's topics end, then fold what stands there. Raises Temporary, NotFound, NotAllowed."""
        names = topics_of_intents(self._settings, self._site)
        partition = topics.partition_of(self.known.row.intent, self._partitions)
        places = [place for place in self._reader.partitions_of(names) if place[1] == partition]
        self._reader.add(self._reader.end_offsets(places))
        for record in replay(self._settings, self._site, names, partitions=[partition]):
            if record.key == self.known.row.intent.encode() and (fact := fact_of(record, self._site)) is not None:
                self.known.hear(*fact)

    def named(self, name: str | None) -> Destination:
        """The intent's consumer of this name here, once the intent is known; its only one here for None."""
        intent = self.known.row.intent
        deadline = time.monotonic() + KNOWN_S
        while not self.known.row.body_sha256:
            if time.monotonic() > deadline:
                raise NotFound(f"no intent {intent}", where=f"as {self._site} knows", next="was it published?")
            for record in self._reader.batch(0.05):
                self._hear(record)
        here = [d for d in self.known.row.destinations if d.consumer and d.site == self._site]
        if name is not None:
            here = [d for d in here if d.consumer == name]
        if len(here) == 1:
            return here[0]
        there = ", ".join(d for d in self.known.row.destinations if d.consumer) or "none"
        if not here:
            who = f"no consumer {name or ''}".rstrip()
            raise NotFound(f"{who} at {self._site} is a destination of {intent}; consumers: {there}")
        raise UsageError(f"{intent} has several consumers at {self._site}: {there}", next="name one")

    def begin(self, reader: IntentReader[Any]) -> None:
        writer = self._publisher.writer
        self._process = ReaderProcess(reader, writer, lease_ms=self._lease_ms, retry_ms=self._retry_ms)
        if reader.exclusive:
            self._outbox = Outbox(self._publisher.send, heard_back=True)
        self._enter(self._process, reader.new(), at_start=True)
        name = f"reader-{reader.destination.consumer}"
        self._thread = threading.Thread(target=self._run, args=(self._process,), name=name, daemon=True)
        self._thread.start()

    # whoever consumes

    def check(self) -> None:
        """Raises what ended the thread."""
        if self._error is not None:
            raise self._error

    def commit(self) -> None:
        """Tell all that is to be told, last words too, and wait for the log to have it: that or what says more.

        Temporary when it does not come within ACK_S.
        """
        self.check()
        self._tell()
        while marks := self._outbox.marks():
            self._wait(marks)
            self._tell()

    def publish(self, message: m.Message) -> None:
        """Send it and wait until the broker has it. Temporary when it does not take it within ACK_S."""
        self._wait(self._outbox.put(message))

    def _wait(self, marks: Marks) -> None:
        deadline = time.monotonic() + ACK_S
        while True:
            self._outbox.send()
            if self._outbox.wait(marks, RETRY_S):
                break
            self.check()
            if time.monotonic() > deadline:
                raise Temporary(
                    f"the broker of {self._site} did not acknowledge: {self._outbox.error or 'no answer'}",
                    where=self._settings.entry(self._site).bootstrap,
                    next="is it up? begin again: it goes on where the log last heard of it",
                )
        self.check()

    def close(self) -> None:
        self._running = False
        if self._thread is not None:
            self._thread.join(10.0)
        if self._process is not None and self._error is None:
            try:
                self._tell(at_once=True)
            except Transfer2goError as error:
                log.warning("%s: its place is not told: %s", self._process.reader.destination, error)
        self._publisher.close()
        self._reader.close()

    # the thread

    def _run(self, process: ReaderProcess) -> None:
        told_s = reported_s = announced_s = time.monotonic() - COMMIT_S
        while self._running:
            if self._went_well(partial(self._round, process)):
                self.away = self._reader.away
            now_s = time.monotonic()
            if not self._running or now_s - told_s < COMMIT_S:
                continue
            told_s = now_s
            if now_s - reported_s >= self._settings.policy.report_s:
                reported_s = now_s
                self._went_well(partial(self._report, process))
            self._went_well(self._tell)
            if now_s - announced_s >= ANNOUNCE_S:
                announced_s = now_s
                self._went_well(partial(self._publisher.announce, every_s=ANNOUNCE_S))

    def _went_well(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except CLUSTER_AWAY as error:
            self.away = str(error)
        except Transfer2goError as error:
            self._stop(error)
        except Exception as error:  # else whoever iterates would wait for ever
            log.exception("a stream's thread failed")
            self._stop(Transfer2goError(f"the stream failed: {type(error).__name__}: {error}"))
        else:
            return True
        return False

    def _stop(self, error: Transfer2goError) -> None:
        with self.news:
            self._error, self._running = error, False
            self._outbox.close()
            self.news.notify_all()

    def _round(self, process: ReaderProcess) -> None:
        records = self._reader.batch(POLL_S)
        with self.news:
            for record in records:
                self._hear(record)
            if bodies := process.reader.new():
                self._enter(process, bodies, at_start=False)
            if records:
                self.news.notify_all()
            self._request_all(process)
            self._read([])
            if bodies:  # what it claims, before anything of it can come
                self._outbox.send()
            if process.reader.urgent:
                self._tell()

    def _hear(self, record: Record) -> None:
        process = self._process
        if topics.split(record.topic)[1] == topics.chunks_to(self._site):
            if process is not None:
                self._payload(process, record)
        elif record.topic == topics.CHUNK_EVENTS:
            if process is not None and (said := self._progress(process, record)) is not None:
                self._hear_progress(process, *said)
        elif record.key == self.known.row.intent.encode() and (fact := fact_of(record, self._site)) is not None:
            self.known.hear(*fact)

    def _hear_progress(self, process: ReaderProcess, said: m.TransferProgress, writer: str) -> None:
        process.hear(said, writer)
        if writer == self._publisher.writer:
            self._outbox.heard(said)

    def _payload(self, process: ReaderProcess, record: Record) -> None:
        key, value = record.key or b"", record.value
        if value is None or key.decode("ascii", "replace") not in process.reader.open:
            return
        try:
            header = wire.decode_chunk(record.topic, key, value, record.headers, self._site).header
        except WireError as error:
            log.warning("payload is refused: %s", error)
            return
        process.take(header, _sound(header, value), wall_ms())

    def _enter(self, process: ReaderProcess, bodies: Sequence[m.ManifestWritten], *, at_start: bool) -> None:
        """Take in manifests, with what the log holds of the way through them.

        What is written later no earlier process of an ordered reader has read of; of a shared one others may be ahead.
        """
        # noted before what stands there is read; with what is asked for first, since an answer waits for the fetch
        # under way
        places = [(topics.CHUNK_EVENTS, partition) for partition in self._partitions_of(bodies)]
        destination, exclusive = process.reader.destination, process.reader.exclusive
        first = next((b for b in bodies if not self.known.row.is_closed(b.manifest, destination)), None)
        self._note(places + ([] if first is None else self._payload_places(first.manifest)))
        found = self._told(process, bodies) if at_start or not exclusive else {}
        for claim in process.enter(bodies, found, at_start=at_start):
            self._outbox.put(claim)

    def _partitions_of(self, bodies: Sequence[m.ManifestWritten]) -> list[int]:
        return sorted({topics.partition_of(body.manifest, self._partitions) for body in bodies})

    def _told(self, process: ReaderProcess, bodies: Sequence[m.ManifestWritten]) -> dict[ManifestId, list[Said]]:
        """What other processes of this name said of their way through these manifests, in order."""
        told: dict[ManifestId, list[Said]] = {body.manifest: [] for body in bodies}
        if not bodies:
            return told
        written_ms, now_ms = min(self.known.written_ms[manifest] for manifest in told), wall_ms()
        since: StartAt
        if self._thread is not None:  # heard of just now, whatever the source's clock says
            since = max(0, min(written_ms, now_ms) - PAUSED_MS)
        elif written_ms > now_ms + CLOCKS_MS:  # by how much that clock is wrong nobody knows: all is read
            since = "beginning"
        else:
            since = max(0, written_ms - AHEAD_MS)
        partitions = self._partitions_of(bodies)
        start: StartAt = since or "beginning"
        for record in replay(self._settings, self._site, [topics.CHUNK_EVENTS], partitions=partitions, start=start):
            if (found := self._progress(process, record)) is not None and found[0].manifest in told:
                told[found[0].manifest].append((NameClaim.by(found[0].attempt, found[1]), found[0]))
        return told

    def _progress(self, process: ReaderProcess, record: Record) -> tuple[m.TransferProgress, str] | None:
        """What somebody of this name said of the way through one of its manifests, and who."""
        if not (record.key or b"").startswith(self._of_intent):
            return None
        try:
            heard = wire.decode(record.topic, record.key, record.value, record.headers, self._site)
        except WireError as error:
            log.warning("a record is refused: %s (%s %s@%s)", error, record.topic, record.partition, record.offset)
            return None
        said = heard.message
        if not isinstance(said, m.TransferProgress) or said.destination != process.reader.destination:
            return None
        return said, heard.origin.writer

    def _request_all(self, process: ReaderProcess) -> None:
        asks = process.asks(wall_ms())
        for number, ask in enumerate(asks):
            try:
                self._request(process, ask)
            except Transfer2goError:
                for unsent in asks[number:]:
                    unsent.unsent()
                raise

    def _request(self, process: ReaderProcess, ask: Ask) -> None:
        self._read(self._payload_places(ask.window.manifest.body.manifest))
        self._publisher.send(process.request(ask, wall_ms(), time.time_ns() // 1000))

    def _payload_places(self, manifest: ManifestId) -> list[tuple[str, int]]:
        own, partition = topics.chunks_to(self._site), topics.partition_of(manifest, self._partitions)
        peers = [site for site in self._settings.registry.names if site != self._site]
        return [(name, partition) for name in (own, *(topics.remote(peer, own) for peer in peers))]

    def _note(self, places: list[tuple[str, int]]) -> None:
        """To be read from their ends as they are now, with what is read next."""
        new = [place for place in places if place not in self._places]
        if new:
            self._noted.update(self._reader.end_offsets(new))
            self._places.update(new)

    def _read(self, places: list[tuple[str, int]]) -> None:
        """From their ends on, asked for before anything of them is: nothing that answers can be missed.

        All in one step, for each waits until the fetch under way comes back.
        """
        self._note(places)
        if self._noted:
            self._reader.add(self._noted)
            self._noted = {}

    def _tell(self, *, at_once: bool = False) -> None:
        if self._process is None:
            return
        with self.news:
            if self._error is not None:  # what it says counts for nobody any more
                return
            for message in self._process.reader.tells():
                self._outbox.put(message)
        self._outbox.send(at_once=at_once)

    def _report(self, process: ReaderProcess) -> None:
        with self.news:
            for report in process.reports():
                self._outbox.put(report)


def _sound(header: m.ChunkHeader, value: bytes) -> Iterator[tuple[m.Segment, bytes]]:
    """Segments of a payload record whose bytes are those that its source read."""
    at = 0
    for segment in header.segments:
        piece = value[at : at + segment.size]
        at += segment.size
        if segment.reason is None and crc32c(piece) != segment.crc32c:
            log.warning("%s item %d: crc32c differs; asked again later", header.manifest, segment.item)
        else:
            yield segment, piece
