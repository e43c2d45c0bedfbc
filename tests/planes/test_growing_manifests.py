"""Manifests of open intents, from a real catalogue that goes on growing: new files once each, however often it dies."""

from __future__ import annotations

import itertools
import random
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streams import wire
from streams.core.commands import WriteManifests
from streams.core.manifest import digest
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site, Text
from streams.core.policy import Policy
from streams.core.records import FilesHeld, FilesLost, HeldFile, ManifestWritten, Message, TransferIntent
from streams.core.selectors import parse
from streams.errors import Temporary
from streams.planes.inventory import open_intents
from streams.planes.inventory.manifest_writer import ManifestWriter
from streams.planes.inventory.open_intents import UNHEARD_S
from streams.planes.source.open_files import OpenFileCache
from streams.storage import open_endpoint
from streams.views import rows
from streams.views.catalogue import Catalogue
from streams.views.folding import Changes
from tests.planes.stage import A, B

DATASET = Dataset("/Growing/Here/RAW")
INTENT = IntentId("T1_A.00000000-0000-0000-0000-000000000007")
WORDS = itertools.count()


class Desk:
    """The view's database, the writer over a secondary of it, its journal, and the worker that hears and tells."""

    def __init__(self, root: Path, policy: Policy | None = None) -> None:
        self.root, self.policy = root, policy or Policy(manifest_bytes=10_000, look_s=1.0)
        self.db: Any = rows.open_primary(str(root / "view"))
        self.journal: list[ManifestWritten] = []
        self.heard: list[ManifestWritten] = []
        self.body = TransferIntent(INTENT, Text("me"), (parse(DATASET),), (B,), open=True)
        self.now_s, self.now_ms = 100.0, 1_000_000
        self.closing = self.lossy = False
        self.replays = self.starts = 0
        self.start()

    def start(self) -> None:
        """Another plane: it remembers nothing."""
        self.starts += 1
        scratch = self.root / f"scratch-{self.starts}"
        scratch.mkdir()
        self.writer = ManifestWriter(
            A,
            self.policy,
            lambda: Catalogue.open_secondary(str(self.root / "view"), str(scratch)),
            self._publish,
            lambda: open_endpoint(f"file://{self.root / 'storage'}"),
            256 * 1024,
            OpenFileCache(),
            self._replayed,
            lambda: self.now_s,
        )
        self.writer.growing._now_ms = lambda: self.now_ms

    def _publish(self, message: Message) -> None:
        wire.encode(message)
        assert isinstance(message, ManifestWritten)
        if not self.lossy:
            self.journal.append(message)

    def _replayed(self, intents: Collection[IntentId]) -> Iterator[ManifestWritten]:
        self.replays += 1
        return iter([one for one in self.journal if one.intent in intents])

    def hold(self, *lfns: str, site: Site = A, block: str = "b1", size: int = 10) -> None:
        changes = Changes(self.db)
        files = tuple(
            HeldFile(Lfn(lfn), Block(f"{DATASET}#{block}"), size, Adler32("00000001"), f"v-{site}") for lfn in lfns
        )
        changes.hold(FilesHeld(DATASET, site, files), str(next(WORDS)))
        changes.write()

    def hold_zip(self, lfn: str, members: Collection[str]) -> None:
        """A real archive in the storage, registered."""
        path = self.root / "storage" / lfn[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name in members:
                archive.writestr(name, name)
        with open_endpoint(f"file://{self.root / 'storage'}") as endpoint:
            stat = endpoint.stat(lfn)
        changes = Changes(self.db)
        held = HeldFile(Lfn(lfn), Block(f"{DATASET}#b1"), stat.bytes, Adler32("00000001"), stat.version)
        changes.hold(FilesHeld(DATASET, A, (held,)), str(next(WORDS)))
        changes.write()

    def lose(self, *lfns: str, site: Site = A) -> None:
        changes = Changes(self.db)
        changes.lose(FilesLost(DATASET, site, tuple(map(Lfn, lfns)), None))  # type: ignore[arg-type]
        changes.write()

    @property
    def command(self) -> WriteManifests:
        last = self.heard[-1] if self.heard else None
        place = (0, "", "") if last is None else (last.no + 1, digest(last), last.cursor)
        return WriteManifests(self.body, 0, *place, closing=self.closing)

    def heard_command(self, no: int) -> WriteManifests:
        """What a worker tells that has only heard so many."""
        last = self.heard[no - 1] if no else None
        place = (0, "", "") if last is None else (last.no + 1, digest(last), last.cursor)
        return WriteManifests(self.body, 0, *place)

    def hear(self) -> None:
        """The worker folds its journal: of each number, the first that continues the chain counts."""
        for one in [one for one in self.journal if one.intent == INTENT]:
            want = self.command
            if (one.no, one.prev_sha256) == (want.no, want.prev_sha256) and not (self.heard and self.heard[-1].last):
                self.heard.append(one)

    def turn(self, seconds: float = 1.0) -> int:
        """Time passes, the worker tells what it knows, and the plane looks until it has nothing to do."""
        self.now_s += seconds
        self.hear()
        self._tell()
        written = 0
        while (idle_s := self.writer.growing.idle_s()) is not None and idle_s == 0:
            written += (now := self.writer.growing.look())
            self.hear()
            if now:
                self._tell()
        return written

    def _tell(self) -> None:
        if not (self.heard and self.heard[-1].last):
            self.writer.write(self.command)

    def checked(self) -> list[str]:
        """LFNs of the chain that counts: chained, none twice, and nothing after the last."""
        for before, after in itertools.pairwise(self.heard):
            assert (after.no, after.prev_sha256) == (before.no + 1, digest(before))
            assert not before.last
        lfns = [str(item.lfn) for one in self.heard for item in one.items]
        assert len(lfns) == len(set(lfns)), "a file is in two manifests"
        return lfns


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield (one := Desk(tmp_path))
    one.db.close()


def names(count: int, start: int = 0) -> list[str]:
    return [f"/store/growing/{n:05}.root" for n in range(start, start + count)]


def test_what_comes_later_under_smaller_names_is_in_the_next_manifest(desk: Desk) -> None:
    desk.hold("/store/growing/m", "/store/growing/n")
    assert desk.turn() == 1
    desk.hold("/store/growing/a", block="b0")
    desk.hold("/store/growing/b", "/store/growing/z")
    assert desk.turn() == 1
    assert desk.checked() == [f"/store/growing/{n}" for n in "mnabz"]
    assert not desk.heard[-1].last


def test_a_selection_of_nothing_waits_and_takes_what_comes(desk: Desk) -> None:
    assert [desk.turn() for _ in range(3)] == [0, 0, 0]
    desk.hold(*names(3))
    assert desk.turn() == 1
    assert desk.checked() == names(3)


def test_nothing_is_listed_while_the_totals_stay_as_they_are(desk: Desk) -> None:
    for block in range(50):
        desk.hold(*names(2, 10 * block), block=f"b{block}")
    desk.turn()
    listed = desk.writer.growing.listings
    assert listed == 50
    desk.hold(*names(2), site=B, block="b0")  # its copies arrive: nothing new
    assert [desk.turn() for _ in range(5)] == [0] * 5
    assert desk.writer.growing.listings == listed
    desk.hold(*names(1, 9_000), block="b7")
    assert desk.turn() == 1
    assert desk.writer.growing.listings == listed + 1, "only the block that changed is listed"
    assert len(desk.checked()) == 101


def test_blocks_of_few_files_share_manifests(desk: Desk) -> None:
    for block in range(300):
        desk.hold(*names(5, 10 * block), block=f"b{block:03}", size=1)
    desk.turn()
    assert [len(one.items) for one in desk.heard] == [1000, 500]


def test_names_of_files_are_forgotten_with_the_intent_that_took_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_intents, "SPARE_MAX", 3)
    other = replace(desk.body, intent=IntentId("T1_A.00000000-0000-0000-0000-000000000008"))
    desk.body = replace(desk.body, selectors=(parse(f"{DATASET}#late"),))
    desk.hold(*names(50))
    desk.hold(*names(3, 100), block="late")
    desk.writer.write(WriteManifests(other, 0, 0, "", ""))
    desk.turn()
    desk.turn()
    growing = desk.writer.growing
    assert len(growing._numbers) == 53
    desk.turn(1000.0)
    assert len(growing._numbers) == 3
    desk.hold(*names(2, 98), block="late")
    assert desk.turn() == 1
    assert desk.checked() == [*names(3, 100), *names(2, 98)]
    assert len(growing._numbers) == 5


def test_looks_keep_their_distance(desk: Desk) -> None:
    desk.turn()
    desk.hold(*names(1))
    assert desk.turn(0.4) == 0, "not yet"
    assert desk.writer.growing.idle_s() == pytest.approx(0.6)
    assert desk.turn(0.6) == 1


def test_what_takes_long_to_write_does_not_put_off_the_next_look_and_what_takes_long_to_list_does(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(act: Any, seconds: float) -> Any:
        def slowly(*args: Any, **named: Any) -> Any:
            desk.now_s += seconds
            return act(*args, **named)

        return slowly

    monkeypatch.setattr(desk.writer, "items", slow(desk.writer.items, 3.0))
    desk.hold(*names(1))
    desk.turn()
    assert desk.writer.growing.idle_s() == pytest.approx(1.0)
    monkeypatch.setattr(Catalogue, "listing", slow(Catalogue.listing, 0.8))
    desk.hold(*names(1, 1))
    desk.turn()
    assert desk.writer.growing.idle_s() == pytest.approx(3.2)


@pytest.mark.parametrize("lost", [False, True], ids=["in the journal", "lost on its way"])
def test_a_writer_that_died_behind_a_manifest_goes_on_where_the_chain_is(desk: Desk, lost: bool) -> None:
    desk.hold(*names(3))
    desk.turn()
    desk.hold(*names(3, 10))
    desk.now_s += 1
    desk.lossy = lost
    desk.writer.write(desk.command)
    assert desk.writer.growing.look() == 1, "written, and the worker has not heard it"
    desk.lossy = False
    desk.start()
    desk.hold("/store/growing/00000", *names(1, 5))
    desk.turn()
    desk.turn()
    assert desk.replays >= 1
    assert sorted(desk.checked()) == sorted([*names(3), *names(3, 10), "/store/growing/00000", *names(1, 5)])


def test_a_manifest_that_was_never_heard_is_written_again(desk: Desk) -> None:
    desk.hold(*names(3))
    desk.turn()
    desk.hold(*names(3, 10))
    desk.lossy = True
    desk.turn()
    desk.lossy = False
    assert desk.turn(1) == 0
    desk.turn(UNHEARD_S)
    assert desk.checked() == [*names(3), *names(3, 10)]


def test_two_writers_of_one_chain_write_each_file_once(desk: Desk) -> None:
    """A worker that lost its partition and has not noticed: its plane goes on for a while."""
    desk.hold(*names(3))
    desk.turn()
    old = desk.writer
    desk.start()
    desk.turn()
    desk.hold(*names(3, 10))
    old.write(desk.command)
    desk.now_s += 1
    assert old.growing.look() == 1
    desk.hold(*names(3, 20))
    desk.now_s += 1
    assert desk.writer.growing.look() == 1, "a rival of the same number, of more files"
    assert len({one.no for one in desk.journal}) == len(desk.journal) - 1
    desk.hear()
    desk.turn(UNHEARD_S)
    desk.turn()
    assert sorted(desk.checked()) == sorted([*names(3), *names(3, 10), *names(3, 20)])
    old.write(desk.heard_command(0))
    desk.now_s += 1
    old.growing.look()
    desk.turn()
    assert len(desk.checked()) == 9


def test_closing_takes_what_is_there_and_ends(desk: Desk) -> None:
    desk.hold(*names(3))
    desk.turn()
    desk.hold(*names(2, 10))
    desk.closing = True
    desk.turn()
    assert desk.checked() == [*names(3), *names(2, 10)]
    assert desk.heard[-1].last
    desk.hold(*names(2, 20))
    assert desk.turn() == 0


def test_closing_what_has_taken_everything_is_one_empty_last_manifest(desk: Desk) -> None:
    desk.hold(*names(3))
    desk.turn()
    desk.closing = True
    assert desk.turn() == 1
    assert desk.heard[-1].last
    assert desk.heard[-1].items == ()


def test_closing_lists_what_moved_behind_equal_totals(desk: Desk) -> None:
    desk.hold(*names(2), block="b1")
    desk.turn()
    listed = desk.writer.growing.listings
    changes = Changes(desk.db)
    one, two = names(1)[0], names(1, 50)[0]
    for lfn, block in ((one, "b2"), (two, "b1")):
        held = HeldFile(Lfn(lfn), Block(f"{DATASET}#{block}"), 10, Adler32("00000001"), "")
        changes.hold(FilesHeld(DATASET, A, (held,)), str(next(WORDS)))
    changes.write()
    desk.closing = True
    desk.turn()
    assert desk.writer.growing.listings > listed
    assert sorted(desk.checked()) == sorted([*names(2), two])


def test_so_many_items_and_no_more(desk: Desk) -> None:
    desk.body = replace(desk.body, until_items=5)
    desk.hold(*names(3))
    desk.turn()
    assert not desk.heard[-1].last
    desk.hold(*names(4, 10))
    desk.start()
    desk.turn()
    assert len(desk.checked()) == 5
    assert desk.heard[-1].last


def test_until_a_time_it_looks_and_past_it_only_to_close(desk: Desk) -> None:
    desk.body = replace(desk.body, until_ms=desk.now_ms + 10)
    desk.hold(*names(1))
    desk.turn()
    desk.now_ms += 10
    desk.hold(*names(1, 1))
    assert desk.turn() == 0
    desk.closing = True
    assert desk.turn() == 1
    assert desk.checked() == names(2)


def test_files_by_their_names_are_waited_for(desk: Desk) -> None:
    one, two = names(2)
    desk.body = replace(desk.body, selectors=(parse(one), parse(two)))
    assert desk.turn() == 0
    desk.hold(two)
    assert desk.turn() == 1
    assert desk.checked() == [two]
    desk.closing = True
    desk.turn()
    (item,) = desk.heard[-1].items
    assert item.lfn == one
    assert item.reason is not None


def test_what_no_site_holds_is_waited_for_and_fails_only_at_the_end(desk: Desk) -> None:
    one, two, three = names(3)
    desk.hold(one, two, three)
    desk.lose(two, three)
    desk.turn()
    assert desk.checked() == [one]
    desk.hold(two, site=B)
    desk.turn()
    assert desk.checked() == [one, two]
    listed = desk.writer.growing.listings
    desk.turn()
    assert desk.writer.growing.listings == listed
    desk.closing = True
    desk.turn()
    (item,) = desk.heard[-1].items
    assert item.lfn == three
    assert item.reason is not None
    assert desk.heard[-1].last


def test_an_intent_told_of_no_more_is_left(desk: Desk) -> None:
    desk.turn()
    desk.hold(*names(1))
    desk.now_s += 4 * desk.policy.renew_s
    assert desk.writer.growing.look() == 0
    assert desk.writer.growing.idle_s() is None


def test_a_catalogue_that_is_not_there_yet_is_asked_again(tmp_path: Path, desk: Desk) -> None:
    def away() -> Any:
        raise Temporary("the worker's view is not there yet")

    there, desk.writer._open_catalogue = desk.writer._open_catalogue, away
    desk.hold(*names(1))
    assert desk.turn() == 0
    assert desk.writer.growing.idle_s() == pytest.approx(desk.policy.look_s), "no busy loop"
    desk.writer._open_catalogue = there
    assert desk.turn() == 1


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_each_file_is_in_one_manifest(desk: Desk, seed: int) -> None:
    chance = random.Random(seed)
    desk.policy = replace(desk.policy, manifest_bytes=50)
    desk.start()
    left = names(60)
    chance.shuffle(left)
    held: set[str] = set()
    while left:
        for _ in range(chance.randrange(1, 8)):
            if left:
                held.add(lfn := left.pop())
                desk.hold(lfn, block=f"b{chance.randrange(3)}")
        match chance.randrange(8):
            case 0:
                desk.start()
            case 1:
                desk.lossy = True
                desk.turn()
                desk.lossy = False
                desk.start() if chance.random() < 0.5 else desk.turn(UNHEARD_S)
            case 2:
                desk.now_s += 1
                desk.writer.write(desk.command)
                desk.writer.growing.look()
                desk.start()
            case 3 if desk.heard:
                desk.writer.write(desk.heard_command(chance.randrange(len(desk.heard))))
            case _:
                desk.turn()
    desk.closing = True
    for _ in range(4):
        desk.turn(UNHEARD_S)
    assert set(desk.checked()) == held
    assert desk.heard[-1].last


def test_objects_of_files_that_come_later_are_items_once_each_whatever_dies_between(desk: Desk) -> None:
    """More objects than a manifest takes; the plane dies when the first manifest of them is in the journal."""
    desk.body = replace(desk.body, selection="objects:m/*")
    members = [f"m/{n:04}" for n in range(1200)]
    desk.hold_zip("/store/b.zip", [*members, "other"])
    assert desk.turn() == 3
    del desk.journal[1:], desk.heard[1:]
    desk.start()
    desk.turn(UNHEARD_S + 1)
    desk.hold_zip("/store/a.zip", ["m/late"])
    desk.turn(UNHEARD_S + 1)
    desk.closing = True
    desk.turn(UNHEARD_S + 1)
    found = [(item.lfn, item.selection) for one in desk.heard for item in one.items]
    wanted = [("/store/b.zip", f"objects:{name}") for name in members] + [("/store/a.zip", "objects:m/late")]
    assert sorted(found) == sorted(wanted)
    assert desk.heard[-1].last
