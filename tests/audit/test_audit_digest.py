"""`audit digest` over clusters: one line that two auditors compare, and an earlier cut that must still be there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streams.auditing.digesting import read_digest
from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE, audit
from streams.cli.audit import audit as command
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import LogPosition
from streams.core.names import Site
from streams.kafka.replay import end_offsets
from streams.settings import ROW_FORMAT
from tests.audit.conftest import Stage
from tests.audit.history import LATER_MS, PARTITIONS, A, B, Federation, healthy

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


def tables(result: Result) -> dict[tuple[str, str, int], tuple[int, str]]:
    assert result.exit_code == EXIT_CLEAN, result.output
    found = json.loads(result.stdout)
    assert found["row_format"] == ROW_FORMAT
    return {(one["table"], one["site"], one["partition"]): (one["rows"], one["sha256"]) for one in found["tables"]}


def test_tables_have_one_digest_each_whoever_reads_them(stage: Build) -> None:
    """Of intents and replicas from any cluster, of a site's transfers from its own."""
    at, world = stage(A, B), healthy(A, B)
    at.play(world)
    whole = tables(run(at, "--tables", "--json"))
    assert {table for table, _, _ in whole} == {"intents", "transfers", "replicas"}
    assert {site for table, site, _ in whole if table == "transfers"} == {B}
    assert {site for table, site, _ in whole if table != "transfers"} == {""}
    for site in (A, B):
        alone = tables(run(at, "--tables", "--json", "--site", site))
        assert alone == {key: one for key, one in whole.items() if key[1] in ("", site)}
    assert tables(run(at, "--tables", "--json")) == whole
    again = Federation(A, B)
    again.logs = {key: log for key, log in world.logs.items() if "." in key[1]}
    at.play(again)  # every copy once more, as by a mirror that began anew
    assert tables(run(at, "--tables", "--json", "--site", A)) == {k: v for k, v in whole.items() if k[1] in ("", A)}
    shown = run(at, "--tables").stdout
    assert all(digest in shown for _, digest in whole.values())


def test_tables_at_a_cut_are_as_they_were(stage: Build, tmp_path: Path) -> None:
    at, world = stage(A, B), healthy(A, B)
    at.play(world)
    cut = tmp_path / "cut.json"
    cut.write_text(run(at, "--json", "--tables").stdout)
    before = tables(run(at, "--tables", "--json"))
    body = world.ask(2, B)
    world.decide(body)
    world.mirror()
    newer = Federation(A, B)
    newer.logs = {key: log[_stood(at, key) :] for key, log in world.logs.items()}
    at.play(newer)
    assert tables(run(at, "--tables", "--json", "--at", str(cut))) == before
    later = tables(run(at, "--tables", "--json"))
    assert {key for key in later if later[key] != before.get(key)} == {
        ("intents", "", topics.partition_of(body.intent, PARTITIONS))
    }


def _stood(at: Stage, key: tuple[Site, str, int]) -> int:
    site, topic, partition = key
    return end_offsets(at.settings, site, [topic])[topic, partition]


def test_one_row_otherwise_is_one_digest_otherwise(stage: Build) -> None:
    before, after = stage(A, B), stage(A, B)
    world = healthy(A, B)
    before.play(world)
    place = world.where(B, topics.COMPLETIONS)[0]
    done = world.decoded(place, world.at(place)).message
    assert isinstance(done, m.CompletionRecord)
    raw = world.at(place).value
    for key in world.partitions():
        for offset, rec in world.logs[key]:
            if rec.value == raw:
                world.forge(LogPosition(*key, offset), replace(done, bytes=done.bytes + 1))
    after.play(world)
    was, now = (tables(run(one, "--tables", "--json")) for one in (before, after))
    assert [key for key in was if was[key] != now[key]] == [
        ("intents", "", topics.partition_of(done.intent, PARTITIONS))
    ]


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
