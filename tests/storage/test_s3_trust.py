"""Stores whose certificate is refused, and stores that hang: said as what they are, in a bounded time."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.core.store_names import Store
from streams.errors import StorageError
from streams.storage import s3_client
from streams.storage.s3 import S3Files
from tests.certificates import self_signed

CONTENT = bytes(range(256)) * 4096
LFN = "/store/s3/odd/x"
VERSION = f"{len(CONTENT)}:abc"
CHECK = "check ca_file and url of [stores.odd]"


class Keys(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(206)
        self.send_header("etag", '"abc"')
        self.send_header("content-length", str(len(CONTENT)))
        self.send_header("content-range", f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: Any) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True
    taken = 0

    def get_request(self) -> Any:
        self.taken += 1
        return super().get_request()

    def handle_error(self, *_: object) -> None:
        pass  # clients that trust nobody hang up


@pytest.fixture(autouse=True)
def long_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found once stays found, however slow the machine is."""
    monkeypatch.setattr(s3_client, "AWAY_S", 100.0)


@contextmanager
def serving(handler: type[Any] = Keys, certificate: Path | None = None) -> Iterator[Quiet]:
    """A server of keys, over TLS where it has a certificate (with its key in the same file)."""
    with Quiet(("127.0.0.1", 0), handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def files_of(server: Quiet, scheme: str = "https", ca_file: Path | None = None) -> S3Files:
    return S3Files(
        Store("odd", f"{scheme}://127.0.0.1:{server.server_port}", "raw", ca_file=str(ca_file) if ca_file else "")
    )


def fails(files: S3Files) -> tuple[str, str]:
    with pytest.raises(StorageError) as error, files.open_reader(LFN, VERSION) as reader:
        reader.pread(0, 10)
    assert "127.0.0.1" not in str(error.value)
    return error.value.failure_class, str(error.value)


@pytest.mark.parametrize(
    ("address", "days", "trusted", "words"),
    [
        ("127.0.0.1", 1, False, "self-signed certificate"),
        ("127.0.0.2", 1, True, "it is for another host"),
        ("127.0.0.1", -1, True, "certificate has expired"),
    ],
)
def test_a_refused_certificate_is_said_and_not_tried_again(
    tmp_path: Path, address: str, days: int, trusted: bool, words: str
) -> None:
    certificate = self_signed(tmp_path / "store.pem", address, days)
    with serving(certificate=certificate) as server:
        files = files_of(server, ca_file=certificate if trusted else None)
        for _ in range(20):  # the items of a request
            kind, told = fails(files)
            assert kind == "auth"
            assert told == f"the store odd is not trusted: its certificate is refused: {words} ({LFN}); {CHECK}"
        assert server.taken == 1
        with pytest.raises(StorageError, match="its certificate is refused"):
            list(files.find_keys("s3://odd/*", lambda where, why: None))
        files.close()


def test_a_store_whose_certificate_is_trusted_is_read(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path / "store.pem")
    with serving(certificate=certificate) as server:
        files = files_of(server, ca_file=certificate)
        with files.open_reader(LFN, VERSION) as reader:
            assert reader.pread(1000, 5000) == CONTENT[1000:6000]
        files.close()


def test_trust_that_cannot_be_read(tmp_path: Path) -> None:
    with serving(certificate=self_signed(tmp_path / "store.pem")) as server:
        files = files_of(server, ca_file=tmp_path / "nowhere.pem")
        kind, told = fails(files)
        assert (kind, told) == (
            "auth",
            f"the store odd is not trusted: its ca_file cannot be read: FileNotFoundError ({LFN}); {CHECK}",
        )
        files.close()


def test_a_store_that_speaks_no_tls() -> None:
    with serving() as server:
        files = files_of(server)
        kind, told = fails(files)
        assert kind == "permanent"
        assert "does not speak TLS as we do" in told
        files.close()


def test_a_server_that_hangs_up_in_the_handshake_may_come_back() -> None:
    class HangsUp(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.rfile.read(10)

    with serving(HangsUp) as server:
        files = files_of(server)
        assert fails(files)[0] == "transient"
        files.close()


# stores that hang


def test_a_store_that_takes_connections_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tries in each of three reads would be nine times as long."""
    monkeypatch.setattr(s3_client, "ATTEMPT_S", 1.0)
    monkeypatch.setattr(s3_client, "READ_S", 0.4)
    released = threading.Event()

    class Silent(Keys):
        def do_GET(self) -> None:
            released.wait(30)

    with serving(Silent) as server:
        files = files_of(server, "http")
        for _ in range(20):
            assert fails(files) == ("transient", f"the store odd cannot be reached: no answer within 1 s ({LFN})")
        assert server.taken in (1, 2), "as many tries as the second has, for all that is asked"
        released.set()
        files.close()


@pytest.mark.parametrize("goes_on", [True, False], ids=["drips", "stops"])
def test_an_answer_that_comes_too_slowly_has_an_end(monkeypatch: pytest.MonkeyPatch, goes_on: bool) -> None:
    monkeypatch.setattr(s3_client, "ATTEMPT_S", 0.3 if goes_on else 20.0)
    monkeypatch.setattr(s3_client, "READ_S", 20.0 if goes_on else 0.2)
    monkeypatch.setattr(s3_client, "SLOWEST_BYTES_S", 8 * len(CONTENT))
    released = threading.Event()

    class Slow(Keys):
        def do_GET(self) -> None:
            self.send_response(206)
            self.send_header("etag", '"abc"')
            self.send_header("content-length", str(len(CONTENT)))
            self.send_header("content-range", f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.end_headers()
            self.wfile.write(b"x")
            while not released.wait(0.05):
                if goes_on:
                    self.wfile.write(b"x")

    with serving(Slow) as server:
        files = files_of(server, "http")
        kind, told = fails(files)
        assert kind == "transient"
        assert ("sends too slowly" if goes_on else "no answer within") in told
        assert fails(files) == (kind, told), "not asked again at once"
        assert server.taken == 1
        released.set()
        files.close()
