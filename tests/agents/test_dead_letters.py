"""A dead letter is published until the broker has it; nothing else lets its record be acknowledged."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from agents import dead_letters
from streams import wire
from streams.core import records as m
from streams.errors import NotAllowed, NotFound, Temporary, WireError

LETTER = wire.dead_letter(WireError("junk"), "manifests", 3, 17, b"k", b"v", None)
Answer = BaseException | None


class Broker:
    """Answers each send as it is told to: `Raised` is thrown, another error is a failed ack, None is in the log."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.sent: list[m.DeadLetter] = []
        self.acks: list[Callable[[Exception | None], None]] = []

    def send(self, message: m.Message, on_ack: Callable[[Exception | None], None]) -> None:
        assert isinstance(message, m.DeadLetter)
        self.sent.append(message)
        if not self.answers:
            self.acks.append(on_ack)
            return
        answer = self.answers.pop(0)
        if isinstance(answer, Raised):
            raise answer.error
        assert answer is None or isinstance(answer, Exception)
        thread = threading.Thread(target=on_ack, args=(answer,))  # as the publisher's own
        thread.start()
        thread.join()


class Raised(Exception):
    def __init__(self, error: Exception) -> None:
        self.error = error


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited before each further try; nobody waits really."""
    waited: list[float] = []
    sleep = asyncio.sleep

    async def at_once(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(dead_letters.asyncio, "sleep", at_once)
    return waited


def test_a_letter_that_is_in_the_log_is_sent_once(waits: list[float]) -> None:
    broker = Broker(None)
    asyncio.run(dead_letters.publish(LETTER, broker))
    assert broker.sent == [LETTER]
    assert waits == []


def test_nothing_returns_before_the_letter_is_in_the_log() -> None:
    async def story() -> None:
        broker = Broker()
        publishing = asyncio.create_task(dead_letters.publish(LETTER, broker))
        await asyncio.sleep(0.05)
        assert len(broker.sent) == 1, "sent once: it is under way"
        assert not publishing.done()
        broker.acks[0](None)
        await asyncio.wait_for(publishing, 5)
        assert len(broker.sent) == 1

    asyncio.run(story())


def test_other_work_goes_on_while_a_letter_waits() -> None:
    """The event loop is the heartbeats' too: a broker that is away must not cost the worker its partitions."""

    async def story() -> None:
        broker, beats = Broker(), 0
        publishing = asyncio.create_task(dead_letters.publish(LETTER, broker))
        for _ in range(20):
            await asyncio.sleep(0)
            beats += 1
        assert (beats, publishing.done()) == (20, False)
        publishing.cancel()

    asyncio.run(story())


@pytest.mark.parametrize(
    "refusal", [Raised(Temporary("buffer full")), RuntimeError("broker away"), Temporary("given up")], ids=repr
)
def test_a_letter_that_is_not_in_the_log_is_sent_again(refusal: Exception, waits: list[float]) -> None:
    broker = Broker(refusal, refusal, refusal, None)
    asyncio.run(dead_letters.publish(LETTER, broker))
    assert broker.sent == [LETTER] * 4
    assert waits == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("error", [NotFound("no topic dead-letters"), NotAllowed("no such login")], ids=repr)
def test_what_somebody_can_mend_is_waited_for(error: Exception, waits: list[float]) -> None:
    broker = Broker(Raised(error), error, None)
    asyncio.run(dead_letters.publish(LETTER, broker))
    assert broker.sent == [LETTER] * 3
    assert len(waits) == 2


def test_a_broker_that_stays_away_is_asked_for_ever_and_not_hammered(waits: list[float]) -> None:
    away = [RuntimeError("broker away")] * 50
    broker = Broker(*away, None)
    asyncio.run(dead_letters.publish(LETTER, broker))
    assert len(broker.sent) == 51
    assert waits == sorted(waits)
    assert max(waits) == waits[-1] == dead_letters.AGAIN_S[-1]


def test_a_letter_begins_with_short_waits_whatever_the_one_before_waited(waits: list[float]) -> None:
    for _ in range(2):
        asyncio.run(dead_letters.publish(LETTER, Broker(RuntimeError("broker away"), None)))
    assert waits == [0.1, 0.1]


def test_a_letter_that_cannot_be_written_is_logged_and_passed(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, str]] = []
    monkeypatch.setattr(dead_letters.log, "exception", lambda what, *, letter: said.append((what, letter)))
    broker = Broker(Raised(WireError("over the cap")))
    asyncio.run(dead_letters.publish(LETTER, broker))
    assert len(broker.sent) == 1
    assert waits == []
    ((what, letter),) = said
    assert what == "a dead letter cannot be written"
    assert "manifests" in letter


def test_a_letter_that_is_answered_twice_is_answered() -> None:
    class Twice(Broker):
        def send(self, message: m.Message, on_ack: Callable[[Exception | None], None]) -> None:
            super().send(message, on_ack)
            on_ack(RuntimeError("too late"))

    broker = Twice(None)
    asyncio.run(dead_letters.publish(LETTER, broker))
    assert broker.sent == [LETTER]


def test_a_fault_that_is_no_answer_is_raised() -> None:
    """The worker ends on it, and the record is heard again."""
    with pytest.raises(OSError, match="no more threads"):
        asyncio.run(dead_letters.publish(LETTER, Broker(Raised(OSError("no more threads")))))


def test_whatever_was_refused_its_letter_can_be_written() -> None:
    vast = wire.dead_letter(
        WireError("x" * 9_000), "t" * 128, 7, 1 << 60, b"k" * 99_999, b"v" * 2_000_000, [("a", None)]
    )
    for letter in (LETTER, vast):
        assert wire.decode_value(m.DeadLetter, wire.encode(letter)) == letter
