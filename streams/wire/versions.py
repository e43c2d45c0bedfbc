"""The versions of every record: how each is written, and read back from its bytes. What stands around them is not here.

What is refused is a WireError with one line of words.
"""

from __future__ import annotations

import dataclasses
import struct
from functools import cached_property
from io import BytesIO
from typing import Any, get_args

import fastavro

import schemas
from streams.core import records
from streams.core.names import Site, shown
from streams.core.policy import HEADER_BYTES_MAX, RECORD_BYTES_MAX
from streams.core.records import ChunkHeader, ManifestWritten, Message, Origin, TransferIntent
from streams.errors import InvalidName, WireError
from streams.wire import avro, canonical

CHUNK_HEADER_BYTES_MAX = HEADER_BYTES_MAX - 1024
"""What is left of the header cap beside the origin."""
NESTED_BYTES_MAX = RECORD_BYTES_MAX - 8 * 1024
"""Cap of records that travel inside another (a manifest in TransferPlanned, an intent in IntentDecided)."""

_BYTES_MAX: dict[type, int] = {
    ManifestWritten: NESTED_BYTES_MAX,
    TransferIntent: NESTED_BYTES_MAX,
    Origin: CHUNK_HEADER_BYTES_MAX,
    ChunkHeader: CHUNK_HEADER_BYTES_MAX,
}
FRAME = struct.Struct(">bi")
"""0x00, and the schema's id."""
LINE_CHARS = 399


def refusal(what: str, speaks_for: Site | None = None) -> WireError:
    """`speaks_for`: in whose name another site wrote the record."""
    return WireError(shown(what, LINE_CHARS), speaks_for=speaks_for)


class Version:
    """One schema id: how to write with it, and how to read what was written with it."""

    def __init__(self, cls: type, number: int, written: schemas.Schema, newest: schemas.Schema) -> None:
        self.cls = cls
        self.number = number
        self.written = written
        self.newest = newest
        self.fields = frozenset(field["name"] for field in written["fields"])
        self.later = tuple((f.name, f.default) for f in dataclasses.fields(cls) if f.name not in self.fields)
        """Fields that this version cannot say, with what it means by not saying them."""
        self.fingerprint = schemas.fingerprint_of(written)
        self.frame = FRAME.pack(0, number)
        self.build = avro.reader(cls)
        self.plain = avro.writer(cls, checked=True)
        self.bytes_max = _BYTES_MAX.get(cls, RECORD_BYTES_MAX)
        self.check = records.check_of(cls)
        self.stands = records.registered_as(cls)
        """None of what stands in a header."""

    @cached_property
    def canonical(self) -> canonical.Reader | None:
        """Made when it is first needed: most processes read few records."""
        return canonical.reader(self.cls) if self.written is self.newest else None

    def encode(self, record: Any) -> bytes:
        out = BytesIO()
        out.write(self.frame)
        fastavro.schemaless_writer(out, self.written, self.plain(record))
        return out.getvalue()

    def decode(self, framed: bytes) -> Any:
        """The record in a frame of this id: canonical bytes, legal fields, meaning."""
        if len(framed) > self.bytes_max:
            raise refusal(f"{len(framed)} bytes, over the cap of {self.bytes_max}")
        record = self.at_once(framed)
        if record is None:
            record = self.read_by_fastavro(framed)
        if self.check is None:
            return record
        try:
            why = self.check(record)
        except (InvalidName, ValueError, KeyError) as error:
            raise refusal(str(error)) from error
        except MemoryError:  # this machine's fault, not the record's
            raise
        except Exception as error:
            raise refusal(f"the gate failed: {type(error).__name__}: {error}") from error
        if why is not None:
            raise refusal(why)
        return record

    def at_once(self, framed: bytes) -> Any:
        """The record in a frame of this id: canonical bytes and legal fields, which may contradict each other.

        None where it is of an older version, or anything about it is odd: what, says the longer way.
        """
        if self.canonical is None or type(framed) is not bytes:
            return None
        try:
            return self.canonical(framed, FRAME.size)
        except canonical.Odd:
            return None

    def decode_stored(self, framed: bytes) -> Any:
        """A record that passed the gate before: it is not judged again."""
        record = self.at_once(framed)
        if record is None:
            body = BytesIO(framed)
            body.seek(FRAME.size)
            newest = None if self.written is self.newest else self.newest
            plain: Any = fastavro.schemaless_reader(body, self.written, newest)
            record = self.build(plain)
        return record

    def read_by_fastavro(self, framed: bytes) -> Any:
        """The same of every version, with words for what is refused."""
        try:
            found = BytesIO(framed)
            found.seek(FRAME.size)
            plain: Any = fastavro.schemaless_reader(found, self.written, None)
            again = BytesIO()
            again.write(self.frame)
            fastavro.schemaless_writer(again, self.written, plain)
        except MemoryError:
            raise
        except Exception as error:
            raise refusal(f"malformed Avro: {type(error).__name__}: {error}") from error
        if again.getvalue() != framed:
            raise refusal("non-canonical Avro: encoding it again gives other bytes")
        try:
            if self.written is not self.newest:
                found.seek(FRAME.size)
                plain = fastavro.schemaless_reader(found, self.written, self.newest)
            return self.build(plain)
        except (InvalidName, ValueError, KeyError) as error:
            raise refusal(avro.fault(self.cls, plain) or str(error)) from error
        except MemoryError:
            raise
        except Exception as error:
            raise refusal(f"the gate failed: {type(error).__name__}: {error}") from error


RECORDS: tuple[type, ...] = (*get_args(Message), Origin, ChunkHeader)
BY_ID = {
    number: Version(cls, number, schemas.load(cls.__name__, number), schemas.load(cls.__name__))
    for cls in RECORDS
    for number in schemas.versions()[cls.__name__]
}
BY_CLASS = {cls: BY_ID[schemas.ids()[cls.__name__]] for cls in RECORDS}


def version_of(framed: bytes) -> Version:
    """Of a frame; refused where it is none, or its id is not known."""
    if len(framed) < FRAME.size or framed[0] != 0:
        raise refusal("not a frame of 0x00, schema id, Avro")
    number = FRAME.unpack_from(framed)[1]
    version = BY_ID.get(number)
    if version is None:
        raise refusal(f"unknown schema id {number}")
    return version
