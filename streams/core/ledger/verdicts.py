"""What was made of each intent, kept so that only those are judged again that were heard of since, or have not ended.

An intent is settled where nothing is found of it, nothing noted and nothing waits: no later record of another intent
changes that, only its own do. All are judged anew where other sites were read whole than before.
"""

from __future__ import annotations

import marshal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from streams.core.ledger.claims import claims_of
from streams.core.ledger.facts import Fact, Facts
from streams.core.ledger.findings import FindingList, IntentCounts, Invariant
from streams.core.ledger.intents import IntentJudge
from streams.core.ledger.rows import VERDICT, Rows
from streams.core.ledger.traces import SiteNumbers
from streams.core.names import IntentId

TOUCHED_MAX = 100_000
"""Intents heard of since the last judgement; of more all are judged."""
_OPEN = frozenset(("open", "undecided"))


class Verdicts:
    """Which intents are to be judged, and what the others amount to."""

    def __init__(self, rows: Rows, facts: Facts) -> None:
        self._rows, self._facts = rows, facts
        self.touched: set[bytes] | None = None
        """As rows have intents; None: too many to know, or nothing was judged yet."""
        self.conditions: tuple[str, ...] = ()
        """Under which the verdicts were found."""

    def touch(self, intent: bytes) -> None:
        if self.touched is not None:
            self.touched.add(intent)
            if len(self.touched) > TOUCHED_MAX:
                self.touched = None

    def absorb(self, touched: Iterable[bytes] | None) -> None:
        """Know also which intents another ledger heard of since then; None: too many to know."""
        if touched is None:
            self.touched = None
        for intent in touched or ():
            self.touch(intent)

    def judge(
        self,
        judge: IntentJudge,
        part: FindingList,
        findings: FindingList,
        conditions: tuple[str, ...],
        first_look: Callable[[IntentId, list[Fact]], None],
        sites: SiteNumbers,
    ) -> IntentCounts:
        """`judge` tells of one intent to `part`, which is emptied into `findings`. `first_look`: before that."""
        counts: Counter[str] = Counter()
        settled: Counter[bytes] = Counter()
        for packed, intent, facts in self._due(conditions, settled):
            first_look(intent, facts)
            known = len(judge.contradicting)
            told = judge.judge(intent, claims_of(intent, facts, sites))
            is_settled = part.is_quiet and known == len(judge.contradicting) and not _OPEN & told.keys()
            self._rows.put(VERDICT + packed, _packed(part, told) if is_settled else b"")
            counts.update(told)
            findings.absorb(part)
        for row, times in settled.items():
            _add(row, times, counts, findings)
        self.touched, self.conditions = set(), conditions
        return IntentCounts(**counts)

    def _due(
        self, conditions: tuple[str, ...], settled: Counter[bytes]
    ) -> Iterator[tuple[bytes, IntentId, list[Fact]]]:
        """Intents to judge, in key order but for what is new; rows of the others are counted in `settled`."""
        touched = self.touched
        if touched is None or conditions != self.conditions:
            yield from self._facts.all()
            return
        for key, row in self._rows.scan(VERDICT):
            intent = key[len(VERDICT) :]
            if row and intent not in touched:
                settled[row] += 1
            elif intent not in touched:
                yield self._facts.of_packed(intent)
        for intent in sorted(touched):
            yield self._facts.of_packed(intent)


def _packed(part: FindingList, told: Counter[str]) -> bytes:
    checked = tuple((str(invariant), count) for invariant, count in sorted(part.checked.items()))
    unchecked = tuple((str(remark.invariant), remark.words, remark.count) for remark in part.unchecked)
    return marshal.dumps((tuple(sorted(told.items())), checked, unchecked), 2)


def _add(row: bytes, times: int, counts: Counter[str], findings: FindingList) -> None:
    told, checked, unchecked = marshal.loads(row)
    for name, count in told:
        counts[name] += count * times
    for invariant, count in checked:
        findings.check(Invariant(invariant), count * times)
    for invariant, words, count in unchecked:
        findings.cannot(Invariant(invariant), words, count * times)
