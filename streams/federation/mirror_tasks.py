"""What Kafka Connect says of a mirror's tasks, read from its status topics at the targets.

A task that fails stays failed while its process lives on: a record that the target refuses is enough, and that flow is
dead without a word but in the log. Hence the supervisor asks here, and starts the mirror again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

LOOK_S = 0.5
_TASK = "status-task-MirrorSourceConnector-"
_READING = {
    "group.id": "t2g-mirror-tasks",
    "enable.auto.commit": False,
    "log_level": 0,
    "reconnect.backoff.max.ms": 1000,
}


class _Told(NamedTuple):
    """The last word on a task."""

    at_ms: int
    state: str
    trace: str


class MirrorTasks:
    """`topics`: the status topics by target's servers. Reading goes on in a thread until `close`."""

    def __init__(self, topics: Mapping[str, frozenset[str]]) -> None:
        self._topics = topics
        self._told: dict[tuple[str, str], _Told] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror-tasks", daemon=True)
        self._thread.start()

    def running(self, since_ms: int) -> bool:
        """Whether every flow has a task, and every task runs, by what was said since then."""
        with self._lock:
            told = {place: one for place, one in self._told.items() if one.at_ms >= since_ms}
        wanted = {topic for topics in self._topics.values() for topic in topics}
        return {topic for topic, _ in told} == wanted and all(one.state == "RUNNING" for one in told.values())

    def failed(self, since_ms: int) -> str:
        """The first failed task and its reason; "" if none failed since then."""
        with self._lock:
            for (topic, key), one in self._told.items():
                if one.state == "FAILED" and one.at_ms >= since_ms:
                    flow = topic.removeprefix("mm2-status.").removesuffix(".internal")
                    return f"task {key.rpartition('-')[2]} of {flow} failed: {one.trace.partition(chr(10))[0][:200]}"
        return ""

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        consumers = {servers: Consumer({"bootstrap.servers": servers, **_READING}) for servers in self._topics}
        assigned: dict[str, set[str]] = {servers: set() for servers in self._topics}
        while not self._stop.wait(LOOK_S):
            for servers, consumer in consumers.items():
                try:
                    if assigned[servers] != self._topics[servers]:
                        self._assign(consumer, self._topics[servers], assigned[servers])
                    self._read(consumer)
                except KafkaException:
                    continue  # the target is away; what it says when it is back counts
        for consumer in consumers.values():
            consumer.close()

    def _assign(self, consumer: Consumer, wanted: frozenset[str], assigned: set[str]) -> None:
        """The mirror creates these topics when it first starts."""
        known = wanted & consumer.list_topics(timeout=1.0).topics.keys() - assigned
        if known:
            consumer.incremental_assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in known])
            assigned |= known

    def _read(self, consumer: Consumer) -> None:
        while (record := consumer.poll(0)) is not None:
            key, value = record.key(), record.value()
            if record.error() is not None or not isinstance(key, bytes) or not key.startswith(_TASK.encode()):
                continue
            place = str(record.topic()), key.decode()
            with self._lock:
                if value is None:
                    self._told.pop(place, None)
                    continue
                try:
                    said = json.loads(value)
                    state, trace = str(said["state"]), str(said.get("trace") or "")
                except (ValueError, TypeError, KeyError, AttributeError):
                    continue  # not Connect's; the thread must go on
                self._told[place] = _Told(record.timestamp()[1], state, trace)
