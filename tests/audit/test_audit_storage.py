"""Replicas against disks, both ways: journals in (mock) clusters, files on a real disk; each fault names its record."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from streams.auditing.disks import disks_reachable
from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE, AuditReport, audit
from streams.cli import root
from streams.cli.audit import audit as command
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Finding, Invariant
from streams.core.names import Block, Dataset, ManifestId, Site
from streams.core.ranges import Ranges
from streams.core.sampling import Sample
from streams.errors import UsageError
from streams.storage.endpoint import OnDisk, part_tag
from streams.storage.posix import PosixEndpoint
from tests.audit.conftest import Stage
from tests.audit.disks import CONTENTS, adler, disk, filled, held, lost, say
from tests.audit.history import BLOCK, LATER_MS, A, B, Federation, item

Build = Callable[..., Stage]
DAY_MS = 86_400_000


def run(stage: Stage, *words: str) -> Result:
    return CliRunner().invoke(command, list(words), obj=stage.settings)


def looked(stage: Stage) -> AuditReport:
    return audit(stage.settings, storage=True, now_ms=LATER_MS)


def the_fault(stage: Stage) -> Finding:
    """What is broken, found by the whole audit and by the look at the disks alone."""
    report = looked(stage)
    (finding,) = report.judgement.broken
    assert report.exit_code == EXIT_BROKEN
    alone = run(stage, "storage", "--json")
    assert alone.exit_code == EXIT_BROKEN
    assert [found["words"] for found in json.loads(alone.stdout)["findings"]] == [finding.words]
    return finding


def is_clean(stage: Stage) -> bool:
    report = looked(stage)
    assert report.judgement.broken == ()
    alone = run(stage, "storage")
    assert alone.exit_code == report.exit_code, alone.output
    return report.exit_code == EXIT_CLEAN and alone.output.endswith("clean\n")


def brought(world: Federation, number: int, names: tuple[str, ...] = ("a", "b", "empty")) -> m.ManifestWritten:
    body = world.ask(number, B)
    world.decide(body)
    (manifest,) = world.write(body, tuple(item(n, len(CONTENTS[n]), adler(CONTENTS[n])) for n in names))
    return manifest


def delivered(at: Stage, *then: m.Message) -> Path:
    """A's files, registered there, have come to B by a transfer; both disks are here. `then`: what B says more."""
    world = Federation()
    world.cli.say(held(A, **CONTENTS))
    world.transfer(brought(world, 1), B)
    registrar = world.writer(B, "register", "cli")
    for fact in then:
        registrar.say(fact)
    world.close()
    world.mirror()
    at.play(world)
    for store in (disk(at, A), disk(at, B)):
        filled(store)
    return at.settings.state / B / "storage" / "store"


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something done once in the middle of the next walk of a disk."""

    def plan(happens: Callable[[], object]) -> None:
        todo = [happens]
        walk = PosixEndpoint.walk

        def interrupted(self: PosixEndpoint, refuse: Any) -> Iterator[OnDisk]:
            yield from walk(self, refuse)
            if self.name == B and todo:
                todo.pop()()

        monkeypatch.setattr(PosixEndpoint, "walk", interrupted)

    return plan


# what is held is there


def test_what_is_held_is_looked_for_and_read(stage: Build) -> None:
    at = stage(A, B)
    delivered(at)
    assert is_clean(at)
    tally = looked(at).storage
    assert tally is not None
    assert (tally.files, tally.bytes, tally.replicas, tally.registered, tally.walked) == (6, 6010, 6, 3, 6)
    told = json.loads(run(at, "storage", "--json").stdout)
    assert (told["clean"], told["complete"], told["exit_code"], told["found"]) == (True, True, 0, 0)
    assert told["storage"]["replicas"] == 6


def circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("site", "spoil", "words"),
    [
        (A, Path.unlink, "is not there"),
        (B, Path.unlink, "is not there"),
        (A, lambda path: path.write_bytes(b"x" * 2999), "has 2999 bytes, not 3000"),
        (A, lambda path: path.write_bytes(b"x" * 2999 + b"y"), "has adler32"),
        (B, lambda path: path.write_bytes(b"x" * 2999 + b"y"), "has adler32"),
        (A, circle, "cannot be read whole"),
        (B, directory, "cannot be read whole"),
        (B, lambda path: (path.unlink(), os.mkfifo(path)), "cannot be read whole"),
    ],
)
def test_a_file_that_is_not_as_it_is_held(
    stage: Build, site: Site, spoil: Callable[[Path], object], words: str
) -> None:
    at = stage(A, B)
    delivered(at)
    spoil(at.settings.state / site / "storage" / "store" / "b")
    assert audit(at.settings, now_ms=LATER_MS).judgement.broken == ()
    finding = the_fault(at)
    assert finding.invariant is Invariant.NO_LIE
    how = f"registered in {BLOCK}" if site == A else "brought by T1_A.00000000-0000-0000-0000-000000000001.0.0"
    assert finding.words.startswith(f"/store/b at {site}, {how}, {words}")
    (place,) = finding.records
    assert (place.site, place.topic) == (site, topics.REPLICAS)


def test_the_last_word_on_a_file_counts(stage: Build) -> None:
    """Given up and gone; registered anew with other bytes; given up, brought again, and gone."""
    at = stage(A, B)
    newer = held(B, a=b"a newer one")
    store = delivered(at, lost(B, "empty"), newer)
    (store / "empty").unlink()
    (store / "a").write_bytes(b"a newer one")
    assert run(at, "storage").exit_code == EXIT_CLEAN
    (contents,) = looked(at).judgement.broken  # which A still holds as they were
    assert (contents.invariant, contents.words.split(":")[0]) == (Invariant.ONE_EFFECT, "/store/a has two contents")
    say(at, lost(B, "b"))
    (store / "b").unlink()
    assert run(at, "storage").exit_code == EXIT_CLEAN
    again = Federation()
    again.logs.clear()
    again.transfer(brought(again, 2, ("b",)), B)
    place = again.where(B, topics.REPLICAS)[0]
    again.logs = {key: log for key, log in again.logs.items() if key[:2] == (B, topics.REPLICAS)}
    at.play(again)
    alone = json.loads(run(at, "storage", "--json").stdout)
    (found,) = alone["findings"]
    assert found["words"] == f"/store/b at {B}, brought by T1_A.00000000-0000-0000-0000-000000000002.0.0, is not there"
    assert found["records"][0]["partition"] == place.partition


def taken_back(name: str, *words: str) -> m.FilesLost:
    """B's loss of a file, which names the words that it takes back."""
    return replace(lost(B, name), taken=(m.TakenWords(words),))


def test_a_file_is_held_while_a_word_stands(stage: Build) -> None:
    """Brought by a transfer, and found by a second: each says a word, and a loss takes back those that it names."""
    at = stage(A, B)
    first, second = (f"{A}.00000000-0000-0000-0000-00000000000{no}.0.0" for no in (1, 2))
    again = replace(held(B, a=CONTENTS["a"]), manifest=ManifestId(second))
    store = delivered(at, again, taken_back("a", first))
    assert run(at, "storage").exit_code == EXIT_CLEAN, "it is held by the second word, and there"
    say(at, taken_back("a", second))
    (found,) = json.loads(run(at, "storage", "--json").stdout)["findings"]
    assert "/store/a" in found["words"], "it lies there, and is not held any more"
    (store / "a").unlink()
    assert run(at, "storage").exit_code == EXIT_CLEAN


def test_a_word_said_again_after_it_was_taken_back_says_nothing(stage: Build) -> None:
    at = stage(A, B)
    word = f"{A}.00000000-0000-0000-0000-000000000001.0.0"
    repeated = replace(held(B, a=CONTENTS["a"]), manifest=ManifestId(word))
    store = delivered(at, taken_back("a", word), repeated)
    (store / "a").unlink()
    assert run(at, "storage").exit_code == EXIT_CLEAN
    say(at, replace(repeated, manifest=None, word="another"))
    (found,) = json.loads(run(at, "storage", "--json").stdout)["findings"]
    assert found["words"].startswith(f"/store/a at {B}, registered in {BLOCK}, is not there")
    say(at, lost(B, "a"))
    assert run(at, "storage").exit_code == EXIT_CLEAN, "a loss that names no words takes back all that stand"


def test_a_file_of_two_datasets(stage: Build) -> None:
    """Each says what it holds; given up in one it is held in the other."""
    at = stage(A, B)
    other = replace(held(B, b=b"z" * 3000), dataset=Dataset("/P/R/OTHER"))
    other = replace(other, files=(replace(other.files[0], block=Block("/P/R/OTHER#one")),))
    store = delivered(at, other)
    (found,) = json.loads(run(at, "storage", "--json").stdout)["findings"]
    assert found["words"].startswith(f"/store/b at {B}, registered in /P/R/OTHER#one, has adler32")
    assert {f.invariant for f in looked(at).judgement.broken} == {Invariant.NO_LIE, Invariant.ONE_EFFECT}
    say(at, lost(B, "b"))
    (store / "b").write_bytes(b"z" * 3000)
    assert run(at, "storage").exit_code == EXIT_CLEAN


def test_storage_elsewhere_is_not_checkable_from_here(stage: Build) -> None:
    at = stage(A, B)
    delivered(at)
    assert disks_reachable(at.settings, [A, B]) == [A, B]
    (at.settings.state / B / "site.toml").unlink()
    assert disks_reachable(at.settings, [A, B]) == [A]
    report = looked(at)
    assert report.judgement.broken == ()
    assert any("not reachable from here" in r.words and r.count == 3 for r in report.judgement.unchecked)
    assert report.exit_code == run(at, "storage").exit_code == EXIT_INCOMPLETE
    assert run(at, "storage", "--site", A).exit_code == EXIT_CLEAN


def test_a_journal_out_of_reach_leaves_it_incomplete(stage: Build) -> None:
    at = stage(A, B)
    delivered(at)
    at.clusters[B].stop()
    alone = run(at, "storage")
    assert alone.exit_code == EXIT_INCOMPLETE, alone.output
    assert alone.output.rstrip().splitlines()[-1].startswith("INCOMPLETE")


def test_an_empty_site_whose_storage_is_away_was_not_seen(stage: Build) -> None:
    at = stage(A, B)
    assert run(at, "storage").exit_code == EXIT_CLEAN, "a site that names no storage and holds nothing has none"
    disk(at, B).parent.rename(at.settings.state / "unmounted")
    shown = run(at, "storage")
    assert shown.exit_code == EXIT_INCOMPLETE
    assert f"what lies on the disk of {B}: its storage is not reachable from here" in shown.output
    assert disks_reachable(at.settings, [A, B]) == []


# what is there is held


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("dark", "/store/dark"),
        ("deep/er/dark.root", "/store/deep/er/dark.root"),
        (".hidden", "/store/.hidden"),
        ("two words\n", r"/store/two words\n"),
        (os.fsdecode(b"\xff.dat"), r"/store/\udcff.dat"),
    ],
)
def test_a_file_that_nobody_holds(stage: Build, path: str, shown: str) -> None:
    at = stage(A, B)
    dark = delivered(at) / path
    dark.parent.mkdir(parents=True, exist_ok=True)
    dark.write_bytes(b"whose?")
    finding = the_fault(at)
    assert finding.invariant is Invariant.CONSERVATION
    assert finding.words == f"{shown} at {B} is on the disk and in no replica of it"
    assert finding.records == ()
    assert dark.read_bytes() == b"whose?"


def test_of_very_many_findings_some_are_kept_and_all_counted(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    at = stage(A, B)
    store = delivered(at)
    for n in range(5):
        (store / f"dark{n}").write_bytes(b"")
    monkeypatch.setattr("streams.core.ledger.findings.FINDINGS_MAX", 2)
    told = json.loads(run(at, "storage", "--json").stdout)
    assert (len(told["findings"]), told["found"]) == (2, 5)
    assert run(at, "storage").output.endswith("BROKEN: 5 findings\n")


def test_a_given_up_file_that_still_lies_there_is_dark(stage: Build) -> None:
    at = stage(A, B)
    delivered(at, lost(B, "b"))
    assert the_fault(at).words == f"/store/b at {B} is on the disk and in no replica of it"


def test_a_replica_reached_by_a_link_is_not_dark(stage: Build) -> None:
    """Links inside the storage, of a file and of a directory; a name that leads nowhere is dark."""
    at = stage(A, B)
    store = delivered(at)
    (store / "b").rename(store.parent / "elsewhere")
    (store / "b").symlink_to("../elsewhere")
    store.rename(store.parent / "really")
    store.symlink_to("really")
    assert is_clean(at)
    (store / "nowhere").symlink_to("/nowhere")
    assert the_fault(at).words.startswith("/really/nowhere at T2_B is on the disk")


def test_what_an_open_transfer_lands_is_not_dark(stage: Build) -> None:
    """Its parts of any attempt and kind, and the files it has sealed; those of one that ended are."""
    at = stage(A, B)
    world = Federation()
    manifest = brought(world, 1)
    for no in (1, 1):
        world.workers[B].say(m.TransferPlanned(manifest.manifest, B, no, 5, None, (), False, manifest))
    world.mirror()
    at.play(world)
    store = disk(at, B)
    filled(disk(at, A))
    parts = [store / f".t2g-{part_tag(manifest.manifest, 1, 3)}.{kind}" for kind in ("part", "final.part")]
    for path in (*parts, store / "a"):
        path.write_bytes(b"hello")
    assert run(at, "storage").exit_code == EXIT_CLEAN

    ended = Federation()
    ended.logs.clear()
    done = ended.complete(manifest, B, Ranges.of(0, 2), Ranges.of(1), close=False)
    ended.workers[B].say(m.TransferClosed(done.manifest, done, acknowledged=False))
    at.play(ended)
    (store / "empty").write_bytes(b"")
    assert run(at, "storage").exit_code == EXIT_CLEAN, "its last word is fixed, and its parts may still go"
    say(at, m.TransferClosed(done.manifest, done))
    # A plan heard again opens nothing.
    say(at, m.TransferPlanned(manifest.manifest, B, 1, 5, None, (), False, manifest))
    told = json.loads(run(at, "storage", "--json").stdout)
    assert told["exit_code"] == EXIT_BROKEN
    assert sorted(found["words"].split(" ")[0] for found in told["findings"]) == sorted(
        f"/store/{path.name}" for path in parts
    )


def test_a_part_of_nothing_is_dark(stage: Build) -> None:
    at = stage(A, B)
    (delivered(at) / f".t2g-{part_tag('nobody', 0, 1)}.part").write_bytes(b"left")
    assert ".part at T2_B is on the disk" in the_fault(at).words


def test_what_is_written_while_the_disk_is_walked_is_not_dark(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    at = stage(A, B)
    store = delivered(at)
    (store / "old").write_bytes(b"old")
    before = time.time_ns()
    monkeypatch.setattr("streams.auditing.storage.time.time_ns", lambda: before - 3600 * 10**9)
    assert the_fault(at).words.startswith("/store/old"), "dated an hour ahead: a clock is wrong, not the file new"
    monkeypatch.setattr("streams.auditing.storage.time.time_ns", lambda: before - 60 * 10**9)
    assert is_clean(at)


def test_a_date_that_somebody_set_hides_nothing(stage: Build) -> None:
    at = stage(A, B)
    (delivered(at) / "dark").write_bytes(b"")
    os.utime(at.settings.state / B / "storage/store/dark", (2e9, 2e9))
    assert the_fault(at).words.startswith("/store/dark")


def test_a_directory_that_may_not_be_entered(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk goes on beside it; that something was not seen is said, and no word of a fault below it."""
    at = stage(A, B)
    store = delivered(at)
    (store / "closed").mkdir()
    (store / "closed" / "dark").write_bytes(b"")
    (store.parent / "lost+found").mkdir()
    opened = os.scandir

    def refused(fd: int) -> Any:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(("/closed", "/lost+found")):
            raise PermissionError(13, "Permission denied")
        return opened(fd)

    monkeypatch.setattr("streams.storage.posix_walk.os.scandir", refused)
    report = looked(at)
    assert (report.judgement.broken, report.exit_code) == ((), EXIT_INCOMPLETE)
    (words,) = [r.words for r in report.judgement.unchecked if "what lies below" in r.words]
    assert words == f"what lies below /store/closed at {B}: permission denied"
    (store / "dark").write_bytes(b"")
    assert looked(at).exit_code == EXIT_BROKEN


def ruled(at: Stage, site: Site, root: Path) -> None:
    """From now on the site's files lie below `kept`."""
    with (at.settings.state / site / "site.toml").open("a") as toml:
        toml.write(f'rules = [{{lfn = "/+store/(.*)", pfn = "{root}/kept/$1"}}]\n')


def test_a_disk_with_path_rules_is_held_against_the_names_they_give(stage: Build) -> None:
    at = stage(A, B)
    store = delivered(at)
    root = store.parent
    ruled(at, B, root)
    assert run(at, "storage").exit_code == EXIT_BROKEN, "files lie where no rule leads"
    store.rename(root / "kept")
    assert is_clean(at)
    (root / "store").mkdir()
    (root / "store" / "a").write_bytes(b"hello")
    assert the_fault(at).words == f"/store/a at {B} is on the disk and in no replica of it"
    (root / "store" / "a").rename(root / "kept" / "dark")
    assert the_fault(at).words == f"/kept/dark at {B} is on the disk and in no replica of it"
    (root / "kept" / "dark").rename(root / "kept" / "b")
    assert the_fault(at).words.startswith(f"/store/b at {B}, brought by ")


def test_what_an_open_transfer_lands_by_path_rules_is_not_dark(stage: Build) -> None:
    at = stage(A, B)
    world = Federation()
    manifest = brought(world, 1)
    world.workers[B].say(m.TransferPlanned(manifest.manifest, B, 1, 5, None, (), False, manifest))
    world.mirror()
    at.play(world)
    root = disk(at, B).parent
    filled(disk(at, A))
    ruled(at, B, root)
    (root / "kept").mkdir()
    for name in (f".t2g-{part_tag(manifest.manifest, 1, 3)}.part", "a"):
        (root / "kept" / name).write_bytes(b"hello")
    assert run(at, "storage").exit_code == EXIT_CLEAN
    (root / "kept" / "other").write_bytes(b"hello")
    assert run(at, "storage").exit_code == EXIT_BROKEN


def test_what_is_registered_meanwhile_by_path_rules_is_not_dark(
    stage: Build, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    at = stage(A, B)
    store = delivered(at)
    ruled(at, B, store.parent)
    store.rename(store.parent / "kept")
    (store.parent / "kept" / "fresh").write_bytes(b"fresh")
    meanwhile(lambda: say(at, held(B, fresh=b"fresh")))
    told = json.loads(run(at, "storage", "--json").stdout)
    assert told["findings"] == []
    assert sum(remark["count"] for remark in told["waiting"]) == 1


# meanwhile


def test_what_changes_while_the_disk_is_walked_is_not_a_fault(
    stage: Build, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    """Given up, registered and registered anew while it was walked: left for the next audit, which finds what is so."""
    at = stage(A, B)
    store = delivered(at)
    (store / "b").unlink()
    (store / "a").write_bytes(b"a newer one")
    (store / "fresh").write_bytes(b"fresh")
    meanwhile(lambda: say(at, lost(B, "b"), held(B, a=b"a newer one", fresh=b"fresh")))
    told = json.loads(run(at, "storage", "--json").stdout)
    assert told["findings"] == []
    assert sum(remark["count"] for remark in told["waiting"]) == 3
    again = run(at, "storage")
    assert again.exit_code == EXIT_CLEAN, again.output
    (store / "fresh").unlink()
    assert "/store/fresh at T2_B, registered in" in run(at, "storage").output


def test_a_dark_file_that_goes_while_the_disk_is_walked(
    stage: Build, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    at = stage(A, B)
    dark = delivered(at) / "dark"
    dark.write_bytes(b"")
    meanwhile(dark.unlink)
    assert run(at, "storage").exit_code == EXIT_CLEAN


# a sample


def test_a_hundred_days_of_one_percent_read_everything_once() -> None:
    lfns, sample = [f"/store/data/{n}.root" for n in range(2000)], Sample.parse("1%")
    days = [[lfn for lfn in lfns if sample.reads(lfn, LATER_MS + day * DAY_MS)] for day in range(100)]
    assert sorted(lfn for read in days for lfn in read) == sorted(lfns), "each once"
    assert all(5 <= len(read) <= 45 for read in days), "about 20 a day"


@pytest.mark.parametrize(
    ("text", "days"), [("100%", 1), ("30", 4), ("0.5%", 200), ("33.3333%", 4), ("12.5%", 8), (" 50% ", 2)]
)
def test_any_share_reads_everything_in_its_time(text: str, days: int) -> None:
    sample = Sample.parse(text)
    for n in range(100):
        assert any(sample.reads(f"/store/{n}", LATER_MS + day * DAY_MS) for day in range(days))


@pytest.mark.parametrize("text", ["0%", "101%", "-1%", "", "%", "1/2", "nan", "1e1", "0.00001%", "١%", "5%%"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(UsageError, match="not a share of the files"):
        Sample.parse(text)


def test_of_a_sample_only_contents_are_left_out(stage: Build) -> None:
    """All are looked for, with their sizes; an altered file is found on the day whose turn it is, at the latest."""
    at = stage(A, B)
    store = delivered(at)
    (store / "b").write_bytes(b"y" * 3000)
    sample = Sample.parse("10%")
    found = []
    for day in range(10):
        report = audit(at.settings, storage=True, sample=sample, now_ms=LATER_MS + day * DAY_MS)
        assert report.storage is not None
        assert report.storage.replicas == 6
        found += [f.words for f in report.judgement.broken]
    assert len(found) == 1
    assert "has adler32" in found[0]
    (store / "a").unlink()
    assert "/store/a at T2_B" in run(at, "--storage", "--sample", "0.0001%").output
    assert "/store/a at T2_B" in run(at, "storage", "--sample", "0.0001%").output


# the command


def test_options_stand_where_they_belong(stage: Build) -> None:
    at = stage(A, B)
    delivered(at)
    before = run(at, "--json", "storage")
    assert (before.exit_code, type(before.exception)) == (1, UsageError)
    assert type(run(at, "--sample", "1%").exception) is UsageError
    assert run(at, "--storage", "--sample", "1%", "--site", A, "--site", B).exit_code == EXIT_CLEAN


def test_the_command_line_reaches_it(stage: Build, tmp_path: Path) -> None:
    at = stage(A, B)
    delivered(at)
    registry = "".join(f'[sites.{s}]\nbootstrap = "{c.bootstrap}"\n' for s, c in at.clusters.items())
    (tmp_path / "sites.toml").write_text(f"partitions = 4\n\n{registry}")
    for words in (["audit", "storage"], ["audit", "--storage"], ["audit", "--storage", "--site", B, "--sample", "5%"]):
        done = CliRunner().invoke(root, [*words, "--state", str(tmp_path)])
        assert done.exit_code == EXIT_CLEAN, done.output
        assert done.output.endswith("clean as far as asked\n" if words[1:3] == ["--storage", "--site"] else "clean\n")
    unread = CliRunner().invoke(root, ["audit", "--state", str(tmp_path)])
    assert unread.output.endswith(f"clean; the disks of {A}, {B} were not read (--storage)\n")
    assert CliRunner().invoke(root, ["audit", "stoage"]).exit_code == UsageError.exit_code
