"""Journals read by several processes: the same report, whatever their number; and what becomes of one that fails."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.auditing import replaying
from streams.auditing.history import intent_history
from streams.auditing.index import kept_index
from streams.auditing.points import Instant
from streams.auditing.replaying import EXIT_BROKEN, AuditReport, audit
from streams.cli.audit import audit as command
from streams.core import records as m
from streams.core import topics
from streams.core.ledger import Ledger
from streams.core.ledger.cuts import digest_of
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.rows import MemoryRows
from streams.core.ledger.shares import Share
from streams.core.names import Site
from tests.audit.conftest import Stage
from tests.audit.history import LATER_MS, A, B, Federation, healthy, hear, seals_first
from tests.audit.sealing import sealed
from tests.audit.test_audit_simulation import (
    SEEDS,
    Logs,
    _judged,
    contradict,
    cut_a_tail,
    finished,
    hold_nothing,
    lose_everywhere,
    rewrite_the_past,
    swap_in_a_copy,
)
from tests.core.test_ledger_order import BREAKS
from tests.core.test_ledger_shares import Over, own, sent
from tests.sim.world import PARTITIONS

Build = Callable[..., Stage]


@pytest.fixture
def at(stage: Build) -> Stage:
    return stage(A, B)


def same(one: AuditReport, other: AuditReport) -> None:
    assert (one.judgement, one.digest, one.exit_code) == (other.judgement, other.digest, other.exit_code)
    assert (one.records, one.sites) == (other.records, other.sites)


@pytest.mark.parametrize(("hurt", "numbers"), [(BREAKS[0], [9]), (BREAKS[1], [2]), (BREAKS[3], [3])])
def test_the_report_does_not_depend_on_the_number_of_processes(
    at: Stage, hurt: Callable[[Federation], None], numbers: list[int]
) -> None:
    world = healthy()
    hurt(world)
    at.play(world)
    alone = audit(at.settings, now_ms=LATER_MS)
    for processes in numbers:
        same(audit(at.settings, now_ms=LATER_MS, processes=processes), alone)


def test_what_several_read_is_kept_and_gone_on_with(at: Stage) -> None:
    world = healthy()
    at.play(world)
    path = kept_index(at.settings)

    def told(*words: str) -> dict[str, object]:
        shown = CliRunner().invoke(command, ["--json", *words], obj=at.settings)
        return json.loads(shown.stdout)  # type: ignore[no-any-return]

    first = told("--processes", "2")
    assert (first["exit_code"], first["records_before"]) == (0, 0)
    assert not (path / "shares").exists()
    body = world.decoded(*world.records(A, topics.INTENTS)[0]).message
    assert isinstance(body, m.TransferIntent)
    assert not [step for step in intent_history(path, body.intent).steps if "missing" in step.words]

    before = {key: len(log) for key, log in world.logs.items()}
    done = world.decoded(*world.records(B, topics.COMPLETIONS)[0]).message
    assert isinstance(done, m.CompletionRecord)
    world.writer(B, "again", "worker").say(replace(done, bytes=done.bytes + 1))
    world.mirror()
    new = Federation()
    new.logs = {key: log[before.get(key, 0) :] for key, log in world.logs.items()}
    at.play(new)
    later = told("--processes", "2")
    assert (later["records_before"], later["exit_code"]) == (first["records"], EXIT_BROKEN)
    fresh = told("--fresh")
    names = ("digest", "counts", "findings", "partitions", "invariants", "exit_code")
    assert [later[name] for name in names] == [fresh[name] for name in names]
    again = told("--processes", "3")
    assert again["records"] == 0
    assert [again[name] for name in names] == [fresh[name] for name in names]


def test_as_of_an_instant_too(at: Stage) -> None:
    world = healthy()
    at.play(world)
    at_ms = world.clock_ms - 300
    alone, together = Instant(at_ms), Instant(at_ms)
    same(audit(at.settings, until=alone), audit(at.settings, until=together, processes=2))
    assert (together.ends, together.first_ms, together.left_out_ms) == (alone.ends, alone.first_ms, alone.left_out_ms)


# in which the product itself wrote the journals


@pytest.mark.parametrize(
    "hurt",
    [
        lambda chance, logs: None,
        contradict,
        hold_nothing,
        lose_everywhere,
        swap_in_a_copy,
        rewrite_the_past,
        cut_a_tail,
    ],
)
def test_simulated_histories_in_shares_are_judged_alike(hurt: Callable[[random.Random, Logs], object]) -> None:
    """With seals of all sites, whatever was changed behind them."""
    for seed in SEEDS[::3]:
        names, logs = finished(seed)
        chance, sites = random.Random(seed), tuple(map(Site, names))
        sealed(sites, logs, PARTITIONS, chance)  # type: ignore[arg-type]
        if any(topics.split(key[1])[1] == topics.COMPLETIONS and log for key, log in logs.items()):
            hurt(chance, logs)
        order = sorted(logs, key=lambda key: (seals_first((key, ()))[0], chance.random()))  # type: ignore[arg-type]
        straight = in_shares(sites, logs, order, 1)
        digest, judgement = digest_of(straight.roots()), _judged(straight, logs)
        for of in (2, 3, 5):
            together = in_shares(sites, logs, order, of)
            assert digest_of(together.roots()) == digest
            assert _judged(together, logs) == judgement, f"seed {seed} in {of} shares"


def in_shares(sites: tuple[Site, ...], logs: Logs, order: list[tuple[str, str, int]], of: int) -> Ledger:
    """Some of each journal and all seals by one ledger, the rest in shares that go on; or in three all of it."""
    chance = random.Random(of)
    stops = {key: len(logs[key]) if _is_seal(key) else chance.randrange(len(logs[key]) + 1) for key in order}
    stops = dict.fromkeys(order, 0) if of == 3 else stops

    def made(rows: MemoryRows) -> Ledger:
        return Ledger(sites, partitions=PARTITIONS, rows=rows, salt=b"salt")

    def read(ledger: Ledger, key: tuple[str, str, int], start: int, stop: int) -> None:
        for n in range(start, stop):
            hear(ledger, LogPosition(Site(key[0]), key[1], key[2], n), logs[key][n])

    under = MemoryRows()
    whole = made(under)
    for key in order:
        read(whole, key, 0, stops[key] if of > 1 else len(logs[key]))
    before, parts = whole.kept(), []
    for share in (Share(no, of) for no in range(of if of > 1 else 0)):
        rows = Over(under)
        part = made(rows)
        part.go_on(sent(before))
        part.hear_a_share()
        for key in order:
            if key[2] in share or _is_seal(key):
                read(part, key, stops[key], len(logs[key]))
        parts.append((sent(part.kept()), own(rows), share))
    for kept, own_rows, share in parts:
        whole.absorb(kept, own_rows, share)
    return whole


def _is_seal(key: tuple[str, str, int]) -> bool:
    return topics.split(key[1])[1] == topics.SEALS


# what fails


def test_a_site_that_fails_while_it_is_read_is_told_once(at: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part met it: what was heard counts, and nobody calls it clean."""
    at.play(healthy())
    real = replaying._Reading.note_ends

    def then_away(self: replaying._Reading) -> None:
        real(self)
        for found in self._journals:
            if found.site == B:
                found.own = [*found.own, "a-topic-that-is-gone"]

    monkeypatch.setattr(replaying._Reading, "note_ends", then_away)
    report = audit(at.settings, processes=2)
    assert list(report.unreachable) == [B]
    assert not report.is_complete


def test_leftovers_of_a_killed_audit_are_thrown_away(at: Stage) -> None:
    at.play(healthy())
    path: Path = kept_index(at.settings)
    (path / "shares" / "0" / "facts").mkdir(parents=True)
    (path / "shares" / "0" / "facts" / "CURRENT").write_text("nonsense")
    assert audit(at.settings, index=path, processes=2).exit_code == 0
    assert not (path / "shares").exists()
