"""Records of manifests: the items of an intent, written by its source."""

from __future__ import annotations

from dataclasses import dataclass

from streams.core import topics
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, ManifestId, Site
from streams.core.policy import MANIFEST_ITEMS_MAX, OTHERS_MAX
from streams.core.records import field_checks
from streams.core.records.limits import NUMBER_MAX, POSITION_MAX
from streams.core.records.registry import Row, record
from streams.core.records.values import Reason, Unit


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to move: `length` in the manifest's unit, `target` the LFN it lands under, `holder` whom to ask.

    `version` is opaque and binds only the holder that wrote it ("" when another site wrote the manifest).
    `selection` is empty for a whole file. An item nobody holds has a `reason`, and length 0. `others`: further sites
    that hold a file of this size and adler32, by name; what the catalogue said then, and no part of the digest.
    """

    lfn: Lfn
    dataset: Dataset
    block: Block
    target: Lfn
    selection: str
    length: int
    bytes: int
    adler32: Adler32 | None
    version: str
    holder: Site | None
    reason: Reason | None = None
    others: tuple[Site, ...] = ()


def item_fault(i: Item, in_bytes: bool) -> str | None:
    """Why an item of a manifest (`in_bytes`: counted in bytes) contradicts itself, or None."""
    if not i.block.startswith(i.dataset + "#"):
        return "block: not of the item's dataset"
    if i.others and (why := _others_fault(i)) is not None:
        return f"others: {why}"
    if i.reason is not None:
        return "length: an item with a reason has length 0" if i.length else None
    if i.holder is None:
        return "holder: missing, and no reason given"
    if i.selection:
        # Its words are its source's: whoever cannot make sense of them fails the item, not the manifest.
        return "target: a part of a file cannot land under the file's own name" if i.target == i.lfn else None
    if i.adler32 is None:
        return "adler32: a whole file needs one"
    if not in_bytes or i.length != i.bytes:
        return "length: of a whole file, must be its bytes"
    return "target: a whole file lands under its own name" if i.target != i.lfn else None


def _others_fault(i: Item) -> str | None:
    if len(i.others) > OTHERS_MAX:
        return f"{len(i.others)}, over {OTHERS_MAX}"
    if i.reason is not None or i.selection:
        return "of a whole file only"
    if list(i.others) != sorted({*i.others} - {i.holder}):
        return "each once, by name, without the holder"
    return None


def manifest_fault(w: ManifestWritten) -> str | None:
    if w.source_no > NUMBER_MAX or w.no > NUMBER_MAX:
        return f"source_no and no: over {NUMBER_MAX}"
    if not w.items and not w.last:
        return "items: empty, and not the last manifest"
    if len(w.items) > MANIFEST_ITEMS_MAX:
        return f"items: {len(w.items)}, over {MANIFEST_ITEMS_MAX}"
    if w.no == 0 and w.prev_sha256:
        return "prev_sha256: manifest 0 has no predecessor"
    in_bytes = w.unit is Unit.BYTES
    if len({item.target for item in w.items}) != len(w.items):
        return "items: two land under one target"
    total = 0
    for n, item in enumerate(w.items):
        why = item_fault(item, in_bytes)
        if why is not None:
            return f"items[{n}].{why}"
        total += item.length
    if total > POSITION_MAX:
        return f"items: longer than {POSITION_MAX} together"
    return field_checks.sha256("prev_sha256", w.prev_sha256) if w.no else None


@record(topic=topics.MANIFESTS, key=lambda r: r.intent, author=lambda r: r.source, check=manifest_fault, row=Row.INTENT)
@dataclass(frozen=True, slots=True)
class ManifestWritten:
    """Items of an intent, laid end to end. `prev_sha256` chains to manifest `no - 1` of the same `source_no`."""

    intent: IntentId
    source: Site
    source_no: int
    no: int
    prev_sha256: str
    cursor: str
    unit: Unit
    items: tuple[Item, ...]
    last: bool

    @property
    def manifest(self) -> ManifestId:
        return ManifestId.of(self.intent, self.source_no, self.no)
