"""The audit end to end: records in real (mock) clusters, files on a real disk, the command and its exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streams.audit import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE, audit
from streams.cli.audit import audit as command
from streams.core import messages as m
from streams.core import topics
from streams.core.ledger import Invariant
from streams.core.names import Adler32, Lfn, ManifestId
from streams.storage.checksums import adler32, adler32_hex
from tests.audit.conftest import Stage
from tests.audit.history import BLOCK, DATASET, LATER_MS, WHY, A, B, Federation, healthy, item

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


CONTENTS = {"a": b"hello", "b": b"x" * 3000, "empty": b""}


def delivered(at: Stage) -> Path:
    """An intent whose files are at B, and B's storage, known from its site.toml."""
    root = at.settings.state / B / "storage"
    (root / "store").mkdir(parents=True)
    (at.settings.state / B / "site.toml").write_text(f'site = "{B}"\n[endpoint]\nurl = "{root.as_uri()}"\n')
    items = tuple(item(n, len(c), adler32_hex(adler32(c))) for n, c in CONTENTS.items())
    for name, content in CONTENTS.items():
        (root / "store" / name).write_bytes(content)
    world = Federation()
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, items)
    world.transfer(manifest, B)
    world.close()
    world.mirror()
    at.play(world)
    return root / "store"


def test_files_are_read_back(stage: Build) -> None:
    at = stage(A, B)
    delivered(at)
    report = audit(at.settings, storage=True, now_ms=LATER_MS)
    assert report.exit_code == EXIT_CLEAN
    assert report.storage is not None
    assert (report.storage.files, report.storage.bytes) == (3, 3005)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda store: (store / "b").unlink(), "item 1 of"),
        (lambda store: (store / "b").unlink(), "/store/b at T2_B is not there"),
        (lambda store: (store / "b").write_bytes(b"x" * 2999), "has 2999 bytes, not 3000"),
        (lambda store: (store / "b").write_bytes(b"x" * 2999 + b"y"), "has adler32"),
    ],
)
def test_a_file_that_is_not_what_was_completed(stage: Build, spoil: Callable[[Path], object], words: str) -> None:
    at = stage(A, B)
    store = delivered(at)
    spoil(store)
    assert audit(at.settings, now_ms=LATER_MS).judgement.broken == ()
    report = audit(at.settings, storage=True, now_ms=LATER_MS)
    (finding,) = report.judgement.broken
    assert finding.invariant is Invariant.NO_LIE
    assert words in finding.words
    assert finding.records[0].topic == topics.COMPLETIONS
    assert report.exit_code == EXIT_BROKEN


def test_storage_elsewhere_is_not_checkable_from_here(stage: Build) -> None:
    at = stage(A, B)
    delivered(at)
    (at.settings.state / B / "site.toml").unlink()
    report = audit(at.settings, storage=True, now_ms=LATER_MS)
    assert report.judgement.broken == ()
    assert any("not reachable from here" in r.words and r.count == 3 for r in report.judgement.unchecked)
    assert report.exit_code == EXIT_INCOMPLETE


def test_an_empty_federation_is_clean(stage: Build) -> None:
    report = audit(stage(A, B).settings, now_ms=LATER_MS)
    assert report.records == 0
    assert report.exit_code == EXIT_CLEAN


def registered(at: Stage) -> Path:
    """What A has registered, as it lies in A's storage; some of it given up, registered anew, or of a transfer."""
    root = at.settings.state / A / "storage"
    (root / "store").mkdir(parents=True)
    (at.settings.state / A / "site.toml").write_text(f'site = "{A}"\n[endpoint]\nurl = "{root.as_uri()}"\n')
    world = Federation()

    def hold(*names: str, manifest: ManifestId | None = None, **contents: bytes) -> None:
        known = CONTENTS | contents
        held = (m.HeldFile(Lfn(f"/store/{n}"), BLOCK, len(known[n]), adler(known[n]), "") for n in names)
        world.workers[A].say(m.FilesHeld(DATASET, A, tuple(held), manifest))

    hold("a", "b", "empty")
    hold("given_up", "anew", given_up=b"1", anew=b"old")
    hold("anew", anew=b"a newer one")
    world.workers[A].say(m.FilesLost(DATASET, A, (Lfn("/store/given_up"),), WHY))
    for name, content in (CONTENTS | {"anew": b"a newer one"}).items():
        (root / "store" / name).write_bytes(content)
    world.close()
    world.mirror()
    at.play(world)
    return root / "store"


def adler(content: bytes) -> Adler32:
    return Adler32(adler32_hex(adler32(content)))


def circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, "is not there"),
        (lambda path: path.write_bytes(b"x" * 2999), "has 2999 bytes, not 3000"),
        (lambda path: path.write_bytes(b"x" * 2999 + b"y"), "has adler32"),
        (circle, "cannot be read whole"),
        (directory, "cannot be read whole"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "cannot be read whole"),
    ],
)
def test_a_registered_file_that_is_not_as_it_was_registered(
    stage: Build, spoil: Callable[[Path], object], words: str
) -> None:
    at = stage(A, B)
    store = registered(at)
    good = run(at, "--storage", "--site", A)
    assert good.exit_code == EXIT_CLEAN, good.output
    assert "4 registered ones looked for" in good.output
    spoil(store / "b")
    report = audit(at.settings, storage=True, registered=True, now_ms=LATER_MS)
    (finding,) = report.judgement.broken
    assert finding.words.startswith(f"/store/b at {A}, registered in {BLOCK}, {words}")
    assert [place.topic for place in finding.records] == [topics.REPLICAS]
    assert report.exit_code == EXIT_BROKEN
    unread = audit(at.settings, storage=True, now_ms=LATER_MS)
    assert any("registered: not to be read" in r.words for r in unread.judgement.unchecked)


def test_registered_files_elsewhere_are_not_checkable_from_here(stage: Build) -> None:
    at = stage(A, B)
    registered(at)
    (at.settings.state / A / "site.toml").unlink()
    report = audit(at.settings, storage=True, registered=True, now_ms=LATER_MS)
    assert report.judgement.broken == ()
    assert any("not reachable from here" in r.words and r.count == 4 for r in report.judgement.unchecked)
    assert report.exit_code == EXIT_INCOMPLETE
