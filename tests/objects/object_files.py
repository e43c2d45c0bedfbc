"""Containers the tests write, and how their objects are read back."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from streams.core.selections.objects import ObjectSelection
from streams.errors import StorageError
from streams.objects.found import Found, Listing
from streams.objects.reading import listed, open_object

PAYLOADS = {
    "cutflow.csv": b"cut,events\n" + b"muon,12\n" * 4000,
    "d/noise.bin": random.Random(1).randbytes(300_001),
    "d/e/empty": b"",
    "d/e/one": b"x",
}


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, payload in members.items():
            archive.writestr(name, payload, method)
    return path


def write_tar(path: Path, members: dict[str, bytes], packing: str = "", prefix: str = "") -> Path:
    with tarfile.open(path, f"w:{packing if packing != 'zst' else ''}") as archive:
        add_members(archive, members, prefix)
    if packing == "zst":
        path.write_bytes(pa.compress(path.read_bytes(), "zstd", asbytes=True))
    return path


def add_members(archive: tarfile.TarFile, members: dict[str, bytes], prefix: str = "") -> None:
    for name, payload in members.items():
        info = tarfile.TarInfo(prefix + name)
        info.size = len(payload)
        archive.addfile(info, io.BytesIO(payload))


def everything(path: Path, pattern: str = "*") -> Listing:
    return listed(str(path), ObjectSelection.parse(pattern))


def taken(path: Path, found: Found, version: str, scratch: Path) -> bytes:
    """The object's bytes, after pieces of them at any offset were the same and the listing told the truth."""
    with open_object(str(path), found.name, version=version, scratch=str(scratch)) as reader:
        assert reader.stat.version == version
        whole = reader.pread(0, reader.stat.bytes)
        assert (len(whole), f"{zlib.adler32(whole):08x}") == (found.bytes, found.adler32)
        rng = random.Random(len(whole))
        for _ in range(100):
            start = rng.randint(0, len(whole))
            stop = rng.randint(start, min(len(whole), start + 70_000))
            assert reader.pread(start, stop - start) == whole[start:stop]
        with pytest.raises(StorageError, match="were asked of an object of"):
            reader.pread(1, len(whole))
    return whole


def refusals(listing: Listing) -> dict[str, str]:
    return {name: f"{error.failure_class}: {error}" for name, error in listing.refused}


def fails(path: Path, failure_class: str, said: Iterable[str], pattern: str = "*") -> None:
    """Listing fails as a whole, in one line."""
    with pytest.raises(StorageError) as caught:
        everything(path, pattern)
    line = str(caught.value)
    assert caught.value.failure_class == failure_class, line
    assert "\n" not in line
    for words in said:
        assert words in line
