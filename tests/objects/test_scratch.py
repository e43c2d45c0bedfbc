"""What is kept unpacked: whole or not at all, within its limit, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.errors import StorageError
from streams.objects import scratch
from streams.objects.scratch import kept


def content(fd: int) -> bytes:
    try:
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def keep(directory: Path, name: str, payload: bytes) -> bytes:
    return content(kept(str(directory), (name,), lambda: [payload]))


def test_unpacked_once(tmp_path: Path) -> None:
    calls = []

    def unpack() -> Iterator[bytes]:
        calls.append(1)
        yield b"a"
        yield b"b"

    for _ in range(3):
        assert content(kept(str(tmp_path / "s"), ("x", "1"), unpack)) == b"ab"
    assert len(calls) == 1
    assert keep(tmp_path / "s", "x\0" + "2", b"c") == b"c"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def unpack() -> Iterator[bytes]:
        yield b"half"
        raise StorageError("cut", failure_class="data-bad")

    with pytest.raises(StorageError, match="cut"):
        kept(str(tmp_path), ("x",), unpack)
    assert not list(tmp_path.iterdir())
    assert keep(tmp_path, "x", b"whole") == b"whole"


def test_a_killed_process_leaves_a_part_that_is_never_read(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from streams.objects.scratch import kept\n"
        "def unpack():\n"
        "    yield b'half'\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
        "kept(sys.argv[1], ('x',), unpack)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    (part,) = tmp_path.iterdir()
    old = time.time() - 10 * scratch.DEAD_S
    os.utime(part, (old, old))
    keep(tmp_path, "y", b"other")
    assert part.exists(), "it is being written"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert part.read_bytes() == b"half"
    assert keep(tmp_path, "x", b"whole") == b"whole"
    assert not part.exists(), "its process is dead"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".bytes", ".bytes"]


def test_the_least_recently_used_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "SCRATCH_BYTES_MAX", 300)
    monkeypatch.setattr(scratch, "ROOM_BYTES", 100)
    for name in "abcd":
        keep(tmp_path, name, name.encode() * 100)
    held = kept(str(tmp_path), ("b",), lambda: [b"?"])
    keep(tmp_path, "a", b"?")
    assert keep(tmp_path, "e", b"e" * 100) == b"e" * 100
    assert keep(tmp_path, "a", b"?") == b"a" * 100, "just used"
    keep(tmp_path, "f", b"f" * 250)
    assert content(held) == b"b" * 100, "its reader keeps it"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 400
    with pytest.raises(StorageError, match="have no room"):
        kept(str(tmp_path), ("g",), lambda: [b"g" * 300, b"g" * 300])
    assert not list(tmp_path.glob("*.part"))


def test_other_files_in_the_directory_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "SCRATCH_BYTES_MAX", 0)
    monkeypatch.setattr(scratch, "ROOM_BYTES", 100)
    (tmp_path / "notes.txt").write_bytes(b"x" * 1000)
    keep(tmp_path, "a", b"a" * 100)
    keep(tmp_path, "b", b"b" * 100)
    assert (tmp_path / "notes.txt").stat().st_size == 1000
    assert len(list(tmp_path.iterdir())) == 2


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        keep(tmp_path / "file" / "s", "a", b"a")
    assert caught.value.failure_class == "permanent"
