"""Manifests written from a real catalogue, opened as a secondary while its writer goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streams import wire
from streams.core.commands import WriteManifests
from streams.core.manifest import Manifest
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site, Text
from streams.core.policy import Policy
from streams.core.records import FilesHeld, FilesLost, HeldFile, ManifestWritten, Message, TransferIntent
from streams.core.selectors import Selector, parse
from streams.planes.inventory.manifest_writer import MANIFESTS_MAX, ManifestWriter
from streams.planes.source.open_files import OpenFileCache
from streams.views import rows
from streams.views.catalogue import Catalogue
from streams.views.folding import Changes
from tests.planes.stage import A, B

DATASET = Dataset("/Listed/Here/RAW")
BLOCK = Block(f"{DATASET}#b1")
INTENT = IntentId("T1_A.00000000-0000-0000-0000-000000000001")
WORDS = itertools.count()


class Desk:
    """The view's database, the writer over a secondary of it, and what the writer published."""

    def __init__(self, root: Path, policy: Policy) -> None:
        self.db: Any = rows.open_primary(str(root / "view"))
        self.told: list[ManifestWritten] = []
        self.now_s = 0.0
        scratch = root / "scratch"
        scratch.mkdir()
        self.writer = ManifestWriter(
            A,
            policy,
            lambda: Catalogue.open_secondary(str(root / "view"), str(scratch)),
            self._tell,
            lambda: pytest.fail("whole files are not opened"),
            256 * 1024,
            OpenFileCache(),
            lambda intents: (),
            lambda: self.now_s,
        )

    def _tell(self, message: Message) -> None:
        wire.encode(message)
        assert isinstance(message, ManifestWritten)
        self.told.append(message)

    def hold(self, site: Site, lfns: list[str], size: int = 10) -> None:
        changes = Changes(self.db)
        files = tuple(HeldFile(Lfn(lfn), BLOCK, size, Adler32("00000001"), f"v-{site}") for lfn in lfns)
        changes.hold(FilesHeld(DATASET, site, files), str(next(WORDS)))
        changes.write()

    def lose(self, site: Site, lfns: list[str]) -> None:
        changes = Changes(self.db)
        changes.lose(FilesLost(DATASET, site, tuple(map(Lfn, lfns)), None))  # type: ignore[arg-type]
        changes.write()

    def write(self, *names: str, after: ManifestWritten | None = None) -> int:
        body = TransferIntent(INTENT, Text("me"), tuple(map(parse, names)), (B,))
        command = WriteManifests(body, 0, 0, "", "")
        if after is not None:
            command = replace(command, no=after.no + 1, prev_sha256=Manifest(after).sha256, cursor=after.cursor)
        return self.writer.write(command)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield (one := Desk(tmp_path, Policy(manifest_bytes=10_000)))
    one.db.close()


def names(count: int, start: int = 0) -> list[str]:
    return [f"/store/listed/{n:05}.root" for n in range(start, start + count)]


def chained(told: list[ManifestWritten]) -> None:
    assert [one.no for one in told] == list(range(len(told)))
    assert told[0].prev_sha256 == ""
    for before, after in itertools.pairwise(told):
        assert after.prev_sha256 == Manifest(before).sha256
    assert [one.last for one in told] == [False] * (len(told) - 1) + [True]


def test_a_dataset_is_cut_by_number_of_items_and_chained(desk: Desk) -> None:
    desk.hold(A, names(2345), size=1)
    assert desk.write(DATASET) == 3
    chained(desk.told)
    assert [len(one.items) for one in desk.told] == [1000, 1000, 345]
    assert [item.lfn for one in desk.told for item in one.items] == names(2345)
    first = desk.told[0].items[0]
    assert (first.holder, first.version, first.target, first.length) == (A, f"v-{A}", first.lfn, 1)


def test_a_manifest_ends_before_it_is_too_long(desk: Desk) -> None:
    desk.hold(A, names(7), size=4000)
    desk.hold(A, ["/store/listed/big"], size=50_000)
    desk.write(DATASET)
    chained(desk.told)
    assert [[item.length for item in one.items] for one in desk.told] == [
        [4000] * 2,
        [4000] * 2,
        [4000] * 2,
        [4000],
        [50_000],
    ]


def test_manifests_of_very_long_names_still_fit_a_record(desk: Desk) -> None:
    lfns = [f"/store/{'long' * 60}/{'name' * 60}/{n}" for n in range(1000)]
    desk.hold(A, lfns, size=1)
    desk.write(DATASET)
    chained(desk.told)
    assert len(desk.told) == 3
    assert sum(len(one.items) for one in desk.told) == 1000


def test_files_held_elsewhere_name_their_holder_and_lost_ones_their_reason(desk: Desk) -> None:
    desk.hold(A, names(1))
    desk.hold(B, names(3))
    desk.lose(B, names(1, 2))
    desk.write(DATASET, "/store/never/heard/of")
    (told,) = desk.told
    own, theirs, lost, unknown = told.items
    assert (own.holder, own.version) == (A, f"v-{A}")
    assert (theirs.holder, theirs.version) == (B, "")
    for nobody in (lost, unknown):
        assert nobody.holder is None
        assert nobody.reason is not None
        assert nobody.reason.text == "no site holds it"
        assert nobody.length == 0
    assert told.last


def test_a_successor_continues_behind_the_cursor(desk: Desk, tmp_path: Path) -> None:
    desk.hold(A, names(50), size=4000)
    desk.write(DATASET)
    whole = desk.told
    (tmp_path / "again").mkdir()
    again = Desk(tmp_path / "again", Policy(manifest_bytes=10_000))
    again.hold(A, names(50), size=4000)
    again.write(DATASET, after=whole[3])
    assert again.told == whole[4:]
    again.db.close()


def test_one_command_writes_so_many_and_waits_to_be_asked(desk: Desk) -> None:
    desk.hold(A, names(200), size=9000)
    assert desk.write(DATASET) == MANIFESTS_MAX
    assert not desk.told[-1].last
    while not desk.told[-1].last:
        desk.write(DATASET, after=desk.told[-1])
    chained(desk.told)
    assert len(desk.told) == 200


def test_a_command_asked_again_at_once_writes_nothing_and_later_the_same(desk: Desk) -> None:
    desk.hold(A, names(3))
    desk.write(DATASET)
    assert desk.write(DATASET) == 0
    desk.now_s = 6.0
    assert desk.write(DATASET) == 1
    assert desk.told[0] == desk.told[1]


def test_what_the_view_learns_later_is_seen(desk: Desk) -> None:
    desk.hold(A, names(1))
    desk.write(DATASET)
    desk.hold(A, names(1, 1))
    desk.now_s = 6.0
    desk.write(DATASET)
    assert [len(one.items) for one in desk.told] == [1, 2]


def test_a_selection_of_nothing_is_one_empty_last_manifest(desk: Desk) -> None:
    assert desk.write("/No/Such/DATASET") == 1
    (told,) = desk.told
    assert told.items == ()
    assert told.last
    assert Selector is not None


def test_a_file_that_the_gate_refuses_fails_alone(desk: Desk) -> None:
    desk.hold(A, names(5), size=1)
    changes = Changes(desk.db)
    odd = HeldFile(Lfn("/store/listed/00002.root"), BLOCK, 1, Adler32("00000001"), "naïve")
    changes.hold(FilesHeld(DATASET, A, (odd,)), str(next(WORDS)))
    changes.write()
    desk.write(DATASET)
    chained(desk.told)
    (one,) = desk.told
    assert [item.lfn for item in one.items] == names(5)
    assert [item.lfn for item in one.items if item.reason is not None] == [odd.lfn]


def test_a_listing_that_fails_the_same_way_twice_ends_its_intent(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.hold(A, names(5), size=1)

    def broken(*_: object) -> None:
        raise ValueError("no listing for this one")

    monkeypatch.setattr(desk.writer, "_page", broken)
    with pytest.raises(ValueError, match="no listing"):
        desk.write(DATASET)
    assert desk.told == []
    assert desk.write(DATASET) == 1
    (end,) = desk.told
    assert end.last
    assert end.items[0].reason is not None
    assert "no listing for this one" in end.items[0].reason.text
