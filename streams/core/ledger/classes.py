"""Whether a record changed anything when it came, by the numbers inside the facts alone, in its own partition's order.

Only originals are judged, copies inherit. A record that is of no row stands for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streams.core.ledger.facts import Fact, Kind
from streams.core.ledger.journals import PartitionId
from streams.core.ledger.numbering import Class

_OF_A_ROW = frozenset(Kind) - {Kind.ASKED, Kind.SERVED, Kind.SOURCE_FAILED}
_SAID_ANEW = frozenset((Kind.PROGRESS, Kind.REPORTED, Kind.REMOVED))
"""Of equal numbers the later one counts."""

_RowName = tuple[PartitionId, Kind, int, int, object]


def not_applied(facts: Iterable[Fact]) -> Iterator[tuple[Fact, Class]]:
    """DUPLICATE and SUPERSEDED among an intent's facts, given in each partition's order: the others were APPLIED."""
    latest: dict[_RowName, tuple[int, int]] = {}
    for fact in facts:
        if not fact.is_original or fact.kind not in _OF_A_ROW:
            continue
        source_no, no, _, number, row, *_ = fact.words
        name = fact.place[:3], fact.kind, source_no, no, row
        before, now = latest.get(name), (number, fact.content)
        if before is None or number > before[0]:
            latest[name] = now
        elif before == now:
            yield fact, Class.DUPLICATE
        elif fact.kind in _SAID_ANEW and number == before[0]:
            latest[name] = now
        else:
            yield fact, Class.SUPERSEDED
