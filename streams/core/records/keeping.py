"""Records of keeping: what a site decides about a dataset in its own storage, one number after the other.

A chain is of one (site, dataset). Its steps stand in one partition, each continues the one before by digest, and the
first of a number counts (core/keeping/chains.py). No step speaks of another site's storage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any

from streams.core import topics
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site, Text
from streams.core.records import field_checks
from streams.core.records.limits import FILES_MAX, NAMES_MAX, POSITION_MAX, SITES_MAX, WORDS_MAX
from streams.core.records.registry import record
from streams.core.selectors import Kind, Selector


def _step(step: ChainStep) -> str | None:
    why = field_checks.from_one("no", step.no)
    if why is None and step.no > POSITION_MAX:
        why = f"no: {step.no} is over {POSITION_MAX}"
    if why is None and step.no == 1 and step.prev_sha256 and not isinstance(step, ChainSettled):
        why = "prev_sha256: given, and no is 1"
    if why is None and step.no > 1:
        why = field_checks.sha256("prev_sha256", step.prev_sha256)
    return why or field_checks.word("process", step.process)


def _claims(step: ClaimDecided) -> str | None:
    names = [*(claim.claim for claim in step.noted), *step.ended]
    why = _step(step) or field_checks.some("noted, ended", names, FILES_MAX)
    for name in names:
        why = why or field_checks.word("noted, ended", name)
    for n, claim in enumerate(step.noted):
        why = why or field_checks.endpoint(f"noted[{n}].endpoint", claim.endpoint)
        why = why or field_checks.some(f"noted[{n}].selectors", claim.selectors, NAMES_MAX)
        strange = next((s.name for s in claim.selectors if not _within(s, step.dataset)), None)
        if strange is not None:
            return why or f"noted[{n}].selectors: {strange} is not of the step's dataset"
    return why


def _asked(step: LeaveAsked) -> str | None:
    why = _step(step) or field_checks.endpoint("endpoint", step.endpoint)
    if why is None and step.block.dataset != step.dataset:
        why = "block: not of the step's dataset"
    if why is None and step.copies < 0:
        why = f"copies: {step.copies} is less than none"
    if why is None and step.copies:
        why = field_checks.some("asked", step.asked, SITES_MAX)
    if why is None and step.site in step.asked:
        why = "asked: names the site itself"
    why = why or _files(file.lfn for file in step.files)
    for n, file in enumerate(step.files):
        why = why or field_checks.words(f"files[{n}].words", file.words, WORDS_MAX)
        if why is None and not file.version:
            why = f"files[{n}].version: none, as of what no plane has looked at"
    return why


def _promised(step: KeepPromised) -> str | None:
    if step.asker == step.site:
        return "asker: the site itself"
    why = _step(step) or field_checks.from_one("ask_no", step.ask_no)
    why = why or field_checks.sha256("ask_sha256", step.ask_sha256)
    return why or _files([*step.promised, *(file.lfn for file in step.refused)])


def _removed(step: RemovalDecided) -> str | None:
    why = _step(step) or field_checks.from_one("ask_no", step.ask_no)
    named = [lfn for group in step.removed for lfn in group.lfns]
    why = why or _files([*named, *(file.lfn for file in step.kept)])
    for n, group in enumerate(step.removed):
        where = f"removed[{n}]"
        if why is None and not group.lfns:
            why = f"{where}.lfns: none"
        if why is None and group.promises:
            why = field_checks.some(f"{where}.promises", (promise.site for promise in group.promises), SITES_MAX)
        why = why or next((w for one in group.promises if (w := field_checks.from_one(f"{where}.no", one.no))), None)
        why = why or next((w for one in group.endpoints if (w := field_checks.endpoint(where, one))), None)
        if why is None and any(promise.site == step.site for promise in group.promises):
            why = f"{where}.promises: names the site itself"
    return why


def _files(lfns: Iterable[Lfn]) -> str | None:
    return field_checks.some("files", lfns, FILES_MAX)


def _within(selector: Selector, dataset: Dataset) -> bool:
    """A file's name does not say its dataset."""
    return selector.kind is Kind.FILE or selector.name.partition("#")[0] == dataset


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

    `intent`: that it serves, and with whose release it ends; None of a registration. `lands`: files land under it, and
    it protects them from every ask. Else it is of a move's source: no file lands under it, and it protects from all
    asks but those of its own intent.
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


@record(topic=topics.KEEPING, key=lambda r: r.dataset, author=lambda r: r.site, check=_claims)
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


@record(topic=topics.KEEPING, key=lambda r: r.dataset, author=lambda r: r.site, check=_asked)
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


@record(topic=topics.KEEPING, key=lambda r: r.dataset, author=lambda r: r.site, check=_promised)
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


@record(topic=topics.KEEPING, key=lambda r: r.dataset, author=lambda r: r.site, check=_removed)
@dataclass(frozen=True, slots=True)
class RemovalDecided(ChainStep):
    """What becomes of files of the site's own ask `ask_no`; what is in neither stays asked for."""

    ask_no: int
    removed: tuple[RemovedFiles, ...] = ()
    kept: tuple[KeptFile, ...] = ()


@record(topic=topics.KEEPING, key=lambda r: r.dataset, author=lambda r: r.site, check=_step)
@dataclass(frozen=True, slots=True)
class ChainSettled(ChainStep):
    """An operator's word after histories parted: whatever was said before counts no more, this is the next step.

    Its number is above all that any site has heard of the chain, of whatever history, or it does not count there. Its
    predecessor may be unknown elsewhere.
    """


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file as the plane found it; `adler32` of all its bytes."""

    lfn: Lfn
    bytes: int
    adler32: Adler32
    version: str


def _checked(checks: ReplicasChecked) -> str | None:
    why = field_checks.from_one("ask_no", checks.ask_no) or field_checks.sha256("ask_sha256", checks.ask_sha256)
    return why or _files([*(file.lfn for file in checks.found), *(file.lfn for file in checks.missing)])


@record(topic=topics.REPLICA_CHECKS, key=lambda r: r.dataset, author=lambda r: r.site, check=_checked)
@dataclass(frozen=True, slots=True)
class ReplicasChecked:
    """What the plane of `site` found of files that `asker` would remove, for who answers that ask.

    `noted_no`: the last step of the site's own chain as it was known before the plane was told to look.
    """

    site: Site
    dataset: Dataset
    asker: Site
    ask_no: int
    ask_sha256: str
    noted_no: int
    found: tuple[CheckedFile, ...]
    missing: tuple[KeptFile, ...] = ()
    """What it could not read whole, and why."""


KeepingStep = ClaimDecided | LeaveAsked | KeepPromised | RemovalDecided | ChainSettled


def step_sha256(step: KeepingStep) -> str:
    """sha256 (hex) over a step's meaning, independent of its encoding; chains through `prev_sha256`."""
    return hashlib.sha256(_canonical(step).encode()).hexdigest()


def _canonical(value: Any) -> str:
    """One text for each value: texts with their length, so that none looks like two.

    A field that says its default is left out: one that a later version adds leaves the digests of before as they are.
    """
    if isinstance(value, str):
        return f"{len(value)}:{value}"
    if isinstance(value, tuple):
        return f"({''.join(map(_canonical, value))})"
    if value is None or isinstance(value, int):
        return f"{value};"
    said = ((field, getattr(value, field.name)) for field in fields(value))
    told = (f"{f.name}={_canonical(one)}" for f, one in said if f.default is MISSING or one != f.default)
    return f"{type(value).__name__}({''.join(told)})"
