"""A full disk at the destination: small real ones, mounted for the test (needs the right to mount)."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.core.ranges import Ranges
from streams.core.records import FailureClass, PartOpened, Scope, TransferProgress
from tests.planes.feed import Receiver, Sender, listed
from tests.planes.stage import request_of
from tests.system_tools import tool

NOISE = random.Random(13)
MB = 1_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """4 MB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    done = subprocess.run(
        [tool("mount"), "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting is impossible here: {done.stderr.strip()}")
    yield directory
    subprocess.run([tool("umount"), "--lazy", str(directory)], check=True)


def test_the_file_that_does_not_fit_fails_with_its_reason_and_the_others_go_on(
    small_disk: Path, tmp_path: Path
) -> None:
    files = {
        "/store/one": NOISE.randbytes(MB),
        "/store/large": NOISE.randbytes(6 * MB),
        "/store/three": NOISE.randbytes(MB),
    }
    sender, receiver = Sender(tmp_path / "a"), Receiver(small_disk)
    body = listed(tmp_path / "a", files)
    receiver.open(body)
    receiver.take(sender.serve(request_of(body)))
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert told.sealed == Ranges.of(0, 2)
    (failed,) = told.failed
    assert failed.items == Ranges.of(1)
    assert (failed.reason.scope, failed.reason.failure_class) == (Scope.DESTINATION, FailureClass.QUOTA)
    assert "the disk is full" in failed.reason.text
    assert f"6,000,000 bytes are wanted on the disk of {small_disk}" in failed.reason.text
    assert receiver.leftovers() == []
    assert receiver.bytes_of("/store/three") == files["/store/three"]
    sender.close()


def test_a_big_file_is_refused_before_its_bytes_travel(small_disk: Path, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/big": bytes(9 * MB), "/store/small": b"x"})
    receiver = Receiver(small_disk)
    opened = receiver.open(body)
    assert isinstance(opened, PartOpened)
    (failed,) = opened.failed
    assert failed.items == Ranges.of(0)
    assert failed.reason.failure_class is FailureClass.QUOTA
    assert receiver.leftovers() == []
