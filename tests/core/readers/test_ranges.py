"""Cutting a manifest into ranges: every worker alike, every entry once, and one name for each output."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core import records as m
from streams.core.manifest import Manifest
from streams.core.names import Block, Dataset, Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.readers.ranges import (
    ENTRIES_MIN,
    RANGE_BYTES,
    RANGES_MIN,
    Range,
    meant,
    output_of,
    range_entries,
    ranges_of,
    slot_of,
)
from streams.core.selections.parts import canonical
from streams.errors import NeverWorks

A, POOL = Site("T1_A"), Destination("T2_B/zpeak")
INTENT = IntentId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab")
DATASET = Dataset("/P/Q/TIER-PART")
GONE = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "list", Text("gone"))


def item(n: int, length: int, bytes: int, first: int = 0) -> m.Item:
    lfn = Lfn(f"/store/{n}.root")
    asked = f"entries:events[{first}:{first + length}]{{M}}" if length else "entries:events{M}"
    reason = None if length else GONE
    target = Lfn(f"{lfn}.x.parquet")
    return m.Item(lfn, DATASET, Block(f"{DATASET}#b"), target, asked, length, bytes, None, "v", A, reason)


def manifest(*items: m.Item, no: int = 0) -> Manifest:
    return Manifest(m.ManifestWritten(INTENT, A, 0, no, "", "", m.Unit.ENTRIES, items, True))


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 1 << 34)), min_size=1, max_size=6))
def test_every_entry_is_in_one_range_of_a_good_size(sizes: list[tuple[int, int]]) -> None:
    sizes = [(length, min(size, length * 4_000_000)) for length, size in sizes]
    cut = manifest(*(item(n, length, size) for n, (length, size) in enumerate(sizes)))
    found = list(ranges_of(cut))
    at = 0
    for part in found:
        assert part.start == at < part.stop
        at = part.stop
    assert at == cut.line.total
    per_item = Counter(part.item for part in found)
    for number, (length, size) in enumerate(sizes):
        assert [part.k for part in found if part.item == number] == list(range(per_item[number]))
        if not length:
            assert number not in per_item
            continue
        each = range_entries(cut.items[number])
        assert each == 1 or each * size <= RANGE_BYTES * length
        if length >= RANGES_MIN * ENTRIES_MIN:
            assert per_item[number] >= RANGES_MIN - 1


def test_slots_get_equal_shares() -> None:
    cut = manifest(item(0, 16_000, 160_000), item(1, 16_000, 160_000))
    slots = Counter(slot_of(cut.body.manifest, part, 8) for part in ranges_of(cut))
    assert set(slots.values()) == {4}
    small = manifest(*(item(n, 10, 100) for n in range(400)))
    slots = Counter(slot_of(small.body.manifest, part, 8) for part in ranges_of(small))
    assert len(slots) == 8
    assert max(slots.values()) < 2 * min(slots.values())


def test_a_workers_slots_hold_its_share_whichever_they_are() -> None:
    cut = manifest(item(0, 16_000, 160_000))
    for workers in (2, 4, 5):
        slots = [slot_of(cut.body.manifest, part, 40) for part in ranges_of(cut)]
        for owners in ([slot * workers // 40 for slot in slots], [slot % workers for slot in slots]):
            shares = Counter(owners)
            assert max(shares.values()) - min(shares[w] for w in range(workers)) <= 3, shares


def test_a_range_is_said_in_the_files_own_entries() -> None:
    cut = manifest(item(0, 70, 700), item(1, 100, 1000, first=5000))
    second = [meant(cut, part) for part in ranges_of(cut) if part.item == 1]
    assert [(of.start, of.stop) for of in second] == [(5000, 5064), (5064, 5100)]
    assert second[0].selection == "entries:events[5000:5064]{M}" == canonical(second[0].selection)
    assert (second[0].lfn, second[0].tree) == ("/store/1.root", "events")


def test_an_outputs_name_is_the_ranges_alone() -> None:
    cut = manifest(item(0, 200, 2000))
    names = {output_of(cut.body.manifest, POOL, meant(cut, part), "npy") for part in ranges_of(cut)}
    assert len(names) == 4
    again = manifest(item(1, 10, 10), item(0, 200, 2000), no=3)
    assert {output_of(again.body.manifest, POOL, meant(again, p), "npy") for p in ranges_of(again) if p.item} == names
    of = meant(cut, Range(0, 0, 0, 64))
    other = ManifestId(f"{INTENT[:-1]}0.0.0")
    assert output_of(other, POOL, of, "npy") not in names, "another intent may run another command"
    assert output_of(cut.body.manifest, Destination("T2_B/other"), of, "npy") not in names
    assert all(name.startswith("/store/0.root.") and name.endswith(".npy") for name in names)


def test_an_item_of_bytes_has_no_ranges_to_name() -> None:
    odd = m.Item(Lfn("/f"), DATASET, Block(f"{DATASET}#b"), Lfn("/f.x"), "objects:*", 5, 5, None, "v", A, None)
    with pytest.raises(NeverWorks, match="means no entries"):
        meant(manifest(odd), Range(0, 0, 0, 5))
