"""I13, I14 and the holders of I18: what decisions took of each file of a dataset, held to the words that sites said.

Words are sets: a word that a decision takes back stays taken back, whatever order topics have. An accident takes none
here. Files come in slices, so that a large dataset needs no more memory than a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.core.ledger.findings import Invariant, LogPosition
from streams.core.ledger.keeping_chains import Step
from streams.core.ledger.keeping_datasets import EndHead, KeptDataset
from streams.core.ledger.keeping_facts import Held
from streams.core.ledger.keeping_faults import FileOf, KeepingFaults, called, endpoint_called, words_of
from streams.core.names import Site

_I13, _I14, _I18 = Invariant.LAST_COPY, Invariant.CLAIMED, Invariant.REMOVAL
SLICE_FILES = 50_000
"""Files whose words are in memory at once; words of a dataset are read as often as it has slices."""


class Stray(NamedTuple):
    """Words of a file that the end of a removal takes back, and no removal ordered: file `number` of that end."""

    end: EndHead
    number: int
    file: int
    words: frozenset[int]


class _Taken(NamedTuple):
    """Words of a file that a decision takes back. `no`: of the step, 0 where none orders it; `copies`: as asked."""

    site: Site
    no: int
    words: frozenset[int]
    copies: int
    at_ms: int
    file: FileOf

    @property
    def place(self) -> LogPosition:
        return self.file.place


class _Said(NamedTuple):
    endpoint: str
    block: int
    landed: bool


class _Promised(NamedTuple):
    site: Site
    step: Step
    number: int


class _StandIn(NamedTuple):
    """An endpoint of the site that stands for a promise in a removal of a file."""

    site: Site
    step: Step
    number: int
    endpoint: str


@dataclass(slots=True)
class _Matter:
    """All that matters of one file. `said`: what its sites said, by word."""

    said: dict[Site, dict[int, _Said]] = field(default_factory=dict)
    taken: list[_Taken] = field(default_factory=list)
    promised: list[_Promised] = field(default_factory=list)
    stand_ins: list[_StandIn] = field(default_factory=list)

    def standing(self, site: Site, no: int) -> dict[int, _Said]:
        """Words of a site that its chain had not taken back before step `no`."""
        gone = {word for taken in self.taken_before(site, no) for word in taken.words}
        return {word: of for word, of in self.said.get(site, {}).items() if word not in gone}

    def taken_before(self, site: Site, no: int) -> list[_Taken]:
        return [one for one in self.taken if one.site == site and 0 < one.no < no]


class FileJudge:
    """Files of one dataset that any step removes or promises."""

    def __init__(self, kept: KeptDataset, strays: Sequence[Stray], found: KeepingFaults) -> None:
        self._kept, self._strays, self._found, self._dataset = kept, strays, found, kept.dataset

    def judge(self) -> None:
        removed = sum(1 for _, removal in self._kept.removals() for _ in self._kept.ordered(removal))
        promised = sum(len(self._kept.promise_at(step.place).files) for _, step in self._kept.promises())
        slices = (removed + promised + len(self._strays)) // SLICE_FILES + 1
        for part in range(slices):
            self._judge_slice(lambda file, part=part: file % slices == part)  # type: ignore[misc]

    def _judge_slice(self, is_in: Callable[[int], bool]) -> None:
        matters = self._matters(is_in)
        if matters:
            self._gather(matters)
        for file, matter in matters.items():
            if matter.taken:
                self._found.removed += 1
                self._judge_left(matter)
                self._judge_words(matter)
            self._judge_claimed(file, matter)
            for promised in matter.promised:
                self._judge_promiser(promised, matter)
            for stand_in in matter.stand_ins:
                self._judge_stand_in(stand_in, matter)

    # what is said of them

    def _matters(self, is_in: Callable[[int], bool]) -> dict[int, _Matter]:
        matters: dict[int, _Matter] = {}
        for site, removal in self._kept.removals():
            if removal.ask is None:
                continue
            step, copies = removal.step, self._kept.ask_at(removal.ask.place).copies
            of_number: dict[int, _Matter] = {}
            for number, file, words in self._kept.ordered(removal):
                if is_in(file):
                    matter = of_number[number] = matters.setdefault(file, _Matter())
                    matter.taken.append(_Taken(site, step.no, words, copies, step.at_ms, FileOf(step.place, number)))
            for group in self._kept.removal_at(step.place).groups:
                for number in range(group.first, group.first + len(group.files)) if group.endpoints else ():
                    if number in of_number:
                        some = (_StandIn(site, step, number, endpoint) for endpoint in group.endpoints)
                        of_number[number].stand_ins.extend(some)
        for end, number, file, words in self._strays:
            if is_in(file):
                taken = _Taken(end.site, 0, words, 1, end.at_ms, FileOf(end.place, number))
                matters.setdefault(file, _Matter()).taken.append(taken)
        for site, step in self._kept.promises():
            for number, file in enumerate(self._kept.promise_at(step.place).files):
                if is_in(file):
                    matters.setdefault(file, _Matter()).promised.append(_Promised(site, step, number))
        return matters

    def _gather(self, matters: dict[int, _Matter]) -> None:
        for fact in self._kept.facts.held(self._dataset):
            said, site = fact.said, fact.site
            assert isinstance(said, Held)
            for number, file in enumerate(said.files):
                matter = matters.get(file)
                if matter is not None:
                    word = _Said(said.endpoint, said.block_of(number), said.landed)
                    matter.said.setdefault(site, {})[said.word] = word

    # verdicts

    def _judge_left(self, matter: _Matter) -> None:
        """Places that decisions left, whatever accidents took since; of what is removed for good none need be left."""
        gone = {(one.site, word) for one in matter.taken for word in one.words}
        words = [(site, word, of.endpoint) for site, said in matter.said.items() for word, of in said.items()]
        places = {(site, endpoint) for site, _, endpoint in words}
        left = {(site, endpoint) for site, word, endpoint in words if (site, word) not in gone}
        least = min(len(places), *(one.copies for one in matter.taken))
        if len(left) >= least:
            return
        ranked = sorted(matter.taken, key=lambda one: one.place.rank)
        by = ", ".join(sorted({one.site for one in ranked}))
        both = f"decisions of {by} leave {len(left)} of {least} copies of ", f" in {self._dataset}"
        records = tuple(one.place for one in ranked)
        self._found.add(_I13, both, records, max(one.at_ms for one in ranked), (), ranked[0].file)

    def _judge_words(self, matter: _Matter) -> None:
        """An ask names words that its site said."""
        for one in matter.taken:
            if one.no and not one.words <= matter.said.get(one.site, {}).keys():
                what = f"RemovalDecided {one.no} of {one.site} about {self._dataset} removes "
                both = what, f" by words that {one.site} never said"
                self._found.add(_I18, both, (one.place,), one.at_ms, words_of(one.site), one.file)

    def _judge_claimed(self, file: int, matter: _Matter) -> None:
        """Words of landings under claims that live. What a step took by right, it took before the claim was noted."""
        for site, said in matter.said.items():
            chain = self._kept.chains.get(site)
            for word, of in said.items() if chain is not None else ():
                assert chain is not None
                live = chain.covering(of.endpoint, of.block, file) if of.landed else None
                if live is None:
                    continue
                self._found.claimed[site] += 1
                claim = f"claim {live.claim.name} of step {live.no}"
                for one in matter.taken:
                    if one.site == site and not one.no and word in one.words:
                        after = f" in {self._dataset}, which landed under {claim} that has not ended"
                        both, records = (f"{site} takes back ", after), (one.place, live.place)
                        self._found.add(_I14, both, records, one.at_ms, words_of(site), one.file)

    def _judge_promiser(self, one: _Promised, matter: _Matter) -> None:
        """Who promises holds the file, by what its own chain removed before."""
        if matter.standing(one.site, one.step.no):
            return
        before = matter.taken_before(one.site, one.step.no)[-1:] if one.site in matter.said else []
        how = f"had removed in step {before[0].no}" if before else "never said that it holds"
        both = f"{called(one.step, one.site, self._dataset)} promises ", f", which {one.site} {how}"
        records = (one.step.place, *(taken.place for taken in before))
        self._found.add(_I18, both, records, one.step.at_ms, words_of(one.site), FileOf(one.step.place, one.number))

    def _judge_stand_in(self, one: _StandIn, matter: _Matter) -> None:
        """So does an endpoint that stands for a promise."""
        if any(of.endpoint == one.endpoint for of in matter.standing(one.site, one.step.no).values()):
            return
        after = f" and counts {endpoint_called(one.endpoint)} for a copy, which does not hold it"
        both = f"{called(one.step, one.site, self._dataset)} removes ", after
        file = FileOf(one.step.place, one.number)
        self._found.add(_I18, both, (one.step.place,), one.step.at_ms, words_of(one.site), file)
