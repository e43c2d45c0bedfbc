"""What a client keeps and reads: nothing of whom nobody waits for, and for an idempotency key no more than it needs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams import TransferClient
from streams.client import follower
from streams.client.intent_snapshot import IntentFold, Names
from streams.core import records as m
from streams.core import topics
from streams.core.intent import State
from streams.core.names import IntentId, ManifestId, Text
from streams.core.ranges import Ranges
from streams.errors import NeverWorks
from streams.kafka.replay import replay
from streams.views.view import View
from tests.producer.conftest import A, B, Hand, completed, working, written
from tests.producer.test_producer import LFN, intents_in_log

PUBLISHED = 10_000


def test_a_client_that_only_publishes_keeps_nothing(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransferClient, "_send", lambda *_: None)  # what the broker keeps is not asked here
    with TransferClient(hand.settings) as client:
        kept = client.publish([LFN], to=["T2_B"])
        for _ in range(PUBLISHED):
            client.publish([LFN], to=["T2_B"])
        gc.collect()
        assert len(client._follower._watched) == 1
        assert kept.body is not None
        hand.accept(kept.body)
        assert next(s for s in kept.watch(20) if s.decision is not None).state is State.ACTIVE


def test_what_is_published_and_let_go_is_not_decoded(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    deciding = follower.fact_of

    def fact_of(record: Any, site: Any) -> Any:
        decoded.append(record.key.decode())
        return deciding(record, site)

    monkeypatch.setattr("streams.client.follower.fact_of", fact_of)
    with TransferClient(hand.settings) as client:
        gone = client.publish([LFN], to=["T2_B"]).body
        kept = client.publish([LFN], to=["T2_B"])
        assert gone is not None
        assert kept.body is not None
        gc.collect()
        for body in (gone, kept.body):
            hand.say(B, written(body.intent, [1] * 100))
            hand.accept(body)
        assert next(s for s in kept.watch(20) if s.files).files == 100
    assert set(decoded[-2:]) == {str(kept.id)}
    assert sum(1 for name in decoded if name == gone.intent) <= 1, "its own body, before it was let go"


def test_names_of_open_manifests_are_bounded_and_those_that_fail_are_kept() -> None:
    names = Names(most=2_000)
    intent = IntentId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab")
    body = m.TransferIntent(intent, Text("me"), (), (B,))
    fold = IntentFold(intent, names=names)
    fold.hear(m.IntentDecided(intent, 1, m.Verdict.ACCEPTED, body, B, 0, 5), 1)
    prev = ""
    chain = []
    for no in range(10):
        chain.append(written(intent, [1] * 500, no=no, prev=prev, last=no == 9))
        prev = completed(chain[-1], B).manifest_sha256
        fold.hear(chain[-1], 1)
        assert sum(len(names.of(ManifestId.of(intent, 0, n))) for n in range(10)) <= 2_000
    for manifest in (chain[9], chain[0]):
        fold.hear(completed(manifest, B, failed=Ranges.of(7)), 1)
    said = [one.lfn for one in fold.snapshot().unfinished]
    assert said == [f"item 7 of {intent}.0.0", "/store/t/9/f7.root"]
    assert names.of(chain[9].manifest) == (), "closed everywhere"


@pytest.fixture
def topics_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The topics that a client replays."""
    read: list[str] = []

    def noting(settings: Any, site: Any, names: Any, **options: Any) -> Iterator[Any]:
        names = list(names)
        read.extend(names)
        return replay(settings, site, names, **options)

    monkeypatch.setattr("streams.client.follower.replay", noting)
    return read


def test_a_key_reads_two_topics_and_the_rest_only_when_somebody_waits(hand: Hand, topics_read: list[str]) -> None:
    with TransferClient(hand.settings, requester="me") as client:
        body = client.publish([LFN], to=["T2_B"], idempotency_key="k").body
        assert body is not None
        hand.refuse(body, "no")
        again = client.publish([LFN], to=["T2_B"], idempotency_key="k")
        assert topics_read == [topics.INTENTS, topics.DECISIONS] * 2
    with TransferClient(hand.settings, requester="me") as other:
        later = other.publish([LFN], to=["T2_B"], idempotency_key="k")
        with pytest.raises(NeverWorks, match="differs in priority"):
            other.publish([LFN], to=["T2_B"], idempotency_key="k", priority=9)
        assert topics_read == [topics.INTENTS, topics.DECISIONS] * 4
        assert later.wait(20).exit_code == 7
        assert set(topics_read) > {topics.MANIFESTS, topics.COMPLETIONS}
    assert again.id == later.id
    assert intents_in_log(hand) == 1


@pytest.fixture
def worker(hand: Hand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[View]:
    with working(hand, tmp_path, monkeypatch) as view:
        yield view


def test_a_workers_view_is_asked_first(hand: Hand, worker: View, topics_read: list[str]) -> None:
    assert worker._catch_up(worker._intent_places, 20)
    with TransferClient(hand.settings, requester="me") as client:
        bodies = {n: client.publish([LFN], to=["T2_B"], idempotency_key=f"k{n}").body for n in range(20)}
        again = {n: client.publish([LFN], to=["T2_B"], idempotency_key=f"k{n}").body for n in range(20)}
        assert again == bodies
        with pytest.raises(NeverWorks, match="differs in destinations"):
            client.publish([LFN], to=["T3_C"], idempotency_key="k3")
        assert (intents_in_log(hand), topics_read) == (20, [])


def test_a_view_that_lags_is_no_answer(
    hand: Hand, worker: View, topics_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.worker.api.FRESH_S", 0.2)
    worker._stopping.set()
    for thread in worker._threads:
        thread.join(10)
    with TransferClient(hand.settings, requester="me") as client:
        for _ in range(2):
            client.publish([LFN], to=["T2_B"], idempotency_key="k")
        assert (intents_in_log(hand), topics_read) == (1, [topics.INTENTS, topics.DECISIONS]), (
            "the first it could answer"
        )
    assert worker.intents.snapshot(IntentId(f"{A}.0b5f6d6e-5a4e-4a55-8f10-0123456789ab")) is None
