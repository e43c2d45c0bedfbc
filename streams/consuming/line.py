"""A consumer's side of the log: one thread that hears facts and payload, asks for more, and tells how far it is.

What is known is in course.py, guarded by `news`. The thread stops at nothing a record holds; a broker that stays away
is said in `away` and waited for.
"""

from __future__ import annotations

import logging
import threading
import time

from streams import wire
from streams.consuming.course import Course, Known
from streams.consuming.leg import ATTEMPT, Leg
from streams.core import messages as m
from streams.core import topics
from streams.core.names import Destination, IntentId, ManifestId, Site
from streams.core.ranges import Ranges
from streams.errors import Temporary, Transfer2goError, WireError
from streams.following import fact_of, topics_of_intents
from streams.kafka.publish import Publisher, wall_ms
from streams.kafka.reader import Reader, Record, record_of
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.storage.checksums import crc32c

log = logging.getLogger(__name__)

POLL_S = 0.02
COMMIT_S = 0.5
ANNOUNCE_S = 30
ACK_S = 35.0
CLOCKS_MS = 60_000
"""A record may be older than its neighbours by so much: writers' clocks differ."""


class Line:
    """`recall`, then `listen` as long as needed, then `begin`; from then on its own thread does the rest."""

    def __init__(self, settings: Settings, site: Site, intent: IntentId, writer: str, ahead_bytes: int) -> None:
        self._settings, self._site, self._ahead_bytes = settings, site, ahead_bytes
        self._lease_ms = int(settings.policy.lease_s * 1000)
        self._partitions = settings.registry.partitions
        self._known = Known(intent)
        self._course: Course | None = None
        self._publisher = Publisher(settings, site, writer, "consumer")
        self._reader = Reader(settings, site, committed=False, large_records=True, away_s=5.0)
        self._places: set[int] = set()
        self._request_no = 0
        self.news = threading.Condition()
        self.away = ""
        """Why no news come at present, "" while they do."""
        self._error: Transfer2goError | None = None
        self._given_up: Exception | None = None
        self._running = True
        self._thread: threading.Thread | None = None

    @property
    def body(self) -> m.TransferIntent | None:
        return self._known.row.body

    # before it is known who listens

    def recall(self) -> None:
        """Note where the intent's topics end, then fold what stands there. Raises Temporary, NotFound, NotAllowed."""
        names = topics_of_intents(self._settings, self._site)
        partition = topics.partition_of(self._known.row.intent, self._partitions)
        places = [place for place in self._reader.partitions_of(names) if place[1] == partition]
        self._reader.assign(self._reader.end_offsets(places))
        for record in replay(self._settings, self._site, names, partitions=[partition], committed=False):
            if record.key == self._known.row.intent.encode() and (fact := fact_of(record, self._site)) is not None:
                self._known.hear(*fact)

    def listen(self, wait_s: float) -> None:
        for message in self._reader.batch(wait_s):
            self._hear(record_of(message))

    def begin(self, destination: Destination, position: str | None) -> Course:
        self._course = Course(self._known, destination, self._ahead_bytes, position)
        told = self._told(destination)
        for body in self._course.new():
            self._course.enter(body, told.get(body.manifest, []))
        self._thread = threading.Thread(target=self._run, name=f"stream-{destination.consumer}", daemon=True)
        self._thread.start()
        return self._course

    # whoever iterates

    def check(self) -> None:
        """Raises what ended the thread."""
        if self._error is not None:
            raise self._error

    def commit(self) -> None:
        """Tell all that is to be told, and wait for the broker to have it. Temporary when it does not answer."""
        with self.news:
            self._tell()
        left = self._publisher.flush(ACK_S)
        self.check()
        if left or self._given_up:
            raise Temporary(
                f"the broker of {self._site} did not acknowledge: {self._given_up or 'no answer'}",
                where=self._settings.entry(self._site).bootstrap,
                next="is it up? open the stream again: it goes on where the log last heard of it",
            )

    def close(self) -> None:
        self._running = False
        if self._thread is not None:
            self._thread.join(10.0)
        if self._course is not None and self._error is None:
            try:
                with self.news:
                    self._tell()
            except Transfer2goError as error:
                log.warning("%s: its place is not told: %s", self._course.destination, error)
        self._publisher.close()
        self._reader.close()

    # the thread

    def _run(self) -> None:
        told_s = reported_s = announced_s = time.monotonic() - COMMIT_S
        while self._running:
            try:
                self._round()
                if time.monotonic() - told_s >= COMMIT_S:
                    told_s = time.monotonic()
                    with self.news:
                        self._tell()
                if told_s - reported_s >= self._settings.policy.report_s:
                    reported_s = told_s
                    with self.news:
                        self._report()
                if told_s - announced_s >= ANNOUNCE_S:
                    announced_s = told_s
                    self._publisher.announce(every_s=ANNOUNCE_S)
                self.away = ""
            except Temporary as error:
                self.away = str(error)
            except Transfer2goError as error:
                self._stop(error)
            except Exception as error:  # else whoever iterates would wait for ever
                log.exception("a stream's thread failed")
                self._stop(Transfer2goError(f"the stream failed: {type(error).__name__}: {error}"))

    def _stop(self, error: Transfer2goError) -> None:
        with self.news:
            self._error, self._running = error, False
            self.news.notify_all()

    def _round(self) -> None:
        assert self._course is not None
        messages = self._reader.batch(POLL_S)
        with self.news:
            for message in messages:
                self._hear(record_of(message))
            for body in self._course.new():  # written after this stream began: no earlier process has read of it
                self._course.enter(body, [])
            if messages:
                self.news.notify_all()
            if not self._course.stopped:
                for leg, source, ranges in self._course.asks(wall_ms(), self._lease_ms):
                    self._request(leg, source, ranges)

    def _hear(self, record: Record) -> None:
        if topics.split(record.topic)[1] == topics.chunks_to(self._site):
            self._payload(record)
        elif record.key == self._known.row.intent.encode() and (fact := fact_of(record, self._site)) is not None:
            self._known.hear(*fact)

    def _payload(self, record: Record) -> None:
        key, value = record.key or b"", record.value
        if self._course is None or value is None or key.decode("ascii", "replace") not in self._course.legs:
            return
        try:
            header = wire.decode_chunk(record.topic, key, value, record.headers, self._site).header
        except WireError as error:
            log.warning("payload is refused: %s", error)
            return
        if header.destination != self._course.destination:
            return
        at = 0
        for segment in header.segments:
            piece = value[at : at + segment.size]
            at += segment.size
            if segment.reason is None and crc32c(piece) != segment.crc32c:
                log.warning("%s item %d: crc32c differs; asked again later", header.manifest, segment.item)
                continue
            self._course.take(header, segment, piece, wall_ms(), self._lease_ms)

    def _told(self, destination: Destination) -> dict[ManifestId, list[m.TransferProgress]]:
        """What earlier processes of this name said of their way through the manifests that are known."""
        known = self._known.manifests
        told: dict[ManifestId, list[m.TransferProgress]] = {}
        if not known:
            return told
        since = max(0, min(self._known.written_ms.values()) - CLOCKS_MS)
        partitions = sorted({topics.partition_of(manifest, self._partitions) for manifest in known})
        keys = {manifest.encode() for manifest in known}
        for record in replay(self._settings, self._site, [topics.CHUNK_EVENTS], partitions=partitions, start=since):
            if record.key in keys and (fact := fact_of(record, self._site)) is not None:
                said = fact[0]
                if isinstance(said, m.TransferProgress) and said.destination == destination:
                    told.setdefault(said.manifest, []).append(said)
        return told

    def _request(self, leg: Leg, source: Site, ranges: Ranges) -> None:
        assert self._course is not None
        self._read_payload(topics.partition_of(leg.id, self._partitions))
        now = wall_ms()
        self._request_no = max(self._request_no + 1, now)  # of no earlier process either
        self._publisher.send(
            m.ChunksRequested(
                manifest=leg.id,
                destination=self._course.destination,
                source=source,
                request_no=self._request_no,
                attempt=ATTEMPT,
                plane="log",
                items=leg.manifest.requested(ranges),
                ranges=ranges,
                until_ms=now + self._lease_ms,
            )
        )

    def _read_payload(self, partition: int) -> None:
        """From its end on, which is asked for before anything of it is: nothing that answers can be missed."""
        if partition in self._places:
            return
        own = topics.chunks_to(self._site)
        peers = [site for site in self._settings.registry.names if site != self._site]
        places = [(name, partition) for name in (own, *(topics.remote(peer, own) for peer in peers))]
        self._reader.add(self._reader.end_offsets(places))
        self._places.add(partition)

    def _tell(self) -> None:
        if self._course is not None:
            for message in self._course.tells():
                self._publisher.send(message, self._acknowledged)

    def _acknowledged(self, error: Exception | None) -> None:
        self._given_up = self._given_up or error

    def _report(self) -> None:
        if self._course is not None:
            for report in self._course.reports():
                self._publisher.send(report)
