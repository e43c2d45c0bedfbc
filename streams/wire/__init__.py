"""The wire: records to bytes and back through one gate, and the release their writers run.

`gate` frames and checks every record, `avro` turns a record's class into plain values, `manifest_bytes` reads a
manifest's bytes without building it, `release` is the number of this release. No Kafka client, no file, no decision.
"""

from __future__ import annotations

from streams.wire.gate import (
    Framed,
    Heard,
    HeardChunk,
    HeardOutline,
    body_of,
    chunk_headers,
    dead_letter,
    decode,
    decode_chunk,
    decode_outline,
    decode_stored,
    decode_value,
    encode,
    framed,
    headers,
    item_fault,
    origin_site,
    planned,
)

__all__ = [
    "Framed",
    "Heard",
    "HeardChunk",
    "HeardOutline",
    "body_of",
    "chunk_headers",
    "dead_letter",
    "decode",
    "decode_chunk",
    "decode_outline",
    "decode_stored",
    "decode_value",
    "encode",
    "framed",
    "headers",
    "item_fault",
    "origin_site",
    "planned",
]
