"""Who caused what, step by step: the facts of an intent in the order of positions and causes, and what is missing.

Clocks decide only between steps of which neither causes the other. A cause that no record tells is a step of its own,
without a place. No verdicts: what a missing record means says the audit.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from streams.core import records as m
from streams.core.ledger.facts import WORDS_AT, Fact, Kind, Spans, is_by_url
from streams.core.ledger.findings import LogPosition


class Step(NamedTuple):
    """`by`: who wrote the record; "" of one that is missing, which has no place and no time."""

    words: str
    by: str
    at_ms: int | None = None
    place: LogPosition | None = None


Cause = tuple[object, ...]
"""A kind, and what it is of."""
_NOWHERE: dict[object, str] = {
    Kind.INTENT: "that anybody asked for it",
    Kind.DECIDED: "that its home decided on it",
    Kind.MANIFEST: "that its manifest was written",
    Kind.PLANNED: "that it was planned",
    Kind.OPENED: "that part files were opened",
    Kind.REQUESTED: "that it was asked for",
    Kind.COMPLETION: "that it was completed",
}
_OF_A_PLAN = frozenset(
    (Kind.TRANSFER_DECIDED, Kind.OPENED, Kind.REQUESTED, Kind.LAPSED, Kind.LOST, Kind.HELD, Kind.COMPLETION)
)


def _is(fact: Fact) -> Cause:
    """What others may follow from."""
    source_no, no, destination, number, row, *_ = fact.words
    match fact.kind:
        case Kind.INTENT | Kind.DECIDED:
            return (fact.kind,)
        case Kind.MANIFEST:
            return fact.kind, source_no, no
        case Kind.OPENED:
            return fact.kind, source_no, no, destination, number
        case Kind.REQUESTED:
            return fact.kind, source_no, no, destination, row, number
        case _:
            return fact.kind, source_no, no, destination


def _follows(fact: Fact) -> tuple[Cause, ...]:
    """What must have come before."""
    source_no, no, destination, number, row, *_ = fact.words
    manifest, plan = (Kind.MANIFEST, source_no, no), (Kind.PLANNED, source_no, no, destination)
    is_consumer = "/" in (destination or "")
    match fact.kind:
        case Kind.ASKED | Kind.DECIDED | Kind.ANSWERED:
            return ((Kind.INTENT,),)
        case Kind.MANIFEST:
            before = ((Kind.MANIFEST, source_no, no - 1),) if no else ()
            return ((Kind.DECIDED,), *before)
        case Kind.PLANNED:
            return (manifest,)
        case Kind.SERVED:
            return ((Kind.REQUESTED, source_no, no, destination, row, number),)
        case Kind.PROGRESS if not is_consumer:
            return ((Kind.OPENED, source_no, no, destination, number),)
        case Kind.CLOSED if row:
            return ((Kind.COMPLETION, source_no, no, destination),)
        case kind if kind in _OF_A_PLAN and not is_consumer:
            return (plan,)
        case _:
            return ()


def ordered(facts: Iterable[Fact]) -> Iterator[Fact | Cause]:
    """Each record once, by its best place, behind its causes; a cause that is nowhere stands before what needs it."""
    best: dict[tuple[int, int, int], Fact] = {}
    for fact in facts:
        name = fact.life, fact.seq, fact.content
        if name not in best or fact.place.rank < best[name].place.rank:
            best[name] = fact
    queues: defaultdict[tuple[str, str, int], deque[Fact]] = defaultdict(deque)
    left: Counter[Cause] = Counter()
    for fact in sorted(best.values(), key=lambda fact: fact.place):
        queues[fact.place[:3]].append(fact)
        left[_is(fact)] += 1
    told, missed = set[Cause](), set[Cause]()
    while queues:
        heads = sorted((queue[0] for queue in queues.values()), key=lambda fact: (fact.at_ms, fact.place))
        # Of a lie nothing may be ready: then the first by its clock.
        fact = next((head for head in heads if _is_ready(head, told, left)), heads[0])
        for cause in _follows(fact):
            if cause not in told and not left[cause] and cause not in missed:
                missed.add(cause)
                yield cause
        told.add(_is(fact))
        left[_is(fact)] -= 1
        queues[fact.place[:3]].popleft()
        if not queues[fact.place[:3]]:
            del queues[fact.place[:3]]
        yield fact


def _is_ready(fact: Fact, told: set[Cause], left: Counter[Cause]) -> bool:
    if any(cause not in told and left[cause] for cause in _follows(fact)):
        return False
    # A last word comes behind all that its transfer did.
    last = fact.kind in (Kind.HELD, Kind.COMPLETION, Kind.CLOSED)
    return not (last and left[Kind.PROGRESS, *fact.words[:3]])


def steps(facts: Iterable[Fact], writer: Callable[[int], str]) -> list[Step]:
    """`writer`: the name of an incarnation's writer by its number."""
    told = (fact for fact in facts if fact.kind is not Kind.REPORTED)  # which sums up what the others say
    return [Step(_missing(one), "") if not isinstance(one, Fact) else _step(one, writer) for one in ordered(told)]


def _step(fact: Fact, writer: Callable[[int], str]) -> Step:
    origin = fact.place.topic.partition(".")[0] if "." in fact.place.topic else fact.place.site
    return Step(_words(fact), f"{writer(fact.life)} at {origin}", fact.at_ms, fact.place)


def _missing(cause: Cause) -> str:
    kind, *of = cause
    where = f" ({'.'.join(map(str, of[:2]))}{f' at {of[2]}' if len(of) > 2 else ''})" if of else ""
    return f"missing: no record says {_NOWHERE[kind]}{where}"


def _words(fact: Fact) -> str:
    source_no, no, destination, number, row, *told = fact.words
    name = f"{source_no}.{no}"
    match fact.kind:
        case Kind.INTENT:
            return f"{told[1]} asked for it, to {', '.join(told[0][1])}"
        case Kind.ASKED:
            what = f"priority {told[1]}" if told[0] == m.Asked.PRIORITY else f"to {told[0]} it"
            where = f" at {told[3]}" if told[3] is not None else ""
            return f"{told[2]} asked {'for ' if told[0] == m.Asked.PRIORITY else ''}{what}{where}"
        case Kind.ANSWERED:
            said = "waits for approval" if told[0] == m.Answer.PENDING else told[0]
            return f"answer {number} of {row}: {said} by {told[1]}" + (f": {told[2]}" if told[2] else "")
        case Kind.DECIDED:
            return f"decision {number}: {told[0]}" + (f", from {told[1]}" if told[1] is not None else "")
        case Kind.MANIFEST:
            return f"manifest {name} written: {_count(told[5], 'item')}" + (", the last one" if told[3] else "")
        case Kind.HELD:
            return f"{destination} holds {_count(told[0], 'file')} of {row} by {name}"
        case Kind.REQUESTED:
            return f"{destination} asked {row} for {_positions(told[1])} of {name}, request {number}"
        case Kind.SERVED if is_by_url(fact.words):
            return f"{row} said where others give {_positions(told[0])} of {name}, request {number}"
        case Kind.SERVED:
            return f"{row} served {_positions(told[0])} of {name}, request {number}"
        case Kind.PROGRESS:
            return f"{destination} has verified {_positions(told[0])} of {name} and sealed {_items(told[1])}"
        case Kind.COMPLETION:
            sealed = sum(stop - start for start, stop in told[0][2])
            return f"{name} completed at {destination}: {told[0][0]}, {sealed} of {told[0][1]} items"
        case Kind.CLOSED:
            return f"{name} closed at {destination}" if row else f"the last word on {name} fixed at {destination}"
        case Kind.REMOVED:
            last = ", and will do no more" if told[4] else ""
            return f"{destination} has removed {_count(told[0], 'file')} of part {no}, keeps {told[2]}{last}"
        case Kind.OPENED:
            return f"part files of {name} opened at {destination}, attempt {number}; there already: {_items(told[0])}"
        case kind:
            number_of = f", {_NUMBERS[kind]} {number}" if kind in _NUMBERS else ""
            return f"{name} {_SAID[kind]} at {destination}{number_of}"


_SAID = {
    Kind.PLANNED: "planned",
    Kind.TRANSFER_DECIDED: "decided on anew",
    Kind.LOST: "lost its part files",
    Kind.LAPSED: "gave up waiting",
    Kind.SOURCE_FAILED: "heard that its source failed",
}
_NUMBERS = {Kind.LOST: "attempt", Kind.LAPSED: "request", Kind.TRANSFER_DECIDED: "decision"}


def _count(hashes: bytes, what: str) -> str:
    number = len(hashes) // 8
    return f"{number} {what}" + ("" if number == 1 else "s")


def _positions(spans: Spans) -> str:
    return _spans(spans, "positions")


def _items(spans: Spans) -> str:
    return _spans(spans, "items")


def _spans(spans: Sequence[tuple[int, int]], what: str) -> str:
    if not spans:
        return f"no {what}"
    shown = ", ".join(str(a) if b == a + 1 else f"{a}…{b - 1}" for a, b in spans[:3])
    return f"{what} {shown}" + (f" and {len(spans) - 3} more ranges" if len(spans) > 3 else "")


def of_item(facts: Iterable[Fact], source_no: int, no: int, item: int, line: tuple[int, int]) -> Iterator[Fact]:
    """The facts that concern one item of a manifest; `line`: its positions [start, stop)."""
    for fact in facts:
        if fact.kind in (Kind.INTENT, Kind.ASKED, Kind.DECIDED, Kind.ANSWERED) or (
            fact.words[:2] == (source_no, no) and _touches(fact, item, line)
        ):
            yield fact


def _touches(fact: Fact, item: int, line: tuple[int, int]) -> bool:
    told = fact.words[WORDS_AT:]
    match fact.kind:
        case Kind.REQUESTED:
            return _overlaps(told[1], line)
        case Kind.SERVED:
            return _overlaps(told[0], line)
        case Kind.PROGRESS:
            return _overlaps(told[0], line) or _overlaps(told[1], (item, item + 1))
        case _:
            return True


def _overlaps(spans: Spans, line: tuple[int, int]) -> bool:
    return any(start < line[1] and line[0] < stop for start, stop in spans)
