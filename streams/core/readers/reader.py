"""What whoever reads an intent knows of it, and what a session asks of an ordered and of a shared reader. Pure.

The facts of an intent come in here in any order, as they come to an agent; what counts is decided as it is there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

from streams.core import chain as chains
from streams.core import intent as machine
from streams.core import records as m
from streams.core.chain import Counts, Link, Memory
from streams.core.intent import IntentRow, State
from streams.core.names import Destination, IntentId, Lfn, ManifestId
from streams.core.readers.row import ReaderRow
from streams.core.readers.window import Ask, FetchWindow
from streams.errors import NeverWorks, PartlyDone, TransferFailed


class Known:
    """What is heard of an intent, before it is known who reads it."""

    def __init__(self, intent: IntentId) -> None:
        self.row = IntentRow(intent)
        self.counted = 0
        """Manifests that count."""
        self.new: dict[ManifestId, m.ManifestWritten] = {}
        """Those that nobody took in yet, in the order of their chain, in which they come to count."""
        self.written_ms: dict[ManifestId, int] = {}
        """When these were written."""
        self._early: Memory[Link] = Memory()
        self._bodies: dict[str, tuple[m.ManifestWritten, int]] = {}
        """By digest: of manifests that count later, with when they were written."""

    def hear(self, message: m.Message, at_ms: int) -> None:
        match message:
            case m.ManifestWritten():
                link = Link.of(message)
                if self.row.counts(message) is not Counts.NEVER:
                    self._bodies.setdefault(link.sha256, (message, at_ms))
                self._count(chains.hear(self.row.chain, self.row.decision, link, self._early)[1])
            case m.TransferIntent() | m.IntentAsked() | m.IntentDecided() | m.TransferReported():
                self.row = machine.fold(self.row, message)
                self._count(chains.waited(self.row.chain, self.row.decision, self._early)[1])
            case m.CompletionRecord():
                self.row = machine.fold(self.row, message)

    def taken(self, manifest: ManifestId) -> None:
        """Who reads it keeps it from now on."""
        self.new.pop(manifest, None)
        self.written_ms.pop(manifest, None)

    def _count(self, links: list[Link]) -> None:
        for link in links:
            self.new[link.manifest], self.written_ms[link.manifest] = self._bodies.pop(link.sha256)
            self.counted += 1
            self.row = machine.follow(self.row, link)


Row = TypeVar("Row", bound=ReaderRow)


class IntentReader(ABC, Generic[Row]):
    """A destination that keeps nothing: `SITE/NAME` of an intent, its rows by manifest and what it fetches of them."""

    exclusive: ClassVar[bool]
    """Whether one process at a time reads under its name; else others of the name are at work beside it."""
    endpoint: ClassVar[str]
    """Which kind of reader speaks, as its records say."""

    def __init__(self, known: Known, destination: Destination) -> None:
        self.known, self.destination = known, destination
        self.open: dict[ManifestId, Row] = {}
        """Manifests that were entered and whose last word is not heard."""
        self.entered = 0
        """Manifests, those that ended included: of these only what failed is kept."""
        self._lost: list[tuple[Lfn, m.Reason]] = []
        """Of manifests that ended."""
        self._read_some = False
        """Whether anything of one that ended did not fail."""
        self._has_come = False

    # the intent

    @property
    def state(self) -> State:
        return self.known.row.state

    @property
    def stopped(self) -> bool:
        return self.state in (State.REFUSED, State.CANCELLED)

    @property
    def all_known(self) -> bool:
        """Whether no manifest will be written that is not entered."""
        return self.known.row.chain.last and self.entered == self.known.counted

    def new(self) -> list[m.ManifestWritten]:
        """Manifests that count and are not entered yet."""
        return list(self.known.new.values())

    def check_end(self, missed: str) -> None:
        """Raises unless everything arrived: NeverWorks, TransferFailed or PartlyDone. `missed`: what was not done."""
        intent, decision = self.known.row.intent, self.known.row.decision
        why = decision.reason.text if decision is not None and decision.reason is not None else "no reason given"
        if self.state is State.REFUSED:
            raise NeverWorks(f"{intent} was refused: {why}")
        if self.state is State.CANCELLED:
            raise TransferFailed(f"{intent} was cancelled: {why}")
        if failed := self.failed():
            lfn, reason = failed[0]
            more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            some = self._read_some or any(_read_some(row) for row in self.open.values())
            kind = PartlyDone if some else TransferFailed
            raise kind(f"{missed}: {lfn}: {reason.text}{more}", where=str(self.destination))

    def failed(self) -> list[tuple[Lfn, m.Reason]]:
        """Files that could not be read, or not all of them, so far."""
        return self._lost + [lost for row in self.open.values() for lost in _lost(row)]

    def waits_to_begin(self) -> str:
        """Whom it waits for while nothing of a manifest is known, "" once all is."""
        row = self.known.row
        if row.decision is None:
            return f"{row.intent.home} to decide"
        return "" if self.all_known else f"{row.decision.source} to write its manifests"

    # what is heard

    def enter(self, body: m.ManifestWritten, told: Sequence[m.TransferProgress], attempt: int) -> None:
        """Takes a manifest in; `told` is what counts of what the log says of the way through it, in order."""
        row = self.open[body.manifest] = self._row(body)
        self.entered += 1
        self.known.taken(body.manifest)
        self._enter(row, told, attempt)

    @abstractmethod
    def _row(self, body: m.ManifestWritten) -> Row: ...

    @abstractmethod
    def _enter(self, row: Row, told: Sequence[m.TransferProgress], attempt: int) -> None: ...

    def hear_progress(self, said: m.TransferProgress) -> None:
        """The next record of a manifest's partition that counts. NeverWorks for one of another kind of reader."""
        if said.endpoint != self.endpoint:
            raise NeverWorks(self.read_otherwise(said.endpoint), next="publish an intent for a name of its own")
        if (row := self.open.get(said.manifest)) is not None:
            row.hear(said)

    @abstractmethod
    def read_otherwise(self, endpoint: str) -> str:
        """In words: another kind of reader has the name."""

    @abstractmethod
    def windows(self, manifest: ManifestId) -> Iterable[FetchWindow]:
        """What is fetched of a manifest."""

    def take(self, header: m.ChunkHeader, segment: m.Segment, payload: bytes, now_ms: int, lease_ms: int) -> None:
        for window in self.windows(header.manifest):
            window.take(header, segment, payload, now_ms, lease_ms)

    def served(self, header: m.ChunkHeader, now_ms: int) -> None:
        for window in self.windows(header.manifest):
            window.served(header.request_no, now_ms)

    # what is owed

    @property
    @abstractmethod
    def urgent(self) -> bool:
        """Whether something waits for what it has to tell."""

    @abstractmethod
    def asks(self, now_ms: int, lease_ms: int, retry_ms: int) -> Sequence[Ask]:
        """What is to be asked for now."""

    def tells(self) -> list[m.TransferProgress | m.CompletionRecord]:
        """What the log should know by now and does not: how far it is, and last words."""
        out: list[m.TransferProgress | m.CompletionRecord] = []
        for manifest, row in list(self.open.items()):
            if self._is_completed(manifest):
                row.close()
                self.let_go(row)
            elif (said := self.owed(row)) is not None:
                out.append(said)
        return out

    def _is_completed(self, manifest: ManifestId) -> bool:
        return self.known.row.is_closed(manifest, self.destination)

    def let_go(self, row: Row) -> None:
        """Its last word was heard."""
        del self.open[row.id]
        self._lost += _lost(row)
        self._read_some |= _read_some(row)

    @abstractmethod
    def owed(self, row: Row) -> m.TransferProgress | m.CompletionRecord | None:
        """What the log should know of an open row and does not."""

    def reports(self, retry_ms: int) -> list[m.TransferReported]:
        """How manifests at work stand, where that is news, for who watches the intent. The first says: it came."""
        found = []
        for row, waits_for, reason in self._stands(retry_ms):
            said = row.report(self.known.row.decision_no, waits_for, reason, anyway=not self._has_come)
            self._has_come = True
            found += [] if said is None else [said]
        return found

    @abstractmethod
    def _stands(self, retry_ms: int) -> Iterable[tuple[ReaderRow, str, m.Reason | None]]:
        """Rows that this process speaks for, what each waits for, and why."""


def _lost(row: ReaderRow) -> Iterable[tuple[Lfn, m.Reason]]:
    return [(row.lfn(item), reason) for item, reason in row.lost.items()]


def _read_some(row: ReaderRow) -> bool:
    return len(row.lost) < len(row.manifest.items)
