"""Removing files that a step of the site's chain removes: deleted under the lock of the name, made durable, then said.

A file of another version is left alone; its removal is over all the same, and takes back the words that it names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from streams.core.keeping import gates
from streams.core.keeping.chains import CountedRemoval
from streams.core.names import Site, Text, shown
from streams.core.records import FailureClass, FilesLost, Reason, Scope, TakenWords
from streams.errors import StorageError
from streams.planes.orders import Remove
from streams.storage.endpoint import WritableStorage

log = logging.getLogger("streams.planes.destination.removing")

_REASON_CHARS = 390


def removed(here: Site, storage: WritableStorage, order: Remove, worker: Callable[[], str]) -> FilesLost | None:
    """The end of those removals of an order that have ended; None where none has. The others are owed again.

    `worker`: the process above this one now, "" once it is gone.
    """
    of: dict[str, CountedRemoval] = {removal.lfn: removal for removal in order.removals}
    stopped: set[str] = set()

    def why_not(lfn: str, version: str) -> str | None:
        above = worker()
        if above != order.ordered_by:
            stopped.add(lfn)
        return gates.why_no_unlink(of[lfn], version, ordered_by=order.ordered_by, worker=above, locked=True)

    ended = []
    answers = storage.remove_group(list(of), why_not)
    for removal, answer in zip(order.removals, answers, strict=True):
        if isinstance(answer, StorageError):
            log.warning("%s is not removed: %s", removal.lfn, answer)
        elif removal.lfn not in stopped:
            if answer is not None:
                log.warning("%s stays on the disk: %s", removal.lfn, answer)
            ended.append(removal)
    if not ended:
        return None
    return FilesLost(
        order.dataset,
        here,
        tuple(removal.lfn for removal in ended),
        Reason(Scope.POLICY, FailureClass.PERMANENT, "remove", Text(shown(order.reason, _REASON_CHARS))),
        ended[0].endpoint,
        tuple(TakenWords(removal.words) for removal in ended),
        ended[0].sha256,
    )
