"""How fast the gate is: `python -m tests.bench.wire_speed`. Not a test."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from streams import wire
from streams.core import records as m
from streams.core.names import Lfn
from tests.wire.conftest import LFN, MANIFEST, SMALL, SMALL_MANIFEST, WHOLE, C, Record

ROUNDS = 7
ROUND_S = 0.05


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds per call, median of several rounds: others on the machine count less."""
    call()
    rounds = []
    for _ in range(ROUNDS):
        calls, begin = 0, time.process_time()
        while (spent := time.process_time() - begin) < ROUND_S:
            call()
            calls += 1
        rounds.append(spent / calls)
    return statistics.median(rounds)


def thousand() -> m.ManifestWritten:
    lfns = [Lfn(f"{LFN[:-9]}{n:04}.root") for n in range(1000)]
    return replace(SMALL_MANIFEST, items=tuple(replace(WHOLE, lfn=lfn, target=lfn) for lfn in lfns))


def chunk(segments: int) -> m.ChunkHeader:
    each = tuple(m.Segment(n, 0, 4096, 4096, 0x12345678 + n) for n in range(segments))
    return m.ChunkHeader(MANIFEST, C, 3, 0, 4096 * segments, each, False)


def rows() -> Iterator[tuple[str, float, float]]:
    """(record, seconds to encode with its headers, seconds to hear with every check)"""
    for message in (*SMALL[2:], thousand()):
        record = Record(message)
        name = f"{type(message).__name__}, {len(record.value or b'')} bytes"
        yield name, seconds(partial(write, message, record.origin)), seconds(record.decode)
    for segments in (4, 16, 64):
        header = chunk(segments)
        framed = wire.encode(header)
        name = f"ChunkHeader of {segments} segments, {len(framed)} bytes"
        yield (
            name,
            seconds(partial(wire.encode, header)),
            seconds(partial(wire.decode_value, m.ChunkHeader, framed)),
        )


def write(message: m.Message, origin: m.Origin) -> None:
    wire.encode(message)
    wire.headers(message, origin)


def main() -> None:
    print(f"{'record':44} {'encode':>12} {'decode':>12} {'decoded/s':>12}")
    for name, writes_s, reads_s in rows():
        print(f"{name:44} {writes_s * 1e6:9.1f} µs {reads_s * 1e6:9.1f} µs {1 / reads_s:12,.0f}")


if __name__ == "__main__":
    main()
