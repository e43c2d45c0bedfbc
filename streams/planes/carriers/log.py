"""The carrier `log`: payload topics. A source publishes records there; what is here reads them at the destination.

That is which partitions, from where on, and whom a record concerns. What a record means is not known here.

Only the payload thread touches the consumers: `offsets_for_times` never returns while another thread polls (seen with
2.16.1). Where topics begin and end is asked by a consumer of its own, that fetches nothing: a broker answers a
connection's requests one by one, and each question would stand behind a fetch that waits for news (a worker that was
started again read payload 8 s later). `assign` returns when it is known where each partition begins, so that what is
asked for afterwards cannot be missed. A record of a transfer that is not open here yet is passed over and remembered:
when it opens, the reader goes back to the first one.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from streams import wire
from streams.core.channel import LOG
from streams.core.records import ChunksOffered, DeadLetter, UrlsOffered
from streams.core.topics import LogPartition, chunks_to, remote
from streams.errors import WireError
from streams.kafka import client
from streams.planes.carriers.carrier import Carrier
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.source.wiring import sources
from streams.settings import Settings

log = logging.getLogger(__name__)

POLL_S = 0.05
FETCH_WAIT_MS = 1000
RESOLVE_S = 5.0
RETRY_S = 0.5
COMPLAIN_S = 10.0
PASSED_MAX = 512
"""Transfers not open here whose first record is remembered."""
DEAD_LETTERS_MAX = 1000
"""Of one child: a source gone mad must not fill the journals with cut payload."""
_LATEST = -1
_UNKNOWN = {KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART}


@dataclass(eq=False)
class _Change:
    partitions: dict[int, int | None]
    done: Event = field(default_factory=Event)
    again_s: float = 0.0
    """When to ask again what could not be told."""


class PayloadReader:
    """The destination side. All but `assign`, `opened`, `threads` and `close` is for the payload thread."""

    def __init__(
        self, settings: Settings, destination: DestinationPlane, dead_letter: Callable[[DeadLetter], None]
    ) -> None:
        self._here = settings.here
        self._destination = destination
        self._dead_letter = dead_letter
        own = chunks_to(self._here)
        self._topics = (own, *(remote(peer, own) for peer in settings.peers))
        config = client.consumer_config(settings, self._here, large_records=True)
        self._consumer: Consumer = client.make_consumer(
            {**config, "enable.partition.eof": False, "fetch.wait.max.ms": FETCH_WAIT_MS}
        )
        self._asking: Consumer = client.make_consumer(config)
        self._changes: deque[_Change] = deque()
        self._rewinds: deque[bytes] = deque()
        self._next: dict[LogPartition, int] = {}
        self._passed: OrderedDict[bytes, dict[LogPartition, int]] = OrderedDict()
        self._running = True
        self._complained_s: dict[str, float] = {}
        self.refused = 0

    # any thread but the payload thread

    def assign(self, partitions: Mapping[int, int | None]) -> None:
        """See orders.Assign. Returns when the broker said where new partitions begin, or after `close`."""
        change = _Change(dict(partitions))
        self._changes.append(change)
        while self._running and not change.done.wait(POLL_S):
            pass

    def opened(self, key: bytes) -> None:
        """The transfer is open now: go back to what was passed over of it."""
        self._rewinds.append(key)

    def threads(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "payload", self.run

    def close(self) -> None:
        self._running = False

    # the payload thread

    def run(self) -> None:
        """Until `close`. Nothing a record holds can end it."""
        while self._running:
            try:
                if self._changes and self._reassign(self._changes[0]):
                    self._changes.popleft().done.set()
                while self._rewinds:
                    self._rewind(self._rewinds.popleft())
                record = self._consumer.poll(POLL_S)
                if record is None:
                    continue
                error = record.error()
                if error is not None:
                    self._complain("", "reading payload: %s", error.str())
                else:
                    self._hear(record)
            except Exception:
                log.exception("a payload record was skipped")

    def _reassign(self, change: _Change) -> bool:
        """Whether the new assignment is in place; what is known of it is read meanwhile.

        A topic whose partitions have no leader is asked for last, so that it holds up no other's; and between two
        questions as much time goes to what is read.
        """
        began_s = time.monotonic()
        if began_s < change.again_s:
            return False
        wanted = {place: self._next[place] for place in self._next if place[1] in change.partitions}
        known = True
        for topic in self._topics:
            new = {p: at for p, at in change.partitions.items() if (topic, p) not in wanted}
            try:
                wanted |= self._begins(topic, new)
            except KafkaException as error:
                log.warning("where payload of %s begins is not known yet: %s", topic, error.args[0].str())
                self._topics = (*(other for other in self._topics if other != topic), topic)
                known = False
                break
        self._read_from(wanted)
        now_s = time.monotonic()
        change.again_s = now_s + max(RETRY_S, now_s - began_s)
        return known

    def _read_from(self, wanted: dict[LogPartition, int]) -> None:
        if wanted == self._next:
            return
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in wanted.items()])
        self._next = wanted

    def _begins(self, topic: str, new: Mapping[int, int | None]) -> dict[LogPartition, int]:
        """First offset to read of each new partition of a topic. Raises KafkaException while it cannot be known."""
        begins: dict[LogPartition, int] = {}
        if not new:
            return begins
        try:
            found = self._asking.offsets_for_times([TopicPartition(topic, p, _LATEST) for p in new], RESOLVE_S)
            timed = [TopicPartition(topic, p, at) for p, at in new.items() if at is not None]
            if timed:
                found += self._asking.offsets_for_times(timed, RESOLVE_S)
        except KafkaException as error:
            if error.args[0].code() not in _UNKNOWN:
                raise
            log.warning("topic %s does not exist yet; it is read from its beginning when it does", topic)
            return {(topic, p): OFFSET_BEGINNING for p in new}
        for one in found:
            if one.error is not None:
                raise KafkaException(one.error)
            if one.offset >= 0:  # a time behind the last record has none: the end, found before, stays
                begins[topic, one.partition] = one.offset
        return begins

    def _rewind(self, key: bytes) -> None:
        for place, offset in self._passed.pop(key, {}).items():
            at = self._next.get(place)
            if at is None or at < 0 or offset >= at:
                continue
            try:
                self._consumer.seek(TopicPartition(*place, offset))
                self._next[place] = offset
            except KafkaException as error:
                log.warning("cannot go back in %s: %s; it is asked for again", place, error.args[0].str())

    def _hear(self, record: Record) -> None:
        topic, partition, offset = str(record.topic()), int(record.partition() or 0), int(record.offset() or 0)
        self._next[topic, partition] = offset + 1
        key = record.key()
        if not isinstance(key, bytes):
            return self._refuse(record, WireError("key: missing"))
        if not self._destination.is_open(key):
            return self._pass(key, (topic, partition), offset)
        payload = record.value()
        headers: list[tuple[str, bytes | None]] = record.headers() or []  # type: ignore[assignment]
        try:
            if any(name == wire.FINGERPRINT for name, _ in headers):
                return self._hear_offer(wire.decode(topic, key, payload, headers, self._here))
            heard = wire.decode_chunk(topic, key, payload, headers, self._here)
        except WireError as error:
            return self._refuse(record, error)
        assert isinstance(payload, bytes)
        return self._destination.take(LOG, key, heard.origin.site, heard.header, payload)

    def _hear_offer(self, heard: wire.Heard) -> None:
        """What stands in the payload's place and is none."""
        assert isinstance(heard.message, ChunksOffered | UrlsOffered)
        self._destination.offered(heard.message)

    def _pass(self, key: bytes, place: LogPartition, offset: int) -> None:
        firsts = self._passed.get(key)
        if firsts is None:
            firsts = self._passed[key] = {}
            if len(self._passed) > PASSED_MAX:
                self._passed.popitem(last=False)
        firsts.setdefault(place, offset)

    def _refuse(self, record: Record, error: WireError) -> None:
        self.refused += 1
        topic, partition, offset = str(record.topic()), int(record.partition() or 0), int(record.offset() or 0)
        self._complain(topic, "%s[%d]@%d is refused (%d so far): %s", topic, partition, offset, self.refused, error)
        if self.refused <= DEAD_LETTERS_MAX:
            headers: list[tuple[str, bytes | None]] = record.headers() or []  # type: ignore[assignment]
            key = record.key()
            key = key.encode() if isinstance(key, str) else key
            value = record.value()
            value = value.encode() if isinstance(value, str) else value
            self._dead_letter(wire.dead_letter(error, topic, partition, offset, key, value, headers))

    def _complain(self, about: str, text: str, *words: object) -> None:
        """Once in a while only: of the same thing there may be thousands."""
        now = time.monotonic()
        if now - self._complained_s.get(about, -COMPLAIN_S) >= COMPLAIN_S:
            self._complained_s[about] = now
            log.warning(text, *words)


CARRIER = Carrier(LOG, sources, PayloadReader)
