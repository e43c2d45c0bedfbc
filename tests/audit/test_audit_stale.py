"""Open intents of which nothing is heard: a note by default, a finding with `--stale`; by the log's time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import CliRunner

from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, audit
from streams.cli.audit import audit as command
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Judgement, LogPosition, Severity
from streams.core.ledger.stale import Staleness
from streams.core.names import ManifestId, Text
from tests.audit.conftest import Stage
from tests.audit.history import START_MS, A, B, Federation, Rec, item

HOUR_MS = 3_600_000
Build = Callable[..., Stage]


def undecided(world: Federation) -> None:
    world.ask(1, B)


def unlisted(world: Federation) -> None:
    world.decide(world.ask(1, B))


def unplanned(world: Federation) -> None:
    body = world.ask(1, B)
    world.decide(body)
    world.write(body, (item("a", 100),))


def unserved(world: Federation) -> None:
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("a", 100),))
    world.workers[B].say(m.TransferPlanned(manifest.manifest, B, 1, 5, None, (), False, manifest))
    name = ManifestId.of(body.intent, 0, 0)
    for words in ("a place", f"{A} to answer request 7"):
        world.workers[B].say(m.TransferReported(body.intent, name, B, 1, "planned", 0, 100, 0, 0, 1, Text(words)))


def of(make: Callable[[Federation], None]) -> Federation:
    world = Federation()
    make(world)
    world.close()
    world.mirror()
    return world


def judged(world: Federation, later_ms: int, **given: bool) -> Judgement:
    ledger = world.ledger()
    return ledger.judge(START_MS + later_ms, staleness=Staleness(**given))


@pytest.mark.parametrize(
    ("make", "last", "waits_for"),
    [
        (undecided, "TransferIntent", f"the decision of {A}"),
        (unlisted, "IntentDecided", f"the manifests of {A}"),
        (unplanned, "ManifestWritten", f"its plan (manifest 0 at {B})"),
        (unserved, "TransferReported", f"{A} to answer request 7 (manifest 0 at {B})"),
    ],
)
def test_an_open_intent_without_news(make: Callable[[Federation], None], last: str, waits_for: str) -> None:
    world = of(make)
    assert [f for f in judged(world, HOUR_MS // 2).findings if "nothing has been heard" in f.words] == []
    (note,) = [f for f in judged(world, 2 * HOUR_MS).findings if f.severity is Severity.NOTE]
    (finding,) = [f for f in judged(world, 2 * HOUR_MS, is_finding=True).broken if "heard" in f.words]
    assert note.words == finding.words
    assert f"the last was {last}, and it waits for {waits_for}" in finding.words
    assert "(119 min)" in finding.words
    (place,) = finding.records
    assert "." not in place.topic, "the original proves it, not a copy"


def test_what_has_ended_and_what_waits_for_its_user_is_not_stale() -> None:
    def ended(world: Federation) -> None:
        body = world.ask(1, B)
        world.decide(body)
        (manifest,) = world.write(body, (item("a", 100),))
        world.transfer(manifest, B)

    def idle(world: Federation) -> None:
        body = replace(world.ask(2, B), open=True)
        world.decide(body)
        first = m.ManifestWritten(body.intent, A, 0, 0, "", "c", m.Unit.BYTES, (item("a", 100),), False)
        world.planes[A].say(first)
        world.transfer(first, B)

    def refused(world: Federation) -> None:
        world.decide(world.ask(3, B), verdict=m.Verdict.REFUSED)

    for make in (ended, idle, refused):
        told = judged(of(make), 9 * HOUR_MS, is_finding=True).findings
        assert [f.words for f in told if "heard of it" in f.words] == [], make.__name__


def test_in_any_order_of_partitions_it_is_the_same() -> None:
    world = of(unserved)
    facts = list(world.facts())
    by_partition: dict[tuple[str, str, int], list[tuple[LogPosition, Rec]]] = {}
    for place, rec in facts:
        by_partition.setdefault(place[:3], []).append((place, rec))
    backwards = [fact for key in reversed(by_partition) for fact in by_partition[key]]
    now_ms = START_MS + 2 * HOUR_MS
    one, other = (world.ledger(given).judge(now_ms, staleness=Staleness()) for given in (facts, backwards))
    assert one.findings == other.findings
    assert one.findings


def test_the_log_says_when_not_the_writer() -> None:
    """A writer whose clock is a day ahead does not keep its intent fresh, and one a day behind does not make it old."""
    world = of(unlisted)

    def shifted(logged_ms: int) -> list[str]:
        for key, log in world.logs.items():
            world.logs[key] = [(o, Rec(r.key, r.value, r.headers, START_MS + logged_ms)) for o, r in log]
        return [f.words for f in judged(world, 2 * HOUR_MS, is_finding=True).broken if "heard of it" in f.words]

    assert shifted(2 * HOUR_MS) == []
    assert len(shifted(0)) == 1


def test_the_command_tells_a_note_or_a_finding(stage: Build) -> None:
    at = stage(A, B)
    at.play(of(unlisted))
    now_ms = START_MS + 2 * HOUR_MS
    report = audit(at.settings, now_ms=now_ms)
    assert [f.severity for f in report.judgement.findings if "heard of it" in f.words] == [Severity.NOTE]
    assert report.exit_code == EXIT_CLEAN
    assert audit(at.settings, now_ms=now_ms, stale_s=9000).judgement.findings == ()
    shown = CliRunner().invoke(command, ["--stale", "--json"], obj=at.settings)
    assert shown.exit_code == EXIT_BROKEN
    (words,) = [f["words"] for f in json.loads(shown.stdout)["findings"]]
    assert "since 2023-11-14T22:1" in words
    assert CliRunner().invoke(command, ["--stale", "1000000000"], obj=at.settings).exit_code == EXIT_CLEAN


def test_an_open_transfer_without_news_beside_one_that_has_some() -> None:
    """Its intent is not silent, and no word is of it."""

    def half(world: Federation) -> None:
        body = world.ask(1, B)
        world.decide(body)
        first, second = world.write(body, (item("a", 100),), (item("b", 100),))
        world.workers[B].say(m.TransferPlanned(first.manifest, B, 1, 5, None, (), False, first))
        name = first.manifest
        world.workers[B].say(
            m.TransferReported(body.intent, name, B, 1, "planned", 0, 100, 0, 0, 1, Text(f"{A} to answer request 7"))
        )
        world.clock_ms += HOUR_MS
        world.transfer(second, B)

    world = of(half)
    place = world.where(B, topics.REPORTS)[0]
    told = [f for f in judged(world, HOUR_MS + HOUR_MS // 2, is_finding=True).broken if "heard of it" in f.words]
    (finding,) = told
    assert finding.words.startswith(f"{A}.00000000-0000-0000-0000-000000000001.0.0 at {B} is open and nothing has been")
    assert f"the last was TransferReported, and it waits for {A} to answer request 7" in finding.words
    assert finding.records == (place,)
    later = judged(world, 3 * HOUR_MS, is_finding=True).broken
    assert [f.words.split(" is open")[0] for f in later if "heard of it" in f.words] == [
        "T1_A.00000000-0000-0000-0000-000000000001"
    ], "silent as a whole, it is told once"
