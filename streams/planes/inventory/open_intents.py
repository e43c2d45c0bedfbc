"""Manifests of open intents: whatever the catalogue lists that no manifest of the chain has yet, look after look.

A place in the catalogue's order would miss later files with smaller names, so an intent keeps which files its chain
has: one bit each, beside one table of names for all intents. It is only good behind the manifest it was made for, which
the digest tells: who comes late or lost the race reads its chain again from the journal. A look compares the totals of
the selection with those of the look before, then those of its blocks, and lists the blocks that changed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from streams.core.commands import WriteManifests
from streams.core.manifest import digest
from streams.core.names import Block, Dataset, Lfn, Site
from streams.core.policy import Policy
from streams.core.records import Item, ManifestWritten, Message
from streams.core.selectors import Kind, Selector
from streams.errors import Transfer2goError
from streams.planes.inventory.chain_recovery import ChainReading, Replayed
from streams.planes.inventory.chain_state import (
    WHOLE,
    ChainKey,
    FileNumbers,
    OpenChain,
    Pass,
    changed,
    mark_of,
    name_in_chain,
)
from streams.planes.inventory.unlisted import Unlisted, fitted, manifest_of
from streams.views.catalogue import CatalogueFile

log = logging.getLogger(__name__)

AHEAD_MAX = 32
"""Manifests written and not yet heard back by the worker."""
UNHEARD_S = 5.0
"""What was written and is not heard back for so long was lost: the chain is read again."""
LOOK_MAX_S = 1.0
"""A look that takes longer goes on in its next turn: other intents wait for theirs."""
SHARE = 4
"""A look comes so many times later as the one before took for listing, at least; what that wrote is not counted."""
FRESH_S = 0.2
"""Looks that come together share what they see of the catalogue: to make it new costs more than most looks."""
PAGE = 1000
SPARE_MAX = 10_000
"""Names of files that are kept beside twice those of the open intents: those of intents that ended are forgotten."""


class CatalogueListing(Protocol):
    """What is needed of `views.catalogue.Catalogue`. A row of totals begins with the line over all sites."""

    def refresh(self) -> None: ...

    def totals(self, selector: Selector) -> bytes: ...

    def block_totals(self, dataset: Dataset) -> Iterator[tuple[Block, bytes]]: ...

    def files(self, lfns: Sequence[Lfn], prefer: Site | None = None) -> list[CatalogueFile]: ...

    def listing(
        self, selectors: Sequence[Selector], cursor: str = "", limit: int = ..., *, prefer: Site | None = None
    ) -> tuple[list[CatalogueFile], str | None]: ...


class Cutting(Protocol):
    """How files become items (manifest_writer.ManifestWriter)."""

    def most(self, command: WriteManifests, no: int) -> int: ...

    def items(self, command: WriteManifests, files: Sequence[CatalogueFile | Item]) -> list[Item]: ...

    def objects(self, command: WriteManifests, file: CatalogueFile) -> list[Item] | None:
        """The items of a file whose objects are asked for; None where files or entries are."""


class OpenIntents:
    """For one site. Used by one thread: `tell` what the worker says, and `look` when `idle_s` has passed."""

    def __init__(
        self,
        here: Site,
        policy: Policy,
        cutting: Cutting,
        open_catalogue: Callable[[], CatalogueListing],
        publish: Callable[[Message], None],
        replayed: Replayed,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._here, self._policy, self._cutting = here, policy, cutting
        self._open_catalogue, self._publish, self._replayed = open_catalogue, publish, replayed
        self._clock, self._now_ms = clock, now_ms
        self._catalogue: CatalogueListing | None = None
        self._refreshed_s = -FRESH_S
        self._chains: dict[ChainKey, OpenChain] = {}
        self._numbers = FileNumbers()
        self._unlisted = Unlisted(here)
        self._reading = ChainReading(here, replayed, self._numbers, clock)
        self._listing_s = 0.0
        """Of the look that is under way."""
        self.listings = 0
        """Pages listed so far."""

    def tell(self, command: WriteManifests) -> None:
        """What the worker knows of an open intent; said again every `renew_s`."""
        key, now_s = (command.body.intent, command.source_no), self._clock()
        if command.closing:
            self._refreshed_s = now_s - FRESH_S
        if self._reading.told(key, command):
            return
        chain = self._chains.get(key)
        if chain is not None and (chain.no, chain.sha256) == (command.no, command.prev_sha256):
            self._renew(chain, command, now_s)
        elif chain is not None and command.no < chain.no and now_s - chain.written_s < UNHEARD_S:
            chain.told_s = now_s
        elif command.no:
            self._chains.pop(key, None)
            self._reading.ask(key, command)
        else:
            # Nothing is known of its chain. Should manifests be on their way, theirs come first and ours count for
            # nothing: the next command then says so.
            self._chains[key] = OpenChain(command, now_s)

    def _renew(self, chain: OpenChain, command: WriteManifests, now_s: float) -> None:
        if command.closing and not chain.command.closing:
            # The view has caught up for this: everything is listed once more.
            chain.listed, chain.due_s = None, 0.0
            chain.marks.clear()
        chain.command, chain.told_s = command, now_s

    def idle_s(self) -> float | None:
        """Until the next look; None: until something is told."""
        if self._reading.busy:
            return 0.0
        due = [chain.due_s for chain in self._chains.values() if chain.heard]
        if due:
            return max(0.0, min(due) - self._clock())
        return UNHEARD_S if self._chains else None

    def look(self) -> int:
        """Look once at the intent that is longest due, if one is; how many manifests were written."""
        now_s = self._clock()
        self._leave(now_s)
        if self._reading.busy:
            self._chains.update(self._reading.go_on(LOOK_MAX_S))
            return 0
        due = [chain for chain in self._chains.values() if chain.heard and chain.due_s <= now_s]
        if not due:
            return 0
        chain = min(due, key=lambda chain: chain.due_s)
        goes_on, self._listing_s = False, 0.0
        try:
            written = self._look(chain)
            self._unlisted.worked(chain.command)
            goes_on = bool(chain.found) or chain.listed is not None
            return written
        except Exception as error:
            end = self._unlisted.failed(chain.command, chain.no, chain.sha256, error)
            if end is not None:
                log.exception("%s ends: its files cannot be listed", chain.command.body.intent)
                self._say(chain, end)
                return 1
            if not isinstance(error, Transfer2goError):
                raise
            log.warning("manifests of %s are not written now: %s", chain.command.body.intent, error)
            return 0
        finally:
            chain.due_s = self._clock()
            if not goes_on:
                chain.due_s += max(self._policy.look_s, SHARE * self._listing_s)

    def _leave(self, now_s: float) -> None:
        """Forget what the worker says no more of: it was closed, cancelled, or is another worker's now."""
        oldest_s = now_s - 3 * self._policy.renew_s
        for key in [key for key, chain in self._chains.items() if chain.told_s < oldest_s]:
            del self._chains[key]
        taken = [chain.taken for chain in self._chains.values()]
        many = len(self._numbers) > SPARE_MAX + 2 * sum(files.count for files in taken)
        if many and not self._reading.busy:  # what is being read has numbers too
            self._numbers.keep(taken)

    # looking

    def _look(self, chain: OpenChain) -> int:
        body = chain.command.body
        if not chain.command.closing and body.until_ms is not None and body.until_ms <= self._now_ms():
            return 0
        if self._catalogue is None:
            self._catalogue = self._open_catalogue()
        if self._clock() - self._refreshed_s >= FRESH_S:
            self._catalogue.refresh()
            self._refreshed_s = self._clock()
        stop_s, behind = self._clock() + LOOK_MAX_S, chain.no
        while chain.no - behind < AHEAD_MAX:
            began_s = self._clock()
            self._find(self._catalogue, chain, self._cutting.most(chain.command, chain.no), stop_s)
            self._listing_s += self._clock() - began_s
            if not chain.found and not chain.complete:
                break
            written = self._next(chain)
            self._say(chain, written)
            if written.last:
                break
            if self._clock() > stop_s:
                break
        return chain.no - behind

    def _say(self, chain: OpenChain, written: ManifestWritten) -> None:
        try:
            self._publish(written)
        except BaseException:
            # Its files are taken from what was found, and it may be in no journal: the chain is read again.
            self._chains.pop((chain.command.body.intent, chain.command.source_no), None)
            raise
        chain.no, chain.sha256, chain.written_s = chain.no + 1, digest(written), self._clock()
        chain.written += len(written.items)
        if written.last:
            # Whoever tells of it has not heard that yet: what is remembered keeps it from being written twice.
            chain.found.clear()

    def _next(self, chain: OpenChain) -> ManifestWritten:
        """A manifest of as many of the found files as fit, which are then found no more."""
        command, limit = chain.command, chain.command.body.until_items
        most = self._cutting.most(command, chain.no)
        if limit is not None:
            most = min(most, max(0, limit - chain.written))
        items = self._cutting.items(command, [chain.found[n] for n in range(min(most, len(chain.found)))])

        def body(items: list[Item]) -> ManifestWritten:
            total = chain.written + len(items)
            last = (limit is not None and total >= limit) or (chain.complete and len(items) == len(chain.found))
            return manifest_of(self._here, command, chain.no, chain.sha256, str(total), items, last)

        written = fitted(items, body)
        for _ in written.items:
            chain.found.popleft()
        return written

    def _find(self, catalogue: CatalogueListing, chain: OpenChain, enough: int, stop_s: float) -> None:
        """Finds new files until there are enough for a manifest, all is listed, or time is up."""
        if len(chain.found) >= enough or chain.complete:
            return
        if chain.listed is None:
            if chain.found:
                return
            chain.listed = self._begin(catalogue, chain)
        listed = chain.listed
        while listed.blocks and len(chain.found) < enough and self._clock() <= stop_s:
            block, row = listed.blocks[0]
            selector = Selector(Kind.BLOCK, block)
            files, behind = catalogue.listing([selector], listed.cursor, PAGE, prefer=self._here)
            self.listings += 1
            listed.skipped |= not self._take(chain, files)
            listed.cursor = behind or ""
            if behind is None:
                listed.blocks.popleft()
                chain.marks[block] = mark_of(row, listed.skipped)
                listed.skipped = False
        if not listed.blocks:
            for dataset, row in listed.datasets.items():
                waits = any(mark[:1] == WHOLE for name, mark in chain.marks.items() if name.startswith(dataset + "#"))
                chain.marks[dataset] = mark_of(row, waits)
            chain.listed, chain.complete = None, chain.command.closing

    def _begin(self, catalogue: CatalogueListing, chain: OpenChain) -> Pass:
        """Which blocks changed since they were last listed. Files asked for by their names are looked up at once."""
        blocks: dict[Block, bytes] = {}
        datasets: dict[str, bytes] = {}
        for selector in chain.wide:
            row = catalogue.totals(selector)
            if not changed(chain.marks.get(selector.name), row):
                continue
            if selector.kind is Kind.BLOCK:
                blocks[Block(selector.name)] = row
                continue
            datasets[selector.name] = row
            for block, totals in catalogue.block_totals(Dataset(selector.name)):
                if changed(chain.marks.get(block), totals):
                    blocks[block] = totals
        if chain.lfns:
            self._take(chain, catalogue.files(chain.lfns, self._here))
            chain.lfns = [lfn for lfn in chain.lfns if not self._has(chain, lfn)]
        return Pass(deque(blocks.items()), datasets)

    def _has(self, chain: OpenChain, lfn: Lfn) -> bool:
        number = self._numbers.known(lfn)
        return number is not None and number in chain.taken

    def _take(self, chain: OpenChain, files: Iterable[CatalogueFile]) -> bool:
        """Keeps what is new; False where some must wait, since the source cannot send them as they are.

        When the intent closes they wait no longer, and fail with the reason.
        """
        nothing_waits, opened_here = True, chain.command.body.selection is not None
        for file in files:
            ready = any(one.site == self._here for one in file.replicas) if opened_here else bool(file.replicas)
            if not ready and not chain.command.closing:
                nothing_waits = nothing_waits and self._has(chain, file.lfn)
            elif not self._has(chain, file.lfn):
                chain.found.extend(self._new(chain, file))
                chain.taken.add(self._numbers.of(file.lfn))
        return nothing_waits

    def _new(self, chain: OpenChain, file: CatalogueFile) -> Iterable[CatalogueFile | Item]:
        """The file, or those of its objects that no manifest has: a crash may have come between two manifests of it."""
        objects = self._cutting.objects(chain.command, file)
        if objects is None:
            return [file]
        return [item for item in objects if chain.taken.add(self._numbers.of(name_in_chain(item)))]
