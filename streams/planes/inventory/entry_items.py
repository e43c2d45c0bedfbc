"""Items of a manifest of entries: each file is opened, and tree and range become those it has. No catalogue here.

An item is a function of the file, the site and the intent: asked again, it comes out the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from streams.core.names import Block, Lfn, Site, shown
from streams.core.records import FailureClass, Item, Reason, Scope
from streams.core.selections import parts
from streams.core.selections.entries import EventSelection
from streams.errors import StorageError, Temporary, Transfer2goError, permanent
from streams.planes.inventory.unlisted import NO_BLOCK
from streams.planes.reasons import put_in_words, reason_of
from streams.planes.source.open_files import OpenFileCache, open_item
from streams.storage.endpoint import ReadableStorage

if TYPE_CHECKING:
    from streams.events.entries import Entries

log = logging.getLogger(__name__)

_SITES_TOLD = 3


class EntryItems:
    """For one site's manifests. Used by one thread."""

    def __init__(self, here: Site, endpoint: ReadableStorage, payload_bytes: int, open_files: OpenFileCache) -> None:
        self._here = here
        self._endpoint = endpoint
        self._payload_bytes = payload_bytes
        self._open_files = open_files

    def item(self, lfn: Lfn, block: Block, held: Mapping[Site, str], selection: str, suffix: str) -> Item:
        """The item of a file that the sites of `held` have, in the version that each says, one at least.

        Raises Temporary where asking later may help.
        """
        if self._here not in held:
            return _failed(lfn, block, selection, suffix, "", None, not_here(lfn, held))
        version = held[self._here]
        try:
            return self._opened(lfn, block, version, selection, suffix)
        except Exception as raised:
            error = put_in_words(raised, lfn)
            if error.failure_class == "transient":
                raise Temporary(error.what, error.where, error.next) from raised
            log.info("%s: %s", lfn, error)
            return _failed(lfn, block, selection, suffix, version, self._here, error)

    def _opened(self, lfn: Lfn, block: Block, version: str, selection: str, suffix: str) -> Item:
        asked = parts.entries_of(selection)
        if asked is None:
            raise permanent(f"{shown(selection, 60)!r} names no entries", lfn)
        entries = open_item(self._endpoint, lfn, version, asked)
        try:
            item = self._item(entries, lfn, block, version, asked, suffix)
        except BaseException:
            entries.close()
            raise
        self._open_files.put(lfn, version, item.selection, entries)
        return item

    def _item(self, entries: Entries, lfn: Lfn, block: Block, version: str, asked: EventSelection, suffix: str) -> Item:
        from streams.events.batches import pack

        found = replace(asked, tree=entries.tree)
        if entries.entries:
            found = replace(found, start=entries.start, stop=entries.stop)
        part = parts.canonical(f"{parts.ENTRIES}{found}")
        dataset, filed = parts.filed(block)
        # A schema travels with every payload; of a wide one that is the most of a small payload.
        empty_bytes = len(pack(entries.read(entries.start, entries.start), "none"))
        size = entries.decoded_bytes + empty_bytes * max(1, len(entries.cuts(self._payload_bytes)))
        return Item(
            lfn=lfn,
            dataset=dataset,
            block=filed,
            target=parts.target_of(lfn, part, suffix),
            selection=part,
            length=max(1, entries.entries),
            bytes=size,
            adler32=None,
            version=version,
            holder=self._here,
        )


def not_here(lfn: Lfn, held: Mapping[Site, str]) -> StorageError:
    """Parts are read where the file is."""
    sites = sorted(held)
    more = f" and {len(sites) - _SITES_TOLD} more" if len(sites) > _SITES_TOLD else ""
    what = f"{', '.join(sites[:_SITES_TOLD])}{more} holds it, this site does not, and parts are read where a file is"
    return permanent(what, lfn, f"name {sites[0]} as the source")


def _failed(
    lfn: Lfn, block: Block, selection: str, suffix: str, version: str, holder: Site | None, error: StorageError
) -> Item:
    return failed_part(lfn, block, selection, suffix, version, holder, reason_of(error, "list", Scope.SOURCE))


def failed_part(
    lfn: Lfn, block: Block | None, selection: str, suffix: str, version: str, holder: Site | None, reason: Reason
) -> Item:
    """An item that cannot arrive. Where the dataset's name leaves no room for one of parts, it is filed in its own."""
    assert reason.failure_class is not FailureClass.TRANSIENT
    block = block or NO_BLOCK
    try:
        dataset, filed = parts.filed(block)
    except Transfer2goError:
        dataset, filed = block.dataset, block
    target = parts.target_of(lfn, selection, suffix)
    return Item(lfn, dataset, filed, target, selection, 0, 0, None, version, holder, reason)
