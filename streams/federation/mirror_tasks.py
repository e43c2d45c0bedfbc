"""What Kafka Connect says of a mirror's tasks, read from its status topics at the targets; and how one is restarted.

A task that fails stays failed while its process lives on: a record that the target refuses is enough, and that flow is
dead without a word but in the log. Dedicated mirrors answer no REST calls. But a restart asked for by REST is nothing
but a record in the flow's config topic, which its worker follows: so it is written there, and no other flow stands
still.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition

from streams.federation.mirror import config_topic

LOOK_S = 0.5
AGAIN_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""How long a failed task is given to run again before it is restarted once more."""
_FORGIVEN_S = 120.0
"""One that ran for so long before it failed again is restarted at once."""
_ANSWER_S = 5.0
_CONNECTOR = "MirrorSourceConnector"
_TASK = f"status-task-{_CONNECTOR}-"
_RESTART = f"restart-connector-{_CONNECTOR}".encode(), b'{"include-tasks":true,"only-failed":true}'
_READING = {
    "group.id": "t2g-mirror-tasks",
    "enable.auto.commit": False,
    "log_level": 0,
    "fetch.wait.max.ms": 5000,
    "reconnect.backoff.max.ms": 1000,
}


class _Told(NamedTuple):
    """The last word on a task."""

    at_ms: int
    state: str
    trace: str


class _Asked(NamedTuple):
    """How often the tasks of a flow were restarted while they failed, and when last (monotonic)."""

    times: int
    at_s: float


class FailedTask(NamedTuple):
    """A task that failed, and the status topic of its flow that says so."""

    topic: str
    number: str
    trace: str

    @property
    def words(self) -> str:
        flow = self.topic.removeprefix("mm2-status.").removesuffix(".internal")
        return f"task {self.number} of {flow} failed: {self.trace.partition(chr(10))[0][:200]}"


class MirrorTasks:
    """`topics`: the status topics by target's servers. Reading goes on in a thread until `close`."""

    def __init__(self, topics: Mapping[str, frozenset[str]]) -> None:
        self._topics = topics
        self._told: dict[tuple[str, str], _Told] = {}
        self._asked: dict[str, _Asked] = {}
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

    def failed(self, since_ms: int) -> list[FailedTask]:
        """The failed tasks, by what was said since then."""
        with self._lock:
            told = list(self._told.items())
        return [
            FailedTask(topic, key.rpartition("-")[2], one.trace)
            for (topic, key), one in told
            if one.state == "FAILED" and one.at_ms >= since_ms
        ]

    def restart(self, task: FailedTask, now_s: float) -> bool:
        """Asks the flow's worker to run its failed tasks again; True when asked. Later each time, while they fail.

        What cannot be asked now is asked at a later call.
        """
        asked = self._asked.get(task.topic, _Asked(0, float("-inf")))
        waited_s = now_s - asked.at_s
        if asked.times and waited_s < AGAIN_S[min(asked.times, len(AGAIN_S)) - 1]:
            return False
        times = asked.times + 1 if waited_s < _FORGIVEN_S else 1
        self._asked[task.topic] = _Asked(times, now_s)
        servers = next(servers for servers, names in self._topics.items() if task.topic in names)
        return _written(servers, config_topic(task.topic), *_RESTART)

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


def _written(servers: str, topic: str, key: bytes, value: bytes) -> bool:
    """Whether a record is acknowledged."""
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": servers, "acks": "all", "log_level": 0})
    producer.produce(topic, value, key, partition=0, on_delivery=lambda error, _: failures.append(error))
    return producer.flush(_ANSWER_S) == 0 and failures == [None]
