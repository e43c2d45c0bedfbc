"""Chains of keeping as an operator sees and settles them, over a home's cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams import wire
from streams.cli import site_chain
from streams.cli.site_chain import HeardChain, settling
from streams.core import records as m
from streams.core import topics
from streams.core.keeping.chains import ChainRow, fold
from streams.core.names import Text
from streams.errors import NeverWorks, NotFound
from tests.cli.conftest import Run, rows
from tests.producer.conftest import DATASET, MOCK_PARTITIONS, A, B, C, Hand

SHA256 = "ab" * 32


def claims(row: ChainRow, *names: str, process: str = "p") -> m.ClaimDecided:
    return m.ClaimDecided(*row.next_head, process, 0, Text("w"), None, Text(""), (), names)


EMPTY = ChainRow(A, DATASET)
ONE = fold(EMPTY, claims(EMPTY, "a")).row
TWO = fold(ONE, claims(ONE, "b")).row
OTHER = fold(ONE, claims(ONE, "c")).row
PARTED = fold(TWO, claims(OTHER, "d")).row


def settled(own: ChainRow, *others: ChainRow) -> m.ChainSettled:
    heard = [HeardChain(site, row) for site, row in zip((A, B, C), (own, *others), strict=False)]
    return settling(A, DATASET, heard, Text("disk put back"), Text("ann"))


def test_the_number_is_above_all_that_any_site_has_heard() -> None:
    step = settled(OTHER, PARTED, TWO)
    assert (step.no, step.prev_sha256) == (4, OTHER.sha256), "3 was heard at B, of the other history"
    for row in (OTHER, PARTED, TWO):
        after = fold(row, step)
        assert (after.row.no, after.row.disputed) == (4, False)


def test_a_site_that_lost_all_goes_on_behind_what_others_heard() -> None:
    step = settled(EMPTY, TWO, ONE)
    assert (step.no, step.prev_sha256) == (3, TWO.sha256)
    assert m.fault(step) is None
    assert fold(TWO, step).row.no == fold(EMPTY, step).row.no == 3


def test_a_sound_chain_is_not_settled() -> None:
    with pytest.raises(NeverWorks, match="nothing to settle"):
        settled(TWO, TWO, ONE)
    with pytest.raises(NotFound, match="no site has heard"):
        settled(EMPTY, EMPTY)


def say(hand: Hand, step: m.KeepingStep) -> None:
    """At A, and in the copy that its peers have: one cluster stands for all."""
    hand.say(A, step)
    hand._seq += 1
    hand._mirror.produce(
        topics.remote(A, topics.KEEPING),
        wire.encode(step),
        DATASET.encode(),
        partition=topics.partition_of(DATASET, MOCK_PARTITIONS),
        headers=wire.headers(step, m.Origin(A, "w", "i", hand._seq, 1_000)),
    )
    assert hand._mirror.flush(10) == 0


def test_chains_are_listed_and_settled(run: Run, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = claims(EMPTY, "a"), claims(ONE, "b")
    for step in (first, second):
        say(hand, step)
    for site in (B, C):
        hand.say(site, replace(first, site=site))
    unknown = run("--site", A, "site", "chain", "settle", "/No/Such/RAW", "--reason", "r")
    assert (unknown.exit_code, "no site has heard" in unknown.stderr) == (3, True), unknown.output
    shown = rows(run("--site", A, "site", "chain", "list", "--json"))
    assert [(row["site"], row["step"], row["state"]) for row in shown] == [
        (A, 2, "sound"),
        (B, 1, "sound"),
        (C, 1, "sound"),
    ]
    refused = run("--site", A, "site", "chain", "settle", DATASET, "--reason", "r")
    assert (refused.exit_code, refused.stdout) == (7, "")
    say(hand, claims(OTHER, "d"))
    (parted,) = rows(run("--site", A, "site", "chain", "list", DATASET, "--disputed", "--json"))
    assert (parted["site"], parted["parted_at"]) == (A, 3)
    shown_only = run("--site", A, "site", "chain", "settle", DATASET, "--reason", "disk put back")
    assert (shown_only.exit_code, "step 4 would settle" in shown_only.stdout) == (0, True)
    assert len(rows(run("--site", A, "site", "chain", "list", "--disputed", "--json"))) == 1, "nothing was said"
    done = run("--site", A, "site", "chain", "settle", DATASET, "--reason", "disk put back", "--execute")
    assert (done.exit_code, "step 4 settles" in done.stdout) == (0, True)
    shown = rows(run("--site", A, "site", "chain", "list", "--json"))
    assert [(row["site"], row["step"], row["state"]) for row in shown] == [
        (A, 4, "sound"),
        (B, 1, "sound"),
        (C, 1, "sound"),
    ]
    assert run("--site", A, "site", "chain", "list", "no dataset").exit_code == 2
    monkeypatch.setattr(site_chain, "replay", lambda *a, **k: (_ for _ in ()).throw(NotFound("no topic")))
    away = run("--site", A, "site", "chain", "settle", DATASET, "--reason", "r", "--execute")
    assert (away.exit_code, "decides on the step's number" in away.stderr) == (5, True)
