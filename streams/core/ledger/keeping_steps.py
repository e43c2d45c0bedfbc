"""I18 of steps: a chain is one history, a removal stands on an open ask and promises to it, an end on a removal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streams.core import topics
from streams.core.ledger.findings import Invariant, Severity
from streams.core.ledger.keeping_chains import Chain, CountedRemoval, Step
from streams.core.ledger.keeping_datasets import EndHead, KeptDataset
from streams.core.ledger.keeping_facts import RECORDS, Ask, Group, Kind
from streams.core.ledger.keeping_faults import FileOf, KeepingFaults, OpenRemoval, called, chain_of, endpoint_called
from streams.core.ledger.keeping_files import Stray
from streams.core.names import IntentId, Site

_I18 = Invariant.REMOVAL


class StepJudge:
    """Steps of one dataset."""

    def __init__(self, kept: KeptDataset, was_asked: Callable[[IntentId], bool], found: KeepingFaults) -> None:
        """`was_asked`: whether anybody asked for an intent."""
        self._kept, self._was_asked, self._found, self._dataset = kept, was_asked, found, kept.dataset

    def judge(self) -> list[Stray]:
        """What ends of removals take back though no removal ordered it."""
        for site, chain in sorted(self._kept.chains.items()):
            self._judge_history(site, chain)
            self._found.asked_for[site] += chain.asked_for
        for site, removal in self._kept.removals():
            self._found.steps[site] += 1
            self._judge_removal(site, removal)
        for site, step in self._kept.promises():
            self._found.steps[site] += 1
            self._judge_promise(site, step)
        return self._judge_ends()

    # chains

    def _judge_history(self, site: Site, chain: Chain) -> None:
        for dispute in chain.disputes:
            other, last = dispute.other, dispute.last
            ends = "nothing counts before it" if last is None else f"what counts ends with step {last.no}"
            is_open = dispute is chain.dispute
            words = (
                f"the chain of {site} about {self._dataset} {'is' if is_open else 'was'} disputed: "
                f"its step {other.no} ({RECORDS[other.kind]}) {dispute.why}; {ends}"
            )
            records = (other.place,) if last is None else (last.place, other.place)
            severity = Severity.BROKEN if is_open else Severity.NOTE
            self._found.add(_I18, words, records, other.at_ms, chain_of(site), severity=severity)
        elsewhere = self._kept.elsewhere.get(site, {}).values()
        first = min(elsewhere, key=lambda step: (step.no, step.place.rank), default=None)
        if first is None:
            return
        own = chain.steps.get(first.no)
        how = "it has none of that number" if own is None else f"it has another ({RECORDS[own.kind]})"
        words = (
            f"the chain of {site} about {self._dataset} has two histories: step {first.no} ({RECORDS[first.kind]}) "
            f"stands at {first.place.site} and not in the journal of {site}, where {how}"
        )
        records = (first.place,) if own is None else (own.place, first.place)
        severity = Severity.NOTE if chain.settled_no > first.no else Severity.BROKEN
        self._found.add(_I18, words, records, first.at_ms, chain_of(site), severity=severity)

    # removals

    def _judge_removal(self, site: Site, removal: CountedRemoval) -> None:
        step, said = removal.step, self._kept.removal_at(removal.step.place)
        what = called(step, site, self._dataset)
        for number, ending in removal.unordered:
            both = f"{what} removes ", f" by its ask {said.ask_no}, which is not open for it: {ending.words}"
            file = FileOf(step.place, number)
            self._found.add(_I18, both, (step.place, ending.place), step.at_ms, chain_of(site), file)
        cause = self._kept.cause_of(step.place)
        if cause is not None and not self._was_asked(cause):
            needs = (*chain_of(site), (cause.home, topics.INTENTS))
            self._found.add(_I18, f"{what} serves {cause}, which nobody asked for", (step.place,), step.at_ms, needs)
        if removal.ask is None:
            return
        asked = removal.ask.place
        if removal.too_early_ms:
            early = f"{what} comes {removal.too_early_ms} ms before its ask {said.ask_no} allows"
            self._found.add(_I18, early, (step.place, asked), step.at_ms, chain_of(site))
        ask = self._kept.ask_at(asked)
        if not ask.copies and self._kept.cause_of(asked) is None:
            words = f"{what} removes for good, without a promise, and its ask {said.ask_no} serves no intent"
            self._found.add(_I18, words, (step.place, asked), step.at_ms, chain_of(site))
        unordered = {number for number, _ in removal.unordered}
        for group in said.groups:
            numbers = range(group.first, group.first + len(group.files))
            self._judge_group(site, removal, removal.ask, ask, group, [n for n in numbers if n not in unordered])

    def _judge_group(
        self, site: Site, removal: CountedRemoval, asked: Step, ask: Ask, group: Group, numbers: Sequence[int]
    ) -> None:
        """`numbers`: of the files that the ask is open for."""
        step, what = removal.step, called(removal.step, site, self._dataset)
        if ask.endpoint in group.endpoints:
            words = f"{what} counts {endpoint_called(ask.endpoint)} for a copy, from which it removes"
            self._found.add(_I18, words, (step.place,), step.at_ms, chain_of(site))
        have = len({other for other, _ in group.promises}) + len({*group.endpoints} - {ask.endpoint})
        for number in numbers if have < ask.copies else ():
            both = f"{what} removes ", f" and relies on {have} other copies, {ask.copies} are asked for"
            self._found.add(_I18, both, (step.place,), step.at_ms, chain_of(site), FileOf(step.place, number))
        for other, no in group.promises:
            needs, relies = chain_of(site, other), f"relies on step {no} of {other}"
            promise = self._kept.relied_on(other, no, site, asked)
            if promise is None:
                self._found.add(_I18, f"{what} {relies}, which stands nowhere", (step.place,), step.at_ms, needs)
                continue
            records = step.place, promise.place
            if not self._kept.counts(other, promise):
                self._found.add(_I18, f"{what} {relies}, which does not count", records, step.at_ms, needs)
            elif promise.kind is not Kind.PROMISE:
                words = f"{what} {relies}, which is a {RECORDS[promise.kind]}"
                self._found.add(_I18, words, records, step.at_ms, needs)
            elif not self._kept.answers(promise, site, asked):
                self._found.add(_I18, f"{what} {relies}, which answers another ask", records, step.at_ms, needs)
            else:
                promised = self._kept.promised_at(promise.place)
                for number in numbers:
                    if group.files[number - group.first] not in promised:
                        both = f"{what} removes ", f" and {relies}, which does not promise it"
                        self._found.add(_I18, both, records, step.at_ms, needs, FileOf(step.place, number))

    # promises

    def _judge_promise(self, site: Site, step: Step) -> None:
        said = self._kept.promise_at(step.place)
        if not said.files:
            return
        what, theirs = called(step, site, self._dataset), f"ask {said.ask_no} of {said.asker}"
        needs = chain_of(site, said.asker)
        ask = self._kept.step_of(said.asker, said.ask_sha256)
        if ask is None or ask.no != said.ask_no or ask.kind is not Kind.ASK:
            self._found.add(_I18, f"{what} answers {theirs}, which nobody made", (step.place,), step.at_ms, needs)
            return
        records = step.place, ask.place
        if not self._kept.counts(said.asker, ask):
            self._found.add(_I18, f"{what} answers {theirs}, which does not count", records, step.at_ms, needs)
        asked = self._kept.ask_at(ask.place)
        if site not in asked.asked:
            self._found.add(_I18, f"{what} answers {theirs}, which does not ask {site}", records, step.at_ms, needs)
        names = frozenset(asked.files)
        looked = self._kept.looked_at(site, ask.sha256, step.no)
        own_looks = (*chain_of(site), (site, topics.REPLICA_CHECKS))
        for number, file in enumerate(said.files):
            if file not in names:
                both = f"{what} promises ", f", for which {theirs} does not ask"
                self._found.add(_I18, both, records, step.at_ms, needs, FileOf(step.place, number))
            elif file not in looked:
                both = f"{what} promises ", f", which no plane of {site} had found whole for it"
                self._found.add(_I18, both, (step.place,), step.at_ms, own_looks, FileOf(step.place, number))

    # ends of removals

    def _judge_ends(self) -> list[Stray]:
        by_removal, strays = self._kept.ends(), list[Stray]()
        for (site, _), ends in by_removal.items():
            self._found.steps[site] += len(ends)
        for site, removal in self._kept.removals():
            strays += self._judge_ended(site, removal, by_removal.pop((site, removal.step.sha256), []))
        for (site, sha256), ends in by_removal.items():
            for end in ends:
                strays += self._judge_stray(site, sha256, end)
        return strays

    def _judge_ended(self, site: Site, removal: CountedRemoval, ends: list[EndHead]) -> list[Stray]:
        step, needs = removal.step, chain_of(site)
        ordered = {one.file: one.words for one in self._kept.ordered(removal)}
        left, strays = set(ordered), list[Stray]()
        endpoint = None if removal.ask is None else self._kept.ask_at(removal.ask.place).endpoint
        what = f"FilesLost of {site} about {self._dataset}"
        for end in ends:
            said, records = self._kept.end_at(end.place), (end.place, step.place)
            if endpoint is not None and said.endpoint != endpoint:
                speaks = f"{what} speaks of {endpoint_called(said.endpoint)}"
                words = f"{speaks}, its removal {step.no} of {endpoint_called(endpoint)}"
                self._found.add(_I18, words, records, end.at_ms, needs)
            for number, (file, taken) in enumerate(zip(said.files, said.words, strict=True)):
                left.discard(file)
                more = frozenset(taken) - ordered.get(file, frozenset())
                both: tuple[str, str] | None = None
                if file not in ordered:
                    both = f"{what} gives up ", f", which removal {step.no} did not order"
                elif more:
                    both = f"{what} takes back words of ", f" that the ask of removal {step.no} does not name"
                if both is not None:
                    self._found.add(_I18, both, records, end.at_ms, needs, FileOf(end.place, number))
                    strays.append(Stray(end, number, file, more))
        if left:
            self._found.leave_open(OpenRemoval(site, self._dataset, step, len(left)))
        return strays

    def _judge_stray(self, site: Site, sha256: bytes, end: EndHead) -> list[Stray]:
        step = self._kept.step_of(site, sha256)
        elsewhere = self._kept.elsewhere.get(site, {}).get(sha256)
        if elsewhere is None or elsewhere.kind is not Kind.REMOVAL:  # else the two histories are told
            how = "nobody decided" if step is None else f"is its step {step.no}, a {RECORDS[step.kind]}"
            if step is not None and step.kind is Kind.REMOVAL:
                how += " that does not count"
            words = f"FilesLost of {site} about {self._dataset} says the end of a removal that {how}"
            records = (end.place,) if step is None else (end.place, step.place)
            self._found.add(_I18, words, records, end.at_ms, chain_of(site))
        said = self._kept.end_at(end.place)
        both = zip(said.files, said.words, strict=True)
        return [Stray(end, number, file, frozenset(taken)) for number, (file, taken) in enumerate(both)]
