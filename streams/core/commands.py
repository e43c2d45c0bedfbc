"""Everything that can be owed (union `Command`), each with the fact that extinguishes it. No behaviour.

A command is read off a row by owed.py, carried out by worker/effects.py, and asked again until its fact is heard.
`id` names the command for settling: the same id is not carried out twice while it settles (worker/scheduler.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streams.core import records as m
from streams.core.names import IntentId, ManifestId, Site
from streams.core.ranges import Ranges


class Published:
    """What the worker itself says in its site's log: on its way until it is heard, or given up and owed again."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class DecideIntent:
    """Home: look the selection up and accept, refuse, or stay undecided."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.IntentDecided,)
    intent: IntentId

    @property
    def id(self) -> tuple[object, ...]:
        return ("decide", self.intent)


@dataclass(frozen=True, slots=True)
class ReleaseIntent:
    """Home: say the next decision, that an intent which has ended claims nothing any more. Its row has no body."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.IntentDecided,)
    intent: IntentId
    decision_no: int

    @property
    def id(self) -> tuple[object, ...]:
        return ("release", self.intent, self.decision_no)


@dataclass(frozen=True, slots=True)
class PublishDecision(Published):
    """Home: say the next numbered decision, which the row already determines (cancel, priority, deadline)."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.IntentDecided,)
    decision: m.IntentDecided

    @property
    def id(self) -> tuple[object, ...]:
        return ("decision", self.decision.intent, self.decision.decision_no)


@dataclass(frozen=True, slots=True)
class PublishAnswer(Published):
    """A site of an intent: say whether it takes part."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.SiteAnswered,)
    answer: m.SiteAnswered

    @property
    def id(self) -> tuple[object, ...]:
        return ("answer", self.answer.intent, self.answer.answer_no)


@dataclass(frozen=True, slots=True)
class WriteManifests:
    """Source's plane: write manifest `no` and all that follow, continuing behind `cursor`.

    Of an open intent: look for what is new, again and again. `closing`: write what is left, and the last one.
    """

    extinguished_by: ClassVar[tuple[type, ...]] = (m.ManifestWritten,)
    body: m.TransferIntent
    source_no: int
    no: int
    prev_sha256: str
    cursor: str
    closing: bool = False

    @property
    def looks(self) -> bool:
        """Whether more may come after it, so that it is never done and only told again."""
        return self.body.open and not self.closing

    @property
    def id(self) -> tuple[object, ...]:
        # What is looked for changes with every manifest and is told at once, not when the one before has settled.
        state = (self.no,) if self.looks else ("closing",) if self.closing else ()
        return ("write", self.body.intent, self.source_no, *state)


@dataclass(frozen=True, slots=True)
class PlanTransfer(Published):
    """Destination: hand a manifest that counts to its own row."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.TransferReported, m.CompletionRecord)
    manifest: ManifestId
    source: Site
    decision_no: int
    priority: int
    whole: bool
    """Of whole files: no entries, no objects."""
    plane: str | None = None
    """The carrier that the intent insists on."""
    repair: bool = False
    destinations: tuple[Site, ...] = ()
    """All sites that get it."""

    @property
    def id(self) -> tuple[object, ...]:
        return ("plan", self.manifest)


@dataclass(frozen=True, slots=True)
class DecideTransfer(Published):
    """Destination: tell an open transfer what its intent's decision now says."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.TransferReported, m.CompletionRecord)
    decided: m.TransferDecided

    @property
    def id(self) -> tuple[object, ...]:
        return ("tell", self.decided.manifest, self.decided.decision_no, self.decided.verdict)


@dataclass(frozen=True, slots=True)
class ReportTransfer(Published):
    """Destination: answer a plan or decision that was heard (repeats too), and say what changed."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.TransferReported,)
    report: m.TransferReported

    @property
    def id(self) -> tuple[object, ...]:
        return ("report", self.report)


@dataclass(frozen=True, slots=True)
class OpenPart:
    """Destination's plane: hold the part files of `attempt`, of which `verified` is already written and synced.

    Owed too when all is written and nothing sealed it: the plane's next progress then tells.
    """

    extinguished_by: ClassVar[tuple[type, ...]] = (m.PartOpened, m.PartLost, m.TransferProgress)
    manifest: ManifestId
    attempt: int
    verified: Ranges
    sealed: Ranges
    failed: Ranges
    repair: bool = False
    """Whether another file under a target is replaced."""
    again: bool = False
    """The plane has opened this attempt."""

    @property
    def id(self) -> tuple[object, ...]:
        return ("open", self.manifest, self.attempt)


@dataclass(frozen=True, slots=True)
class StopPart:
    """Destination's plane: drop the part files; nothing more is sealed once PartLost is said."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.PartLost,)
    manifest: ManifestId
    attempt: int
    reason: m.Reason

    @property
    def id(self) -> tuple[object, ...]:
        return ("stop", self.manifest, self.attempt)


@dataclass(frozen=True, slots=True)
class FailItems:
    """Destination's plane: these items will never come, from anybody; the next progress tells it."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.TransferProgress, m.PartLost)
    manifest: ManifestId
    failed: tuple[m.FailedItems, ...]

    @property
    def id(self) -> tuple[object, ...]:
        return ("fail", self.manifest, self.failed)


@dataclass(frozen=True, slots=True)
class RequestChunks(Published):
    """Destination: ask `source` for ranges, under the next number; effects add the items and the lease's end."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.ChunksRequested,)
    manifest: ManifestId
    source: Site
    request_no: int
    attempt: int
    ranges: Ranges
    bytes: int
    priority: int
    items: int
    """How many the ranges are of."""
    plane: str
    """The carrier."""

    @property
    def id(self) -> tuple[object, ...]:
        return ("request", self.manifest, self.source, self.request_no)


@dataclass(frozen=True, slots=True)
class BringByTool:
    """Destination's plane: have a tool bring what was asked for so. It is told again until the request is over."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.TransferProgress, m.SourceFailed, m.LeaseExpired, m.PartLost)
    manifest: ManifestId
    source: Site
    request_no: int
    attempt: int
    plane: str
    ranges: Ranges

    @property
    def id(self) -> tuple[object, ...]:
        return ("bring", self.manifest, self.source, self.request_no)


@dataclass(frozen=True, slots=True)
class ExpireLease(Published):
    """Destination's clock: propose that a request was not answered in time."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.LeaseExpired, m.SourceFailed)
    manifest: ManifestId
    source: Site
    request_no: int
    plane: str

    @property
    def id(self) -> tuple[object, ...]:
        return ("expire", self.manifest, self.source, self.request_no)


@dataclass(frozen=True, slots=True)
class FixCompletion(Published):
    """Destination: a last word that a late fact could change is fixed in its own log before anybody else hears it."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.TransferClosed,)
    manifest: ManifestId
    completion: m.CompletionRecord

    @property
    def id(self) -> tuple[object, ...]:
        return ("fix", self.manifest)


@dataclass(frozen=True, slots=True)
class CloseTransfer(Published):
    """Destination: publish completion and replicas, wait for their acknowledgement, then close."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.TransferClosed,)
    manifest: ManifestId
    completion: m.CompletionRecord

    @property
    def id(self) -> tuple[object, ...]:
        return ("close", self.manifest)


@dataclass(frozen=True, slots=True)
class RepeatCompletion(Published):
    """Destination: a closed transfer was planned again, so its completion did not arrive: say it again, byte-equal."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.CompletionRecord,)
    completion: m.CompletionRecord

    @property
    def id(self) -> tuple[object, ...]:
        return ("repeat", self.completion.manifest)


@dataclass(frozen=True, slots=True)
class ServeChunks:
    """Source's plane: send the payload of a request. Kept in memory only: a lost one is asked again by its lease."""

    extinguished_by: ClassVar[tuple[type, ...]] = (m.ChunksServed, m.LeaseExpired)
    request: m.ChunksRequested

    @property
    def id(self) -> tuple[object, ...]:
        return ("serve", self.request.manifest, self.request.destination, self.request.request_no)


Command = (
    DecideIntent
    | ReleaseIntent
    | PublishDecision
    | PublishAnswer
    | WriteManifests
    | PlanTransfer
    | DecideTransfer
    | ReportTransfer
    | OpenPart
    | StopPart
    | FailItems
    | RequestChunks
    | BringByTool
    | ExpireLease
    | FixCompletion
    | CloseTransfer
    | RepeatCompletion
    | ServeChunks
)


@dataclass(frozen=True, slots=True)
class Owed:
    """A command and when it falls due (ms of the epoch; 0 = now)."""

    command: Command
    due_ms: int = 0
