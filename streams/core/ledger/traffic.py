"""How many bytes arrived over which link on which day, by the last words of transfers. Counts, no verdicts.

A link is the manifest's source and the destination: what a relay gave on counts as the source's. A day is that of the
destination's clock when it said that the transfer has ended, in UTC; what is dated outside of the days that are asked
for is counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.core.ledger.claims import IntentClaims

DAY_MS = 86_400_000
LINKS_MAX = 4_000
"""Links that are told apart: 64 sites have as many; the bytes of more are counted together."""


class Link(NamedTuple):
    source: str
    destination: str


OTHERS = Link("others", "others")


@dataclass(slots=True)
class Traffic:
    """`days` behind one another, the last one `last_day` (days of the epoch): bytes by link and number of the day."""

    last_day: int
    days: int
    by_day: dict[Link, Counter[int]] = field(default_factory=dict)
    outside: int = 0
    """Bytes that are dated before or after these days."""

    def add(self, link: Link, at_ms: int, size: int) -> None:
        number = at_ms // DAY_MS - (self.last_day - self.days + 1)
        if not 0 <= number < self.days:
            self.outside += size
            return
        if link not in self.by_day and len(self.by_day) >= LINKS_MAX:
            link = OTHERS
        self.by_day.setdefault(link, Counter())[number] += size


def traffic_of(intents: Iterable[IntentClaims], last_day: int, days: int) -> Traffic:
    """Of each transfer the completion that counts."""
    found = Traffic(last_day, days)
    for row in intents:
        for manifest in row.manifests.values():
            written = manifest.written.first
            for destination, transfer in manifest.transfers.items():
                done = transfer.completions.first
                if written is not None and done is not None and done.word.bytes:
                    link = Link(str(written.word.source), str(destination.site))
                    found.add(link, done.at_ms, done.word.bytes)
    return found
