"""Saying that a site has lost files, each by the words that were known of it when it was looked for, and no later ones.

Said again it changes nothing: words that were taken back stay so. What landed or was registered since has words of its
own, and stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streams.auditing.replicas import AuditedReplica
from streams.core import records as m
from streams.core.names import Dataset, Lfn, Site, Text, shown
from streams.core.policy import RECORD_BYTES_MAX
from streams.core.records.limits import FILES_MAX, WORDS_MAX
from streams.errors import Temporary
from streams.kafka.publish import Publisher

ACK_S = 30.0
_REASON_CHARS = 390
_BATCH_BYTES = RECORD_BYTES_MAX - 4096
"""Below the cap by the record's other fields."""
_PENDING_FILES_MAX = 20_000
"""Over all datasets; of more, those of the dataset that has most are said."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Files of one dataset that one record says."""

    dataset: Dataset
    replicas: tuple[AuditedReplica, ...]

    def record(self, site: Site, reason: m.Reason) -> m.FilesLost:
        lfns = tuple(Lfn(one.lfn) for one in self.replicas)
        taken = tuple(m.TakenWords(one.words[:WORDS_MAX]) for one in self.replicas)
        return m.FilesLost(self.dataset, site, lfns, reason, taken=taken)


def batches(lost: Iterable[AuditedReplica]) -> Iterator[Batch]:
    """Of at most 1,000 files of one dataset each, and of what a record may hold."""
    pending: dict[str, list[AuditedReplica]] = {}
    sizes: dict[str, int] = {}
    count = 0

    def take(dataset: str) -> Batch:
        nonlocal count
        some = pending.pop(dataset)
        del sizes[dataset]
        count -= len(some)
        return Batch(Dataset(dataset), tuple(some))

    for one in lost:
        size = len(one.lfn) + sum(map(len, one.words[:WORDS_MAX])) + 16 * (len(one.words) + 1)
        full = len(pending.get(one.dataset, ())) >= FILES_MAX or sizes.get(one.dataset, 0) + size > _BATCH_BYTES
        if one.dataset in pending and full:
            yield take(one.dataset)
        pending.setdefault(one.dataset, []).append(one)
        sizes[one.dataset] = sizes.get(one.dataset, 0) + size
        count += 1
        if count >= _PENDING_FILES_MAX:
            yield take(max(pending, key=lambda dataset: len(pending[dataset])))
    while pending:
        yield take(next(iter(pending)))


def reason(phase: str, why: str) -> m.Reason:
    """Of a loss that no removal is: `phase` says which program found it."""
    return m.Reason(m.Scope.DESTINATION, m.FailureClass.DATA_BAD, phase, Text(shown(why, _REASON_CHARS)))


def say(publisher: Publisher, lost: m.FilesLost) -> None:
    """Publish it, and wait until the broker has it. Temporary where it does not take it."""
    answers: list[Exception | None] = []
    publisher.send(lost, answers.append)
    publisher.flush(ACK_S)
    if not answers or answers[0] is not None:
        why = f": {answers[0]}" if answers else ""
        more = f" and {len(lost.lfns) - 1} more" if len(lost.lfns) > 1 else ""
        what = f"the broker of {lost.site} did not take that {lost.lfns[0]}{more} is lost{why}"
        raise Temporary(what, next="run it again")
