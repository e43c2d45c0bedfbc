"""Tickets: who gets in, until when, and how many there can be."""

from __future__ import annotations

import pytest

from streams.core.names import Lfn
from streams.core.ranges import Ranges
from streams.core.records import RequestedItem
from streams.doors import tickets
from streams.doors.tickets import Ticket, Tickets
from tests.doors.conftest import THERE

ITEMS = (RequestedItem(3, Lfn("/a"), 100, 50, "v"), RequestedItem(4, Lfn("/b"), 150, 50, "v"))


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def made(clock: Clock) -> tuple[Tickets, str, list[Ticket]]:
    ended: list[Ticket] = []
    kept = Tickets(clock)
    token = kept.make(ITEMS, Ranges([(100, 200)]), THERE, ended.append)
    assert token is not None
    return kept, token, ended


def test_a_word_is_random_and_opens_one_ticket():
    kept, token, _ = made(Clock())
    other = kept.make(ITEMS, Ranges([(100, 110)]), THERE, lambda _: None)
    assert other is not None
    assert len(token) == 43
    assert token != other
    first, second = kept.enter(token), kept.enter(other)
    assert first is not None
    assert second is not None
    assert first.ranges == Ranges([(100, 200)])
    assert second.ranges == Ranges([(100, 110)])
    assert kept.enter("x" * 43) is None


def test_positions_that_no_item_owns_have_no_ticket():
    with pytest.raises(ValueError, match="own 100 of 101"):
        Tickets().make(ITEMS, Ranges([(100, 201)]), THERE, lambda _: None)


def test_it_ends_a_minute_after_its_last_use():
    clock = Clock()
    kept, token, ended = made(clock)
    clock.now_s += tickets.UNUSED_S - 1
    ticket = kept.enter(token)
    assert ticket is not None
    clock.now_s += 10 * tickets.UNUSED_S
    kept.end_due()
    assert not ended, "an answer is under way"
    kept.leave(ticket)
    clock.now_s += tickets.UNUSED_S - 1
    kept.end_due()
    assert not ended
    clock.now_s += 1
    assert kept.enter(token) is None
    kept.end_due()
    assert ended == [ticket]
    assert len(kept) == 0


def test_it_ends_an_hour_after_it_was_made():
    clock = Clock()
    kept, token, ended = made(clock)
    ticket = kept.enter(token)
    assert ticket is not None
    clock.now_s += tickets.LIFE_S
    assert kept.enter(token) is None
    kept.end_due()
    assert ended == [ticket]
    assert not kept.sent(ticket, 100, 110), "the answer that is under way ends"


def test_what_left_is_known_and_an_ended_ticket_goes_no_further():
    kept, token, ended = made(Clock())
    ticket = kept.enter(token)
    assert ticket is not None
    assert kept.sent(ticket, 100, 120)
    kept.end(token)
    kept.end(token)
    assert not kept.sent(ticket, 120, 130), "but what left, left"
    assert ended == [ticket]
    assert ticket.sent == Ranges([(100, 130)])


def test_there_is_room_for_so_many_items(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tickets, "ITEMS_MAX", 5)
    kept = Tickets()
    tokens = [kept.make(ITEMS, Ranges([(100, 101)]), THERE, lambda _: None) for _ in range(3)]
    assert tokens[2] is None
    assert tokens[0] is not None
    kept.end(tokens[0])
    assert kept.make(ITEMS, Ranges([(100, 101)]), THERE, lambda _: None) is not None
