"""Where the journals end now, asked from any thread. Reads no record and keeps no position."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from streams.core.topics import LogPartition
from streams.kafka import client
from streams.settings import Settings

_latest: Callable[[], OffsetSpec] = OffsetSpec.latest
_MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


class EndOffsets:
    """End offsets of fixed places of one cluster, records of open transactions included. One request each time."""

    def __init__(self, settings: Settings, site: str, places: Sequence[LogPartition]) -> None:
        self._admin = client.make_admin(settings, site)[0]
        self._places = places

    def sample(self, timeout_s: float, places: Sequence[LogPartition] | None = None) -> dict[LogPartition, int] | None:
        """Ends now, of all places or of these, without places that do not exist. None when the broker does not say; one
        that just started, or whose topics are new, may say "not leader" of what it has: asking again soon can help.
        """
        places = self._places if places is None else places
        try:
            ends = self._ask(timeout_s, places)
            if ends is None or len(ends) < len(places):
                # What this request finds stale it does not ask anew: a topic that was missing stays missing, and after
                # a restart the broker says "fenced leader epoch" for ever, until somebody lists all topics.
                self._admin.list_topics(timeout=timeout_s)
                ends = self._ask(timeout_s, places)
        except KafkaException:
            return None
        return ends

    def _ask(self, timeout_s: float, places: Sequence[LogPartition]) -> dict[LogPartition, int] | None:
        wanted = {TopicPartition(*place): _latest() for place in places}
        level = IsolationLevel.READ_UNCOMMITTED
        ends: dict[LogPartition, int] = {}
        for place, answer in self._admin.list_offsets(wanted, isolation_level=level, request_timeout=timeout_s).items():
            try:
                ends[place.topic, place.partition] = answer.result().offset
            except KafkaException as error:
                if error.args[0].code() not in _MISSING:
                    return None
        return ends
