"""Payloads of entries: every type through pack and unpack to the last bit, and what is refused.

Hostile bytes by the thousand: test_batches_fuzz.py.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from streams.errors import NeverWorks, WireError
from streams.events.batches import compression_of, fingerprint, pack, unpack
from tests.events.landing_tables import batch_of, bits, nested

ROOT = Path(__file__).parents[2]
CAP = 1 << 20


def framed(stream: bytes, compression: int = 0, size: int | None = None, version: int = 1) -> bytes:
    return struct.pack("<2sBBI", b"tE", version, compression, len(stream) if size is None else size) + stream


def streamed(*batches: pa.RecordBatch, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
@pytest.mark.parametrize(("start", "stop"), [(0, 300), (0, 0), (0, 1), (13, 14), (7, 290)])
def test_the_same_bits_come_out(compression: str, start: int, stop: int) -> None:
    table = nested(300)
    batch = batch_of(table).slice(start, stop - start)
    got = unpack(pack(batch, compression), CAP)
    assert bits(got) == bits(batch)
    assert got.schema.equals(table.schema, check_metadata=True)


def test_a_payload_out_of_the_middle_of_a_buffer() -> None:
    batch = batch_of(nested(50))
    payload = pack(batch, "none")
    for shift in range(8):
        within = memoryview(bytes(shift) + payload)[shift:]
        assert bits(unpack(within, CAP)) == bits(batch)


def test_what_does_not_compress_is_stored_plain() -> None:
    noise = pa.record_batch({"x": np.frombuffer(np.random.default_rng(7).bytes(80_000), "u8")})
    assert compression_of(pack(noise, "lz4")) == "none"
    zeros = pa.record_batch({"x": np.zeros(10_000)})
    assert compression_of(pack(zeros, "lz4")) == "lz4"
    assert len(pack(zeros, "zstd")) < 1_000


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (pa.array(["a", "b"]).dictionary_encode(), "dictionary"),
        (pa.array([[None]], pa.list_(pa.null())), "list<item: null>"),
        (pa.array([[{}]], pa.list_(pa.struct([]))), "struct<>"),
        (pa.array([[]], pa.list_(pa.int8(), 0)), "fixed_size_list"),
        (pa.array([b""], pa.binary(0)), "fixed_size_binary"),
        (pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), "struct<a: int64, a: int64>"),
        (pa.RunEndEncodedArray.from_arrays(pa.array([9], pa.int32()), pa.array([1])), "run_end_encoded"),
        (pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]), "union"),
        (pa.array([[1]], pa.list_view(pa.int8())), "list_view"),
        (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)], pa.binary(16))), "uuid"),
    ],
)
def test_types_that_do_not_travel_are_named_here_and_refused_there(column: pa.Array, why: str) -> None:
    batch = pa.record_batch({"good": pa.array([0] * len(column)), "odd": column})
    with pytest.raises(NeverWorks, match="column 'odd' has the type") as refused:
        pack(batch)
    assert why in str(refused.value)
    with pytest.raises(WireError):
        unpack(framed(streamed(batch)), CAP)


def test_no_columns_and_a_column_twice() -> None:
    with pytest.raises(NeverWorks, match="no columns"):
        pack(pa.RecordBatch.from_pylist([], schema=pa.schema([])))
    twice = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(NeverWorks, match="column 'x' is there twice"):
        pack(twice)
    with pytest.raises(WireError, match="twice"):
        unpack(framed(streamed(twice)), CAP)


def test_frames_that_are_not_ours() -> None:
    batch = pa.record_batch({"x": [1, 2, 3]})
    stream = streamed(batch)
    assert unpack(framed(stream), CAP).equals(batch)
    for bad in (
        b"",
        b"tE\x01",
        b"xx" + framed(stream)[2:],
        framed(stream, version=2),
        framed(stream, compression=9),
        framed(stream, size=len(stream) - 1),
        framed(stream, size=len(stream) + 1),
        framed(stream + bytes(8)),
        framed(streamed(batch, batch)),
        framed(b""),
        framed(batch.schema.serialize().to_pybytes()),
        framed(stream, compression=2),
        framed(stream, compression=1),
    ):
        with pytest.raises(WireError):
            unpack(bad, CAP)


BOMB_TAKER = """
import sys, pyarrow as pa
from streams.errors import WireError
from streams.events.batches import unpack
bomb = sys.stdin.buffer.read()
for told in (256 << 20, 1 << 20, 100, 0):
    try:
        unpack(bomb[:4] + told.to_bytes(4, "little") + bomb[8:], 1 << 20)
    except WireError as error:
        print(error, file=sys.stderr)
    else:
        sys.exit("taken")
print(pa.default_memory_pool().max_memory())
"""


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_a_bomb_allocates_nothing(name: str) -> None:
    """256 MiB of zeros in little: refused by the number in the head, or where that lies, at its end. (A child: the
    peak of a memory pool cannot be reset.)
    """
    bomb = framed(pa.compress(bytes(256 << 20), codec=name, asbytes=True), {"lz4": 1, "zstd": 2}[name])
    done = subprocess.run(
        [sys.executable, "-c", BOMB_TAKER],
        input=bomb,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4 * CAP


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_compressed_buffers_inside_are_refused(name: str) -> None:
    """Each of them could say any length of its own."""
    zeros = pa.record_batch({"x": np.zeros(1_000_000)})
    with pytest.raises(WireError, match="compressed buffers"):
        unpack(framed(streamed(zeros, compression=name)), CAP)


def test_buffers_that_share_bytes_are_refused() -> None:
    """A thousand columns over one buffer would be a thousand times the payload where they are written."""
    batch = pa.record_batch({"a": np.arange(100), "b": np.arange(100)})
    stream = bytearray(streamed(batch))
    at = stream.rindex(struct.pack("<qq", 800, 800))  # where the second column's values are said to be
    stream[at : at + 16] = struct.pack("<qq", 0, 1600)
    with pytest.raises(WireError, match="larger than its body"):
        unpack(framed(bytes(stream)), CAP)


def test_values_that_are_not_sound_are_refused() -> None:
    offsets = pa.py_buffer(np.array([0, 2, 1], "i4"))
    crooked = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab")])
    one = pa.py_buffer(np.array([0, 1], "i4"))
    not_utf8 = pa.Array.from_buffers(pa.string(), 1, [None, one, pa.py_buffer(b"\xff")])
    for column in (crooked, not_utf8):
        stream = streamed(pa.RecordBatch.from_arrays([column], names=["x"]))
        with pytest.raises(WireError, match="not a sound Arrow batch"):
            unpack(framed(stream), CAP)


def test_the_fingerprint_is_of_what_matters() -> None:
    one = pa.schema([pa.field("x", pa.float32(), metadata={"b": "1", "a": "2"})], {"k": "1", "l": "2"})
    same = pa.schema([pa.field("x", pa.float32(), metadata={"a": "2", "b": "1"})], {"l": "2", "k": "1"})
    assert fingerprint(one) == fingerprint(same) == "a000663fa213c887"
    others = [
        pa.schema([pa.field("x", pa.float64())]),
        pa.schema([pa.field("y", pa.float32())]),
        pa.schema([pa.field("x", pa.float32())]),
        pa.schema([pa.field("x", pa.float32(), nullable=False)]),
        pa.schema([pa.field("x", pa.list_(pa.float32()))]),
        pa.schema([pa.field("x", pa.list_(pa.float32(), 2))]),
        pa.schema([pa.field("x", pa.list_(pa.float32(), 3))]),
        pa.schema([pa.field("x", pa.large_list(pa.float32()))]),
        pa.schema([pa.field("x", pa.struct({"a": pa.int8()}))]),
        pa.schema([pa.field("x", pa.struct({"b": pa.int8()}))]),
        pa.schema([pa.field("x", pa.timestamp("ns"))]),
        pa.schema([pa.field("x", pa.timestamp("ns", "UTC"))]),
        pa.schema([pa.field("x", pa.float32()), pa.field("y", pa.float32())]),
    ]
    assert len({fingerprint(schema) for schema in [one, *others]}) == len(others) + 1
