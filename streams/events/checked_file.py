"""The one way this package reads a file: every byte counted, one version of the file only, never past its end.

Not here: any format.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from streams.core.names import shown
from streams.errors import StorageError, Transfer2goError, data_bad, permanent
from streams.storage import oserrors
from streams.storage.posix_reader import READ_FLAGS, PosixReader

_GONE_WRONG = "fetch it again from its source, or check the file there"


class Positioned(io.RawIOBase):
    """A file that is read from `_at` on."""

    _at = 0

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class CheckedFile(Positioned):
    """A readable, seekable file object. `bytes_read` counts what was really read; `failed` is the last own error.

    A file changed while it is open is a StorageError, data-bad; so libraries that swallow errors are found out.
    """

    def __init__(self, path: str, version: str | None = None) -> None:
        super().__init__()
        self.path = path
        self.bytes_read = 0
        self.failed: StorageError | None = None
        self.lacks: Callable[[BaseException], str | None] = not_implemented
        """What a library's error says that the library cannot do; None where the file is at fault. Formats set it."""
        self.ready: tuple[int, bytes] | None = None  # what was read already and is asked for next: start and bytes
        try:
            fd = os.open(path, READ_FLAGS)
        except OSError as error:
            raise oserrors.reading(error, path) from error
        except ValueError as error:
            raise permanent("no such file: its name holds a NUL", shown(path)) from error
        self._reader = PosixReader(fd, path, path, version)
        self.bytes = self._reader.stat.bytes
        self.version = self._reader.stat.version

    def reader(self) -> PosixReader:
        """Another reader of the same open file, which outlives this one."""
        return PosixReader(os.dup(self._reader.descriptor), self.path, self.path, self.version)

    def pread(self, start: int, stop: int) -> bytes:
        """The bytes `[start, stop)` as far as the file has them."""
        start, stop = max(0, int(start)), min(int(stop), self.bytes)
        if self.ready is not None:
            (begin, block), self.ready = self.ready, None
            if begin == start and len(block) == stop - start:
                return block
        if start >= stop:
            return b""
        try:
            block = self._reader.pread(start, stop - start)
        except StorageError as error:
            self.failed = error
            raise
        self.bytes_read += len(block)
        return block

    def read(self, size: int | None = -1) -> bytes:
        stop = self.bytes if size is None or size < 0 else self._at + size
        block = self.pread(self._at, stop)
        self._at += len(block)
        return block

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        block = self.read(view.nbytes)
        view[: len(block)] = block
        return len(block)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"a seek to {base + offset}")
        self._at = base + offset
        return self._at

    def size(self) -> int:
        return self.bytes

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Whatever a library raises becomes one StorageError: permanent where `lacks` knows it, else data-bad."""
        try:
            yield
        except (Transfer2goError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # the decompressors' panics are no Exceptions
            if self.failed is not None:
                raise self.failed from error
            lack = self.lacks(error)
            if lack is not None:
                raise unsupported(f"{doing}: {NOT_SUPPORTED}{lack}", self.path) from error
            raise data_bad(f"{doing}: {in_words(error, self.path)}", self.path, _GONE_WRONG) from error


NOT_SUPPORTED = "not supported: "
"""Begins what may be whole and is not read here, which no other source can mend."""


def unsupported(what: str, path: str, next: str = "") -> StorageError:
    """A file that may be whole and that cannot be read: permanent, and never "fetch it again"."""
    then = next or "convert it, or transfer the whole file"
    return permanent(what, path, then)


def not_implemented(error: BaseException) -> str | None:
    """What every library here raises for what it never learned, or needs another package for."""
    return in_words(error) if isinstance(error, NotImplementedError | ImportError) else None


def in_words(error: BaseException, path: str = "") -> str:
    """The first line of what a library said, safe to show, without the path."""
    told = getattr(error, "message", None) or error  # uproot's errors tell a long story around it
    lines = [line.strip() for line in str(told).replace(path or "\0", "the file").splitlines() if line.strip()]
    said = lines[0] if lines else ""
    if isinstance(error, MemoryError):
        return "it claims more than fits into memory"
    if said.startswith("expected Chunk of length"):
        return "it ends before what it says it holds"
    if isinstance(error, RecursionError):
        return "it holds itself over and over"
    if isinstance(error, AssertionError):
        return "what it says of itself does not agree"
    if isinstance(error, KeyError | IndexError) or not said:
        said = f"{type(error).__name__} {said}".strip()
    return shown(said)
