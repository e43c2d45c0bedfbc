"""Whose a storage is: the marker on it, and what a site remembers of it elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.core.names import Site
from streams.errors import Temporary
from streams.storage import marker
from streams.storage.posix import PosixEndpoint

B = Site("T2_B")


@pytest.fixture
def remembered(tmp_path: Path) -> marker.Remembered:
    return marker.Remembered.of(tmp_path / "state", B, "default")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[PosixEndpoint]:
    (tmp_path / "storage").mkdir()
    with PosixEndpoint(str(tmp_path / "storage")) as opened:
        yield opened


def test_who_opens_it_first_marks_it_and_all_others_see_the_same(
    storage: PosixEndpoint, remembered: marker.Remembered
) -> None:
    assert marker.check(storage, remembered) is None
    first = marker.mark(storage, remembered)
    assert (first.site, first.endpoint, len(first.id)) == (B, "default", 32)
    assert marker.mark(storage, remembered) == first == marker.check(storage, remembered) == remembered.marker
    assert list(storage.walk(lambda *_: None)) == []


def test_a_site_that_remembers_nothing_believes_the_marker_of_its_name(
    storage: PosixEndpoint, remembered: marker.Remembered, tmp_path: Path
) -> None:
    first = marker.mark(storage, remembered)
    elsewhere = marker.Remembered.of(tmp_path / "other", B, "default")
    assert marker.check(storage, elsewhere) == first
    assert elsewhere.marker is None, "who only looks remembers nothing"
    assert marker.mark(storage, elsewhere) == first == elsewhere.marker
    stranger = marker.Remembered.of(tmp_path / "state", Site("T1_A"), "default")
    with pytest.raises(Temporary, match=r"this storage is not that of T1_A: its marker is T2_B default [0-9a-f]{8} "):
        marker.mark(storage, stranger)
    assert stranger.marker is None


def test_another_disk_or_none_is_refused(storage: PosixEndpoint, remembered: marker.Remembered, tmp_path: Path) -> None:
    marker.mark(storage, remembered)
    (tmp_path / "other").mkdir()
    with PosixEndpoint(str(tmp_path / "other")) as other:
        with pytest.raises(
            Temporary, match=r"has no marker, and T2_B default .* is remembered: another disk is mounted there, or none"
        ):
            marker.mark(other, remembered)
        assert other.read_own(marker.NAME) is None, "what is refused is not marked"
        marker.mark(other, marker.Remembered.of(tmp_path / "again", B, "default"))
        with pytest.raises(
            Temporary, match=r"its marker is T2_B default .*, and T2_B default .* is remembered"
        ) as caught:
            marker.check(other, remembered)
    assert str(remembered.path) in caught.value.next
    assert str(tmp_path / "other") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"site": 1}', b"\xff"])
def test_what_is_no_marker_is_no_sites(storage: PosixEndpoint, remembered: marker.Remembered, content: bytes) -> None:
    storage.write_own(marker.NAME, content)
    with pytest.raises(Temporary, match="none that can be read"):
        marker.mark(storage, remembered)
    remembered.path.parent.mkdir(parents=True)
    remembered.path.write_bytes(content)
    with pytest.raises(Temporary, match="what T2_B remembers of its storage is no marker"):
        marker.check(storage, remembered)


def test_of_two_that_mark_at_once_the_first_counts(
    storage: PosixEndpoint, remembered: marker.Remembered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = marker.Remembered.of(tmp_path / "other", B, "default")
    write = PosixEndpoint.write_own

    def late(self: PosixEndpoint, name: str, content: bytes, *, once: bool = False) -> None:
        monkeypatch.setattr(PosixEndpoint, "write_own", write)
        marker.mark(self, other)
        write(self, name, content, once=once)

    monkeypatch.setattr(PosixEndpoint, "write_own", late)
    assert marker.mark(storage, remembered) == other.marker == remembered.marker


def test_a_copy_of_a_disk_is_that_disk(storage: PosixEndpoint, remembered: marker.Remembered, tmp_path: Path) -> None:
    """So a site may move to a larger one."""
    first = marker.mark(storage, remembered)
    shutil.copytree(tmp_path / "storage", tmp_path / "larger")
    with PosixEndpoint(str(tmp_path / "larger")) as larger:
        assert marker.check(larger, remembered) == first
