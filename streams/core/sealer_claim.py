"""Which process may seal for a site: the one whose announcement stands first in the partition, as long as it lives.

All announcements of a site stand in one partition, so that all who claim agree on their order. A claim lives for some
announcements that do not come; who has not heard its own for less than that makes no seal. Pure: times are arguments,
those of records in ms of the epoch, as they stand in the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streams.core import records as m
from streams.core.names import Site

SEALER = "sealer"
"""Role, and name, of who announces that it seals."""
EVERY_S = 60
"""A claim is said again so often,"""
LIVES_MS = 3 * EVERY_S * 1000
"""holds for others so long,"""
TRUSTED_S = 2.0 * EVERY_S
"""and for who made it so long from when it was sent."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another process that seals: which, where it said so last, and until when (ms) that holds."""

    incarnation: str
    where: str
    until_ms: int


class SealerClaim:
    """`dead`: incarnations that are known to have ended, as those that had this machine's lock before."""

    def __init__(self, site: Site, dead: Iterable[str] = ()) -> None:
        self._site, self._dead = site, frozenset(dead)
        self._own: set[str] = set()
        self._rivals: dict[str, Rival] = {}
        self._until_ms = 0
        self._sent_s: float | None = None
        self._trusted_from_s: float | None = None
        self.winner: Rival | None = None
        """Who seals instead, once that is known."""

    def send(self, incarnation: str, now_s: float) -> None:
        """The process is about to announce itself under this name. `now_s`: of any steady clock."""
        self._own.add(incarnation)
        self._sent_s = now_s

    def is_due(self, now_s: float) -> bool:
        """Whether to announce now."""
        return self._sent_s is None or now_s - self._sent_s >= EVERY_S

    def may_seal(self, now_s: float) -> bool:
        """Whether a claim that was heard back is young enough."""
        since_s = self._trusted_from_s
        return self.winner is None and since_s is not None and now_s - since_s <= TRUSTED_S

    def hear(self, said: m.SiteAnnounced, where: str, logged_ms: int) -> None:
        """The next announcement of the site's partition, and where it stands."""
        if said.site != self._site or said.role != SEALER or said.incarnation in self._dead:
            return
        if said.closing:
            self._rivals.pop(said.incarnation, None)
        elif said.incarnation in self._own:
            self._heard_back(logged_ms)
        else:
            rival = Rival(said.incarnation, where, logged_ms + LIVES_MS)
            if self._trusted_from_s is not None and logged_ms > self._until_ms:
                self.winner = rival  # ours had run out by then
            elif self._trusted_from_s is None:
                self._rivals[said.incarnation] = rival

    def _heard_back(self, logged_ms: int) -> None:
        before = max(self._rivals.values(), key=lambda rival: rival.until_ms, default=None)
        if before is not None and before.until_ms >= logged_ms:
            self.winner = before
            return
        self._rivals.clear()
        self._until_ms = max(self._until_ms, logged_ms + LIVES_MS)
        self._trusted_from_s = self._sent_s
