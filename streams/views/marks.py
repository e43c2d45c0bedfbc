"""Which record a view read last of a partition: whether the journal is still the one that it was folded from.

A broker that was put back to an older disk gives offsets a second time. Where it has grown past the view's place since,
the place alone tells nothing: the view would go on behind records that it never heard, and keep others that no journal
has.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from streams.core.topics import LogPartition

_CHARS = 16
_POLL_S = 0.25


def mark_of(message: Any) -> str:
    """A record in a few characters, by its key, value and headers: of its number too."""
    digest = sha256()
    for part in (message.key(), message.value(), *(part for header in message.headers() or () for part in header)):
        text = part.encode() if isinstance(part, str) else part or b""
        digest.update(b"%d:" % len(text) + text)
    return digest.hexdigest()[:_CHARS]


def pack(offset: int, mark: str) -> bytes:
    """An offset's row: the next to read, and what stands before it."""
    return f"{offset} {mark}".encode()


def offset_of(row: bytes | None) -> int | None:
    return None if row is None else int(row.split(b" ")[0])


def changed(consumer: Consumer, found: Mapping[LogPartition, bytes], timeout_s: float) -> LogPartition | None:
    """A partition that has another record before the place in its row; None: each has the same.

    The consumer is left without an assignment. TimeoutError when some partition does not answer.
    """
    wanted = {place: row.decode().split(" ") for place, row in found.items() if b" " in row}
    until = time.monotonic() + timeout_s
    consumer.assign([TopicPartition(*place, int(offset) - 1) for place, (offset, _) in wanted.items()])
    try:
        while wanted:
            for message in consumer.consume(1000, timeout=_POLL_S):
                place = (message.topic(), message.partition())
                if place not in wanted:
                    continue
                offset, mark = wanted[place]
                error = message.error()
                if error is None:
                    if message.offset() != int(offset) - 1 or mark_of(message) != mark:
                        return place
                    del wanted[place]
                elif error.code() == KafkaError._PARTITION_EOF:
                    return place
            if wanted and time.monotonic() > until:
                raise TimeoutError(f"{len(wanted)} partitions did not answer")
        return None
    finally:
        consumer.unassign()
