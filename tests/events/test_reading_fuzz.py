"""A damaged file is a StorageError or is read; never another exception, never a wait.

Damage in what no checksum covers (numbers that are stored plain) cannot be found here: the file's adler32 finds it.
"""

from __future__ import annotations

import random
import time
import warnings
from decimal import Decimal
from pathlib import Path

import fastavro
import pyarrow.parquet as pq
import pytest

from streams.core.selections.entries import EventSelection
from streams.errors import StorageError
from streams.events.reading import open_entries
from tests.events.event_files import HZZ, ZMUMU, columns, part, write_rntuple, write_ttree
from tests.events.landing_tables import nested
from tests.events.test_reading_formats import AVRO, avro_records
from tests.events.test_reading_unsupported import NAMED, encrypted

SECONDS_MAX = 20.0
SOURCE = {"flux": 1.5, "band": "r", "id": b"12", "cost": Decimal("1.5")}


def written(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"good.{kind.partition('-')[0]}"
    whole = columns(120, deep=kind == "root-rntuple")
    if kind == "root-zmumu":
        return ZMUMU
    if kind == "root-hzz":
        return HZZ
    if kind == "root-ttree":
        return write_ttree(path, [part(whole, 0, 50), part(whole, 50, 120)], None)
    if kind == "root-rntuple":
        return write_rntuple(path, [part(whole, 0, 50), part(whole, 50, 120)], None)
    if kind == "parquet":
        pq.write_table(nested(100).drop_columns(["nothing"]), path, row_group_size=40)
    elif kind == "avro-named":
        record = {"first": SOURCE, "before": [SOURCE], "by_name": {"k": SOURCE}, "band": "g", "id": b"12"}
        record |= {"wrapped": {"inner": SOURCE, "cost": SOURCE["cost"]}, "tree": {"next": None}}
        record |= {"again": {"next": None}, "itself": None}
        with path.open("wb") as file:
            fastavro.writer(file, NAMED, [record] * 50, sync_interval=500)
    elif kind == "parquet-encrypted":
        encrypted(path, True, column_keys={"k": ["a"]})
    elif kind == "avro":
        with path.open("wb") as file:
            fastavro.writer(file, AVRO, avro_records(100), sync_interval=1000)
    elif kind == "csv":
        path.write_text("a,b,c\n" + "".join(f'{i},{i / 3},"x\n{i}"\n' for i in range(100)))
    else:
        path.write_text("".join(f'{{"a": {i}, "b": [1, {i}], "c": "x"}}\n' for i in range(100)))
    return path


def damaged(raw: bytes, rng: random.Random) -> bytes:
    how = rng.randrange(4)
    if how == 0:
        return raw[: rng.randrange(len(raw))]
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 4, 30))):
        at = rng.randrange(len(out))
        if how == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            out[at] = rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
        else:
            size = rng.choice((2, 4, 8, 64))
            out[at : at + size] = bytes(rng.choice((0, 0xFF)) for _ in range(1)) * size
    return bytes(out[: len(raw)])


@pytest.mark.parametrize(
    "kind",
    [
        "root-zmumu",
        "root-hzz",
        "root-ttree",
        "root-rntuple",
        "parquet",
        "parquet-encrypted",
        "avro",
        "avro-named",
        "csv",
        "jsonl",
    ],
)
def test_damage_is_told_or_harmless(tmp_path: Path, kind: str) -> None:
    rng = random.Random(kind)
    good = written(tmp_path, kind)
    asked = "[:]?" if kind in ("avro-named", "parquet-encrypted") else "[:]"
    raw = good.read_bytes()
    bad = tmp_path / f"bad{good.suffix}"
    told: list[StorageError] = []
    for number in range(40):
        bad.write_bytes(damaged(raw, rng))
        began = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with open_entries(str(bad), EventSelection.parse(asked)) as entries:
                    for cut in entries.cuts(4000):
                        assert entries.read(*cut).num_rows == cut[1] - cut[0]
            except StorageError as error:
                told.append(error)
        assert time.monotonic() - began < SECONDS_MAX, number
    assert told, "no damage was ever found: the damage does not reach the reader"
    assert {error.failure_class for error in told} <= {"data-bad", "permanent"}
    assert not [error for error in told if "\n" in str(error)]
