"""Who caused what, out of an audit's index; and what was held where at an instant."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from streams.auditing.history import file_history, intent_history
from streams.auditing.index import open_index
from streams.auditing.points import Instant
from streams.cli import as_of
from streams.cli.audit import audit as audit_verb
from streams.cli.file import file as file_noun
from streams.cli.intent import intent as intent_noun
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.custody import Step
from streams.core.names import Lfn, Text
from streams.core.records.keeping import NotedClaim
from streams.core.selectors import Kind, Selector
from streams.errors import NotFound, UsageError
from streams.kafka.reader import Record
from tests.audit.conftest import Stage
from tests.audit.history import DATASET, START_MS, WHY, A, B, Federation, healthy, hear, item
from tests.audit.keeping import DISK, WHOLE, Keepers, lfn
from tests.audit.test_audit_index import OF, ledger_over

Build = Callable[..., Stage]


def kept(world: Federation, path: Path) -> Path:
    with open_index(path, OF) as index:
        ledger = ledger_over(world, index)
        index.go_on(ledger)
        for place, rec in world.facts():
            hear(ledger, place, rec)
        index.save(ledger)
    return path


def first_body(world: Federation) -> m.TransferIntent:
    body = world.decoded(*world.records(A, topics.INTENTS)[0]).message
    assert isinstance(body, m.TransferIntent)
    return body


def of(steps: list[Step], words: str) -> list[Step]:
    return [step for step in steps if words in step.words]


def position(steps: list[Step], words: str) -> int:
    return next(at for at, step in enumerate(steps) if words in step.words)


CHAIN = (
    "asked for it",
    "decision 1: accepted",
    "manifest 0.0 written",
    "0.0 planned at T2_B",
    "part files of 0.0 opened",
    "asked T1_A for positions",
    "T1_A served positions",
    "has verified positions",
    "0.0 completed at T2_B",
    "0.0 closed at T2_B",
)


@pytest.mark.parametrize("skew_ms", [0, 86_400_000, -86_400_000])
def test_an_intent_is_told_in_the_order_of_causes_whatever_clocks_say(tmp_path: Path, skew_ms: int) -> None:
    world = Federation()
    clock, ask = world.now_ms, Federation.ask
    body = ask(world, 1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("h0", 100), item("h1", 100)))
    world.now_ms = lambda: clock() + skew_ms  # type: ignore[method-assign]
    world.transfer(manifest, B)
    world.now_ms = clock  # type: ignore[method-assign]
    world.mirror()
    told = intent_history(kept(world, tmp_path / "audit"), body.intent).steps
    order = [position(told, words) for words in CHAIN]
    assert order == sorted(order)
    assert not of(told, "missing")
    assert of(told, "asked for it")[0].words.startswith("someone asked for it")
    asked = of(told, "asked T1_A for positions")[0]
    assert asked.by == f"worker-0 at {B}"
    assert asked.place == world.records(B, topics.requests_to(A))[0][0]
    assert len(of(told, "decision 1")) == 1, "a copy is no step of its own"


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        (topics.DECISIONS, "that its home decided"),
        (topics.MANIFESTS, "that its manifest was written (0.0)"),
        (topics.requests_to(A), "that it was asked for (0.0 at T2_B)"),
        (topics.COMPLETIONS, "that it was completed (0.0 at T2_B)"),
    ],
)
def test_a_record_that_is_missing_everywhere_has_its_place_among_the_steps(
    tmp_path: Path, topic: str, words: str
) -> None:
    world = healthy()
    gone = {rec.value for _, rec in world.records(A, topic) + world.records(B, topic)}
    for key, log in world.logs.items():
        world.logs[key] = [(offset, rec) for offset, rec in log if rec.value not in gone]
    told = intent_history(kept(world, tmp_path / "audit"), first_body(world).intent).steps
    missing = of(told, f"missing: no record says {words}")
    assert len(missing) == 1
    assert (missing[0].place, missing[0].by) == (None, "")


def test_a_file_is_told_from_its_registration_to_its_loss(tmp_path: Path) -> None:
    world = healthy()
    manifest = world.decoded(*world.records(A, topics.MANIFESTS)[0]).message
    assert isinstance(manifest, m.ManifestWritten)
    lfn = manifest.items[1].lfn
    lost = world.writer(B, "repair", "cli").say(m.FilesLost(DATASET, B, (lfn,), WHY))
    world.mirror()
    path = kept(world, tmp_path / "audit")
    told = file_history(path, lfn).steps
    assert position(told, "T1_A registered it") < position(told, "asked T1_A for positions")
    assert of(told, "registered it")[0].by == f"cli at {A}"
    assert (told[-1].words.startswith("T2_B gave it up"), told[-1].place) == (True, lost)
    assert told[-1].by == f"repair at {B}"
    other = world.decoded(*world.records(A, topics.MANIFESTS)[1]).message
    assert isinstance(other, m.ManifestWritten)
    assert not of(file_history(path, other.items[0].lfn).steps, "0.0 planned"), "of the other manifest nothing is told"
    with pytest.raises(NotFound, match="had read nothing of /store/none"):
        file_history(path, Lfn("/store/none"))


def test_who_would_remove_a_file_who_promised_it_and_who_removed_it(tmp_path: Path) -> None:
    world = Keepers(files=3)
    one = NotedClaim("one", DISK, (Selector(Kind.FILE, lfn(1)),))
    world.step(world.noting(A, one))
    world.step(world.noting(A, WHOLE, ended=("one",)))
    world.step(world.noting(A, ended=("whole",)))
    world.step(ask := replace(world.asking(A, 1, 2, 3), by=Text("ann"), reason=Text("the disk is full")))
    promise = world.promised(B, ask, 1, 2)
    removal = replace(world.removing(ask, 1, by=[promise]), kept=(m.KeptFile(lfn(3), Text("nobody keeps it")),))
    world.step(removal)
    world.give_up(A, 1, removal=removal)
    world.asked(B, 2)
    world.mirror()
    path = kept(world, tmp_path / "audit")
    told = [step.words for step in file_history(path, lfn(1)).steps]
    where = f"about {DATASET}"
    assert told[-5:] == [
        f"T1_A noted that one claims it (step 1 {where}, by worker)",
        f"T1_A asked T2_B, T2_C to keep it, to remove it from disk (step 4 {where}, by ann: the disk is full)",
        f"T2_B promised to keep it, to ask 4 of T1_A (step 1 {where}, by worker)",
        f"T1_A removed it by its ask 4, relying on step 1 of T2_B (step 5 {where}, by worker)",
        f"T1_A gave it up in {DATASET}",
    ]
    asked = file_history(path, lfn(1)).steps[-4]
    assert (asked.by, asked.place) == (f"worker-0 at {A}", world.where(A, topics.KEEPING)[3])
    assert not of(file_history(path, lfn(2)).steps, "removed it")
    assert of(file_history(path, lfn(3)).steps, f"T1_A keeps it, of its ask 4 (step 5 {where}")


def test_without_an_audit_there_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        file_history(tmp_path / "audit", Lfn("/store/none"))
    assert "transfer2go audit" in str(refused.value)
    assert not (tmp_path / "audit").exists()


# the verbs


def run(noun: click.Group, at: Stage, *words: str) -> Result:
    return CliRunner().invoke(noun, list(words), obj=at.settings)


def test_the_verbs_of_history(stage: Build) -> None:
    at, world = stage(A, B), healthy()
    at.play(world)
    intent = first_body(world).intent
    assert isinstance(run(intent_noun, at, "history", intent).exception, NotFound)
    assert run(audit_verb, at).exit_code == 0
    shown = run(intent_noun, at, "history", intent)
    assert shown.exit_code == 0, shown.output
    assert "decision 1: accepted" in shown.output
    lines = [json.loads(line) for line in run(intent_noun, at, "history", intent, "--json").stdout.splitlines()]
    assert lines[0]["record"]["topic"] == topics.INTENTS
    manifest = world.decoded(*world.records(A, topics.MANIFESTS)[0]).message
    assert isinstance(manifest, m.ManifestWritten)
    assert "registered it" in run(file_noun, at, "history", manifest.items[1].lfn).output


def test_where_a_file_was_at_an_instant(stage: Build) -> None:
    at, world = stage(A, B), healthy()
    held = world.records(B, topics.REPLICAS)[0][1]
    manifest = world.decoded(*world.records(A, topics.MANIFESTS)[0]).message
    assert isinstance(manifest, m.ManifestWritten)
    lfn = manifest.items[1].lfn
    world.writer(B, "repair", "cli").say(m.FilesLost(DATASET, B, (lfn,), WHY))
    world.mirror()
    at.play(world)
    earlier, later = seconds(held.at_ms - 1), seconds(held.at_ms)

    def sites(*words: str) -> list[str]:
        shown = run(file_noun, at, "where", lfn, "--json", *words)
        assert shown.exit_code == 0, shown.output
        return [json.loads(line)["site"] for line in shown.stdout.splitlines()]

    assert sites("--as-of", earlier) == [A]
    assert sites("--as-of", later) == [A, B]
    assert sites() == [A], "what is known now"
    shown = run(file_noun, at, "where", lfn, "--as-of", later)
    assert f"which is the cut {B}.{topics.REPLICAS}" in shown.stderr or f"{topics.REPLICAS}[" in shown.stderr
    listed = run(file_noun, at, "list", DATASET, "--as-of", earlier)
    assert listed.exit_code == 0
    assert B not in listed.stdout
    before = run(file_noun, at, "where", lfn, "--as-of", seconds(START_MS - 1000))
    assert isinstance(before.exception, NotFound)
    assert "the first record is of" in str(before.exception)


def seconds(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


@pytest.mark.parametrize(("words", "why"), [("yesterday", "is no instant"), ("2999-01-01", "is in the future")])
def test_words_that_are_no_instant(words: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        as_of.parsed(words)
    assert "\n" not in str(refused.value)


def test_an_instant_is_the_last_position_whose_running_maximum_of_times_is_not_later() -> None:
    """A clock that jumped ahead ends the cut; one that fell back does not open it again."""
    cut = Instant(100)
    times = [10, 90, 95, 300, 50, 100]
    taken = [cut.takes(A, Record("t", 0, offset, at, None, None, None)) for offset, at in enumerate(times)]
    assert taken == [True, True, True, False, False, False]
    assert cut.ends == {(A, "t", 0): 3}
    assert (cut.first_ms, cut.left_out_ms) == (10, 50)
