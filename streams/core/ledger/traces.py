"""What was asked, served, verified and sealed of one transfer, with the record that says so: 64 bytes a span.

No verdicts. Of originals only, so that rows of one kind and site are in the order of their log.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from streams.core.ledger.findings import LogPosition
from streams.core.names import Destination, Site
from streams.core.topics import CHUNK_EVENTS, TRANSFERS, requests_to

_FIELDS = 8


class Step(IntEnum):
    """What a row says, and what its number counts."""

    ASKED = 0
    """Of a source by log: number of the request; positions."""
    ASKED_OF_DOOR = 1
    """The same by another carrier."""
    SERVED = 2
    """By a source: number of the request; positions; one without positions where it gave nothing."""
    VERIFIED = 3
    """At the destination: attempt; positions that no record said before."""
    SEALED = 4
    """At the destination: attempt; items that no record said before."""
    TOLD = 5
    """The first progress of an attempt that says anything: attempt."""
    LAPSED = 6
    """Given up by the destination: number of the request."""
    LOST = 7
    """Part files: attempt."""
    ASKED_OF_TOOL = 8
    """As ASKED, of a program of the destination's: the source that is named serves nothing, and says nothing."""
    GIVEN_BY_URL = 9
    """As SERVED, where the source said by which URLs others give it: what they gave is nobody's word."""


ASKED = (Step.ASKED, Step.ASKED_OF_DOOR, Step.ASKED_OF_TOOL)


class TraceRow(NamedTuple):
    """`by`: the source that was asked or served, the destination's site of what is told there. `[start, stop)`."""

    step: Step
    by: Site
    partition: int
    offset: int
    number: int
    start: int
    stop: int
    at_ms: int


class SiteNumbers:
    """Small numbers for sites."""

    def __init__(self) -> None:
        self._sites: list[Site] = []
        self._numbers: dict[Site, int] = {}

    def number(self, site: Site) -> int:
        found = self._numbers.setdefault(site, len(self._sites))
        if found == len(self._sites):
            self._sites.append(site)
        return found

    def site(self, number: int) -> Site:
        return self._sites[number]


class Trace:
    """Rows in the order in which they were heard."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows = array("q")

    def add(
        self, step: Step, by: int, place: LogPosition, number: int, at_ms: int, start: int = 0, stop: int = 0
    ) -> None:
        """`by`: the site's number."""
        self._rows.extend((step, by, place.partition, place.offset, number, start, stop, at_ms))

    def rows(self, sites: SiteNumbers) -> Iterator[TraceRow]:
        rows = self._rows
        for at in range(0, len(rows), _FIELDS):
            step, by, *rest = rows[at : at + _FIELDS]
            yield TraceRow(Step(step), sites.site(by), *rest)


def place_of(row: TraceRow, destination: Destination) -> LogPosition:
    """Where the row's record stands at its origin."""
    if row.step in ASKED:
        return LogPosition(destination.site, requests_to(row.by), row.partition, row.offset)
    if row.step in (Step.LAPSED, Step.LOST):
        return LogPosition(destination.site, TRANSFERS, row.partition, row.offset)
    at = row.by if row.step in (Step.SERVED, Step.GIVEN_BY_URL) else destination.site
    return LogPosition(at, CHUNK_EVENTS, row.partition, row.offset)
