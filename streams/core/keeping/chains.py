"""One chain of keeping: which steps count, and what stands after them. The fold needs no other chain, topic or clock.

    EMPTY ──step 1──▶ SOUND ──a step that continues what does not count, or leaves out a number──▶ DISPUTED
    any ──settled──▶ SOUND

A step counts if its number is the next and it continues the last one by digest. Of several that do, the first in the
partition counts; the others are void, they lost a race: a second worker, one that slept, one that had not heard all.
Who continues a void step lives in another history, as after a disk of before was put back. Then no step of the chain
counts until an operator has settled it.

What a step does is decided by its place in the chain alone:

- A claim that is noted aborts the open asks for what it protects, and while it lives no ask opens for that.
- A promise aborts the site's own open asks for the files promised.
- A removal counts for a file while its ask is open for it: so never for what a live claim protects.
- A step of another process aborts the open asks of those before: an ask does not outlive the process that made it. A
  claim alone aborts none: every worker of the site notes what its own transfers need, beside who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol

from streams.core.chain import Succession, succession
from streams.core.names import Block, Dataset, IntentId, Lfn, Site, Text
from streams.core.records.keeping import (
    ChainSettled,
    ChainStep,
    ClaimDecided,
    KeepingStep,
    KeepPromised,
    KeptFile,
    LeaveAsked,
    LeavingFile,
    NotedClaim,
    RemovalDecided,
    names_of,
    step_sha256,
)
from streams.core.records.limits import FILES_MAX
from streams.core.selectors import Kind

ASKS_OPEN_MAX = 16
"""Open asks of a chain: with FILES_MAX files each, what a site remembers of another's wishes."""
REMEMBERED_MAX = 256
"""Digests of steps, and promises, that a row keeps: a step of before is no news, a promise of before is asked again."""
REMEMBERED_FILES_MAX = 2 * ASKS_OPEN_MAX * FILES_MAX
"""Files of the promises that a row keeps."""


class ChainState(StrEnum):
    EMPTY = "empty"
    SOUND = "sound"
    DISPUTED = "disputed"


class StepHeard(StrEnum):
    """What became of a step."""

    COUNTS = "counts"
    AGAIN = "again"
    """It counted before."""
    VOID = "void"
    """It lost a race: its number was taken."""
    PASSED = "passed"
    """From before what the row remembers, or of a disputed chain."""
    DISPUTES = "disputes"


@dataclass(frozen=True)
class OpenAsk:
    """An ask and the files that it is still open for; `at_ms` by the asking site's clock."""

    no: int
    sha256: str
    process: str
    at_ms: int
    cause: IntentId | None
    block: Block
    endpoint: str
    files: tuple[LeavingFile, ...]
    asked: tuple[Site, ...]
    not_before_ms: int
    copies: int

    @cached_property
    def by_lfn(self) -> dict[Lfn, LeavingFile]:
        return {file.lfn: file for file in self.files}


@dataclass(frozen=True)
class GivenPromise:
    """What the step `no` of this chain answered to an ask of another."""

    no: int
    at_ms: int
    asker: Site
    ask_no: int
    ask_sha256: str
    promised: tuple[Lfn, ...]
    refused: tuple[KeptFile, ...]

    @cached_property
    def keeps(self) -> frozenset[Lfn]:
        return frozenset(self.promised)

    @cached_property
    def refusals(self) -> dict[Lfn, Text]:
        return {kept.lfn: kept.reason for kept in self.refused}

    def answers(self, asker: Site, ask: OpenAsk) -> bool:
        return (self.asker, self.ask_no, self.ask_sha256) == (asker, ask.no, ask.sha256)


@dataclass(frozen=True, slots=True)
class CountedRemoval:
    """A file that goes by the step `no`, whose digest names it: a disk put back may give a number twice."""

    no: int
    sha256: str
    block: Block
    lfn: Lfn
    endpoint: str
    version: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dispute:
    """The first step of another history: its number and digest, and what it continues that never counted here.

    `highest_no`: of all steps heard since, of either history; who settles the chain takes a number above it.
    """

    no: int
    sha256: str
    prev_sha256: str
    highest_no: int


class CoveredNames:
    """Claims by what they cover: a step of 1,000 files asks each of thousands of claims once."""

    def __init__(self, claims: Iterable[NotedClaim]) -> None:
        self._by_name: dict[tuple[str, Kind, str], list[NotedClaim]] = {}
        for claim in claims:
            for selector in claim.selectors:
                self._by_name.setdefault((claim.endpoint, selector.kind, selector.name), []).append(claim)

    def protecting(self, endpoint: str, block: Block, lfn: Lfn, cause: IntentId | None) -> NotedClaim | None:
        """One that keeps a file from asks of this cause."""
        for kind, name in names_of(block, lfn):
            for claim in self._by_name.get((endpoint, kind, name), ()):
                if claim.protects_from(cause):
                    return claim
        return None


class Claims(Protocol):
    """The live claims of a chain: thousands, of which a step needs few."""

    def __iter__(self) -> Iterator[NotedClaim]:
        """By name."""

    def named(self, claim: str) -> NotedClaim | None: ...

    def protecting(self, endpoint: str, block: Block, lfn: Lfn, cause: IntentId | None) -> NotedClaim | None:
        """One that keeps a file from asks of this cause."""

    def after(self, noted: Iterable[NotedClaim], ended: Collection[str]) -> Claims:
        """With these noted, and those ended. A live claim is what it was."""


class HeldClaims(tuple[NotedClaim, ...]):
    """All of them, by name."""

    @cached_property
    def _covered(self) -> CoveredNames:
        return CoveredNames(self)

    def named(self, claim: str) -> NotedClaim | None:
        return next((one for one in self if one.claim == claim), None)

    def protecting(self, endpoint: str, block: Block, lfn: Lfn, cause: IntentId | None) -> NotedClaim | None:
        return self._covered.protecting(endpoint, block, lfn, cause)

    def after(self, noted: Iterable[NotedClaim], ended: Collection[str]) -> HeldClaims:
        # Under fewer names a live claim would leave files that land under it.
        claims = {claim.claim: claim for claim in noted} | {one.claim: one for one in self if one.claim not in ended}
        return HeldClaims(claims[name] for name in sorted(claims))


NO_CLAIMS = HeldClaims()


@dataclass(frozen=True)
class ChainRow:
    """The fold of one chain. `no`, `sha256`: its last step that counted. `digests`: of the last ones, that is the last.

    Open asks and given promises by number.
    """

    site: Site
    dataset: Dataset
    state: ChainState = ChainState.EMPTY
    no: int = 0
    sha256: str = ""
    digests: tuple[str, ...] = ()
    claims: Claims = NO_CLAIMS
    asks: tuple[OpenAsk, ...] = ()
    promises: tuple[GivenPromise, ...] = ()
    dispute: Dispute | None = None

    @property
    def disputed(self) -> bool:
        return self.state is ChainState.DISPUTED

    def ask(self, no: int) -> OpenAsk | None:
        return next((ask for ask in self.asks if ask.no == no), None)

    def asks_for(self, lfn: Lfn) -> tuple[OpenAsk, ...]:
        """The open ones of a file, of any endpoint."""
        return tuple(ask for ask in self.asks if lfn in ask.by_lfn)

    @property
    def next_head(self) -> tuple[Site, Dataset, int, str]:
        """The first fields of the step that would come next."""
        return self.site, self.dataset, self.no + 1, self.sha256


@dataclass(frozen=True, slots=True)
class FoldedStep:
    """The row after a step, what became of the step, and the removals that it brought."""

    row: ChainRow
    heard: StepHeard
    removals: tuple[CountedRemoval, ...] = ()


def of_taken_number(row: ChainRow, step: KeepingStep, sha256: str) -> StepHeard:
    """Of a step whose number was given before: the same again, a lost race, or another history."""
    first = row.no - len(row.digests) + 1
    if step.no < first:
        return StepHeard.PASSED
    if row.digests[step.no - first] == sha256:
        return StepHeard.AGAIN
    if step.no == first > 1:
        return StepHeard.VOID  # what the step that counts continues is not remembered
    predecessor = row.digests[step.no - first - 1] if step.no > 1 else ""
    return StepHeard.VOID if step.prev_sha256 == predecessor else StepHeard.DISPUTES


def _without(asks: Collection[OpenAsk], over: Callable[[OpenAsk, LeavingFile], bool]) -> tuple[OpenAsk, ...]:
    """Open asks without those of their files that are over; one without files has ended."""
    out: list[OpenAsk] = []
    for ask in asks:
        files = tuple(file for file in ask.files if not over(ask, file))
        if files:
            out.append(ask if len(files) == len(ask.files) else replace(ask, files=files))
    return tuple(out)


def _claims(row: ChainRow, step: ClaimDecided, _: str) -> tuple[ChainRow, tuple[CountedRemoval, ...]]:
    return abort_protected(replace(row, claims=row.claims.after(step.noted, step.ended)), step.noted), ()


def abort_protected(row: ChainRow, noted: tuple[NotedClaim, ...]) -> ChainRow:
    """Claims that are noted end the open asks for what they protect: one may bring a file that no ask has named."""
    protecting = CoveredNames(noted).protecting
    return replace(
        row,
        asks=_without(row.asks, lambda ask, file: bool(protecting(ask.endpoint, ask.block, file.lfn, ask.cause))),
    )


def _asked(row: ChainRow, step: LeaveAsked, sha256: str) -> tuple[ChainRow, tuple[CountedRemoval, ...]]:
    if len(row.asks) >= ASKS_OPEN_MAX:
        return row, ()
    asked = {file.lfn for ask in row.asks if ask.endpoint == step.endpoint for file in ask.files}
    files = tuple(
        file
        for file in step.files
        if file.lfn not in asked and row.claims.protecting(step.endpoint, step.block, file.lfn, step.cause) is None
    )
    ask = OpenAsk(
        step.no,
        sha256,
        step.process,
        step.at_ms,
        step.cause,
        step.block,
        step.endpoint,
        files,
        step.asked,
        step.not_before_ms,
        step.copies,
    )
    return (replace(row, asks=(*row.asks, ask)) if files else row), ()


def abort_own(row: ChainRow, promised: Collection[Lfn]) -> ChainRow:
    """A promise ends the promiser's own open asks for the same files."""
    lfns = set(promised)
    return replace(row, asks=_without(row.asks, lambda _, file: file.lfn in lfns))


def _promised(row: ChainRow, step: KeepPromised, _: str) -> tuple[ChainRow, tuple[CountedRemoval, ...]]:
    given = GivenPromise(step.no, step.at_ms, step.asker, step.ask_no, step.ask_sha256, step.promised, step.refused)
    row = abort_own(row, step.promised)
    return replace(row, promises=_remembered((*row.promises, given))), ()


def _remembered(promises: tuple[GivenPromise, ...]) -> tuple[GivenPromise, ...]:
    """The last of them, as many as a row keeps."""
    files = 0
    for n, given in enumerate(reversed(promises)):
        files += len(given.promised) + len(given.refused)
        if n == REMEMBERED_MAX or files > REMEMBERED_FILES_MAX:
            return promises[-n:]
    return promises


def _removed(row: ChainRow, step: RemovalDecided, sha256: str) -> tuple[ChainRow, tuple[CountedRemoval, ...]]:
    ask = row.ask(step.ask_no)
    if ask is None:
        return row, ()
    removals: list[CountedRemoval] = []
    if step.at_ms >= ask.not_before_ms:
        for group in step.removed:
            for lfn in group.lfns:
                if (file := ask.by_lfn.get(lfn)) is not None:
                    removals.append(
                        CountedRemoval(step.no, sha256, ask.block, lfn, ask.endpoint, file.version, file.words)
                    )
    over = {removal.lfn for removal in removals} | {kept.lfn for kept in step.kept}
    asks = _without(row.asks, lambda one, file: one.no == ask.no and file.lfn in over)
    return replace(row, asks=asks), tuple(removals)


def _settled(row: ChainRow, _step: ChainSettled, _: str) -> tuple[ChainRow, tuple[CountedRemoval, ...]]:
    return replace(row, asks=(), promises=(), dispute=None), ()


_FOLDED: dict[type[ChainStep], Callable[[ChainRow, Any, str], tuple[ChainRow, tuple[CountedRemoval, ...]]]] = {
    ClaimDecided: _claims,
    LeaveAsked: _asked,
    KeepPromised: _promised,
    RemovalDecided: _removed,
    ChainSettled: _settled,
}


def before_step(row: ChainRow, step: KeepingStep) -> ChainRow:
    """The row that a step is folded into: open asks of other processes are over, but for who notes or ends claims."""
    return row if isinstance(step, ClaimDecided) else of_process(row, step.process)


def of_process(row: ChainRow, process: str) -> ChainRow:
    asks = tuple(ask for ask in row.asks if ask.process == process)
    return row if len(asks) == len(row.asks) else replace(row, asks=asks)


def _counted(row: ChainRow, step: KeepingStep, sha256: str, digests: tuple[str, ...]) -> FoldedStep:
    row, removals = _FOLDED[type(step)](before_step(row, step), step, sha256)
    digests = (*digests, sha256)[-REMEMBERED_MAX:]
    row = replace(row, state=ChainState.SOUND, no=step.no, sha256=sha256, digests=digests)
    return FoldedStep(row, StepHeard.COUNTS, removals)


def _numbered(row: ChainRow, step: KeepingStep, sha256: str) -> FoldedStep:
    what = StepHeard.DISPUTES
    match succession(row.no + 1, row.sha256, step.no, step.prev_sha256):
        case Succession.NEXT:
            return _counted(row, step, sha256, row.digests)
        case Succession.TAKEN:
            what = of_taken_number(row, step, sha256)
    if what is not StepHeard.DISPUTES:
        return FoldedStep(row, what)
    dispute = Dispute(step.no, sha256, step.prev_sha256, max(row.no, step.no))
    return FoldedStep(replace(row, state=ChainState.DISPUTED, dispute=dispute), what)


def _settling(row: ChainRow, step: ChainSettled, sha256: str) -> FoldedStep:
    if step.no > (row.no if row.dispute is None else row.dispute.highest_no):
        return _counted(row, step, sha256, ())
    # Without digests of before, a repeat of the other history is passed over and opens no new dispute.
    first = row.no - len(row.digests) + 1
    again = row.no >= step.no >= first and row.digests[step.no - first] == sha256
    return FoldedStep(row, StepHeard.AGAIN if again else StepHeard.PASSED)


def _passed(row: ChainRow, step: KeepingStep, _: str) -> FoldedStep:
    assert row.dispute is not None
    highest_no = max(row.dispute.highest_no, step.no)
    return FoldedStep(replace(row, dispute=replace(row.dispute, highest_no=highest_no)), StepHeard.PASSED)


Handler = Callable[[ChainRow, Any, str], FoldedStep]

TABLE: dict[tuple[ChainState, type[ChainStep]], Handler] = {
    **{(state, kind): _numbered for state in ChainState for kind in _FOLDED},
    **{(ChainState.DISPUTED, kind): _passed for kind in _FOLDED},
    **{(state, ChainSettled): _settling for state in ChainState},
}


def fold(row: ChainRow, step: KeepingStep) -> FoldedStep:
    """The row after one step of its chain."""
    return TABLE[row.state, type(step)](row, step, step_sha256(step))
