"""The origin header of a record, without the rest: what tells the audit that a copy is one it knows.

Of one writer's records only the last two numbers differ, so what stands before them is decoded once, by the gate. What
is not as the gate would write it goes through the gate.
"""

from __future__ import annotations

from streams import wire
from streams.core import records as m
from streams.core.names import Site
from streams.errors import WireError

HEADS_MAX = 4096
"""Writers that are remembered; each is one incarnation."""
_FRAME_BYTES = 5
_STRINGS = 3
_heads: dict[bytes, tuple[Site, str, str]] = {}


def origin_of(headers: wire.Headers) -> m.Origin | None:
    """The origin, if there is a legal one."""
    for name, value in headers:
        if name == wire.ORIGIN and value is not None:
            return _fast(value) or _by_the_gate(value)
    return None


def number_of(headers: wire.Headers) -> tuple[Site, str, int] | None:
    """Site, incarnation and number of the origin, if there is a legal one: what a tree counts by."""
    for name, value in headers:
        if name == wire.ORIGIN and value is not None:
            found = _number(value)
            if found is None and (origin := _fast(value) or _by_the_gate(value)) is not None:
                return origin.site, origin.incarnation, origin.seq
            return found
    return None


def _number(framed: bytes) -> tuple[Site, str, int] | None:
    """Of a writer that is known, whose names are short and whose time has the usual length; of others None."""
    try:
        site = framed[_FRAME_BYTES]
        at = _FRAME_BYTES + 1 + (site >> 1)
        writer = framed[at]
        at += 1 + (writer >> 1)
        incarnation = framed[at]
        at += 1 + (incarnation >> 1)
        if (site | writer | incarnation) & 0x81 or (known := _heads.get(framed[:at])) is None:
            return None
        seq, at = _long(framed, at)
        time = framed[at:]
        # what _long takes: no byte but the last ends it, it is even, and no longer than need be
        if 1 < len(time) < 10 and 0 < time[-1] < 0x80 <= min(time[:-1]) and not time[0] & 1:
            return known[0], known[2], seq
    except (IndexError, ValueError):  # no origin, most likely: the gate says
        pass
    return None


def _fast(framed: bytes) -> m.Origin | None:
    try:
        at = _FRAME_BYTES
        for _ in range(_STRINGS):
            length, at = _long(framed, at)
            at += length
        writer = _heads.get(framed[:at])
        if writer is None:
            return None
        seq, end = _long(framed, at)
        at_ms, end = _long(framed, end)
    except (IndexError, ValueError):
        return None
    return m.Origin(*writer, seq, at_ms) if end == len(framed) else None


def _long(data: bytes, at: int) -> tuple[int, int]:
    """A number as Avro writes it, and where it ends; ValueError for one that is negative, or longer than need be."""
    byte = data[at]
    if byte < 0x80:
        found, at = byte, at + 1
    else:
        found, shift = byte & 0x7F, 7
        while True:
            at += 1
            byte = data[at]
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        at += 1
        if byte == 0 or found >> 64:
            raise ValueError
    if found & 1:
        raise ValueError
    return found >> 1, at


def _by_the_gate(framed: bytes) -> m.Origin | None:
    try:
        origin = wire.decode_value(m.Origin, framed)
    except WireError:
        return None
    at = _FRAME_BYTES
    try:
        for _ in range(_STRINGS):
            length, at = _long(framed, at)
            at += length
    except (IndexError, ValueError):
        return origin
    if len(_heads) >= HEADS_MAX:
        _heads.clear()
    _heads[framed[:at]] = origin.site, origin.writer, origin.incarnation
    if _fast(framed) != origin:  # of another layout
        del _heads[framed[:at]]
    return origin
