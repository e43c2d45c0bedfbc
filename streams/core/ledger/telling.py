"""Findings of one judgement after the other: each is told once. Bounded memory; times are arguments.

A finding is the same as before where its invariant, its words and the records that it names are, but for what words say
of the time that has passed, of a length that grows, and of what only the second reading knows.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from streams.core.ledger.findings import Finding, Invariant

TOLD_MAX = 10_000
"""Findings that are remembered as told: 200 bytes each. Of more, new ones are counted."""
FORGET_MS = 24 * 3_600_000
"""What was not found for so long is forgotten, and told again where it is found again."""
_PASSING = re.compile(
    r"for [\d,]+ s\b|[\d,.]+ hours old|\(\d+ min\)|it has \d+ records|^.* (?=has two contents)|[\d,]+ more\b"
    r"|when the auditor's (?:clock )?says \S+"
)


def name_of(finding: Finding) -> bytes:
    """The same (16 bytes) as long as the finding is."""
    # Gaps have their neighbours from the second reading; a note on age has the newest record.
    named = () if finding.invariant is Invariant.NO_GAP else finding.records[:1]
    words = _PASSING.sub("…", finding.words)
    said = "\n".join((finding.invariant, finding.severity, words, *map(str, named)))
    return blake2b(said.encode("utf-8", "backslashreplace"), digest_size=16).digest()


class ToldFindings:
    """What was told, and when it was found last. `is_full`: a finding was not told, since there is no room for it."""

    def __init__(self) -> None:
        self._told: OrderedDict[bytes, int] = OrderedDict()
        self.is_full = False

    def kept(self) -> tuple[Any, ...]:
        return self._told, self.is_full

    def go_on(self, kept: tuple[Any, ...]) -> None:
        self._told, self.is_full = kept

    def news(self, findings: Iterable[Finding], now_ms: int) -> list[Finding]:
        """Those that were not told yet; of the others it is noted that they were found again."""
        fresh = []
        for finding in findings:
            if (name := name_of(finding)) in self._told:
                self._told[name] = now_ms
                self._told.move_to_end(name)
            else:
                fresh.append(finding)
        return fresh

    def tell(self, finding: Finding, now_ms: int) -> bool:
        """Whether to tell it: it was not told, and there is room to remember that."""
        name = name_of(finding)
        if name in self._told:
            return False
        while self._told and next(iter(self._told.values())) < now_ms - FORGET_MS:
            self._told.popitem(last=False)
        self.is_full = len(self._told) >= TOLD_MAX
        if self.is_full:
            return False
        self._told[name] = now_ms
        return True
