"""The fold behind `wait` and `intent show`: any order, any repeats, the same snapshot; pure, without a broker."""

from __future__ import annotations

import random
from dataclasses import replace

from streams.client.intent_snapshot import IntentFold, Snapshot
from streams.core import intent as machine
from streams.core import records as m
from streams.core.chain import Link
from streams.core.intent import State
from streams.core.names import IntentId, Text
from streams.core.ranges import Ranges
from streams.core.selectors import Kind, Selector
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


def by_machine(row: machine.IntentRow, fact: m.Message) -> machine.IntentRow:
    return machine.fold(row, fact)  # type: ignore[arg-type]


def test_an_intents_state_is_that_of_the_agents_machine() -> None:
    """After every fact, in any order; the fold has rules of its own, since it keeps less."""
    why = m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "decide", Text("as asked"))
    cancelled = m.IntentDecided(INTENT, 2, m.Verdict.CANCELLED, BODY, B, 0, 5, why)
    refused = m.IntentDecided(INTENT, 1, m.Verdict.REFUSED, BODY, None, 0, 5, why)
    for seed in range(300):
        chance = random.Random(seed)
        facts = history()
        facts += chance.choice([[], [cancelled], [refused], [completed(written(INTENT, [1], no=7), C)]])
        if chance.random() < 0.5:
            facts.append(completed(history()[4], C, cancelled=Ranges.of(0)))  # type: ignore[arg-type]
        chance.shuffle(facts)
        fold, row = IntentFold(INTENT), machine.IntentRow(INTENT)
        waiting: list[m.ManifestWritten] = []
        for fact in facts:
            fold.hear(fact, 1)
            if isinstance(fact, m.TransferReported):
                continue
            row = by_machine(row, fact)
            waiting += [fact] if isinstance(fact, m.ManifestWritten) else []
            for _ in waiting:
                for body in waiting:
                    row = by_machine(row, body)
            assert (fold.head.state, fold.head.chain) == (row.state, row.chain), f"seed {seed}"
            if row.body_sha256:  # an ended row keeps the digest only
                assert fold.head.body is not None
                assert machine.body_digest(fold.head.body) == row.body_sha256


def test_a_rival_of_a_manifest_and_what_continues_it_never_count() -> None:
    body = replace(BODY, destinations=(B,))
    accepted = m.IntentDecided(INTENT, 1, m.Verdict.ACCEPTED, body, B, 0, 5)
    first, rival = written(INTENT, [10], last=False), written(INTENT, [11, 12], last=False)
    second = written(INTENT, [20], no=1, prev=completed(first, B).manifest_sha256)
    of_rival = written(INTENT, [21], no=1, prev=completed(rival, B).manifest_sha256)
    for early in (True, False):
        decision: list[m.Message] = [accepted]
        facts: list[m.Message] = [body, first, of_rival, rival, second]
        facts = facts + decision if early else decision + facts
        (b,) = folded(facts).destinations
        assert (b.files, b.bytes) == (2, 30)


def test_a_manifest_without_its_items_counts_the_same() -> None:
    wanted = folded(history())
    light = [Link.of(f) if isinstance(f, m.ManifestWritten) else f for f in history()]
    fold = IntentFold(INTENT)
    for number, fact in enumerate(light):
        fold.hear(fact, 1000 + number)
    found = replace(fold.snapshot(), asked_ms=None, last_ms=None)
    assert found.destinations == wanted.destinations
    assert [u.lfn for u in found.unfinished] == [f"item 1 of {INTENT}.0.0"]


def test_what_has_served_is_let_go() -> None:
    """Of a long intent that ended nothing is kept but its head."""
    body = replace(BODY, destinations=(B,))
    fold = IntentFold(INTENT)
    fold.hear(m.IntentDecided(INTENT, 1, m.Verdict.ACCEPTED, body, B, 0, 5), 1)
    prev, chain = "", []
    for no in range(200):
        chain.append(written(INTENT, [1, 2], no=no, prev=prev, last=no == 199))
        prev = completed(chain[-1], B).manifest_sha256
    for manifest in reversed(chain):
        fold.hear(manifest, 2)
    for manifest in chain:
        fold.hear(m.TransferReported(INTENT, manifest.manifest, B, 1, "active", 1, 3, 0, 0, 2, Text("")), 3)
        fold.hear(completed(manifest, B), 4)
    assert fold.snapshot().ended
    cells = fold.cells
    kept = [*cells.waiting.items(), *cells.sized.items(), *cells.early.items(), *cells.failed.items()]
    assert (kept, list(cells.reports.items()), fold.head.open, fold.head.kept) == ([], [], 0, 0)


def test_what_is_said_again_later_is_no_news() -> None:
    """A closed transfer says its last word again, when its plan is heard again: the intent ended when it ended."""
    facts = history()[:-2]
    third = facts[4]
    assert isinstance(third, m.ManifestWritten)
    facts.append(completed(third, C))
    fold = IntentFold(INTENT)
    for number, fact in enumerate(facts):
        fold.hear(fact, 1000 + number)
    ended = fold.snapshot()
    assert (ended.ended, ended.last_ms) == (True, 1000 + len(facts) - 1)
    report = m.TransferReported(INTENT, third.manifest, C, 1, "active", 400, 1000, 0, 0, 1, Text(""))
    for fact in (*facts, report):
        fold.hear(fact, 90_000)
    assert fold.snapshot() == ended
    fold.hear(m.IntentAsked(INTENT, m.Asked.CANCEL, Text("me")), 91_000)
    assert fold.snapshot() == replace(ended, last_ms=91_000)
