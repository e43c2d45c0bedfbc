"""Follow topics of one site from where they end now: the live counterpart of replay. Decodes and decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from streams.kafka import client
from streams.kafka.replay import Record
from streams.settings import Settings

_log = logging.getLogger("streams.kafka")
_OFFSETS_TIMEOUT_S = 10.0

Place = tuple[str, int]
"""(topic, partition)"""


def ends(
    settings: Settings, site: str, topics: Sequence[str], partitions: Sequence[int] | None = None
) -> Mapping[Place, int]:
    """End offset of every partition of the topics at `site`, asked at once. Raises Temporary, NotFound, NotAllowed."""
    numbers = range(settings.registry.partitions) if partitions is None else partitions
    wanted = [TopicPartition(name, p) for name in topics for p in numbers]
    asked = client.admin(settings, site).list_offsets(
        {tp: OffsetSpec.latest() for tp in wanted}, request_timeout=_OFFSETS_TIMEOUT_S
    )
    found: dict[Place, int] = {}
    for tp, future in asked.items():
        try:
            found[tp.topic, tp.partition] = future.result().offset
        except KafkaException as error:
            where = f"{tp.topic} at {site}, {settings.entry(site).bootstrap}"
            raise client.error_of(error.args[0], "asking where a topic ends", where) from error
    return found


class Follow:
    """A live reader without a group. Not thread-safe but for `close`, which must come after the last `poll`."""

    def __init__(self, settings: Settings, site: str, starts: Mapping[Place, int]) -> None:
        self._where = f"cluster of {site}, {settings.entry(site).bootstrap}"
        config = client.consumer_config(settings, site, committed=False)
        self._consumer = client.make_consumer({**config, "enable.partition.eof": False, "fetch.error.backoff.ms": 50})
        self._consumer.assign([TopicPartition(topic, p, offset) for (topic, p), offset in starts.items()])

    def poll(self, most: int, timeout_s: float) -> list[Record]:
        """Up to `most` new records. A broker that is away is waited for; what can never work raises."""
        try:
            found = self._consumer.consume(most, timeout_s)
        except KafkaException as error:
            raise client.error_of(error.args[0], "following", self._where) from error
        records: list[Record] = []
        for message in found:
            if (error := message.error()) is not None:
                self._note(error)
                continue
            records.append(Record.of(message))
        return records

    def _note(self, error: KafkaError) -> None:
        known = client.error_of(error, "following", self._where)
        if not known.retry_helps:
            raise known
        _log.info("%s", known)

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
