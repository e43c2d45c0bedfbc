"""Damaged containers: a clear error each, or objects that are what the listing says. Never anything else."""

from __future__ import annotations

import io
import lzma
import random
import tarfile
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import uproot

from streams.core.selections.objects import ObjectSelection
from streams.errors import StorageError
from streams.objects.reading import listed, open_object
from streams.objects.unpacking import XZ_MEMORY_BYTES
from streams.storage.checksums import adler32, adler32_hex
from tests.objects.object_files import add_members
from tests.objects.test_archives_legal import PACKERS, Packer, sparse_member, written_by_hand, zstd

MEMBERS = {f"m{n}.csv": b"abc,%d\n" % n * 300 for n in range(4)}
METHODS = {
    "zip": (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) * 2,
    "zip-odd": (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA) * 2,
}
HAND: list[tuple[Packer, int]] = [(zstd, 93), (lzma.compress, 95), (bytes, 0), (zstd, 93)]


def whole(kind: str, directory: Path) -> bytes:
    file = io.BytesIO()
    if kind == "root":
        with uproot.recreate(directory / "x.root") as root:
            root["d/h"] = np.histogram([1.0, 2.0])
            root.mktree("d/t", {"x": "i4"}).extend({"x": np.arange(50)})
        return (directory / "x.root").read_bytes()
    if kind == "zip-by-hand":
        lines: list[dict[str, object]] = [
            {"name": name.encode(), "plain": payload, "packed": pack(payload), "method": method}
            for (name, payload), (pack, method) in zip(MEMBERS.items(), HAND, strict=True)
        ]
        return written_by_hand(directory / "hand.zip", lines, b"#!/bin/sh\n").read_bytes()
    if kind.startswith("zip"):
        with zipfile.ZipFile(file, "w") as archive:
            for (name, payload), method in zip(MEMBERS.items(), METHODS[kind], strict=True):
                archive.writestr(name, payload, method)
    elif kind.startswith("sparse"):
        with tarfile.open(fileobj=file, mode="w") as tar:
            add_members(tar, MEMBERS)
        form, _, packing = kind.removeprefix("sparse-").partition("-")
        return PACKERS[packing](sparse_member(form) + file.getvalue())
    else:
        with tarfile.open(fileobj=file, mode=f"w:{kind[3:].replace('zst', '')}") as tar:
            add_members(tar, MEMBERS)
            for link in (tarfile.LNKTYPE, tarfile.SYMTYPE):
                info = tarfile.TarInfo(f"link{link.decode()}")
                info.type, info.linkname = link, "m1.csv"
                tar.addfile(info)
    return PACKERS["zst" if kind == "tarzst" else ""](file.getvalue())


MEMORY_BYTES = 64 << 20
KINDS = ["root", "zip", "zip-odd", "zip-by-hand", "tar", "targz", "tarxz", "tarzst"]
KINDS += ["sparse-gnu", "sparse-0.0", "sparse-1.0-zst"]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told(tmp_path: Path, kind: str) -> None:
    original = whole(kind, tmp_path)
    rng = random.Random(kind)
    scratch = str(tmp_path / "scratch")
    refusals, errors = 0, []
    tracemalloc.start()
    rounds = 25 if kind.startswith(("sparse", "zip-")) else 60
    for n in range(rounds):
        path = str(tmp_path / f"damaged{n}")
        raw = bytearray(original)
        for _ in range(rng.choice((1, 1, 3, 10))):
            near = rng.choice((len(raw), min(600, len(raw))))
            raw[rng.choice((rng.randrange(near), len(raw) - 1 - rng.randrange(near)))] = rng.randrange(256)
        Path(path).write_bytes(raw[: rng.choice((len(raw), len(raw), len(raw), rng.randrange(len(raw))))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # uproot's, of odd numbers
            try:
                listing = listed(path, ObjectSelection.parse("*"))
                refusals += bool(listing.refused)
                errors += [error for _, error in listing.refused]
                for found in listing.found:
                    with open_object(path, found.name, version=listing.version, scratch=scratch) as reader:
                        assert adler32_hex(adler32(reader.pread(0, found.bytes))) == found.adler32
            except StorageError as error:
                errors.append(error)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # a damaged head of xz may claim the largest dictionary there may be, and one is dropped while the next begins
    assert peak_bytes < MEMORY_BYTES + (2 * XZ_MEMORY_BYTES if kind in ("tarxz", "zip-odd", "zip-by-hand") else 0)
    assert refusals + len(errors) > rounds // 6
    assert {error.failure_class for error in errors} <= {"data-bad", "permanent"}
    assert not [error for error in errors if "\n" in str(error)]
