"""Records in a partition that is not their key's: no worker that owns their row reads them there."""

from __future__ import annotations

from functools import lru_cache

from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import FindingList, Invariant, LogPosition

STRAYS_MAX = 1000
_partition_of = lru_cache(maxsize=65536)(topics.partition_of)


class Misplaced:
    """Looks at originals only: a mirror keeps partitions. `partitions`: of the federation, for its life."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._found: dict[LogPosition, int] = {}

    def pass_by(self, place: LogPosition, message: m.Message) -> None:
        wanted = _partition_of(m.key_of(message), self._partitions)
        if wanted != place.partition and not isinstance(message, m.DeadLetter) and len(self._found) < STRAYS_MAX:
            self._found[place] = wanted

    def judge(self, findings: FindingList) -> None:
        for place, wanted in sorted(self._found.items()):
            words = f"a record's key belongs in partition {wanted}: does its writer partition by murmur2?"
            findings.find(Invariant.NOT_SILENT, words, place)
