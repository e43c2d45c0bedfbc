"""What was made of each intent, kept so that only those are judged again that were heard of since, or have not ended.

An intent is settled where nothing is found of it, nothing noted and nothing waits: no later record of another intent
changes that, only its own do. All are judged anew where other sites were read whole than before.
"""

from __future__ import annotations

import marshal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from streams.core.ledger.claims import claims_of
from streams.core.ledger.facts import Fact, Facts
from streams.core.ledger.findings import FindingList, IntentCounts, Invariant
from streams.core.ledger.intents import IntentJudge
from streams.core.ledger.rows import VERDICT, Rows
from streams.core.ledger.traces import SiteNumbers
from streams.core.names import IntentId

TOUCHED_MAX = 100_000
"""Intents heard of since the last judgement; of more all are judged."""
OPEN_MAX = 100_000
"""Of who follows: intents that wait for something, to be judged in turn; of more when they are heard of."""
TURN = 100
"""Of those so many are judged again each time."""
BLAMED_MAX = 1_000
"""Of who follows: intents of which something was found, judged again each time; further ones in turn."""
_OPEN = frozenset(("open", "undecided"))


class Verdicts:
    """Which intents are to be judged, and what the others amount to.

    `live`: judged again every few seconds, so that only what was heard of, or blamed, or has its turn is looked at,
    and nothing is said of the others.
    """

    def __init__(self, rows: Rows, facts: Facts, *, live: bool = False) -> None:
        self._rows, self._facts, self._live = rows, facts, live
        self._waiting: dict[bytes, None] | None = None
        """Of who follows: what is not settled, the longest not judged first; None: not known yet."""
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
        blamed: set[bytes] = set()
        for packed, intent, facts in self._due(conditions, settled):
            first_look(intent, facts)
            known = len(judge.contradicting)
            told = judge.judge(intent, claims_of(intent, facts, sites))
            is_settled = part.is_quiet and known == len(judge.contradicting) and not _OPEN & told.keys()
            self._rows.put(VERDICT + packed, _packed(part, told) if is_settled else b"")
            counts.update(told)
            if self._live and not is_settled:
                self._wait(packed, blamed, is_blamed=bool(part.findings) or known != len(judge.contradicting))
            findings.absorb(part)
        for row, times in settled.items():
            _add(row, times, counts, findings)
        self.touched, self.conditions = blamed, conditions
        return IntentCounts(**counts)

    def _due(
        self, conditions: tuple[str, ...], settled: Counter[bytes]
    ) -> Iterator[tuple[bytes, IntentId, list[Fact]]]:
        """Intents to judge, in key order but for what is new; rows of the others are counted in `settled`."""
        touched = self.touched
        if touched is None or conditions != self.conditions:
            self._waiting = {} if self._live else None
            yield from self._facts.all()
            return
        if self._live:
            yield from map(self._facts.of_packed, sorted(touched | self._in_turn()))
            return
        for key, row in self._rows.scan(VERDICT):
            intent = key[len(VERDICT) :]
            if row and intent not in touched:
                settled[row] += 1
            elif intent not in touched:
                yield self._facts.of_packed(intent)
        for intent in sorted(touched):
            yield self._facts.of_packed(intent)

    def _wait(self, packed: bytes, blamed: set[bytes], *, is_blamed: bool) -> None:
        if is_blamed and len(blamed) < BLAMED_MAX:
            blamed.add(packed)
        elif self._waiting is not None and len(self._waiting) < OPEN_MAX:
            self._waiting[packed] = None

    def _in_turn(self) -> set[bytes]:
        if self._waiting is None:  # another process judged before
            unsettled = (key[len(VERDICT) :] for key, row in self._rows.scan(VERDICT) if not row)
            self._waiting = dict.fromkeys(islice(unsettled, OPEN_MAX))
        found = set(islice(self._waiting, TURN))
        for packed in found:
            del self._waiting[packed]
        return found


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
