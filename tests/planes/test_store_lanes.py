"""Stores of one site beside each other: one that hangs delays none of the others, and is said to."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streams.core.channel import LOG
from streams.core.names import IntentId, Lfn, ManifestId
from streams.core.ranges import Ranges
from streams.core.records import ChunkHeader, ChunksRequested, ChunksServed, FailureClass, Message, RequestedItem
from streams.core.store_names import Store
from streams.planes.source.open_files import OpenFileCache
from streams.planes.source.wiring import MIXED, Sources, sources
from streams.storage import open_endpoint, s3_client
from tests.planes.stage import A, B, put, settings_of

KEY = b"k" * 1000


class Keys(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(206)
        for name, value in (("etag", '"e"'), ("content-range", f"bytes 0-{len(KEY) - 1}/{len(KEY)}")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(KEY)

    def log_message(self, *_: Any) -> None:
        pass


class Silent:
    """A store that takes connections and says nothing, until it hangs up."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self._taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                self._taken.append(self.listening.accept()[0])

    def hang_up(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self.listening.close()
        for one in self._taken:
            one.close()
        self._taken.clear()


@pytest.fixture
def silent() -> Iterator[Silent]:
    one = Silent()
    yield one
    with suppress(OSError):
        one.hang_up()


@pytest.fixture
def stores(silent: Silent) -> Iterator[tuple[Store, Store]]:
    """One that answers, and one that is silent."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield (
            Store("good", f"http://127.0.0.1:{server.server_port}", "raw"),
            Store("silent", f"http://127.0.0.1:{silent.listening.getsockname()[1]}", "raw"),
        )
        server.shutdown()
        thread.join()


class Serving:
    """A site's sources over both stores and a directory."""

    def __init__(self, root: Path, stores: tuple[Store, Store]) -> None:
        settings = replace(settings_of(A, {A: "unused", B: "unused"}, root), stores=stores)
        put(root / A / "storage", {"/store/disk": KEY})
        self.endpoint = open_endpoint(settings.endpoint_url, stores=stores)
        self.served: dict[int, float] = {}
        self.segments: dict[int, list[tuple[int, FailureClass | None, str]]] = {}
        self.started_s = time.monotonic()
        self.halves: Sources = sources(settings, self.endpoint, self._keep, self._tell, OpenFileCache())
        self.threads = [threading.Thread(target=one.run, daemon=True) for _, one in self.halves.all()]
        for thread in self.threads:
            thread.start()

    def _keep(self, header: ChunkHeader, payload: bytes, *, wait_s: float = 0.0) -> None:
        said = [
            (s.item, s.reason.failure_class if s.reason else None, s.reason.text if s.reason else "")
            for s in header.segments
        ]
        self.segments.setdefault(header.request_no, []).extend(said)

    def _tell(self, message: Message) -> None:
        assert isinstance(message, ChunksServed)
        self.served[message.request_no] = time.monotonic() - self.started_s

    def ask(self, number: int, *lfns: str) -> None:
        items = tuple(
            RequestedItem(n, Lfn(lfn), n * 1000, 1000, "1000:e" if "/s3/" in lfn else "") for n, lfn in enumerate(lfns)
        )
        manifest = ManifestId.of(IntentId(f"{A}.00000000-0000-0000-0000-000000000000"), 0, number)
        asked = Ranges([(0, 1000 * len(items))])
        request = ChunksRequested(manifest, B, A, number, 1, LOG, items, asked, 1 << 50)
        self.halves.of(request).serve(request)

    def wait(self, *numbers: int, timeout_s: float = 20.0) -> None:
        until = time.monotonic() + timeout_s
        while not set(numbers) <= set(self.served):
            assert time.monotonic() < until, (numbers, self.served)
            time.sleep(0.01)

    def close(self) -> None:
        self.halves.close()
        for thread in self.threads:
            thread.join(10)
        self.endpoint.close()


@pytest.fixture
def serving(tmp_path: Path, stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    for name in ("ATTEMPT_S", "READ_S", "AWAY_S"):
        monkeypatch.setattr(s3_client, name, 100.0)
    one = Serving(tmp_path, stores)
    yield one
    one.close()


def test_a_store_that_hangs_delays_no_other(serving: Serving, silent: Silent) -> None:
    for number in (1, 2, 3):
        serving.ask(number, *(f"/store/s3/silent/{number}/{n}" for n in range(50)))
    serving.ask(10, "/store/s3/silent/x", "/store/s3/good/x", "/store/disk")
    serving.ask(20, *(f"/store/s3/good/{n}" for n in range(50)))
    serving.ask(30, "/store/disk")
    serving.wait(20, 30)
    assert set(serving.served) == {20, 30}, "the others wait for the store that hangs"
    assert {kind for _, kind, _ in serving.segments[20] + serving.segments[30]} == {None}

    silent.hang_up()
    serving.wait(1, 2, 3, 10)
    for number in (1, 2, 3):
        assert [item for item, _, _ in serving.segments[number]] == list(range(50))
        assert {kind for _, kind, _ in serving.segments[number]} == {FailureClass.TRANSIENT}
    assert "the store silent cannot be reached" in serving.segments[1][0][2]
    assert [kind for _, kind, _ in serving.segments[10]] == [FailureClass.TRANSIENT, None, None]


def test_who_serves_what(serving: Serving) -> None:
    def of(*lfns: str) -> object:
        items = tuple(RequestedItem(n, Lfn(lfn), n, 1, "") for n, lfn in enumerate(lfns))
        manifest = ManifestId.of(IntentId(f"{A}.00000000-0000-0000-0000-000000000000"), 0, 0)
        return serving.halves.of(ChunksRequested(manifest, B, A, 1, 1, LOG, items, Ranges([(0, 1)]), 0))

    keys = serving.halves.keys
    assert of("/store/disk") is of() is serving.halves.files
    assert of("/store/s3/good/1", "/store/disk") is keys["good"]
    assert of("/store/disk", "/store/s3/silent/1") is keys["silent"]
    assert of("/store/s3/good/1", "/store/s3/silent/1") is keys[MIXED]
