"""What an intent looks like from outside: its facts, wherever they were written, folded into a `Snapshot`.

Pure folding, no client: `following.py` brings the records. Decides nothing; an agent keeps its own rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from streams.core import intent as machine
from streams.core import messages as m
from streams.core.intent import Counts, IntentRow, State
from streams.core.names import Destination, IntentId, ManifestId
from streams.errors import NeverWorks, PartlyDone, Temporary, TransferFailed

UNFINISHED_MAX = 1000
"""Single items kept with their reasons; the sums go on counting."""


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

    @property
    def left(self) -> int:
        return self.files - self.arrived - self.failed - self.cancelled


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
        """Items that ended otherwise than at their destination."""
        return sum(a.failed + a.cancelled for a in self.destinations)

    @property
    def reason(self) -> str:
        """Why it was refused or cancelled, in the home's words; "" when it was not."""
        why = self.decision.reason if self.decision else None
        return str(why.text) if why else ""

    @property
    def outcome(self) -> str:
        """How it stands in one word for people: its state, but `partly` or `failed` where files did not arrive."""
        if self.state is State.DONE and self.lost:
            return "partly" if self.arrived else "failed"
        return str(self.state)

    @property
    def exit_code(self) -> int:
        """What who waited for it exits with: 0 done, 5 still open, 6 nothing arrived, 7 refused, 8 partly."""
        if not self.ended:
            return Temporary.exit_code
        if self.state is State.REFUSED:
            return NeverWorks.exit_code
        if self.state is State.DONE and not self.lost:
            return 0
        return PartlyDone.exit_code if self.arrived else TransferFailed.exit_code


@dataclass(slots=True)
class _Known:
    """A manifest that counts: what its completions are told in."""

    items: int
    bytes: int
    """Estimated, of entries."""
    units: int
    lfns: tuple[str, ...]


def _bytes_of(report: m.TransferReported, known: _Known | None) -> int:
    if report.unit is m.Unit.BYTES:
        return report.verified
    return known.bytes * report.verified // max(1, known.units) if known is not None else 0


class IntentFold:
    """Folds the facts of one intent, in whatever order mirrors bring them. Not thread-safe."""

    def __init__(self, intent: IntentId) -> None:
        self.row = IntentRow(intent)
        self.heard = 0
        self._waiting: dict[ManifestId, list[m.ManifestWritten]] = {}
        self._known: dict[ManifestId, _Known] = {}
        self._completed: dict[tuple[Destination, ManifestId], m.CompletionRecord] = {}
        self._reports: dict[tuple[Destination, ManifestId], m.TransferReported] = {}
        """Of open transfers."""
        self._body: m.TransferIntent | None = None
        self._decision: m.IntentDecided | None = None
        self._asked_ms: int | None = None
        self._last_ms: int | None = None

    def hear(self, message: m.Message, at_ms: int) -> None:
        """Fold one fact of this intent, written at `at_ms`; facts that are none of an intent's change nothing."""
        if not isinstance(message, get_args(machine.IntentMessage)):
            return
        self.heard += 1
        self._last_ms = max(at_ms, self._last_ms or at_ms)
        if isinstance(message, m.TransferIntent):
            self._asked_ms = min(at_ms, self._asked_ms or at_ms)
        if isinstance(message, m.ManifestWritten):
            self._manifest(message)
            self._waited()
            return
        match message:
            case m.TransferIntent():
                self._body = self._body or message
            case m.IntentDecided() if message.decision_no > self.row.decision_no:
                self._decision, self._body = message, message.body
            case m.CompletionRecord():
                self._completed.setdefault((message.destination, message.manifest), message)
                self._reports.pop((message.destination, message.manifest), None)
            case m.TransferReported() if (message.destination, message.manifest) not in self._completed:
                self._reports[message.destination, message.manifest] = message
        self.row = machine.fold(self.row, message)
        if isinstance(message, m.IntentDecided):
            self._waited()

    def _manifest(self, message: m.ManifestWritten) -> None:
        match self.row.counts(message):
            case Counts.LATER:
                self._waiting.setdefault(message.manifest, []).append(message)
            case Counts.NOW:
                items = message.items
                self._known[message.manifest] = _Known(
                    len(items),
                    sum(i.bytes for i in items),
                    sum(i.length for i in items),
                    tuple(str(i.lfn) for i in items),
                )
                self.row = machine.fold(self.row, message)
            case Counts.NEVER:
                pass

    def _waited(self) -> None:
        before = None
        while before is not self.row:
            before = self.row
            for message in self._waiting.pop(before.next_manifest, ()):
                self._manifest(message)

    def snapshot(self) -> Snapshot:
        row = self.row
        return Snapshot(
            intent=row.intent,
            state=row.state,
            body=self._body,
            decision=self._decision,
            planned=row.chain.last,
            destinations=tuple(self._arrivals(site) for site in row.destinations),
            unfinished=tuple(self._unfinished()),
            asked_ms=self._asked_ms,
            last_ms=self._last_ms,
            # A cancelled intent has ended when the transfers that were under way have said their last word.
            ended=row.ended and not self._reports,
            growing=row.growing and row.intake_closed_by is None,
        )

    def _arrivals(self, destination: Destination) -> Arrivals:
        chain = self.row.chain.source_no
        current = {mid: k for mid, k in self._known.items() if mid.source_no == chain}
        done = [
            c for (where, _), c in self._completed.items() if where == destination and c.manifest.source_no == chain
        ]
        of = sorted(self._reports.values(), key=lambda r: r.manifest)
        reports = tuple(r for r in of if r.destination == destination and r.manifest.source_no == chain)
        reasons: dict[str, int] = {}
        for c in done:
            for group in c.failed:
                reasons[str(group.reason.text)] = reasons.get(str(group.reason.text), 0) + group.items.size
        for r in reports:
            if r.failed and r.reason:
                reasons[str(r.reason.text)] = reasons.get(str(r.reason.text), 0) + r.failed
        # What landed is what it came to; until then entries are worth what their source made of them.
        said = {c.manifest: c.bytes for c in done if c.landed}
        missed = {c.manifest for c in done} - current.keys()
        return Arrivals(
            destination=destination,
            files=sum(k.items for k in current.values()) + sum(c.items for c in done if c.manifest in missed),
            arrived=sum(c.sealed.size for c in done) + sum(r.sealed for r in reports),
            failed=sum(g.items.size for c in done for g in c.failed) + sum(r.failed for r in reports),
            cancelled=sum(c.cancelled.size for c in done),
            bytes=sum(said.get(mid, k.bytes) for mid, k in current.items())
            + sum(c.bytes for c in done if c.manifest in missed),
            arrived_bytes=sum(c.bytes for c in done) + sum(_bytes_of(r, current.get(r.manifest)) for r in reports),
            open=reports,
            reasons=tuple(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
        )

    def _unfinished(self) -> list[Unfinished]:
        found: list[Unfinished] = []
        for (site, manifest), completion in sorted(self._completed.items()):
            known = self._known.get(manifest)
            for group in completion.failed:
                for number in group.items.numbers():
                    if len(found) == UNFINISHED_MAX:
                        return found
                    lfn = known.lfns[number] if known else f"item {number} of {manifest}"
                    found.append(Unfinished(site, lfn, group.reason))
        return found
