"""An intent as its facts make it: the row at a site, and what is seen of it from outside."""

from __future__ import annotations

from streams.client.intent_snapshot import IntentFold, Snapshot
from streams.core import intent as intents
from streams.core import records as m
from streams.core.intent import IntentRow
from streams.core.names import Site
from tests.core import example as x


def row(*facts: intents.IntentMessage, here: Site = x.B) -> IntentRow:
    found = None
    for fact in facts:
        found = intents.fold(found, fact, here)
    assert found is not None
    return found


def seen(*facts: m.Message) -> Snapshot:
    fold = IntentFold(x.INTENT)
    for n, fact in enumerate(facts):
        fold.hear(fact, 1000 + n)
    return fold.snapshot()
