"""Histories of the searched federation (keeping_federation.py) as records in journals, for whoever reads those.

What a move changes of a site is what that site says: a step of its chain, a word, a loss. No disk is put back here.
"""

from __future__ import annotations

import random

from streams.core import records as m
from streams.core.names import Site, Text
from streams.core.records.keeping import ClaimDecided, KeepingStep, KeepPromised
from tests.audit.history import WHY, World
from tests.core.keeping_federation import ADLER32, BLOCK, DATASET, DISK, LFN, Federation, Local, State


class Told(Federation):
    """Remembers the steps that it said."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.made: dict[str, KeepingStep] = {}

    def say(self, local: Local, step: KeepingStep) -> Local:
        self.made[m.step_sha256(step)] = step
        return super().say(local, step)


class Journals(World):
    """The records of one history of a federation, which goes on by `go`."""

    def __init__(self, federation: Told) -> None:
        super().__init__(*federation.names)
        self.federation, self.state = federation, federation.start()
        self.registrars = {site: self.writer(site, "register", "cli") for site in self.sites}
        self.steps: dict[Site, list[KeepingStep]] = {site: [] for site in self.sites}
        for site, local in zip(self.sites, self._locals(self.state), strict=True):
            for word in sorted(local.replica.said):
                self._hold(site, word, local.version)

    def go(self, state: State) -> None:
        """Say what a move changed."""
        pairs = zip(self.sites, self._locals(self.state), self._locals(state), strict=True)
        for site, before, after in pairs:
            self._tell(site, before, after)
        self.state = state

    def walk(self, chance: random.Random, moves: int) -> None:
        """So many moves, whichever; now and then a worker is late, and a mirror copies."""
        for _ in range(moves):
            possible = [state for _, state in self.federation.moves(self.state)]
            if not possible:
                return
            self.go(chance.choice(possible))
            if chance.random() < 0.1:
                self._lose_race(chance)
            if chance.random() < 0.2:
                self.mirror()

    def _locals(self, state: State) -> list[Local]:
        return [self.federation.locals[number] for number in state.sites]

    def _tell(self, site: Site, before: Local, after: Local) -> None:
        if after.chain.sha256 != before.chain.sha256:
            step = self.federation.made[after.chain.sha256]
            self.steps[site].append(step)
            if isinstance(step, KeepPromised):
                found = (m.CheckedFile(LFN, 1, ADLER32, f"v{before.version}"),)
                ask = step.asker, step.ask_no, step.ask_sha256
                self.registrars[site].say(m.ReplicasChecked(site, DATASET, *ask, step.no - 1, found))
            self.registrars[site].say(step)
        for word in sorted(after.replica.said - before.replica.said):
            self._hold(site, word, after.version)
        ended = after.replica.ended - before.replica.ended
        for sha256 in sorted(ended):
            removal = next(order.removal for order in before.orders if order.removal.sha256 == sha256)
            self._lose(site, removal.words, sha256)
        if not ended and after.replica.taken != before.replica.taken:
            self._lose(site, tuple(sorted(after.replica.taken - before.replica.taken)))

    def _hold(self, site: Site, word: str, version: int) -> None:
        file = m.HeldFile(LFN, BLOCK, 1, ADLER32, f"v{version}")
        self.registrars[site].say(m.FilesHeld(DATASET, site, (file,), None, DISK, "", word))

    def _lose(self, site: Site, words: tuple[str, ...], removal: str = "") -> None:
        taken = (m.TakenWords(words),)
        self.registrars[site].say(m.FilesLost(DATASET, site, (LFN,), WHY, DISK, taken, removal))

    def _lose_race(self, chance: random.Random) -> None:
        """A second worker of a site has not heard its chain's last steps."""
        site = chance.choice(self.sites)
        if self.steps[site]:
            no = chance.randint(1, len(self.steps[site]))
            before = m.step_sha256(self.steps[site][no - 2]) if no > 1 else ""
            head = (site, DATASET, no, before, "late", chance.randrange(1000), Text("worker"), None, Text(""))
            self.registrars[site].say(ClaimDecided(*head, (), ("none",)))
