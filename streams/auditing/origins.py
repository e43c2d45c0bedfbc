"""The origin header of a record, without the rest: what tells the audit that a copy is one it knows."""

from __future__ import annotations

from streams import wire
from streams.core import records as m
from streams.core.names import Site
from streams.errors import WireError
from streams.wire import origin_bytes


def origin_of(headers: wire.Headers) -> m.Origin | None:
    """The origin, if there is a legal one."""
    for name, value in headers:
        if name == wire.ORIGIN and value is not None:
            return _legal(value)
    return None


def number_of(headers: wire.Headers) -> tuple[Site, str, int] | None:
    """Site, incarnation and number of the origin, if there is a legal one: what a tree counts by."""
    for name, value in headers:
        if name == wire.ORIGIN and value is not None:
            found = origin_bytes.number(value)
            if found is None and (origin := _legal(value)) is not None:
                return origin.site, origin.incarnation, origin.seq
            return found
    return None


def _legal(framed: bytes) -> m.Origin | None:
    try:
        return wire.origin_in(framed)
    except WireError:
        return None
