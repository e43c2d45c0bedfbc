"""Dead letters: which records they answer for, and letters that point at nothing."""

from __future__ import annotations

from collections.abc import Mapping, Set

from streams.core import messages as m
from streams.core.ledger.findings import Docket, Invariant, Place
from streams.core.ledger.journals import Journal, PartitionId


class Graves:
    """Offsets that dead letters of a site point at, by partition; memory grows with the letters."""

    def __init__(self) -> None:
        self._letters: dict[PartitionId, dict[int, tuple[Place, int]]] = {}

    def bury(self, place: Place, at_ms: int, letter: m.DeadLetter) -> None:
        """A site's dead letter speaks of that site's cluster only."""
        letters = self._letters.setdefault((place.site, letter.topic, letter.partition), {})
        before = letters.get(letter.offset)
        if before is None or place < before[0]:
            letters[letter.offset] = (place, at_ms)

    def of(self, partition: PartitionId) -> Set[int]:
        return self._letters.get(partition, {}).keys()

    def judge(self, journals: Mapping[PartitionId, Journal], young_ms: int, docket: Docket) -> None:
        """Letters past the end of what was read are false, unless written since `young_ms`, while we read."""
        for key, letters in sorted(self._letters.items()):
            _, topic, partition = key
            journal = journals.get(key)
            if journal is None and "chunks-to-" in topic:
                docket.cannot(Invariant.NOT_SILENT, "dead letters of payload records: not journals", len(letters))
                continue
            end = 0 if journal is None else journal.next_offset
            for offset, (place, at_ms) in sorted(letters.items()):
                if offset < end:
                    docket.check(Invariant.NOT_SILENT)
                elif at_ms < young_ms:
                    words = f"a dead letter points at {topic}[{partition}]@{offset}, which was never there"
                    docket.find(Invariant.NOT_SILENT, words, place)
