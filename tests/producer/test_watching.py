"""The fold behind `wait` and `intent show`: any order, any repeats, the same snapshot; pure, without a broker."""

from __future__ import annotations

import random
from dataclasses import replace

from streams.core import messages as m
from streams.core.intent import State
from streams.core.names import IntentId, Text
from streams.core.ranges import Ranges
from streams.core.selection import Kind, Selector
from streams.watching import IntentFold, Snapshot
from tests.producer.conftest import BLOCK, B, C, completed, written

INTENT = IntentId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab")
BODY = m.TransferIntent(INTENT, Text("me"), (Selector(Kind.BLOCK, BLOCK),), (B, C))


def history() -> list[m.Message]:
    """Three manifests to two destinations; one file failed at C, one manifest is still open there."""
    first = written(INTENT, [10, 20, 0], last=False)
    second = written(INTENT, [5], no=1, prev=completed(first, B).manifest_sha256, last=False)
    third = written(INTENT, [1000], no=2, prev=completed(second, B).manifest_sha256)
    waits = Text("T2_B to answer request 1")
    return [
        BODY,
        m.IntentDecided(INTENT, 1, m.Verdict.ACCEPTED, BODY, B, 0, 5),
        first,
        second,
        third,
        *(completed(body, B) for body in (first, second, third)),
        completed(first, C, failed=Ranges.of(1)),
        completed(second, C),
        m.TransferReported(INTENT, third.manifest, C, 1, "active", 400, 1000, 0, 0, 1, waits),
        # Of a transfer that was closed meanwhile: must not count twice, whenever it comes.
        m.TransferReported(INTENT, second.manifest, B, 1, "active", 5, 5, 0, 0, 1, Text("")),
    ]


def folded(facts: list[m.Message]) -> Snapshot:
    fold = IntentFold(INTENT)
    for number, fact in enumerate(facts):
        fold.hear(fact, 1000 + number)
    return replace(fold.snapshot(), asked_ms=None, last_ms=None)


def test_counts_of_a_half_done_intent() -> None:
    snapshot = folded(history())
    b, c = snapshot.destinations
    assert (b.files, b.arrived, b.failed, b.left, b.bytes, b.arrived_bytes) == (5, 5, 0, 0, 1035, 1035)
    assert (c.files, c.arrived, c.failed, c.left, c.bytes, c.arrived_bytes) == (5, 3, 1, 1, 1035, 15 + 400)
    assert (snapshot.state, snapshot.ended, snapshot.planned, snapshot.exit_code) == (State.ACTIVE, False, True, 5)


def test_any_order_and_any_repeats_give_the_same_snapshot() -> None:
    wanted = folded(history())
    for seed in range(500):
        chance = random.Random(seed)
        facts = history()
        facts += chance.choices(facts, k=chance.randrange(6))
        chance.shuffle(facts)
        assert folded(facts) == wanted, f"seed {seed}"


def test_a_raised_source_number_counts_only_the_new_chain() -> None:
    first = written(INTENT, [10, 20])
    again = replace(first, source=C, source_no=1)
    facts = [
        BODY,
        m.IntentDecided(INTENT, 1, m.Verdict.ACCEPTED, BODY, B, 0, 5),
        first,
        completed(first, B),
        m.IntentDecided(INTENT, 2, m.Verdict.ACCEPTED, BODY, C, 1, 5),
        again,
        completed(again, B),
    ]
    b, c = folded(facts).destinations
    assert (b.files, b.arrived, c.files, c.arrived) == (2, 2, 2, 0)


def test_how_it_ended_in_one_word_and_a_code() -> None:
    body = replace(BODY, destinations=(B,))
    manifest = written(INTENT, [10, 20])
    accepted = m.IntentDecided(INTENT, 1, m.Verdict.ACCEPTED, body, B, 0, 5)
    for failed, word, code in ((Ranges(), "done", 0), (Ranges.of(0), "partly", 8), (Ranges.of(0, 1), "failed", 6)):
        snapshot = folded([body, accepted, manifest, completed(manifest, B, failed=failed)])
        assert (snapshot.outcome, snapshot.exit_code, snapshot.ended) == (word, code, True)
