"""A consumer's side of the log: one thread that hears facts and payload, asks for more, and tells how far it is.

What is known is in course.py, guarded by `news`. The thread stops at nothing a record holds; a broker that stays away
is said in `away` and waited for.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from streams import wire
from streams.consuming.consumer import Consumer
from streams.consuming.course import Known
from streams.consuming.leg import ATTEMPT, Leg
from streams.core import messages as m
from streams.core import topics
from streams.core.names import Destination, IntentId, ManifestId, Site
from streams.core.ranges import Ranges
from streams.errors import NotFound, Temporary, Transfer2goError, UsageError, WireError
from streams.following import fact_of, topics_of_intents
from streams.kafka.publish import Publisher, wall_ms
from streams.kafka.reader import Reader, Record, record_of
from streams.kafka.replay import Start, replay
from streams.settings import Settings
from streams.storage.checksums import crc32c

log = logging.getLogger(__name__)

POLL_S = 0.02
COMMIT_S = 0.5
ANNOUNCE_S = 30
ACK_S = 35.0
CLOCKS_MS = 60_000
"""Clocks of sites that are right differ by less."""
AHEAD_MS = 24 * 3600 * 1000
"""So far may a source's clock have been ahead of the one that dates what is told here: its broker's, once its writers'.
"""
PAUSED_MS = 600_000
"""So long may this process have stood still before it hears of a manifest that others here know already."""
KNOWN_S = 30.0
"""An intent that was published elsewhere is waited for so long."""


class Line:
    """`recall`, then `named`, then `begin`; from then on its own thread does the rest."""

    def __init__(self, settings: Settings, site: Site, intent: IntentId) -> None:
        self._settings, self._site = settings, site
        self._lease_ms = int(settings.policy.lease_s * 1000)
        self._partitions = settings.registry.partitions
        self.known = Known(intent)
        self._consumer: Consumer | None = None
        self._publisher = Publisher(settings, site, _writer(), "consumer")
        self._reader = Reader(settings, site, committed=False, large_records=True, away_s=5.0)
        self._places: set[tuple[str, int]] = set()
        self._request_no = 0
        self.news = threading.Condition()
        self.away = ""
        """Why no news come at present, "" while they do."""
        self._error: Transfer2goError | None = None
        self._given_up: Exception | None = None
        self._running = True
        self._thread: threading.Thread | None = None

    # before it is known who listens

    def recall(self) -> None:
        """Note where the intent's topics end, then fold what stands there. Raises Temporary, NotFound, NotAllowed."""
        names = topics_of_intents(self._settings, self._site)
        partition = topics.partition_of(self.known.row.intent, self._partitions)
        places = [place for place in self._reader.partitions_of(names) if place[1] == partition]
        self._reader.assign(self._reader.end_offsets(places))
        for record in replay(self._settings, self._site, names, partitions=[partition], committed=False):
            if record.key == self.known.row.intent.encode() and (fact := fact_of(record, self._site)) is not None:
                self.known.hear(*fact)

    def named(self, name: str | None) -> Destination:
        """The intent's consumer of this name here, once the intent is known; its only one here for None."""
        intent = self.known.row.intent
        deadline = time.monotonic() + KNOWN_S
        while (body := self.known.row.body) is None:
            if time.monotonic() > deadline:
                raise NotFound(f"no intent {intent}", where=f"as {self._site} knows", next="was it published?")
            for message in self._reader.batch(0.05):
                self._hear(record_of(message))
        here = [d for d in body.destinations if d.consumer and d.site == self._site]
        if name is not None:
            here = [d for d in here if d.consumer == name]
        if len(here) == 1:
            return here[0]
        there = ", ".join(d for d in body.destinations if d.consumer) or "none"
        if not here:
            who = f"no consumer {name or ''}".rstrip()
            raise NotFound(f"{who} at {self._site} is a destination of {intent}; consumers: {there}")
        raise UsageError(f"{intent} has several consumers at {self._site}: {there}", next="name one")

    def begin(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._enter(consumer.new(), self._told)
        self._thread = threading.Thread(target=self._run, name=f"line-{consumer.destination.consumer}", daemon=True)
        self._thread.start()

    # whoever consumes

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
            raise self._not_acknowledged(self._given_up)

    def publish(self, message: m.Message) -> None:
        """Send it and wait until the broker has it. Temporary when it does not take it."""
        answer: list[Exception | None] = []
        answered = threading.Event()

        def on_ack(error: Exception | None) -> None:
            answer.append(error)
            answered.set()

        self._publisher.send(message, on_ack)
        if not answered.wait(ACK_S) or answer[0] is not None:
            raise self._not_acknowledged(answer[0] if answer else None)

    def _not_acknowledged(self, error: Exception | None) -> Temporary:
        return Temporary(
            f"the broker of {self._site} did not acknowledge: {error or 'no answer'}",
            where=self._settings.entry(self._site).bootstrap,
            next="is it up? begin again: it goes on where the log last heard of it",
        )

    def close(self) -> None:
        self._running = False
        if self._thread is not None:
            self._thread.join(10.0)
        if self._consumer is not None and self._error is None:
            try:
                with self.news:
                    self._tell()
            except Transfer2goError as error:
                log.warning("%s: its place is not told: %s", self._consumer.destination, error)
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
        assert self._consumer is not None
        messages = self._reader.batch(POLL_S)
        with self.news:
            for message in messages:
                self._hear(record_of(message))
            if bodies := self._consumer.new():
                # written since: of a stream no earlier process has read of it, of a pool others may be ahead
                self._enter(bodies, self._told if self._consumer.follows_progress else lambda bodies: {})
            if messages:
                self.news.notify_all()
            if not self._consumer.stopped:
                for leg, source, ranges in self._consumer.asks(wall_ms(), self._lease_ms):
                    self._request(leg, source, ranges)

    def _hear(self, record: Record) -> None:
        if topics.split(record.topic)[1] == topics.chunks_to(self._site):
            self._payload(record)
        elif record.topic == topics.CHUNK_EVENTS:
            if self._consumer is not None and (said := self._progress(record)) is not None:
                self._consumer.hear_progress(said)
        elif record.key == self.known.row.intent.encode() and (fact := fact_of(record, self._site)) is not None:
            self.known.hear(*fact)

    def _payload(self, record: Record) -> None:
        key, value = record.key or b"", record.value
        if self._consumer is None or value is None or key.decode("ascii", "replace") not in self._consumer.manifests:
            return
        try:
            header = wire.decode_chunk(record.topic, key, value, record.headers, self._site).header
        except WireError as error:
            log.warning("payload is refused: %s", error)
            return
        if header.destination != self._consumer.destination:
            return
        at = 0
        for segment in header.segments:
            piece = value[at : at + segment.size]
            at += segment.size
            if segment.reason is None and crc32c(piece) != segment.crc32c:
                log.warning("%s item %d: crc32c differs; asked again later", header.manifest, segment.item)
                continue
            self._consumer.take(header, segment, piece, wall_ms(), self._lease_ms)

    def _enter(
        self,
        bodies: Sequence[m.ManifestWritten],
        told: Callable[[Sequence[m.ManifestWritten]], Mapping[ManifestId, list[m.TransferProgress]]],
    ) -> None:
        assert self._consumer is not None
        if self._consumer.follows_progress:  # from the ends on, noted before what stands there is read
            self._read([(topics.CHUNK_EVENTS, partition) for partition in self._partitions_of(bodies)])
        found = told(bodies)
        for body in bodies:
            self._consumer.enter(body, found.get(body.manifest, []))

    def _partitions_of(self, bodies: Sequence[m.ManifestWritten]) -> list[int]:
        return sorted({topics.partition_of(body.manifest, self._partitions) for body in bodies})

    def _told(self, bodies: Sequence[m.ManifestWritten]) -> dict[ManifestId, list[m.TransferProgress]]:
        """What other processes of this name said of their way through these manifests, in order."""
        told: dict[ManifestId, list[m.TransferProgress]] = {body.manifest: [] for body in bodies}
        if not bodies:
            return told
        written_ms, now_ms = min(self.known.written_ms[manifest] for manifest in told), wall_ms()
        since: Start
        if self._thread is not None:  # heard of just now, whatever the source's clock says
            since = max(0, min(written_ms, now_ms) - PAUSED_MS)
        elif written_ms > now_ms + CLOCKS_MS:  # by how much that clock is wrong nobody knows: all is read
            since = "beginning"
        else:
            since = max(0, written_ms - AHEAD_MS)
        partitions = self._partitions_of(bodies)
        for record in replay(self._settings, self._site, [topics.CHUNK_EVENTS], partitions=partitions, start=since):
            said = self._progress(record)
            if said is not None and said.manifest in told:
                told[said.manifest].append(said)
        return told

    def _progress(self, record: Record) -> m.TransferProgress | None:
        """What somebody of this name said of the way through one of its manifests."""
        assert self._consumer is not None
        key = (record.key or b"").decode("ascii", "replace")
        if key not in self.known.manifests or (fact := fact_of(record, self._site)) is None:
            return None
        said = fact[0]
        ours = isinstance(said, m.TransferProgress) and said.destination == self._consumer.destination
        return said if ours and isinstance(said, m.TransferProgress) else None

    def _request(self, leg: Leg, source: Site, ranges: Ranges) -> None:
        assert self._consumer is not None
        own, partition = topics.chunks_to(self._site), topics.partition_of(leg.id, self._partitions)
        peers = [site for site in self._settings.registry.names if site != self._site]
        self._read([(name, partition) for name in (own, *(topics.remote(peer, own) for peer in peers))])
        now = wall_ms()
        # of no earlier process either, nor of another that works at the same time
        self._request_no = max(self._request_no + 1, time.time_ns() // 1000)
        self._publisher.send(
            m.ChunksRequested(
                manifest=leg.id,
                destination=self._consumer.destination,
                source=source,
                request_no=self._request_no,
                attempt=ATTEMPT,
                plane="log",
                items=leg.manifest.requested(ranges),
                ranges=ranges,
                until_ms=now + self._lease_ms,
            )
        )

    def _read(self, places: list[tuple[str, int]]) -> None:
        """From their ends on, asked for before anything of them is: nothing that answers can be missed."""
        new = [place for place in places if place not in self._places]
        if new:
            self._reader.add(self._reader.end_offsets(new))
            self._places.update(new)

    def _tell(self) -> None:
        if self._consumer is not None:
            for message in self._consumer.tells():
                try:
                    self._publisher.send(message, self._acknowledged)
                except Temporary as error:  # it will not be told again: no commit may say that all is
                    self._acknowledged(error)

    def _acknowledged(self, error: Exception | None) -> None:
        self._given_up = self._given_up or error

    def _report(self) -> None:
        if self._consumer is not None:
            for report in self._consumer.reports():
                self._publisher.send(report)


def _writer() -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{socket.gethostname()}-{os.getpid()}")[:120]
