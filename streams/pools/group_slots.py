"""Which slots of a pool are this process's: partitions that Kafka's group protocol shares out. No record is read.

A member that dies, hangs or is cut off for `SESSION_S` is out, and its slots are others'. One that leaves says so, and
they are others' at once. Members beyond the slots have none, and wait.

A topic of the site has as many partitions as the federation does, and a pool may have more workers than that: so slots
are the partitions of several topics, just those that a worker reads for other reasons.
"""

from __future__ import annotations

import logging

from confluent_kafka import OFFSET_END, Consumer, KafkaError, TopicPartition

from streams.core import topics
from streams.core.closing import Closing
from streams.core.names import Destination, IntentId, Site
from streams.kafka import client
from streams.settings import Settings

log = logging.getLogger(__name__)

SESSION_S = 10.0
TOPICS = (topics.CHUNK_EVENTS, topics.COMPLETIONS, topics.INTENTS, topics.MANIFESTS, topics.REPORTS)
"""Of every worker alike, in this order: it decides which slot is which."""
_PASSES = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._RESOLVE}


class GroupSlots(Closing):
    """A member of the group of one intent and pool. Used by one thread, which calls `poll` every few seconds or more.

    `mine` changes within `poll` only.
    """

    def __init__(self, settings: Settings, site: Site, intent: IntentId, pool: Destination) -> None:
        self.mine: frozenset[int] = frozenset()
        self._partitions = settings.registry.partitions
        self.where = client.cluster(settings, site)
        group = f"t2g-work-{intent}-{pool.consumer}"
        self._consumer: Consumer = client.make_consumer(
            client.member_config(settings, site, group, session_s=SESSION_S)
        )
        self._consumer.subscribe(list(TOPICS), on_assign=self._gained, on_revoke=self._gone, on_lost=self._gone)

    def poll(self, wait_s: float) -> None:
        """Stay a member, hear what changed. Raises what ends membership for good: NotAllowed, NotFound, NeverWorks."""
        message = self._consumer.poll(wait_s)
        error = None if message is None else message.error()
        if error is None or error.retriable() or error.code() in _PASSES:
            return
        if error.code() == KafkaError._MAX_POLL_EXCEEDED:
            log.warning("%s: this worker stood still, and its slots went to others", self.where)
            return
        raise client.error_of(error, "joining the other workers", self.where)

    def close(self) -> None:
        """Leave: what is held is others' at once."""
        self.mine = frozenset()
        self._consumer.close()

    def _gained(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.mine = self.mine | self._slots(partitions)
        if partitions:
            places = [TopicPartition(place.topic, place.partition, OFFSET_END) for place in partitions]
            consumer.incremental_assign(places)
            consumer.pause(places)

    def _gone(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.mine = self.mine - self._slots(partitions)
        if partitions:
            consumer.incremental_unassign(partitions)

    def _slots(self, partitions: list[TopicPartition]) -> set[int]:
        return {TOPICS.index(place.topic) * self._partitions + place.partition for place in partitions}


def slots_of(settings: Settings) -> int:
    """How many slots a pool has."""
    return len(TOPICS) * settings.registry.partitions
