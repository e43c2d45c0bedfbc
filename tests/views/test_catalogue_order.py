"""Any order between sites, any repeated tail, any cut into batches: the same rows, and totals that are true of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core.names import Adler32, Block, Dataset, Lfn, Site
from streams.views import rows
from streams.views.folding import Changes
from tests.views.journal import lost

Fact = tuple[m.FilesHeld | m.FilesLost, str]
"""What is said, and of a FilesHeld its word: the same again when a mirror repeats it."""
SITES = [Site("T1_A"), Site("T1_B"), Site("T1_C")]
DATASETS = [Dataset("/P/P/ONE"), Dataset("/P/P/TWO")]
LFNS = [Lfn(f"/store/{n}") for n in range(4)]

held_files = st.builds(
    lambda lfn, block, size, version: (lfn, block, size, version),
    st.sampled_from(LFNS),
    st.sampled_from(["b1", "b2"]),
    st.integers(0, 3),
    st.sampled_from(["v1", "v2"]),
)


@st.composite
def partitions(draw: st.DrawFn) -> list[list[Fact]]:
    """What each (site, dataset) said, in its order: the streams that Kafka and mirrors keep in order."""
    out: list[list[Fact]] = []
    for site in SITES:
        for dataset in DATASETS:
            said: list[Fact] = []
            for n in range(draw(st.integers(0, 4))):
                if draw(st.booleans()):
                    files = draw(st.lists(held_files, min_size=1, max_size=3, unique_by=lambda f: f[0]))
                    held = tuple(
                        m.HeldFile(lfn, Block(f"{dataset}#{b}"), size, Adler32(f"{size:08x}"), v)
                        for lfn, b, size, v in files
                    )
                    # A zombie says once more what was said before, though it may be taken back.
                    word = draw(st.sampled_from([str(n), "0"]))
                    said.append((m.FilesHeld(dataset, site, held, word=word), word))
                else:
                    # A loss that names words names some that its partition has said of each file before it.
                    told = {lfn: [w for held, w in said if lfn in names_of(held)] for lfn in LFNS}
                    named = draw(st.booleans()) and any(told.values())
                    known = [lfn for lfn in LFNS if told[lfn]] if named else LFNS
                    lfns = draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
                    taken = tuple(m.TakenWords((draw(st.sampled_from(told[lfn])),)) for lfn in lfns) if named else ()
                    said.append((replace(lost(site, *lfns, dataset=dataset), taken=taken), ""))
            out.append(said)
    return out


def names_of(fact: m.FilesHeld | m.FilesLost) -> set[str]:
    return {file.lfn for file in fact.files} if isinstance(fact, m.FilesHeld) else set()


@st.composite
def interleaved(draw: st.DrawFn, streams: list[list[Fact]], *, repeats: bool) -> list[Fact]:
    """One order that keeps each stream's; with repeats, a mirror may begin again from an earlier place of a stream."""
    at = [0] * len(streams)
    again = 3 if repeats else 0
    out: list[Fact] = []
    while open_ := [n for n, said in enumerate(streams) if at[n] < len(said)]:
        n = draw(st.sampled_from(open_))
        out.append(streams[n][at[n]])
        at[n] += 1
        if again and draw(st.booleans()):
            again -= 1
            at[n] = draw(st.integers(0, at[n] - 1))
    return out


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made: Any = rows.open_primary(str(tmp_path_factory.mktemp("order") / "view"))
    yield made
    made.close()


def folded(db: Any, facts: list[Fact], cuts: list[bool]) -> dict[bytes, bytes]:
    """All rows after these facts, written in batches that end where `cuts` says."""
    for key in list(db.keys()):
        del db[key]
    changes = Changes(db)
    for (fact, word), cut in zip(facts, cuts, strict=True):
        changes.hold(fact, word) if isinstance(fact, m.FilesHeld) else changes.lose(fact)
        if cut:
            changes.write()
            changes = Changes(db)
    changes.write()
    return dict(db.items())


def expected(streams: list[list[Fact]]) -> dict[bytes, bytes]:
    """The rows by definition: of each (site, dataset) the last word on each file that stands, and sums over them."""
    last: dict[str, dict[tuple[str, str], rows.Entry]] = defaultdict(dict)
    for said in streams:
        for fact, word in said:
            key = (str(fact.dataset), str(fact.site))
            if isinstance(fact, m.FilesHeld):
                for f in fact.files:
                    known = last[f.lfn].get(key)
                    words = ({word} | set(known.words)) - set(known.taken) if known else {word}
                    last[f.lfn][key] = rows.Entry(
                        *(*key, "", f.block.partition("#")[2], f.bytes, f.adler32, f.version, ""),
                        tuple(sorted(words)),
                        known.taken if known else (),
                    )
            else:
                for n, lfn in enumerate(fact.lfns):
                    if (known := last[lfn].get(key)) is not None:
                        over = set(fact.taken[n].words) if fact.taken else set()
                        words = set(known.words) - over if fact.taken else set()
                        taken = tuple(sorted(over | set(known.taken)))
                        last[lfn][key] = known._replace(words=tuple(sorted(words)), taken=taken)
    out: dict[bytes, bytes] = {}
    sums: dict[bytes, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for lfn, by_key in last.items():
        entries = list(by_key.values())
        if not entries:
            continue
        out[rows.file_key(lfn)] = rows.pack_file(entries)
        groups: dict[bytes, list[rows.Entry]] = defaultdict(list)
        for e in entries:
            out[rows.member_key(e.dataset, e.block, lfn)] = b""
            groups[rows.block_key(e.dataset, e.block)].append(e)
            groups[rows.dataset_key(e.dataset)].append(e)
        for key, group in groups.items():
            sizes = [e.bytes for e in group if e.held] or [e.bytes for e in group]
            for site, size in [("", max(sizes)), *((e.site, e.bytes) for e in group if e.held)]:
                sums[key][site][0] += 1
                sums[key][site][1] += size
    for key, totals in sums.items():
        out[key] = rows.pack_totals({site: rows.Total(*t) for site, t in totals.items()})
    return out


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_order_and_repeats_give_the_same_rows(db: Any, data: st.DataObject) -> None:
    streams = data.draw(partitions())
    wanted = expected(streams)
    for repeats in (False, True):
        facts = data.draw(interleaved(streams, repeats=repeats))
        cuts = data.draw(st.lists(st.booleans(), min_size=len(facts), max_size=len(facts)))
        assert folded(db, facts, cuts) == wanted
