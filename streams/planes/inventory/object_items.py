"""Manifests of objects: each file is opened, and every object asked for becomes an item. No catalogue here.

A cursor is "N|CURSOR": N objects of the first file behind the catalogue's CURSOR are listed already. An item is a
function of file, site and intent: asked again, it comes out the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.core.names import Adler32, Lfn, Site, Text, shown
from streams.core.records import FailureClass, Item, Reason, Scope
from streams.core.selections import parts
from streams.errors import Temporary
from streams.planes.inventory.entry_items import failed_part, not_here
from streams.planes.reasons import put_in_words, reason_of
from streams.storage.endpoint import ReadableStorage
from streams.views.catalogue import CatalogueFile

if TYPE_CHECKING:
    from streams.objects.found import Listing

log = logging.getLogger(__name__)

OBJECTS_MAX = 500
"""Objects of a manifest."""
TOLD_BYTES_MAX = 300_000
"""Of the names and reasons of a manifest's items: it must fit a record."""
FILES_MAX = 64
"""Files of a manifest, of the first ones 1, 4 and 16: what is listed flows meanwhile."""

ObjectPage = Callable[[str], tuple[Sequence[CatalogueFile], str | None]]
"""One file behind a cursor of the catalogue, and the cursor behind it (None: that was the last)."""


@dataclass(frozen=True, slots=True)
class ListedObjects:
    """Items of a manifest and where the next one begins; `cursor` None: nothing is left."""

    items: list[Item]
    cursor: str | None


class ObjectItems:
    """For one site's manifests. Used by one thread."""

    def __init__(self, here: Site, open_storage: Callable[[], ReadableStorage]) -> None:
        self._here = here
        self._open_storage = open_storage
        self._endpoint: ReadableStorage | None = None
        self._known: tuple[tuple[str, str, str], list[Item]] | None = None

    def next(self, no: int, cursor: str, page: ObjectPage, selection: str, bytes_max: int) -> ListedObjects:
        """Items of manifest `no`. Raises Temporary where asking later may help."""
        taken_text, _, at = cursor.partition("|")
        taken, items, size, told = int(taken_text or 0), list[Item](), 0, 0
        for _ in range(min(FILES_MAX, 4 ** min(no, 3))):
            files, behind = page(at)
            for file in files:
                found = self.of(file, selection)
                for item in found[taken:]:
                    size, told = size + item.bytes, told + _told_bytes(item)
                    if items and (len(items) == OBJECTS_MAX or size > bytes_max or told > TOLD_BYTES_MAX):
                        return ListedObjects(items, f"{taken}|{at}")
                    items.append(item)
                    taken += 1
            if behind is None:
                return ListedObjects(items, None)
            taken, at = 0, behind
        return ListedObjects(items, f"0|{at}")

    def of(self, file: CatalogueFile, selection: str) -> list[Item]:
        """Every item of a file, in the order of the objects' names; kept for the manifest that goes on in it."""
        held = {one.site: one.version for one in file.replicas}
        key = (str(file.lfn), held.get(self._here, ""), selection)
        if self._known is None or self._known[0] != key:
            self._known = key, self._listed(file, held, selection)
        return self._known[1]

    def _listed(self, file: CatalogueFile, held: dict[Site, str], selection: str) -> list[Item]:
        lfn, block = Lfn(file.lfn), file.block
        if not held or block is None:
            why = Reason(Scope.SOURCE, FailureClass.PERMANENT, "list", Text("no site holds it"))
            return [self._failed(file, selection, "", None, why)]
        if self._here not in held:
            return [self._failed(file, selection, "", None, reason_of(not_here(lfn, held), "list", Scope.SOURCE))]
        version = held[self._here]
        try:
            listing = self._look(lfn, version, selection)
            dataset, filed = parts.filed(block)
        except Exception as raised:
            error = put_in_words(raised, lfn)
            if error.failure_class == "transient":
                raise Temporary(error.what, error.where, error.next) from raised
            log.info("%s: %s", lfn, error)
            return [self._failed(file, selection, version, self._here, reason_of(error, "list", Scope.SOURCE))]
        items = []
        for found in listing.found:
            part = parts.of_object(found.name)
            target = parts.target_of(lfn, part, found.suffix)
            adler32 = Adler32(found.adler32)
            items.append(
                Item(lfn, dataset, filed, target, part, found.bytes, found.bytes, adler32, version, self._here)
            )
        for name, error in listing.refused:
            reason = reason_of(put_in_words(error, f"{lfn}, {shown(name)}"), "list", Scope.SOURCE)
            items.append(self._failed(file, parts.of_object(name), version, self._here, reason))
        return items

    def _look(self, lfn: Lfn, version: str, selection: str) -> Listing:
        from streams.objects.reading import listed

        asked = parts.objects_of(selection)
        assert asked is not None
        if self._endpoint is None:
            self._endpoint = self._open_storage()
        path, seen = self._endpoint.local_file(lfn, version)
        return listed(path, asked, version=seen)

    def _failed(self, file: CatalogueFile, selection: str, version: str, holder: Site | None, reason: Reason) -> Item:
        return failed_part(Lfn(file.lfn), file.block, selection, "object", version, holder, reason)


def _told_bytes(item: Item) -> int:
    reason = 0 if item.reason is None else len(item.reason.text.encode())
    return len(item.lfn) + len(item.target) + len(item.selection) + 2 * len(item.dataset) + reason + 200
