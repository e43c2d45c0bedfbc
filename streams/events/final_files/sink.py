"""Final files that one of Arrow's writers fills front to back: where it writes to, and the schema it is given."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from streams.events.final_files.final_file import FinalFile
from streams.storage.checksums import ADLER32_EMPTY, adler32
from streams.storage.writeback import UncachedWrites

_WRITE_BYTES = 1 << 20


class ArrowWritten(FinalFile):
    """`schema` has the metadata too; `_writer` is for who knows the format to open, over `_sink`."""

    _writer: Any

    def __init__(self, fd: int, schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        self._sink = _Sink(fd)
        self.schema = _stored_schema(schema, metadata)

    def close(self) -> tuple[int, int]:
        self._writer.close()
        self._sink.drain()
        return self._sink.bytes, self._sink.adler

    def abandon(self) -> None:
        self._sink.dead = True
        self._writer.close()


def _stored_schema(schema: pa.Schema, more: Mapping[str, str]) -> pa.Schema:
    """With its own metadata and more, in an order that does not depend on who sent it."""
    metadata = {**(schema.metadata or {}), **{key.encode(): value.encode() for key, value in more.items()}}
    fields = [field.with_metadata(_sorted(field.metadata)) if field.metadata else field for field in schema]
    return pa.schema(fields, _sorted(metadata))


def metadata_in(schema: pa.Schema) -> dict[str, str]:
    """What `ArrowWritten` put there, as text."""
    return {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}


class _Sink(io.RawIOBase):
    """A descriptor as a file that only grows, with its adler32. `drain` at the end writes what is still held.

    It goes past the page cache in large writes: nobody reads a final file back at once, and new pages are what writing
    costs most. Once `dead`, it takes everything and keeps nothing: Arrow's writers want to end their file even then.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._held = bytearray()
        self._written = 0
        self._uncached = UncachedWrites()
        self.bytes = 0
        self.adler = ADLER32_EMPTY
        self.dead = False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.bytes

    def write(self, piece: Any, /) -> int:
        view = memoryview(piece).cast("B")
        self.bytes += len(view)
        if not self.dead:
            self.adler = adler32(view, self.adler)
            self._held += view
            if len(self._held) >= _WRITE_BYTES:
                self.drain()
        return len(view)

    def drain(self) -> None:
        held, self._held = memoryview(self._held), bytearray()
        try:
            while held:
                written = self._uncached.pwrite(self._fd, held, self._written)
                self._written += written
                held = held[written:]
        except OSError:
            self.dead = True
            raise


def _sorted(metadata: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return dict(sorted(metadata.items()))
