"""Heads of HTTP/1.1, as strictly as a door needs them: what is odd is refused, and the connection is closed behind it.

Heads are cut at their empty line here and parsed by httptools, which refuses a bare LF, folds, NUL and two lengths; two
Range headers and a request line without a version pass it, so both are looked for here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote_to_bytes

import httptools

HEAD_BYTES_MAX = 8192
END = b"\r\n\r\n"
_RANGE = re.compile(rb"bytes=([0-9]{1,19})-([0-9]{1,19})")
_CONTENT_RANGE = re.compile(rb"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
_LENGTH = re.compile(rb"[0-9]{1,19}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,100}")
DIAL = "/t2g/1/dial"
PROTOCOL = "t2g"
SWITCHING = 101
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3})(?: |\r\n)")
_ONCE = (
    *(b"authorization", b"content-encoding", b"content-length", b"content-range", b"host", b"location", b"range"),
    b"transfer-encoding",
)
_REASONS = {
    200: "OK",
    206: "Partial Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    410: "Gone",
    416: "Range Not Satisfiable",
    425: "Too Early",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class BadHead(Exception):
    """A head that is not answered as asked: the status to say instead, and why, in words."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. `what`: line, file or sums, or dial, after which both ends change places; `lfn`: of a file.

    `[start, stop)`: None where no range was asked for.
    """

    what: str
    lfn: str
    token: str
    """The ticket's; "" where none was shown."""
    span: tuple[int, int] | None
    head_only: bool
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer's head: its status, the length of its body, and the `[start, stop)` that it says it has."""

    status: int
    length: int
    span: tuple[int, int] | None
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class UrlAnswered:
    """An answer's head of a server that is no door of this product.

    `length`: of its body as it is in the file; None where it is not said, or the body is coded. `total`: of the file;
    None where it is not said. `location`: where else to ask.
    """

    status: int
    length: int | None
    span: tuple[int, int] | None
    total: int | None
    location: str
    keep_alive: bool


@dataclass(slots=True)
class _Head:
    """What httptools calls back."""

    target: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    twice: bytes = b""
    complete: bool = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self.headers and name in _ONCE:
            self.twice = name
        self.headers[name] = value

    def on_headers_complete(self) -> None:
        self.complete = True


def parse_request(head: bytes) -> Asked:
    """A request's head, with its empty line. BadHead for any other that is not `GET` or `HEAD` as a door has them."""
    found = _Head()
    parser = httptools.HttpRequestParser(found)
    line = head[: head.index(b"\r\n")]
    if not line.endswith((b" HTTP/1.1", b" HTTP/1.0")):
        raise BadHead(400, "not HTTP/1.1")
    upgrades = False
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        upgrades = True
    except httptools.HttpParserError as error:
        raise BadHead(400, f"not a request: {error}") from None
    is_dial = found.target == DIAL.encode() and found.headers.get(b"upgrade") == PROTOCOL.encode()
    if upgrades != is_dial:
        raise BadHead(400, "no other protocol is spoken here")
    if not found.complete:
        raise BadHead(400, "not a request")
    method = parser.get_method()
    if method not in (b"GET", b"HEAD"):
        raise BadHead(405, "only GET and HEAD are answered")
    if found.twice:
        raise BadHead(400, f"{found.twice.decode()} is said twice")
    if b"transfer-encoding" in found.headers or found.headers.get(b"content-length", b"0") != b"0":
        raise BadHead(400, "a request has no body here")
    what, lfn, token = ("dial", "", "") if is_dial else _target(found.target)
    shown = found.headers.get(b"authorization", b"").decode("latin-1")
    if shown.startswith("Bearer "):
        token = shown.removeprefix("Bearer ").strip()
    return Asked(
        what,
        lfn,
        token if _TOKEN.fullmatch(token) else "",
        _span(found.headers.get(b"range")),
        method == b"HEAD",
        _goes_on(found, parser.get_http_version()),
    )


def _target(target: bytes) -> tuple[str, str, str]:
    path, _, query = target.partition(b"?")
    for what in ("line", "sums"):
        if path == b"/t2g/1/" + what.encode():
            return what, "", ""
    if not path.startswith(b"/t2g/1/file/"):
        raise BadHead(404, "nothing is here; a door has /t2g/1/line, /t2g/1/file/LFN and /t2g/1/sums")
    try:
        lfn = unquote_to_bytes(path.removeprefix(b"/t2g/1/file")).decode()
        words = parse_qs(query.decode("ascii"), max_num_fields=4).get("authz", [""])
    except ValueError:
        raise BadHead(400, "the name is not UTF-8, or the query is not plain") from None
    return "file", lfn, words[0].removeprefix("Bearer ")


def _span(header: bytes | None) -> tuple[int, int] | None:
    if header is None:
        return None
    found = _RANGE.fullmatch(header)
    if found is None or int(found[1]) > int(found[2]):
        raise BadHead(416, "one closed range of bytes is answered: bytes=FIRST-LAST")
    return int(found[1]), int(found[2]) + 1


def request(target: str, host: str, token: str, start: int, stop: int) -> bytes:
    """The head of a request for `[start, stop)`."""
    return (
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        f"Range: bytes={start}-{stop - 1}\r\n\r\n"
    ).encode("ascii")


def is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


def dial_request(host: str, token: str) -> bytes:
    """The head of a request to be let in, and to be asked over this connection."""
    return (
        f"GET {DIAL} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        f"Connection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n"
    ).encode("ascii")


def let_in() -> bytes:
    """The answer to such a request: from here on this end asks."""
    return f"HTTP/1.1 {SWITCHING} Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n".encode()


def dial_answer(head: bytes) -> int:
    """The status of the answer; 0 of what is none."""
    found = _STATUS.match(head)
    return int(found[1]) if found else 0


def answer(status: int, length: int, span: tuple[int, int] | None = None, total: int | None = None) -> bytes:
    """The head of an answer whose body has so many bytes: `[start, stop)` of `total`, None where that is unknown."""
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}", f"Content-Length: {length}"]
    if span is not None:
        lines.append(f"Content-Range: bytes {span[0]}-{span[1] - 1}/{'*' if total is None else total}")
    if status in (200, 206):
        lines += ["Accept-Ranges: bytes", "Content-Type: application/octet-stream"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def refusal(status: int, why: str, *, close: bool, item: int | None = None, failure_class: str = "") -> bytes:
    """A whole answer that says why there are no bytes, of which item where it is one's fault."""
    body: dict[str, object] = {"reason": why}
    if item is not None:
        body |= {"item": item, "class": failure_class}
    text = json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Length: {len(text)}",
        "Content-Type: application/json",
        *(["Connection: close"] if close else []),
        *(["WWW-Authenticate: Bearer"] if status == 401 else []),
        *(["Allow: GET, HEAD"] if status == 405 else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + text


def url_request(target: str, host: str, start: int, stop: int, *, token: str = "", etag: str = "") -> bytes:
    """The head of a request for `[start, stop)` of a file of another server."""
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", f"Range: bytes={start}-{stop - 1}", "Accept-Encoding: identity"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if etag:
        lines.append(f'If-Match: "{etag}"')
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def parse_answer(head: bytes) -> Answered:
    """An answer's head, with its empty line. BadHead (502) for one that says no length, or is none."""
    found, parser = _answered(head)
    length = found.headers.get(b"content-length", b"")
    if found.twice or b"transfer-encoding" in found.headers or not _LENGTH.fullmatch(length):
        raise BadHead(502, "the answer does not say its length")
    said = _CONTENT_RANGE.fullmatch(found.headers.get(b"content-range", b""))
    span = None if said is None else (int(said[1]), int(said[2]) + 1)
    return Answered(parser.get_status_code(), int(length), span, _goes_on(found, parser.get_http_version()))


def parse_url_answer(head: bytes) -> UrlAnswered:
    """The same of a server that is no door of this product. BadHead (502) for what is no answer."""
    found, parser = _answered(head)
    if found.twice:
        raise BadHead(502, f"{found.twice.decode()} is said twice")
    length, coding = found.headers.get(b"content-length", b""), found.headers.get(b"content-encoding", b"identity")
    known = _LENGTH.fullmatch(length) is not None and b"transfer-encoding" not in found.headers
    said = _CONTENT_RANGE.fullmatch(found.headers.get(b"content-range", b""))
    return UrlAnswered(
        status=parser.get_status_code(),
        length=int(length) if known and coding.lower() == b"identity" else None,
        span=None if said is None else (int(said[1]), int(said[2]) + 1),
        total=None if said is None or said[3] == b"*" else int(said[3]),
        location=found.headers.get(b"location", b"").decode("latin-1"),
        keep_alive=_goes_on(found, parser.get_http_version()),
    )


def _answered(head: bytes) -> tuple[_Head, httptools.HttpResponseParser]:
    found = _Head()
    parser = httptools.HttpResponseParser(found)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        raise BadHead(502, "the door speaks another protocol") from None
    except httptools.HttpParserError as error:
        raise BadHead(502, f"not an answer of HTTP: {error}") from None
    if not found.complete:
        raise BadHead(502, "the answer does not say its length")
    return found, parser


def _goes_on(head: _Head, version: str) -> bool:
    """Whether another head may follow. (`should_keep_alive` of a parser that is through tells of no message.)"""
    return version == "1.1" and b"close" not in head.headers.get(b"connection", b"").lower()
