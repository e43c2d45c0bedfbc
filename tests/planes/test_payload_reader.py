"""Which payload is read while it cannot be told yet where some of it begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.core.topics import LogPartition, chunks_to, remote
from streams.planes.carriers import log as payload
from streams.planes.carriers.log import PayloadReader, _Change
from tests.planes.feed import Receiver
from tests.planes.stage import A, B, Clusters, settings_of

OWN, COPY = chunks_to(B), remote(A, chunks_to(B))


@pytest.fixture
def reader(clusters: Clusters, tmp_path: Path) -> Iterator[PayloadReader]:
    found = PayloadReader(settings_of(B, clusters, tmp_path), Receiver(tmp_path / "b").half, lambda _: None)
    consumer = found._consumer
    yield found
    consumer.close()


def test_a_topic_without_a_leader_holds_up_no_other(reader: PayloadReader, monkeypatch: pytest.MonkeyPatch) -> None:
    away, asked, now_s = {OWN}, list[str](), [100.0]

    def begins(topic: str, new: Mapping[int, int | None]) -> dict[LogPartition, int]:
        if new:
            asked.append(topic)
            now_s[0] += 3.0
        if new and topic in away:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        return {(topic, partition): 7 for partition in new}

    monkeypatch.setattr(reader, "_begins", begins)
    monkeypatch.setattr(payload.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(reader, "_consumer", Assigned())
    change = _Change({0: None, 1: None})
    assert reader._topics[0] == OWN
    assert not reader._reassign(change)
    assert not reader._reassign(change), "as long as the question took, payload is read"
    assert asked == [OWN]
    now_s[0] += 10
    assert not reader._reassign(change)
    assert asked == [OWN, COPY, OWN]
    assert reader._next == {(COPY, 0): 7, (COPY, 1): 7}
    away.clear()
    now_s[0] += 10
    assert reader._reassign(change)
    assert set(reader._next) == {(topic, p) for topic in (OWN, COPY) for p in (0, 1)}
    assert asked == [OWN, COPY, OWN, OWN], "what is known is not asked again"


class Assigned:
    def assign(self, places: object) -> None:
        pass
