"""What an intent looks like from outside: its facts, wherever they were written, folded into a `Snapshot`.

Pure folding, no client: `follower.py` and the views bring the records. Decides nothing; an agent keeps its own rows.
What is known stands in a small `Head` and, per manifest or transfer, in cells that are let go when they have served;
both can be held in memory or in a table. Facts in any order, and repeated, give the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain as chain_of
from itertools import islice
from threading import Lock

from streams.core import chain as chains
from streams.core import records as m
from streams.core.chain import Chain, Link, Memory, Store
from streams.core.intent import SiteAnswer, State, answered, denied_by, is_landed, state_of
from streams.core.names import Destination, IntentId, ManifestId, Site
from streams.core.ranges import EMPTY, Ranges
from streams.errors import NeverWorks, NotAllowed, PartlyDone, Temporary, TransferFailed

UNFINISHED_MAX = 1000
"""Single items kept with their reasons; the sums go on counting."""
DATASETS_MAX = 32
"""Datasets of an intent's files that it is found by, beside those it names: the first by name."""
NAMES_MAX = 100_000
"""LFNs of open manifests remembered by who follows intents, to name those that fail: 13 MB."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An item that did not arrive at a destination, and why."""

    destination: Destination
    lfn: str
    reason: m.Reason


@dataclass(frozen=True, slots=True)
class Arrivals:
    """One destination's side of an intent, in files and bytes. `files` and `bytes` grow until all manifests are known.

    `waits_for`: in words, what each open transfer waits for. `reasons`: (reason in words, files).
    """

    destination: Destination
    files: int
    arrived: int
    failed: int
    cancelled: int
    bytes: int
    arrived_bytes: int
    open: tuple[m.TransferReported, ...]
    reasons: tuple[tuple[str, int], ...]
    removing: tuple[m.RemovalReported, ...] = ()
    """Of a removal: what of it goes on."""

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in COUNTS}

    @property
    def left(self) -> int:
        return self.files - self.arrived - self.failed - self.cancelled


COUNTS = ("files", "arrived", "failed", "cancelled", "bytes", "arrived_bytes")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An intent at one moment. `planned`: every manifest is known, so totals are final. Times: ms of the epoch."""

    intent: IntentId
    state: State
    body: m.TransferIntent | None
    decision: m.IntentDecided | None
    planned: bool
    destinations: tuple[Arrivals, ...]
    unfinished: tuple[Unfinished, ...]
    asked_ms: int | None
    last_ms: int | None
    ended: bool
    growing: bool = False
    """It is open: what is registered from now on is moved too."""
    leaving: tuple[Arrivals, ...] = ()
    """Of a move: each site that its files leave; what is gone counts as arrived, what stays as failed."""
    answers: tuple[SiteAnswer, ...] = ()
    """Of sites that let people decide whether they take part."""

    @property
    def denials(self) -> tuple[SiteAnswer, ...]:
        return tuple(one for one in self.answers if one.answer is m.Answer.DENIED)

    @property
    def pending(self) -> tuple[SiteAnswer, ...]:
        """Sites at which it waits for somebody."""
        return () if self.ended else tuple(one for one in self.answers if one.answer is m.Answer.PENDING)

    @property
    def idle(self) -> bool:
        """It is open, and all that it has taken so far has arrived or failed."""
        return self.growing and self.decision is not None and not any(a.left or a.open for a in self.destinations)

    @property
    def files(self) -> int:
        return sum(a.files for a in self.destinations)

    @property
    def arrived(self) -> int:
        return sum(a.arrived for a in self.destinations)

    @property
    def bytes(self) -> int:
        return sum(a.bytes for a in self.destinations)

    @property
    def arrived_bytes(self) -> int:
        return sum(a.arrived_bytes for a in self.destinations)

    @property
    def lost(self) -> int:
        """Items that ended otherwise than at their destination, files that stay where they were to leave, denials."""
        return sum(a.failed + a.cancelled for a in (*self.destinations, *self.leaving)) + len(self.denials)

    @property
    def reason(self) -> str:
        """Why it was refused or cancelled, in the words of its home or of who denied it; "" when it was not."""
        why = self.decision.reason if self.decision else None
        if why is not None or self.state is not State.REFUSED:
            return str(why.text) if why else ""
        return "; ".join(f"denied at {one.site} by {one.by}: {one.reason}" for one in self.denials)

    @property
    def outcome(self) -> str:
        """How it stands in one word for people: its state, but `partly` or `failed` where files did not arrive."""
        return outcome(self.state, self.arrived, self.lost)

    @property
    def exit_code(self) -> int:
        """What who waited for it exits with: 0 done, 4 denied at every destination, 5 still open, 6 nothing arrived,
        7 refused by its home, 8 partly."""
        if not self.ended:
            return Temporary.exit_code
        if self.state is State.REFUSED:
            return NotAllowed.exit_code if self.denials else NeverWorks.exit_code
        if self.state is State.DONE and not self.lost:
            return 0
        return PartlyDone.exit_code if self.arrived else TransferFailed.exit_code


@dataclass(frozen=True, slots=True)
class Sized:
    """A manifest that counts, while a transfer of it is open: in units of its line, and bytes (of entries estimated).

    `place`: where its body stands, in the words of who brought it.
    """

    items: int
    bytes: int
    units: int
    place: str = ""


@dataclass(frozen=True, slots=True)
class Early:
    """What a completion said whose manifest does not count yet. `landed`: the bytes are those of files it made."""

    items: int
    bytes: int
    landed: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """Items of a transfer that cannot arrive, and the place of their manifest, or their names (number, LFN)."""

    groups: tuple[m.FailedItems, ...]
    place: str = ""
    names: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Cells:
    """What is kept of an intent beside its head; keys are those of `manifest_key` and `transfer_key`."""

    waiting: Store[Link] = field(default_factory=Memory)
    sized: Store[Sized] = field(default_factory=Memory)
    early: Store[Early] = field(default_factory=Memory)
    failed: Store[Failed] = field(default_factory=Memory)
    reports: Store[m.TransferReported] = field(default_factory=Memory)
    removals: Store[m.RemovalReported] = field(default_factory=Memory)


def manifest_key(source_no: int, no: int) -> str:
    return f"{source_no:09d}.{no:09d}"


def transfer_key(destination: Destination, source_no: int, no: int) -> str:
    return f"{destination} {source_no:09d}.{no:09d}"


def transfer_of(intent: IntentId, key: str) -> tuple[Destination, ManifestId]:
    destination, _, manifest = key.partition(" ")
    source_no, _, no = manifest.partition(".")
    return Destination(destination), ManifestId.of(intent, int(source_no), int(no))


@dataclass(frozen=True, slots=True)
class Side:
    """The completions of one destination under one `source_no`.

    `early_…`: of those whose manifests do not count yet. `landed_bytes`: by how much what landed is more than what
    manifests said (less: negative).
    """

    destination: Destination
    source_no: int
    closed: Ranges = EMPTY
    sealed: int = 0
    failed: int = 0
    cancelled: int = 0
    bytes: int = 0
    early_files: int = 0
    early_bytes: int = 0
    landed_bytes: int = 0


_NO_CHAIN = Chain()


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of an intent, without its single transfers. `files`, `bytes`: of the manifests that count.

    `open`: reports kept, each of an open transfer. `kept`: manifests that wait for their predecessor or the decision.
    """

    intent: IntentId
    body: m.TransferIntent | None = None
    decision: m.IntentDecided | None = None
    chain: Chain = _NO_CHAIN
    intake_closed: bool = False
    asked_ms: int | None = None
    last_ms: int | None = None
    files: int = 0
    bytes: int = 0
    sides: tuple[Side, ...] = ()
    open: int = 0
    kept: int = 0
    datasets: tuple[str, ...] = ()
    answers: tuple[SiteAnswer, ...] = ()

    @property
    def destinations(self) -> tuple[Destination, ...]:
        return self.body.destinations if self.body else ()

    @property
    def taking(self) -> tuple[Destination, ...]:
        """The destinations that did not deny it."""
        denied = denied_by(self.answers)
        return tuple(destination for destination in self.destinations if destination not in denied)

    @property
    def leaving(self) -> tuple[Site, ...]:
        """The sites that a move's files leave."""
        return self.body.release_from if self.body is not None and self.body.verb is m.Verb.MOVE else ()

    @property
    def gives(self) -> bool:
        """Whether files leave sites by it."""
        return self.body is not None and bool(m.leaving_sites(self.body))

    def side(self, destination: Destination, source_no: int) -> Side:
        for side in self.sides:
            if side.destination == destination and side.source_no == source_no:
                return side
        return Side(destination, source_no)

    def counted(self, source_no: int, no: int) -> bool:
        return source_no == self.chain.source_no and no < self.chain.next_no

    @property
    def state(self) -> State:
        sides = [self.side(destination, self.chain.source_no) for destination in self.taking]
        verdict = self.decision.verdict if self.decision is not None else None
        denied = denied_by(self.answers)
        gone = [self.side(Destination(site), 0).closed for site in self.leaving if site not in denied]
        parts = len(m.parts_of(self.body)) if self.body is not None and gone else 0
        closed = [(s.closed, s.cancelled) for s in sides]
        return state_of(self.body is not None, verdict, self.chain, closed, gone, parts)

    @property
    def landed(self) -> bool:
        """Whether all manifests are known, and closed at every destination that takes part."""
        sides = (self.side(destination, self.chain.source_no).closed for destination in self.taking)
        return self.decision is not None and is_landed(self.chain, sides)

    @property
    def ended(self) -> bool:
        return self.standing[1]

    @property
    def standing(self) -> tuple[str, bool]:
        """How it stands in one word, as `Snapshot.outcome`, and whether it has ended.

        A cancelled intent has ended when the transfers that were under way have said their last word.
        """
        state = self.state
        ended = state in (State.REFUSED, State.CANCELLED, State.DONE) and not self.open
        if state is not State.DONE:
            return str(state), ended
        sides = [self.side(destination, self.chain.source_no) for destination in self.destinations]
        lost = sum(side.failed + side.cancelled for side in sides)
        lost += sum(self.side(Destination(site), 0).failed for site in self.leaving)
        lost += len(denied_by(self.answers))
        return outcome(state, sum(side.sealed for side in sides), lost), ended


def outcome(state: State, arrived: int, lost: int) -> str:
    """A state in one word for people: `partly` or `failed` where it is done and files did not arrive."""
    if state is State.DONE and lost:
        return "partly" if arrived else "failed"
    return str(state)


class Names:
    """LFNs of manifests, the latest, to name items that fail. Shared by all folds of one client; thread-safe."""

    def __init__(self, most: int = NAMES_MAX) -> None:
        self._most, self._count, self._lock = most, 0, Lock()
        self._known: OrderedDict[ManifestId, tuple[str, ...]] = OrderedDict()

    def keep(self, manifest: ManifestId, names: tuple[str, ...]) -> None:
        with self._lock:
            self._drop(manifest)
            self._known[manifest] = names
            self._count += len(names)
            while self._count > self._most:
                self._drop(next(iter(self._known)))

    def of(self, manifest: ManifestId) -> tuple[str, ...]:
        """Empty when they are not known, or no longer."""
        with self._lock:
            return self._known.get(manifest, ())

    def drop(self, manifest: ManifestId) -> None:
        with self._lock:
            self._drop(manifest)

    def _drop(self, manifest: ManifestId) -> None:
        self._count -= len(self._known.pop(manifest, ()))


NAMES = Names()
"""Those of this process."""


class IntentFold:
    """Folds the facts of one intent, in whatever order mirrors bring them. Not thread-safe."""

    def __init__(
        self, intent: IntentId, head: Head | None = None, cells: Cells | None = None, names: Names | None = NAMES
    ) -> None:
        self.head = head or Head(intent)
        self.cells = cells or Cells()
        self.heard = 0
        self._names = names

    def hear(self, message: m.Message | Link, at_ms: int, datasets: Iterable[str] = ()) -> None:
        """Fold one fact of this intent, written at `at_ms`; facts that are none of an intent's change nothing.

        A manifest may come without its items, as a Link, with the datasets of its files. What says nothing new (a last
        word said again, a report of a transfer that is closed) is not when it was heard of last.
        """
        before, news = self.head, False
        match message:
            case m.TransferIntent():
                asked_ms = min(at_ms, self.head.asked_ms or at_ms)
                self.head = replace(self.head, body=self.head.body or message, asked_ms=asked_ms)
            case m.IntentAsked():
                news = True
                if message.asked is m.Asked.CLOSE and not self.head.intake_closed:
                    self.head = replace(self.head, intake_closed=True)
            case m.IntentDecided():
                self._decided(message)
            case m.SiteAnswered():
                self.head = replace(self.head, answers=answered(self.head.answers, message))
            case m.ManifestWritten():
                if self._names is not None:
                    self._names.keep(message.manifest, tuple(str(item.lfn) for item in message.items))
                self._manifest(Link.of(message), {str(item.dataset) for item in message.items})
            case Link():
                self._manifest(message, datasets)
            case m.TransferReported():
                news = self._reported(message)
            case m.CompletionRecord():
                self._completed(message)
            case m.RemovalReported():
                news = self._removed(message)
            case _:
                return
        self.heard += 1
        if (news or self.head != before) and at_ms > (self.head.last_ms or -1):
            self.head = replace(self.head, last_ms=at_ms)

    def _decided(self, message: m.IntentDecided) -> None:
        head = self.head
        if head.decision is not None and message.decision_no <= head.decision.decision_no:
            return
        chain = chains.decided_anew(head.chain, message)
        body = head.body if head.body == message.body else message.body
        if body.verb is m.Verb.REMOVE:
            chain = chains.of_removal(len(m.parts_of(body)))
        head = replace(head, decision=message, body=body, chain=chain)
        if chain is not self.head.chain:
            head = replace(head, files=0, bytes=0)
        self.head = head
        if head.kept:
            self._counts(*chains.waited(chain, message, self._waiting()))

    def _manifest(self, link: Link, datasets: Iterable[str]) -> None:
        chain, counting = chains.hear(self.head.chain, self.head.decision, link, self._waiting())
        self._counts(chain, counting)
        if not set(datasets) <= set(self.head.datasets):
            more = sorted({*self.head.datasets, *datasets})[:DATASETS_MAX]
            self.head = replace(self.head, datasets=tuple(more))

    def _waiting(self) -> _Counted:
        return _Counted(self)

    def _counts(self, chain: Chain, links: list[Link]) -> None:
        self.head = replace(self.head, chain=chain)
        for link in links:
            self._count(link)
        if chain.last and self.head.kept:
            chains.forget(self._waiting())

    def _count(self, link: Link) -> None:
        head = self.head
        head = replace(head, files=head.files + link.items, bytes=head.bytes + link.bytes)
        for side in head.sides:
            if side.source_no != link.source_no or link.no not in side.closed:
                continue
            key = transfer_key(side.destination, link.source_no, link.no)
            early = self.cells.early.get(key)
            if early is not None:
                more = early.bytes - link.bytes if early.landed else 0
                files, size = side.early_files - early.items, side.early_bytes - early.bytes
                landed = side.landed_bytes + more
                head = _with(head, replace(side, early_files=files, early_bytes=size, landed_bytes=landed))
                self.cells.early.delete(key)
            failed = self.cells.failed.get(key)
            if failed is not None:
                self.cells.failed.put(key, self._named(replace(failed, place=link.place), link.manifest))
        self.head = head
        if self._open_anywhere(link.source_no, link.no):
            sized = Sized(link.items, link.bytes, link.units, link.place)
            self.cells.sized.put(manifest_key(link.source_no, link.no), sized)
        elif self._names is not None:
            self._names.drop(link.manifest)

    def _open_anywhere(self, source_no: int, no: int) -> bool:
        return any(no not in self.head.side(d, source_no).closed for d in self.head.destinations)

    def _named(self, failed: Failed, manifest: ManifestId) -> Failed:
        """With the names of those items, as far as they are remembered here."""
        lfns = self._names.of(manifest) if self._names is not None else ()
        if not lfns:
            return failed
        numbers = [number for group in failed.groups for number in group.items.numbers()][:UNFINISHED_MAX]
        return replace(failed, names=tuple((n, lfns[n]) for n in numbers if n < len(lfns)))

    def _reported(self, message: m.TransferReported) -> bool:
        """Whether the transfer is open, as far as is known."""
        manifest = message.manifest
        if manifest.no in self.head.side(message.destination, manifest.source_no).closed:
            return False
        key = transfer_key(message.destination, manifest.source_no, manifest.no)
        if key not in self.cells.reports:
            self.head = replace(self.head, open=self.head.open + 1)
        self.cells.reports.put(key, message)
        return True

    def _completed(self, message: m.CompletionRecord) -> None:
        head, source_no, no = self.head, message.manifest.source_no, message.manifest.no
        side = head.side(message.destination, source_no)
        if no in side.closed:
            return
        key, of_manifest = transfer_key(message.destination, source_no, no), manifest_key(source_no, no)
        sized = self.cells.sized.get(of_manifest)
        side = replace(
            side,
            closed=side.closed | Ranges.of(no),
            sealed=side.sealed + message.sealed.size,
            failed=side.failed + sum(group.items.size for group in message.failed),
            cancelled=side.cancelled + message.cancelled.size,
            bytes=side.bytes + message.bytes,
        )
        if not head.counted(source_no, no):
            self.cells.early.put(key, Early(message.items, message.bytes, bool(message.landed)))
            files, size = side.early_files + message.items, side.early_bytes + message.bytes
            side = replace(side, early_files=files, early_bytes=size)
        elif message.landed and sized is not None:
            side = replace(side, landed_bytes=side.landed_bytes + message.bytes - sized.bytes)
        if message.failed:
            failed = Failed(message.failed, sized.place if sized is not None else "")
            self.cells.failed.put(key, self._named(failed, message.manifest))
        if head.open and key in self.cells.reports:
            self.cells.reports.delete(key)
            head = replace(head, open=head.open - 1)
        self.head = _with(head, side)
        if sized is not None and not self._open_anywhere(source_no, no):
            self.cells.sized.delete(of_manifest)
            if self._names is not None:
                self._names.drop(message.manifest)

    def _removed(self, message: m.RemovalReported) -> bool:
        """Whether it says more than was known."""
        side = self.head.side(message.site, 0)
        key = transfer_key(message.site, 0, message.part)
        before = self.cells.removals.get(key)
        if message.part in side.closed or before == message:
            return False
        self.cells.removals.put(key, message)
        files, size, removed, kept, removed_bytes = (
            now - was for now, was in zip(_sums(message), _sums(before), strict=True)
        )
        side = replace(
            side,
            closed=side.closed | Ranges.of(message.part) if message.last else side.closed,
            sealed=side.sealed + removed,
            failed=side.failed + kept,
            bytes=side.bytes + removed_bytes,
            early_files=side.early_files + files,
            early_bytes=side.early_bytes + size,
        )
        self.head = _with(self.head, side)
        return True

    def snapshot(self) -> Snapshot:
        return snapshot(self.head, self.cells)


def _sums(report: m.RemovalReported | None) -> tuple[int, int, int, int, int]:
    """Of a part of a removal: files, bytes, files removed, files kept, bytes removed."""
    if report is None:
        return 0, 0, 0, 0, 0
    size = report.removed_bytes + report.kept_bytes + report.open_bytes
    return report.removed + report.kept + report.open, size, report.removed, report.kept, report.removed_bytes


class _Counted:
    """The store of what waits, counted in the fold's head, so that nothing is looked for where nothing waits."""

    def __init__(self, fold: IntentFold) -> None:
        self._fold, self._store = fold, fold.cells.waiting

    def __contains__(self, key: str) -> bool:
        return bool(self._fold.head.kept) and key in self._store

    def get(self, key: str) -> Link | None:
        return self._store.get(key) if self._fold.head.kept else None

    def put(self, key: str, value: Link) -> None:
        self._store.put(key, value)
        self._add(1)

    def delete(self, key: str) -> None:
        self._store.delete(key)
        self._add(-1)

    def items(self) -> Iterator[tuple[str, Link]]:
        return self._store.items()

    def _add(self, change: int) -> None:
        self._fold.head = replace(self._fold.head, kept=self._fold.head.kept + change)


def _with(head: Head, side: Side) -> Head:
    others = [s for s in head.sides if (s.destination, s.source_no) != (side.destination, side.source_no)]
    return replace(head, sides=tuple(sorted([*others, side], key=lambda s: (s.destination, s.source_no))))


def snapshot(head: Head, cells: Cells) -> Snapshot:
    """The intent as it stands. Reads the cells of open and of failed transfers only."""
    reports = [r for _, r in cells.reports.items()] if head.open else []
    some_failed = any(side.failed for side in head.sides)
    failed = [(*transfer_of(head.intent, key), found) for key, found in cells.failed.items()] if some_failed else []
    removes = head.body is not None and head.body.verb is m.Verb.REMOVE
    removals = [r for _, r in cells.removals.items()] if (removes or head.leaving) and head.sides else []
    growing = head.body is not None and head.body.open and not head.chain.last and not head.intake_closed
    state = head.state
    return Snapshot(
        intent=head.intent,
        state=state,
        body=head.body,
        decision=head.decision,
        planned=head.chain.last,
        destinations=tuple(
            _removals(head, where, removals) if removes else _arrivals(head, cells, where, reports, failed)
            for where in head.destinations
        ),
        unfinished=tuple(islice(chain_of(_unfinished(failed), _kept(removals)), UNFINISHED_MAX)),
        asked_ms=head.asked_ms,
        last_ms=head.last_ms,
        ended=head.ended,
        growing=growing and state not in (State.REFUSED, State.CANCELLED, State.DONE),
        leaving=tuple(_removals(head, Destination(site), removals) for site in head.leaving),
        answers=head.answers,
    )


_Failures = list[tuple[Destination, ManifestId, Failed]]


def _arrivals(
    head: Head, cells: Cells, destination: Destination, every: list[m.TransferReported], failed: _Failures
) -> Arrivals:
    source_no = head.chain.source_no
    side = head.side(destination, source_no)
    reports = tuple(r for r in every if r.destination == destination and r.manifest.source_no == source_no)
    reasons: dict[str, int] = {}
    for where, manifest, found in failed:
        if where == destination and manifest.source_no == source_no:
            for group in found.groups:
                reasons[str(group.reason.text)] = reasons.get(str(group.reason.text), 0) + group.items.size
    for r in reports:
        if r.failed and r.reason:
            reasons[str(r.reason.text)] = reasons.get(str(r.reason.text), 0) + r.failed
    return Arrivals(
        destination=destination,
        files=head.files + side.early_files,
        arrived=side.sealed + sum(r.sealed for r in reports),
        failed=side.failed + sum(r.failed for r in reports),
        cancelled=side.cancelled,
        # What landed is what it came to; until then entries are worth what their source made of them.
        bytes=head.bytes + side.early_bytes + side.landed_bytes,
        arrived_bytes=side.bytes + sum(_bytes_of(r, cells) for r in reports),
        open=reports,
        reasons=tuple(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
    )


def _removals(head: Head, destination: Destination, every: list[m.RemovalReported]) -> Arrivals:
    """One site's side of a removal: what is gone counts as arrived, what stays as failed."""
    side = head.side(destination, 0)
    here = [report for report in every if report.site == destination]
    reasons: dict[str, int] = {}
    for report in here:
        for kept in report.reasons:
            reasons[kept.reason] = reasons.get(kept.reason, 0) + kept.files
    return Arrivals(
        destination=destination,
        files=side.early_files,
        arrived=side.sealed,
        failed=side.failed,
        cancelled=0,
        bytes=side.early_bytes,
        arrived_bytes=side.bytes,
        open=(),
        reasons=tuple(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
        removing=() if head.ended else tuple(report for report in here if not report.last),
    )


def _kept(every: list[m.RemovalReported]) -> Iterator[Unfinished]:
    """The first file of each reason for which files stay."""
    firsts = ((report.site, kept) for report in every for kept in report.reasons)
    for site, kept in islice(firsts, UNFINISHED_MAX):
        more = f" and {kept.files - 1} more" if kept.files > 1 else ""
        why = m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "remove", kept.reason)
        yield Unfinished(site, f"{kept.first}{more}", why)


def _bytes_of(report: m.TransferReported, cells: Cells) -> int:
    if report.unit is m.Unit.BYTES:
        return report.verified
    sized = cells.sized.get(manifest_key(report.manifest.source_no, report.manifest.no))
    return sized.bytes * report.verified // max(1, sized.units) if sized is not None else 0


def _unfinished(failures: _Failures) -> Iterator[Unfinished]:
    count = 0
    for site, manifest, found in failures:
        names = dict(found.names)
        for group in found.groups:
            for number in group.items.numbers():
                if count == UNFINISHED_MAX:
                    return
                count += 1
                yield Unfinished(site, names.get(number, unnamed(manifest, number)), group.reason)


def unnamed(manifest: ManifestId, number: int) -> str:
    return f"item {number} of {manifest}"
