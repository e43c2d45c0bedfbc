"""Which journals were read from their first record to their last: only of those does an absence prove anything."""

from __future__ import annotations

from collections.abc import Iterable

from streams.core.names import Site


class Coverage:
    """Journals by site and topic, as it is named there. `read`: sites of which anything was read."""

    def __init__(self, read: Iterable[Site]) -> None:
        self.read = frozenset(read)
        self._lost: set[tuple[Site, str]] = set()

    @property
    def whole(self) -> frozenset[Site]:
        return self.read - {site for site, _ in self._lost}

    def has(self, site: Site, topic: str) -> bool:
        return site in self.read and (site, topic) not in self._lost

    def lose(self, site: Site, topic: str | None = None) -> None:
        """A journal (every journal of the site) is not there whole: what was heard counts, the rest is unknown."""
        if topic is None:
            self.read -= {site}
        else:
            self._lost.add((site, topic))
