"""The audit end to end: records in real (mock) clusters, the command and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable

from click.testing import CliRunner, Result

from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE, audit
from streams.cli.audit import audit as command
from streams.core import topics
from streams.core.ledger.findings import Invariant
from tests.audit.conftest import Stage
from tests.audit.history import LATER_MS, A, B, healthy

Build = Callable[..., Stage]


def run(stage: Stage, *words: str) -> Result:
    return CliRunner().invoke(command, list(words), obj=stage.settings)


def test_a_healthy_federation_is_clean_and_counted(stage: Build) -> None:
    at = stage(A, B)
    world = healthy()
    at.play(world)
    report = audit(at.settings, now_ms=LATER_MS)
    assert report.judgement.findings == ()
    assert report.exit_code == EXIT_CLEAN
    assert report.records == sum(map(len, world.logs.values()))
    assert sum(c.records for c in report.judgement.partitions) == report.records
    assert report.judgement.counts.files == 4


def test_the_command_prints_tables_and_json(stage: Build) -> None:
    at = stage(A, B)
    at.play(healthy())
    shown = run(at)
    assert shown.exit_code == 0, shown.output
    assert "no unseen gap" in shown.output
    assert shown.output.rstrip().endswith("clean")
    told = json.loads(run(at, "--json").stdout)
    assert told["clean"] is True
    assert told["complete"] is True
    assert told["counts"]["partly"] == 1
    assert told["invariants"]["I7"]["checked"] > 0


def test_a_record_lost_in_the_mirror_is_found_with_its_original(stage: Build) -> None:
    at = stage(A, B)
    world = healthy()
    lost = world.where(A, f"{B}.{topics.COMPLETIONS}")[0]
    value = world.at(lost).value
    world.drop(lost)
    at.play(world)
    report = audit(at.settings, now_ms=LATER_MS)
    (finding,) = report.judgement.broken
    assert finding.invariant is Invariant.NO_GAP
    assert finding.records[0] == next(p for p, r in world.records(B, topics.COMPLETIONS) if r.value == value)
    shown = run(at)
    assert shown.exit_code == EXIT_BROKEN
    assert f"{B} {topics.COMPLETIONS}[" in shown.output


def test_a_copy_with_other_bytes_is_not_taken_for_known(stage: Build) -> None:
    at = stage(A, B)
    world = healthy()
    copy = world.where(A, f"{B}.{topics.COMPLETIONS}")[0]
    rec = world.at(copy)
    assert rec.value is not None
    flipped = bytearray(rec.value)
    flipped[-1] ^= 1
    world.put(copy, type(rec)(rec.key, bytes(flipped), rec.headers, rec.at_ms))
    at.play(world)
    found = {f.invariant for f in audit(at.settings, now_ms=LATER_MS).judgement.broken}
    assert found & {Invariant.NO_GAP, Invariant.NOT_SILENT, Invariant.ONE_EFFECT}


def test_a_site_that_is_down_leaves_the_audit_incomplete(stage: Build) -> None:
    at = stage(A, B)
    at.play(healthy())
    at.clusters[B].stop()
    report = audit(at.settings, now_ms=LATER_MS)
    assert report.judgement.broken == ()
    assert list(report.unreachable) == [B]
    assert report.exit_code == EXIT_INCOMPLETE


def test_looking_at_one_site_only(stage: Build) -> None:
    at = stage(A, B)
    at.play(healthy())
    report = audit(at.settings, sites=[A], now_ms=LATER_MS)
    assert report.sites == (A,)
    assert report.exit_code == EXIT_CLEAN
    assert any(f"journals of {B}: not read" in r.words for r in report.judgement.unchecked)
    unknown = run(at, "--site", "T9_X")
    assert unknown.exit_code != 0


def test_an_empty_federation_is_clean(stage: Build) -> None:
    report = audit(stage(A, B).settings, now_ms=LATER_MS)
    assert report.records == 0
    assert report.exit_code == EXIT_CLEAN
