"""A site's check by the command line: journals in (mock) clusters, files on a real disk; what is said, and what not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from streams import wire
from streams.auditing.disks import Disks, Look
from streams.auditing.storage import DiskLook
from streams.cli import root
from streams.consistency import checking
from streams.core import records as m
from streams.core import topics
from streams.core.names import IntentId, Lfn, Site, Text
from streams.core.selectors import Kind, Selector
from streams.core.store_names import BASE
from streams.errors import StorageError
from streams.kafka.publish import wall_ms
from streams.kafka.replay import replay
from streams.storage import marker
from streams.storage.endpoint import part_tag
from streams.storage.posix import PosixEndpoint
from streams.storage.tree import OWN_DIRECTORY
from tests.audit.conftest import Stage
from tests.audit.disks import adler, disk, held, say
from tests.audit.history import BLOCK, DATASET, WHY, A, B, Federation, item

Build = Callable[..., Stage]
DAY_MS = 86_400_000
MANY = {f"n{n:02}": b"%d" % n for n in range(40)}
"""So many that a dark file is not 5 % of them."""
CLAIM = "T1_A.00000000-0000-0000-0000-0000000000c1"


class Checked:
    """B's check in a federation of A and B, whose files both hold."""

    def __init__(self, at: Stage, *, held_by_a: bool = True, claimed: bool = True, marked: bool = True) -> None:
        self.at, self.state = at, at.settings.state
        registry = "".join(f'[sites.{s}]\nbootstrap = "{c.bootstrap}"\n' for s, c in at.clusters.items())
        (self.state / "sites.toml").write_text(f"partitions = 4\n\n{registry}")
        self.store = disk(at, B)
        for name, content in MANY.items():
            (self.store / name).write_bytes(content)
        if held_by_a:
            say(at, held(A, **MANY), site=A)
        say(at, held(B, **MANY))
        if claimed:
            say(at, claim(True))
        if marked:
            self.mark()

    def mark(self) -> None:
        storage = PosixEndpoint(str(self.store.parent))
        marker.mark(storage, marker.Remembered.of(self.state, B, "default"))
        storage.close()

    def __call__(self, *words: str, site: str = B) -> Result:
        done = CliRunner().invoke(root, ["site", "check", site, *words, "--state", str(self.state)])
        assert "Traceback" not in done.output
        return done

    def told(self, *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Lines of what was found, and the summary."""
        lines = [json.loads(line) for line in self(*words, "--json").stdout.splitlines()]
        return lines[:-1], lines[-1]

    def said(self, kind: type, *names: str) -> list[Any]:
        """What stands in journals at B."""
        found = []
        for record in replay(self.at.settings, B, names):
            message = wire.decode(record.topic, record.key, record.value, record.headers, B).message
            if isinstance(message, kind):
                found.append(message)
        return found

    @property
    def losses(self) -> list[m.FilesLost]:
        return self.said(m.FilesLost, topics.REPLICAS)

    @property
    def asked(self) -> list[m.TransferIntent]:
        return self.said(m.TransferIntent, topics.INTENTS)


def claim(*lands: bool) -> m.ClaimDecided:
    """One step: a claim for each, of an intent of its own."""
    names = [CLAIM[:-1] + str(n) if len(lands) > 1 else CLAIM for n in range(len(lands))]
    of = (Selector(Kind.DATASET, DATASET),)
    noted = tuple(m.NotedClaim(n, "", of, is_landing, IntentId(n)) for n, is_landing in zip(names, lands, strict=True))
    return m.ClaimDecided(B, DATASET, 1, "", "worker", 1, Text("worker"), None, Text(""), noted)


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Turns the clock of checks forward, from now on."""

    def turn(days: float) -> None:
        monkeypatch.setattr(checking, "wall_ms", lambda: wall_ms() + int(days * DAY_MS))

    return turn


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something done once, behind the look and before anything is said."""

    def plan(happens: Callable[[], object]) -> None:
        todo, look = [happens], DiskLook.run

        def looked(self: DiskLook, *asked: Any) -> None:
            look(self, *asked)
            if todo:
                todo.pop()()

        monkeypatch.setattr(DiskLook, "run", looked)

    return plan


# lost


def test_a_site_that_is_as_it_says_is_clean(stage: Build) -> None:
    checked = Checked(stage(A, B))
    done = checked()
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "clean")
    assert "40 replicas of T2_B looked for, 40 names on its disk, 0 files read back" in done.stdout
    lines, summary = checked.told("--sample", "100%", "--execute")
    assert (lines, summary["clean"], summary["exit_code"], summary["read"]) == ([], True, 0, 40)
    assert (checked.losses, checked.asked) == ([], [])


def test_a_lost_file_is_said_and_asked_for_and_both_once(stage: Build) -> None:
    checked = Checked(stage(A, B))
    (checked.store / "n07").unlink()
    shown = checked()
    assert shown.exit_code == 1
    assert f"lost: /store/n07 of {BLOCK} is not there, and would be said to be lost; claimed by {CLAIM}" in shown.stdout
    assert shown.stdout.endswith("found: 1 lost, 0 wrong, 0 dark\nnothing was done: use --execute\n")
    assert (checked.losses, checked.asked) == ([], [])

    (line,), summary = checked.told("--execute")
    (lost,), (asked,) = checked.losses, checked.asked
    assert (line["intent"], line["holders"], line["said"]) == (asked.intent, [A], True)
    assert (summary["said"], summary["asked"], summary["exit_code"]) == (1, 1, 1)
    (word,) = (one.words for one in lost.taken)
    assert (lost.site, lost.dataset, lost.lfns, lost.removal_sha256) == (B, DATASET, ("/store/n07",), "")
    assert len(word) == 1
    assert lost.reason.text.startswith("site check, asked by ")
    assert (asked.destinations, asked.repair, asked.selectors) == ((B,), False, (Selector(Kind.FILE, "/store/n07"),))

    # Again: it is held no more, and is owed until it is there; nothing new is said.
    (line,), summary = checked.told("--execute")
    assert (line["before"], line["intent"], summary["owed"], summary["lost"]) == (True, asked.intent, 1, 0)
    assert (summary["said"], summary["asked"]) == (0, 0)
    assert (len(checked.losses), len(checked.asked)) == (1, 1)
    (checked.store / "n07").write_bytes(MANY["n07"])
    say(checked.at, m.FilesHeld(DATASET, B, held(B, n07=MANY["n07"]).files, word="another"))
    assert checked().exit_code == 0


def test_a_check_that_was_killed_between_loss_and_request_is_completed(
    stage: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = Checked(stage(A, B))
    (checked.store / "n07").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(checking.TransferClient, "publish", lambda *_, **__: 1 / 0)
        assert isinstance(
            CliRunner().invoke(root, ["site", "check", B, "--execute", "--state", str(checked.state)]), Result
        )
    assert (len(checked.losses), len(checked.asked)) == (1, 0)
    assert checked("--execute").exit_code == 1
    assert (len(checked.losses), len(checked.asked)) == (1, 1)


def test_a_file_that_nobody_else_holds_is_lost_everywhere(stage: Build) -> None:
    checked = Checked(stage(A, B), held_by_a=False)
    (checked.store / "n07").unlink()
    done = checked("--execute")
    assert f"is lost; claimed by {CLAIM}: lost everywhere, no other site holds it" in done.stdout
    assert (len(checked.losses), checked.asked) == (1, [])
    # Somebody has it after all: the next check asks for it.
    say(checked.at, held(A, n07=MANY["n07"]), site=A)
    (line,), _ = checked.told("--execute")
    assert (line["holders"], len(checked.asked), len(checked.losses)) == ([A], 1, 1)


def test_what_one_check_does_not_ask_for_the_next_one_does(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = Checked(stage(A, B))
    monkeypatch.setattr(checking, "ASKED_MAX", 2)
    for n in range(5):
        (checked.store / f"n{n:02}").unlink()
    for asked in (2, 4, 5, 5):
        lines, summary = checked.told("--execute")
        assert len(checked.asked) == asked
        assert summary["lost"] + summary["owed"] == len(lines) == 5
    assert len(checked.losses) == 1


@pytest.mark.parametrize("sources_of_moves", [0, 1, 2])
def test_what_no_claim_keeps_is_not_asked_for(stage: Build, sources_of_moves: int) -> None:
    checked = Checked(stage(A, B), claimed=False)
    if sources_of_moves:
        say(checked.at, claim(*[False] * sources_of_moves))
    (checked.store / "n07").unlink()
    assert "no claim covers it" in checked("--execute").stdout
    assert (len(checked.losses), checked.asked) == (1, [])
    assert checked("--execute").exit_code == 0


@pytest.mark.parametrize("held_no_more", [False, True])
def test_a_copy_with_other_bytes_is_no_holder_nor_one_that_was_given_up(stage: Build, held_no_more: bool) -> None:
    checked = Checked(stage(A, B), held_by_a=False)
    say(checked.at, held(A, n07=MANY["n07"] if held_no_more else b"other"), site=A)
    if held_no_more:
        say(checked.at, m.FilesLost(DATASET, A, (Lfn("/store/n07"),), WHY), site=A)
    (checked.store / "n07").unlink()
    assert "lost everywhere" in checked("--execute").stdout


@pytest.mark.parametrize("phase", ["asked", "removed"])
def test_while_the_site_asks_for_a_file_or_removes_it_no_loss_of_it_is_said(stage: Build, phase: str) -> None:
    checked = Checked(stage(A, B), claimed=False)
    words = ("w",)
    leaving = m.LeavingFile(Lfn("/store/n07"), 1, adler(MANY["n07"]), "v1", words)
    ask = m.LeaveAsked(B, DATASET, 1, "", "p", 1, Text("x"), None, Text(""), BLOCK, "", (leaving,), (A,))
    say(checked.at, ask)
    why = "its ask no 1 is open and must end first"
    if phase == "removed":
        removed = (m.RemovedFiles((Lfn("/store/n07"),), (m.ReliedOn(A, 1),)),)
        step = m.RemovalDecided(
            *(B, DATASET, 2, m.step_sha256(ask), "p", 1, Text("x"), None, Text(""), 1, removed),
        )
        say(checked.at, step)
        why = "its removal no 2 has not ended"
    (checked.store / "n07").unlink()
    done = checked("--execute")
    assert done.exit_code == 1
    assert f"/store/n07 of {BLOCK} is not there, and is not said to be lost; {why}" in done.stdout
    assert checked.losses == []


def test_in_a_disputed_chain_no_loss_is_said(stage: Build) -> None:
    checked = Checked(stage(A, B))
    say(checked.at, m.ClaimDecided(B, DATASET, 2, "0" * 64, "p", 1, Text("x"), None, Text(""), (), (CLAIM,)))
    (checked.store / "n07").unlink()
    assert "is disputed" in checked("--execute").stdout
    assert checked.losses == []


def test_what_is_given_up_or_registered_anew_during_the_check_is_left(
    stage: Build, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    """A word that came behind the look is not taken back, whenever the loss is said."""
    checked = Checked(stage(A, B))
    for name in ("n07", "n08"):
        (checked.store / name).unlink()
    again = m.FilesHeld(DATASET, B, held(B, n07=MANY["n07"]).files, word="later")

    def happens() -> None:
        (checked.store / "n07").write_bytes(MANY["n07"])
        say(checked.at, again, m.FilesLost(DATASET, B, (Lfn("/store/n08"),), WHY))

    meanwhile(happens)
    done = checked("--execute")
    assert "its words were taken back meanwhile" in done.stdout
    assert "/store/n07" not in done.stdout, "it is there at the second look"
    assert [lost.reason for lost in checked.losses] == [WHY]


def test_a_word_that_comes_behind_the_look_stands(
    stage: Build, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    checked = Checked(stage(A, B))
    (checked.store / "n07").unlink()
    again = m.FilesHeld(DATASET, B, held(B, n07=MANY["n07"]).files, word="later")
    meanwhile(lambda: say(checked.at, again))
    checked("--execute")
    (lost,) = checked.losses
    assert "later" not in lost.taken[0].words
    (checked.store / "n07").write_bytes(MANY["n07"])
    assert checked().exit_code == 0, "it is held by the word that stands"


def test_a_word_of_before_that_is_said_again_holds_nothing(stage: Build) -> None:
    checked = Checked(stage(A, B), claimed=False)
    first = m.FilesHeld(DATASET, B, held(B, more=b"more").files, word="first")
    say(
        checked.at, first, m.FilesLost(DATASET, B, (Lfn("/store/more"),), WHY, taken=(m.TakenWords(("first",)),)), first
    )
    assert checked().exit_code == 0


def test_a_file_is_held_while_some_word_stands_and_a_loss_names_those_alone(stage: Build) -> None:
    checked = Checked(stage(A, B))
    files = held(B, n07=MANY["n07"]).files
    taken = m.FilesLost(DATASET, B, (Lfn("/store/n07"),), WHY, taken=(m.TakenWords(("second",)),))
    say(checked.at, *(m.FilesHeld(DATASET, B, files, word=word) for word in ("second", "third")), taken)
    assert checked().exit_code == 0
    (checked.store / "n07").unlink()
    assert checked("--execute").exit_code == 1
    assert len(checked.losses[-1].taken[0].words) == 2
    assert {"third"} < set(checked.losses[-1].taken[0].words)
    (line,), _ = checked.told()
    assert line["before"], "no word of it stands"


def test_of_a_key_of_a_store_no_loss_is_said(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = Checked(stage(A, B))
    key = f"{BASE}store/key"
    files = (m.HeldFile(Lfn(key), BLOCK, 1, adler(b"x"), ""),)
    say(checked.at, m.FilesHeld(DATASET, B, files, word="key"))
    look = Disks.look

    def gone(self: Disks, site: Site, lfn: str, *asked: Any, **how: Any) -> Look:
        return Look("is not there", gone=True) if lfn == key else look(self, site, lfn, *asked, **how)

    monkeypatch.setattr(Disks, "look", gone)
    assert "it is a key of a store, which has no marker" in checked("--execute").stdout
    assert checked.losses == []


def test_beside_the_claim_of_a_moves_source_another_one_keeps_the_file(stage: Build) -> None:
    checked = Checked(stage(A, B), claimed=False)
    say(checked.at, claim(False, True))
    (checked.store / "n07").unlink()
    (line,), _ = checked.told("--execute")
    assert (line["claim"], len(checked.asked)) == (CLAIM[:-1] + "1", 1)


def test_a_lost_file_that_lies_there_again_is_dark_and_not_asked_for(stage: Build) -> None:
    checked = Checked(stage(A, B), held_by_a=False)
    (checked.store / "n07").unlink()
    checked("--execute")
    (checked.store / "n07").write_bytes(b"somebody's")
    say(checked.at, held(A, n07=MANY["n07"]), site=A)
    (line,), _ = checked.told("--execute")
    assert (line["found"], line["path"], checked.asked) == ("dark", "/store/n07", [])


def test_a_wrong_file_is_told_and_left(stage: Build) -> None:
    checked = Checked(stage(A, B))
    (checked.store / "n07").write_bytes(b"77")
    (checked.store / "n08").write_bytes(b"9")
    done = checked("--execute", "--sample", "100%")
    assert "wrong: /store/n07 has 2 bytes, not 1: `transfer2go file verify /store/n07 --repair`" in done.stdout
    assert "wrong: /store/n08 has adler32" in done.stdout
    assert "wrong: /store/n08" not in checked().stdout, "names and sizes alone"
    assert (done.exit_code, checked.losses) == (1, [])


# dark


def test_a_dark_file_is_set_aside_once_a_check_of_a_week_ago_saw_it(
    stage: Build, days: Callable[[float], None]
) -> None:
    checked = Checked(stage(A, B))
    dark = checked.store / "deep" / "dark one"
    dark.parent.mkdir()
    dark.write_bytes(b"whose?")
    assert "dark: /store/deep/dark one is in no replica" in checked("--execute").stdout
    days(6.9)
    assert "stays until a check after" in checked("--execute").stdout
    days(7.1)
    assert "would be set aside" in checked().stdout
    assert dark.read_bytes() == b"whose?"
    (line,), summary = checked.told("--execute")
    assert (summary["aside"], summary["exit_code"], dark.exists()) == (1, 1, False)
    assert Path(line["aside"]).read_bytes() == b"whose?"
    assert checked().exit_code == 0, "what is set aside is in no walk"


def test_a_dark_file_that_changed_begins_its_week_anew(stage: Build, days: Callable[[float], None]) -> None:
    checked = Checked(stage(A, B))
    dark = checked.store / "dark"
    dark.write_bytes(b"one")
    assert checked().exit_code == 1, "a check that does nothing notes what it saw"
    dark.write_bytes(b"another")
    days(8)
    assert "stays until" in checked("--execute").stdout
    assert dark.exists()


def test_where_much_looks_dark_nothing_is_set_aside(stage: Build, days: Callable[[float], None]) -> None:
    checked = Checked(stage(A, B))
    for n in range(3):
        (checked.store / f"dark{n}").write_bytes(b"")
    checked()
    days(8)
    done = checked("--execute")
    assert done.exit_code == 7
    assert "3 of 43 names look dark, more than 5%: none is set aside" in done.stdout
    assert len(list(checked.store.glob("dark*"))) == 3
    (checked.store / "dark2").unlink()
    assert checked.told("--execute")[1]["aside"] == 2, "2 of 42 are less than 5 %"


def test_what_an_open_transfer_lands_is_not_set_aside(stage: Build, days: Callable[[float], None]) -> None:
    checked = Checked(stage(A, B))
    world = Federation()
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("landing", 5, adler(b"hello")),))
    world.workers[B].say(m.TransferPlanned(manifest.manifest, B, 1, 5, None, (), False, manifest))
    world.mirror()
    checked.at.play(world)
    part = checked.store / f".t2g-{part_tag(manifest.manifest, 0, 1)}.part"
    part.write_bytes(b"hel")
    (checked.store / "landing").write_bytes(b"hello")
    checked()
    days(8)
    assert checked("--execute").exit_code == 0
    assert part.exists()


@pytest.mark.parametrize("how", ["held", "planned"])
def test_what_the_journals_name_while_it_is_moved_comes_back(
    stage: Build, days: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    checked = Checked(stage(A, B))
    dark = checked.store / "dark"
    dark.write_bytes(b"dark")
    checked()
    days(8)
    move = PosixEndpoint.set_aside

    def named(self: PosixEndpoint, *asked: Any) -> Any:
        if how == "held":
            say(checked.at, m.FilesHeld(DATASET, B, held(B, dark=b"dark").files, word="registered"))
        else:
            world = Federation()
            manifest = world.write(world.ask(2, B), (item("dark", 4, adler(b"dark")),))[0]
            world.logs.clear()
            world.workers[B].say(m.TransferPlanned(manifest.manifest, B, 1, 5, None, (), False, manifest))
            checked.at.play(world)
        return move(self, *asked)

    monkeypatch.setattr(PosixEndpoint, "set_aside", named)
    assert "stays, it was named while it was moved, and was brought back" in checked("--execute").stdout
    assert dark.read_bytes() == b"dark"


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_set_aside_and_is_held_after_all_comes_back_and_is_not_lost(
    stage: Build, days: Callable[[float], None], whole: bool
) -> None:
    """Registered while it was moved: the reading began before, and its word came behind the check."""
    checked = Checked(stage(A, B))
    (checked.store / "dark").write_bytes(b"dark")
    checked()
    days(8)
    (line,), _ = checked.told("--execute")
    content = b"dark" if whole else b"mine"
    say(checked.at, m.FilesHeld(DATASET, B, held(B, dark=content).files, word="registered"))
    shown = checked()
    assert "a file of its size lies aside in" in shown.stdout
    assert Path(line["aside"]).exists()
    done = checked("--execute")
    if whole:
        assert "and was brought back" in done.stdout
        assert (checked.store / "dark").read_bytes() == b"dark"
        assert (checked.losses, checked().exit_code) == ([], 0)
    else:
        assert "lost: /store/dark" in done.stdout
        assert (Path(line["aside"]).read_bytes(), (checked.store / "dark").exists()) == (b"dark", False)
        assert len(checked.losses) == 1


def test_what_cannot_be_noted_is_told(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = Checked(stage(A, B))
    (checked.store / "dark").write_bytes(b"")

    def full(*_: Any, **__: Any) -> None:
        raise StorageError("cannot write: the disk is full", failure_class="quota")

    monkeypatch.setattr(PosixEndpoint, "write_own", full)
    done = checked("--execute")
    assert "is not noted, so their week does not begin: cannot write: the disk is full" in done.stdout
    assert done.exit_code == 1


# the place


def test_another_disk_in_its_place_is_not_called_lost(stage: Build) -> None:
    checked = Checked(stage(A, B))
    storage = checked.store.parent
    storage.rename(storage.with_name("away"))
    storage.mkdir()
    for words in ((), ("--execute",)):
        done = checked(*words)
        assert done.exit_code == 5
        assert "the storage of T2_B has no marker, and T2_B default " in done.output
        assert "another disk is mounted there, or none" in done.output
        assert "mount the right disk" in done.output
    (storage / "store").mkdir()
    (storage / "store" / "n00").write_bytes(b"0")
    strange = PosixEndpoint(str(storage))
    strange.write_own(marker.NAME, marker.Marker("T1_A", "default", "0" * 32).packed())
    strange.close()
    done = checked("--execute")
    assert (done.exit_code, "its marker is T1_A default 00000000" in done.output) == (5, True)
    assert checked.losses == []
    repair = ["--site", B, "file", "verify", DATASET, "--repair", "--execute", "--state", str(checked.state)]
    refused = CliRunner().invoke(root, repair)
    assert (refused.exit_code, "this storage is not that of T2_B" in refused.output, checked.losses) == (5, True, [])
    # The audit says so too, and calls nothing missing.
    audited = CliRunner().invoke(root, ["audit", "storage", "--site", B, "--state", str(checked.state)])
    assert (audited.exit_code, "this storage is not that of T2_B" in audited.output) == (5, True)


def test_an_endpoint_of_before_shows_what_it_lacks_and_does_nothing_until_it_is_marked(stage: Build) -> None:
    checked = Checked(stage(A, B), marked=False)
    (checked.store / "n07").unlink()
    shown = checked()
    assert (shown.exit_code, "is not noted" in shown.stdout) == (1, True)
    assert not (checked.store.parent / OWN_DIRECTORY).exists(), "nothing is written to what may be another's"
    done = checked("--execute")
    assert (done.exit_code, checked.losses) == (5, [])
    assert "start a worker of T2_B, which marks it, and check again" in done.output
    checked.mark()
    assert checked("--execute").exit_code == 1
    assert len(checked.losses) == 1


def test_an_empty_disk_that_was_marked_is_not_called_lost(stage: Build) -> None:
    checked = Checked(stage(A, B))
    for path in checked.store.iterdir():
        path.unlink()
    done = checked("--execute")
    assert (done.exit_code, checked.losses) == (5, [])
    assert "no file at all is on the disk of T2_B, which holds 40: none is called lost" in done.output


@pytest.mark.parametrize(
    ("words", "exit_code", "told"),
    [
        (("T9_X",), 3, "T9_X"),
        (("T2_B", "--sample", "0%"), 2, "not a share of the files"),
        (("T1_A",), 5, "the storage of T1_A is out of reach from here"),
    ],
)
def test_what_cannot_be_checked_is_one_line(stage: Build, words: tuple[str, ...], exit_code: int, told: str) -> None:
    checked = Checked(stage(A, B))
    done = checked(*words[1:], site=words[0])
    assert (done.exit_code, told in done.stderr, len(done.stderr.splitlines())) == (exit_code, True, 1), done.output


def test_a_log_out_of_reach_says_nothing(stage: Build) -> None:
    at = stage(A, B)
    checked = Checked(at)
    (checked.store / "n07").unlink()
    at.clusters[B].stop()
    assert checked("--execute").exit_code == 5
