"""Refused records written in another site's name: told with both names, answered by a dead letter or not."""

from __future__ import annotations

from collections.abc import Collection

from streams.core.ledger.findings import FindingList, Invariant, LogPosition
from streams.core.names import Site

NOTED_MAX = 1000


class Forgeries:
    def __init__(self) -> None:
        self._found: dict[LogPosition, tuple[Site, str]] = {}
        self._more = 0

    def add(self, place: LogPosition, writer: Site, speaks_for: Site, reason: str) -> None:
        """`writer`: the site in whose journal it stands."""
        if len(self._found) < NOTED_MAX:
            self._found[place] = writer, f"{writer} speaks for {speaks_for}: {reason}"
        else:
            self._more += 1

    def judge(self, read: Collection[Site], findings: FindingList) -> None:
        """A note for each original; for a copy only where the original was not read."""
        for place, (writer, words) in sorted(self._found.items()):
            if place.site == writer or writer not in read:
                findings.note(Invariant.NOT_SILENT, words, place)
        if self._more:
            findings.note(Invariant.NOT_SILENT, f"{self._more} more records that speak for another site")
