"""An endpoint's own room on a POSIX disk: the lock of the name, odd names, other filesystems, full disks."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.errors import StorageError
from streams.registration.discovery import find
from streams.storage import syscalls
from streams.storage.posix import PosixEndpoint
from streams.storage.posix_removal import name_lock
from streams.storage.tree import OWN_DIRECTORY


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "store").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def endpoint(root: Path) -> Iterator[PosixEndpoint]:
    with PosixEndpoint(str(root)) as opened:
        yield opened


def dark(endpoint: PosixEndpoint, path: str) -> tuple[str, str]:
    dated = endpoint.dated(path)
    assert dated is not None
    return path, dated.version


@pytest.mark.parametrize("name", ["plain", ".hidden", "two words\n", os.fsdecode(b"\xff.dat"), "é" * 100])
def test_any_name_keeps_its_path_and_its_bytes(endpoint: PosixEndpoint, root: Path, name: str) -> None:
    (root / "store" / name).write_bytes(b"whose?")
    assert endpoint.set_aside([dark(endpoint, f"store/{name}")], "then") == [None]
    assert Path(endpoint.aside_path("then"), "store", name).read_bytes() == b"whose?"
    assert list((root / "store").iterdir()) == []
    assert endpoint.bring_back([f"store/{name}"], "then") == [None]
    assert (root / "store" / name).read_bytes() == b"whose?"


def test_links_and_pipes_are_moved_as_they_are(endpoint: PosixEndpoint, root: Path) -> None:
    (root / "store" / "nowhere").symlink_to("/nowhere")
    os.mkfifo(root / "store" / "pipe")
    found = [dark(endpoint, f"store/{name}") for name in ("nowhere", "pipe")]
    assert endpoint.set_aside(found, "then") == [None, None]
    aside = Path(endpoint.aside_path("then"), "store")
    assert ((aside / "nowhere").is_symlink(), (aside / "pipe").is_fifo()) == (True, True)


def test_who_removes_or_replaces_it_is_waited_for(endpoint: PosixEndpoint, root: Path) -> None:
    (root / "store" / "dark").write_bytes(b"")
    found, answers = [dark(endpoint, "store/dark")], list[Any]()
    with name_lock(endpoint.tree, "store/dark"):
        waiting = threading.Thread(target=lambda: answers.extend(endpoint.set_aside(found, "then")))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        (root / "store" / "dark").unlink()
    waiting.join(10)
    assert answers == ["it is gone"]


def test_where_no_rename_refuses_to_replace_nothing_is_replaced(
    endpoint: PosixEndpoint, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any) -> None:
        raise OSError(errno.EINVAL, "invalid")

    monkeypatch.setattr(syscalls, "rename_noreplace", unknown)
    (root / "store" / "dark").write_bytes(b"1")
    assert endpoint.set_aside([dark(endpoint, "store/dark")], "then") == [None]
    (root / "store" / "dark").write_bytes(b"2")
    (taken,) = endpoint.set_aside([dark(endpoint, "store/dark")], "then")
    assert "another file has the name" in str(taken)
    endpoint.write_own("note", b"one", once=True)
    endpoint.write_own("note", b"two", once=True)
    assert endpoint.read_own("note") == b"one"


def test_what_lies_on_another_filesystem_stays(
    endpoint: PosixEndpoint, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def across(*_: Any) -> None:
        raise OSError(errno.EXDEV, "cross-device")

    monkeypatch.setattr(syscalls, "rename_noreplace", across)
    (root / "store" / "dark").write_bytes(b"1")
    (failed,) = endpoint.set_aside([dark(endpoint, "store/dark")], "then")
    assert isinstance(failed, StorageError)
    assert "another filesystem than the root" in str(failed)
    assert (root / "store" / "dark").read_bytes() == b"1"


def test_a_full_disk_leaves_what_was_kept(endpoint: PosixEndpoint, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint.write_own("note", b"one")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="cannot write: the disk is full"):
            endpoint.write_own("note", b"two")
    assert endpoint.read_own("note") == b"one"
    assert [path.name for path in (root / OWN_DIRECTORY).iterdir()] == ["note"], "no half of it is left"


def test_who_registers_a_whole_storage_does_not_meet_the_room(endpoint: PosixEndpoint, root: Path) -> None:
    endpoint.write_own("note", b"one")
    (root / "store" / "file").write_bytes(b"")
    assert [one.tail for one in find([str(root)], lambda *_: None)] == ["store/file"]
