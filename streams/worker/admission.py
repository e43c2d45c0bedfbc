"""Which transfers the plane of a worker holds open, and which wait until it has room. Decides nothing else.

An open transfer costs the plane memory for each of its items; without a bound, many intents at once would outgrow it.
Of those that wait, the transfer goes first whose intent holds the fewest: a single file need not wait for a million.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice

from streams.core.names import IntentId, ManifestId

ITEMS_MAX = 100_000
"""Of all transfers held open, at about 0.5 KB each; one transfer is held however many it has."""
TRANSFER_ITEMS = 100
"""What a transfer weighs beside its items."""
LOOKED_AT_MAX = 1_000
"""Transfers that wait, at each question whose turn it is: some 3 ms."""


class Admission:
    """`opened`: the plane has said so. Held: it was told to open, and nothing has ended that since."""

    def __init__(self) -> None:
        self.opened: set[ManifestId] = set()
        self._held: dict[ManifestId, int] = {}
        self._weight = 0
        """Of all that is held."""
        self._by_intent: Counter[IntentId] = Counter()
        """Transfers held, of each intent."""
        self._waiting: dict[ManifestId, tuple[int, int]] = {}
        """Partition and weight of the transfers that wait, the longest first."""

    def may_hold(self, manifest: ManifestId, items: int, partition: int) -> bool:
        """Whether the plane may open this transfer too."""
        if manifest in self._held:
            return True
        weight = items + TRANSFER_ITEMS
        if self._held and (weight > ITEMS_MAX - self._weight or weight > self._room_behind(manifest)):
            self._waiting.setdefault(manifest, (partition, weight))
            return False
        self._waiting.pop(manifest, None)
        self._held[manifest] = weight
        self._weight += weight
        self._by_intent[manifest.intent] += 1
        return True

    def _room_behind(self, manifest: ManifestId) -> int:
        """What is left for it once those that go before it have theirs."""
        room, own = ITEMS_MAX - self._weight, self._by_intent[manifest.intent]
        for other, weight in self._turn():
            if room <= 0 or other == manifest or self._by_intent[other.intent] > own:
                break
            room -= weight
        return room

    def _turn(self) -> list[tuple[ManifestId, int]]:
        """Those that wait and their weights, whose turn is next first; of very many the longest waiting only."""
        waiting = [(manifest, weight) for manifest, (_, weight) in islice(self._waiting.items(), LOOKED_AT_MAX)]
        return sorted(waiting, key=lambda one: self._by_intent[one[0].intent])

    def gone(self, manifest: ManifestId) -> list[tuple[int, ManifestId]]:
        """The plane holds it no more; (partition, manifest) of those that there is room for now."""
        return self._next() if self._release(manifest) else []

    def _release(self, manifest: ManifestId) -> bool:
        """Whether it was held."""
        self.opened.discard(manifest)
        weight = self._held.pop(manifest, None)
        if weight is None:
            return False
        self._weight -= weight
        self._by_intent[manifest.intent] -= 1
        if not self._by_intent[manifest.intent]:
            del self._by_intent[manifest.intent]
        return True

    def ended(self, manifest: ManifestId) -> list[tuple[int, ManifestId]]:
        """As `gone`, and it waits for nothing either."""
        waited = self._waiting.pop(manifest, None) is not None
        return self.gone(manifest) or (self._next() if waited else [])

    def _next(self) -> list[tuple[int, ManifestId]]:
        """Those that go first and fit together, or the very first where nothing is held."""
        found: list[tuple[int, ManifestId]] = []
        free = ITEMS_MAX - self._weight
        for manifest, weight in self._turn():
            free -= weight
            if free < 0 and (found or self._held):
                break
            found.append((self._waiting[manifest][0], manifest))
        return found

    def drop(self, belong: Callable[[ManifestId], bool]) -> list[tuple[int, ManifestId]]:
        """Those that `belong` are another worker's now; (partition, manifest) of others that there is room for."""
        gone = [manifest for manifest in {*self.opened, *self._held, *self._waiting} if belong(manifest)]
        for manifest in gone:
            self._waiting.pop(manifest, None)
            self._release(manifest)
        return self._next() if gone else []

    def clear(self) -> None:
        """Another plane: it holds nothing."""
        self.opened.clear()
        self._held.clear()
        self._weight = 0
        self._by_intent.clear()
        self._waiting.clear()
