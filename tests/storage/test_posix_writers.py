"""Several writers of one part: threads of one process, which trust each other, and processes, which do not."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.errors import StorageError
from streams.storage import posix_part, syscalls
from streams.storage.checksums import adler32, adler32_hex
from streams.storage.endpoint import PartFileLost, part_tag
from streams.storage.posix import PosixEndpoint
from streams.storage.posix_part import PosixPart

LFN = "/store/file.root"
TAG = part_tag("m", 0, 1)
BLOCK = 4096


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[PosixEndpoint]:
    made = PosixEndpoint(str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def read_back(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Spans that a seal read from the disk."""
    spans: list[tuple[int, int]] = []
    real = posix_part._adler_of

    def counted(fd: int, start: int, stop: int) -> int:
        spans.append((start, stop))
        return real(fd, start, stop)

    monkeypatch.setattr(posix_part, "_adler_of", counted)
    return spans


def opened(endpoint: PosixEndpoint, content: bytes, **options: object) -> PosixPart:
    return endpoint.open_part(LFN, TAG, bytes=len(content), adler32=adler32_hex(adler32(content)), **options)  # type: ignore[arg-type]


def together(*works: object) -> None:
    failures: list[Exception] = []

    def run(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001 - raised by who joins
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_threads_alone_read_nothing_back(endpoint: PosixEndpoint, read_back: list[tuple[int, int]]):
    content = random.Random(1).randbytes(400 * BLOCK)
    part = opened(endpoint, content)

    def writes(first: int) -> None:
        for at in range(first * BLOCK, len(content), 4 * BLOCK):
            part.write(at, content[at : at + BLOCK])

    def syncs() -> None:
        for _ in range(20):
            part.sync()

    together(*(lambda first=first: writes(first) for first in range(4)), syncs)
    part.seal()
    assert read_back == []
    assert Path(endpoint.pfn(LFN)).read_bytes() == content


def test_threads_that_bring_the_same_bytes(endpoint: PosixEndpoint, read_back: list[tuple[int, int]]):
    content = random.Random(2).randbytes(100 * BLOCK)
    part = opened(endpoint, content)

    def writes(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(300):
            start = order.randrange(len(content))
            stop = min(len(content), start + order.randrange(1, 5 * BLOCK))
            part.write(start, content[start:stop])
            assert part.covered.covers(start, stop), "what a write returned from is there"
        part.write(0, content)

    together(*(lambda seed=seed: writes(seed) for seed in range(4)))
    part.seal()
    assert read_back == []
    assert Path(endpoint.pfn(LFN)).read_bytes() == content


def test_a_write_that_fails_leaves_its_span_to_the_next(endpoint: PosixEndpoint, monkeypatch: pytest.MonkeyPatch):
    """Who waits for a span that another writes, writes it itself when the other could not."""
    content = b"x" * BLOCK
    part = opened(endpoint, content)
    entered, go, calls = threading.Event(), threading.Event(), 0
    real = PosixPart._pwrite_all

    def failing(self: PosixPart, fd: int, view: memoryview, offset: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            entered.set()
            go.wait(10)
            raise OSError(28, "No space left on device")
        real(self, fd, view, offset)

    monkeypatch.setattr(PosixPart, "_pwrite_all", failing)

    def fails() -> None:
        with pytest.raises(Exception, match="the disk is full"):
            part.write(0, content)

    def succeeds() -> None:
        entered.wait(10)
        threading.Timer(0.1, go.set).start()
        part.write(0, content)

    together(fails, succeeds)
    part.seal()
    assert Path(endpoint.pfn(LFN)).read_bytes() == content


def test_what_is_written_beside_a_sync_is_synced_by_the_next(endpoint: PosixEndpoint, monkeypatch: pytest.MonkeyPatch):
    content = b"y" * (2 * BLOCK)
    part = opened(endpoint, content)
    part.write(0, content[:BLOCK])
    syncs = 0
    real = os.fdatasync

    def syncing(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        real(fd)
        if syncs == 1:
            part.write(BLOCK, content[BLOCK:])

    monkeypatch.setattr(os, "fdatasync", syncing)
    assert part.sync().spans == ((0, BLOCK),)
    assert part.sync().spans == ((0, 2 * BLOCK),)
    assert syncs == 2
    part.sync()
    assert syncs == 2, "nothing was written since"


def test_a_part_closed_while_it_is_written_keeps_its_descriptor(
    endpoint: PosixEndpoint, monkeypatch: pytest.MonkeyPatch
):
    """Else the number would be another file's, and the write would go there."""
    content = b"z" * BLOCK
    part = opened(endpoint, content)
    real = PosixPart._pwrite_all
    victim = Path(endpoint.root) / "victim"
    victim.write_bytes(b"v" * BLOCK)

    def closing(self: PosixPart, fd: int, view: memoryview, offset: int) -> None:
        part.close()
        with victim.open("r+b"):
            real(self, fd, view, offset)

    monkeypatch.setattr(PosixPart, "_pwrite_all", closing)
    part.write(0, content)
    assert victim.read_bytes() == b"v" * BLOCK
    assert len(endpoint.fds) == 0


def test_a_stopped_predecessor_writes_between_two_of_ours(endpoint: PosixEndpoint, read_back: list[tuple[int, int]]):
    """It had passed its look at the name when it was stopped. Its modification time is gone behind our second write."""
    content = b"abcdef" * BLOCK
    zombie = opened(endpoint, content)
    ours = opened(endpoint, content)
    ours.write(0, content[: 2 * BLOCK])
    fd = endpoint.fds.acquire(zombie)
    os.pwrite(fd, b"X", 5)
    endpoint.fds.release(zombie)
    together(*(lambda at=at: ours.write(at, content[at : at + BLOCK]) for at in range(2 * BLOCK, 6 * BLOCK, BLOCK)))
    with pytest.raises(PartFileLost, match="checksum differs"):
        ours.seal()
    assert read_back == [(0, 6 * BLOCK)]


def test_a_stopped_predecessor_that_opens_the_part_behind_us_is_seen(endpoint: PosixEndpoint):
    """It was stopped before it opened, so we have the lock: its mark stands before its first write."""
    content = b"abcdef" * BLOCK
    ours = opened(endpoint, content)
    ours.write(0, content[:BLOCK])
    zombie = opened(endpoint, content)
    zombie.write(0, b"X" * BLOCK)
    ours.write(BLOCK, content[BLOCK:])
    with pytest.raises(PartFileLost, match="checksum differs"):
        ours.seal()
    zombie.close()


@pytest.mark.parametrize("first", ["whole", "opened"])
def test_of_a_part_of_one_piece_a_second_process_is_seen(endpoint: PosixEndpoint, first: str):
    """Whoever made it: the other's bytes come behind ours, and our seal reads them."""
    content = b"abcdef" * BLOCK

    def whole() -> PosixPart:
        return endpoint.write_part(LFN, TAG, content, adler32=adler32_hex(adler32(content)))

    if first == "whole":
        ours, zombie = whole(), opened(endpoint, content)
    else:
        zombie = opened(endpoint, content)
        ours = whole()
    zombie.write(0, b"X" * BLOCK)
    with pytest.raises(PartFileLost, match="checksum differs"):
        ours.seal()
    zombie.close()


def test_who_writes_while_a_seal_reads_back_is_seen(endpoint: PosixEndpoint, monkeypatch: pytest.MonkeyPatch):
    """Of a large file that takes minutes, in which a stopped predecessor may wake."""
    content = b"abcdef" * BLOCK
    with opened(endpoint, content) as before:
        before.write(0, content)
        before.sync()
    part = opened(endpoint, content, verified=[(0, len(content))])
    real, path = posix_part._adler_of, Path(endpoint.pfn(LFN)).with_name(part.part_name)

    def beside(fd: int, start: int, stop: int) -> int:
        found = real(fd, start, stop)
        with path.open("r+b") as file:
            file.write(b"X")
        os.utime(path, ns=(1, 1))  # whatever the tick of the filesystem's clock
        return found

    monkeypatch.setattr(posix_part, "_adler_of", beside)
    with pytest.raises(StorageError, match="another process wrote to the part while it was being sealed"):
        part.seal()
    assert not Path(endpoint.pfn(LFN)).exists()
    monkeypatch.setattr(posix_part, "_adler_of", real)
    with pytest.raises(PartFileLost, match="checksum differs"):
        part.seal()


def test_what_another_process_wrote_is_synced_by_who_seals_it(endpoint: PosixEndpoint, monkeypatch: pytest.MonkeyPatch):
    content, synced = b"abcdef" * BLOCK, []
    ours, other = opened(endpoint, content), opened(endpoint, content)
    ours.write(0, content[:BLOCK])
    ours.sync()
    other.write(BLOCK, content[BLOCK:])
    ours._adlers.add(BLOCK, len(content), None)  # as who resumes what was told of
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(fd), real(fd)))
    ours.seal()
    assert len(synced) == 1
    other.close()


def test_a_shared_part_whose_bytes_are_right_is_sealed_without_its_mark(
    endpoint: PosixEndpoint, read_back: list[tuple[int, int]]
):
    content = b"abcdef" * BLOCK
    first, second = opened(endpoint, content), opened(endpoint, content)
    first.write(0, content[:BLOCK])
    second.write(0, content)
    assert not second.seal().already
    assert read_back == [(0, 6 * BLOCK)]
    mode = Path(endpoint.pfn(LFN)).stat().st_mode
    assert not mode & stat.S_IXUSR
    first.close()


def test_where_no_locks_are_known_all_is_read_back(
    endpoint: PosixEndpoint, read_back: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
):
    def unknown(fd: int) -> bool:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(syscalls, "lock_open_file", unknown)
    content = b"q" * BLOCK
    part = opened(endpoint, content)
    part.write(0, content)
    part.seal()
    assert read_back == [(0, BLOCK)]


def test_the_lock_of_a_killed_process_is_gone(endpoint: PosixEndpoint, read_back: list[tuple[int, int]]):
    content = b"k" * (2 * BLOCK)
    script = f"""
        import os, signal
        from streams.storage.posix import PosixEndpoint
        part = PosixEndpoint({endpoint.root!r}).open_part({LFN!r}, {TAG!r}, bytes={2 * BLOCK}, adler32=None)
        part.write(0, b"k" * {BLOCK})
        part.sync()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=60)
    assert done.returncode == -9
    part = opened(endpoint, content, verified=[(0, BLOCK)])
    part.write(BLOCK, content[BLOCK:])
    part.seal()
    assert read_back == [(0, BLOCK)], "what the predecessor wrote, and nothing else"
