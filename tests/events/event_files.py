"""Event files the tests read, the reference reading of them, and the comparison to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import uproot

SAMPLES = Path(__file__).parents[2] / "streams" / "samples"
NANOAOD = SAMPLES / "nanoAOD_2015_CMS_Open_Data_ttbar.root"
HZZ = SAMPLES / "uproot-HZZ.root"
ZMUMU = SAMPLES / "uproot-Zmumu.root"

COMPRESSIONS = {
    "none": None,
    "zlib": uproot.ZLIB(1),
    "lz4": uproot.LZ4(1),
    "lzma": uproot.LZMA(1),
    "zstd": uproot.ZSTD(1),
}


def odd_floats(bits: str, count: int) -> np.ndarray:
    """Numbers of any bit pattern: NaNs with payloads, both zeros, subnormals, infinities."""
    rng = np.random.default_rng(count)
    whole = rng.integers(0, np.iinfo(bits).max, count, dtype=bits, endpoint=True)
    special = np.array([0, 1, 1 << (8 * whole.itemsize - 1)], dtype=bits)
    whole[: min(3, count)] = special[:count]
    return whole.view(bits.replace("u", "f"))


def columns(count: int, *, deep: bool = False) -> dict[str, Any]:
    """One column of every kind a TTree of uproot's holds; with `deep`, also what only an RNTuple does."""
    n = np.arange(count)
    rng = np.random.default_rng(7)
    lengths = rng.integers(0, 6, count)
    jagged = ak.unflatten(odd_floats("u4", int(lengths.sum())), lengths)
    found: dict[str, Any] = {
        "b": n % 3 == 0,
        "f4": odd_floats("u4", count),
        "f8": odd_floats("u8", count),
        "fixed": np.arange(3 * count, dtype="f4").reshape(count, 3),
        "fixed2": np.arange(6 * count, dtype="i2").reshape(count, 3, 2),
        "jag_f4": jagged,
        "jag_i8": ak.unflatten(rng.integers(-(1 << 62), 1 << 62, int(lengths.sum())), lengths),
        "jag_b": ak.unflatten(np.arange(int(lengths.sum())) % 2 == 0, lengths),
    }
    for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
        info = np.iinfo(kind)
        found[kind] = rng.integers(info.min, info.max, count, dtype=kind, endpoint=True)
    if deep:
        words = ["", "é", "muon", "x" * 300]
        found["s"] = ak.Array([words[i % 4] for i in range(count)]) if count else ak.Array(["x"])[:0]
        found["jag_s"] = ak.Array([words[: i % 4] for i in range(count)] + [["x"]])[:count]
        found["deep"] = ak.Array([[[i, -i], []][: i % 3] for i in range(count)] + [[[1]]])[:count]
        records = [{"x": i, "y": [i / 3] * (i % 3)} for i in range(count)]
        found["rec"] = ak.Array([*records, {"x": 1, "y": [0.5]}])[:count]
    return found


def write_ttree(path: Path, batches: list[dict[str, Any]], compression: object = uproot.ZLIB(1)) -> Path:
    """One cluster for each batch; the first says the types."""
    with uproot.recreate(path, compression=compression) as file:
        kinds = {name: branch_type(values) for name, values in batches[0].items()}
        tree = file.mktree("t", kinds)
        for batch in batches:
            if len(batch["b"]):
                tree.extend(batch)
    return path


def write_rntuple(path: Path, batches: list[dict[str, Any]], compression: object = uproot.ZSTD(1)) -> Path:
    with uproot.recreate(path, compression=compression) as file:
        ntuple = file.mkrntuple("t", batches[0])
        for batch in batches[1:]:
            ntuple.extend(batch)
    return path


def part(whole: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {name: values[start:stop] for name, values in whole.items()}


def branch_type(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return np.dtype((values.dtype, values.shape[1:])) if values.ndim > 1 else values.dtype
    return f"var * {ak.type(values).content.content}"


def reference(path: Path, tree: str) -> dict[str, ak.Array]:
    """Every column as uproot alone reads it, whole."""
    with uproot.open(path) as file:
        return {name: file[tree][name].array(library="ak") for name in file[tree].keys(recursive=False)}


def assert_same(ours: pa.RecordBatch, theirs: dict[str, ak.Array], start: int = 0, stop: int | None = None) -> None:
    ours.validate(full=True)
    for name in ours.schema.names:
        same(ak.from_arrow(ours.column(name)), theirs[name][start:stop], name)
        assert not ours.schema.field(name).nullable, name


def same(ours: ak.Array, theirs: ak.Array, name: str) -> None:
    assert len(ours) == len(theirs), name
    if ak.fields(theirs):
        assert ak.fields(ours) == ak.fields(theirs), name
        for field in ak.fields(theirs):
            same(ours[field], theirs[field], f"{name}.{field}")
    elif ak.parameters(theirs).get("__array__") in ("string", "bytestring"):
        same(ak.without_parameters(ours), ak.without_parameters(theirs), name)
    elif theirs.ndim > 1:
        assert ak.num(ours).to_list() == ak.num(theirs).to_list(), name
        same(ak.flatten(ours, axis=1), ak.flatten(theirs, axis=1), name)
    else:
        a, b = np.ascontiguousarray(ak.to_numpy(ours)), np.ascontiguousarray(ak.to_numpy(theirs))
        assert a.dtype == b.dtype, (name, a.dtype, b.dtype)
        assert a.tobytes() == b.tobytes(), name
