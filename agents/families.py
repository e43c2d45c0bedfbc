"""The Faust agents, one a topic family: each hands its records to the dispatcher, and never yields within a turn.

A record is acknowledged when the next one is taken: after its turn and, if it was refused, its dead letter. What the
environment breaks ends the process with nothing committed past the record.

Topics are listed by name, own and every peer's copies: a pattern does not work in Faust, and a missing one only warns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import faust

from agents import dead_letters
from agents.process import StallGuard, die
from streams.core import topics
from streams.core.names import Site
from streams.worker.dispatcher import Dispatcher

ASIDE_BYTES = 32_768
"""Of a record that a thread decodes: the loop would be held for 10 ms and more, by a full manifest for 30."""


def intent_topics(peers: Iterable[Site]) -> list[str]:
    """Keyed by intent: what is asked, decided, listed, reported and completed, here and elsewhere."""
    return topics.with_copies(topics.OF_INTENTS, peers)


def transfer_topics(here: Site, peers: Iterable[Site]) -> list[str]:
    """Keyed by manifest: this site's own transfers, progress and requests."""
    return topics.of_transfers(here, peers)


def request_topics(here: Site, peers: Iterable[Site]) -> list[str]:
    """Keyed by manifest: what others ask of this site."""
    return [topics.remote(peer, topics.requests_to(here)) for peer in peers]


def register(
    app: faust.App,
    dispatcher: Dispatcher,
    publisher: dead_letters.DeadLetterSending,
    guard: StallGuard,
    here: Site,
    peers: tuple[Site, ...],
) -> frozenset[str]:
    """Declares the agents; returns every topic they read."""

    async def hear(stream: Any) -> None:
        changelogs = app.producer.changelogs
        changelogs.guard = guard.refuse_stall
        async for event in stream.events():
            msg = event.message
            headers = list(msg.headers.items() if isinstance(msg.headers, dict) else msg.headers or ())
            try:
                decoded = None
                if len(msg.value or b"") > ASIDE_BYTES:
                    decoded = await asyncio.to_thread(dispatcher.decode, msg.topic, msg.key, msg.value, headers)
                await changelogs.room()
                guard.check()
                letter = dispatcher.hear(
                    msg.topic, msg.partition, msg.offset, msg.key, msg.value, headers, decoded=decoded
                )
                if letter is not None:
                    await dead_letters.publish(letter, publisher)
            except Exception as error:  # noqa: BLE001
                # Left to Faust, the agent would begin anew behind this record, which would be acknowledged.
                die(
                    "a record cannot be heard here now; nothing behind it is committed",
                    topic=msg.topic,
                    partition=msg.partition,
                    offset=msg.offset,
                    why=f"{type(error).__name__}: {error}",
                )

    families = {
        "intents": intent_topics(peers),
        "transfers": transfer_topics(here, peers),
        "requests": request_topics(here, peers),
    }
    for name, names in families.items():
        if names:
            topic = app.topic(*names, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
            app.agent(topic, name=name, concurrency=1)(hear)
    return frozenset(topic for names in families.values() for topic in names)
