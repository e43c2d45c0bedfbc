"""Files by URL, from servers of another make and from a store: both sides of the carrier, without Kafka."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streams.core import records as m
from streams.core.channel import DOOR, URLS
from streams.core.names import Site
from streams.core.path_rules import PathRules
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import ChunksRequested, FailureClass, SourceFailed, UrlsOffered
from streams.planes.carriers.door import by_url, pulls
from streams.planes.carriers.door import offers as offers_module
from streams.settings.doors import HttpDoor
from streams.storage import open_endpoint
from tests.certificates import self_signed
from tests.doors.conftest import HERE
from tests.doors.url_server import Behave, UrlServer, gives_all, hangs, head, leads_to, range_of, says, serving
from tests.planes.stage import A, open_order
from tests.planes.test_door_carrier import MIB, Ways, wait
from tests.storage.s3_server import Server

TOKEN = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"


@pytest.fixture
def web() -> Iterator[UrlServer]:
    with serving(UrlServer({})) as running:
        yield running


@pytest.fixture
def ways_of(tmp_path: Path, web: UrlServer) -> Iterator[Callable[..., Ways]]:
    """`ways_of(sizes…, …)`: without a door of its own, and with one of another make at `web` unless told otherwise."""
    with contextlib.ExitStack() as stack:

        def made(*sizes: int, **how: Any) -> Ways:
            door = HttpDoor("web", web.url("/export/"), how.pop("token_file", None), how.pop("redirects", ()))
            ways = Ways(tmp_path, sizes, **{"door_host": "", "opens": False, "http_doors": (door,), **how})
            stack.callback(ways.close)
            web.files = {f"/export{lfn}": content for lfn, content in ways.files.items()}
            return ways

        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "RETRIES_S", (0.01, 0.01, 0.01))


def asked(ways: Ways, number: int = 1, ranges: Ranges | None = None) -> ChunksRequested:
    return replace(ways.request(number, ranges), capability=m.READS_URLS)


def offers(ways: Ways, request: ChunksRequested) -> list[UrlsOffered]:
    """What the source answers, up to its word that this is all."""
    known, served = len(ways.said), len(ways.served())
    ways.source.serve(request)
    wait(lambda: len(ways.served()) > served, ways.said)
    return [one for one in ways.said[known:] if isinstance(one, UrlsOffered)]


def cross(ways: Ways, number: int = 1) -> list[UrlsOffered]:
    found = offers(ways, asked(ways, number))
    for offer in found:
        ways.destination.offered(offer)
    return found


def failure(ways: Ways) -> SourceFailed:
    wait(ways.failed, ways.told)
    return ways.failed()[0]


def test_files_cross_by_the_urls_of_a_door_of_another_make(ways_of: Callable[..., Ways], web: UrlServer) -> None:
    ways = ways_of(20 * MIB + 3, 0, 5_000, *[100] * 200)
    (offer,) = cross(ways)
    assert (offer.source, offer.request_no, offer.ranges, offer.token) == (A, 1, ways.whole, "")
    assert offer.urls[0] == m.ItemUrl(0, web.url("/export/data/f0000"))
    ways.wait_whole()
    assert not ways.failed()
    assert web.connections <= pulls.OF_LINK
    assert not web.ahead, "XRootD would answer the first of them"
    (served,) = ways.served()
    assert (served.plane, served.ranges, served.bytes) == (URLS, ways.whole, 0)
    assert ways.source.address == web.url("/export/")


def test_who_does_not_say_that_he_reads_urls_gets_none(ways_of: Callable[..., Ways], web: UrlServer) -> None:
    ways = ways_of(1_000)
    (refused,) = ways.ask(ways.request())
    assert refused.reason is not None
    assert refused.reason.text == "T1_A has no open door"
    assert not web.asked


def unversioned(request: ChunksRequested) -> ChunksRequested:
    """As who is not the manifest's holder is asked."""
    return replace(request, items=tuple(replace(item, version="") for item in request.items))


def test_another_holder_gives_what_it_has(ways_of: Callable[..., Ways], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers_module, "EARLY_S", 0.1)
    ways = ways_of(1_000, 2_000)
    request = unversioned(asked(ways))
    (offer,) = offers(ways, request)
    assert [url.item for url in offer.urls] == [0, 1]
    (ways.root_a / "data/f0000").unlink()
    (given, gone) = offers(ways, replace(request, request_no=2))
    assert [url.item for url in given.urls] == [1]
    assert [(group.items, group.reason.failure_class) for group in gone.failed] == [
        (Ranges.of(0), FailureClass.PERMANENT)
    ]


def test_what_is_on_its_way_is_not_given_by_url(ways_of: Callable[..., Ways]) -> None:
    ways = ways_of(1_000)
    for _ in ways.at_source.begin(open_order(ways.body)) or ():
        pass
    (refused,) = ways.ask(unversioned(asked(ways)))
    assert refused.reason is not None
    assert refused.reason.text == "T1_A has no open door"
    assert offers(ways, asked(ways, 2)), "its own version is here"


def test_a_site_with_both_gives_by_url_to_who_reads_them(ways_of: Callable[..., Ways], web: UrlServer) -> None:
    ways = ways_of(1_000, door_host=HERE, opens=True)
    wait(lambda: not ways.source.address.endswith("/"), "its own is announced once it is open")
    (offer,) = offers(ways, asked(ways, 1))
    assert offer.urls
    (own,) = ways.ask(ways.request(2))
    assert own.doors


def test_a_part_of_a_file_is_asked_for_as_that(ways_of: Callable[..., Ways], web: UrlServer) -> None:
    ways = ways_of(1_000, 2_000)
    for offer in offers(ways, asked(ways, 1, Ranges([(500, 1_500)]))):
        ways.destination.offered(offer)
    wait(lambda: len(web.asked) == 2, web.asked)
    assert sorted((one.path, one.span) for one in web.asked) == [
        ("/export/data/f0000", (500, 1_000)),
        ("/export/data/f0001", (0, 500)),
    ]


def test_what_is_not_there_as_it_was_is_said_and_the_rest_offered(ways_of: Callable[..., Ways]) -> None:
    ways = ways_of(1_000, 2_000, 3_000, 4_000)
    (ways.root_a / "data/f0001").unlink()
    (ways.root_a / "data/f0002").write_bytes(os.urandom(3_000))
    given, gone = cross(ways)
    assert [url.item for url in given.urls] == [0, 3]
    assert [(group.items, group.reason.failure_class) for group in gone.failed] == [
        (Ranges.of(2), FailureClass.DATA_BAD),
        (Ranges.of(1), FailureClass.PERMANENT),
    ]
    assert given.ranges | gone.ranges == ways.whole
    assert ways.served()[0].ranges == given.ranges
    told = [one for one in ways.told if isinstance(one, m.TransferProgress)]
    wait(lambda: [one for one in ways.told if isinstance(one, m.TransferProgress) and one.sealed], told)
    (*_, last) = [one for one in ways.told if isinstance(one, m.TransferProgress)]
    assert last.sealed == Ranges.of(0, 3)
    assert sorted(group.items.spans for group in last.failed) == [((1, 2),), ((2, 3),)]


def test_what_another_destination_does_not_have_the_holder_may(ways_of: Callable[..., Ways]) -> None:
    ways = ways_of(1_000, 2_000)
    (ways.root_a / "data/f0001").unlink()
    _, gone = offers(ways, asked(ways))
    ways.destination.offered(replace(gone, source=Site("T3_C")))
    failed = failure(ways)
    assert (failed.source, failed.items) == ("T3_C", Ranges.of(1))
    assert failed.reason.failure_class is FailureClass.TRANSIENT
    assert not [one for one in ways.told if isinstance(one, m.TransferProgress) and one.failed]


@pytest.mark.parametrize("odd", [m.ItemUrl(1, "http://h:99999/f"), m.ItemUrl(2, "http://h/f")])
def test_an_offer_of_what_is_nowhere_is_none(ways_of: Callable[..., Ways], web: UrlServer, odd: m.ItemUrl) -> None:
    ways = ways_of(1_000, 2_000)
    (offer,) = offers(ways, asked(ways))
    ways.destination.offered(replace(offer, urls=(offer.urls[0], odd)))
    failed = failure(ways)
    assert (failed.items, failed.reason.failure_class) == (EMPTY, FailureClass.PERMANENT)
    assert "names no address of item" in failed.reason.text
    assert not web.asked


def test_a_token_is_read_anew_for_each_offer(ways_of: Callable[..., Ways], web: UrlServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    ways = ways_of(1_000, token_file=file)
    ways.source.serve(asked(ways, 1))
    wait(ways.offers, ways.said)
    reason = ways.offers()[0].reason
    assert reason is not None
    assert reason.failure_class is FailureClass.AUTH
    assert "the token of the door web cannot be read: No such file" in reason.text
    assert str(tmp_path) not in reason.text
    for number, token in enumerate((TOKEN, "second"), 2):
        file.write_text(f"{token}\n")
        (offer,) = offers(ways, asked(ways, number))
        assert offer.token == token
    ways.destination.offered(offer)
    ways.wait_whole()
    assert {one.headers["authorization"] for one in web.asked} == {"Bearer second"}
    file.write_text("two words")
    known = len(ways.offers())
    ways.source.serve(asked(ways, 4))
    wait(lambda: len(ways.offers()) > known, ways.said)
    assert "is no bearer token" in str(ways.offers()[-1].reason)


def test_redirects_and_token_are_the_sources_words(
    ways_of: Callable[..., Ways], web: UrlServer, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    ways = ways_of(1_000, 2_000, token_file=tmp_path / "token", redirects=("localhost",))
    with serving(UrlServer(dict(web.files))) as pool:
        web.odd |= {path: leads_to(f"http://localhost:{pool.port}{path}") for path in web.files}
        cross(ways)
        ways.wait_whole()
        assert {one.headers["authorization"] for one in (*web.asked, *pool.asked)} == {f"Bearer {TOKEN}"}
        assert len(pool.asked) == 2


@pytest.mark.parametrize("is_believed", [True, False])
def test_certificates_of_servers_are_looked_at(ways_of: Callable[..., Ways], tmp_path: Path, is_believed: bool) -> None:
    certificate = self_signed(tmp_path / "web.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with serving(UrlServer({}, tls=context)) as secure:
        door = HttpDoor("web", secure.url("/export/"))
        ways = ways_of(1_000, http_doors=(door,), door_ca=certificate if is_believed else None)
        secure.files = {f"/export{lfn}": content for lfn, content in ways.files.items()}
        cross(ways)
        if is_believed:
            ways.wait_whole()
        else:
            assert failure(ways).reason.failure_class is FailureClass.AUTH
            assert "certificate does not fit" in failure(ways).reason.text


def test_an_offer_never_outgrows_a_record(ways_of: Callable[..., Ways], monkeypatch: pytest.MonkeyPatch) -> None:
    from streams import wire

    monkeypatch.setattr(by_url, "OFFER_BYTES", 2_000)
    ways = ways_of(*[100] * 100)
    found = cross(ways)
    assert len(found) == 3
    assert max(len(wire.encode(offer)) for offer in found) < 3_000
    ranges = EMPTY
    for offer in found:
        assert not ranges & offer.ranges
        ranges = ranges | offer.ranges
    assert ranges == ways.whole
    ways.wait_whole()
    assert not ways.failed(), "the second does not end the first"


def test_a_request_told_again_is_offered_again_and_goes_on_where_it_is(
    ways_of: Callable[..., Ways], web: UrlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its source's plane ended before its word was in the log. What is signed anew is another URL of the same."""
    ways = ways_of(30 * MIB, 5_000)
    (first,) = offers(ways, asked(ways))
    (again,) = offers(ways, asked(ways))
    assert again.urls == first.urls
    real, came = ways.destination.take_line, list[int]()

    def counted(key: bytes, giver: Any, start: int, view: memoryview, **more: Any) -> bool:
        came.append(view.nbytes)
        return real(key, giver, start, view, **more)

    def slowly(made: Any, one: Any) -> bool:
        start, stop = one.span
        content = web.files[one.path]
        made.sendall(head(206, stop - start, f"bytes {start}-{stop - 1}/{len(content)}"))
        for at in range(start, stop, MIB):
            made.sendall(content[at : min(at + MIB, stop)])
            time.sleep(0.02)
        return True

    web.odd["*"] = slowly
    monkeypatch.setattr(ways.destination, "take_line", counted)
    ways.destination.offered(first)
    wait(lambda: sum(came) > 8 * MIB, came)
    urls = tuple(replace(one, url=f"{one.url}?signed=anew") for one in again.urls)
    ways.destination.offered(replace(again, urls=urls))
    ways.wait_whole()
    assert not ways.failed()
    assert {"?" in one.target for one in web.asked} == {False, True}
    assert sum(came) <= ways.whole.size + pulls.OF_LINK * MIB, "but for what was on its way"


def test_each_request_is_answered_with_another_door(tmp_path: Path, ways_of: Callable[..., Ways]) -> None:
    doors = (HttpDoor("a", "http://a/"), HttpDoor("b", "http://b/x/"))
    ways = ways_of(1_000, http_doors=doors)
    urls = [offers(ways, asked(ways, number))[0].urls[0].url for number in (1, 2, 3)]
    assert urls == ["http://b/x/data/f0000", "http://a/data/f0000", "http://b/x/data/f0000"]


def test_names_are_quoted_in_urls(ways_of: Callable[..., Ways], web: UrlServer) -> None:
    from streams.core.names import Lfn

    ways = ways_of(1_000)
    odd = Lfn("/data/a+b=c.root")
    (ways.root_a / odd[1:]).write_bytes(b"x" * 1_000)
    request = asked(ways)
    items = (replace(request.items[0], lfn=odd, version=ways.endpoint_a.stat(odd).version),)
    (offer,) = offers(ways, replace(request, items=items))
    assert offer.urls[0].url == web.url("/export/data/a%2Bb%3Dc.root")


def test_a_url_is_of_where_the_file_lies(ways_of: Callable[..., Ways], web: UrlServer) -> None:
    """A storage whose rules put names elsewhere: the URL is that of its root, and goes on as names on the disk do."""
    ways = ways_of(1_000)
    rules = PathRules.configured([{"lfn": "/data/(.*)", "pfn": f"{ways.root_a}/mc/$1"}])
    (ways.root_a / "mc").mkdir()
    (ways.root_a / "mc/f0000").write_bytes(ways.files["/data/f0000"])
    with open_endpoint(f"file://{ways.root_a}", rules=rules) as endpoint:
        request = asked(ways)
        item = replace(request.items[0], version=endpoint.stat("/data/f0000").version)
        (offer,) = (
            by_url.UrlOffers(ways.settings, endpoint).of(replace(request, items=(item,)), 0, is_landing=False) or ()
        )
    assert offer.urls[0].url == web.url("/export/mc/f0000")


# what goes wrong


@pytest.mark.parametrize(
    ("behave", "said", "failure_class"),
    [
        (gives_all(b"x" * 1_000), "200 where a range was asked for", FailureClass.PERMANENT),
        (gives_all(b"<html>sorry</html>"), "200 where a range was asked for", FailureClass.PERMANENT),
        (range_of(b"x" * 1_000, shift=1), "where [0, 1000) was asked for", FailureClass.TRANSIENT),
        (says(head(206, 1_000, "bytes 0-999/1000")), "in the middle of a range", FailureClass.TRANSIENT),
        (range_of(b"x" * 1_000, more=1), "1001 bytes", FailureClass.TRANSIENT),
        (range_of(b"x" * 1_000, total=1_001), "another file: 1,001 bytes", FailureClass.DATA_BAD),
        (leads_to("http://evil.example.org/"), "none of its [doors] redirects", FailureClass.PERMANENT),
        (leads_to("/export/data/f0000"), "in a circle", FailureClass.PERMANENT),
        (says(head(401, 0)), "answers 401", FailureClass.AUTH),
        (says(head(404, 0)), "answers 404", FailureClass.PERMANENT),
        (says(head(503, 0)), "answers 503", FailureClass.TRANSIENT),
    ],
)
def test_a_door_that_misbehaves_fails_itself_and_no_file(
    ways_of: Callable[..., Ways], web: UrlServer, behave: Behave, said: str, failure_class: FailureClass
) -> None:
    ways = ways_of(1_000)
    web.odd["*"] = behave
    cross(ways)
    failed = failure(ways)
    assert said in failed.reason.text
    assert (failed.plane, failed.items, failed.request_no) == (DOOR, EMPTY, 1)
    assert failed.reason.failure_class is failure_class
    assert not [one for one in ways.told if isinstance(one, m.TransferProgress) and one.sealed]
    web.odd.clear()
    if "200" not in said:  # asked again it gives it, under another number
        cross(ways, 2)
        ways.wait_whole()


def test_a_door_that_hangs_is_left(ways_of: Callable[..., Ways], web: UrlServer) -> None:
    ways = ways_of(1_000)
    ways.fetching._pulls._stall_s = 0.3
    web.odd["*"] = hangs
    began_s = time.monotonic()
    cross(ways)
    assert "does not answer" in failure(ways).reason.text
    assert time.monotonic() - began_s < 6


def test_a_door_that_knows_no_ranges_is_not_asked_again(ways_of: Callable[..., Ways], web: UrlServer) -> None:
    ways = ways_of(1_000)
    web.odd["*"] = gives_all(b"x" * 1_000)
    cross(ways, 1)
    assert failure(ways).request_no == 1
    times = len(web.asked)
    web.odd.clear()
    cross(ways, 2)
    wait(lambda: len(ways.failed()) == 2, ways.told)
    assert ways.failed()[1].request_no == 2
    assert "gives no ranges, and is not asked again" in ways.failed()[1].reason.text
    assert len(web.asked) == times
    ways.fetching._pulls._no_ranges.clear()  # an hour later
    cross(ways, 3)
    ways.wait_whole()


def test_a_door_that_gives_another_file_is_found_out_at_the_seal(ways_of: Callable[..., Ways], web: UrlServer) -> None:
    ways = ways_of(100_000, 5_000)
    web.files["/export/data/f0001"] = os.urandom(5_000)
    cross(ways)
    failed = failure(ways)
    assert (failed.items, failed.reason.phase, failed.plane) == (Ranges.of(1), "seal", DOOR)
    assert "checksum differs" in failed.reason.text
    assert not (ways.root_b / "data/f0001").exists()


def test_a_door_without_sums_brings_all_of_what_was_left_of_an_attempt(
    ways_of: Callable[..., Ways], web: UrlServer
) -> None:
    ways = ways_of(9 * MIB)
    right = dict(web.files)
    web.files["/export/data/f0000"] = os.urandom(9 * MIB)
    cross(ways)
    assert failure(ways).reason.phase == "seal"
    wait(lambda: [one for one in ways.told if isinstance(one, m.PartLost)], ways.told)
    web.files = right
    for _ in ways.destination.begin(open_order(ways.body, 2)) or ():
        pass
    cross(ways, 2)
    ways.wait_whole()


def test_it_goes_on_where_it_was_when_a_door_breaks_off(ways_of: Callable[..., Ways], web: UrlServer) -> None:
    ways = ways_of(8 * MIB)
    left = [3]

    def breaks_off(made: Any, one: Any) -> bool:
        if not left[0]:
            return web.gives(made, one)
        left[0] -= 1
        content = web.files[one.path]
        start, stop = one.span
        made.sendall(head(206, stop - start, f"bytes {start}-{stop - 1}/{len(content)}"))
        made.sendall(content[start : start + 2 * MIB])
        return False

    web.odd["*"] = breaks_off
    cross(ways)
    ways.wait_whole()
    assert sorted(one.span[0] for one in web.asked) == [0, 2 * MIB, 4 * MIB, 6 * MIB]
    assert not ways.failed()


# stores


@pytest.fixture(scope="module")
def store_server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def keys_of(store_server: Server, ways_of: Callable[..., Ways]) -> Callable[..., Ways]:
    """`keys_of(sizes…)`: keys of a store that gives them directly."""

    def made(*sizes: int, **how: Any) -> Ways:
        store = replace(store_server.store(), direct=how.pop("direct", True))
        found = {f"{store.base}/run/k{n}.root": os.urandom(size) for n, size in enumerate(sizes)}
        store_server.put({store.key(lfn): content for lfn, content in found.items()})
        return ways_of(**{"http_doors": (), "stores": (store,), "keys": found, **how})

    return made


def test_keys_cross_from_their_store(keys_of: Callable[..., Ways], store_server: Server) -> None:
    ways = keys_of(9 * MIB, 1_000, 3)
    (offer,) = cross(ways)
    assert offer.token == ""
    for url, item in zip(offer.urls, ways.body.items, strict=True):
        assert url.url.startswith(f"{store_server.url}/raw/run/k{url.item}.root?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
        assert "X-Amz-SignedHeaders=host%3Bif-match" in url.url
        assert item.version.endswith(f":{url.etag}")
    ways.wait_whole()
    assert not ways.failed()
    assert ways.source.address == f"{store_server.url}/"


def test_a_store_that_is_not_named_as_direct_gives_no_urls(keys_of: Callable[..., Ways]) -> None:
    ways = keys_of(1_000, direct=False)
    assert ways.source.address == ""
    (refused,) = ways.ask(asked(ways))
    assert refused.reason is not None


def test_a_key_that_was_replaced_is_its_items_fault(keys_of: Callable[..., Ways], store_server: Server) -> None:
    ways = keys_of(1_000, 2_000)
    (store,) = ways.settings.stores
    store_server.put({store.key(ways.body.items[0].lfn): os.urandom(1_000)})
    cross(ways)
    wait(lambda: any(isinstance(one, m.TransferProgress) and one.failed for one in ways.told), ways.told)
    (*_, last) = [one for one in ways.told if isinstance(one, m.TransferProgress)]
    (group,) = last.failed
    assert (group.items, group.reason.failure_class) == (Ranges.of(0), FailureClass.DATA_BAD)
    assert "another ETag" in group.reason.text
    wait(lambda: (ways.root_b / ways.body.items[1].lfn[1:]).exists(), ways.told)


def test_a_store_that_answers_503_fails_the_request_alone(keys_of: Callable[..., Ways], web: UrlServer) -> None:
    web.odd["*"] = says(head(503, 0))
    ways = keys_of(1_000)
    (offer,) = offers(ways, asked(ways))
    urls = tuple(replace(one, url=web.url("/raw/k?X-Amz-Signature=ab")) for one in offer.urls)
    ways.destination.offered(replace(offer, urls=urls))
    failed = failure(ways)
    assert (failed.items, failed.reason.failure_class) == (EMPTY, FailureClass.TRANSIENT)
    assert "answers 503" in failed.reason.text
    assert "X-Amz" not in failed.reason.text


def test_files_and_keys_of_one_request_come_from_two_servers(
    keys_of: Callable[..., Ways], web: UrlServer, tmp_path: Path
) -> None:
    """And the door's token goes to its own."""
    (tmp_path / "token").write_text(TOKEN)
    door = HttpDoor("web", web.url("/export/"), tmp_path / "token", ("*.pool.example.org",))
    ways = keys_of(1_000, http_doors=(door,))
    assert ways.source.address == web.url("/export/")
    (offer,) = cross(ways)
    assert (offer.token, offer.redirects) == ("", ()), "of keys alone too"
    ways.wait_whole()
    mixed = asked(ways)
    (tmp_path / "a/data").mkdir()
    content = os.urandom(500)
    (tmp_path / "a/data/plain").write_bytes(content)
    from streams.core.names import Lfn

    version = ways.endpoint_a.stat("/data/plain").version
    plain = replace(mixed.items[0], no=1, lfn=Lfn("/data/plain"), start=1_000, length=500, version=version)
    both = replace(mixed, items=(*mixed.items, plain), ranges=Ranges([(0, 1_500)]))
    of_door, of_store = offers(ways, replace(both, request_no=2))
    assert (of_door.token, of_door.redirects) == (TOKEN, door.redirects)
    assert [url.url for url in of_door.urls] == [web.url("/export/data/plain")]
    assert (of_store.token, of_store.redirects) == ("", ())
    assert [url.url.partition("?")[0].rpartition("/")[2] for url in of_store.urls] == ["k0.root"]
    assert (of_door.ranges, of_store.ranges) == (Ranges([(1_000, 1_500)]), Ranges([(0, 1_000)]))


def test_a_key_of_which_no_condition_can_be_made_is_no_file_of_the_door(
    keys_of: Callable[..., Ways], web: UrlServer
) -> None:
    ways = keys_of(1_000, http_doors=(HttpDoor("web", web.url("/export/")),))
    request = asked(ways)
    weak = replace(request.items[0], version='1000:W/"weak"')
    (refused,) = ways.ask(replace(request, items=(weak,)))
    assert refused.reason is not None
