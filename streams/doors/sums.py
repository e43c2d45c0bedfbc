"""Checksums of a file's blocks: by them, who has a damaged copy fetches the blocks that differ and no others."""

from __future__ import annotations

from typing import NamedTuple

from streams.storage.checksums import ADLER32_EMPTY, adler32, crc32c
from streams.storage.endpoint import Reader

BLOCK_BYTES = 8 * 1024 * 1024
"""A wrong bit costs so much: of 1 TB the sums are 1 MB."""
_READ_BYTES = 1024 * 1024


class BlockSums(NamedTuple):
    crc32c: int
    adler32: int


def sums_of(view: memoryview) -> BlockSums:
    """Of one block."""
    return BlockSums(crc32c(view), adler32(view))


def block_sums(reader: Reader, start: int, stop: int) -> list[BlockSums]:
    """Of `[start, stop)` of a file, in blocks from `start` on, the last one shorter. Raises what reading raises."""
    found: list[BlockSums] = []
    buffer = memoryview(bytearray(min(_READ_BYTES, max(1, stop - start))))
    for block in range(start, stop, BLOCK_BYTES):
        crc, adler = 0, ADLER32_EMPTY
        end = min(block + BLOCK_BYTES, stop)
        for at in range(block, end, len(buffer)):
            piece = buffer[: min(len(buffer), end - at)]
            reader.readinto(at, piece)
            crc, adler = crc32c(piece, crc), adler32(piece, adler)
        found.append(BlockSums(crc, adler))
    return found
