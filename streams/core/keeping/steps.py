"""Steps of a keeping chain: what a site decides about a dataset in its own storage, one number after the other.

A chain is of one (site, dataset). Its steps stand in one partition, each continues the one before by digest, and the
first of a number counts (chains.py). No step speaks of another site's storage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields

from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site, Text
from streams.core.records import field_checks
from streams.core.records.limits import FILES_MAX, SITES_MAX
from streams.core.selectors import Kind, Selector


@dataclass(frozen=True, slots=True)
class ChainStep:
    """What all steps have. `no` from 1; `prev_sha256` is the digest of step `no` - 1, "" before the first.

    `process`: who writes, another text after each start of a worker and each time it takes the chain over.
    `cause`: the intent that it serves, None where the site acts of itself.
    """

    site: Site
    dataset: Dataset
    no: int
    prev_sha256: str
    process: str
    at_ms: int
    by: Text
    cause: IntentId | None
    reason: Text


def names_of(block: Block, lfn: Lfn) -> tuple[tuple[Kind, str], ...]:
    """What a claim may call a file by."""
    return (Kind.DATASET, block.partition("#")[0]), (Kind.BLOCK, block), (Kind.FILE, lfn)


@dataclass(frozen=True, slots=True)
class NotedClaim:
    """Names at one endpoint that somebody has a right to. `claim`: the intent, manifest or registration it is of.

    `lands`: files land under it, and it protects them from every ask. Else it is of a move's source: no file lands
    under it, and it protects from all asks but those of its own `intent`.
    """

    claim: str
    endpoint: str
    selectors: tuple[Selector, ...]
    lands: bool = True
    intent: IntentId | None = None

    def covers(self, endpoint: str, block: Block, lfn: Lfn) -> bool:
        names = names_of(block, lfn)
        return endpoint == self.endpoint and any((s.kind, s.name) in names for s in self.selectors)

    def protects_from(self, cause: IntentId | None) -> bool:
        """Whether files that it covers stay, though this intent asks to leave them."""
        return self.lands or self.intent is None or self.intent != cause


@dataclass(frozen=True, slots=True)
class ClaimDecided(ChainStep):
    noted: tuple[NotedClaim, ...] = ()
    ended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeavingFile:
    """A file as the plane of its site found it, and the words known of it there (words.py)."""

    lfn: Lfn
    bytes: int
    adler32: Adler32
    version: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeaveAsked(ChainStep):
    """The site would remove these files of `endpoint`, once `copies` others have promised to keep them."""

    block: Block
    endpoint: str
    files: tuple[LeavingFile, ...]
    asked: tuple[Site, ...]
    not_before_ms: int = 0
    copies: int = 1


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file that a site will not promise, or not remove, and why."""

    lfn: Lfn
    reason: Text


@dataclass(frozen=True, slots=True)
class KeepPromised(ChainStep):
    """The site's answer to an ask, which its number and digest name: after a loss a number may be given again."""

    asker: Site
    ask_no: int
    ask_sha256: str
    promised: tuple[Lfn, ...]
    refused: tuple[KeptFile, ...] = ()


@dataclass(frozen=True, slots=True)
class ReliedOn:
    """A promise that a removal relies on: the step `no` of `site`'s chain."""

    site: Site
    no: int


@dataclass(frozen=True, slots=True)
class RemovedFiles:
    """Files removed on the same promises. `endpoints`: own ones that hold them too, and stand for a promise."""

    lfns: tuple[Lfn, ...]
    promises: tuple[ReliedOn, ...]
    endpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RemovalDecided(ChainStep):
    """What becomes of files of the site's own ask `ask_no`; what is in neither stays asked for."""

    ask_no: int
    removed: tuple[RemovedFiles, ...] = ()
    kept: tuple[KeptFile, ...] = ()


@dataclass(frozen=True, slots=True)
class ChainSettled(ChainStep):
    """An operator's word after histories parted: whatever was said before counts no more, this is the next step.

    Its number is above all that any site has heard of the chain, of whatever history, or it does not count there. Its
    predecessor may be unknown elsewhere.
    """


KeepingStep = ClaimDecided | LeaveAsked | KeepPromised | RemovalDecided | ChainSettled


def step_sha256(step: KeepingStep) -> str:
    """sha256 (hex) over a step's meaning, independent of its encoding; chains through `prev_sha256`."""
    return hashlib.sha256(_canonical(step).encode()).hexdigest()


def _canonical(value: object) -> str:
    """One text for each value: texts with their length, so that none looks like two."""
    if isinstance(value, str):
        return f"{len(value)}:{value}"
    if isinstance(value, tuple):
        return f"({''.join(map(_canonical, value))})"
    if value is None or isinstance(value, int):
        return f"{value};"
    named = [_canonical(getattr(value, field.name)) for field in fields(value)]  # type: ignore[arg-type]
    return f"{type(value).__name__}({''.join(named)})"


def step_fault(step: KeepingStep) -> str | None:
    """Why a step contradicts itself or a limit, or None."""
    why = field_checks.from_one("no", step.no)
    if why is None and step.no == 1 and step.prev_sha256 and not isinstance(step, ChainSettled):
        why = "prev_sha256: given, and no is 1"
    if why is None and step.no > 1:
        why = field_checks.sha256("prev_sha256", step.prev_sha256)
    return why or field_checks.word("process", step.process) or _own_fault(step)


def _own_fault(step: KeepingStep) -> str | None:
    match step:
        case ClaimDecided():
            claims = [*(claim.claim for claim in step.noted), *step.ended]
            strange = next((s.name for c in step.noted for s in c.selectors if not _within(s, step.dataset)), None)
            if strange is not None:
                return f"noted: {strange} is not of the step's dataset"
            return field_checks.some("noted, ended", claims, FILES_MAX)
        case LeaveAsked():
            if step.block.dataset != step.dataset:
                return "block: not of the step's dataset"
            if step.copies and (why := field_checks.some("asked", step.asked, SITES_MAX)):
                return why
            if step.site in step.asked:
                return "asked: names the site itself"
            if step.copies < 0:
                return f"copies: {step.copies} is less than none"
            return _files(file.lfn for file in step.files)
        case KeepPromised():
            if step.asker == step.site:
                return "asker: the site itself"
            why = field_checks.from_one("ask_no", step.ask_no) or field_checks.sha256("ask_sha256", step.ask_sha256)
            return why or _files([*step.promised, *(file.lfn for file in step.refused)])
        case RemovalDecided():
            named = [lfn for group in step.removed for lfn in group.lfns]
            return field_checks.from_one("ask_no", step.ask_no) or _files([*named, *(f.lfn for f in step.kept)])
        case ChainSettled():
            return None


def _files(lfns: Iterable[Lfn]) -> str | None:
    return field_checks.some("files", lfns, FILES_MAX)


def _within(selector: Selector, dataset: Dataset) -> bool:
    """A file's name does not say its dataset."""
    return selector.kind is Kind.FILE or selector.name.partition("#")[0] == dataset
