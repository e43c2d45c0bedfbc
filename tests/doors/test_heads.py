"""Heads of requests and answers: what is answered, what is refused, and that a second parser reads them alike."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.doors import heads
from streams.doors.heads import Answered, Asked, BadHead

WORD = "w" * 43


def head(*lines: str, first: str = "GET /t2g/1/line HTTP/1.1") -> bytes:
    return "\r\n".join([first, "Host: a", *lines, "", ""]).encode("latin-1")


def test_a_range_of_the_line():
    asked = heads.parse_request(head(f"Authorization: Bearer {WORD}", "Range: bytes=5-9"))
    assert asked == Asked("line", "", WORD, (5, 10), False, True)


def test_a_file_by_name_as_curl_asks():
    asked = heads.parse_request(head(first=f"HEAD /t2g/1/file/a/b%20c?authz={WORD} HTTP/1.0"))
    assert asked == Asked("file", "/a/b c", WORD, None, True, False)


def test_what_is_written_here_is_read_here():
    asked = heads.parse_request(heads.request("/t2g/1/sums", "h:1", WORD, 0, 7))
    assert asked == Asked("sums", "", WORD, (0, 7), False, True)
    assert heads.parse_answer(heads.answer(206, 7, (0, 7))) == Answered(206, 7, (0, 7), True)
    assert heads.parse_answer(heads.answer(206, 7, (3, 10), 12)) == Answered(206, 7, (3, 10), True)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (head(first="POST /t2g/1/line HTTP/1.1"), 405),
        (head(first="PUT /t2g/1/line HTTP/1.1"), 405),
        (head(first="GET /t2g/1/line"), 400),
        (head(first="GET /t2g/1/line HTTP/2.0"), 400),
        (head(first="GET /t2g/1/line HTTP/1.1 "), 400),
        (head(first=" GET /t2g/1/line HTTP/1.1"), 400),
        (head(first="GET  HTTP/1.1"), 400),
        (head(first="GET /etc/passwd HTTP/1.1"), 404),
        (head(first="GET /t2g/1/../../etc/passwd HTTP/1.1"), 404),
        (head(first="GET /t2g/2/line HTTP/1.1"), 404),
        (head(first="GET http://other/t2g/1/line HTTP/1.1"), 404),
        (head(first="GET /t2g/1/file/%ff?authz=x HTTP/1.1"), 400),
        (head("Range: bytes=0-1", "Range: bytes=2-3"), 400),
        (head("Authorization: Bearer a", "authorization: Bearer b"), 400),
        (head("Host: b"), 400),
        (head("Content-Length: 5"), 400),
        (head("Content-Length: 0", "Content-Length: 0"), 400),
        (head("Transfer-Encoding: chunked"), 400),
        (head("Transfer-Encoding: chunked", "Content-Length: 5"), 400),
        (head("Range: bytes=0-"), 416),
        (head("Range: bytes=-5"), 416),
        (head("Range: bytes=0-1,3-4"), 416),
        (head("Range: bytes=9-5"), 416),
        (head("Range: bytes=0-99999999999999999999"), 416),
        (head("Range: items=0-1"), 416),
        (head("A: b", " folded"), 400),
        (head("A : b"), 400),
        (head("A: \0"), 400),
        (b"GET /t2g/1/line HTTP/1.1\nHost: a\n\r\n\r\n", 400),
        (b"GET /t2g/1/line HTTP/1.1\r\nHost: a\nRange: bytes=0-1\r\n\r\n", 400),
        (head("Upgrade: websocket", "Connection: upgrade"), 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    ],
)
def test_what_is_refused(raw: bytes, status: int):
    with pytest.raises(BadHead) as refused:
        heads.parse_request(raw)
    assert refused.value.status == status, refused.value.why
    assert b"HTTP/1.1 %d " % status in heads.refusal(status, refused.value.why, close=True)


@pytest.mark.parametrize("token", ["short", "w" * 101, "with blank " * 4, "../" * 10])
def test_what_is_no_ticket_is_none(token: str):
    assert heads.parse_request(head(f"Authorization: Bearer {token}")).token == ""


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 206 OK\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Length: -5\r\n\r\n",
        b"220 welcome to ftp\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
def test_answers_that_cannot_be_believed(raw: bytes):
    with pytest.raises(BadHead):
        heads.parse_answer(raw)


@pytest.mark.parametrize("said", ["bytes 0-4", "bytes */5", "bytes 4-0x9/10", "items 0-4/5", ""])
def test_a_content_range_that_is_none(said: str):
    raw = f"HTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Range: {said}\r\n\r\n".encode()
    assert heads.parse_answer(raw).span is None


NAMES = st.sampled_from(["Range", "range", "Authorization", "Content-Length", "Accept", "X-A", "Host", "Connection"])
VALUES = st.one_of(
    st.sampled_from(["bytes=0-1", "bytes=5-9", f"Bearer {WORD}", "0", "7", "close", "keep-alive", ""]),
    st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=12),
)
TARGETS = st.sampled_from(["/t2g/1/line", "/t2g/1/sums", "/t2g/1/file/a", "/", "*", "/t2g/1/line?x=y"])


@given(st.sampled_from(["GET", "HEAD", "POST"]), TARGETS, st.lists(st.tuples(NAMES, VALUES), max_size=5))
def test_what_is_answered_another_parser_reads_alike(method: str, target: str, headers: list[tuple[str, str]]):
    """h11 may be stricter or laxer; what both take has one method, one target, one range, and no body."""
    lines = [f"{name}: {value}" for name, value in headers]
    raw = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode("latin-1")
    if raw.index(b"\r\n\r\n") + 4 != len(raw):
        return  # what stands behind an empty line is another head
    try:
        asked = heads.parse_request(raw)
    except BadHead:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(raw)
    try:
        event = other.next_event()
    except h11.RemoteProtocolError as error:
        pytest.fail(f"h11 refuses what is answered here: {error}: {raw!r}")
    assert isinstance(event, h11.Request)
    assert event.method.decode() == ("HEAD" if asked.head_only else "GET")
    ranges = [value for name, value in event.headers if name == b"range"]
    said = [f"bytes={asked.span[0]}-{asked.span[1] - 1}".encode()] if asked.span else []
    assert [value.strip() for value in ranges] == said
    assert isinstance(other.next_event(), h11.EndOfMessage)
