"""Sites that promise and remove, as records of a small federation: each step made by the machine, perhaps a lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from streams.core import records as m
from streams.core.keeping import chains
from streams.core.keeping.chains import ChainRow
from streams.core.ledger.findings import Finding, Judgement, LogPosition
from streams.core.names import Adler32, IntentId, Lfn, Site, Text
from streams.core.records.keeping import (
    ClaimDecided,
    KeepingStep,
    KeepPromised,
    KeptFile,
    LeaveAsked,
    LeavingFile,
    NotedClaim,
    ReliedOn,
    RemovalDecided,
    RemovedFiles,
)
from streams.core.selectors import Kind, Selector
from tests.audit.history import BLOCK, DATASET, LATER_MS, WHY, A, B, C, Federation

DISK, TAPE = "disk", "tape"
INTENT = IntentId(f"{A}.{UUID(int=7)}")
WHOLE = NotedClaim("whole", DISK, (Selector(Kind.DATASET, DATASET),))


def lfn(number: int) -> Lfn:
    return Lfn(f"/store/{number}")


class Keepers(Federation):
    """Sites that all have the same files; `rows`: their chains, as the machine folds them."""

    def __init__(self, *sites: Site, files: int = 2) -> None:
        super().__init__(*(sites or (A, B, C)))
        self.rows = {site: ChainRow(site, DATASET) for site in self.sites}
        self.registrars = {site: self.writer(site, "register", "cli") for site in self.sites}
        for site in self.sites:
            self.hold(site, *range(1, files + 1))

    def hold(self, site: Site, *numbers: int, word: str = "w", endpoint: str = DISK) -> LogPosition:
        files = tuple(m.HeldFile(lfn(n), BLOCK, 5, Adler32("0000000a"), "v1") for n in numbers)
        return self.registrars[site].say(m.FilesHeld(DATASET, site, files, None, endpoint, "higgs", word))

    def give_up(
        self,
        site: Site,
        *numbers: int,
        removal: KeepingStep | str = "",
        words: Sequence[str] = ("w",),
        endpoint: str = DISK,
    ) -> LogPosition:
        """Say that they are lost; by the removal, where one is given."""
        taken = tuple(m.TakenWords(tuple(words)) for _ in numbers)
        sha256 = removal if isinstance(removal, str) else m.step_sha256(removal)
        lost = m.FilesLost(DATASET, site, tuple(map(lfn, numbers)), WHY, endpoint, taken, sha256)
        return self.planes[site].say(lost)

    def head(self, site: Site, process: str = "p", at_ms: int = 0, cause: IntentId | None = None) -> tuple[Any, ...]:
        return (*self.rows[site].next_head, process, at_ms, Text("worker"), cause, Text(""))

    def step(self, step: KeepingStep) -> LogPosition:
        """Say a step, whatever becomes of it."""
        self.rows[step.site] = chains.fold(self.rows[step.site], step).row
        return self.workers[step.site].say(step)

    def asking(self, site: Site, *numbers: int, asked: Sequence[Site] = (), **given: Any) -> LeaveAsked:
        told = {n: given.pop(n) for n in ("not_before_ms", "copies") if n in given}
        words, endpoint = given.pop("words", ("w",)), given.pop("endpoint", DISK)
        files = tuple(LeavingFile(lfn(n), 5, Adler32("0000000a"), "v1", words) for n in numbers)
        others = tuple(asked or (other for other in self.sites if other != site))
        return LeaveAsked(*self.head(site, **given), BLOCK, endpoint, files, others, **told)

    def promising(self, site: Site, ask: LeaveAsked, *numbers: int, **given: Any) -> KeepPromised:
        of = ask.site, ask.no, m.step_sha256(ask)
        return KeepPromised(*self.head(site, **given), *of, tuple(map(lfn, numbers)))

    def removing(
        self, ask: LeaveAsked, *numbers: int, by: Sequence[KeepingStep] = (), endpoints: tuple[str, ...] = (), **k: Any
    ) -> RemovalDecided:
        relied = tuple(ReliedOn(one.site, one.no) for one in by)
        group = RemovedFiles(tuple(map(lfn, numbers)), relied, endpoints)
        return RemovalDecided(*self.head(ask.site, **k), ask.no, (group,))

    def keeping(self, ask: LeaveAsked, *numbers: int) -> RemovalDecided:
        kept = tuple(KeptFile(lfn(n), Text("nobody keeps it")) for n in numbers)
        return RemovalDecided(*self.head(ask.site), ask.no, (), kept)

    def noting(self, site: Site, *claims: NotedClaim, ended: tuple[str, ...] = (), **given: Any) -> ClaimDecided:
        return ClaimDecided(*self.head(site, **given), claims, ended)

    def asked(self, site: Site = A, *numbers: int, **given: Any) -> LeaveAsked:
        self.step(ask := self.asking(site, *(numbers or (1, 2)), **given))
        return ask

    def promised(self, site: Site, ask: LeaveAsked, *numbers: int, **given: Any) -> KeepPromised:
        self.step(promise := self.looked(self.promising(site, ask, *(numbers or (1, 2)), **given)))
        return promise

    def looked(self, promise: KeepPromised, *, noted_no: int | None = None) -> KeepPromised:
        """Its plane has found the files whole; said twice, as by a plane that starts again."""
        found = tuple(m.CheckedFile(lfn, 5, Adler32("0000000a"), "v1") for lfn in promise.promised)
        of = promise.site, DATASET, promise.asker, promise.ask_no, promise.ask_sha256
        for _ in range(2):
            looked = m.ReplicasChecked(*of, promise.no - 1 if noted_no is None else noted_no, found)
            self.planes[promise.site].say(looked)
        return promise

    def removed(self, site: Site = A, *numbers: int, by: Site = B) -> RemovalDecided:
        """An ask, a promise, a removal and its end, all as they should be."""
        some = numbers or (1, 2)
        ask = self.asked(site, *some)
        promise = self.promised(by, ask, *some)
        self.step(removal := self.removing(ask, *some, by=[promise]))
        self.give_up(site, *some, removal=removal)
        return removal

    def told(self, now_ms: int = LATER_MS, **given: Any) -> Judgement:
        self.close()
        self.mirror()
        return self.judge(now_ms=now_ms, **given)

    def finding(self) -> Finding:
        """The only thing that is wrong."""
        (found,) = self.told().broken
        return found
