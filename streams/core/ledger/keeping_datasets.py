"""All that was said of keeping of one dataset: its chains folded, steps that only copies have, ends of removals.

It is read from the rows of the dataset. Which of it is right is judged above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from streams.core.ledger.findings import LogPosition
from streams.core.ledger.keeping_chains import Chain, CountedRemoval, Step
from streams.core.ledger.keeping_facts import Ask, End, KeepingFact, KeepingFacts, Kind, Look, Promise, Removal
from streams.core.ledger.numbering import Class
from streams.core.names import Dataset, IntentId, Site

Reclass = Callable[[KeepingFact, Class], None]


class EndHead(NamedTuple):
    """A FilesLost that says the end of a removal: of the step of this digest."""

    site: Site
    place: LogPosition
    at_ms: int
    removal: bytes


class Ordered(NamedTuple):
    """A file that a step removes by right: its number there, its name, the words that its ask names."""

    number: int
    file: int
    words: frozenset[int]


class KeptDataset:
    """One dataset. `chains`: of sites whose own journal has steps; `elsewhere`: what only copies of journals have."""

    def __init__(self, dataset: Dataset, name: int, facts: KeepingFacts, reclass: Reclass) -> None:
        """`name`: the hash of the dataset's. `reclass`: told of each original that changed nothing when it came."""
        self.dataset, self.facts = dataset, facts
        self.chains: dict[Site, Chain] = {}
        self.elsewhere: dict[Site, dict[bytes, Step]] = {}
        self._ends: dict[tuple[int, int], EndHead] = {}
        self._looks: dict[tuple[Site, bytes], list[tuple[int, LogPosition]]] = {}
        self.promised_at: Callable[[LogPosition], frozenset[int]] = lru_cache(64)(self._promised_at)
        """Names of the files that a promise names."""
        self._fold(name, reclass)

    def _fold(self, name: int, reclass: Reclass) -> None:
        copies: list[tuple[Site, Step]] = []
        for fact in self.facts.steps(self.dataset):
            if fact.kind is Kind.END:
                self._hear_end(fact)
            elif fact.kind is Kind.LOOK:
                assert isinstance(fact.said, Look)
                looks = self._looks.setdefault((fact.site, fact.said.ask_sha256), [])
                looks.append((fact.said.noted_no, fact.place))
            elif fact.is_original:
                chain = self.chains.get(fact.site)
                if chain is None:
                    chain = self.chains[fact.site] = Chain(fact.site, name)
                how = chain.hear(fact)
                if how is not Class.APPLIED and fact.is_first:
                    reclass(fact, how)
            else:
                head = Step(fact.kind, fact.no, fact.sha256, fact.place, fact.at_ms, fact.logged_ms)
                copies.append((fact.site, head))
        for chain in self.chains.values():
            chain.close()
        for site, step in copies:
            own = self.chains.get(site)
            if own is None or step.sha256 not in own.known:
                steps = self.elsewhere.setdefault(site, {})
                known = steps.get(step.sha256)
                if known is None or step.place.rank < known.place.rank:
                    steps[step.sha256] = step

    def _hear_end(self, fact: KeepingFact) -> None:
        assert isinstance(fact.said, End)
        name = fact.life, fact.seq
        known = self._ends.get(name)
        if known is None or fact.place.rank < known.place.rank:
            self._ends[name] = EndHead(fact.site, fact.place, fact.at_ms, fact.said.removal)

    def _at(self, place: LogPosition) -> KeepingFact:
        return self.facts.step_at(self.dataset, place)

    def cause_of(self, place: LogPosition) -> IntentId | None:
        return self._at(place).cause

    def ask_at(self, place: LogPosition) -> Ask:
        said = self._at(place).said
        assert isinstance(said, Ask)
        return said

    def removal_at(self, place: LogPosition) -> Removal:
        said = self._at(place).said
        assert isinstance(said, Removal)
        return said

    def promise_at(self, place: LogPosition) -> Promise:
        said = self._at(place).said
        assert isinstance(said, Promise)
        return said

    def end_at(self, place: LogPosition) -> End:
        said = self._at(place).said
        assert isinstance(said, End)
        return said

    def looked_at(self, site: Site, ask_sha256: bytes, no: int) -> frozenset[int]:
        """Files that a plane of the site found for an ask, before step `no` of its chain."""
        found = set[int]()
        for noted_no, place in self._looks.get((site, ask_sha256), ()):
            said = self._at(place).said
            assert isinstance(said, Look)
            found.update(said.files if noted_no < no else ())
        return frozenset(found)

    def _promised_at(self, place: LogPosition) -> frozenset[int]:
        """Files that a promise names."""
        return frozenset(self.promise_at(place).files)

    def ends(self) -> dict[tuple[Site, bytes], list[EndHead]]:
        """By site and removal."""
        found: dict[tuple[Site, bytes], list[EndHead]] = {}
        for end in sorted(self._ends.values(), key=lambda end: end.place.rank):
            found.setdefault((end.site, end.removal), []).append(end)
        return found

    def removals(self) -> Iterator[tuple[Site, CountedRemoval]]:
        for site, chain in sorted(self.chains.items()):
            for removal in chain.removals:
                yield site, removal

    def relied_on(self, site: Site, no: int, asker: Site, ask: Step) -> Step | None:
        """Of the steps of that number, in whatever history of the site, the one that answers the ask, if any does.

        Else the one that counts, else one that does not; None where there is none at all.
        """
        chain = self.chains.get(site)
        own = None if chain is None else chain.steps.get(no)
        if own is None and chain is not None:
            own = next((step for step in chain.known.values() if step.no == no), None)
        others = sorted(
            (step for step in self.elsewhere.get(site, {}).values() if step.no == no), key=lambda step: step.place.rank
        )
        steps = others if own is None else [own, *others]
        return next((step for step in steps if self.answers(step, asker, ask)), steps[0] if steps else None)

    def counts(self, site: Site, step: Step) -> bool:
        """Whether it counts in its site's journal, or in a history that only copies have."""
        chain = self.chains.get(site)
        return chain is None or step.sha256 not in chain.known or chain.steps.get(step.no) == step

    def answers(self, step: Step, asker: Site, ask: Step) -> bool:
        """Whether it is a promise to that ask."""
        if step.kind is not Kind.PROMISE:
            return False
        said = self.promise_at(step.place)
        return (said.asker, said.ask_no, said.ask_sha256) == (asker, ask.no, ask.sha256)

    def step_of(self, site: Site, sha256: bytes) -> Step | None:
        """Of whatever history."""
        chain = self.chains.get(site)
        found = None if chain is None else chain.known.get(sha256)
        return found or self.elsewhere.get(site, {}).get(sha256)

    def ordered(self, removal: CountedRemoval) -> Iterator[Ordered]:
        """Each file that a step removes by right."""
        if removal.ask is None or removal.too_early_ms:
            return
        said = self.removal_at(removal.step.place)
        words = self.ask_at(removal.ask.place).words_of()
        unordered = {number for number, _ in removal.unordered}
        for number, file in said.files():
            if number not in unordered:
                yield Ordered(number, file, frozenset(words[file]))

    def promises(self) -> Iterator[tuple[Site, Step]]:
        for site, chain in sorted(self.chains.items()):
            for step in chain.steps.values():
                if step.kind is Kind.PROMISE:
                    yield site, step
