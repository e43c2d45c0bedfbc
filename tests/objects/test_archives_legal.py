"""Legal archives that other tools read: sparse members, hard links, old headers, streams in a row, odd zip tables."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from streams.objects.reading import open_object
from streams.objects.unpacking import READ_BYTES
from tests.objects.object_files import PAYLOADS, add_members, everything, fails, refusals, taken, write_tar, write_zip

CASES = Path(__file__).parent / "cases"
Packer = Callable[[bytes], bytes]


def zstd(plain: bytes) -> bytes:
    return bytes(pa.compress(plain, "zstd", asbytes=True))


SKIPPED = b"\x53\x2a\x4d\x18\3\0\0\0abc"
PACKERS: dict[str, Packer] = {"": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


def read_back(path: Path, scratch: Path) -> dict[str, bytes]:
    """Every object, each read at many offsets; none is refused."""
    listing = everything(path)
    assert not listing.refused
    return {found.name: taken(path, found, listing.version, scratch) for found in listing.found}


# Tar.


def test_the_tars_that_went_wrong(tmp_path: Path) -> None:
    contents = read_back(CASES / "sparse-gnu.tar", tmp_path)
    assert {name: len(content) for name, content in contents.items()} == {"a.txt": 6, "s.bin": 10 << 20, "z.txt": 5}
    assert zlib.crc32(contents["s.bin"].strip(b"\0")) == zlib.crc32(
        (CASES / "sparse-gnu.tar").read_bytes()[1536:2048].strip(b"\0")
    )
    assert [len(content) for content in read_back(CASES / "hardlink-dup.tar", tmp_path).values()] == [400]


SEGMENTS = [(0, 10), (70_000, 513), (1 << 20, 1), *((2_000_000 + n * 5000, 7) for n in range(40))]
SPARSE_BYTES = 3_000_000


def sparse_payload() -> tuple[bytes, bytes]:
    """The whole, and what is stored of it."""
    whole, stored = bytearray(SPARSE_BYTES), b""
    for offset, length in SEGMENTS:
        piece = random.Random(offset).randbytes(length)
        whole[offset : offset + length] = piece
        stored += piece
    return bytes(whole), stored


def padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 512)


def sealed(header: bytearray) -> bytes:
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def pax(records: list[tuple[str, object]]) -> bytes:
    raw = b""
    for key, value in records:
        line = f" {key}={value}\n".encode()
        size = len(line) + 1
        while len(str(size)) + len(line) != size:
            size += 1
        raw += str(size).encode() + line
    info = tarfile.TarInfo("PaxHeaders/x")
    info.type, info.size = tarfile.XHDTYPE, len(raw)
    return info.tobuf(tarfile.USTAR_FORMAT) + padded(raw)


def sparse_member(form: str) -> bytes:
    """As GNU tar writes it with --sparse --sparse-version=FORM."""
    _, stored = sparse_payload()
    info = tarfile.TarInfo("s.bin")
    info.size = len(stored)
    if form == "gnu":
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[156:157] = tarfile.GNUTYPE_SPARSE
        pairs = [b"%011o\0%011o\0" % segment for segment in SEGMENTS]
        header[386 : 386 + 96] = b"".join(pairs[:4])
        header[482] = 1
        header[483:495] = b"%011o\0" % SPARSE_BYTES
        more = b""
        for at in range(4, len(pairs), 21):
            more += b"".join(pairs[at : at + 21]).ljust(504, b"\0") + bytes([at + 21 < len(pairs)]) + bytes(7)
        return sealed(header) + more + padded(stored)
    if form == "1.0":
        count = b"%d\n" % len(SEGMENTS)
        table = padded(count + b"".join(b"%d\n%d\n" % segment for segment in SEGMENTS))
        told = [("major", 1), ("minor", 0), ("name", "s.bin"), ("realsize", SPARSE_BYTES)]
        info.name, info.size, stored = "GNUSparseFile.1/s.bin", len(table) + len(stored), table + stored
    elif form == "0.1":
        table_text = ",".join(f"{offset},{length}" for offset, length in SEGMENTS)
        told = [("size", SPARSE_BYTES), ("numblocks", len(SEGMENTS)), ("name", "s.bin"), ("map", table_text)]
        info.name = "GNUSparseFile.1/s.bin"
    else:
        told = [("size", SPARSE_BYTES), ("numblocks", len(SEGMENTS))]
        for offset, length in SEGMENTS:
            told += [("offset", offset), ("numbytes", length)]
    records = [(f"GNU.sparse.{key}", value) for key, value in told]
    return pax(records) + info.tobuf(tarfile.USTAR_FORMAT) + padded(stored)


@pytest.mark.parametrize("packing", ["", "gz", "zst"])
@pytest.mark.parametrize("form", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_members_are_read_with_their_zeros(tmp_path: Path, form: str, packing: str) -> None:
    before, after = io.BytesIO(), io.BytesIO()
    for file, name in ((before, "a.txt"), (after, "z.txt")):
        with tarfile.open(fileobj=file, mode="w") as archive:
            add_members(archive, {name: name.encode()})
    path = tmp_path / f"a.tar.{packing}"
    path.write_bytes(PACKERS[packing](before.getvalue()[:1024] + sparse_member(form) + after.getvalue()))
    assert read_back(path, tmp_path / "s") == {"a.txt": b"a.txt", "s.bin": sparse_payload()[0], "z.txt": b"z.txt"}


def test_sparse_members_that_together_become_too_much(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("hole0").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"%011o\0" % (12 << 20)
    raw = b""
    for n in range(3):
        header[4:5] = b"%d" % n
        raw += sealed(header)
    path = tmp_path / "a.tar"
    path.write_bytes(raw + bytes(1024))
    listing = everything(path)
    assert [found.name for found in listing.found] == ["hole0"]
    assert all("would become more than 16,777,216 bytes" in told for told in refusals(listing).values())


def test_a_sparse_member_whose_map_cannot_be(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("hole").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"%011o\0%011o\0" % (1000, 512)
    header[124:136] = b"%011o\0" % 512
    header[483:495] = b"%011o\0" % 1100
    path = tmp_path / "a.tar"
    path.write_bytes(sealed(header) + bytes(512) + bytes(1024))
    fails(path, "data-bad", ["the map of the sparse member 'hole' is corrupt"])


@pytest.mark.parametrize("packing", ["", "gz"])
def test_hard_links_are_the_member_before_that_they_name(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, f"w:{packing}") as archive:

        def link(name: str, target: str) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            archive.addfile(info)

        add_members(archive, {"d/one": b"first", "two": b"2" * 3000})
        link("one-before", "./d/one")
        link("of-a-link", "one-before")
        add_members(archive, {"d/one": b"second"})
        link("one-after", "d/one")
        link("two", "two")
        link("later", "z")
        link("nothing", "no-such")
        soft = tarfile.TarInfo("soft")
        soft.type, soft.linkname = tarfile.SYMTYPE, "two"
        archive.addfile(soft)
        link("of-soft", "soft")
        add_members(archive, {"z": b"z"})
    listing = everything(path)
    contents = {found.name: taken(path, found, listing.version, tmp_path / "s") for found in listing.found}
    assert contents == {
        "d/one": b"second",
        "one-before": b"first",
        "of-a-link": b"first",
        "one-after": b"second",
        "two": b"2" * 3000,
        "z": b"z",
    }
    told = refusals(listing)
    assert set(told) == {"later", "nothing", "soft", "of-soft"}
    assert "it is a link to 'no-such', which no member before it is" in told["nothing"]
    assert "it is a link to 'soft': it is a link" in told["of-soft"]
    assert all(line.startswith("permanent") for line in told.values())
    (alone,) = everything(path, "one-before").found
    assert taken(path, alone, listing.version, tmp_path / "s") == b"first"


def test_a_link_that_comes_last_is_the_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add_members(archive, {"x": b"first", "y": b"y"})
        info = tarfile.TarInfo("x")
        info.type, info.linkname = tarfile.SYMTYPE, "y"
        archive.addfile(info)
    listing = everything(path)
    assert [found.name for found in listing.found] == ["y"]
    assert "it is a link" in refusals(listing)["x"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_of_every_age(tmp_path: Path, form: int) -> None:
    """Long names, what pax says besides, sizes in base 256, members of the contiguous kind, a volume's name."""
    path = tmp_path / "a.tar"
    deep = "/".join(["directory-of-some-length"] * 6) + "/x"
    of_all = {"comment": "of all"} if form == tarfile.PAX_FORMAT else {}
    with tarfile.open(path, "w", format=form, pax_headers=of_all) as archive:
        for name in ("plain", deep, "late"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(name), 1.5 if form == tarfile.PAX_FORMAT else 1
            info.type = tarfile.CONTTYPE if name == "late" else tarfile.REGTYPE
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {"SCHILY.xattr.user.x": "é" * 3000}
            archive.addfile(info, io.BytesIO(name.encode()))
    label = tarfile.TarInfo("the volume")
    label.type = b"V"
    raw = bytearray(label.tobuf(tarfile.GNU_FORMAT) + path.read_bytes())
    if form == tarfile.GNU_FORMAT:
        raw[512:1024] = sealed(bytearray(raw[512:1024])[:124] + b"\x80" + bytes(10) + b"\5" + raw[512 + 136 : 1024])
    path.write_bytes(raw)
    assert read_back(path, tmp_path / "s") == {name: name.encode() for name in ("plain", deep, "late")}


def test_headers_older_than_ustar(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    raw = b""
    for name, kind in (("old", b"\0"), ("d/", b"\0"), ("d/x", b"0")):
        header = bytearray(tarfile.TarInfo(name.rstrip("/")).tobuf(tarfile.USTAR_FORMAT))
        header[: len(name)] = name.encode()
        header[156:157], header[257:512] = kind, bytes(255)
        content = b"" if name == "d/" else name.encode()
        header[124:136] = b"%011o\0" % len(content)
        raw += sealed(header) + padded(content)
    path.write_bytes(raw + bytes(1024))
    assert read_back(path, tmp_path / "s") == {"old": b"old", "d/x": b"d/x"}


@pytest.mark.parametrize(
    ("kind", "said"), [(b"M", "it begins in another volume"), (b"Q", "it is a member of the type 'Q'")]
)
def test_kinds_of_members_that_are_not_read(tmp_path: Path, kind: bytes, said: str) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add_members(archive, {"a": b"a"})
        info = tarfile.TarInfo("odd")
        info.type, info.size = kind, 600
        archive.addfile(info, io.BytesIO(bytes(1024)))
        add_members(archive, {"z": b"z"})
    listing = everything(path)
    assert [found.name for found in listing.found] == ["a", "z"]
    assert refusals(listing)["odd"].startswith("permanent")
    assert f"not supported: {said}" in refusals(listing)["odd"]


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_streams_in_a_row_and_what_stands_between(tmp_path: Path, packing: str) -> None:
    plain = write_tar(tmp_path / "plain.tar", PAYLOADS).read_bytes()
    pack, at = PACKERS[packing], len(plain) // 2 + 7
    two = [pack(plain[:at]), pack(plain[at:])]
    path = tmp_path / "a.tar"
    layouts = [b"".join(two)]
    if packing == "zst":
        layouts += [SKIPPED + two[0] + SKIPPED + two[1] + SKIPPED]
    else:
        layouts += [two[0] + bytes(8) + two[1] + bytes(4), two[0] + bytes(READ_BYTES + 4) + two[1]]
    for layout in layouts:
        path.write_bytes(layout)
        assert read_back(path, tmp_path / "s") == PAYLOADS


def test_a_zstd_bomb_and_a_window_that_needs_too_much_memory(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.zst", {"good": b"y", "bomb": bytes(40 << 20)}, "zst")
    fails(path, "permanent", ["the archive would become more than 16,777,216 bytes"])
    frame = bytearray(zstd(bytes(1 << 20)))
    # the head's descriptor: no single segment; then the window's exponent: 2 ** 31
    path.write_bytes(frame[:4] + bytes([0x00, (31 - 10) << 3]) + b"\x0b\0\0ab")
    fails(path, "permanent", ["cannot unpack the zstd stream: not supported: it needs too much memory"])
    # a dictionary's number of one byte, and a window of 1 MB
    path.write_bytes(frame[:4] + bytes([0x01, 10 << 3, 7]) + b"\x0b\0\0ab")
    fails(path, "permanent", ["not supported: it is packed with a dictionary of its own"])


def test_a_packed_tar_that_is_corrupt_where_its_first_header_is(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.bz2", {"x": random.Random(1).randbytes(3000)}, "bz2")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x44
    path.write_bytes(raw)
    fails(path, "data-bad", ["cannot unpack the bzip2 stream: it is corrupt"])


# Zip.


def written_by_hand(path: Path, lines: list[dict[str, object]], before: bytes = b"") -> Path:
    """A zip of members as they are told: name, packed, plain, method, flags, extra, needed, disk."""
    out, table = before, b""
    for line in lines:
        given: dict[str, object] = {"method": 0, "flags": 0, "extra": b"", "needed": 20, "disk": 0, "local_flags": None}
        given |= line
        plain, name, extra = line["plain"], line["name"], given["extra"]
        assert isinstance(plain, bytes) and isinstance(name, bytes) and isinstance(extra, bytes)  # noqa: PT018
        packed = line.get("packed", plain)
        assert isinstance(packed, bytes)
        flags = given["flags"] if given["local_flags"] is None else given["local_flags"]
        numbers = (zlib.crc32(plain), len(packed), len(plain), len(name), len(extra))
        start = len(out) - len(before)
        out += struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, given["method"], 0, 0, *numbers) + name + extra + packed
        head = (b"PK\1\2", 20, 3, given["needed"], 0, given["flags"], given["method"], 0, 0)
        table += struct.pack("<4s4B4H3L5H2L", *head, *numbers, 0, given["disk"], 0, 0, start) + name + extra
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(lines), len(lines), len(table), len(out) - len(before), 0)
    path.write_bytes(out + table + end)
    return path


@pytest.mark.parametrize("before", [b"#!/bin/sh\nexit\n", b"MZ" + bytes(3000), b"PK00"])
def test_zips_behind_a_program(tmp_path: Path, before: bytes) -> None:
    path = write_zip(tmp_path / "a.exe", PAYLOADS)
    path.write_bytes(before + path.read_bytes())
    assert read_back(path, tmp_path / "s") == PAYLOADS


def test_members_packed_by_zstd_and_xz(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {"name": name.encode(), "plain": plain, "packed": pack(plain), "method": method, "needed": 63}
        for name, plain in PAYLOADS.items()
        for pack, method in [(zstd, 93) if len(name) % 2 else (lzma.compress, 95)]
    ]
    path = written_by_hand(tmp_path / "a.zip", lines)
    assert read_back(path, tmp_path / "s") == PAYLOADS


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 93, 95])
def test_a_damaged_member_fails_alone(tmp_path: Path, method: int) -> None:
    plain = random.Random(2).randbytes(1000) * 3
    path = tmp_path / "a.zip"
    if method in (93, 95):
        packed = (zstd if method == 93 else lzma.compress)(plain)
        line: dict[str, object] = {"name": b"x", "plain": plain, "packed": packed, "method": method}
        written_by_hand(path, [line, {"name": b"y", "plain": b"y"}])
    else:
        write_zip(path, {"x": plain, "y": b"y"}, method)
    raw = bytearray(path.read_bytes())
    raw[400] ^= 0x55
    path.write_bytes(raw)
    listing = everything(path)
    assert [found.name for found in listing.found] == ["y"]
    assert refusals(listing)["x"].startswith("data-bad")
    with pytest.raises(Exception, match="member 'x'"):
        open_object(str(path), "x", version=None, scratch=str(tmp_path / "s"))


def test_an_lzma_member_that_wants_too_much_memory(tmp_path: Path) -> None:
    packed = struct.pack("<2BH", 9, 4, 5) + bytes([93]) + struct.pack("<L", 1 << 31) + bytes(20)
    lines: list[dict[str, object]] = [{"name": b"x", "plain": b"xyz", "packed": packed, "method": 14}]
    told = refusals(everything(written_by_hand(tmp_path / "a.zip", [*lines, {"name": b"y", "plain": b"y"}])))
    assert told["x"].startswith("permanent")
    assert "not supported: it needs too much memory" in told["x"]


def test_lines_of_a_table_that_are_not_read_fail_alone(tmp_path: Path) -> None:
    told = {
        b"aes": ({"method": 99, "flags": 1}, "it is encrypted"),
        b"masked": ({"flags": 0x2000}, "it is encrypted"),
        b"patch": ({"flags": 0x20}, "it is a patch"),
        b"new": ({"needed": 90}, "it needs version 9.0 of the format"),
        b"elsewhere": ({"disk": 2}, "it is in another part of a split archive"),
        b"deflate64": ({"method": 9}, "it is packed by method 9 (deflate64)"),
    }
    lines: list[dict[str, object]] = [{"name": name, "plain": b"x", **given} for name, (given, _) in told.items()]
    listing = everything(written_by_hand(tmp_path / "a.zip", [*lines, {"name": b"good", "plain": b"y"}]))
    assert [found.name for found in listing.found] == ["good"]
    for name, (_, said) in told.items():
        line = refusals(listing)[name.decode()]
        assert line.startswith("permanent")
        assert f"not supported: {said}" in line


def test_names_of_zips_in_every_spelling(tmp_path: Path) -> None:
    """UTF-8 where the flag says so, else the old code page, or what an extra field says; bad UTF-8 is a name too."""
    umlaut = "Übersicht".encode()
    extra = b"\1" + struct.pack("<L", zlib.crc32(b"_bersicht2")) + "Übersicht2".encode()
    lines: list[dict[str, object]] = [
        {"name": umlaut, "plain": b"utf", "flags": 0x800},
        {"name": "Übersicht".encode("cp437"), "plain": b"cp"},
        {"name": umlaut + b"3", "plain": b"unflagged inside", "flags": 0x800, "local_flags": 0},
        {"name": b"_bersicht2", "plain": b"up", "extra": struct.pack("<2H", 0x7075, len(extra)) + extra},
        {"name": b"bad\xff", "plain": b"bad", "flags": 0x800},
        {"name": b"twice", "plain": b"first"},
        {"name": b"twice", "plain": b"second"},
    ]
    contents = read_back(written_by_hand(tmp_path / "a.zip", lines), tmp_path / "s")
    assert contents == {
        "Übersicht": b"cp",  # the last of two
        "Übersicht3": b"unflagged inside",
        "Übersicht2": b"up",
        "bad\udcff": b"bad",
        "twice": b"second",
    }


def test_wide_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zip64 end, as archives of more than 65,535 members have, with and without something before the archive."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = write_zip(tmp_path / "a.zip", PAYLOADS)
    assert b"PK\6\6" in path.read_bytes()
    assert read_back(path, tmp_path / "s") == PAYLOADS
    path.write_bytes(b"MZ" + bytes(500) + path.read_bytes())
    assert read_back(path, tmp_path / "s") == PAYLOADS


def test_parts_of_a_split_archive(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", PAYLOADS)
    raw = bytearray(path.read_bytes())
    end = raw.rindex(b"PK\5\6")
    raw[end + 4 : end + 8] = struct.pack("<2H", 1, 1)
    path.write_bytes(raw)
    fails(path, "permanent", ["not supported: a part of a split zip archive"])
    path.write_bytes(b"\x11\x22" + raw[2000:])
    fails(path, "permanent", ["not supported: a part of a split zip archive"])


def test_a_table_that_does_not_hold_together(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", PAYLOADS)
    raw = path.read_bytes()
    table, end = raw.index(b"PK\1\2"), raw.rindex(b"PK\5\6")
    for at, new, said in (
        (end + 10, b"\3\0", "4 lines where 3 are told"),
        (end + 16, b"\xf0\xff\xff\0", "its table is not where it says"),
        (table, b"PX", "table is corrupt"),
        (table + 28, b"\xff\xff", "table is cut"),
    ):
        path.write_bytes(raw[:at] + new + raw[at + len(new) :])
        fails(path, "data-bad", [said])
