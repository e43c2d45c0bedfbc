"""Files of servers that are no doors of this product: a range of one URL after the other, each answer checked first.

Such a server is believed nothing but bytes: before one of them is handed on, its answer must be 206, of exactly the
range that was asked for, of a file of the size that is known, and of that length. Nothing is asked ahead (XRootD 5.5
answers the first of several requests, and no more); who wants more has more connections. What such a server says of a
file fails itself and not the file, but for one that was asked for by its ETag.

Redirects are followed to listed hosts only, and nothing else is. A bearer token goes with them, but never from https to
http. An address is said without its path and query, which may hold what opens it.
"""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from streams.core.closing import Closing
from streams.core.records import field_checks
from streams.doors import heads
from streams.doors.connection import Connection, DoorFault, Sink
from streams.doors.heads import BadHead, UrlAnswered

REDIRECTS_MAX = 3
KEPT_MAX = 2
"""Connections: to who is asked, and to whom he leads."""
CLOSED_S = 1.0
"""A connection that its server has closed while nobody asked says so at once."""
DROPPED_BYTES_MAX = 64 * 1024
"""A body that nobody wants is read up to here, so that its connection goes on."""
_REDIRECTS = (301, 302, 303, 307, 308)
_FOR_NOW = (408, 425, 429)
_PORTS = {"http": 80, "https": 443}


class Place(NamedTuple):
    """Where a URL is answered."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: str) -> Place | None:
        """None where it is no address of a file."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError:  # no such port
            return None
        if not field_checks.is_url(url) or not parts.hostname or port is None:
            return None
        return cls(parts.hostname.lower(), port, parts.scheme == "https")


@dataclass(frozen=True, slots=True)
class UrlRange:
    """`[start, stop)` of a file of `bytes` bytes, which is `item` of a transfer.

    `etag`: of the version that is asked for, "" for none. `redirects`: HOST or *.DOMAIN. `token`: "" for none.
    """

    item: int
    url: str
    start: int
    stop: int
    bytes: int
    etag: str = ""
    token: str = ""
    redirects: tuple[str, ...] = ()


class UrlConnection(Closing):
    """Connections of one thread to where URLs lead. Raises DoorFault from `fetch`, and can be used further."""

    def __init__(self, tls: Callable[[], ssl.SSLContext], *, connect_s: float = 5.0, stall_s: float = 30.0) -> None:
        """`tls`: for https; may raise StorageError."""
        self._tls, self._connect_s, self._stall_s = tls, connect_s, stall_s
        self._kept: OrderedDict[Place, Connection] = OrderedDict()
        self.closed = False

    def close(self) -> None:
        self.closed = True
        while self._kept:
            self._kept.popitem()[1].close()

    def fetch(self, asked: UrlRange, first: int, buffer: memoryview, sink: Sink) -> None:
        """`sink(position, bytes)` of each buffer, in order, where the file's first byte has position `first`."""
        url, token, seen = asked.url, asked.token, {asked.url}
        place = Place.of(url)
        if place is None:
            raise DoorFault("not the address of a file", "", failure_class="permanent", is_final=True)
        here = place
        while True:
            connection, answer = self._ask(here, url, asked, token)
            if answer.status not in _REDIRECTS:
                return self._take(here, connection, answer, asked, first, buffer, sink)
            self._pass_over(here, connection, answer)
            url = _joined(url, answer.location)
            there = Place.of(url)
            if there is None:
                raise _final(here, "the door redirects to what is no address of a file", answer.status)
            if there != place and not _is_listed(there.host, asked.redirects):
                what = f"the door redirects to {there.host}, which is none of its [doors] redirects"
                raise _final(here, what, answer.status)
            if url in seen:
                raise _final(here, "the door redirects in a circle", answer.status)
            if len(seen) > REDIRECTS_MAX:
                raise _final(here, f"the door redirects more than {REDIRECTS_MAX} times", answer.status)
            seen.add(url)
            if here.tls and not there.tls:
                token = ""
            here = there

    def _ask(self, place: Place, url: str, asked: UrlRange, token: str) -> tuple[Connection, UrlAnswered]:
        """The head of the answer. A connection that was kept may be closed meanwhile: then once more, by another."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        head = heads.url_request(target, parts.netloc, asked.start, asked.stop, token=token, etag=asked.etag)
        kept = self._kept.get(place)
        if kept is not None and kept.has_ahead:
            self._drop(place)
        elif kept is not None:
            self._kept.move_to_end(place)
            began_s = time.monotonic()
            try:
                return kept, _answer_to(kept, head)
            except DoorFault:
                self._drop(place)
                if time.monotonic() - began_s > CLOSED_S:
                    raise
        connection = Connection(
            place.host,
            place.port,
            tls=self._tls() if place.tls else None,
            connect_s=self._connect_s,
            stall_s=self._stall_s,
        )
        self._kept[place] = connection
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)[1].close()
        try:
            return connection, _answer_to(connection, head)
        except DoorFault:
            self._drop(place)
            raise

    def _take(
        self,
        place: Place,
        connection: Connection,
        answer: UrlAnswered,
        asked: UrlRange,
        first: int,
        buffer: memoryview,
        sink: Sink,
    ) -> None:
        if answer.status != 206:
            self._pass_over(place, connection, answer)
            raise _refusal(place, answer, asked)
        fault = _mismatch(place, answer, asked)
        if fault is not None:
            self._drop(place)
            raise fault
        whole = False
        try:
            connection.take(first + asked.start, first + asked.stop, buffer, sink)
            whole = True
        finally:
            if not whole or not answer.keep_alive:
                self._drop(place)

    def _pass_over(self, place: Place, connection: Connection, answer: UrlAnswered) -> None:
        """Read a body that nobody wants, or close its connection."""
        if not answer.keep_alive or answer.length is None or answer.length > DROPPED_BYTES_MAX:
            return self._drop(place)
        try:
            connection.body(answer.length)
        except DoorFault:
            self._drop(place)

    def _drop(self, place: Place) -> None:
        kept = self._kept.pop(place, None)
        if kept is not None:
            kept.close()


def _joined(url: str, location: str) -> str:
    """Where a redirect leads; "" for nowhere."""
    try:
        return urljoin(url, location) if location else ""
    except ValueError:  # half an address of IPv6
        return ""


def _answer_to(connection: Connection, head: bytes) -> UrlAnswered:
    connection.send(head)
    try:
        return heads.parse_url_answer(connection.head())
    except BadHead as error:
        raise connection.fault(error.why) from error


def _refusal(place: Place, answer: UrlAnswered, asked: UrlRange) -> DoorFault:
    """What an answer without the range says."""
    status, where = answer.status, _said(place)
    if status == 200:
        what = "the door answers 200 where a range was asked for: it knows no ranges, or it gives something else"
        return DoorFault(what, where, failure_class="permanent", status=status, is_final=True)
    if status == 412 and asked.etag:
        what = "the file has changed since it was listed: its door has another ETag (412)"
        return DoorFault(what, where, failure_class="data-bad", item=asked.item, status=status)
    what = f"the door answers {status}"
    if status in _FOR_NOW or status >= 500:
        return DoorFault(what, where, status=status)
    failure_class = "auth" if status in (401, 403) else "permanent"
    return DoorFault(what, where, failure_class=failure_class, status=status, is_final=True)


def _mismatch(place: Place, answer: UrlAnswered, asked: UrlRange) -> DoorFault | None:
    """Why a 206 is not the answer to what was asked."""
    if answer.total is not None and answer.total != asked.bytes:
        what = f"the door has another file: {answer.total:,} bytes where {asked.bytes:,} were registered"
        return DoorFault(what, _said(place), failure_class="data-bad", status=206, is_final=True)
    length = asked.stop - asked.start
    if answer.span == (asked.start, asked.stop) and answer.length == length:
        return None
    said = "no range" if answer.span is None else f"[{answer.span[0]}, {answer.span[1]})"
    much = "an unsaid or coded length" if answer.length is None else f"{answer.length} bytes"
    what = f"the door answers {said}, {much}, where [{asked.start}, {asked.stop}) was asked for"
    return DoorFault(what, _said(place), status=206)


def _is_listed(host: str, redirects: tuple[str, ...]) -> bool:
    for pattern in (one.lower() for one in redirects):
        if host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:])):
            return True
    return False


def _final(place: Place, what: str, status: int) -> DoorFault:
    return DoorFault(what, _said(place), failure_class="permanent", status=status, is_final=True)


def _said(place: Place) -> str:
    return f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
