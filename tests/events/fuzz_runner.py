"""Feeds damaged payloads to `unpack`, in a process of its own since Arrow's C++ is what is under test.

`python fuzz_runner.py SEED ROUNDS`: prints how many were refused and how many were taken; dies if anything but
WireError comes out, if a batch taken is larger than the cap, or if using it does harm.
"""

from __future__ import annotations

import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq

from streams.errors import WireError
from streams.events.batches import pack, unpack
from streams.events.sizes import Sizes
from tests.events.landing_tables import batch_of, bits, nested

CAP = 1 << 18


def attempt(payload: bytes) -> pa.RecordBatch | None:
    try:
        return unpack(payload, CAP)
    except WireError:
        return None


def use(batch: pa.RecordBatch) -> None:
    """Everything that landing does with it, and everything that reads every value."""
    assert pa.ipc.get_record_batch_size(batch) <= 2 * CAP
    batch.validate(full=True)
    assert Sizes(batch.schema).of(batch, 0, batch.num_rows) >= 0
    if batch.num_rows < 100_000:
        bits(batch)
        batch.slice(1).to_pylist()
        try:
            pq.write_table(pa.Table.from_batches([batch]), pa.BufferOutputStream())
        except (pa.ArrowException, OSError):
            return


def damaged(chance: random.Random, payload: bytes) -> bytes:
    bad = bytearray(payload)
    kind = chance.random()
    if kind < 0.15:
        return bytes(bad[: chance.randrange(len(bad))])
    if kind < 0.25:
        start, stop = sorted((chance.randrange(len(bad)), chance.randrange(len(bad))))
        del bad[start:stop]
        return bytes(bad)
    # the head and the two flatbuffers rule, so most blows fall there
    reach = len(bad) if chance.random() < 0.3 else min(len(bad), 4_000)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(reach)
        if chance.random() < 0.5:
            bad[at] ^= 1 << chance.randrange(8)
        else:
            width = chance.choice((1, 2, 4, 8))
            value = chance.choice((0, 1, 0x7F, 0xFF, 1 << 31, (1 << 63) - 1, (1 << 64) - 1, chance.getrandbits(32)))
            bad[at : at + width] = (value & ((1 << (8 * width)) - 1)).to_bytes(width, "little")
    return bytes(bad)


def main(seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    whole = batch_of(nested(40))
    batches = [whole, *(whole.select([name]) for name in whole.schema.names)]
    refused = taken = 0
    for n in range(rounds):
        batch = batches[n % len(batches)]
        payload = pack(batch, chance.choice(("none", "none", "none", "lz4", "zstd")))
        got = attempt(damaged(chance, payload))
        if got is None:
            refused += 1
        else:
            taken += 1
            use(got)
    short = pack(batches[6], "none")
    for length in range(len(short) - 8):  # the end's mark may be missing
        assert attempt(short[:length]) is None, length
    print(refused, taken)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
