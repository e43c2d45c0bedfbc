"""Files that may be whole and are not read here: permanent and named, never "fetch it again"; columns fail alone."""

from __future__ import annotations

import bz2
import cProfile
import gzip
import io
import json
import lzma
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
import uproot
from uproot.deserialization import DeserializationError
from uproot.interpretation.numerical import AsDtype

from streams.core.selections.entries import EventSelection
from streams.errors import StorageError
from streams.events.formats.avro import types as avro_types
from streams.events.formats.root import file as root
from streams.events.reading import open_entries
from tests.events.event_files import columns, write_ttree
from tests.events.test_reading_errors import refused

CASES = Path(__file__).parent / "cases"


def rows(path: Path, selection: str = "[:]") -> list[dict[str, Any]]:
    with open_entries(str(path), EventSelection.parse(selection)) as entries:
        return [row for cut in entries.cuts(1 << 20) for row in entries.read(*cut).to_pylist()]


def unreadable(path: Path) -> dict[str, str]:
    with open_entries(str(path), EventSelection.parse("[:]?")) as entries:
        return entries.unreadable


# Parquet.


class Keys(pe.KmsClient):  # type: ignore[misc]
    def __init__(self, _: Any) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> bytes:
        return key

    def unwrap_key(self, key: bytes, _: str) -> bytes:
        return key


def encrypted(path: Path, plaintext_footer: bool, **keys: Any) -> Path:
    table = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    how = pe.EncryptionConfiguration(footer_key="f", plaintext_footer=plaintext_footer, **keys)
    properties = pe.CryptoFactory(Keys).file_encryption_properties(pe.KmsConnectionConfig(), how)
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return path


def test_an_encrypted_footer(tmp_path: Path) -> None:
    for path in (CASES / "enc.parquet", encrypted(tmp_path / "x.parquet", False, column_keys={"k": ["a"]})):
        refused(path, "[:]", "permanent", "not supported: the Parquet file is encrypted")
        refused(path, "[:]?", "permanent", "not supported: the Parquet file is encrypted")


def test_encrypted_columns_behind_a_plain_footer(tmp_path: Path) -> None:
    path = encrypted(tmp_path / "x.parquet", True, column_keys={"k": ["a"]})
    assert rows(path, "{b}") == [{"b": "x"}, {"b": "y"}, {"b": "z"}]
    assert unreadable(path) == {"a": "not supported: it is encrypted"}
    refused(path, "[:]", "permanent", "cannot read the column 'a': not supported: it is encrypted")


@pytest.mark.parametrize(("codec", "said"), [(3, "packed by the codec LZO"), (11, "packed by the codec 11")])
def test_a_codec_that_is_not_there(tmp_path: Path, codec: int, said: str) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1.5, 2.5], "b": [1, 2]}), path, compression={"a": "zstd", "b": "none"})
    raw = path.read_bytes()
    footer = raw.rindex(b"PAR1", 0, -4) if raw.count(b"PAR1") > 2 else 0
    # the codec is field 4, an i32, behind the path of the column: zstd is 6, and 12 in zigzag
    at = raw.index(b"\x18\x01a\x15\x0c", footer)
    path.write_bytes(raw[: at + 4] + bytes([codec * 2]) + raw[at + 5 :])
    assert rows(path, "{b}") == [{"b": 1}, {"b": 2}]
    assert said in unreadable(path)["a"]
    refused(path, "{a}", "permanent", "not supported", said)


def test_a_codec_that_this_installation_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1.5, 2.5]}), path, compression="brotli")
    monkeypatch.setattr("streams.events.formats.parquet.entries._CODECS", {1: "snappy"})
    refused(path, "[:]", "permanent", "not supported: it is packed by the codec brotli")


def test_an_encoding_of_a_later_version(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1.5, 2.5]}), path, use_dictionary=False, compression="none")
    raw = path.read_bytes()
    at = raw.index(b"\x19\x25\x00\x06\x19\x18\x01a") if b"\x19\x25\x00\x06\x19\x18\x01a" in raw else -1
    if at < 0:
        at = raw.index(b"\x19\x25\x06\x00\x19\x18\x01a")
    path.write_bytes(raw[: at + 2] + bytes([13 * 2]) + raw[at + 3 :])
    refused(path, "[:]", "permanent", "not supported: its pages are written in the encoding 13")


def test_columns_of_one_name_fail_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    deep = pa.array([{"p": 1, "q": 2.5}])
    pq.write_table(
        pa.Table.from_arrays([pa.array([1]), deep, pa.array(["y"]), pa.array([3])], ["a", "b", "a", "c"]), path
    )
    assert unreadable(path) == {"a": "two columns have this name"}
    assert rows(path, "[:]?") == [{"b": {"p": 1, "q": 2.5}, "c": 3}]
    assert rows(path, "{c}") == [{"c": 3}]
    refused(path, "[:]", "permanent", "cannot read the column 'a': two columns have this name")


# Avro.


def test_the_avro_file_that_went_wrong() -> None:
    assert rows(CASES / "reuse.avro") == [{"a": {"x": 1.0}, "b": {"x": 2.0}, "c": [{"x": 3.0}]}]
    assert rows(CASES / "reuse.avro", "{c}") == [{"c": [{"x": 3.0}]}]
    assert rows(CASES / "reuse.avro", "{b}") == [{"b": {"x": 2.0}}]


def written(path: Path, schema: dict[str, Any], records: list[dict[str, Any]]) -> Path:
    with path.open("wb") as file:
        fastavro.writer(file, schema, records)
    return path


NAMED = {
    "type": "record",
    "name": "Alert",
    "namespace": "survey.v1",
    "fields": [
        {"name": "first", "type": {"type": "record", "name": "Source", "fields": [
            {"name": "flux", "type": "double"},
            {"name": "band", "type": {"type": "enum", "name": "Band", "symbols": ["g", "r"]}},
            {"name": "id", "type": {"type": "fixed", "name": "other.Id", "size": 2}},
            {"name": "cost", "type": {"type": "fixed", "name": "Cost", "size": 2, "logicalType": "decimal",
                                      "precision": 4, "scale": 1}},
        ]}},
        {"name": "before", "type": ["null", {"type": "array", "items": "Source"}]},
        {"name": "by_name", "type": {"type": "map", "values": "survey.v1.Source"}},
        {"name": "band", "type": "Band"},
        {"name": "id", "type": ["null", "other.Id"]},
        {"name": "wrapped", "type": {"type": "record", "name": "Wrap", "namespace": "deep", "fields": [
            {"name": "inner", "type": "survey.v1.Source"}, {"name": "cost", "type": "survey.v1.Cost"}]}},
        {"name": "tree", "type": {"type": "record", "name": "Node", "fields": [
            {"name": "next", "type": ["null", "Node"]}]}},
        {"name": "again", "type": "Node"},
        {"name": "itself", "type": ["null", "Alert"]},
    ],
}  # fmt: skip


def test_types_used_again_in_namespaces_enums_and_fixed(tmp_path: Path) -> None:
    source = {"flux": 1.5, "band": "r", "id": b"\1\2", "cost": Decimal("1.5")}
    record = {
        "first": source,
        "before": [source, source],
        "by_name": {"k": source},
        "band": "g",
        "id": b"\3\4",
        "wrapped": {"inner": source, "cost": Decimal("-2.5")},
    }
    odd = {"tree": {"next": {"next": None}}, "again": {"next": None}, "itself": None}
    path = written(tmp_path / "x.avro", NAMED, [record | odd, record | odd])
    told = unreadable(path)
    assert set(told) == {"tree", "again", "itself"}
    assert told["again"] == "the type survey.v1.Node contains itself"
    assert "contains itself" in told["itself"]
    refused(path, "{again}", "permanent", "cannot read the column 'again'", "contains itself")
    expected = record | {"by_name": [("k", source)]}
    assert rows(path, "[:]?") == [expected, expected]
    for name in record:
        assert rows(path, f"{{{name}}}") == [{name: expected[name]}] * 2


def test_a_type_that_doubles_with_every_step(tmp_path: Path) -> None:
    kind: Any = "int"
    fields = []
    for n in range(40):
        kind = {
            "type": "record",
            "name": f"T{n}",
            "fields": [{"name": "a", "type": kind}, {"name": "b", "type": "int"}],
        }
        if n:
            kind["fields"][1]["type"] = f"T{n - 1}"
    fields = [{"name": "x", "type": kind}, {"name": "y", "type": "int"}]
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out,
        {"type": "map", "values": "bytes"},
        {"avro.schema": json.dumps({"type": "record", "name": "r", "fields": fields}).encode(), "avro.codec": b"null"},
    )
    path = tmp_path / "x.avro"
    path.write_bytes(b"Obj\1" + out.getvalue() + bytes(16))
    assert f"more than {avro_types.PARTS_MAX:,} parts" in unreadable(path)["x"]


@pytest.mark.parametrize("codec", [b"lz4", b"brotli", b"zz"])
def test_an_avro_codec_that_is_not_there(tmp_path: Path, codec: bytes) -> None:
    raw = (CASES / "reuse.avro").read_bytes()
    path = tmp_path / "x.avro"
    path.write_bytes(raw.replace(b"\x08null", bytes([len(codec) * 2]) + codec, 1))
    with pytest.raises(StorageError) as caught:
        rows(path)
    assert caught.value.failure_class == "permanent"
    assert f"not supported: its blocks are packed by the codec '{codec.decode()}'" in str(caught.value)


# ROOT.


@pytest.mark.parametrize(
    ("algorithm", "failure_class"), [(b"CS", "permanent"), (b"B9", "permanent"), (b"\0\xff", "data-bad")]
)
def test_a_compression_of_root_that_is_not_there(tmp_path: Path, algorithm: bytes, failure_class: str) -> None:
    path = write_ttree(tmp_path / "x.root", [columns(2000)])
    raw = path.read_bytes()
    assert raw.count(b"ZL\x08") > 3
    path.write_bytes(raw.replace(b"ZL\x08", algorithm + b"\x08"))
    with pytest.raises(StorageError) as caught:
        rows(path)
    assert caught.value.failure_class == failure_class
    assert ("not supported: it is packed by the algorithm" in str(caught.value)) == (failure_class == "permanent")


def test_what_uproot_says_of_what_it_lacks() -> None:
    assert root.lacks(NotImplementedError("memberwise serialization of X")) == "memberwise serialization of X"
    assert root.lacks(ValueError("invalid literal")) is None
    assert root.lacks(DeserializationError("expected 5 bytes", None, None, {}, "x")) is None


LISTS = np.dtype([("x", ">f4"), ("arr", ">i4", (3,)), ("flags", "?", (2, 2)), ("n", ">i2")])


def test_leaf_lists_with_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uproot reads them and cannot say their type. It writes none, so bytes of that layout are interpreted as one."""
    values = np.zeros(500, LISTS)
    values["x"], values["n"] = np.arange(500) / 4, np.arange(500)
    values["arr"], values["flags"] = np.arange(1500).reshape(500, 3), np.arange(2000).reshape(500, 2, 2) % 3 == 0
    path = tmp_path / "x.root"
    with uproot.recreate(path) as file:
        tree = file.mktree("t", {"list": np.dtype((">u1", (LISTS.itemsize,))), "other": "i4"})
        for start in (0, 200):
            piece = values[start : start + 300 - start // 2]
            tree.extend({"list": piece.view(">u1").reshape(len(piece), -1), "other": np.arange(len(piece))})
    one_leaf = uproot.behaviors.TBranch.TBranch.interpretation.fget
    told = AsDtype(LISTS, LISTS.newbyteorder("="))
    monkeypatch.setattr(
        uproot.behaviors.TBranch.TBranch,
        "interpretation",
        property(lambda branch: told if branch.name == "list" else one_leaf(branch)),
    )
    written = [*values[:300], *values[200:400]]
    assert [row["list"] for row in rows(path)] == [
        {"x": v["x"], "arr": v["arr"].tolist(), "flags": v["flags"].tolist(), "n": v["n"]} for v in written
    ]


def test_branches_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.root"
    with uproot.recreate(path) as file:
        file.mktree("t", {"aa": "i4", "ab": "i4", "c": "i4"}).extend({name: np.arange(3) for name in ("aa", "ab", "c")})
    raw = path.read_bytes()
    path.write_bytes(raw)
    name = uproot.behaviors.TBranch.TBranch.name.fget
    monkeypatch.setattr(
        uproot.behaviors.TBranch.TBranch, "name", property(lambda branch: name(branch).replace("ab", "aa"))
    )
    assert unreadable(path) == {"aa": "two branches have this name"}
    assert rows(path, "{c}") == [{"c": 0}, {"c": 1}, {"c": 2}]


# Packed files of entries.


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.root", "x.parquet.bz2", "x.jsonl.xz", "x"])
def test_packed_files_are_named_as_such(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    zipped = io.BytesIO()
    for kind, raw in (
        ("compressed with gzip", gzip.compress(b"a,b\n1,2\n")),
        ("compressed with bzip2", bz2.compress(b"a,b\n1,2\n")),
        ("compressed with xz", lzma.compress(b"a,b\n1,2\n")),
        ("compressed with zstd", pa.compress(b"a,b\n1,2\n", "zstd", asbytes=True)),
        ("compressed with lz4", b"\x04\x22\x4d\x18" + bytes(20)),
        ("a zip archive", zipped.getvalue() or b"PK\3\4" + bytes(30)),
    ):
        path.write_bytes(raw)
        refused(path, "[:]", "permanent", f"not supported: entries of a file that is {kind}", "unpack it first")


def test_text_that_begins_like_a_packed_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("BZh9,b\n1,2\n")
    assert rows(path) == [{"BZh9": 1, "b": 2}]


# A wide RNTuple.


def test_opening_costs_the_same_for_each_field(tmp_path: Path) -> None:
    """uproot alone asks every field for those below it, of all: for 3,000 that is a minute."""
    calls = {}
    for count in (50, 200):
        path = tmp_path / f"{count}.root"
        with uproot.recreate(path) as file:
            file.mkrntuple("t", {f"b{i}": np.array([i], "f4") for i in range(count)})
        profile = cProfile.Profile()
        with profile, open_entries(str(path), EventSelection.parse("t")) as entries:
            pass
        calls[count] = sum(one.callcount for one in profile.getstats())
        with open_entries(str(path), EventSelection.parse("t")) as entries:
            assert entries.read(0, 1).to_pylist() == [{f"b{i}": float(i) for i in range(count)}]
    assert calls[200] < 5 * calls[50]
