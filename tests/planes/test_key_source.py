"""What a source reads of a store: small keys are asked for side by side, so a slow store delays all of them once."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.core.channel import LOG
from streams.core.names import IntentId, Lfn, ManifestId, Site
from streams.core.ranges import Ranges
from streams.core.records import ChunksRequested, RequestedItem
from streams.core.store_names import Store
from streams.errors import StorageError
from streams.planes.source.byte_reader import KEYS_AHEAD, FileKeys
from streams.storage import open_endpoint

DELAY_S = 0.05
KEYS = 96
A, B = Site("T1_A"), Site("T2_B")


class Slow(http.server.BaseHTTPRequestHandler):
    """Each key holds its own number, 1,000 times; key 7 is gone."""

    def do_GET(self) -> None:
        time.sleep(DELAY_S)
        number = int(self.path.rpartition("/")[2])
        body = b"%03d" % number * 1000
        self.send_response(404 if number == 7 else 206)
        for name, value in (("etag", '"e"'), ("content-range", f"bytes 0-{len(body) - 1}/{len(body)}")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_small_keys_are_asked_for_side_by_side(url: str, tmp_path: Path) -> None:
    items = tuple(RequestedItem(n, Lfn(f"/store/s3/slow/k/{n}"), 3000 * n, 3000, "3000:e") for n in range(KEYS))
    manifest = ManifestId.of(IntentId(f"{A}.00000000-0000-0000-0000-000000000000"), 0, 0)
    request = ChunksRequested(manifest, B, A, 1, 1, LOG, items, Ranges([(0, 3000 * KEYS)]), 1 << 50)
    with open_endpoint(f"file://{tmp_path}", stores=[Store("slow", url, "raw")]) as endpoint:
        supply = FileKeys(endpoint)
        started_s = time.monotonic()
        for item in items:
            if item.no == 7:
                with pytest.raises(StorageError, match="no such key"):
                    supply.take(request, item, 0, 3000, 1 << 20)
                continue
            payload = supply.take(request, item, 0, 2000, 1 << 20).payload
            payload += supply.take(request, item, 2000, 1000, 1 << 20).payload
            assert payload == b"%03d" % item.no * 1000
            assert len(supply._readers) <= KEYS_AHEAD + 2
        took_s = time.monotonic() - started_s
        supply.close()
    assert took_s < KEYS * DELAY_S / 2
