"""What a consumer group has committed. Read-only; groups themselves belong to whoever consumes."""

from __future__ import annotations

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException

from streams import waits
from streams.core.topics import LogPartition
from streams.kafka import client
from streams.kafka.reader import ANSWER_S
from streams.settings import Settings


def committed_offsets(settings: Settings, site: str, group: str) -> dict[LogPartition, int]:
    """The next offset to read of every place the group ever committed; empty for an unknown group.

    Temporary when the cluster does not answer.
    """
    admin, complaints = client.make_admin(settings, site)
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=ANSWER_S)
    try:
        with waits.on(f"the brokers of {site} to say how far {group} has read"):
            found = asked[group].result()
    except KafkaException as e:
        raise complaints.error_of(e.args[0], f"asking for the offsets of group {group}") from e
    return {(p.topic, p.partition): p.offset for p in found.topic_partitions or [] if p.offset >= 0}
