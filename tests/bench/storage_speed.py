"""How fast the POSIX backend is on this disk: `python tests/bench/storage_speed.py [DIRECTORY]`. Not a test."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time

from streams.storage import open_endpoint
from streams.storage.checksums import adler32, adler32_hex, crc32c
from streams.storage.endpoint import SealedFile, part_tag

SMALL_FILES = 2_000
SMALL_BYTES = 64 << 10
BIG_BYTES = 1 << 30
SEGMENT_BYTES = 256 << 10
RUNS = 5


def small_files(root: str, run: int) -> float:
    """Files per second: checked, written, synced, sealed, in groups of 1,000."""
    block = os.urandom(SMALL_BYTES)
    adler, crc = adler32_hex(adler32(block)), crc32c(block)
    with open_endpoint(f"file://{root}") as endpoint:
        begin = time.perf_counter()
        for first in range(0, SMALL_FILES, 1_000):
            parts = []
            for item in range(first, first + 1_000):
                tag = part_tag(f"T1_A.{run}", item, 0)
                part = endpoint.open_part(f"/small/{run}/f{item}", tag, bytes=SMALL_BYTES, adler32=adler)
                assert crc32c(block) == crc
                part.write(0, block)
                parts.append(part)
            assert all(isinstance(answer, SealedFile) for answer in endpoint.seal_group(parts))
        return SMALL_FILES / (time.perf_counter() - begin)


def big_file(root: str, run: int) -> tuple[float, float]:
    """GB/s of writing with crc32c and adler32, before and after the seal (which syncs)."""
    blocks = [os.urandom(SEGMENT_BYTES) for _ in range(16)]
    with open_endpoint(f"file://{root}") as endpoint:
        begin = time.perf_counter()
        part = endpoint.open_part(f"/big{run}", part_tag("big", run, 0), bytes=BIG_BYTES, adler32=None)
        for at in range(0, BIG_BYTES, SEGMENT_BYTES):
            block = blocks[at // SEGMENT_BYTES % 16]
            crc32c(block)
            part.write(at, block)
        written_s = time.perf_counter() - begin
        part.seal()
        sealed_s = time.perf_counter() - begin
        os.unlink(endpoint.pfn(f"/big{run}"))
    return BIG_BYTES / written_s / 1e9, BIG_BYTES / sealed_s / 1e9


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as root:
        rates = [small_files(root, run) for run in range(RUNS)]
        print(f"{SMALL_FILES} files of 64 KiB, sealed: {statistics.median(rates):,.0f} files/s, of {rates}")
        pairs = [big_file(root, run) for run in range(RUNS)]
        print(f"1 GiB in segments of 256 KiB, written: {statistics.median(a for a, _ in pairs):.2f} GB/s")
        print(f"1 GiB in segments of 256 KiB, sealed: {statistics.median(b for _, b in pairs):.2f} GB/s")


if __name__ == "__main__":
    main()
