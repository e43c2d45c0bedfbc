"""What `intent explain` says: of a consumer that has not come, came, is done; of an intent that nobody speaks of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams.cli.words import explain
from streams.client.intent_snapshot import IntentFold
from streams.core import records as m
from streams.core.names import Destination, Text
from tests.producer.conftest import B, completed, written
from tests.producer.test_watching import BODY, INTENT

READER = Destination(f"{B}/zpeak")
FILES = written(INTENT, [10, 20], last=False)
CAME = m.TransferReported(INTENT, FILES.manifest, READER, 1, "active", 0, 30, 0, 0, 2, Text(f"{READER} to read on"))


def explained(*facts: m.Message, destination: Destination = READER, now_ms: int = 2000, repair: bool = False) -> str:
    body = replace(BODY, destinations=(destination,), selection=None if repair else "entries:E", repair=repair)
    accepted = m.IntentDecided(INTENT, 1, m.Verdict.ACCEPTED, body, B, 0, 5)
    fold = IntentFold(INTENT)
    for fact in (body, accepted, *facts):
        fold.hear(fact, 1000)
    return "\n".join(explain(fold.snapshot(), now_ms))


def test_a_consumer_that_never_comes_is_said() -> None:
    found = explained(FILES)
    assert f"{READER} has not come yet: nobody reads as zpeak at {B} (`transfer2go event tail --name zpeak`" in found
    assert "its workers are down" not in found


@pytest.mark.parametrize("heard", [[CAME], [completed(FILES, READER)], [CAME, completed(FILES, READER)]])
def test_one_that_came_is_not_called_away(heard: list[m.Message]) -> None:
    more = written(INTENT, [5], no=1, prev=completed(FILES, READER).manifest_sha256)
    assert "has not come" not in explained(FILES, more, *heard)


def test_a_site_that_has_not_reported_is_no_consumer() -> None:
    assert "its workers are down" in explained(FILES, destination=Destination(B))


def test_nothing_is_said_before_there_is_something_to_read() -> None:
    assert "has not come" not in explained()


def test_an_intent_that_nobody_speaks_of_is_said() -> None:
    assert "Nothing has been heard" not in explained(FILES, now_ms=1000 + 299_000)
    assert "Nothing has been heard of it for 5 m" in explained(FILES, now_ms=1000 + 301_000)
    last = written(INTENT, [5], no=1, prev=completed(FILES, READER).manifest_sha256)
    ended = (completed(FILES, READER), last, completed(last, READER))
    assert "Nothing has been heard" not in explained(FILES, *ended, now_ms=10_000_000)


def test_what_is_repaired_keeps_its_name_meanwhile() -> None:
    words = "keep their names until whole ones take their place"
    assert words in explained(FILES, destination=Destination(B), repair=True)
    assert words not in explained(FILES, destination=Destination(B))
