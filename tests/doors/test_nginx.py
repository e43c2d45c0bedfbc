"""Debian's nginx as a door of another make: its answers are those that are believed, over one connection."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.doors.connection import DoorFault
from streams.doors.urls import UrlConnection
from tests.doors.test_urls import asked, fetch
from tests.doors.url_server import HERE
from tests.system_tools import tool

CONTENT = os.urandom(300_000)
TOKEN = "secret.token"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Its port; below /store/ it gives files to all, below /closed/ to who has a token; /old/ has moved to /store/."""
    program, root = tool("nginx"), tmp_path_factory.mktemp("nginx")
    (root / "store").mkdir()
    root.chmod(0o755)
    (root / "store/a+b.root").write_bytes(CONTENT)
    with socket.create_server((HERE, 0)) as free:
        port: int = free.getsockname()[1]
    bodies = "".join(f"  {kind}_temp_path {root}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (root / "nginx.conf").write_text(
        f"pid {root}/pid; error_log {root}/error.log; daemon off; user root;\n"
        f"events {{}}\nhttp {{ access_log {root}/access.log; client_body_temp_path {root}/body;{bodies}\n"
        "  sendfile on; keepalive_requests 100000;\n"
        f"  server {{ listen {HERE}:{port};\n    root {root};\n"
        f'    location /closed/ {{ if ($http_authorization != "Bearer {TOKEN}") {{ return 401; }}'
        f" alias {root}/store/; }}\n"
        "    location /old/ { rewrite ^/old/(.*)$ /store/$1 redirect; }\n  } }\n"
    )
    running = subprocess.Popen([program, "-p", str(root), "-c", str(root / "nginx.conf")], stderr=subprocess.PIPE)
    try:
        until_s = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((HERE, port), 1).close()
                break
            except OSError:
                assert running.poll() is None, running.stderr.read() if running.stderr else ""
                assert time.monotonic() < until_s
                time.sleep(0.05)
        yield port
    finally:
        running.terminate()
        running.communicate(timeout=10)


def by() -> UrlConnection:
    return UrlConnection(ssl.create_default_context, stall_s=2)


def test_ranges_tokens_and_redirects(nginx: int, tmp_path: Path) -> None:
    url = f"http://{HERE}:{nginx}"
    with by() as connection:
        for start, stop in ((0, 300_000), (7, 8), (299_000, 300_000)):
            wanted = asked(f"{url}/store/a%2Bb.root", start, stop)
            assert fetch(connection, wanted) == CONTENT[start:stop]
        assert fetch(connection, asked(f"{url}/closed/a+b.root", token=TOKEN)) == CONTENT
        assert fetch(connection, asked(f"{url}/old/a+b.root")) == CONTENT
        (kept,) = connection._kept.values()
        with pytest.raises(DoorFault, match="answers 401") as caught:
            fetch(connection, asked(f"{url}/closed/a+b.root"))
        assert caught.value.failure_class == "auth"
        with pytest.raises(DoorFault, match="answers 404"):
            fetch(connection, asked(f"{url}/store/none"))
        assert fetch(connection, asked(f"{url}/store/a+b.root", 5, 6)) == CONTENT[5:6]
        assert list(connection._kept.values()) == [kept], "all over one connection"


def test_an_etag_is_asked_for_as_nginx_says_it(nginx: int) -> None:
    with by() as connection, pytest.raises(DoorFault, match="another ETag") as caught:
        fetch(connection, asked(f"http://{HERE}:{nginx}/store/a+b.root", etag="other"))
    assert (caught.value.item, caught.value.failure_class) == (7, "data-bad")
