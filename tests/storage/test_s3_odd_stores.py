"""Stores that answer oddly: an HTTP server that does one wrong thing at a time, as gateways, proxies and outages do."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streams.core.store_names import Store
from streams.errors import StorageError
from streams.storage.s3 import BLOCK_BYTES, S3Files

CONTENT = bytes(range(256)) * 4096
LFN = "/store/s3/odd/x"
VERSION = f"{len(CONTENT)}:abc"

Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OddStore

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers))
        self.server.answers.pop(0)(self) if len(self.server.answers) > 1 else self.server.answers[0](self)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class OddStore(http.server.ThreadingHTTPServer):
    """Its answers one after the other, the last for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.asked: list[dict[str, str]] = []


@pytest.fixture
def odd() -> Iterator[OddStore]:
    with OddStore() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def files(odd: OddStore) -> Iterator[S3Files]:
    made = S3Files(Store("odd", f"http://127.0.0.1:{odd.server_port}", "raw"))
    yield made
    made.close()


def good(handler: Handler, etag: str = '"abc"') -> None:
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers["range"])
    assert asked
    start, last = int(asked[1]), int(asked[2])
    body = CONTENT[start : last + 1]
    handler.say(206, body, etag=etag, content_range=f"bytes {start}-{last}/{len(CONTENT)}")


def status(code: int, body: bytes = b"") -> Answer:
    return lambda handler: handler.say(code, body)


def cut_off(handler: Handler) -> None:
    last = len(CONTENT) - 1
    handler.say(
        206, CONTENT[:1000], content_length=str(len(CONTENT)), etag='"abc"', content_range=f"bytes 0-{last}/{last + 1}"
    )
    handler.close_connection = True


def fails(files: S3Files, *, version: str = VERSION, at: int = 0) -> tuple[str, str]:
    with pytest.raises(StorageError) as error, files.open_reader(LFN, version) as reader:
        reader.pread(at, 10)
    return error.value.failure_class, str(error.value)


def test_an_outage_of_a_moment_is_not_noticed(odd: OddStore, files: S3Files) -> None:
    odd.answers = [status(503), status(500), cut_off, good]
    with files.open_reader(LFN, VERSION) as reader:
        assert reader.pread(3, 500) == CONTENT[3:503]
    assert [asked["if-match"] for asked in odd.asked] == ['"abc"'] * 4


def test_a_longer_outage_is_transient_and_asked_of_the_store_once(odd: OddStore, files: S3Files) -> None:
    odd.answers = [status(503, b"<Error><Code>SlowDown</Code></Error>")]
    for _ in range(20):
        kind, told = fails(files)
        assert (kind, told) == ("transient", f"the store odd cannot answer now: 503 SlowDown ({LFN})")
    assert len(odd.asked) == 3


def test_a_connection_that_always_breaks_is_transient(odd: OddStore, files: S3Files) -> None:
    odd.answers = [cut_off]
    assert fails(files) == ("transient", f"the store odd ended its answer early ({LFN})")


def test_an_answer_that_does_not_come(odd: OddStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.storage.s3_client.ATTEMPT_S", 0.2)
    released = threading.Event()
    odd.answers = [lambda handler: bool(released.wait(20)) and None]
    files = S3Files(Store("odd", f"http://127.0.0.1:{odd.server_port}", "raw"))
    assert fails(files) == ("transient", f"the store odd cannot be reached: no answer within 0.2 s ({LFN})")
    released.set()
    files.close()


def test_a_store_without_ranges_serves_small_keys_only(odd: OddStore, files: S3Files) -> None:
    odd.answers = [lambda handler: handler.say(200, CONTENT, etag='"abc"')]
    with files.open_reader(LFN, VERSION) as reader:
        assert reader.pread(len(CONTENT) - 9, 9) == CONTENT[-9:]
    large = 4 * BLOCK_BYTES
    odd.answers = [lambda handler: handler.say(200, b"never read", content_length=str(large), etag='"abc"')]
    kind, told = fails(files, version=f"{large}:abc", at=BLOCK_BYTES)
    assert kind == "permanent"
    assert "does not give the range asked for" in told


def test_a_change_is_seen_where_if_match_is_not_known(odd: OddStore, files: S3Files) -> None:
    odd.answers = [lambda handler: good(handler, '"other"')]
    assert fails(files) == ("data-bad", f"the key has changed since it was registered ({LFN})")
    odd.answers = [lambda handler: handler.say(206, b"x" * 20, content_range="bytes 0-19/20")]
    assert fails(files)[0] == "data-bad"
    odd.answers = [status(416)]
    assert fails(files)[0] == "data-bad"


def test_a_weak_etag_is_compared_by_us(odd: OddStore, files: S3Files) -> None:
    odd.answers = [lambda handler: good(handler, 'W/"abc"')]
    with files.open_reader(LFN, f'{len(CONTENT)}:W/"abc') as reader:
        assert reader.pread(0, 10) == CONTENT[:10]
    assert "if-match" not in odd.asked[0]


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (301, b"<Error><Code>PermanentRedirect</Code></Error>", "permanent"),
        (400, b"<Error><Code>ExpiredToken</Code></Error>", "auth"),
        (400, b"<Error><Code>RequestTimeout</Code></Error>", "transient"),
        (403, b"<Error><Code>InvalidObjectState</Code></Error>", "permanent"),
        (403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>", "auth"),
        (429, b"", "transient"),
        (404, b"<html>secret path</html>", "permanent"),
    ],
)
def test_every_refusal_has_its_class(odd: OddStore, files: S3Files, code: int, body: bytes, kind: str) -> None:
    odd.answers = [status(code, body)]
    found, told = fails(files)
    assert found == kind
    assert "secret" not in told
    assert len(odd.asked) == (3 if kind == "transient" else 1)


BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">
<!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;">
]><ListBucketResult>&e;</ListBucketResult>"""


@pytest.mark.parametrize(
    "page",
    [
        b"not XML",
        BOMB,
        b"<ListBucketResult><Contents><Key>x</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken>"
        b"</ListBucketResult>",
    ],
)
def test_lists_that_are_none(odd: OddStore, files: S3Files, page: bytes) -> None:
    odd.answers = [status(200, page)]
    with pytest.raises(StorageError) as error:
        list(files.find_keys("s3://odd/*", lambda where, why: None))
    assert error.value.failure_class == "permanent"
    assert len(odd.asked) <= 2


def test_a_store_that_tells_no_etag(odd: OddStore, files: S3Files) -> None:
    listed = b"<ListBucketResult><Contents><Key>x</Key><Size>5</Size></Contents></ListBucketResult>"
    odd.answers = [status(200, listed)]
    refused = []
    assert not list(files.find_keys("s3://odd/*", lambda where, why: refused.append(f"{where}: {why}")))
    assert refused == ["s3://odd/x: the store tells no ETag of it, and so not when it changes"]
    odd.answers = [status(200, b"hello")]
    with pytest.raises(StorageError, match="gives no size or no ETag"):
        files.stat(LFN)


def test_one_odd_key_never_ends_a_listing(odd: OddStore, files: S3Files) -> None:
    """Bytes that no XML and no LFN may have, keys without size, keys that stand for directories: the others come."""
    size, rest = b"<Size>5</Size>", b'<ETag>"a"</ETag>'
    rows = [
        (b"one", size),
        (b"bell\x07", size),
        (b"latin-\xe4", size),
        (b"nul&#0;", size),
        (b"surrogate&#xD800;", size),
        (b"no-size", b""),
        (b"a-size-of-two&#178;", "<Size>²</Size>".encode()),
        (b"vast", b"<Size>" + b"9" * 5000 + b"</Size>"),
        (b"directory/", b"<Size>0</Size>"),
        (b"directory/with-bytes/", size),
        (b"", size),
        (b"a" * 2000, size),
        (b"../up", size),
        (b"two", size),
    ]
    page = b"".join(b"<Contents><Key>" + key + b"</Key>" + told + rest + b"</Contents>" for key, told in rows)
    odd.answers = [status(200, b"<ListBucketResult>" + page + b"</ListBucketResult>")]
    refused: list[str] = []
    found = files.find_keys("s3://odd/*", lambda where, why: refused.append(f"{where}: {why}"))
    assert [(str(lfn), stat.bytes) for lfn, stat in found] == [("/store/s3/odd/one", 5), ("/store/s3/odd/two", 5)]
    assert len(refused) == len(rows) - 4, "all but two that come, and two that stand for no file"


def test_a_name_that_is_no_keys_is_one_files_fault(files: S3Files) -> None:
    with pytest.raises(StorageError) as error:
        files.stat("/store/s3/odd/a\nb")
    assert error.value.failure_class == "permanent"
