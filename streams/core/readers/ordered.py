"""An intent read in order by one process: its manifests in the order of their chain, each from its start. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from streams.core import records as m
from streams.core.intent import State
from streams.core.names import Destination, IntentId, ManifestId
from streams.core.ranges import EMPTY, Ranges
from streams.core.readers.reader import IntentReader, Known
from streams.core.readers.row import ReaderRow
from streams.core.readers.window import RETRY_MS, Ask, Came, FetchWindow
from streams.errors import InvalidName, UsageError

REQUESTS = 4
"""What may be ahead is asked for in so many parts, so that one is on its way while another is worked on."""


class OrderedReader(IntentReader[ReaderRow]):
    """`position` is where an earlier process stood, as `position()` says it; None: each manifest asks the log."""

    exclusive = True
    endpoint = "stream"

    def __init__(self, known: Known, destination: Destination, ahead_bytes: int, position: str | None) -> None:
        super().__init__(known, destination)
        self.ahead_bytes = ahead_bytes
        self._windows: dict[ManifestId, FetchWindow] = {}
        """Of open rows, in the order of the chain."""
        self._attempt = 0
        self._handed = ""
        self._fails_unheard = False
        self._unclaimed: list[ReaderRow] = []
        self._given = None if position is None else _parsed(position, known.row.intent)

    @property
    def over(self) -> bool:
        """Whether no more can come: all manifests are known and gone through, or the intent was stopped."""
        return self.stopped or (self.all_known and all(window.over for window in self._windows.values()))

    # what is heard

    def _row(self, body: m.ManifestWritten) -> ReaderRow:
        return ReaderRow(body, self.destination, self.endpoint)

    def _enter(self, row: ReaderRow, told: Sequence[m.TransferProgress], attempt: int) -> None:
        self._attempt = attempt
        self._unclaimed.append(row)
        for said in told:
            # a position that is given stands for what earlier processes said: they may have been ahead of it
            self.hear_progress(said if self._given is None else replace(said, verified=EMPTY, sealed=EMPTY))
        window = self._windows[row.id] = FetchWindow(row.manifest, row.given_up)
        if self._is_completed(row.id):
            row.close()
            self.let_go(row)
            return
        window.at = self._begin(row)
        row.own = Ranges([(0, window.at)])

    def _begin(self, row: ReaderRow) -> int:
        if self._given is None:
            return min(row.total, row.verified.spans[0][1]) if row.verified else 0
        source_no, no, at = self._given
        body = row.manifest.body
        if (body.source_no, body.no) == (source_no, no):
            return min(row.total, at)
        return row.total if (body.source_no, body.no) < (source_no, no) else 0

    def read_otherwise(self, endpoint: str) -> str:
        return f"workers share {self.destination}, by `transfer2go event work`"

    def windows(self, manifest: ManifestId) -> Iterable[FetchWindow]:
        window = self._windows.get(manifest)
        return () if window is None else (window,)

    # what is handed out

    def next(self) -> tuple[ReaderRow, Came, int] | None:
        """(row, segment, the position in it that is next), in the order of the manifests and of their lines.

        Nothing behind an item that failed before the log has heard that it did: whoever goes on from a position behind
        it would take it for worked on.
        """
        self._fails_unheard = False
        if self.stopped:
            return None
        for manifest, window in self._windows.items():
            row, over = self.open[manifest], window.over
            if row.fails_unheard(window.at):
                self._fails_unheard = True
                return None
            if over:
                continue
            start = window.at
            if (came := window.next()) is None:
                return None
            self._handed = f"{manifest}@{came.stop}"
            return row, came, max(start, came.start)
        return None

    def worked(self) -> None:
        """What was handed out so far has been worked on, and what failed behind it needs no work."""
        for manifest, window in self._windows.items():
            if not window.over and window.untouched:
                return
            self.open[manifest].own = Ranges([(0, window.at)])

    def fail(self, manifest: ManifestId, item: int, reason: m.Reason) -> None:
        for window in self.windows(manifest):
            window.fail(item, reason)

    def position(self) -> str:
        """Behind what was handed out last, "" before that."""
        return self._handed

    # what is owed

    @property
    def urgent(self) -> bool:
        """What comes next is handed out once the log knows what failed before it."""
        return self._fails_unheard

    def asks(self, now_ms: int, lease_ms: int, retry_ms: int = RETRY_MS) -> list[Ask]:
        """What to ask for now: in order, and never more than `ahead_bytes` before it is worked on.

        What was asked for once has its room already: a hole before what came would else never be filled.
        """
        out: list[Ask] = []
        share = max(1, self.ahead_bytes // REQUESTS)
        held = sum(window.held_bytes for window in self._windows.values())
        for window in self._windows.values():
            while not window.over:
                more = self.ahead_bytes - held >= share  # less would be a request for every batch
                if window.untouched and not more:
                    return out
                before = window.held_bytes
                if (asked := window.ask(share, now_ms, lease_ms, retry_ms, more=more)) is None:
                    break
                held += window.held_bytes - before
                out.append(asked)
        return out

    def owed(self, row: ReaderRow) -> m.TransferProgress | m.CompletionRecord | None:
        """Of a cancelled intent the last word follows the place, once that is heard; nothing follows the last word."""
        if row.completion is None and row.unheard:
            return row.progress(self._attempt)
        if self.state is State.CANCELLED:
            row.stop()
        return row.completion if self._windows[row.id].over or self.state is State.CANCELLED else None

    def let_go(self, row: ReaderRow) -> None:
        super().let_go(row)
        del self._windows[row.id]

    def claims(self) -> list[m.TransferProgress]:
        """What says that the name is this process's now: its place in the manifests entered since the last call that
        are open, or in the last one that is not."""
        found, self._unclaimed = self._unclaimed, []
        return [row.progress(self._attempt) for row in [row for row in found if not row.told] or found[-1:]]

    def _stands(self, retry_ms: int) -> Iterable[tuple[ReaderRow, str, m.Reason | None]]:
        for manifest, window in self._windows.items():
            refused = window.refused_next
            words = f"{self.destination} to read on" if refused is None else window.waits_for(retry_ms)
            yield self.open[manifest], words, None if refused is None else refused.reason

    def waits_for(self, retry_ms: int = RETRY_MS) -> str:
        if self._fails_unheard:
            return f"the log of {self.destination.site} to take what failed"
        for window in self._windows.values():
            if not window.over:
                return window.waits_for(retry_ms)
        return self.waits_to_begin()


def _parsed(position: str, intent: IntentId) -> tuple[int, int, int]:
    manifest, _, at = position.partition("@")
    try:
        name = ManifestId(manifest)
        found = name.source_no, name.no, int(at)
    except (ValueError, InvalidName) as error:
        raise UsageError(f"not a position: {position!r}", next="give back what a batch said") from error
    if name.intent != intent:
        raise UsageError(f"the position is one of {name.intent}", next=f"this stream reads {intent}")
    return found
