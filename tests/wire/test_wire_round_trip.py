"""What is encoded decodes to the same value, at its own site and through a mirror; bytes depend on the value alone."""

from __future__ import annotations

from typing import Any

import pytest

from streams import wire
from streams.core import records, topics
from streams.core.names import Site
from streams.errors import WireError
from streams.wire import versions


def test_every_record_comes_back_equal(messages: list[Any], record: Any) -> None:
    for message in messages:
        heard = record(message).decode()
        assert heard.message == message
        assert type(heard.message) is type(message)
        assert heard.origin.seq == 3


def test_mirrored_records_come_back_equal(messages: list[Any], record: Any) -> None:
    for message in messages:
        if records.topic_of(message) not in topics.LOCAL or records.topic_of(message) == topics.CHUNK_EVENTS:
            assert record(message).mirrored_to(Site("T9_AUDIT")).decode().message == message


def test_a_manifest_of_a_thousand_items(rich_items: Any, record: Any) -> None:
    heard = record(rich_items).decode()
    assert heard.message == rich_items
    assert len(wire.encode(rich_items)) < versions.NESTED_BYTES_MAX


def test_chunk_headers(samples: Any) -> None:
    for header in samples["ChunkHeader"].values():
        assert wire.decode_value(records.ChunkHeader, wire.encode(header)) == header


def test_payload_record(samples: Any) -> None:
    header, origin = samples["ChunkHeader"]["rich"], samples["Origin"]["small"]
    stands = ("T1_A.chunks-to-T3_C", header.manifest.encode(), bytes(4150), wire.chunk_headers(header, origin))
    heard = wire.decode_chunk(*stands, Site("T3_C"))
    assert (heard.header, heard.origin) == (header, origin)
    with pytest.raises(WireError, match="4150 bytes"):
        wire.decode_chunk(*stands[:2], bytes(4149), stands[3], Site("T3_C"))


def test_every_sample_means_something(samples: Any) -> None:
    for pair in samples.values():
        for value in pair.values():
            assert records.fault(value) is None
