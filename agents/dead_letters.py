"""Publishes dead letters, each until the broker has it: the refused record is acknowledged only then.

Nothing behind a refused record is heard meanwhile in its family of topics. A broker that does not take a letter takes
no other fact either, so what waits is not held up by more than it would be anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain, repeat
from typing import Protocol

import structlog

from streams.core import records as m
from streams.errors import NeverWorks, Transfer2goError

log = structlog.get_logger(__name__)

AGAIN_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)


class DeadLetterSending(Protocol):
    """The publish gate (kafka/publish.Publisher)."""

    def send(self, message: m.Message, on_ack: Callable[[Exception | None], None]) -> None: ...


async def publish(letter: m.DeadLetter, publisher: DeadLetterSending) -> None:
    """Returns when the letter is in the log, however long that takes."""
    for wait_s in chain(AGAIN_S, repeat(AGAIN_S[-1])):
        try:
            error = await _acknowledged(letter, publisher)
        except NeverWorks:
            # Ours: a letter is made so that it can always be written. Asking again would change nothing.
            log.exception("a dead letter cannot be written", letter=str(letter)[:1000])
            return
        except Transfer2goError as refused:  # also a topic that is gone, or a login that is refused: until it is mended
            error = refused
        if error is None:
            return
        log.warning("a dead letter waits for the broker", topic=letter.topic, offset=letter.offset, why=str(error))
        await asyncio.sleep(wait_s)


async def _acknowledged(letter: m.DeadLetter, publisher: DeadLetterSending) -> Exception | None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Exception | None] = loop.create_future()

    def set_answer(error: Exception | None) -> None:
        if not answer.done():
            answer.set_result(error)

    def acknowledged(error: Exception | None) -> None:
        loop.call_soon_threadsafe(set_answer, error)

    publisher.send(letter, acknowledged)
    return await answer
