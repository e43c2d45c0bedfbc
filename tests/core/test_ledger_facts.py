"""Every record that is of an intent has a row in the ledger, under a number of its own."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

from streams.core import records as m
from streams.core.ledger.facts import _PACKED, NAMES, Kind


def test_each_record_of_an_intent_is_kept() -> None:
    of_intents = {cls for cls in get_args(m.Message) if {"intent", "manifest"} & {field.name for field in fields(cls)}}
    offers = {m.ChunksOffered, m.UrlsOffered}
    assert of_intents - offers == _PACKED.keys(), "an offer goes where payload does, in no journal"
    assert sorted(kind for kind, _ in _PACKED.values()) == sorted(Kind)
    assert NAMES[Kind.COMPLETION] == "CompletionRecord"
