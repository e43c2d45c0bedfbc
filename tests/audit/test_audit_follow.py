"""`audit follow` over a cluster: seals that go on behind those in the log, and what is found while reading."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.auditing.following import FollowerState, follow
from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, audit
from streams.cli.audit import audit as command
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Finding, Invariant
from streams.core.names import Site
from streams.core.sealer_claim import SealerClaim
from streams.errors import NeverWorks, NotAllowed, NotFound, Temporary
from streams.kafka.publish import Publisher
from streams.kafka.replay import replay
from streams.kafka.steady import SteadyReader
from streams.keys import files
from streams.settings import Settings
from tests.audit.conftest import Stage
from tests.audit.history import A, B, Federation, Rec, healthy
from tests.audit.sealing import SealedWorld

Build = Callable[..., Stage]
PASSPHRASE = "correct horse"
YEAR_MS = 366 * 86_400_000


@pytest.fixture(autouse=True)
def the_mock_is_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says after 5 s that it knows no groups, and of news only when a fetch has waited."""
    monkeypatch.setattr("streams.auditing.live.committed_offsets", lambda *_: {})
    monkeypatch.setattr("streams.auditing.following._FETCH_WAIT_MS", 200)


class _Enough(Exception):
    pass


def sealing(settings: Settings, seals: int = 1, every_s: float = 1.0) -> list[Finding]:
    """Follow until so many seals are made; what was found."""
    found: list[Finding] = []

    def made(told: FollowerState) -> None:
        if told.seals >= seals:
            raise _Enough

    with pytest.raises(_Enough):
        follow(settings, every_s=every_s, on_finding=found.append, made=made)
    return found


def pin(stage: Stage, tmp_path: Path, site: Site = A) -> files.WorkingKey:
    """A root key of the site pinned, and a sealer's key where the site looks for it."""
    root = files.make_root(tmp_path / "offline" / f"{site}.json", site, PASSPHRASE)
    settings = stage.settings
    entries = tuple(
        replace(entry, root_key=root.public) if entry.name == site else entry for entry in settings.registry.sites
    )
    keys = tmp_path / site / "keys"
    stage.settings = replace(settings, registry=replace(settings.registry, sites=entries), keys=keys)
    return files.issue(root, keys, m.SEALER, 0, 2**45)


def seals_in(settings: Settings, site: Site) -> list[tuple[Rec, m.JournalsSealed]]:
    from streams import wire

    found = []
    for record in replay(settings, site, [topics.SEALS]):
        seal = wire.decode(record.topic, record.key, record.value, record.headers, site).message
        assert isinstance(seal, m.JournalsSealed)
        headers = tuple(record.headers or ())
        found.append((Rec(record.key, record.value, headers, record.timestamp_ms), seal))
    return found


def test_seals_go_on_behind_those_in_the_log(stage: Build, tmp_path: Path) -> None:
    at, world = stage(A, B), healthy(A, B)
    key = pin(at, tmp_path)
    at.play(world)
    assert sealing(at.settings) == []
    ((_, first),) = seals_in(at.settings, A)
    assert {one.site for one in first.journals} == {A, B}, "the first of a start has copies too"
    assert first.certificate == key.certificate
    with Publisher(at.settings, A, "w", "cli") as other:
        other.announce()
    assert sealing(at.settings) == []
    _, (_, second) = seals_in(at.settings, A)
    assert second.no == 1
    assert {one.topic for one in second.journals} == {topics.ANNOUNCEMENTS}
    report = audit(at.settings)
    assert [f.words for f in report.judgement.broken if f.invariant is Invariant.SEAL] == []
    assert report.judgement.checked[Invariant.SEAL] > 10


def behind_its_back(stage: Build, at: Stage) -> tuple[Stage, str]:
    """The same federation, sealed as in `at`, where what was asked is gone everywhere; the journal that was cut."""
    ((seal, _),) = seals_in(at.settings, A)
    other, changed = stage(A, B), healthy(A, B)
    roots = {entry.name: entry.root_key for entry in at.settings.registry.sites}
    entries = tuple(replace(one, root_key=roots[one.name]) for one in other.settings.registry.sites)
    other.settings = replace(
        other.settings, keys=at.settings.keys, registry=replace(other.settings.registry, sites=entries)
    )
    place = changed.where(A, topics.INTENTS)[0]
    gone = changed.at(place)
    for record in replay(at.settings, A, [topics.ANNOUNCEMENTS]):
        rec = Rec(record.key, record.value, tuple(record.headers or ()), record.timestamp_ms)
        if all(rec.headers != one.headers for _, one in changed.records(A, topics.ANNOUNCEMENTS)):
            changed.append(A, topics.ANNOUNCEMENTS, record.partition, rec)  # the follower's own
    changed.workers[A].announce()
    for where in changed.partitions():
        changed.logs[where] = [(o, r) for o, r in changed.logs[where] if r != gone]
    for where in ((A, topics.SEALS), (B, f"{A}.{topics.SEALS}")):
        changed.append(*where, topics.partition_of(A, 4), seal)
    other.play(changed)
    return other, f"{A} {topics.INTENTS}[{place.partition}]"


def test_what_was_cut_is_told_at_the_next_start_and_by_the_audit(stage: Build, tmp_path: Path) -> None:
    at = stage(A, B)
    pin(at, tmp_path)
    at.play(healthy(A, B))
    sealing(at.settings)
    other, journal = behind_its_back(stage, at)
    found = sealing(other.settings)
    (told,) = (one for one in found if one.invariant is Invariant.SEAL)
    assert [one.invariant for one in found if one is not told] == [Invariant.CONSERVATION, Invariant.NO_GAP]
    assert told.words.startswith(f"{journal} is shorter than sealed")
    report = audit(other.settings)
    assert report.exit_code == EXIT_BROKEN
    assert any(f.words == told.words for f in report.judgement.broken)


def test_each_finding_is_a_json_line(stage: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = stage(A, B)
    pin(at, tmp_path)
    at.play(healthy(A, B))
    sealing(at.settings)
    other, journal = behind_its_back(stage, at)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "seals of" in line:
            raise KeyboardInterrupt  # as Ctrl-C and SIGTERM do

    monkeypatch.setattr("streams.cli.screen.say", say)
    told = CliRunner().invoke(command, ["follow", "--every", "1"], obj=other.settings)
    assert (told.exit_code, said[-1]) == (0, "stopped"), told.output
    (line,) = (one for one in map(json.loads, told.stdout.splitlines()) if one["invariant"] == "seal")
    assert line["words"].startswith(f"{journal} is shorter than sealed")
    assert (line["invariant"], line["severity"]) == ("seal", "broken")
    assert [record["topic"] for record in line["records"]] == [topics.SEALS]


def test_one_process_seals_for_a_site(stage: Build, tmp_path: Path) -> None:
    at, world = stage(A, B), healthy(A, B)
    pin(at, tmp_path)
    at.play(world)

    def second(_: FollowerState) -> None:
        with pytest.raises(Temporary, match="another `audit follow` of T1_A"):
            follow(at.settings, on_finding=lambda _: None)
        raise _Enough

    with pytest.raises(_Enough):
        follow(at.settings, every_s=1.0, on_finding=lambda _: None, made=second)


def on_another_machine(at: Stage, tmp_path: Path) -> Settings:
    """The same site's settings, with a state and a sealer's key of their own."""
    elsewhere = replace(at.settings, state=tmp_path / "machine", keys=tmp_path / "machine" / "keys")
    root = files.unlock_root(tmp_path / "offline" / f"{A}.json", PASSPHRASE)
    files.issue(root, elsewhere.keys, m.SEALER, 0, 2**45)
    return elsewhere


def test_who_came_second_on_another_machine_makes_no_seal(stage: Build, tmp_path: Path) -> None:
    at = stage(A, B)
    pin(at, tmp_path)
    at.play(healthy(A, B))
    elsewhere = on_another_machine(at, tmp_path)

    def second(told: FollowerState) -> None:
        with pytest.raises(Temporary, match="another process seals for T1_A: ") as refused:
            follow(elsewhere, every_s=1.0, on_finding=lambda _: None)
        assert topics.ANNOUNCEMENTS in str(refused.value)
        raise _Enough

    with pytest.raises(_Enough):
        follow(at.settings, every_s=1.0, on_finding=lambda _: None, made=second)
    assert len(seals_in(at.settings, A)) == 1
    assert sealing(elsewhere) == [], "the first has said that it ended"


def test_who_hears_another_s_seal_ends(stage: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a release before, which claims nothing. It hears of it before it makes its next one."""
    at = stage(A, B)
    pin(at, tmp_path)
    at.play(healthy(A, B))
    elsewhere = on_another_machine(at, tmp_path)

    def meanwhile(told: FollowerState) -> None:
        if told.seals == 1:
            with Publisher(at.settings, A, "w", "cli") as other, monkeypatch.context() as patch:
                other.announce()
                patch.setattr(SealerClaim, "may_seal", lambda *_: True)
                patch.setattr(SealerClaim, "hear", lambda *_: None)
                sealing(elsewhere)

    with pytest.raises(NeverWorks, match="another process seals for T1_A: it made seal 1"):
        follow(at.settings, every_s=5.0, on_finding=lambda _: None, made=meanwhile)


def test_no_key_may_sign(stage: Build, tmp_path: Path) -> None:
    at = stage(A, B)
    at.play(healthy(A, B))
    key = pin(at, tmp_path)
    key.path.unlink()
    with pytest.raises(NotFound, match="no sealer key of T1_A"):
        follow(at.settings, on_finding=lambda _: None)
    root = files.unlock_root(tmp_path / "offline" / f"{A}.json", PASSPHRASE)
    files.issue(root, at.settings.keys, m.SEALER, 0, YEAR_MS)
    with pytest.raises(NotAllowed, match="its time is over"):
        follow(at.settings, on_finding=lambda _: None)
    assert seals_in(at.settings, A) == []


@pytest.mark.parametrize("heard_back", [False, True])
def test_a_seal_whose_acknowledgement_is_lost_is_never_made_otherwise(
    stage: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard_back: bool
) -> None:
    """It is sent again as it is, until it is acknowledged or stands in the log."""
    at = stage(A, B)
    pin(at, tmp_path)
    at.play(healthy(A, B))
    tried: list[m.Message] = []
    send = Publisher.send

    def sent(publisher: Publisher, said: m.Message, on_ack: Callable[[Exception | None], None] | None = None) -> None:
        is_seal = isinstance(said, m.JournalsSealed)
        tried.extend([said] if is_seal else [])
        send(publisher, said, None if is_seal and (heard_back or len(tried) < 3) else on_ack)

    monkeypatch.setattr(Publisher, "send", sent)
    if not heard_back:
        batch = SteadyReader.batch
        monkeypatch.setattr(
            SteadyReader, "batch", lambda *of: [one for one in batch(*of) if not one.topic.endswith(topics.SEALS)]
        )
    assert sealing(at.settings) == []
    stands = [seal for _, seal in seals_in(at.settings, A)]
    assert stands == tried
    assert len(set(stands)) == 1
    assert heard_back or len(stands) == 3
    found = [f.words for f in audit(at.settings).judgement.broken if f.invariant is Invariant.SEAL]
    assert found == []


def test_unsigned_where_nobody_pinned_a_key(stage: Build, tmp_path: Path) -> None:
    at = stage(A, B)
    at.settings = replace(at.settings, keys=tmp_path / "keys")
    at.play(healthy(A, B))
    said: list[str] = []
    with pytest.raises(_Enough):
        follow(at.settings, every_s=1.0, on_finding=lambda _: None, tell=said.append, made=_enough)
    assert said[0] == f"sites.toml pins no root_key of {A}: its seals are unsigned"
    ((_, seal),) = seals_in(at.settings, A)
    assert (seal.certificate, seal.signature) == (None, b"")


def _enough(_: FollowerState) -> None:
    raise _Enough


def test_the_audit_s_words(stage: Build) -> None:
    """Places included; a wrong seal is not clean, and who reads one cluster finds two histories."""
    at, world = stage(A, B), healthy(A, B)
    sealed = SealedWorld(world)
    sealed.seal()
    at.play(world)
    clean = CliRunner().invoke(command, ["--json"], obj=at.settings)
    told = json.loads(clean.stdout)
    assert told["invariants"]["seal"]["findings"] == 0
    assert told["invariants"]["seal"]["checked"] > 20
    assert clean.exit_code == EXIT_CLEAN
    (_, seal) = sorted(seals_in(at.settings, A), key=lambda one: one[1].no)[-1]
    _forge(at, replace(seal, no=seal.no + 1, prev_sha256="0" * 64))
    broken = CliRunner().invoke(command, [], obj=at.settings)
    assert broken.exit_code == EXIT_BROKEN
    assert f"seal broken: seal 1 of {A} does not continue seal 0 of {A}" in broken.stdout
    assert f"{A} {topics.SEALS}[" in broken.stdout


def _forge(at: Stage, seal: m.JournalsSealed) -> None:
    world = Federation(A, B)
    world.logs.clear()
    place = world.writer(A, "intruder", "cli").say(seal)
    assert place.offset == 0
    at.play(world)
