"""Writing the manifests of an intent whose source is this site: what the catalogue lists, cut and chained.

The catalogue is opened as a secondary of the worker's view, when first needed. A command writes so many manifests and
no more: the worker hears them and asks for the next, so that a cancelled intent stops and nothing piles up.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from streams.core.commands import WriteManifests
from streams.core.manifest import digest
from streams.core.messages import FailureClass, Item, ManifestWritten, Message, Reason, Scope, Unit
from streams.core.names import Block, Dataset, IntentId, Lfn, Site, Text
from streams.core.policy import MANIFEST_ITEMS_MAX, Policy
from streams.core.selection import Selector
from streams.errors import WireError
from streams.views.catalogue import CatalogueFile
from streams.wire import encode

log = logging.getLogger(__name__)

MANIFESTS_MAX = 32
"""Manifests of one command: 14 MB of records at most."""
AGAIN_S = 5.0
"""A command for manifests written less than this ago is dropped: the worker has not heard them yet."""
CHAINS_MAX = 4096
NO_DATASET = Dataset("/unknown/unknown/UNKNOWN")
NO_BLOCK = Block(f"{NO_DATASET}#unknown")
"""Where a file that no site ever named is filed, so that its item can say so."""


class Listing(Protocol):
    """What is needed of `views.catalogue.Catalogue`."""

    def refresh(self) -> None: ...

    def listing(
        self, selectors: Sequence[Selector], cursor: str = "", limit: int = ..., *, prefer: Site | None = None
    ) -> tuple[list[CatalogueFile], str | None]: ...


class ManifestWriter:
    """`publish` may wait for room. Used by one thread."""

    def __init__(
        self,
        here: Site,
        policy: Policy,
        open_catalogue: Callable[[], Listing],
        publish: Callable[[Message], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._here = here
        self._policy = policy
        self._open_catalogue = open_catalogue
        self._publish = publish
        self._clock = clock
        self._catalogue: Listing | None = None
        self._written: OrderedDict[tuple[IntentId, int], tuple[int, float]] = OrderedDict()

    def write(self, command: WriteManifests) -> int:
        """Write what follows behind the command's cursor; how many manifests."""
        chain = (command.body.intent, command.source_no)
        behind, at_s = self._written.get(chain, (-1, 0.0))
        if command.no < behind and self._clock() - at_s < AGAIN_S:
            return 0
        if self._catalogue is None:
            self._catalogue = self._open_catalogue()
        self._catalogue.refresh()
        no, cursor, sha256, last = command.no, command.cursor, command.prev_sha256, False
        while not last and no < command.no + MANIFESTS_MAX:
            body = self._next(command, no, cursor, sha256)
            self._publish(body)
            no, cursor, sha256, last = no + 1, body.cursor, digest(body), body.last
        self._written[chain] = (no, self._clock())
        self._written.move_to_end(chain)
        if len(self._written) > CHAINS_MAX:
            self._written.popitem(last=False)
        return no - command.no

    def _next(self, command: WriteManifests, no: int, cursor: str, prev_sha256: str) -> ManifestWritten:
        """The manifest behind `cursor`: as many items as fit by number, by their bytes, and in a record."""
        files, behind = self._page(command, cursor, MANIFEST_ITEMS_MAX)
        items = [self._item(file) for file in files]
        count = _fitting(items, self._policy.manifest_bytes)
        while True:
            if count < len(files):
                files, behind = self._page(command, cursor, count)
                items = [self._item(file) for file in files]
            body = ManifestWritten(
                intent=command.body.intent,
                source=self._here,
                source_no=command.source_no,
                no=no,
                prev_sha256=prev_sha256,
                cursor=behind or "",
                unit=Unit.BYTES,
                items=tuple(items),
                last=behind is None,
            )
            try:
                encode(body)
            except WireError:
                if len(items) < 2:
                    raise
                count = len(items) * 2 // 3
            else:
                return body

    def _page(self, command: WriteManifests, cursor: str, limit: int) -> tuple[list[CatalogueFile], str | None]:
        assert self._catalogue is not None
        return self._catalogue.listing(command.body.selectors, cursor, limit, prefer=self._here)

    def _item(self, file: CatalogueFile) -> Item:
        dataset, block = file.dataset or NO_DATASET, file.block or NO_BLOCK
        if not file.replicas:
            why = Reason(Scope.SOURCE, FailureClass.PERMANENT, "list", Text("no site holds it"))
            return Item(file.lfn, dataset, block, Lfn(file.lfn), "", 0, 0, None, "", None, why)
        held = next((one for one in file.replicas if one.site == self._here), file.replicas[0])
        version = held.version if held.site == self._here else ""
        return Item(file.lfn, dataset, block, file.lfn, "", held.bytes, held.bytes, held.adler32, version, held.site)


def _fitting(items: Sequence[Item], units_max: int) -> int:
    """How many of the items stay within `units_max`, one at least."""
    total = 0
    for number, item in enumerate(items):
        total += item.length
        if total > units_max and number:
            return number
    return len(items)
