"""Histories of the searched federation (keeping_federation.py) as records in journals, for whoever reads those.

What a move changes of a site is what that site says: a step of its chain, a word, a loss. A broker that was put back
has lost its last records, which its peers have, for they may have acted on them; its site goes on as another process.
"""

from __future__ import annotations

import random

from streams.core import records as m
from streams.core.ledger.findings import LogPosition
from streams.core.names import Site, Text
from streams.core.records.keeping import ChainStep, ClaimDecided, KeepingStep, KeepPromised
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
        self.said: dict[Site, list[list[tuple[m.Message | None, LogPosition]]]] = {site: [] for site in self.sites}
        """Each site's records, and those of late workers with the one before them."""
        for site, local in zip(self.sites, self._locals(self.state), strict=True):
            for word in sorted(local.replica.said):
                self._hold(site, word, local.version)

    def go(self, state: State, words: str = "") -> None:
        """Say what a move changed. `words`: the federation's, of the move."""
        pairs = zip(self.sites, self._locals(self.state), self._locals(state), strict=True)
        for site, before, after in pairs:
            if before != after and "starts on its disk" in words:
                self._put_back(site, next(int(word) for word in words.split() if word.isdigit()))
            elif before != after:
                self._tell(site, before, after)
        self.state = state

    def walk(self, chance: random.Random, moves: int) -> None:
        """So many moves, whichever; now and then a worker is late, and a mirror copies."""
        for _ in range(moves):
            possible = list(self.federation.moves(self.state))
            if not possible:
                return
            words, state = chance.choice(possible)
            self.go(state, words)
            if chance.random() < 0.1:
                self._lose_race(chance)
            if chance.random() < 0.2:
                self.mirror()

    def _locals(self, state: State) -> list[Local]:
        return [self.federation.locals[number] for number in state.sites]

    def _tell(self, site: Site, before: Local, after: Local) -> None:
        if after.chain.sha256 != before.chain.sha256:
            step = self.federation.made[after.chain.sha256]
            looked: list[m.Message] = []
            if isinstance(step, KeepPromised):
                found = (m.CheckedFile(LFN, 1, ADLER32, f"v{before.version}"),)
                ask = step.asker, step.ask_no, step.ask_sha256
                looked = [m.ReplicasChecked(site, DATASET, *ask, step.no - 1, found)]
            self._say(site, *looked, step)
        for word in sorted(after.replica.said - before.replica.said):
            self._hold(site, word, after.version)
        ended = after.replica.ended - before.replica.ended
        for order in before.orders:
            again = order.removal.sha256 in after.replica.ended and len(after.past) > len(before.past)
            if order.removal.sha256 in ended or (again and order not in after.orders):
                self._lose(site, order.removal.words, order.removal.sha256)
                return
        if after.replica.taken != before.replica.taken:
            self._lose(site, tuple(sorted(after.replica.taken - before.replica.taken)))

    def _say(self, site: Site, *messages: m.Message) -> None:
        """What is one record of the federation."""
        self.said[site].append([(message, self.registrars[site].say(message)) for message in messages])

    def _put_back(self, site: Site, records: int) -> None:
        """The broker of a site has lost so many records; who writes there next is another process."""
        self.mirror()
        lost = [place for group in self.said[site][-records:] for _, place in group]
        del self.said[site][-records:]
        for place in lost:
            self.drop(place)
        self.writers.remove(self.registrars[site])
        self.registrars[site] = self.writer(site, "register", "cli")
        for key, log in self.logs.items():
            for target in self.sites if key[0] == site and "." not in key[1] else ():
                copy = target, f"{site}.{key[1]}", key[2]
                self.mirrored[copy] = min(self.mirrored.get(copy, -1), log[-1][0] if log else -1)

    def _hold(self, site: Site, word: str, version: int) -> None:
        file = m.HeldFile(LFN, BLOCK, 1, ADLER32, f"v{version}")
        self._say(site, m.FilesHeld(DATASET, site, (file,), None, DISK, "", word))

    def _lose(self, site: Site, words: tuple[str, ...], removal: str = "") -> None:
        taken = (m.TakenWords(words),)
        self._say(site, m.FilesLost(DATASET, site, (LFN,), WHY, DISK, taken, removal))

    def _lose_race(self, chance: random.Random) -> None:
        """A second worker of a site has not heard its chain's last steps."""
        site = chance.choice(self.sites)
        steps = [one for group in self.said[site] for one, _ in group if isinstance(one, ChainStep)]
        if steps:
            no = chance.randint(1, len(steps))
            before = steps[no - 1].prev_sha256
            head = (site, DATASET, no, before, "late", chance.randrange(1000), Text("worker"), None, Text(""))
            late = ClaimDecided(*head, (), ("none",))
            self.said[site][-1].append((None, self.registrars[site].say(late)))
