"""Damaged containers: a clear error each, or objects that are what the listing says. Never anything else."""

from __future__ import annotations

import io
import random
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import uproot

from streams.core.named import ObjectSelection
from streams.errors import StorageError
from streams.objects.containers import listed, open_object
from streams.storage.checksums import adler32, adler32_hex
from tests.objects.object_files import add_members

MEMBERS = {f"m{n}.csv": b"abc,%d\n" % n * 300 for n in range(4)}


def whole(kind: str, directory: Path) -> bytes:
    file = io.BytesIO()
    if kind == "root":
        with uproot.recreate(directory / "x.root") as root:
            root["d/h"] = np.histogram([1.0, 2.0])
            root.mktree("d/t", {"x": "i4"}).extend({"x": np.arange(50)})
        return (directory / "x.root").read_bytes()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for n, (name, payload) in enumerate(MEMBERS.items()):
                archive.writestr(name, payload, zipfile.ZIP_DEFLATED if n % 2 else zipfile.ZIP_STORED)
    else:
        with tarfile.open(fileobj=file, mode=f"w:{kind.removeprefix('tar')}") as tar:
            add_members(tar, MEMBERS)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["root", "zip", "tar", "targz", "tarxz"])
def test_damage_is_told(tmp_path: Path, kind: str) -> None:
    original = whole(kind, tmp_path)
    rng = random.Random(kind)
    scratch = str(tmp_path / "scratch")
    refusals, errors = 0, []
    for n in range(60):
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
                for found in listing.found:
                    with open_object(path, found.name, version=listing.version, scratch=scratch) as reader:
                        assert adler32_hex(adler32(reader.pread(0, found.bytes))) == found.adler32
            except StorageError as error:
                errors.append(error)
    assert refusals + len(errors) > 10
    assert {error.failure_class for error in errors} <= {"data-bad", "permanent"}
    assert not [error for error in errors if "\n" in str(error)]
