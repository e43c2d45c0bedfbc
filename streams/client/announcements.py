"""Who is alive: the latest announcement of every writer of every site, folded in memory. Pure; no clock here.

Of an incarnation the latest word counts, by the clock of its site's broker, and closing is the last one (a later
incarnation may say it): one writer with a wrong clock must not make the others of its site look old. What a site said
over a day before its newest word is forgotten, so that short-lived writers do not pile up.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

from streams.core.names import Site
from streams.core.records import Origin, SiteAnnounced
from streams.wire.release import UNTOLD

REMEMBERED_MS = 24 * 3600 * 1000
MISSED_MAX = 3
"""Announcements a living writer may miss: one lost, one late."""


WriterKey = tuple[str, str, str]
"""Site, writer, incarnation."""


@dataclass(frozen=True, slots=True)
class LiveWriter:
    """An incarnation's latest word. `at_ms`: when its site's broker took that; `seq`: the record's number.

    `release`: what its writer runs.
    """

    site: Site
    writer: str
    incarnation: str
    role: str
    api: str
    registry_digest: str
    peers: tuple[Site, ...]
    endpoints: tuple[str, ...]
    every_s: int
    closing: bool
    at_ms: int
    seq: int
    release: int = UNTOLD
    door: str = ""

    @property
    def key(self) -> WriterKey:
        return self.site, self.writer, self.incarnation

    @property
    def order(self) -> tuple[bool, int, int]:
        return self.closing, self.at_ms, self.seq

    def age_s(self, now_ms: int) -> float:
        """Seconds since; 0 when the broker's clock is ahead of ours."""
        return max(0, now_ms - self.at_ms) / 1000

    def alive(self, now_ms: int) -> bool:
        return not self.closing and self.age_s(now_ms) <= MISSED_MAX * max(1, self.every_s)


_TOLD = [name for name in LiveWriter.__slots__ if name not in ("at_ms", "seq", "release")]
"""Fields of the record that are remembered."""


class Announcements:
    """The latest words, in memory. One thread hears, any may ask."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[WriterKey, LiveWriter] = {}

    def take(
        self, fact: SiteAnnounced, origin: Origin, at_ms: int, release: int = UNTOLD
    ) -> dict[WriterKey, LiveWriter | None]:
        """Hear an announcement, written at `at_ms`; returns what is known anew, None for what is forgotten."""
        told = {name: getattr(fact, name) for name in _TOLD}
        said = LiveWriter(**told, at_ms=at_ms, seq=origin.seq, release=release)
        key, changes = said.key, dict[WriterKey, LiveWriter | None]()
        with self._lock:
            before = self._known.get(key)
            if before is not None and before.order >= said.order:
                return changes
            self._known[key] = changes[key] = said
            of_site = {k: a for k, a in self._known.items() if a.site == said.site}
            newest_ms = max(a.at_ms for a in of_site.values())
            for k, a in of_site.items():
                if a.at_ms < newest_ms - REMEMBERED_MS:
                    del self._known[k]
                    changes[k] = None
        return changes

    def forget(self) -> None:
        with self._lock:
            self._known.clear()

    def announced(self, site: Site | None = None, *, role: str | None = None) -> list[LiveWriter]:
        """Everything remembered, closed and silent writers too: by site, newest first."""
        with self._lock:
            found = [
                a for a in self._known.values() if (site is None or a.site == site) and (role is None or a.role == role)
            ]
        return sorted(found, key=lambda a: (a.site, -a.at_ms, a.writer, a.incarnation))

    def alive(self, site: Site | None, now_ms: int, *, role: str | None = None) -> list[LiveWriter]:
        """Writers that announced themselves in time and did not close, each with its newest incarnation: one that
        was killed and started anew is one. The latest heard first.
        """
        newest: dict[tuple[str, str, str], LiveWriter] = {}
        for a in self.announced(site, role=role):
            if a.alive(now_ms):
                newest.setdefault((a.site, a.role, a.writer), a)
        return list(newest.values())

    def with_other_digest(self, site: Site, digest: str, now_ms: int, *, role: str | None = None) -> list[LiveWriter]:
        return [a for a in self.alive(site, now_ms, role=role) if a.registry_digest != digest]
