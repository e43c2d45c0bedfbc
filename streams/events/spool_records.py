"""The records of a spool: how one lies in the file, which one each entry is taken from, which are still in memory.

See spool.py. Not here: payloads, schemas, syncing, locking.
"""

from __future__ import annotations

import errno
import os
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Self

import pyarrow as pa

from streams.core.ranges import Ranges, Span
from streams.storage.checksums import crc32c, gaps_between

RECORD_BYTES_MAX = 32 * 1024 * 1024
"""Of one payload as it came; a length beyond is no record's."""

_FILE = struct.Struct("<8s8s")  # magic, salt
_MAGIC = b"t2gspl01"
_RECORD = struct.Struct("<4sIQQII")  # magic, bytes of the payload, start, stop, its crc32c, crc32c of salt and these
_RECORD_MAGIC = b"ents"
FILE_HEAD_BYTES = _FILE.size
HEAD_BYTES = _RECORD.size


def file_head(salt: bytes) -> bytes:
    """`salt`: 8 bytes."""
    return _FILE.pack(_MAGIC, salt)


def salt_of(head: bytes) -> bytes | None:
    """The salt of a spool, or None where a file is none."""
    magic, salt = _FILE.unpack(head)
    return salt if magic == _MAGIC else None


@dataclass(frozen=True, slots=True)
class SpoolHead:
    """Of a record: the length of its payload in bytes, its entries, its crc32c."""

    length: int
    start: int
    stop: int
    crc32c: int

    def packed(self, salt: bytes) -> bytes:
        """The salt is not written with it: nobody who sends a payload can make up a record inside."""
        head = _RECORD.pack(_RECORD_MAGIC, self.length, self.start, self.stop, self.crc32c, 0)[:-4]
        return head + struct.pack("<I", crc32c(salt + head))

    @classmethod
    def parsed(cls, head: bytes, salt: bytes) -> Self | None:
        """None where it is not a head of this spool."""
        magic, length, start, stop, checksum, own = _RECORD.unpack(head)
        if magic != _RECORD_MAGIC or length > RECORD_BYTES_MAX or start > stop or own != crc32c(salt + head[:-4]):
            return None
        return cls(length, start, stop, checksum)


class Cover:
    """What is taken, as the fewest spans; a change costs no more with many gaps. May be shared by threads."""

    def __init__(self) -> None:
        self._starts, self._stops = array("Q"), array("Q")
        self._lock = Lock()

    def missing(self, start: int, stop: int) -> list[Span]:
        """The parts of `[start, stop)` not taken, in order."""
        with self._lock:
            return gaps_between(self._starts, self._stops, start, stop)

    def add(self, start: int, stop: int) -> None:
        """Take `[start, stop)`, which is not empty; what it touches becomes one span with it."""
        with self._lock:
            low, high = bisect_left(self._stops, start), bisect_right(self._starts, stop)
            if low < high:
                start, stop = min(start, self._starts[low]), max(stop, self._stops[high - 1])
            self._starts[low:high] = array("Q", [start])
            self._stops[low:high] = array("Q", [stop])

    def ranges(self) -> Ranges:
        with self._lock:
            return Ranges(zip(self._starts, self._stops, strict=True))


class Index:
    """Which record each entry is taken from: disjoint spans in order, 32 bytes each. May be shared by threads."""

    def __init__(self) -> None:
        self._starts, self._stops, self._offsets, self._lengths = array("Q"), array("Q"), array("Q"), array("Q")
        self._lock = Lock()

    def add(self, start: int, stop: int, offset: int, length: int) -> None:
        """Take `[start, stop)`, in no span so far, from the record at `offset` with a payload of `length` bytes."""
        with self._lock:
            at = bisect_right(self._starts, start)
            self._starts.insert(at, start)
            self._stops.insert(at, stop)
            self._offsets.insert(at, offset)
            self._lengths.insert(at, length)

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Start, stop, record offset and payload length of the spans in `[start, stop)`, cut to it."""
        while start < stop:
            with self._lock:
                at = bisect_right(self._stops, start)
                if at == len(self._starts) or self._starts[at] >= stop:
                    return
                begin, end = max(start, self._starts[at]), min(stop, self._stops[at])
                found = begin, end, self._offsets[at], self._lengths[at]
            yield found
            start = end


class Recent:
    """Batches that were written last, while they are still in memory: what follows closely need not read them back.

    One for all spools of a process, so that `bytes_max` bounds them together. May be shared by threads.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._kept: OrderedDict[tuple[int, int], tuple[int, pa.RecordBatch, int]] = OrderedDict()
        self._lock = Lock()

    def keep(self, spool: int, offset: int, first: int, batch: pa.RecordBatch, size: int) -> None:
        """The batch, of `size` bytes, of the record at `offset` of a spool (some number of its own).

        `first` is its first entry.
        """
        with self._lock:
            self._kept[spool, offset] = (first, batch, size)
            self.bytes += size
            while self.bytes > self.bytes_max:
                _, (_, _, freed) = self._kept.popitem(last=False)
                self.bytes -= freed

    def take(self, spool: int, offset: int) -> tuple[int, pa.RecordBatch] | None:
        """First entry and batch, which is not kept any longer; or None."""
        with self._lock:
            first, batch, size = self._kept.pop((spool, offset), (0, None, 0))
            self.bytes -= size
        return None if batch is None else (first, batch)

    def forget(self, spool: int) -> None:
        with self._lock:
            for key in [key for key in self._kept if key[0] == spool]:
                self.bytes -= self._kept.pop(key)[2]


def pread_all(fd: int, length: int, offset: int) -> bytes:
    """Exactly `length` bytes, or OSError."""
    block = os.pread(fd, length, offset)
    while len(block) < length:
        more = os.pread(fd, length - len(block), offset + len(block))
        if not more:
            raise OSError(errno.EIO, "the file ends early")
        block += more
    return block


def pwrite_all(fd: int, pieces: list[bytes | memoryview], offset: int) -> None:
    """All of the pieces, one after the other, or OSError (some of it is written then)."""
    views = [memoryview(piece).cast("B") for piece in pieces]
    while views:
        written = os.pwritev(fd, views, offset)
        if written <= 0:
            raise OSError(errno.EIO, "a write of nothing")
        offset += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
