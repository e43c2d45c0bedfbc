"""The catalogue over a temporary RocksDB, without a broker: what it answers after which facts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.core import records as m
from streams.core.names import Adler32, Block, Dataset, Lfn
from streams.core.selectors import Selector, parse
from streams.errors import UsageError
from streams.views import rows
from streams.views.catalogue import Catalogue, CatalogueFile
from streams.views.folding import Changes
from tests.views.journal import DATASET, A, B, C, held, holds, lost


class Folded:
    def __init__(self, path: Path) -> None:
        self.db: Any = rows.open_primary(str(path))
        self.catalogue = Catalogue(self.db)
        self.heard = 0

    def hear(self, *facts: m.FilesHeld | m.FilesLost) -> None:
        changes = Changes(self.db)
        for fact in facts:
            self.heard += 1
            if isinstance(fact, m.FilesHeld):
                changes.hold(fact, m.word_of(fact, m.Origin(fact.site, "w0", "i1", self.heard, 0)))
            else:
                changes.lose(fact)
        changes.write()

    def names(self, *selectors: str, limit: int = 1000) -> list[str]:
        return [f.lfn for f in self.walk(*selectors, limit=limit)]

    def walk(self, *selectors: str, limit: int = 1000) -> list[CatalogueFile]:
        """All pages; a page is never empty but the first, and full but the last."""
        found: list[CatalogueFile] = []
        cursor: str | None = ""
        while cursor is not None:
            page, cursor = self.catalogue.listing(chosen(*selectors), cursor, limit)
            assert len(page) == limit or cursor is None
            found += page
        return found


def chosen(*names: str) -> list[Selector]:
    return [parse(name) for name in names]


@pytest.fixture
def folded(tmp_path: Path) -> Iterator[Folded]:
    made = Folded(tmp_path / "view")
    yield made
    made.db.close()


def other(lfn: str, dataset: str, block: str = "b1", size: int = 10) -> m.HeldFile:
    return m.HeldFile(Lfn(lfn), Block(f"{dataset}#{block}"), size, Adler32("00000001"), "v1")


def test_where_is_by_site_and_knows_versions(folded: Folded) -> None:
    folded.hear(holds(B, held("/store/x", version="vb")), holds(A, held("/store/x", version="va")))
    assert [(r.site, r.version, r.bytes, r.block) for r in folded.catalogue.where(Lfn("/store/x"))] == [
        (A, "va", 10, f"{DATASET}#b1"),
        (B, "vb", 10, f"{DATASET}#b1"),
    ]
    assert folded.catalogue.where(Lfn("/store/x/y")) == folded.catalogue.where(Lfn("/store")) == []


def test_registering_a_changed_file_again_replaces_only_that_sites_replica(folded: Folded) -> None:
    folded.hear(holds(A, held("/store/x")), holds(B, held("/store/x")))
    folded.hear(holds(A, held("/store/x", size=25, adler="0000000f", version="v2")))
    found = {r.site: (r.bytes, r.adler32, r.version) for r in folded.catalogue.where(Lfn("/store/x"))}
    assert found == {A: (25, "0000000f", "v2"), B: (10, "00000001", "v1")}
    (dataset,) = folded.catalogue.datasets()
    assert (dataset.known, dataset.per_site) == ((1, 25), {A: (1, 25), B: (1, 10)})
    (file,) = folded.walk(DATASET)
    assert file.conflict


def test_the_asking_sites_replica_comes_first(folded: Folded) -> None:
    folded.hear(*(holds(site, held("/store/x", adler=f"0000000{n}")) for n, site in enumerate((A, B, C))))
    for site in (A, B, C):
        ((file,), cursor) = folded.catalogue.listing(chosen("/store/x"), prefer=site)
        assert (file.replicas[0].site, cursor, file.conflict) == (site, None, True)
        assert sorted(r.site for r in file.replicas) == [A, B, C]


def test_a_lost_file_stays_known(folded: Folded) -> None:
    folded.hear(holds(A, held("/store/x"), held("/store/y")), lost(A, "/store/x", "/store/never"))
    assert folded.catalogue.where(Lfn("/store/x")) == []
    assert [(f.lfn, len(f.replicas)) for f in folded.walk(DATASET)] == [("/store/x", 0), ("/store/y", 1)]
    found = folded.catalogue.holders(chosen(DATASET))
    assert (found.files, found.bytes, found.per_site, found.unknown) == (2, 20, {A: (1, 10)}, ())
    folded.hear(holds(A, held("/store/x")))
    assert folded.catalogue.holders(chosen(DATASET)).per_site == {A: (2, 20)}


def test_a_file_moves_to_another_block(folded: Folded) -> None:
    folded.hear(holds(A, held("/store/x", "b1"), held("/store/y", "b1")))
    folded.hear(holds(A, held("/store/x", "b2")))
    assert folded.names(f"{DATASET}#b1") == ["/store/y"]
    assert folded.names(f"{DATASET}#b2") == ["/store/x"]
    assert {b.name: b.known for b in folded.catalogue.blocks(DATASET)} == {
        f"{DATASET}#b1": (1, 10),
        f"{DATASET}#b2": (1, 10),
    }
    folded.hear(holds(A, held("/store/x", "b1")))
    assert [b.name for b in folded.catalogue.blocks(DATASET)] == [f"{DATASET}#b1"]


def test_sites_that_disagree_on_the_block_list_it_once(folded: Folded) -> None:
    folded.hear(holds(A, held("/store/x", "b2")), holds(B, held("/store/x", "b1")))
    (file,) = folded.walk(DATASET)
    assert (file.block, [r.site for r in file.replicas]) == (f"{DATASET}#b1", [A, B])
    assert folded.names(f"{DATASET}#b1") == folded.names(f"{DATASET}#b2") == ["/store/x"]
    assert folded.names(f"{DATASET}#b2", f"{DATASET}#b1") == ["/store/x"]
    assert folded.catalogue.holders(chosen(DATASET)).files == 1


def test_neighbours_in_name_are_not_mixed(folded: Folded) -> None:
    near = [f"{DATASET}-x", f"{DATASET}x", DATASET[:-1]]
    folded.hear(*(holds(A, other(f"/store/{n}", name)) for n, name in enumerate(near)))
    folded.hear(holds(A, held("/store/mine", "b"), held("/store/mine2", "b-2"), held("/store/mine22", "b2")))
    assert folded.names(DATASET) == ["/store/mine", "/store/mine2", "/store/mine22"]
    assert folded.names(f"{DATASET}#b") == ["/store/mine"]
    assert [d.name for d in folded.catalogue.datasets(DATASET)] == sorted([DATASET, *near[:2]])
    assert len(list(folded.catalogue.datasets("/Nobody"))) == 0


def test_listing_pages_through_everything_once_in_order(folded: Folded) -> None:
    for block in range(5):
        folded.hear(holds(A, *(held(f"/store/{block}/{n:03}", f"b{block}") for n in range(41))))
    wanted = [f"/store/{block}/{n:03}" for block in range(5) for n in range(41)]
    for limit in (1, 7, 41, 82, 204, 205, 206):
        assert folded.names(DATASET, limit=limit) == wanted
    three = [f"{DATASET}#b3", "/store/4/007", f"{DATASET}#b1", "/store/none", "/store/3/001"]
    mixed = [*wanted[123:164], *wanted[41:82], "/store/4/007", "/store/none"]
    for limit in (1, 40, 41, 42, 83, 84, 85):
        assert folded.names(*three, limit=limit) == mixed


def test_a_cursor_stays_good_while_files_come_and_go(folded: Folded) -> None:
    folded.hear(holds(A, *(held(f"/store/{n}") for n in range(0, 10, 2))))
    page, cursor = folded.catalogue.listing(chosen(DATASET), "", 2)
    assert [f.lfn for f in page] == ["/store/0", "/store/2"]
    assert cursor is not None
    folded.hear(holds(A, held("/store/1"), held("/store/5"), held("/store/2", "b0")))
    page, rest = folded.catalogue.listing(chosen(DATASET), cursor, 10)
    assert [f.lfn for f in page] == ["/store/4", "/store/5", "/store/6", "/store/8"]
    assert rest is None


@pytest.mark.parametrize("cursor", ["x", "0", "7 0", "-1 a b", "0 a b c", "1 x", "\n"])
def test_a_strange_cursor_is_refused(folded: Folded, cursor: str) -> None:
    with pytest.raises(UsageError):
        folded.catalogue.listing(chosen(DATASET), cursor)


def test_an_unknown_file_is_listed_without_replicas(folded: Folded) -> None:
    (file,) = folded.walk("/store/none")
    assert (file.dataset, file.block, file.replicas) == (None, None, ())
    assert folded.names("/No/Such/DATASET", "/No/Such/DATASET#b") == []


def test_holders_count_each_file_once(folded: Folded) -> None:
    folded.hear(holds(A, *(held(f"/store/{n}", f"b{n % 3}") for n in range(9))))
    folded.hear(holds(B, *(held(f"/store/{n}", f"b{n % 3}") for n in range(4))))
    folded.hear(holds(B, other("/store/9", "/P/P/OTHER")))
    everything = chosen(
        f"{DATASET}#b1", DATASET, DATASET, "/store/1", "/store/9", "/store/none", "/P/P/NONE", "/P/P/OTHER#x"
    )
    found = folded.catalogue.holders(everything)
    assert (found.files, found.bytes) == (10, 100)
    assert found.per_site == {A: (9, 90), B: (5, 50)}
    assert found.unknown == ("/P/P/NONE", "/P/P/OTHER#x", "/store/none")
    found = folded.catalogue.holders(chosen(f"{DATASET}#b1", "/store/1", "/store/0"))
    assert (found.files, found.per_site) == (4, {A: (4, 40), B: (2, 20)})


def test_one_file_in_two_datasets(folded: Folded) -> None:
    folded.hear(holds(A, held("/store/x")), holds(A, other("/store/x", "/P/P/OTHER")))
    assert len(folded.catalogue.where(Lfn("/store/x"))) == 2
    (file,) = folded.walk("/store/x")
    assert [r.site for r in file.replicas] == [A]
    assert folded.names("/P/P/OTHER", DATASET) == folded.names(DATASET) == ["/store/x"]
    folded.hear(lost(A, "/store/x", dataset=Dataset("/P/P/OTHER")))
    assert [r.dataset for r in folded.catalogue.where(Lfn("/store/x"))] == [DATASET]


def test_a_batch_sees_its_own_changes(folded: Folded) -> None:
    folded.hear(
        holds(A, held("/store/x", "b1")),
        holds(A, held("/store/x", "b2")),
        lost(A, "/store/x"),
        holds(A, held("/store/x", "b3", size=7)),
        holds(A, held("/store/x", "b3", size=7)),
    )
    (block,) = folded.catalogue.blocks(DATASET)
    assert (block.name, block.known, block.per_site) == (f"{DATASET}#b3", (1, 7), {A: (1, 7)})
