"""Reading partitions by `assign()`: offsets, batches, and a broker that stays away said in bounded time.

No group, no commit: positions belong to the caller; what a group has committed can be asked. What a record means is
not known here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from streams import waits
from streams.core.closing import Closing
from streams.core.topics import LogPartition
from streams.errors import NotFound, Temporary
from streams.kafka import client
from streams.settings import Settings

ANSWER_S = 5.0
"""A cluster that does not answer a question within this is away."""
_BATCH = 1000
_AGAIN_S = 0.2
_NOT_YET = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
}


class Record(NamedTuple):
    """A record as it stands in a log. `timestamp_ms` is when it was first written; mirrors keep it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None


def record_of(message: Message) -> Record:
    return Record(
        message.topic(),  # type: ignore[arg-type]
        message.partition(),  # type: ignore[arg-type]
        message.offset(),  # type: ignore[arg-type]
        message.timestamp()[1],
        message.key(),
        message.value(),
        message.headers(),  # type: ignore[arg-type]
    )


class LogReader(Closing):
    """One consumer of one site's cluster; used by one thread.

    Records of open and aborted transactions are seen: ours use none, and who repeats a record is known by its number.
    `large_records`: payload topics; records are handed over one by one and little is prefetched. `fetch_wait_ms`: so
    long a broker waits for news before it answers that there is none.
    """

    def __init__(
        self,
        settings: Settings,
        site: str,
        *,
        large_records: bool = False,
        away_s: float = 10.0,
        fetch_wait_ms: int | None = None,
    ) -> None:
        self.where = client.cluster(settings, site)
        self._away_s, self._large = away_s, large_records
        config = client.consumer_config(settings, site, large_records=large_records)
        if fetch_wait_ms is not None:
            config["fetch.wait.max.ms"] = fetch_wait_ms
        self._complaints: client.Complaints = config["error_cb"]
        self._consumer = client.make_consumer(config)

    def partitions_of(self, topics: Iterable[str]) -> list[LogPartition]:
        """Every partition of the topics; NotFound naming those that do not exist, Temporary when nobody answers."""
        known = self._metadata()
        wanted = list(dict.fromkeys(topics))
        missing = [topic for topic in wanted if topic not in known]
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise NotFound(f"no topic {shown}", where=self.where, next="run `transfer2go topic create`")
        return [(topic, partition) for topic in wanted for partition in sorted(known[topic])]

    @property
    def outages(self) -> int:
        """How often the cluster was away, or a topic was not known, as the client heard."""
        return self._complaints.outages

    def check(self, places: Iterable[LogPartition]) -> None:
        """Temporary while nobody answers or a place has no leader, NotFound while a topic is not known."""
        known = client.metadata(self._consumer, self._complaints).topics
        for topic, partition in places:
            if topic not in known or known[topic].error is not None:
                raise NotFound(f"no topic {topic}", where=self.where, next="run `transfer2go topic create`")
            found = known[topic].partitions.get(partition)
            if found is None or found.leader < 0:
                raise Temporary(f"{topic} [{partition}] has no leader", where=self.where)

    def _metadata(self) -> dict[str, list[int]]:
        found = client.metadata(self._consumer, self._complaints)
        return {name: list(topic.partitions) for name, topic in found.topics.items() if topic.error is None}

    def end_offsets(self, places: Iterable[LogPartition]) -> dict[LogPartition, int]:
        """The offset after the last record of each place."""
        return self._offsets(places, OFFSET_END)

    def begin_offsets(self, places: Iterable[LogPartition]) -> dict[LogPartition, int]:
        """The offset of the first record still kept."""
        return self._offsets(places, OFFSET_BEGINNING)

    def offsets_at(self, places: Iterable[LogPartition], at_ms: int) -> dict[LogPartition, int]:
        """The offset of the first record written at `at_ms` (epoch) or later; the end where there is none."""
        found = self._offsets(places, max(0, at_ms))
        later = [place for place, offset in found.items() if offset < 0]
        return {**found, **self.end_offsets(later)} if later else found

    def _offsets(self, places: Iterable[LogPartition], at: int) -> dict[LogPartition, int]:
        asked = [TopicPartition(topic, partition, at) for topic, partition in places]
        if not asked:
            return {}
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                with waits.on(f"the {self.where} to say where its topics end"):
                    found = self._consumer.offsets_for_times(asked, timeout=ANSWER_S)
                break
            except KafkaException as e:
                # A broker that has just started, or made the topic, does not lead it at once; nor does the client ask
                # anew who does before somebody lists all topics.
                if e.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                    raise self._complaints.error_of(e.args[0], "asking for offsets") from e
                time.sleep(_AGAIN_S)
                self._metadata()
        for answer in found:
            if answer.error is not None:
                raise client.error_of(answer.error, f"asking for offsets of {answer.topic}", self.where)
        return {(answer.topic, answer.partition): answer.offset for answer in found}

    def assign(self, starts: Mapping[LogPartition, int]) -> None:
        """Read exactly these places, each from its offset on (also OFFSET_BEGINNING, OFFSET_END)."""
        self._consumer.assign([TopicPartition(topic, no, offset) for (topic, no), offset in starts.items()])

    def add(self, starts: Mapping[LogPartition, int]) -> None:
        """Read these places too."""
        self._consumer.incremental_assign([TopicPartition(t, no, offset) for (t, no), offset in starts.items()])

    def drop(self, places: Iterable[LogPartition]) -> None:
        self._consumer.incremental_unassign([TopicPartition(topic, partition) for topic, partition in places])

    def batch(self, wait_s: float) -> list[Message]:
        """The records that are here, in order of each partition; waits up to `wait_s` for the first.

        Temporary when the whole cluster has been away for `away_s`; NotFound when an assigned topic is gone.
        """
        return [message for message in self.events(wait_s) if message.error() is None]

    def events(self, wait_s: float) -> list[Message]:
        """As `batch`, with the ends of partitions among the records: `error()` is then not None, `offset()` the end."""
        found = [] if self._large else self._consumer.consume(_BATCH, 0)
        if not found:
            first = self._consumer.poll(wait_s)
            if first is None:
                self._check_away()
                return []
            found = [first]
        self._complaints.down_since_s = None
        for message in found:
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise client.error_of(error, f"reading {message.topic() or 'the log'}", self.where)
        return found

    def _check_away(self) -> None:
        since_s = self._complaints.down_since_s
        if since_s is None or time.monotonic() - since_s < self._away_s:
            return
        try:
            self._consumer.list_topics(timeout=ANSWER_S)
        except KafkaException as e:
            raise Temporary(
                f"no broker has answered for {self._away_s:.0f} s: {self._complaints.last}",
                where=self.where,
                next="is the broker up? see `transfer2go status`, then try again",
            ) from e
        self._complaints.down_since_s = None

    def close(self) -> None:
        self._consumer.close()


def committed_offsets(settings: Settings, site: str, group: str) -> dict[LogPartition, int]:
    """The next offset to read of every place the group ever committed; empty for an unknown group.

    Temporary when the cluster does not answer.
    """
    admin, complaints = client.make_admin(settings, site)
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=ANSWER_S)
    with waits.on(f"the brokers of {site} to say how far {group} has read"):
        found = client.answer(asked[group], complaints, f"asking for the offsets of group {group}")
    return {(p.topic, p.partition): p.offset for p in found.topic_partitions or [] if p.offset >= 0}
