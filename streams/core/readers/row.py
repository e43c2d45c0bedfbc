"""One manifest at a reader: what its partition says was worked on, what this process adds, the last word. Pure.

What counts is a fold of the progress in one partition, in its order, and of nothing else: a process counts its own word
when it hears it back. The first record with which a manifest is done closes it, and later ones change nothing: so the
last word on it is the same, whoever says it. Readers that are stopped say so in the same partition, as an attempt that
fences the one before: what stands behind it counts for nobody.

    owed                 extinguished by
    progress             hearing it back, or a record that says as much
    the last word        hearing it; it is owed once the row is closed, so what it rests on is in the log before it

The row is memory: a process that begins folds it anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from streams.core import records as m
from streams.core.completion import completion
from streams.core.manifest import Manifest
from streams.core.names import Destination, Lfn, ManifestId, Text, shown
from streams.core.ranges import EMPTY, Ranges
from streams.core.transfer import TransferRow, merge_failed

ATTEMPT = 1
"""A reader has no part files. The attempts of an ordered one are processes (claims.py); a shared one has one only."""
STOPPED = ATTEMPT + 1
"""Of a shared reader: its intent was cancelled."""


class ReaderRow:
    """Positions are on the manifest's line, in entries; `endpoint` says in records which kind of reader speaks."""

    def __init__(self, body: m.ManifestWritten, destination: Destination, endpoint: str) -> None:
        self.manifest = Manifest(body)
        self.id: ManifestId = body.manifest
        self.destination, self.endpoint = destination, endpoint
        self.verified = EMPTY
        """Worked on, as the log says."""
        self.failed: dict[int, m.Reason] = {
            item: group.reason for group in self.manifest.unobtainable for item in group.items.numbers()
        }
        self.own = EMPTY
        """Worked on by this process, heard back or not."""
        self.given_up = dict(self.failed)
        """Items that failed, this process's word heard back or not."""
        self.completion: m.CompletionRecord | None = None
        """The last word, once it is fixed."""
        self.told = False
        """The last word was heard."""
        self._reported: tuple[int, int, str] = (0, 0, "")
        self._settle()

    @property
    def total(self) -> int:
        return self.manifest.line.total

    @property
    def closed(self) -> bool:
        """Whether nothing more is worked on."""
        return self.told or self.completion is not None

    def lfn(self, item: int) -> Lfn:
        return self.manifest.items[item].lfn

    # what happens

    def hear(self, said: m.TransferProgress, *, stopped: bool = False) -> None:
        """The next record of the partition that counts. Repeats of the latest ones change nothing."""
        if self.closed:
            return
        for group in said.failed:
            for item in group.items.numbers():
                if item < self.manifest.line.count and not self._worked_on(item):
                    self.failed.setdefault(item, group.reason)
                    self.given_up.setdefault(item, group.reason)
        self.verified = self.verified | said.verified
        self._settle(stopped)

    def close(self) -> None:
        """Its last word was heard."""
        self.told = True

    def stop(self) -> None:
        """No more of it is worked on: it ends with what is done."""
        if not self.closed:
            self._settle(stopped=True)

    def fail(self, item: int, reason: m.Reason) -> None:
        """An item that this process cannot have."""
        self.given_up.setdefault(item, reason)

    def _worked_on(self, item: int) -> bool:
        """Whether an item was worked on to its end before somebody called it failed."""
        return self.verified.covers(*self.manifest.line.span(item)) and not self.manifest.items[item].reason

    def _settle(self, stopped: bool = False) -> None:
        excused = self.manifest.line.ranges_of(Ranges.of(*self.failed))
        if stopped or (self.verified | excused).covers(0, self.total):
            self.completion = self._last_word()

    # what is told

    @property
    def unheard(self) -> bool:
        """Whether this process has worked on more than the log says."""
        return bool(self.own - self.verified) or self.lost.keys() != self.failed.keys()

    def fails_unheard(self, before: int) -> bool:
        """Whether an item that ends before a position failed and the log does not say so."""
        line = self.manifest.line
        return any(item not in self.failed and line.span(item)[1] <= before for item in self.given_up)

    def progress(self, attempt: int = ATTEMPT) -> m.TransferProgress:
        """All that is worked on, as a record: it says what every earlier one said."""
        verified, lost = self.verified | self.own, self.lost
        sealed = self._sealed(verified, lost)
        return m.TransferProgress(self.id, self.destination, attempt, self.endpoint, verified, sealed, _grouped(lost))

    def report(
        self, decision_no: int, waits_for: str, reason: m.Reason | None = None, *, anyway: bool = False
    ) -> m.TransferReported | None:
        """How far it is, in numbers, and what it waits for, unless that was said (`anyway`: also then).

        `verified` is in entries, `sealed` and `failed` in items. `reason`: why it waits, where nothing failed.
        """
        verified, lost = self.verified | self.own, self.lost
        stands = (verified.size, len(lost), waits_for)
        if stands == self._reported and not anyway:
            return None
        self._reported = stands
        return m.TransferReported(
            intent=self.manifest.body.intent,
            manifest=self.id,
            destination=self.destination,
            decision_no=decision_no,
            state="active",
            verified=verified.size,
            total=self.total,
            sealed=self._sealed(verified, lost).size,
            failed=len(lost),
            items=len(self.manifest.items),
            waits_for=Text(shown(waits_for, 390)),
            reason=next(iter(lost.values()), reason),
            unit=m.Unit.ENTRIES,
        )

    @property
    def lost(self) -> dict[int, m.Reason]:
        """Items that failed, as is heard or, where nothing else is, as this process says."""
        own = {item: reason for item, reason in self.given_up.items() if not self._worked_on(item)}
        return own | self.failed

    def _sealed(self, verified: Ranges, lost: Collection[int]) -> Ranges:
        """Items of which all was worked on and that did not fail."""
        everything = Ranges([(0, len(self.manifest.items))])
        return self.manifest.line.covered(verified, everything) - Ranges.of(*lost)

    def _last_word(self) -> m.CompletionRecord:
        """A pure function of what was worked on. No file is kept, so its bytes are those of the manifest's estimate."""
        sealed, count = self._sealed(self.verified, self.failed), len(self.manifest.items)
        row = TransferRow(self.id, planned=True, items=count, sealed=sealed, failed=_grouped(self.failed))
        size = sum(self.manifest.items[n].bytes for n in sealed.numbers())
        return replace(completion(row, self.manifest.index, self.destination), bytes=size)


def _grouped(lost: Mapping[int, m.Reason]) -> tuple[m.FailedItems, ...]:
    return merge_failed(m.FailedItems(Ranges.of(item), reason) for item, reason in lost.items())
