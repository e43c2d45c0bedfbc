"""One producer with its numbers: what is sent, acknowledged, and given up, per incarnation. No message is known here.

Numbers of an (incarnation, topic, partition) start at 0 and have no gap. A record whose delivery failed leaves its
number open, so the incarnation ends there: a fresh producer continues under a new name, and everything the old one had
not got acknowledged is reported as failed (some of it may have arrived: facts may repeat).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from streams.core.topics import LogPartition
from streams.errors import Temporary
from streams.kafka import client

log = logging.getLogger("streams.kafka")
OnAck = Callable[[Exception | None], None]
Headers = list[tuple[str, bytes]]

_POLL_S = 0.05
_STOP_S = 2.0
_AGAIN_S = 0.5
_CONNECT_S = 0.02
"""A record produced before the first connection is up waits 0.5–1 s for librdkafka's next try to get a producer id;
after this pause it is acknowledged 30 ms after the start."""


@dataclass(slots=True)
class _Incarnation:
    """A producer and its counts; `acked` holds the last acknowledged number of each place."""

    producer: Producer
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    next_seq: dict[LogPartition, int] = field(default_factory=dict)
    acked: dict[LogPartition, int] = field(default_factory=dict)
    outstanding: int = 0
    ended: bool = False


class SequencedProducer:
    """Numbers and sends records through one idempotent producer at a time. Thread-safe; `send` never blocks."""

    def __init__(self, config: client.Config) -> None:
        self._config = config
        self._complaints: client.Complaints = config["error_cb"]
        self._where = self._complaints.where
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._now = _Incarnation(client.make_producer(config))
        time.sleep(_CONNECT_S)
        self._ended: list[_Incarnation] = []
        self._past: list[tuple[str, Mapping[LogPartition, int]]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=f"t2g-{config['client.id']}", daemon=True)
        self._thread.start()

    @property
    def incarnation(self) -> str:
        return self._now.name

    @property
    def outstanding(self) -> int:
        with self._lock:
            return self._now.outstanding + sum(old.outstanding for old in self._ended)

    def acknowledged(self) -> dict[LogPartition, int]:
        """Last number of each place of this incarnation up to which all are known to be in the log."""
        with self._lock:
            return dict(self._now.acked)

    def take_past(self) -> list[tuple[str, Mapping[LogPartition, int]]]:
        """Incarnations that ended since the last call, each with the last acknowledged numbers."""
        with self._lock:
            past, self._past = self._past, []
            return past

    def send(
        self,
        place: LogPartition,
        key: bytes,
        value: bytes,
        headers: Callable[[str, int], Headers],
        on_ack: OnAck | None,
    ) -> None:
        """Number a record and hand it to the producer; `headers(incarnation, seq)` is called with its number.

        `on_ack` is called once, on the lane's own thread: None when the record is in the log, else why not.
        Raises Temporary when the buffer is full (nothing was numbered); `wait_for_room` then waits.
        """
        with self._lock:
            if self._closed:
                raise Temporary("this publisher is closed", where=self._where)
            for _ in range(2):
                if not self._succeed():
                    break
                now = self._now
                seq = now.next_seq.get(place, 0)
                numbered: Any = headers(now.name, seq)
                told = partial(self._delivered, now, place, seq, on_ack)
                try:
                    now.producer.produce(
                        place[0], value=value, key=key, partition=place[1], headers=numbered, on_delivery=told
                    )
                except BufferError as e:
                    raise Temporary(
                        "too many records wait for the broker's acknowledgement",
                        where=self._where,
                        next="is the broker up? see `transfer2go status`, then try again",
                    ) from e
                except KafkaException as e:
                    failed: KafkaError = e.args[0]
                    if not failed.fatal() and failed.code() != KafkaError._FATAL:
                        raise self._complaints.error_of(failed, f"sending to {place[0]}") from e
                    self._end(now)
                else:
                    now.next_seq[place] = seq + 1
                    now.outstanding += 1
                    return
            raise Temporary("no producer works", where=self._where, next="has this machine threads and memory left?")

    def _delivered(
        self, by: _Incarnation, place: LogPartition, seq: int, on_ack: OnAck | None, error: KafkaError | None, _: object
    ) -> None:
        with self._lock:
            if error is None and not by.ended:
                by.acked[place] = seq
            elif error is not None and not by.ended:
                log.warning("record %d of %s was not delivered: %s", seq, place, error.str())
                self._end(by)
        try:
            if on_ack is not None:
                on_ack(None if error is None else self._complaints.error_of(error, f"sending to {place[0]}"))
        except Exception:
            log.exception("what waits for the acknowledgement of %s failed", place)
        with self._lock:
            by.outstanding -= 1
            self._changed.notify_all()

    def _end(self, by: _Incarnation) -> None:
        """End an incarnation (lock held): its numbers stop at what is acknowledged, a fresh producer takes over."""
        by.ended = True
        if by.acked:
            self._past.append((by.name, dict(by.acked)))
        self._ended.append(by)

    def _succeed(self) -> bool:
        """Whether there is a producer that takes records (lock held). A new one needs threads and memory."""
        if self._now.ended:
            try:
                self._now = _Incarnation(client.make_producer(self._config))
            except Exception as error:  # noqa: BLE001  whatever it is, the old one does not work either
                log.warning("no new producer yet: %s", error)
                return False
        return True

    def _serve(self) -> None:
        while True:
            try:
                with self._lock:
                    fresh = self._closed or self._succeed()
                    now, ended = self._now, list(self._ended)
                for old in ended:
                    self._give_up(old)
                now.producer.poll(_POLL_S)
            except Exception:  # without this thread nothing is acknowledged, nor given up
                log.exception("a producer could not be served")
                fresh = False
            if self._closed:
                return self._stop()
            if not fresh:
                time.sleep(_AGAIN_S)

    def _stop(self) -> None:
        deadline = time.monotonic() + _STOP_S
        while self.outstanding and time.monotonic() < deadline:
            for held in [*self._ended, self._now]:
                self._give_up(held)
            time.sleep(0.001)

    def _give_up(self, old: _Incarnation) -> None:
        """Fail what an ended incarnation still holds, and forget it."""
        if old.outstanding:
            old.producer.purge(in_queue=True, in_flight=True, blocking=False)
            old.producer.poll(0)
        if not old.outstanding:
            with self._lock:
                self._ended = [other for other in self._ended if other is not old]

    def wait_for_room(self, timeout_s: float) -> None:
        """Wait until something was acknowledged or given up, `timeout_s` at most."""
        with self._lock:
            self._changed.wait(timeout_s)

    def flush(self, timeout_s: float) -> int:
        """Wait until every record sent so far was acknowledged or given up; how many were not."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while left := self._now.outstanding + sum(old.outstanding for old in self._ended):
                if (rest := deadline - time.monotonic()) <= 0:
                    return left
                self._changed.wait(rest)
        return 0

    def close(self, timeout_s: float) -> int:
        """Flush, then give up the rest (reported as failed) and stop; how many were given up."""
        left = self.flush(timeout_s)
        with self._lock:
            self._closed = True
        if self._thread is not threading.current_thread():
            self._thread.join()
        return left
