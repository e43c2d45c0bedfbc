"""XRootD's HTTP as a door of another make.

It binds every address, so it runs in a network of its own, which root makes, and as another user, since it refuses
root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system_tools import tool

SIZE = 300_000
_CONFIG = """
oss.localroot {root}
all.export /store r/o
all.adminpath {root}/admin
all.pidpath {root}/admin
xrd.port 21094
xrd.protocol http:21095 libXrdHttp.so
"""
_IN_THERE = """
"{ip}" link set lo up
"{setpriv}" --reuid nobody --clear-groups "{xrootd}" -c "{root}/xrd.cfg" -l "{root}/admin/log" &
server=$!
"{python}" -P -c "$CLIENT"
kill $server
wait $server
"""
_CLIENT = """
import json, socket, ssl, sys, time
from streams.doors.connection import DoorFault
from streams.doors.urls import UrlConnection, UrlRange

until_s = time.monotonic() + 10
while time.monotonic() < until_s:
    try:
        socket.create_connection(("127.0.0.1", 21095), 1).close()
        break
    except OSError:
        time.sleep(0.05)
said = []
with UrlConnection(ssl.create_default_context, stall_s=3) as by:
    for path, start, stop, size in json.loads(sys.stdin.read()):
        came = bytearray()
        asked = UrlRange(0, "http://127.0.0.1:21095" + path, start, stop, size)
        try:
            by.fetch(asked, 0, memoryview(bytearray(1 << 20)), lambda at, view: came.extend(view))
            said.append(came.hex())
        except DoorFault as fault:
            said.append(fault.what)
print(json.dumps(said))
"""


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """That another user may read: pytest's own directories are closed to him."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_it_gives_ranges_and_says_what_it_has_not(open_dir: Path) -> None:
    programs = {name: tool(name) for name in ("ip", "setpriv", "unshare", "xrootd")}
    if os.geteuid():
        pytest.skip("only root makes a network for it")
    (open_dir / "store").mkdir()
    (open_dir / "admin").mkdir()
    content = os.urandom(SIZE)
    (open_dir / "store/a+b.root").write_bytes(content)
    for n in range(50):
        (open_dir / f"store/{n}").write_bytes(content[n : n + 5_000])
    (open_dir / "xrd.cfg").write_text(_CONFIG.format(root=open_dir))
    for path in (open_dir, *open_dir.rglob("*")):
        os.chown(path, 65534, -1)
    spans = [(0, SIZE), (7, 8), (SIZE - 1, SIZE), (1000, 200_000)]
    asked = [["/store/a%2Bb.root", *span, SIZE] for span in spans] + [
        [f"/store/{n}", 0, 5_000, 5_000] for n in range(50)
    ]
    asked += [["/store/none", 0, 1, 1], ["/store/a%2Bb.root", 0, 5, 6]]
    script = _IN_THERE.format(root=open_dir, python=sys.executable, **programs)
    done = subprocess.run(
        [programs["unshare"], "--net", "sh", "-c", script],
        input=json.dumps(asked),
        env={**os.environ, "CLIENT": _CLIENT, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare failed" in done.stderr:
        pytest.skip(f"no network of its own here: {done.stderr.strip()}")
    told = json.loads(done.stdout)
    assert [bytes.fromhex(came) for came in told[:54]] == [
        *(content[a:b] for a, b in spans),
        *(content[n : n + 5_000] for n in range(50)),
    ]
    assert told[54] == "the door answers 404"
    assert told[55] == "the door has another file: 300,000 bytes where 6 were registered"
