"""I5, as a note: progress of an older attempt that came after a newer one's. Ignored by design; worth a look."""

from __future__ import annotations

from streams.core import records as m
from streams.core.ledger.findings import FindingList, Invariant, LogPosition
from streams.core.ledger.numbering import Class

NOTES_MAX = 1000


class StaleAttempts:
    """Counts progress; remembers the late ones of an older attempt."""

    def __init__(self) -> None:
        self._heard = 0
        self._late: dict[LogPosition, str] = {}

    def pass_by(self, place: LogPosition, progress: m.TransferProgress, how: Class) -> None:
        self._heard += 1
        if how is Class.SUPERSEDED and len(self._late) < NOTES_MAX:
            self._late[place] = (
                f"progress of attempt {progress.attempt} of {progress.manifest} came after a newer attempt's"
            )

    def judge(self, findings: FindingList) -> None:
        findings.check(Invariant.FENCING, self._heard)
        for place, words in sorted(self._late.items()):
            findings.note(Invariant.FENCING, words, place)
