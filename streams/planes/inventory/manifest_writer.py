"""Writing the manifests of an intent whose source is this site: what the catalogue lists, cut and chained.

Of whole files the catalogue knows all; of entries each file is opened (entry_items.py), so manifests are shorter.
What an open intent is still to take is found by open_intents.py.

The catalogue is opened as a secondary of the worker's view, when first needed. A command writes so many manifests and
no more: the worker hears them and asks for the next, so that a cancelled intent stops and nothing piles up.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from streams.core.commands import WriteManifests
from streams.core.manifest import digest
from streams.core.names import IntentId, Lfn, Site, Text
from streams.core.policy import MANIFEST_ITEMS_MAX, OTHERS_MAX, Policy
from streams.core.records import FailureClass, Item, ManifestWritten, Message, Reason, Scope
from streams.core.selections import parts
from streams.planes.inventory.chain_recovery import Replayed
from streams.planes.inventory.entry_items import EntryItems
from streams.planes.inventory.object_items import OBJECTS_MAX, ObjectItems
from streams.planes.inventory.open_intents import CatalogueListing, OpenIntents
from streams.planes.inventory.unlisted import NO_BLOCK, Unlisted, fitted, manifest_of
from streams.planes.source.open_files import OpenFileCache
from streams.storage.endpoint import ReadableStorage
from streams.views.catalogue import CatalogueFile

log = logging.getLogger(__name__)

MANIFESTS_MAX = 32
"""Manifests of one command: 14 MB of records at most."""
AGAIN_S = 5.0
"""A command for manifests written less than this ago is dropped: the worker has not heard them yet."""
CHAINS_MAX = 4096
ENTRY_ITEMS_MAX = 64
"""Items of a manifest of entries, of the first ones 1, 4 and 16: a file takes 5 to 500 ms to open, and what is listed
flows meanwhile."""
ENTRIES_WRITE_S = 4.0
"""Time after which one command of entries writes no further manifest, so that other intents have their turn."""


class ManifestWriter:
    """`publish` may wait for room. Used by one thread."""

    def __init__(
        self,
        here: Site,
        policy: Policy,
        open_catalogue: Callable[[], CatalogueListing],
        publish: Callable[[Message], None],
        open_storage: Callable[[], ReadableStorage],
        payload_bytes: int,
        open_files: OpenFileCache,
        replayed: Replayed,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_storage` is called when entries are first asked for; they are listed as cut into `payload_bytes`.

        `replayed`: what this site's journal has of the chains of open intents.
        """
        self._here = here
        self._policy = policy
        self._open_catalogue = open_catalogue
        self._publish = publish
        self._clock = clock
        self._open_storage = open_storage
        self._payload_bytes = payload_bytes
        self._open_files = open_files
        self._catalogue: CatalogueListing | None = None
        self._entries: EntryItems | None = None
        self._objects = ObjectItems(here, open_storage)
        self._known: dict[Lfn, Item] = {}
        """Items of files that were opened for this command and did not fit the manifest."""
        self._known_for: IntentId | None = None
        self._written: OrderedDict[tuple[IntentId, int], tuple[int, float]] = OrderedDict()
        self._unlisted = Unlisted(here)
        self.growing = OpenIntents(here, policy, self, self._listing, publish, replayed, clock)

    def write(self, command: WriteManifests) -> int:
        """Write what follows behind the command's cursor; how many manifests. Of an open intent: `growing` looks."""
        if command.body.open:
            self.growing.tell(command)
            return 0
        chain = (command.body.intent, command.source_no)
        behind, at_s = self._written.get(chain, (-1, 0.0))
        if command.no < behind and self._clock() - at_s < AGAIN_S:
            return 0
        no, cursor, sha256, last = command.no, command.cursor, command.prev_sha256, False
        self._listing().refresh()
        self._known.clear()
        until_s = self._clock() + ENTRIES_WRITE_S if opens_files(command) else float("inf")
        while not last and no < command.no + MANIFESTS_MAX and (no == command.no or self._clock() < until_s):
            try:
                body = self._next(command, no, cursor, sha256)
            except Exception as error:
                end = self._unlisted.failed(command, no, sha256, error)
                if end is None:
                    raise
                log.exception("%s ends: its files cannot be listed", command.body.intent)
                body = end
            else:
                self._unlisted.worked(command)
            self._publish(body)
            no, cursor, sha256, last = no + 1, body.cursor, digest(body), body.last
        self._written[chain] = (no, self._clock())
        self._written.move_to_end(chain)
        if len(self._written) > CHAINS_MAX:
            self._written.popitem(last=False)
        return no - command.no

    def _next(self, command: WriteManifests, no: int, cursor: str, prev_sha256: str) -> ManifestWritten:
        """The manifest behind `cursor`: as many items as fit by number, by their bytes, and in a record."""

        def body(items: Sequence[Item], behind: str | None) -> ManifestWritten:
            return manifest_of(self._here, command, no, prev_sha256, behind or "", items, behind is None)

        def of_files(items: list[Item]) -> ManifestWritten:
            return body(items, behind if len(items) == len(files) else self._page(command, cursor, len(items))[1])

        selection = command.body.selection
        if selection is not None and parts.means_objects(selection):
            size = self._policy.manifest_bytes
            found = self._objects.next(no, cursor, lambda at: self._page(command, at, 1), selection, size)
            return body(found.items, found.cursor)
        files, behind = self._page(command, cursor, self.most(command, no))
        return fitted(self.items(command, files), of_files)

    def _page(self, command: WriteManifests, cursor: str, limit: int) -> tuple[list[CatalogueFile], str | None]:
        return self._listing().listing(command.body.selectors, cursor, limit, prefer=self._here)

    def _listing(self) -> CatalogueListing:
        if self._catalogue is None:
            self._catalogue = self._open_catalogue()
        return self._catalogue

    def most(self, command: WriteManifests, no: int) -> int:
        """Items of manifest `no`, at most."""
        if parts.means_entries(command.body.selection):
            return min(ENTRY_ITEMS_MAX, int(4 ** min(no, 3)))
        return OBJECTS_MAX if parts.means_objects(command.body.selection) else MANIFEST_ITEMS_MAX

    def objects(self, command: WriteManifests, file: CatalogueFile) -> list[Item] | None:
        selection = command.body.selection or ""
        return self._objects.of(file, selection) if parts.means_objects(selection) else None

    def items(self, command: WriteManifests, files: Sequence[CatalogueFile | Item]) -> list[Item]:
        """Items of the first files, as many as stay within the policy's bytes, one at least if there is one."""
        found: list[Item] = []
        total = 0
        if self._known_for != command.body.intent:
            self._known.clear()
            self._known_for = command.body.intent
        for file in files:
            item = file if isinstance(file, Item) else self._known.get(file.lfn) or self._item(command, file)
            if parts.means_entries(command.body.selection):
                self._known[file.lfn] = item
            total += item.bytes
            if total > self._policy.manifest_bytes and found:
                return found
            found.append(item)
        self._known.clear()
        return found

    def _item(self, command: WriteManifests, file: CatalogueFile) -> Item:
        block = file.block or NO_BLOCK
        dataset = file.dataset or block.dataset
        if not file.replicas:
            why = Reason(Scope.SOURCE, FailureClass.PERMANENT, "list", Text("no site holds it"))
            return Item(file.lfn, dataset, block, Lfn(file.lfn), "", 0, 0, None, "", None, why)
        selection = command.body.selection
        if selection is not None and parts.means_entries(selection):
            held_in = {one.site: one.version for one in file.replicas}
            suffix = command.body.format or parts.FORMATS[0]
            return self._entry_items().item(Lfn(file.lfn), block, held_in, selection, suffix)
        held = next((one for one in file.replicas if one.site == self._here), file.replicas[0])
        version = held.version if held.site == self._here else ""
        same = {one.site for one in file.replicas if (one.bytes, one.adler32) == (held.bytes, held.adler32)}
        others = tuple(sorted(same - {held.site})[:OTHERS_MAX])
        size = held.bytes
        return Item(file.lfn, dataset, block, file.lfn, "", size, size, held.adler32, version, held.site, None, others)

    def _entry_items(self) -> EntryItems:
        if self._entries is None:
            self._entries = EntryItems(self._here, self._open_storage(), self._payload_bytes, self._open_files)
        return self._entries


def opens_files(command: WriteManifests) -> bool:
    """Whether its files must be opened to be listed, which takes its time."""
    return command.body.selection is not None
