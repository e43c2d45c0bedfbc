"""Records of chunks on their way: what a source is asked for, what it offers or served, and the header of a payload."""

from __future__ import annotations

from dataclasses import dataclass

from streams.core import topics
from streams.core.names import Destination, Lfn, ManifestId, Site
from streams.core.policy import MANIFEST_ITEMS_MAX, PAYLOAD_BYTES_MAX, SEGMENTS_MAX
from streams.core.ranges import Ranges
from streams.core.records import field_checks
from streams.core.records.limits import POSITION_MAX
from streams.core.records.registry import Row, checked, record
from streams.core.records.values import FailedItems, Reason

DOORS_MAX = 8
REDIRECTS_MAX = 32
"""Names of hosts in an offer."""
READS_URLS = "urls"
"""Capability of a request whose destination reads UrlsOffered: who does not say so gets none."""


@dataclass(frozen=True, slots=True)
class RequestedItem:
    """What a source needs to serve an item's part: where it starts on the manifest's line, and which version."""

    no: int
    lfn: Lfn
    start: int
    length: int
    version: str
    selection: str = ""


def _requested(r: ChunksRequested) -> str | None:
    if not r.ranges:
        return "ranges: empty"
    if len(r.items) > MANIFEST_ITEMS_MAX:
        return f"items: {len(r.items)}, over {MANIFEST_ITEMS_MAX}"
    no, stop = -1, 0
    for n, item in enumerate(r.items):
        if item.no <= no or item.start < stop:
            return f"items[{n}]: not after the one before it"
        no, stop = item.no, item.start + item.length
    if no >= MANIFEST_ITEMS_MAX:
        return f"items: number {no} is past the last, {MANIFEST_ITEMS_MAX - 1}"
    if stop > POSITION_MAX:
        return f"items: end past {POSITION_MAX}"
    if r.ranges - Ranges((i.start, i.start + i.length) for i in r.items):
        return "ranges: not within the items"
    if "://" in r.capability and not _is_capability(r.capability):
        return "capability: holds a URL that is not a door's, with a ticket behind it"
    return field_checks.from_one("request_no", r.request_no) or field_checks.word("plane", r.plane)


def _is_capability(text: str) -> bool:
    url, _, ticket = text.partition(" ")
    return field_checks.is_http(url) and field_checks.is_ticket(ticket)


@record(
    topic=lambda r: topics.requests_to(r.source),
    is_in=topics.is_requests,
    key=lambda r: r.manifest,
    author=lambda r: r.destination.site,
    check=_requested,
    row=Row.TRANSFER,
)
@dataclass(frozen=True, slots=True)
class ChunksRequested:
    manifest: ManifestId
    destination: Destination
    source: Site
    request_no: int
    attempt: int
    plane: str
    items: tuple[RequestedItem, ...]
    ranges: Ranges
    until_ms: int
    capability: str = ""
    """Where a source without an open door may connect to be asked, and the ticket that lets it in: "URL TICKET"; or
    READS_URLS, of a request by door."""


@dataclass(frozen=True, slots=True)
class OfferedDoor:
    """A door that gives what is offered to who holds the ticket. `kind`: what is spoken there."""

    kind: str
    url: str
    ticket: str


def _offered(o: ChunksOffered) -> str | None:
    if bool(o.doors) == (o.reason is not None):
        return "doors: needs either a door or a reason"
    if len(o.doors) > DOORS_MAX:
        return f"doors: {len(o.doors)}, over {DOORS_MAX}"
    for n, door in enumerate(o.doors):
        if not field_checks.is_http(door.url):
            return f"doors[{n}].url: not an http address"
        if (why := field_checks.word(f"doors[{n}].kind", door.kind)) is not None:
            return why
    if not o.ranges:
        return "ranges: empty"
    return field_checks.from_one("request_no", o.request_no) or field_checks.within("ranges", o.ranges, POSITION_MAX)


@record(
    topic=lambda r: topics.chunks_to(r.destination.site),
    is_in=topics.is_chunks,
    key=lambda r: r.manifest,
    author=lambda r: r.source,
    check=_offered,
)
@dataclass(frozen=True, slots=True)
class ChunksOffered:
    """Where a request's bytes can be fetched, or why they cannot: stands in a payload topic in the payload's place.

    `until_ms`: at most, by the source's clock. A ticket is worth what it offers, to whoever has read it.
    """

    manifest: ManifestId
    destination: Destination
    source: Site
    request_no: int
    ranges: Ranges
    until_ms: int
    doors: tuple[OfferedDoor, ...]
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class ItemUrl:
    """Where the file of an item is given over HTTP. `etag`: with it only as this version, which is asked for so."""

    item: int
    url: str
    etag: str = ""


def _urls_offered(o: UrlsOffered) -> str | None:
    if not o.urls and not o.failed:
        return "urls: none, and no item failed"
    if len(o.urls) > MANIFEST_ITEMS_MAX:
        return f"urls: {len(o.urls)}, over {MANIFEST_ITEMS_MAX}"
    last = -1
    for n, one in enumerate(o.urls):
        if not last < one.item < MANIFEST_ITEMS_MAX:
            return f"urls[{n}].item: {one.item} is not after the one before it, or past {MANIFEST_ITEMS_MAX - 1}"
        last = one.item
        if not field_checks.is_url(one.url):
            return f"urls[{n}].url: not an http address"
        if not field_checks.is_etag(one.etag):
            return f"urls[{n}].etag: not an ETag"
    if not field_checks.is_bearer(o.token):
        return "token: not a bearer token"
    if len(o.redirects) > REDIRECTS_MAX:
        return f"redirects: {len(o.redirects)}, over {REDIRECTS_MAX}"
    for n, host in enumerate(o.redirects):
        if not field_checks.is_host_pattern(host):
            return f"redirects[{n}]: not HOST or *.DOMAIN"
    if not o.ranges:
        return "ranges: empty"
    return (
        field_checks.apart(MANIFEST_ITEMS_MAX, [("urls", Ranges.of(*(one.item for one in o.urls)))], o.failed)
        or field_checks.from_one("request_no", o.request_no)
        or field_checks.within("ranges", o.ranges, POSITION_MAX)
    )


@record(
    topic=lambda r: topics.chunks_to(r.destination.site),
    is_in=topics.is_chunks,
    key=lambda r: r.manifest,
    author=lambda r: r.source,
    check=_urls_offered,
)
@dataclass(frozen=True, slots=True)
class UrlsOffered:
    """The same where no door of this product gives them, but others over HTTP: of each item its URL.

    A request may have several, each of other ranges. Only who asked with READS_URLS gets it: an older gate would
    refuse it. `token` goes to the hosts of the URLs, and to those of `redirects` ("*.DOMAIN": below it) where they
    lead. URLs and token are worth what they open, to whoever has read them.
    """

    manifest: ManifestId
    destination: Destination
    source: Site
    request_no: int
    ranges: Ranges
    until_ms: int
    urls: tuple[ItemUrl, ...]
    token: str = ""
    redirects: tuple[str, ...] = ()
    failed: tuple[FailedItems, ...] = ()
    """Items that the source does not have as they were asked for."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of a chunk inside one item. `offset` in the item; `size` bytes in the payload; crc32c, or a reason.

    crc32c is an unsigned 32-bit number carried as a long.
    """

    item: int
    offset: int
    length: int
    size: int
    crc32c: int | None
    reason: Reason | None = None
    fingerprint: str = ""
    """Of the schema of entries; "" for bytes."""


def _chunk(c: ChunkHeader) -> str | None:
    if len(c.segments) > SEGMENTS_MAX:
        return f"segments: {len(c.segments)}, over {SEGMENTS_MAX}"
    if c.stop > POSITION_MAX:
        return f"stop: past {POSITION_MAX}"
    length, size, item, stop = 0, 0, -1, 0
    for n, s in enumerate(c.segments):
        if s.item >= MANIFEST_ITEMS_MAX:
            return f"segments[{n}].item: {s.item} is past the last, {MANIFEST_ITEMS_MAX - 1}"
        if s.item < item or (s.item == item and s.offset != stop):
            return f"segments[{n}]: does not follow the one before it"
        if s.length == 0:
            return f"segments[{n}].length: 0"
        if (s.crc32c is None) == (s.reason is None):
            return f"segments[{n}]: needs either crc32c or reason"
        if s.crc32c is not None and s.crc32c >> 32:
            return f"segments[{n}].crc32c: over 32 bits"
        if s.reason is not None and s.size:
            return f"segments[{n}].size: a segment with a reason has no bytes"
        item, stop, length, size = s.item, s.offset + s.length, length + s.length, size + s.size
    if length != c.stop - c.start:
        return "segments: do not add up to [start, stop)"
    if size > PAYLOAD_BYTES_MAX:
        return f"segments: {size} bytes, over {PAYLOAD_BYTES_MAX}"
    return field_checks.from_one("request_no", c.request_no)


@checked(_chunk)
@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """Header `t2g-chunk` of a payload record whose value is the segments' bytes, end to end."""

    manifest: ManifestId
    destination: Destination
    request_no: int
    start: int
    stop: int
    segments: tuple[Segment, ...]
    last: bool
    """Whether this is the final record of the request, so that the plane may sync at once."""


def _served(s: ChunksServed) -> str | None:
    return (
        field_checks.from_one("request_no", s.request_no)
        or field_checks.within("ranges", s.ranges, POSITION_MAX)
        or field_checks.word("plane", s.plane)
    )


@record(topic=topics.CHUNK_EVENTS, key=lambda r: r.manifest, author=lambda r: r.source, check=_served)
@dataclass(frozen=True, slots=True)
class ChunksServed:
    """What has left a source for a request. `plane` "urls": what others give, as it said; `bytes` is 0 then, since
    nobody counts what they send.
    """

    manifest: ManifestId
    source: Site
    destination: Destination
    request_no: int
    ranges: Ranges
    bytes: int
    plane: str = "log"
