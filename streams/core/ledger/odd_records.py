"""Single records that are odd, noted as they pass by: in a wrong partition, of an old attempt, in another's name."""

from __future__ import annotations

from collections.abc import Collection

from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import FindingList, Invariant, LogPosition
from streams.core.names import ManifestId, Site

KEPT_MAX = 1000
"""Of each kind."""


class OddRecords:
    """`partitions`: of the federation, for its life."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self._misplaced: dict[LogPosition, str] = {}
        """In a partition that is not their key's: no worker that owns their row reads them there."""
        self._late: dict[LogPosition, str] = {}
        """Progress of an older attempt behind a newer one's: ignored by design, worth a look."""
        self._forged: dict[LogPosition, str] = {}
        """Refused, and written in another site's name."""
        self._progress = self._more_forged = 0

    def pass_by(self, place: LogPosition, message: m.Message | m.PlanOutline) -> None:
        """An original that passed the gate; a mirror keeps partitions."""
        wanted = topics.partition_of(m.key_of(message), self.partitions)
        if wanted != place.partition and not isinstance(message, m.DeadLetter) and len(self._misplaced) < KEPT_MAX:
            words = f"a record's key belongs in partition {wanted}: does its writer partition by murmur2?"
            self._misplaced[place] = words
        if isinstance(message, m.TransferProgress):
            self._progress += 1

    def late(self, place: LogPosition, attempt: int, manifest: ManifestId) -> None:
        """An original that is superseded."""
        if len(self._late) < KEPT_MAX:
            self._late[place] = f"progress of attempt {attempt} of {manifest} came after a newer attempt's"

    def forged(self, place: LogPosition, writer: Site, speaks_for: Site, reason: str) -> None:
        """`writer`: the site in whose journal it stands."""
        if len(self._forged) < KEPT_MAX:
            self._forged[place] = f"{writer} speaks for {speaks_for}: {reason}"
        else:
            self._more_forged += 1

    def absorb(self, other: OddRecords) -> None:
        """Know also what another ledger read."""
        for mine, theirs in (
            (self._misplaced, other._misplaced),
            (self._late, other._late),
            (self._forged, other._forged),
        ):
            for place, words in theirs.items():
                if len(mine) < KEPT_MAX:
                    mine[place] = words
        self._progress += other._progress
        self._more_forged += other._more_forged

    def judge(self, read: Collection[Site], findings: FindingList) -> None:
        """Of forged records a note for each original; for a copy only where the original was not read."""
        findings.check(Invariant.FENCING, self._progress)
        for place, words in sorted(self._misplaced.items()):
            findings.find(Invariant.NOT_SILENT, words, place)
        for place, words in sorted(self._late.items()):
            findings.note(Invariant.FENCING, words, place)
        for place, words in sorted(self._forged.items()):
            writer, _ = topics.split(place.topic)
            if writer is None or writer not in read:
                findings.note(Invariant.NOT_SILENT, words, place)
        if self._more_forged:
            findings.note(Invariant.NOT_SILENT, f"{self._more_forged} more records that speak for another site")
