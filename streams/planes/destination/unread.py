"""What sources said they cannot read now, of one transfer: which items to tell of, and which requests bring nothing.

Each source numbers its requests, and the payload of one request comes in order. Items are told together:
when the first record without such items comes, or the last. A request is over where its last record came and nothing it
asked for did. What is told is a SourceFailed, whose fold takes repeats.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from streams.core.names import Site, Text, shown
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import ChunkHeader, Reason

REQUESTS_MAX = 64
"""Of one transfer; of older ones what was told is forgotten."""


@dataclass(frozen=True, slots=True)
class UnreadFact:
    """What a SourceFailed has to say. No items: nothing more comes of the request."""

    source: Site
    request_no: int
    items: Ranges
    reason: Reason


@dataclass(slots=True)
class _Answers:
    """What came of one request so far."""

    waiting: dict[int, Reason] = field(default_factory=dict)
    told: Ranges = EMPTY
    reason: Reason | None = None
    brought: bool = False
    over: bool = False


class UnreadAnswers:
    """Used by one thread."""

    def __init__(self) -> None:
        self._requests: OrderedDict[tuple[Site, int], _Answers] = OrderedDict()

    def heard(self, source: Site, header: ChunkHeader, unread: Mapping[int, Reason]) -> list[UnreadFact]:
        """What to tell after a record. `unread`: its items that cannot be read now and are still wanted."""
        name = (source, header.request_no)
        answers = self._requests.get(name)
        if answers is None:
            if header.last and not unread:
                return []
            answers = self._requests[name] = _Answers()
            if len(self._requests) > REQUESTS_MAX:
                self._requests.popitem(last=False)
        answers.brought |= any(segment.reason is None for segment in header.segments)
        answers.waiting |= {item: reason for item, reason in unread.items() if item not in answers.told}
        said: list[UnreadFact] = []
        if answers.waiting and (header.last or not unread):
            items = Ranges.of(*answers.waiting)
            answers.reason = together(list(answers.waiting.values()))
            answers.told |= items
            answers.waiting.clear()
            said.append(UnreadFact(source, header.request_no, items, answers.reason))
        if header.last and not answers.brought and not answers.over and answers.reason is not None:
            answers.over = True
            said.append(UnreadFact(source, header.request_no, EMPTY, answers.reason))
        return said


def together(reasons: list[Reason]) -> Reason:
    """One for many items."""
    first = reasons[0]
    if all(one == first for one in reasons):
        return first
    return replace(first, text=Text(shown(f"of {len(reasons)} items, among others: {first.text}", 390)))
