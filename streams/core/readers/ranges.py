"""How a manifest's entries are cut into ranges, and what a range's output is called: pure, so that all agree.

Who works on what is in shared.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import gcd

from streams.core.manifest import Manifest
from streams.core.names import Destination, Lfn, ManifestId
from streams.core.records import Item
from streams.core.selections import parts
from streams.core.topics import murmur2
from streams.errors import NeverWorks

RANGE_BYTES = 16 * 1024 * 1024
"""Of entries, decoded: a command's start is small against it, and little is lost with a worker."""
RANGES_MIN = 16
"""Of an item that has the entries for it: a few workers have something to share."""
ENTRIES_MIN = 64


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """The `k`-th part of item number `item`: `[start, stop)` of the manifest's line."""

    item: int
    k: int
    start: int
    stop: int


def range_entries(item: Item) -> int:
    """Entries of each of an item's ranges but the last.

    It rests on the item alone: written into another manifest, the same item is cut as before.
    """
    by_bytes = RANGE_BYTES * item.length // max(1, item.bytes)
    shared = -(-item.length // RANGES_MIN)
    return max(1, min(by_bytes, max(ENTRIES_MIN, shared)))


def ranges_of(manifest: Manifest) -> Iterator[Range]:
    """All ranges of a manifest, in order."""
    for number, item in enumerate(manifest.items):
        first, last = manifest.line.span(number)
        if first < last:
            each = range_entries(item)
            for k, start in enumerate(range(first, last, each)):
                yield Range(number, k, start, min(start + each, last))


def slot_of(manifest: ManifestId, part: Range, slots: int) -> int:
    """The slot that a range belongs to.

    An item's go round all slots, in steps that keep the next few far apart: whichever slots a worker has, side by side
    or every fourth, about as many ranges are in them as in another's.
    """
    return (murmur2(f"{manifest}#{part.item}".encode()) + part.k * _step(slots)) % slots


@cache
def _step(slots: int) -> int:
    """The number nearest to the golden section of `slots` that has no divisor in common with it."""
    golden = slots * 0.6180339887
    return min((n for n in range(1, slots + 1) if gcd(n, slots) == 1), key=lambda n: abs(n - golden))


@dataclass(frozen=True, slots=True)
class Meant:
    """A range in the words of its file: entries `[start, stop)` of `lfn`, the selection that means just them."""

    lfn: Lfn
    tree: str
    start: int
    stop: int
    selection: str


def meant(manifest: Manifest, part: Range) -> Meant:
    """NeverWorks where the item's selection means no entries."""
    item = manifest.items[part.item]
    asked = parts.entries_of(item.selection)
    if asked is None:
        raise NeverWorks(f"{item.selection!r} means no entries", where=item.lfn)
    base = asked.start - manifest.line.starts[part.item]
    just = replace(asked, start=base + part.start, stop=base + part.stop)
    selection = parts.canonical(f"{parts.ENTRIES}{just}")
    return Meant(item.lfn, asked.tree, base + part.start, base + part.stop, selection)


def output_of(manifest: ManifestId, pool: Destination, of: Meant, suffix: str) -> Lfn:
    """The name of a range's output: the same whoever works on it, another for another intent, which asks anew."""
    told = "\n".join((manifest.intent, pool, of.lfn, of.selection))
    return Lfn(f"{of.lfn}.{hashlib.sha256(told.encode()).hexdigest()[:12]}.{suffix}")
