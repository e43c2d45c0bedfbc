"""Room beside a target: where its files are, how one becomes the target, and that none lies outside the root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.core.path_rules import PathRules
from streams.errors import NeverWorks, StorageError
from streams.storage.endpoint import part_tag
from streams.storage.posix import PosixEndpoint

LFN = "/store/new/d/x.parquet"
TAG = part_tag("a manifest", 3, 1)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[PosixEndpoint]:
    (tmp_path / "root").mkdir()
    with PosixEndpoint(str(tmp_path / "root")) as one:
        yield one


def test_a_file_that_was_written_beside_becomes_the_target(endpoint: PosixEndpoint) -> None:
    beside = endpoint.open_beside(LFN, TAG)
    Path(beside.path("part")).write_bytes(b"spool")
    Path(beside.path("final.part")).write_bytes(b"whole")
    directory = Path(endpoint.root, "store/new/d")
    assert {path.name for path in directory.iterdir()} == {f".t2g-{TAG}.part", f".t2g-{TAG}.final.part"}
    assert beside.name("final.part")
    assert endpoint.settle_names([LFN, LFN]) == [None, None]
    assert Path(beside.pfn).read_bytes() == b"whole"
    assert endpoint.discard(LFN, TAG)
    assert [path.name for path in directory.iterdir()] == ["x.parquet"]
    assert not endpoint.discard(LFN, TAG)
    beside.close()
    beside.close()


def test_a_name_that_is_taken_is_not_replaced(endpoint: PosixEndpoint) -> None:
    beside = endpoint.open_beside(LFN, TAG)
    Path(beside.pfn).write_bytes(b"theirs")
    Path(beside.path("final.part")).write_bytes(b"ours")
    assert not beside.name("final.part")
    assert Path(beside.pfn).read_bytes() == b"theirs"
    assert Path(beside.path("final.part")).read_bytes() == b"ours"
    with pytest.raises(StorageError, match="cannot write: no such file"):
        beside.name("part")
    beside.close()


def test_a_directory_is_the_one_that_was_opened(endpoint: PosixEndpoint, tmp_path: Path) -> None:
    """Somebody puts a link to elsewhere in its place: what is written stays beneath the root."""
    beside = endpoint.open_beside(LFN, TAG)
    (tmp_path / "elsewhere").mkdir()
    directory = Path(endpoint.root, "store/new/d")
    directory.rename(directory.with_name("moved"))
    directory.symlink_to(tmp_path / "elsewhere")
    Path(beside.path("part")).write_bytes(b"spool")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    beside.close()
    with pytest.raises(StorageError, match="leads out of the storage root") as refused:
        endpoint.open_beside(LFN, TAG)
    assert refused.value.failure_class == "permanent"


def test_only_tags_of_parts_are_taken(endpoint: PosixEndpoint) -> None:
    for tag in ("../../x", "0123456789abcdef", ""):
        with pytest.raises(NeverWorks, match="not a part's tag"):
            endpoint.open_beside(LFN, tag)


def test_room_beside_is_where_path_rules_place_the_target(tmp_path: Path) -> None:
    rules = PathRules.configured([{"lfn": "/+store/new/(.*)", "pfn": f"{tmp_path}/fresh/$1"}])
    with PosixEndpoint(str(tmp_path), rules=rules) as endpoint:
        beside = endpoint.open_beside(LFN, TAG)
        Path(beside.path("final.part")).write_bytes(b"whole")
        assert (tmp_path / "fresh/d" / f".t2g-{TAG}.final.part").exists()
        assert beside.name("final.part")
        assert endpoint.settle_names([LFN]) == [None]
        assert Path(endpoint.local_path(LFN)).read_bytes() == (tmp_path / "fresh/d/x.parquet").read_bytes() == b"whole"
        beside.close()
