"""The directory beside a target in which a program writes: empty at first, read without following, gone at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.errors import StorageError
from streams.storage.endpoint import item_tag, part_tag
from streams.storage.posix import PosixEndpoint

LFN = "/store/new/d/x.root"
TAG = part_tag("a manifest", 3, 1)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[PosixEndpoint]:
    (tmp_path / "root").mkdir()
    with PosixEndpoint(str(tmp_path / "root")) as one:
        yield one


def room_of(endpoint: PosixEndpoint) -> Path:
    return Path(endpoint.root, "store/new/d", f".t2g-{TAG}.tool")


def test_what_a_program_wrote_is_read_and_everything_in_the_room_is_deleted(endpoint: PosixEndpoint) -> None:
    room = endpoint.open_workroom(LFN, TAG)
    assert room.used() == 0
    assert not Path(room.path).exists()
    assert Path(room.path).parent == room_of(endpoint)
    Path(room.path).write_bytes(b"content")
    Path(f"{room.path}.tmp").write_bytes(b"more")
    (room_of(endpoint) / "deep").mkdir()
    (room_of(endpoint) / "deep" / "er").write_bytes(b"x")
    (room_of(endpoint) / "away").symlink_to(endpoint.root)
    assert room.used() >= 11
    with room.open_reader() as reader:
        assert (reader.stat.bytes, reader.pread(0, 7)) == (7, b"content")
    room.close()
    room.close()
    assert list(Path(endpoint.root, "store/new/d").iterdir()) == []
    assert Path(endpoint.root).is_dir()


def test_a_room_is_emptied_for_the_next_and_no_name_comes_twice(endpoint: PosixEndpoint) -> None:
    left = endpoint.open_workroom(LFN, TAG)
    Path(left.path).write_bytes(b"left")
    room = endpoint.open_workroom(LFN, TAG)
    assert room.path != left.path
    assert list(room_of(endpoint).iterdir()) == []
    with pytest.raises(StorageError, match="it has written no file"):
        left.open_reader()
    with pytest.raises(StorageError, match="it has written no file") as missing:
        room.open_reader()
    assert missing.value.failure_class == "transient"
    left.close()
    Path(room.path).write_bytes(b"of who came later")
    room.close()
    assert not room_of(endpoint).exists()


@pytest.mark.parametrize(("kind", "words"), [("link", "symbolic link"), ("pipe", "regular"), ("directory", "regular")])
def test_what_is_no_file_is_not_read(endpoint: PosixEndpoint, kind: str, words: str) -> None:
    room = endpoint.open_workroom(LFN, TAG)
    if kind == "link":
        os.symlink("/etc/passwd", room.path)
    elif kind == "pipe":
        os.mkfifo(room.path)
    else:
        os.mkdir(room.path)
    with pytest.raises(StorageError, match=words) as refused:
        room.open_reader()
    assert refused.value.failure_class == "permanent"
    room.close()
    assert not room_of(endpoint).exists()


def test_it_is_discarded_with_the_parts_of_its_tag(endpoint: PosixEndpoint) -> None:
    """As a plane that was killed leaves it."""
    Path(endpoint.open_workroom(LFN, TAG).path).write_bytes(b"left")
    other = endpoint.open_workroom(LFN, part_tag("a manifest", 3, 2))
    assert endpoint.discard(LFN, TAG)
    assert not endpoint.discard(LFN, TAG)
    assert [path.name for path in Path(endpoint.root, "store/new/d").iterdir()] == [Path(other.path).parent.name]
    other.close()


def test_what_took_the_place_of_a_room_goes_too(endpoint: PosixEndpoint) -> None:
    room_of(endpoint).parent.mkdir(parents=True)
    room_of(endpoint).symlink_to("/etc")
    endpoint.open_workroom(LFN, TAG).close()
    assert not room_of(endpoint).is_symlink()
    assert Path("/etc").is_dir()


def test_a_walk_knows_whose_its_files_are(endpoint: PosixEndpoint) -> None:
    room = endpoint.open_workroom(LFN, TAG)
    Path(room.path).write_bytes(b"x")
    Path(room.path).with_name("tmp").mkdir()
    Path(room.path).with_name("tmp").joinpath("y").write_bytes(b"y")
    found = list(endpoint.walk(lambda *_: None))
    assert [(one.lfn, one.item) for one in found] == [(None, item_tag("a manifest", 3))] * 2
    room.close()


def test_no_room_is_made_outside_the_root(endpoint: PosixEndpoint, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path(endpoint.root, "store").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="leads out of the storage root"):
        endpoint.open_workroom(LFN, TAG)
    assert list((tmp_path / "elsewhere").iterdir()) == []
