"""The whole of an intent as its consumer goes through it: manifests in their order, each with its reader. Pure.

The facts of an intent come in here in any order, as they come to an agent; what counts is decided as it is there.
"""

from __future__ import annotations

from collections.abc import Collection

from streams.consuming.manifest_reader import ATTEMPT, ENDPOINT, RETRY_MS, Came, ManifestReader
from streams.core import chain as chains
from streams.core import intent as machine
from streams.core import records as m
from streams.core.chain import Counts, Link, Memory
from streams.core.intent import IntentRow, State
from streams.core.names import Destination, IntentId, Lfn, ManifestId, Site
from streams.core.ranges import Ranges
from streams.errors import InvalidName, NeverWorks, PartlyDone, TransferFailed, UsageError

REQUESTS = 4
"""What may be ahead is asked for in so many parts, so that one is on its way while another is worked on."""


class Known:
    """What is heard of an intent, before it is known which consumer listens."""

    def __init__(self, intent: IntentId) -> None:
        self.row = IntentRow(intent)
        self.manifests: dict[ManifestId, m.ManifestWritten] = {}
        self.written_ms: dict[ManifestId, int] = {}
        self.completed: set[tuple[Destination, ManifestId]] = set()
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
                self.completed.add((message.destination, message.manifest))
                self.row = machine.fold(self.row, message)

    def _count(self, links: list[Link]) -> None:
        for link in links:
            body, self.written_ms[link.manifest] = self._bodies.pop(link.sha256)
            self.manifests[link.manifest] = body
            self.row = machine.follow(self.row, link)


class OfIntent:
    """What whoever consumes knows of its intent, how it stands and how it ends."""

    known: Known
    destination: Destination

    @property
    def state(self) -> State:
        return self.known.row.state

    @property
    def why(self) -> str:
        decision = self.known.row.decision
        return str(decision.reason.text) if decision is not None and decision.reason is not None else "no reason given"

    @property
    def stopped(self) -> bool:
        return self.state in (State.REFUSED, State.CANCELLED)

    @property
    def some_arrived(self) -> bool:
        raise NotImplementedError

    def failed(self) -> list[tuple[Lfn, m.Reason]]:
        raise NotImplementedError

    def check_end(self, missed: str) -> None:
        """Raises unless everything arrived: NeverWorks, TransferFailed or PartlyDone. `missed`: what was not done."""
        intent = self.known.row.intent
        if self.state is State.REFUSED:
            raise NeverWorks(f"{intent} was refused: {self.why}")
        if self.state is State.CANCELLED:
            raise TransferFailed(f"{intent} was cancelled: {self.why}")
        failed = self.failed()
        if failed:
            lfn, reason = failed[0]
            more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            kind = PartlyDone if self.some_arrived else TransferFailed
            raise kind(f"{missed}: {lfn}: {reason.text}{more}", where=str(self.destination))


class IntentReader(OfIntent):
    """`position` is where an earlier consumer stood, as `position()` says it; None: each manifest asks the log."""

    def __init__(self, known: Known, destination: Destination, ahead_bytes: int, position: str | None) -> None:
        self.known, self.destination, self.ahead_bytes = known, destination, ahead_bytes
        self.readers: dict[ManifestId, ManifestReader] = {}
        """In the order of their chain, which is the order in which manifests come to count."""
        self.attempt = ATTEMPT
        self._open: list[ManifestReader] = []
        self._unclaimed: list[ManifestReader] = []
        self._has_come = False
        self._given = None if position is None else _parsed(position, known.row.intent)

    exclusive = True

    @property
    def manifests(self) -> Collection[ManifestId]:
        return self.readers.keys()

    @property
    def over(self) -> bool:
        """Whether no more can come: all manifests are known and gone through, or the intent was stopped."""
        if self.stopped:
            return True
        row = self.known.row
        return (
            row.chain.last
            and len(self.readers) == len(self.known.manifests)
            and all(reader.over for reader in self._open)
        )

    @property
    def some_arrived(self) -> bool:
        return any(reader.sealed(reader.done) for reader in self.readers.values())

    def new(self) -> list[m.ManifestWritten]:
        """Manifests that count and have no reader yet."""
        return [body for manifest, body in self.known.manifests.items() if manifest not in self.readers]

    def enter(self, body: m.ManifestWritten, told: list[m.TransferProgress]) -> ManifestReader:
        """Give a manifest its reader; `told` is what the log holds of this consumer's way through it."""
        for progress in told:
            self.hear_progress(progress)
        reader = self.readers[body.manifest] = ManifestReader(body, self.destination)
        reader.attempt = self.attempt
        self._unclaimed.append(reader)
        for progress in told:
            for group in progress.failed:
                for item in group.items.numbers():
                    reader.fail(item, group.reason)
        reader.resume(self._begin(body, reader, told))
        reader.closed = (self.destination, body.manifest) in self.known.completed
        if reader.closed:
            reader.resume(reader.total)
        else:
            self._open.append(reader)
        return reader

    def _begin(self, body: m.ManifestWritten, reader: ManifestReader, told: list[m.TransferProgress]) -> int:
        if self._given is None:
            return max((progress.verified.spans[0][1] for progress in told if progress.verified), default=0)
        source_no, no, at = self._given
        if (body.source_no, body.no) == (source_no, no):
            return at
        return reader.total if (body.source_no, body.no) < (source_no, no) else 0

    # what comes, and is handed out

    def hear_progress(self, progress: m.TransferProgress) -> None:
        """A place of its own name, or of one that it took over: a prefix. Of a pool's work it says nothing."""
        if progress.endpoint != ENDPOINT:
            what = f"workers share {self.destination}, by `transfer2go event work`"
            raise NeverWorks(what, next="publish an intent for a name of its own")

    def take(self, header: m.ChunkHeader, segment: m.Segment, payload: bytes, now_ms: int, lease_ms: int) -> None:
        reader = self.readers.get(header.manifest)
        if reader is not None:
            reader.take(header, segment, payload, now_ms, lease_ms)

    def served(self, header: m.ChunkHeader, now_ms: int) -> None:
        reader = self.readers.get(header.manifest)
        if reader is not None:
            reader.served(header.request_no, now_ms)

    def next(self) -> tuple[ManifestReader, Came, int] | None:
        """(reader, segment, the position in it that is next), in the order of the manifests and of their lines."""
        for reader in self._open:
            if reader.over:
                continue
            start = reader.at
            came = reader.next()
            return None if came is None else (reader, came, max(start, came.start))
        return None

    def worked(self) -> None:
        for reader in self._open:
            reader.worked()

    def fail(self, manifest: str, item: int, reason: m.Reason) -> None:
        self.readers[ManifestId(manifest)].fail(item, reason)

    def failed(self) -> list[tuple[Lfn, m.Reason]]:
        return [
            (reader.manifest.items[item].lfn, group.reason)
            for reader in self.readers.values()
            for group in reader.failed_items
            for item in group.items.numbers()
        ]

    def position(self) -> str:
        """Behind what was handed out last."""
        row = self.known.row
        for reader in self._open:
            if reader.at < reader.total:
                return f"{reader.id}@{reader.at}"
        return f"{ManifestId.of(row.intent, row.chain.source_no, len(self.readers))}@0"

    # what is asked for and told

    def asks(self, now_ms: int, lease_ms: int, retry_ms: int = RETRY_MS) -> list[tuple[ManifestReader, Site, Ranges]]:
        """What to ask for now: in order, and never more than `ahead_bytes` before it is worked on.

        What was asked for once has its room already: a hole before what came would else never be filled.
        """
        out: list[tuple[ManifestReader, Site, Ranges]] = []
        share = max(1, self.ahead_bytes // REQUESTS)
        held = sum(reader.held_bytes for reader in self._open)
        for reader in self._open:
            while not reader.over:
                more = self.ahead_bytes - held >= share  # less would be a request for every batch
                if reader.untouched and not more:
                    return out
                before = reader.held_bytes
                asked = reader.ask(share, now_ms, lease_ms, retry_ms, more=more)
                if asked is None:
                    break
                held += reader.held_bytes - before
                out.append((reader, *asked))
        return out

    def claims(self) -> list[m.TransferProgress]:
        """Its place in the manifests entered since the last call that are open, or in the last one that is not."""
        found, self._unclaimed = self._unclaimed, []
        return [reader.claim() for reader in [reader for reader in found if not reader.closed] or found[-1:]]

    def place(self, manifest: ManifestId) -> m.TransferProgress:
        return self.readers[manifest].claim()

    def tells(self) -> list[m.TransferProgress | m.CompletionRecord]:
        """What the log should know by now: how far each reader is, and the last words of those that are done."""
        out: list[m.TransferProgress | m.CompletionRecord] = []
        for reader in self._open:
            progress = reader.progress()
            if progress is not None:
                out.append(progress)
            if reader.done >= reader.total or self.state is State.CANCELLED:
                if (self.destination, reader.id) not in self.known.completed:  # by a process before this one
                    out.append(reader.completion())
                reader.closed = True
        self._open = [reader for reader in self._open if not reader.closed]
        return out

    def reports(self, retry_ms: int = RETRY_MS) -> list[m.TransferReported]:
        """How the readers at work stand, where that is news, for who watches the intent. The first says: it came."""
        decision_no, first = self.known.row.decision_no, not self._has_come
        self._has_come = self._has_come or bool(self._open)
        said = [reader.report(decision_no, retry_ms, anyway=first and not n) for n, reader in enumerate(self._open)]
        return [report for report in said if report is not None]

    def waits_for(self, retry_ms: int = RETRY_MS) -> str:
        row = self.known.row
        if row.decision is None:
            return f"{row.intent.home} to decide"
        for reader in self._open:
            if not reader.over:
                return reader.waits_for(retry_ms)
        return f"{row.decision.source} to write its manifests"


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
