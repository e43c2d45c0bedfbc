"""What is owed until it is in the log, against a log that takes, loses and takes without a word."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.consuming.outbox import OnAck, Outbox
from streams.core import records as m
from streams.core.names import Destination, IntentId, ManifestId, Text
from streams.core.ranges import EMPTY, Ranges
from streams.errors import NotAllowed, NotFound, Temporary

ZPEAK = Destination("T2_B/zpeak")
INTENT = IntentId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab")
IDS = [ManifestId.of(INTENT, 0, no) for no in range(3)]
GIVEN_UP = Temporary("given up after 30 s")


def place(upto: int, no: int = 0) -> m.TransferProgress:
    return m.TransferProgress(IDS[no], ZPEAK, 1, "stream", Ranges([(0, upto)]), EMPTY)


def report(upto: int, no: int = 0) -> m.TransferReported:
    return m.TransferReported(INTENT, IDS[no], ZPEAK, 1, "active", upto, 100, 0, 0, 1, Text(""))


def last_word(no: int = 0) -> m.CompletionRecord:
    return m.CompletionRecord(INTENT, IDS[no], ZPEAK, m.Ended.DONE, 1, Ranges.of(0), (), EMPTY, 100, "0" * 64)


@dataclass
class Broker:
    """Holds what was sent until it is told what became of it."""

    full: bool = False
    sent: list[tuple[m.Message, OnAck]] = field(default_factory=list)
    log: list[m.Message] = field(default_factory=list)

    def send(self, message: m.Message, on_ack: OnAck) -> None:
        if self.full:
            raise Temporary("too many records wait")
        self.sent.append((message, on_ack))

    def take(self, n: int = 0) -> m.Message:
        message, on_ack = self.sent.pop(n)
        self.log.append(message)
        on_ack(None)
        return message

    def lose(self, n: int = 0, error: Exception = GIVEN_UP) -> None:
        self.sent.pop(n)[1](error)


def owing(*, heard_back: bool = False) -> tuple[Outbox, Broker]:
    broker = Broker()
    return Outbox(broker.send, heard_back=heard_back), broker


def test_one_record_of_a_subject_is_on_its_way_and_what_follows_it_is_the_newest() -> None:
    box, broker = owing()
    for upto in range(1, 6):
        box.put(place(upto))
        box.put(report(upto))
        box.send()
    assert [message for message, _ in broker.sent] == [place(1), report(1)]
    broker.lose()
    box.send()
    assert broker.sent[-1][0] == place(5), "the newest says all that the lost one did"
    broker.take(1)
    broker.take(0)
    box.send()
    assert broker.take() == report(5)
    box.send()
    assert not broker.sent


def test_who_waits_is_content_with_a_later_word() -> None:
    box, broker = owing()
    marks = box.put(place(1))
    box.send()
    box.put(place(2))
    assert not box.wait(marks, 0)
    broker.lose()
    box.send()
    box.put(place(3))
    broker.take()
    assert box.wait(marks, 0), "place 2 says more than place 1"
    assert not box.wait(box.marks(), 0)
    box.send()
    broker.take()
    again = box.put(place(4))
    assert box.wait(marks, 0), "it was settled, whatever is owed now"
    assert not box.wait(again, 0)


def test_a_full_buffer_and_a_lost_acknowledgement_leave_it_owed() -> None:
    box, broker = owing()
    broker.full = True
    marks = box.put(place(1))
    box.send()
    assert isinstance(box.error, Temporary)
    broker.full = False
    box.send()
    broker.lose()
    assert box.error is GIVEN_UP
    box.send()
    broker.take()
    assert box.wait(marks, 0)
    assert box.error is None


def test_a_broker_that_knows_no_topic_for_a_moment_gets_it_later() -> None:
    """As one that restarts: said when it is sent, or instead of an acknowledgement."""
    refusals: list[Exception] = [NotFound("no topic")]
    broker = Broker()

    def send(message: m.Message, on_ack: OnAck) -> None:
        if refusals:
            raise refusals.pop()
        broker.send(message, on_ack)

    outbox = Outbox(send, heard_back=False)
    outbox.put(place(10))
    outbox.send()
    assert broker.sent == []
    outbox.send()
    ((message, on_ack),) = broker.sent
    assert message == place(10)
    on_ack(NotFound("no topic"))
    outbox.send()
    assert [sent for sent, _ in broker.sent] == [place(10), place(10)]


def test_a_last_word_waits_for_the_place_it_rests_on() -> None:
    box, broker = owing(heard_back=True)
    box.put(report(90))
    box.put(place(100))
    box.put(place(7, no=1))
    box.put(last_word())
    box.send()
    assert [type(message) for message, _ in broker.sent] == [m.TransferProgress] * 2, "and no report behind a last word"
    broker.take()
    box.send()
    assert [message for message, _ in broker.sent] == [place(7, no=1)], "acknowledged is not heard"
    box.heard(place(100))
    box.send()
    assert broker.take(1) == last_word()
    assert not box.wait(box.marks(), 0), "the other place is still on its way"


def test_what_is_heard_back_settles_though_it_was_given_up() -> None:
    box, broker = owing(heard_back=True)
    marks = box.put(place(1))
    box.send()
    broker.lose()
    box.heard(place(1))
    assert box.wait(marks, 0)
    box.send()
    assert not broker.sent
    box.heard(place(1))
    box.heard(replace(place(1), manifest=IDS[2]))


def test_what_trying_again_cannot_help_is_raised() -> None:
    box, broker = owing()
    box.put(place(1))
    box.send()
    broker.lose(error=NotAllowed("no"))
    with pytest.raises(NotAllowed):
        box.send()


def test_in_the_end_the_newest_is_sent_at_once_and_nothing_behind_a_close() -> None:
    box, broker = owing()
    box.put(place(1))
    box.send()
    box.put(place(2))
    box.send(at_once=True)
    assert [message for message, _ in broker.sent] == [place(1), place(2)]
    broker.take()
    marks = box.put(place(3))
    box.close()
    box.send()
    assert [message for message, _ in broker.sent] == [place(2)]
    assert box.wait(marks, 0), "who waits learns why from who closed it"
    broker.take()


MOVES = st.lists(
    st.tuples(st.sampled_from(["put", "send", "take", "lose", "unheard", "hear", "full"]), st.integers(0, 2)),
    max_size=60,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(MOVES, st.booleans())
def test_whatever_is_lost_the_log_ends_with_the_newest_and_never_goes_back(
    moves: list[tuple[str, int]], heard_back: bool
) -> None:
    box, broker = owing(heard_back=heard_back)
    newest = [0, 0, 0]
    heard = 0
    for move, no in moves:
        match move:
            case "put":
                newest[no] += 1
                box.put(place(newest[no], no))
            case "send":
                box.send()
            case "take" if broker.sent:
                broker.take(no % len(broker.sent))
            case "lose" if broker.sent:
                broker.lose(no % len(broker.sent))
            case "unheard" if broker.sent:
                broker.log.append(broker.sent[no % len(broker.sent)][0])
                broker.lose(no % len(broker.sent))
            case "hear" if heard < len(broker.log):
                box.heard(broker.log[heard])
                heard += 1
            case "full":
                broker.full = not broker.full
        assert len(broker.sent) <= 3
    broker.full = False
    marks = box.marks()
    for _ in range(10):
        box.send()
        while broker.sent:
            broker.take()
        for said in broker.log[heard:]:
            box.heard(said)
        heard = len(broker.log)
    assert box.wait(marks, 0)
    for no, upto in enumerate(newest):
        places = [said.verified.size for said in broker.log if said.manifest == IDS[no]]  # type: ignore[union-attr]
        assert places == sorted(places)
        assert not upto or places[-1] == upto
