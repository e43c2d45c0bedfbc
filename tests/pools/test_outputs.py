"""Outputs on a real disk: placed once, found by whoever comes after a crash; and the scratch of workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.core.names import Lfn
from streams.errors import StorageError, Temporary
from streams.pools import outputs, scratch
from streams.storage import open_endpoint
from streams.storage.checksums import adler32, adler32_hex
from streams.storage.endpoint import Endpoint

ROOT = Path(__file__).parents[2]
OUT = Lfn("/store/f.root.0123456789ab.out")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Endpoint]:
    (tmp_path / "storage").mkdir()
    with open_endpoint((tmp_path / "storage").as_uri()) as opened:
        yield opened


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_an_output_is_placed_once_whoever_comes_second(store: Endpoint, tmp_path: Path) -> None:
    assert outputs.find(store, OUT) is None
    first = outputs.place(store, OUT, written(tmp_path / "a", b"first"))
    assert (first.bytes, first.adler32, first.how == "already") == (5, adler32_hex(adler32(b"first")), False)
    for content in (b"first", b"another run of it"):  # a command may write other bytes each time
        again = outputs.place(store, OUT, written(tmp_path / "b", content))
        assert (again.bytes, again.adler32, again.how == "already") == (first.bytes, first.adler32, True)
    found = outputs.find(store, OUT)
    assert found is not None
    assert (found.adler32, found.version) == (first.adler32, first.version)
    assert Path(store.pfn(OUT)).read_bytes() == b"first"


def test_what_a_stray_process_writes_later_does_not_reach_the_file(store: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb", buffering=0) as late:
        late.write(b"first")
        outputs.place(store, OUT, str(path))
        late.write(b" and more")
    assert Path(store.pfn(OUT)).read_bytes() == b"first"


def test_a_name_that_cannot_be_had_fails_the_range(store: Endpoint, tmp_path: Path) -> None:
    Path(store.pfn(OUT)).mkdir(parents=True)
    with pytest.raises(StorageError) as caught:
        outputs.place(store, OUT, written(tmp_path / "a", b"x"))
    assert caught.value.failure_class == "permanent"


def test_a_disk_that_may_do_later_is_not_the_ranges_fault(
    store: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("no space is left", failure_class="quota")

    monkeypatch.setattr(store, "place", full)
    with pytest.raises(Temporary, match="no space"):
        outputs.place(store, OUT, written(tmp_path / "a", b"x"))


def test_scratch_goes_with_its_worker_or_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch.folder() as own:
        code = "import time; from streams.pools import scratch\n"
        code += "with scratch.folder(): print('in', flush=True); time.sleep(600)"
        env = {**os.environ, "TMPDIR": str(tmp_path)}
        other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, stdout=subprocess.PIPE)
        assert other.stdout is not None
        other.stdout.readline()
        assert len(list(tmp_path.glob("t2g-work-*"))) == 2, "neither takes the other's"
        other.send_signal(signal.SIGKILL)
        other.wait(30)
        other.stdout.close()
        assert len(list(tmp_path.glob("t2g-work-*"))) == 2
        with scratch.folder() as mine:
            assert {str(path) for path in tmp_path.glob("t2g-work-*")} == {own, mine}
    assert not list(tmp_path.glob("t2g-work-*"))
