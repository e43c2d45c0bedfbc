"""Chains of open intents, read from the journal: which manifests count, and what they have taken. Nothing is written.

One reading serves all that were asked for when it began, and is done in steps: other intents are looked at in between.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from streams.core.commands import WriteManifests
from streams.core.manifest import digest
from streams.core.names import IntentId, Site
from streams.core.records import ManifestWritten
from streams.planes.inventory.chain_state import ChainKey, FileNumbers, OpenChain, name_in_chain

log = logging.getLogger(__name__)

Replayed = Callable[[Collection[IntentId]], Iterable[ManifestWritten]]
"""What this site's own journal of manifests has of some intents, in its order."""


class _Written(NamedTuple):
    sha256: str
    files: array[int]
    last: bool


_First = dict[tuple[int, str], _Written]
"""By number and digest of the one before: of such manifests the first counts."""


class ChainReading:
    """Used by one thread."""

    def __init__(self, here: Site, replayed: Replayed, numbers: FileNumbers, clock: Callable[[], float]) -> None:
        self._here, self._replayed, self._numbers, self._clock = here, replayed, numbers, clock
        self._asked: dict[ChainKey, WriteManifests] = {}
        self._now: dict[ChainKey, WriteManifests] = {}
        self._steps: Iterator[None] | None = None
        self._known: dict[ChainKey, _First] = {}

    @property
    def busy(self) -> bool:
        return bool(self._asked) or self._steps is not None

    def ask(self, key: ChainKey, command: WriteManifests) -> None:
        self._asked[key] = command

    def told(self, key: ChainKey, command: WriteManifests) -> bool:
        """The worker says more of an intent; False where its chain is not being read."""
        for commands in (self._now, self._asked):
            if key in commands:
                commands[key] = command
                return True
        return False

    def go_on(self, most_s: float) -> dict[ChainKey, OpenChain]:
        """Reads for about so long; the chains that were found, once all is read. Raises Temporary: nothing is."""
        if self._steps is None:
            self._now, self._asked = self._asked, {}
            self._known = {key: {} for key in self._now}
            self._steps = self._read()
        stop_s, over = self._clock() + most_s, True
        try:
            for _ in self._steps:
                if self._clock() > stop_s:
                    over = False
                    return {}
            found = {key: self._chain(key, command) for key, command in self._now.items()}
            return {key: chain for key, chain in found.items() if chain is not None}
        finally:
            if over:
                self._steps, self._now, self._known = None, {}, {}

    def _read(self) -> Iterator[None]:
        for body in self._replayed({intent for intent, _ in self._now}):
            first = self._known.get((body.intent, body.source_no))
            if first is not None and body.source == self._here and (body.no, body.prev_sha256) not in first:
                files = array("I", (self._numbers.of(name_in_chain(item)) for item in body.items))
                first[body.no, body.prev_sha256] = _Written(digest(body), files, body.last)
            yield

    def _chain(self, key: ChainKey, command: WriteManifests) -> OpenChain | None:
        """As far as the journal has it, which may be further than the worker has heard; None where it has ended."""
        now_s = self._clock()
        chain = OpenChain(command, now_s, written_s=now_s)
        met = last = False
        while not last:
            met = met or (chain.no, chain.sha256) == (command.no, command.prev_sha256)
            found = self._known[key].get((chain.no, chain.sha256))
            if found is None:
                break
            chain.sha256, last = found.sha256, found.last
            chain.no += 1
            chain.written += len(found.files)
            for number in found.files:
                chain.taken.add(number)
        if not met:
            log.warning("the journal does not lead to manifest %d of %s; asked again", command.no, key[0])
        return chain if met and not last else None
