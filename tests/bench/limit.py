"""The limit of a path: a bare confluent-kafka producer and consumer moving the same payload with the same keys over the
same brokers and mirror. No product code touches the bytes: no checks, no disk, no acknowledgement of the far side.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from confluent_kafka import Consumer, Producer, TopicPartition

from streams.core.names import Site
from streams.core.topics import chunks_to, partition_of, remote
from streams.kafka.reader import LogReader
from streams.settings import Settings

GIVE_UP_S = 300.0


class Window:
    """Bytes sent and not consumed yet: a bare producer would outrun retention and lose them unmirrored."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max, self.bytes, self.moved = bytes_max, 0, threading.Condition()

    def take(self, count: int) -> None:
        with self.moved:
            self.moved.wait_for(lambda: count < 0 or self.bytes < self.bytes_max, GIVE_UP_S)
            self.bytes += count
            self.moved.notify_all()


def seconds(settings: Settings, source: Site, destination: Site, keyed: Sequence[tuple[str, int]]) -> float:
    """From the first produce at `source` to the last record consumed at `destination`.

    `keyed`: (record key, bytes) of each line that is moved; the lines' records are interleaved, as planes do it.
    """
    size = settings.registry.payload_bytes
    payload = bytes(size)
    records = _interleaved(keyed, size)
    topic = remote(source, chunks_to(destination))
    with LogReader(settings, destination, large_records=True) as reader:
        ends = reader.end_offsets(reader.partitions_of([topic]))
    places = [TopicPartition(topic, p, ends[topic, p]) for p in range(settings.registry.partitions)]
    consumer = Consumer(
        {
            "bootstrap.servers": settings.entry(destination).bootstrap,
            "group.id": "t2g-bench-limit",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 2,
            "queued.max.messages.kbytes": 65536,
            "fetch.message.max.bytes": 4 << 20,
        }
    )
    consumer.assign(places)
    consumer.poll(1.0)
    producer = Producer(
        {
            "bootstrap.servers": settings.entry(source).bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 2,
            "message.max.bytes": 9 << 20,
            "queue.buffering.max.kbytes": 65536,
        }
    )
    start = time.monotonic()
    window = Window(settings.registry.credit_bytes * len(keyed))
    sender = threading.Thread(
        target=_produce, args=(producer, chunks_to(destination), settings.registry.partitions, records, payload, window)
    )
    sender.start()
    wanted, got = sum(length for _, length in records), 0
    while got < wanted and time.monotonic() - start < GIVE_UP_S:
        msg = consumer.poll(1.0)
        if msg is not None and msg.error() is None and msg.headers() is None:
            got += len(msg.value())
            window.take(-len(msg.value()))
    took = time.monotonic() - start
    sender.join()
    consumer.close()
    if got < wanted:
        raise TimeoutError(f"{got:,} of {wanted:,} bytes after {took:.0f} s")
    return took


def _interleaved(keyed: Sequence[tuple[str, int]], size: int) -> list[tuple[str, int]]:
    left = dict(keyed)
    out: list[tuple[str, int]] = []
    while left:
        for key in list(left):
            length = min(size, left[key])
            out.append((key, length))
            left[key] -= length
            if not left[key]:
                del left[key]
    return out


def _produce(
    producer: Producer,
    topic: str,
    partitions: int,
    records: Sequence[tuple[str, int]],
    payload: bytes,
    window: Window,
) -> None:
    for key, length in records:
        window.take(length)
        value = payload if length == len(payload) else payload[:length]
        while True:
            try:
                producer.produce(topic, value, key, partition=partition_of(key, partitions))
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    producer.flush(GIVE_UP_S)
