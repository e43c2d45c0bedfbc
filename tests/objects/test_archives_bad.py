"""Archives that are not what they say: each refusal's class and words, and the rest that goes on."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from streams.core.names import Lfn
from streams.core.selections import parts
from streams.errors import StorageError
from streams.objects import limits
from streams.objects.reading import open_object
from tests.objects.object_files import PAYLOADS, add_members, everything, fails, refusals, taken, write_tar, write_zip

UNSAFE = ("/etc/passwd", "C:/windows", "../x", "a/../../x", "..", "a//b", "a/./b", "a\\..\\b", "x\n/../y")
"""As paths; as names they are what they are, since nothing on a disk is named by them."""
TOO_LONG = "n" * 1100


def opening_fails(path: Path, name: str, failure_class: str, said: str) -> None:
    with pytest.raises(StorageError, match=said) as caught:
        open_object(str(path), name, version=None, scratch=str(path.parent / "scratch"))
    assert caught.value.failure_class == failure_class


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_names_that_lead_out_are_data_and_name_nothing_on_the_disk(tmp_path: Path, kind: str) -> None:
    home = tmp_path / "deep" / "home"
    home.mkdir(parents=True)
    path, contents = home / f"a.{kind}", {name: name.encode() for name in UNSAFE} | {"good": b"y"}
    if kind == "zip":
        write_zip(path, contents | {TOO_LONG: b"x"})
    else:
        write_tar(path, contents | {TOO_LONG: b"x"}, kind[4:])
    listing = everything(path)
    assert {found.name for found in listing.found} == set(contents)
    for found in listing.found:
        assert taken(path, found, listing.version, home / "scratch") == contents[found.name]
        lfn = Lfn("/store/a.zip")
        target = parts.target_of(lfn, parts.of_object(found.name), found.suffix)
        assert re.fullmatch(r"/store/a\.zip\.[0-9a-f]{12}\.[A-Za-z0-9][A-Za-z0-9._-]*", target)
    (told,) = refusals(listing).values()
    assert told.startswith("permanent")
    assert "1,100 characters as it is spelled, 1,024 at most" in told
    opening_fails(path, TOO_LONG, "permanent", "1,024 at most")
    written = {one for one in tmp_path.rglob("*") if one.is_file()} - {path}
    assert all(re.fullmatch(r"[0-9a-f]{40}\.bytes", one.name) and one.parent == home / "scratch" for one in written)


def test_links_and_devices_of_tar(tmp_path: Path) -> None:
    kinds = {
        "soft": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "char": tarfile.CHRTYPE,
        "block": tarfile.BLKTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    for packing in ("", "gz"):
        path = tmp_path / f"a.tar{packing}"
        with tarfile.open(path, f"w:{packing}") as archive:
            for name, kind in kinds.items():
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "good"
                archive.addfile(info)
            add_members(archive, {"good": b"y"})
        listing = everything(path)
        assert [found.name for found in listing.found] == ["good"]
        told = refusals(listing)
        assert {name for name, line in told.items() if "it is a link" in line} == {"soft", "hard"}
        assert "a link to 'good', which no member before it is" in told["hard"]
        assert {name for name, line in told.items() if "it is no file" in line} == {"char", "block", "fifo"}
        opening_fails(path, "soft", "permanent", "it is a link")


def test_links_and_devices_of_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, mode in (("soft", 0o120777), ("fifo", 0o010644), ("good", 0o100644)):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, "x")
    listing = everything(path)
    assert [found.name for found in listing.found] == ["good"]
    assert "it is no file" in refusals(listing)["fifo"]
    assert "it is a link" in refusals(listing)["soft"]
    opening_fails(path, "soft", "permanent", "it is a link")


def test_a_bomb_in_a_zip_and_its_neighbour(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"bomb": bytes(40 << 20), "good": b"y", "zeros": bytes(1 << 20)})
    listing = everything(path)
    assert [found.name for found in listing.found] == ["good", "zeros"]
    assert "would become 41,943,040" in refusals(listing)["bomb"]
    assert refusals(listing)["bomb"].startswith("permanent")
    opening_fails(path, "bomb", "permanent", "would become")


def test_many_small_bombs_in_a_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {f"m{i}": bytes(6 << 20) for i in range(4)})
    listing = everything(path)
    assert [found.name for found in listing.found] == ["m0", "m1"]
    assert all("the archive would become more than" in line for line in refusals(listing).values())


def test_a_bomb_in_a_packed_tar(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", {"good": b"y", "bomb": bytes(40 << 20)}, "gz")
    fails(path, "permanent", ["the archive would become more than 16,777,216 bytes", "unpack it yourself"])
    opening_fails(path, "good", "permanent", "would become more than")
    assert not list((tmp_path / "scratch").iterdir())


def patched(path: Path, old: bytes, new: bytes, count: int = 1) -> Path:
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new, count))
    return path


@pytest.mark.parametrize(("told", "said"), [(900, "has more bytes"), (1100, "has 1,000 bytes, the table says 1,100")])
def test_a_zip_that_lies_about_a_size(tmp_path: Path, told: int, said: str) -> None:
    path = write_zip(tmp_path / "a.zip", {"liar": b"abcde" * 200, "good": b"y"})
    patched(path, struct.pack("<L", 1000), struct.pack("<L", told), 2)
    listing = everything(path)
    assert [found.name for found in listing.found] == ["good"]
    assert refusals(listing)["liar"].startswith("data-bad")
    assert said in refusals(listing)["liar"]
    opening_fails(path, "liar", "data-bad", "the table says")


def test_a_zip_with_another_crc(tmp_path: Path) -> None:
    for method, name in ((zipfile.ZIP_STORED, "s.zip"), (zipfile.ZIP_DEFLATED, "d.zip")):
        path = write_zip(tmp_path / name, {"x": b"abcde" * 200}, method)
        with zipfile.ZipFile(path) as archive:
            crc = struct.pack("<L", archive.getinfo("x").CRC)
        patched(path, crc, b"\1\2\3\4", 2)
        assert "another crc32" in refusals(everything(path))["x"]


def test_a_zip_whose_headers_disagree(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "name.zip", {"real": b"x", "good": b"y"})
    listing = everything(patched(path, b"real", b"fake"))
    assert "say different things" in refusals(listing)["real"]
    assert refusals(listing)["real"].startswith("data-bad")
    assert [found.name for found in listing.found] == ["good"]
    path = write_zip(tmp_path / "size.zip", {"real": b"abcde" * 200})
    listing = everything(patched(path, struct.pack("<L", 1000), struct.pack("<L", 999)))
    assert "say different things" in refusals(listing)["real"]


def test_an_encrypted_member(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"secret": b"x", "good": b"y"})
    raw = bytearray(path.read_bytes())
    for magic, flags_at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        raw[raw.index(magic) + flags_at] |= 1
    path.write_bytes(raw)
    listing = everything(path)
    assert refusals(listing)["secret"].startswith("permanent")
    assert "it is encrypted" in refusals(listing)["secret"]
    assert [found.name for found in listing.found] == ["good"]


def test_a_packing_that_is_not_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"x": b"abc" * 100, "good": b"y"})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\1\2") + 10
    for method, said in ((9, "method 9 (deflate64)"), (98, "method 98 (PPMd)"), (77, "method 77")):
        raw[at] = method
        path.write_bytes(raw)
        listing = everything(path)
        told = refusals(listing)["x"]
        assert told.startswith("permanent")
        assert f"not supported: it is packed by {said}" in told
        assert [found.name for found in listing.found] == ["good"]


def test_members_that_share_bytes(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a": b"abc" * 100, "b": b"abd" * 100, "c": b"y"})
    raw = bytearray(path.read_bytes())
    first = raw.index(b"PK\1\2")
    second = raw.index(b"PK\1\2", first + 4)
    raw[second + 42 : second + 46] = raw[first + 42 : first + 46]
    path.write_bytes(raw)
    told = refusals(everything(path))
    assert set(told) == {"a", "b"}
    assert all("another member's too" in line for line in told.values())


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.objects.containers.zips.MEMBERS_MAX", 3)
    monkeypatch.setattr("streams.objects.containers.tars.MEMBERS_MAX", 3)
    fails(write_zip(tmp_path / "a.zip", PAYLOADS), "permanent", ["an archive of 4 members, 3 at most"])
    fails(write_tar(tmp_path / "a.tar", PAYLOADS), "permanent", ["more than 3 members"])


def test_cut_archives(tmp_path: Path) -> None:
    raw = write_zip(tmp_path / "a.zip", PAYLOADS).read_bytes()
    for stop in (30, 1000, len(raw) - 30, len(raw) - 1):
        (tmp_path / "a.zip").write_bytes(raw[:stop])
        fails(tmp_path / "a.zip", "data-bad", ["the zip archive is cut"])
    raw = write_tar(tmp_path / "a.tar", PAYLOADS).read_bytes()
    for stop, said in ((512 * 3, "ends inside its member"), (512 * 3 + 7, "ends inside its member")):
        (tmp_path / "a.tar").write_bytes(raw[:stop])
        fails(tmp_path / "a.tar", "data-bad", [said, "cutflow.csv"])
    end = len(write_tar(tmp_path / "b.tar", {}).read_bytes())
    whole = 512 * (4 + 63 + 586 + 1)
    assert not any(raw[whole:])
    assert len(raw) - whole <= end
    (tmp_path / "a.tar").write_bytes(raw[:whole])
    fails(tmp_path / "a.tar", "data-bad", ["ends without its end mark"])
    for packing in ("gz", "bz2", "xz", "zst"):
        path = tmp_path / f"a.tar.{packing}"
        raw = write_tar(path, PAYLOADS, packing).read_bytes()
        path.write_bytes(raw[:-9])
        fails(path, "data-bad", ["stream ends in its middle"])
        opening_fails(path, "cutflow.csv", "data-bad", "stream ends in its middle")


def test_corrupt_tars(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", PAYLOADS)
    raw = bytearray(path.read_bytes())
    raw[512 * 64 + 3] ^= 0x55  # in the second header
    path.write_bytes(raw)
    fails(path, "data-bad", ["a header of the tar archive is corrupt"])
    path = write_tar(tmp_path / "a.tar.gz", PAYLOADS, "gz")
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1  # in the checksum
    path.write_bytes(raw)
    fails(path, "data-bad", ["cannot unpack the gzip stream: it is corrupt"])


def test_a_table_larger_than_any_real_one(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    for name, pack in (("a.tar", bytes), ("a.tar.gz", gzip.compress)):
        path = tmp_path / name
        path.write_bytes(pack(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
        fails(path, "data-bad", ["larger than any real one"])


def test_a_sparse_member(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("hole").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + bytes(1024))
    assert [(found.name, found.bytes) for found in everything(path).found] == [("hole", 0)]
    header[483:495] = b"%011o\0" % (1 << 32)
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1024))
    assert "it is sparse and would become 4,294,967,296 bytes" in refusals(everything(path))["hole"]
    opening_fails(path, "hole", "permanent", "it is sparse and would become")


def test_what_is_no_archive(tmp_path: Path) -> None:
    for name, raw, failure_class, said in (
        ("a.zip", b"hello", "data-bad", "not a zip file: it begins with 'hell'"),
        ("a.tar", b"", "data-bad", "not a tar file: it is empty"),
        ("a.tar.gz", b"hello", "data-bad", "not a tar file"),
        ("a.root", b"hello", "data-bad", "not a ROOT file"),
        ("a.txt", b"hello", "permanent", "a file that holds no objects"),
        ("a.zst", pa.compress(b"hello" * 1000, "zstd", asbytes=True), "permanent", "that holds no tar archive"),
        (
            "a.tar.lz4",
            b"\x04\x22\x4d\x18hello",
            "permanent",
            "not supported: objects of a file that is packed with lz4",
        ),
        ("a.7z", b"7z\xbc\xaf\x27\x1c\0\4", "permanent", "not supported: objects of a file that is packed with 7z"),
        ("a.zip.z01", b"PK\7\x08hello", "permanent", "not supported: a part of a split zip archive"),
        ("a.gz", gzip.compress(b"hello"), "permanent", "a compressed file that holds no tar archive"),
        ("a.bz2", bz2.compress(b"hello" * 1000), "permanent", "a compressed file that holds no tar archive"),
        ("a.xz", lzma.compress(b"hello" * 1000), "permanent", "a compressed file that holds no tar archive"),
    ):
        path = tmp_path / name
        path.write_bytes(raw)
        fails(path, failure_class, [said])
    fails(tmp_path / "none.zip", "permanent", ["no such file"])
    fails(tmp_path, "permanent", ["not a regular file"])


def test_limits_agree() -> None:
    assert limits.unpacked_max(0) == limits.RATIO_FREE_BYTES
    assert limits.unpacked_max(1 << 30) == limits.SCRATCH_BYTES_MAX
    assert limits.ratio_max(1 << 30) == limits.RATIO_MAX << 30


def test_an_xz_that_wants_too_much_memory(tmp_path: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        add_members(archive, {"x": b"y"})
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29, "preset": 0}]
    path = tmp_path / "a.tar.xz"
    path.write_bytes(lzma.compress(plain.getvalue(), filters=filters))
    fails(path, "permanent", ["not supported: it needs too much memory"])
