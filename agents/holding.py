"""Which transfers the plane of a worker holds open, and which wait until it has room. Decides nothing else.

An open transfer costs the plane memory for each of its items; without a bound, many intents at once would outgrow it.
"""

from __future__ import annotations

from collections.abc import Callable

from streams.core.names import ManifestId

ITEMS_MAX = 100_000
"""Of all transfers held open, at about 0.5 KB each; one transfer is held however many it has."""
TRANSFER_ITEMS = 100
"""What a transfer weighs beside its items."""


class Holding:
    """`opened`: the plane has said so. Held: it was told to open, and nothing has ended that since."""

    def __init__(self) -> None:
        self.opened: set[ManifestId] = set()
        self._held: dict[ManifestId, int] = {}
        self._waiting: dict[ManifestId, int] = {}
        """Partition of the transfers that wait, the longest first."""

    def may_hold(self, manifest: ManifestId, items: int, partition: int) -> bool:
        """Whether the plane may open this transfer too: the longest waiting one first."""
        if manifest in self._held:
            return True
        weight = items + TRANSFER_ITEMS
        first = next(iter(self._waiting), manifest)
        if self._held and (sum(self._held.values()) + weight > ITEMS_MAX or first != manifest):
            self._waiting.setdefault(manifest, partition)
            return False
        self._waiting.pop(manifest, None)
        self._held[manifest] = weight
        return True

    def gone(self, manifest: ManifestId) -> list[tuple[int, ManifestId]]:
        """The plane holds it no more; (partition, manifest) of those that may be asked now."""
        self.opened.discard(manifest)
        if self._held.pop(manifest, None) is None:
            return []
        return [(partition, waiting) for waiting, partition in self._waiting.items()]

    def ended(self, manifest: ManifestId) -> list[tuple[int, ManifestId]]:
        """As `gone`, and it waits for nothing either."""
        self._waiting.pop(manifest, None)
        return self.gone(manifest)

    def those(self, belong: Callable[[ManifestId], bool]) -> list[ManifestId]:
        return [manifest for manifest in {*self.opened, *self._held, *self._waiting} if belong(manifest)]

    def clear(self) -> None:
        """Another plane: it holds nothing."""
        self.opened.clear()
        self._held.clear()
        self._waiting.clear()
