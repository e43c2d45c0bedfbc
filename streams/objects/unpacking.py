"""A gzip, bzip2, xz or zstd stream read once from front to back, with a limit on what it may become. Not here: tar.

Each may be several streams one after another, as `cat` makes them, with zeros between.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from streams.errors import StorageError
from streams.events.checked_file import NOT_SUPPORTED, CheckedFile, Positioned, unsupported
from streams.events.packing import HEAD_BYTES, packing_of
from streams.objects.limits import bomb, damaged, unpacked_max

READ_BYTES = 1 << 18
BLOCK_BYTES = 1 << 18
KEPT_BYTES = 1024
"""tarfile looks back by one header and a byte."""
ASKED_BYTES_MAX = 1 << 20
"""Of one read: the tables of a tar archive are smaller, and it is what is held."""
XZ_MEMORY_BYTES = 256 << 20
"""What a decoder may take: xz -9 needs 65 MB."""
UNPACKING_ERRORS = (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError)
"""What the decoders raise."""
_LACKS = (
    ("memory", "it needs too much memory"),
    ("dictionary mismatch", "it is packed with a dictionary of its own"),
    ("unsupported", "it is packed in a way that is not known here"),
    ("unknown compression method", "it is packed in a way that is not known here"),
)
"""The decoders say in words only what they cannot do."""


def cannot_unpack(error: BaseException, what: str, path: str) -> StorageError:
    """A decoder's error as one of the file: permanent for what it cannot do, else data-bad."""
    if isinstance(error, StorageError):
        return error
    said = str(error).lower()
    for word, lack in _LACKS:
        if word in said:
            return unsupported(f"cannot unpack {what}: {NOT_SUPPORTED}{lack}", path, "unpack it yourself")
    if "truncated" in said:
        return damaged(f"{what} ends in its middle", path)
    return damaged(f"cannot unpack {what}: it is corrupt", path)


class Zlib:
    """zlib's decoder behind the interface that bz2 and lzma have. `form`: 31 for gzip, -15 for no head at all."""

    def __init__(self, form: int) -> None:
        self._decoder = zlib.decompressobj(form)

    def decompress(self, packed: bytes, most: int) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + packed, most)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data


_DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: Zlib(31),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES),
}


class Zstd:
    """Arrow's decoder of zstd frames, which asks for what it needs; its window has 128 MB at most."""

    def __init__(self, file: CheckedFile, start: int, stop: int) -> None:
        import pyarrow as pa

        self._file, self._at, self._stop = file, start, stop
        self.closed = False
        self._stream = pa.CompressedInputStream(pa.PythonFile(self, mode="r"), "zstd")

    def read(self, size: int = READ_BYTES) -> bytes:
        """Packed bytes, for Arrow."""
        block = self._file.pread(self._at, min(self._stop, self._at + size))
        self._at += len(block)
        return block

    def unpacked(self, most: int) -> bytes:
        """At most so many bytes; none at the end."""
        block: bytes = self._stream.read(most)
        return block

    def close(self) -> None:
        self.closed = True


class Forward(Positioned):
    """A file that is read from the front to the back."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            raise io.UnsupportedOperation("a seek to the end")
        self._at = offset + (self._at if whence == os.SEEK_CUR else 0)
        return self._at


class Unpacked(Forward):
    """The unpacked bytes as a file that seeks forward, and back within the last block and `KEPT_BYTES` before it.

    StorageError: data-bad for a stream that is cut or corrupt, permanent for one that becomes too much.
    """

    def __init__(self, file: CheckedFile, packing: str) -> None:
        super().__init__()
        self._file, self._packing = file, packing
        self._most = unpacked_max(file.bytes)
        self._zstd = Zstd(file, 0, file.bytes) if packing == "zstd" else None
        self._decoder = None if packing == "zstd" else _DECODERS[packing]()
        self._packed_at = 0
        self._over = False
        self._block, self._start = b"", 0

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end."""
        if size is None or size < 0 or size > ASKED_BYTES_MAX:
            raise damaged("a table of the archive is larger than any real one", self._file.path)
        pieces = []
        while size and self._reach(self._at):
            begin = self._at - self._start
            piece = self._block[begin : begin + size]
            pieces.append(piece)
            self._at += len(piece)
            size -= len(piece)
        return b"".join(pieces)

    def blocks(self) -> Iterator[bytes]:
        """All of it, from the front."""
        while block := self.read(BLOCK_BYTES):
            yield block

    def drain(self, most: int | None = None) -> None:
        """Read to the end of the stream, whose checksum is there, or until so many bytes are unpacked."""
        while not self._over and (most is None or self._start + len(self._block) < most):
            self._next()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if super().seek(offset, whence) < self._start:
            raise io.UnsupportedOperation("a seek back")
        return self._at

    def _reach(self, at: int) -> bool:
        """Unpack until the block has the byte at `at`; False if the stream ends before."""
        while at >= self._start + len(self._block):
            if self._over:
                return False
            self._next()
        return True

    def _next(self) -> None:
        """The next block; an empty one where the decoder has nothing yet."""
        try:
            block = self._decode()
        except UNPACKING_ERRORS as error:
            raise cannot_unpack(error, f"the {self._packing} stream", self._file.path) from error
        if block:
            kept = self._block[-KEPT_BYTES:]
            self._start += len(self._block) - len(kept)
            self._block = kept + block
        if self._start + len(self._block) > self._most:
            raise bomb("the archive", self._file.bytes, self._most, self._file.path)

    def _decode(self) -> bytes:
        if self._zstd is not None:
            found = self._zstd.unpacked(BLOCK_BYTES)
            self._over = not found
            return found
        assert self._decoder is not None
        packed = b""
        if self._decoder.eof:
            return self._follow()
        if self._decoder.needs_input:
            packed = self._take()
            if not packed:
                raise damaged(f"the {self._packing} stream ends in its middle", self._file.path)
        block: bytes = self._decoder.decompress(packed, BLOCK_BYTES)
        return block

    def _follow(self) -> bytes:
        """After a stream's end: another one, zeros before it left out, or nothing. Other bytes are no part."""
        assert self._decoder is not None
        self._packed_at -= len(self._decoder.unused_data or b"")
        while (zeros := self._file.pread(self._packed_at, self._packed_at + READ_BYTES)) and not any(zeros):
            self._packed_at += len(zeros)
        self._packed_at += len(zeros) - len(zeros.lstrip(b"\0"))
        if packing_of(self._file.pread(self._packed_at, self._packed_at + HEAD_BYTES)) != self._packing:
            self._over = True
            return b""
        self._decoder = _DECODERS[self._packing]()
        return b""

    def _take(self) -> bytes:
        packed = self._file.pread(self._packed_at, self._packed_at + READ_BYTES)
        self._packed_at += len(packed)
        return packed
