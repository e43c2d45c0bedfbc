"""The origin header without the gate: of one writer's records only the last two numbers differ.

What stands before them is remembered, for as many writers as there may be lives of processes at once; a header of one
that is not known, or that is not as the gate would write it, goes through the gate.
"""

from __future__ import annotations

from typing import NamedTuple

from streams.core.names import Site
from streams.core.records import Origin
from streams.wire.canonical import Odd, whole

HEADS_MAX = 4096
"""Writers that are remembered; each is one incarnation."""
_FRAME_BYTES = 5
_SITE, _WRITER, _INCARNATION, _SEQ, _AT_MS = (
    vars(Origin)[name].__set__ for name in ("site", "writer", "incarnation", "seq", "at_ms")
)
_heads: dict[bytes, _Head] = {}


class _Head(NamedTuple):
    site: Site
    writer: str
    incarnation: str


def read(framed: bytes) -> Origin | None:
    """The origin of a writer that is known; else None."""
    try:
        at = _head_end(framed)
        head = _heads.get(framed[:at])
        if head is None:
            return None
        seq, at = _number(framed, at)
        at_ms = _time(framed[at:])
    except Odd:
        return None
    origin = object.__new__(Origin)  # without the class's own constructor, as canonical.py makes records
    _SITE(origin, head[0])
    _WRITER(origin, head[1])
    _INCARNATION(origin, head[2])
    _SEQ(origin, seq)
    _AT_MS(origin, at_ms)
    return origin


def number(framed: bytes) -> tuple[Site, str, int] | None:
    """Site, incarnation and number of the same, whose time has the usual length: for who needs no more."""
    try:
        at = _head_end(framed)
        head = _heads.get(framed[:at])
        if head is None:
            return None
        seq, at = _number(framed, at)
        time = framed[at:]
        # what _number takes: no byte but the last ends it, it is even, and no longer than need be
        if 1 < len(time) < 10 and 0 < time[-1] < 0x80 <= min(time[:-1]) and not time[0] & 1:
            return head.site, head.incarnation, seq
    except Odd:
        pass
    return None


def learn(framed: bytes, origin: Origin) -> None:
    """Know the writer of an origin that the gate has read."""
    try:
        at = _head_end(framed)
        seq, end = _number(framed, at)
        at_ms, end = _number(framed, end)
    except Odd:
        return
    if end == len(framed) and (seq, at_ms) == (origin.seq, origin.at_ms):
        if len(_heads) >= HEADS_MAX:
            _heads.clear()
        _heads[framed[:at]] = _Head(origin.site, origin.writer, origin.incarnation)


def _head_end(framed: bytes) -> int:
    """Behind site, writer and incarnation."""
    at = _FRAME_BYTES
    for _ in range(3):
        length = framed[at]
        at += 1
        if length & 129:
            length, at = whole(framed, at)
        at += length >> 1
    return at


def _time(raw: bytes) -> int:
    """A number that is all of these bytes. A time of today has six, which are told without a loop."""
    if len(raw) == 6:
        a, b, c, d, e, f = raw
        if a & b & c & d & e & 128 and 0 < f < 128 and not a & 1:
            low = a & 127 | (b & 127) << 7 | (c & 127) << 14
            return (low | (d & 127) << 21 | (e & 127) << 28 | f << 35) >> 1
    found, end = _number(raw, 0)
    if end != len(raw):
        raise ValueError("bytes left over")
    return found


def _number(framed: bytes, at: int) -> tuple[int, int]:
    n = framed[at]
    at += 1
    if n & 129:
        n, at = whole(framed, at)
    return n >> 1, at
