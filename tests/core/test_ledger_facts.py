"""Every record that is of an intent has a row in the ledger, under a number of its own."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

from streams.core import records as m
from streams.core.channel import URLS
from streams.core.ledger.custody import steps
from streams.core.ledger.facts import _PACKED, NAMES, Fact, Kind
from streams.core.ledger.findings import LogPosition
from streams.core.ranges import Ranges
from tests.core import example as x


def test_each_record_of_an_intent_is_kept() -> None:
    of_intents = {cls for cls in get_args(m.Message) if {"intent", "manifest"} & {field.name for field in fields(cls)}}
    offers = {m.ChunksOffered, m.UrlsOffered}
    assert of_intents - offers == _PACKED.keys(), "an offer goes where payload does, in no journal"
    assert sorted(kind for kind, _ in _PACKED.values()) == sorted(Kind)
    assert NAMES[Kind.COMPLETION] == "CompletionRecord"


def test_of_what_others_give_by_url_a_history_says_so() -> None:
    said = {}
    for plane in ("door", URLS):
        served = m.ChunksServed(x.MANIFEST, x.C, x.B, 7, Ranges([(0, 150)]), 0, plane)
        kind, pack = _PACKED[type(served)]
        place = LogPosition(x.C, "chunk-events", 0, 0)
        fact = Fact(kind, True, True, place, 0, 0, 0, 0, 0, pack(served, x.C, None))  # type: ignore[arg-type]
        *_, step = steps([fact], lambda _: "plane")
        said[plane] = step.words
    assert said == {
        "door": "S_C served positions 0…149 of 0.0, request 7",
        URLS: "S_C said where others give positions 0…149 of 0.0, request 7",
    }
