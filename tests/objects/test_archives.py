"""Members of zip and tar archives: every byte of each, the same always, whatever the packing."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streams.core.selections.objects import exactly
from streams.errors import StorageError
from streams.objects.reading import listed, open_object
from tests.objects.object_files import (
    PAYLOADS,
    add_members,
    everything,
    fails,
    refusals,
    taken,
    write_tar,
    write_zip,
)

METHODS = {"stored": zipfile.ZIP_STORED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
KINDS = [
    "stored.zip",
    "deflated.zip",
    "bzip2.zip",
    "lzma.zip",
    "a.tar",
    "a.tar.gz",
    "a.tar.bz2",
    "a.tar.xz",
    "a.tar.zst",
]


def written(directory: Path, kind: str, members: dict[str, bytes]) -> Path:
    path = directory / kind
    if kind.endswith(".zip"):
        return write_zip(path, members, METHODS.get(kind[:-4], zipfile.ZIP_DEFLATED))
    return write_tar(path, members, kind[5:].removeprefix("."))


@pytest.mark.parametrize("kind", KINDS)
def test_every_member_whole_and_in_pieces(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, PAYLOADS)
    listing = everything(path)
    assert not listing.refused
    assert [found.name for found in listing.found] == sorted(PAYLOADS)
    for found in listing.found:
        assert taken(path, found, listing.version, tmp_path / "scratch") == PAYLOADS[found.name]
    assert everything(path) == listing
    assert [found.suffix for found in listing.found] == ["cutflow.csv", "empty", "one", "noise.bin"]


@pytest.mark.parametrize("kind", ["deflated.zip", "lzma.zip", "a.tar.xz", "a.tar.zst"])
def test_a_large_member_is_kept_unpacked_once(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, {"large": b"0123456789" * 200_000})
    listing = everything(path)
    scratch = tmp_path / "scratch"
    (found,) = listing.found
    assert len(taken(path, found, listing.version, scratch)) == 2_000_000
    (kept,) = scratch.iterdir()
    before = kept.stat()
    taken(path, found, listing.version, scratch)
    assert kept.stat().st_ino == before.st_ino
    assert kept.stat().st_mtime_ns == before.st_mtime_ns
    assert len(list(scratch.iterdir())) == 1


def test_names_and_globs(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tar", PAYLOADS)
    assert [found.name for found in everything(path, "d/*,cutflow.csv").found] == [
        "cutflow.csv",
        "d/e/empty",
        "d/e/one",
        "d/noise.bin",
    ]
    assert [found.name for found in everything(path, "d/?/*e").found] == ["d/e/one"]
    fails(path, "permanent", ["no object 'cutflow.cvs'", "nearest: cutflow.csv", str(path)], "cutflow.cvs")
    fails(path, "permanent", ["no object matches 'x*'", "there are cutflow.csv"], "x*,d/*")
    fails(path, "permanent", ["no object 'd/e'"], "d/e")


def test_names_of_tar_without_their_dot(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", PAYLOADS, prefix="./")
    assert [found.name for found in everything(path).found] == sorted(PAYLOADS)


def test_of_one_name_the_last_is_the_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x", "second")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_members(tar, {"x": b"first"})
        add_members(tar, {"x": b"second"})
    for name in ("a.zip", "a.tar"):
        listing = everything(tmp_path / name)
        (found,) = listing.found
        assert taken(tmp_path / name, found, listing.version, tmp_path / "s") == b"second"


def test_gzip_of_several_streams(tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "plain.tar", PAYLOADS).read_bytes()
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]) + bytes(512))
    listing = everything(path)
    assert [found.name for found in listing.found] == sorted(PAYLOADS)
    for found in listing.found:
        assert taken(path, found, listing.version, tmp_path / "s") == PAYLOADS[found.name]


class Stream(io.RawIOBase):
    """A file that cannot seek, so that sizes come behind their member."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, block: object) -> int:
        return self._file.write(block)  # type: ignore[arg-type]

    def close(self) -> None:
        self._file.close()
        super().close()


def test_zips_with_sizes_behind_or_wide(tmp_path: Path) -> None:
    with Stream(tmp_path / "a.zip") as stream, zipfile.ZipFile(stream, "w") as archive:  # type: ignore[type-var]
        archive.comment = b"a comment"
        for name, payload in PAYLOADS.items():
            archive.writestr(name, payload, zipfile.ZIP_DEFLATED if payload else zipfile.ZIP_STORED)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, payload in PAYLOADS.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(payload)
    for path in (tmp_path / "a.zip", tmp_path / "b.zip"):
        listing = everything(path)
        assert not listing.refused
        for found in listing.found:
            assert taken(path, found, listing.version, tmp_path / "s") == PAYLOADS[found.name]


def test_two_processes_tell_and_read_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tar.gz", PAYLOADS | {"large": b"abc" * 1_000_000})
    program = (
        "import sys, hashlib\n"
        "from streams.core.selections.objects import ObjectSelection\n"
        "from streams.objects.reading import listed, open_object\n"
        "listing = listed(sys.argv[1], ObjectSelection.parse('*'))\n"
        "for found in listing.found:\n"
        "    with open_object(sys.argv[1], found.name, version=listing.version, scratch=sys.argv[2]) as reader:\n"
        "        print(found, hashlib.sha256(reader.pread(0, found.bytes)).hexdigest())\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(tmp_path / "s")],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(2)
    ]
    told = [process.communicate()[0] for process in running]
    assert told[0] == told[1]
    assert told[0].count(b"Found(") == 5
    assert len(list((tmp_path / "s").iterdir())) == 1


def test_threads_share_what_is_unpacked(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tar.bz2", {f"m{i}": bytes([i]) * 100_000 for i in range(8)})
    listing = everything(path)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda found: taken(path, found, listing.version, tmp_path / "s"), listing.found))
    assert read == [bytes([i]) * 100_000 for i in range(8)]
    assert len(list((tmp_path / "s").iterdir())) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_changed_since_it_was_listed(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, PAYLOADS)
    listing = everything(path)
    with open_object(str(path), "d/noise.bin", version=listing.version, scratch=str(tmp_path / "s")) as reader:
        assert reader.pread(5, 5) == PAYLOADS["d/noise.bin"][5:10]
        with open(path, "ab") as file:
            file.write(b"more")
        with pytest.raises(StorageError, match="while it was read") as caught:
            reader.pread(5, 5)
        assert caught.value.failure_class == "data-bad"
    for act in (
        lambda: open_object(str(path), "d/noise.bin", version=listing.version, scratch=str(tmp_path / "s")),
        lambda: listed(str(path), exactly("d/noise.bin"), version=listing.version),
    ):
        with pytest.raises(StorageError, match="since it was listed") as caught:
            act()
        assert caught.value.failure_class == "data-bad"


def test_a_member_that_is_not_there_any_more(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tar", PAYLOADS)
    with pytest.raises(StorageError, match="no object 'x'") as caught:
        open_object(str(path), "x", version=None, scratch=str(tmp_path))
    assert caught.value.failure_class == "permanent"


def test_archives_of_nothing(tmp_path: Path) -> None:
    for path in (write_zip(tmp_path / "a.zip", {}), write_tar(tmp_path / "a.tar", {}), write_tar(tmp_path / "b", {})):
        fails(path, "permanent", ["no object matches '*'; there is none"])


def test_directories_are_no_objects(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("d")
        archive.writestr("d/x", "x")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("d")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo("d/x"), io.BytesIO())
    for name in ("a.zip", "a.tar"):
        listing = everything(tmp_path / name)
        assert [found.name for found in listing.found] == ["d/x"]
        assert refusals(listing) == {}
