"""Tickets: what the holder of 256 random bits may read from a door, and until when.

Only the door that made a ticket knows it, in memory: nothing is signed, distributed or rotated, and a restart ends all.
A ticket ends a while after its last use, at the latest an hour after it was made, or when who made it ends it. What has
left may be asked for again meanwhile. Thread-safe.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from streams.core.manifest import RequestLine
from streams.core.names import Destination
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import RequestedItem
from streams.storage.endpoint import Reader

ITEMS_MAX = 50_000
"""Of all tickets, at about 400 bytes an item."""
UNUSED_S = 60.0
SENT_S = 5.0
"""One of which everything has left ends so long after its last use: what is asked again is asked soon."""
LIFE_S = 3600.0


@dataclass(eq=False)
class Ticket:
    """`ranges` are positions on the manifest's line, all of them owned by `items`."""

    items: tuple[RequestedItem, ...]
    ranges: Ranges
    destination: Destination
    over: Callable[[Ticket], None]
    """Called once, by whoever found it over, with no lock held."""
    until_s: float
    used_s: float
    open: Callable[[RequestedItem], Reader] | None = None
    """How its items are opened, where not as files of the storage."""
    sent: Ranges = EMPTY
    """What left, at least once."""
    ended: bool = False
    using: int = 0
    """Answers under way."""
    line: RequestLine = field(init=False)

    def __post_init__(self) -> None:
        self.line = RequestLine(self.items)


class Tickets:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._tickets: dict[str, Ticket] = {}
        self._items = 0
        self._using = 0

    def make(
        self,
        items: tuple[RequestedItem, ...],
        ranges: Ranges,
        destination: Destination,
        over: Callable[[Ticket], None],
        open: Callable[[RequestedItem], Reader] | None = None,
    ) -> str | None:
        """The token that opens these ranges; None where there is no room for so many items now.

        ValueError for ranges that the items do not own: a request that no gate would pass.
        """
        now_s = self._clock()
        ticket = Ticket(items, ranges, destination, over, now_s + LIFE_S, now_s, open)
        owned = sum(length for start, stop in ranges for _, _, length in ticket.line.pieces(start, stop))
        if owned != ranges.size:
            raise ValueError(f"the items own {owned} of {ranges.size} positions")
        token = secrets.token_urlsafe(32)
        with self._lock:
            if self._items + len(items) > ITEMS_MAX:
                return None
            self._items += len(items)
            self._tickets[token] = ticket
        return token

    def enter(self, token: str) -> Ticket | None:
        """The ticket, for one answer; `leave` follows. None for a token that opens nothing, or nothing more."""
        now_s = self._clock()
        with self._lock:
            ticket = self._tickets.get(token)
            if ticket is None or self._is_over(ticket, now_s):
                return None
            ticket.using += 1
            self._using += 1
            return ticket

    def sent(self, ticket: Ticket, start: int, stop: int) -> bool:
        """`[start, stop)` of the line has left; whether the answer may go on."""
        with self._lock:
            ticket.used_s = self._clock()
            ticket.sent |= Ranges([(start, stop)])
            return not ticket.ended

    def leave(self, ticket: Ticket) -> None:
        with self._lock:
            ticket.using -= 1
            self._using -= 1
            ticket.used_s = self._clock()

    def end(self, token: str) -> None:
        """Let nothing more leave on it; an answer that is under way ends at its next step."""
        with self._lock:
            ticket = self._take(token)
        if ticket is not None:
            ticket.over(ticket)

    def end_due(self) -> None:
        """End what is over by itself. To be called every few seconds."""
        now_s = self._clock()
        with self._lock:
            due = [token for token, ticket in self._tickets.items() if self._is_over(ticket, now_s)]
            ended = [ticket for token in due if (ticket := self._take(token)) is not None]
        for ticket in ended:
            ticket.over(ticket)

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def busy(self) -> bool:
        """Whether anything is answered just now."""
        return self._using > 0

    def _is_over(self, ticket: Ticket, now_s: float) -> bool:
        if now_s >= ticket.until_s:
            return True
        unused_s = UNUSED_S if ticket.ranges - ticket.sent else SENT_S
        return not ticket.using and now_s - ticket.used_s >= unused_s

    def _take(self, token: str) -> Ticket | None:
        ticket = self._tickets.pop(token, None)
        if ticket is not None:
            ticket.ended = True
            self._items -= len(ticket.items)
        return ticket
