"""`audit digest` over clusters: one line that two auditors compare, and an earlier cut that must still be there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streams.auditing.digesting import read_digest
from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE, audit
from streams.cli.audit import audit as command
from streams.core import topics
from tests.audit.conftest import Stage
from tests.audit.history import LATER_MS, A, B, Federation, healthy

Build = Callable[..., Stage]


def run(stage: Stage, *words: str) -> Result:
    return CliRunner().invoke(command, ["digest", *words], obj=stage.settings)


def line(result: Result) -> str:
    assert result.exit_code == EXIT_CLEAN, result.output
    return result.stdout.splitlines()[-1]


def test_two_auditors_of_one_cluster_each_say_the_same_line(stage: Build) -> None:
    at, world = stage(A, B), healthy(A, B)
    at.play(world)
    both = line(run(at))
    assert both == line(run(at, "--site", A)) == line(run(at, "--site", B))
    assert both.startswith(read_digest(at.settings).digest)
    assert audit(at.settings, now_ms=LATER_MS).digest == read_digest(at.settings).digest
    assert " journals that every site holds, " in both
    long = run(at, "--journals").stdout
    assert topics.CHUNK_EVENTS in long
    assert long.splitlines()[-1] == both
    world.workers[A].announce()
    at.play(_only_last(world))
    assert line(run(at, "--site", A)) != both


def _only_last(world: Federation) -> Federation:
    for key, log in world.logs.items():
        world.logs[key] = log[-1:] if key[:2] == (A, topics.ANNOUNCEMENTS) else []
    return world


def test_a_cut_must_be_there_again(stage: Build, tmp_path: Path) -> None:
    at, world = stage(A, B), healthy(A, B)
    at.play(world)
    told = run(at, "--json").stdout
    cut = tmp_path / "cut.json"
    cut.write_text(told)
    before = line(run(at))
    world.workers[A].announce()
    at.play(_only_last(world))
    assert line(run(at, "--at", str(cut))) == before
    assert line(run(at)) != before

    other = stage(A, B)
    changed = healthy(A, B)
    place = changed.where(B, topics.COMPLETIONS)[0]
    rec = changed.at(place)
    for key in changed.partitions():
        changed.logs[key] = [(o, r) for o, r in changed.logs[key] if r.value != rec.value]
    other.play(changed)
    seen = run(other, "--at", str(cut))
    assert seen.exit_code == EXIT_BROKEN
    assert f"{B} {topics.COMPLETIONS}[{place.partition}] is not as the cut has it" in seen.output


def test_a_site_that_does_not_answer_is_read_at_its_mirrors(stage: Build, tmp_path: Path) -> None:
    at = stage(A, B)
    at.play(healthy(A, B))
    cut = tmp_path / "cut.json"
    cut.write_text(run(at, "--json").stdout)
    both = line(run(at))
    at.clusters[B].stop()
    seen = run(at)
    assert seen.exit_code == EXIT_INCOMPLETE
    assert seen.stdout.splitlines()[-1] == both
    assert f"{B} could not be read" in seen.output
    assert run(at, "--at", str(cut)).exit_code == EXIT_INCOMPLETE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no cut"),
        ("{", "not a cut"),
        ("[]", "not a cut"),
        ('{"digest": "x", "journals": [{"site": "T1_A", "topic": "replicas", "partition": 0}]}', "not a cut"),
        ('{"digest": "x", "journals": []}', "its digest is not that of its journals"),
    ],
)
def test_what_is_no_cut(stage: Build, tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "cut.json"
    if text is not None:
        path.write_text(text)
    at = stage(A, B)
    result = run(at, "--at", str(path))
    assert result.exit_code != EXIT_CLEAN
    assert words in str(result.output) + str(result.exception)
    assert json.loads(run(at, "--json").stdout)["journals"] == []
