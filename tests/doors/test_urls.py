"""Files by URL from servers that are no doors of this product: what is asked, what is believed, where it may lead."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.doors import heads
from streams.doors.connection import DoorFault
from streams.doors.heads import BadHead, parse_url_answer
from streams.doors.urls import Place, UrlConnection, UrlRange, _is_listed, _joined
from tests.certificates import self_signed
from tests.doors.url_server import (
    HERE,
    Behave,
    UrlServer,
    gives_all,
    hangs,
    head,
    leads_to,
    range_of,
    says,
    serving,
)

CONTENT = os.urandom(300_000)
OTHER = os.urandom(300_000)
TOKEN = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"


@pytest.fixture
def server() -> Iterator[UrlServer]:
    with serving(UrlServer({"/f": CONTENT, "/g": OTHER})) as running:
        yield running


def connection() -> UrlConnection:
    return UrlConnection(ssl.create_default_context, connect_s=1, stall_s=1)


def asked(url: str, start: int = 0, stop: int = 300_000, **more: object) -> UrlRange:
    return UrlRange(7, url, start, stop, 300_000, **more)  # type: ignore[arg-type]


def fetch(by: UrlConnection, wanted: UrlRange, first: int = 1000) -> bytes:
    came = bytearray()

    def take(at: int, view: memoryview) -> None:
        assert at == first + wanted.start + len(came)
        came.extend(view)

    by.fetch(wanted, first, memoryview(bytearray(65536)), take)
    return bytes(came)


def test_ranges_come_one_after_the_other_over_one_connection(server: UrlServer) -> None:
    with connection() as by:
        assert fetch(by, asked(server.url("/f"))) == CONTENT
        assert fetch(by, asked(server.url("/f"), 5, 70_005)) == CONTENT[5:70_005]
        assert fetch(by, asked(server.url("/g"), 299_999)) == OTHER[-1:]
    assert server.connections == 1
    assert [one.headers["range"] for one in server.asked] == [
        "bytes=0-299999",
        "bytes=5-70004",
        "bytes=299999-299999",
    ]
    assert "authorization" not in server.asked[0].headers


def test_query_token_and_etag_are_sent_as_they_are(server: UrlServer) -> None:
    with connection() as by:
        url = server.url("/f?X-Amz-Signature=ab%2F&x=1")
        assert fetch(by, asked(url, token=TOKEN, etag="9b2c-7")) == CONTENT
    (one,) = server.asked
    assert one.target == "/f?X-Amz-Signature=ab%2F&x=1"
    assert one.headers["authorization"] == f"Bearer {TOKEN}"
    assert one.headers["if-match"] == '"9b2c-7"'
    assert one.headers["host"] == f"{HERE}:{server.port}"


@pytest.mark.parametrize(
    ("behave", "said", "failure_class", "is_final", "given"),
    [
        (gives_all(CONTENT), "200 where a range was asked for", "permanent", True, 0),
        (gives_all(b"<html>log in</html>"), "200 where a range was asked for", "permanent", True, 0),
        (range_of(CONTENT, shift=1), r"\[1, 300001\)", "transient", False, 0),
        (range_of(CONTENT, more=5), "300005 bytes", "transient", False, 0),
        (range_of(CONTENT, more=-5), "in the middle of a range", "transient", False, 299_995),
        (range_of(CONTENT, total=299_999), "another file: 299,999 bytes where 300,000", "data-bad", True, 0),
        (says(head(206, 300_000)), "no range", "transient", False, 0),
        (says(head(206, None, "bytes 0-299999/300000")), "an unsaid or coded length", "transient", False, 0),
        (
            says(head(206, None, "bytes 0-299999/300000", "Transfer-Encoding: chunked")),
            "an unsaid or coded length",
            "transient",
            False,
            0,
        ),
        (
            says(head(206, 300_000, "bytes 0-299999/300000", "Content-Encoding: gzip")),
            "an unsaid or coded length",
            "transient",
            False,
            0,
        ),
        (hangs, "does not answer", "transient", False, 0),
        (says(), "closed the connection", "transient", False, 0),
        (says(head(206, 300_000, "bytes 0-299999/300000")), "in the middle", "transient", False, 0),
        (says(head(401, 0)), "answers 401", "auth", True, 0),
        (says(head(403, 3) + b"no!"), "answers 403", "auth", True, 0),
        (says(head(404, 0)), "answers 404", "permanent", True, 0),
        (says(head(412, 0)), "answers 412", "permanent", True, 0),
        (says(head(416, 0)), "answers 416", "permanent", True, 0),
        (says(head(429, 0)), "answers 429", "transient", False, 0),
        (says(head(503, 10**9)), "answers 503", "transient", False, 0),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "not an answer of HTTP", "transient", False, 0),
        (leads_to(""), "no address of a file", "permanent", True, 0),
        (leads_to("http://[::1/f"), "no address of a file", "permanent", True, 0),
        (leads_to("/a b"), "no address of a file", "permanent", True, 0),
        (leads_to("http://me:hush@127.0.0.1/f"), "no address of a file", "permanent", True, 0),
        (leads_to("ftp://127.0.0.1/f"), "no address of a file", "permanent", True, 0),
        (leads_to("http://127.0.0.1:99999/f"), "no address of a file", "permanent", True, 0),
        (leads_to("http://other.example.org/f"), "redirects to other.example.org, which is none", "permanent", True, 0),
    ],
)
def test_nothing_is_believed_but_the_range(
    server: UrlServer, behave: Behave, said: str, failure_class: str, is_final: bool, given: int
) -> None:
    server.odd["/f"] = behave
    came: list[int] = []
    with connection() as by:
        began_s = time.monotonic()
        with pytest.raises(DoorFault, match=said) as caught:
            by.fetch(
                asked(server.url("/f?secret=1"), token=TOKEN),
                0,
                memoryview(bytearray(65536)),
                lambda at, view: came.append(len(view)),
            )
        assert time.monotonic() - began_s < 4
        fault = caught.value
        assert (fault.failure_class, fault.is_final, fault.item) == (failure_class, is_final, None)
        assert "secret" not in str(fault)
        assert TOKEN not in str(fault)
        assert sum(came) == given
        assert fetch(by, asked(server.url("/g"))) == OTHER, "it can be used further"


def test_an_etag_that_changed_is_the_items_own_fault(server: UrlServer) -> None:
    server.odd["/f"] = says(head(412, 0))
    with connection() as by, pytest.raises(DoorFault, match="another ETag") as caught:
        fetch(by, asked(server.url("/f"), etag="e"))
    assert (caught.value.failure_class, caught.value.item, caught.value.is_final) == ("data-bad", 7, False)


def test_a_body_that_is_longer_than_said_ends_its_connection(server: UrlServer) -> None:
    server.odd["/f"] = says(head(206, 300_000, "bytes 0-299999/300000") + CONTENT + b"HTTP/1.1 206 X", goes_on=True)
    with connection() as by:
        assert fetch(by, asked(server.url("/f"))) == CONTENT
        assert fetch(by, asked(server.url("/g"))) == OTHER
    assert server.connections == 2


def test_a_connection_that_its_server_closed_meanwhile_is_made_anew(server: UrlServer) -> None:
    def gives_once(made: object, one: object) -> bool:
        server.gives(made, one)  # type: ignore[arg-type]
        return False

    server.odd["*"] = gives_once
    with connection() as by:
        assert fetch(by, asked(server.url("/f"))) == CONTENT
        time.sleep(0.1)
        assert fetch(by, asked(server.url("/g"))) == OTHER
    assert server.connections == 2


def test_it_is_followed_to_listed_hosts_with_the_token(server: UrlServer) -> None:
    with serving(UrlServer({"/pool/f": CONTENT})) as pool:
        server.odd["/f"] = leads_to(f"http://localhost:{pool.port}/pool/f?opaque=1", 307)
        with connection() as by:
            for _ in range(2):
                assert fetch(by, asked(server.url("/f"), token=TOKEN, redirects=("localhost",))) == CONTENT
        assert (server.connections, pool.connections) == (1, 1)
        assert [one.target for one in pool.asked] == ["/pool/f?opaque=1"] * 2
        assert {one.headers["authorization"] for one in pool.asked} == {f"Bearer {TOKEN}"}
        assert {one.headers["host"] for one in pool.asked} == {f"localhost:{pool.port}"}
        pool.asked.clear()
        with connection() as by, pytest.raises(DoorFault, match="localhost, which is none of its"):
            fetch(by, asked(server.url("/f"), token=TOKEN, redirects=("*.localhost", "host")))
        assert not pool.asked, "nothing was sent there"


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("*.pool.example.org", "a.pool.example.org", True),
        ("*.pool.example.org", "a.b.POOL.example.org", True),
        ("*.pool.example.org", "pool.example.org", False),
        ("*.pool.example.org", "evilpool.example.org", False),
        ("pool.example.org", "pool.example.org", True),
        ("pool.example.org", "a.pool.example.org", False),
        ("pool.example.org", "pool.example.org.evil.com", False),
    ],
)
def test_which_hosts_are_listed(pattern: str, host: str, fits: bool) -> None:
    assert _is_listed(host.lower(), (pattern,)) is fits


def test_the_same_server_may_lead_to_itself_and_not_in_a_circle(server: UrlServer) -> None:
    server.odd["/a"] = leads_to("/f")
    server.odd["/b"] = leads_to("/c")
    server.odd["/c"] = leads_to(server.url("/b"))
    server.odd |= {f"/{n}": leads_to(f"/{n + 1}") for n in range(5)}
    server.files["/3"] = CONTENT
    with connection() as by:
        assert fetch(by, asked(server.url("/a"))) == CONTENT
        with pytest.raises(DoorFault, match="in a circle"):
            fetch(by, asked(server.url("/b")))
        with pytest.raises(DoorFault, match="more than 3 times"):
            fetch(by, asked(server.url("/0")))
        del server.odd["/3"]
        assert fetch(by, asked(server.url("/0"))) == CONTENT, "three are followed"


def test_a_token_never_goes_from_https_to_http(server: UrlServer, tmp_path: Path) -> None:
    cert = self_signed(tmp_path / "door.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert)
    trusting = ssl.create_default_context(cafile=str(cert))
    with serving(UrlServer({"/f": CONTENT}, tls=context)) as secure:
        secure.odd["/f"] = leads_to(server.url("/f"))
        with UrlConnection(lambda: trusting, stall_s=1) as by:
            assert fetch(by, asked(secure.url("/f"), token=TOKEN, redirects=(HERE,))) == CONTENT
        assert secure.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert "authorization" not in server.asked[0].headers
        with connection() as by, pytest.raises(DoorFault, match="certificate does not fit") as caught:
            fetch(by, asked(secure.url("/f")))
        assert caught.value.failure_class == "auth"


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "-", "[::1]:1", "."])
def test_what_is_no_host_cannot_be_reached(host: str) -> None:
    with connection() as by, pytest.raises(DoorFault):
        fetch(by, asked(f"http://{host}/f"))


@given(st.text(max_size=60), st.text(alphabet="http:/[].@?#%a1*\\ é", max_size=40))
def test_no_address_is_too_odd_to_be_judged(base: str, location: str) -> None:
    for url in (base, location, _joined(f"http://{HERE}/f", location), _joined(base, location)):
        place = Place.of(url)
        assert place is None or (url.isascii() and url.isprintable() and place.host)


@given(st.binary(max_size=200), st.sampled_from([b"HTTP/1.1 206 X\r\n", b"HTTP/1.1 302 X\r\nLocation: ", b""]))
def test_no_head_is_too_odd_to_be_judged(rest: bytes, begins: bytes) -> None:
    with contextlib.suppress(BadHead):
        answer = parse_url_answer(begins + rest.replace(heads.END, b"") + heads.END)
        assert 100 <= answer.status <= 999


def test_nobody_listens() -> None:
    with contextlib.closing(connection()) as by, pytest.raises(DoorFault, match="cannot be reached") as caught:
        fetch(by, asked(f"http://{HERE}:1/f"))
    assert (caught.value.failure_class, caught.value.is_final) == ("transient", False)
