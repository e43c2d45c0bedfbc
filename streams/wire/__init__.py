"""Bytes ⇄ messages: the one gate. Nothing enters or leaves a log but through here; no Kafka client, no decisions.

`canonical` reads a record in one pass, `avro` turns its class into plain values, `manifest_bytes` reads a manifest
without building it, `release` is the number of this release.

A value is a Confluent frame: 0x00, int32 schema id, Avro body. Header `avro-fp` carries the schema's fingerprint,
`t2g-origin` a framed Origin, `t2g-chunk` of a payload record a framed ChunkHeader. Reading: caps, frame, fingerprint,
canonical bytes with legal fields, then meaning. What is odd is read once more, by fastavro, and encoded again to
compare (fastavro takes malformed input). What fails is a WireError
whose `what` is one line that names the field; nothing else is ever raised by `decode` and `decode_chunk`.

A schema that evolved is read with its writer's version and resolved to ours; writer schemas come from the package,
never off the wire.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, wraps
from io import BytesIO
from typing import Any, ParamSpec, TypeVar, get_args

import fastavro

import schemas
from streams.core import records, topics
from streams.core.chain import Link
from streams.core.names import Destination, ManifestId, Site, Text, shown
from streams.core.policy import HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX
from streams.core.records import (
    ChunkHeader,
    DeadLetter,
    Item,
    ManifestWritten,
    Message,
    Origin,
    Route,
    TransferIntent,
    TransferPlanned,
    limits,
)
from streams.core.varint import packed
from streams.errors import InvalidName, WireError
from streams.wire import avro, canonical, manifest_bytes

FINGERPRINT, ORIGIN, CHUNK = "avro-fp", "t2g-origin", "t2g-chunk"
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
REMEMBERED_MAX, REMEMBERED_BYTES_MAX = 2048, 1024
"""Records that are kept decoded, and the largest of them: some 10 MB."""
_FRAME = struct.Struct(">bi")
_LINE_CHARS = 399

M = TypeVar("M")
T = TypeVar("T")
P = ParamSpec("P")

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Heard:
    """A record that passed the gate."""

    message: Message
    origin: Origin


@dataclass(frozen=True, slots=True)
class HeardChunk:
    """A payload record that passed the gate; its bytes are the record's value, checked by nobody yet."""

    header: ChunkHeader
    origin: Origin


@dataclass(frozen=True, slots=True)
class HeardOutline:
    """A manifest whose head passed the gate; its items were counted, not judged."""

    outline: manifest_bytes.Outline
    origin: Origin


@dataclass(frozen=True, slots=True)
class Framed:
    """A record that is encoded already, for who has its bytes: its class, topic and key, and the framed value."""

    cls: type
    topic: str
    key: bytes
    value: bytes


class _Version:
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
        self.frame = _FRAME.pack(0, number)
        self.build = avro.reader(cls)
        self.plain = avro.writer(cls, checked=True)
        self.bytes_max = _BYTES_MAX.get(cls, RECORD_BYTES_MAX)

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
            raise _refusal(f"{len(framed)} bytes, over the cap of {self.bytes_max}")
        record = self.read(framed)
        try:
            why = records.fault(record)
        except (InvalidName, ValueError, KeyError) as error:
            raise _refusal(str(error)) from error
        except MemoryError:  # this machine's fault, not the record's
            raise
        except Exception as error:
            raise _refusal(f"the gate failed: {type(error).__name__}: {error}") from error
        if why is not None:
            raise _refusal(why)
        return record

    def read(self, framed: bytes) -> Any:
        """The record in a frame of this id: canonical bytes and legal fields, which may contradict each other."""
        found = self.at_once(framed)
        return self.read_by_fastavro(framed) if found is None else found

    def at_once(self, framed: bytes) -> Any:
        """The same, None where it is of an older version or anything about it is odd: what, says the longer way."""
        if self.canonical is None or type(framed) is not bytes:
            return None
        try:
            return self.canonical(framed, _FRAME.size)
        except canonical.Odd:
            return None

    def read_by_fastavro(self, framed: bytes) -> Any:
        """The same of every version, with words for what is refused."""
        try:
            found = BytesIO(framed)
            found.seek(_FRAME.size)
            plain: Any = fastavro.schemaless_reader(found, self.written, None)
            again = BytesIO()
            again.write(self.frame)
            fastavro.schemaless_writer(again, self.written, plain)
        except MemoryError:
            raise
        except Exception as error:
            raise _refusal(f"malformed Avro: {type(error).__name__}: {error}") from error
        if again.getvalue() != framed:
            raise _refusal("non-canonical Avro: encoding it again gives other bytes")
        try:
            if self.written is not self.newest:
                found.seek(_FRAME.size)
                plain = fastavro.schemaless_reader(found, self.written, self.newest)
            return self.build(plain)
        except (InvalidName, ValueError, KeyError) as error:
            raise _refusal(avro.fault(self.cls, plain) or str(error)) from error
        except MemoryError:
            raise
        except Exception as error:
            raise _refusal(f"the gate failed: {type(error).__name__}: {error}") from error


_RECORDS: tuple[type, ...] = (*get_args(Message), Origin, ChunkHeader)
_BY_ID = {
    number: _Version(cls, number, schemas.load(cls.__name__, number), schemas.load(cls.__name__))
    for cls in _RECORDS
    for number in schemas.versions()[cls.__name__]
}
_BY_CLASS = {cls: _BY_ID[schemas.ids()[cls.__name__]] for cls in _RECORDS}


def encode(record: Message | Origin | ChunkHeader) -> bytes:
    """The framed value. WireError when it has no meaning or is over the cap: nobody could read it."""
    version = _BY_CLASS[type(record)]
    if (why := records.fault(record)) is not None:
        raise _refusal(f"{version.cls.__name__}.{why}")
    if (lost := next((name for name, default in version.later if getattr(record, name) != default), None)) is not None:
        raise _refusal(f"{version.cls.__name__}.{lost}: cannot be written yet, older sites could not read it")
    try:
        framed = version.encode(record)
    except (InvalidName, ValueError) as error:
        why = avro.fault(version.cls, avro.writer(version.cls)(record)) or str(error)
        raise _refusal(f"{version.cls.__name__}.{why}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise _refusal(f"{version.cls.__name__} cannot be encoded: {type(error).__name__}: {error}") from error
    if len(framed) > version.bytes_max:
        raise _refusal(f"{version.cls.__name__}: {len(framed)} bytes, over the cap of {version.bytes_max}")
    return framed


def framed(message: Message) -> Framed:
    """The record as it is published. WireError as `encode`."""
    key = records.key_of(message)
    return Framed(
        type(message), records.topic_of(message), key if isinstance(key, bytes) else key.encode(), encode(message)
    )


def headers(message: Message | type, origin: Origin) -> list[tuple[str, bytes]]:
    """The headers that a value of this record (or class of records) needs."""
    cls = message if isinstance(message, type) else type(message)
    return [(FINGERPRINT, _BY_CLASS[cls].fingerprint), (ORIGIN, encode(origin))]


def decode_value(cls: type[M], framed: bytes) -> M:
    """A record this site stored itself: its value alone, without topic, key or headers. WireError when refused."""
    version = _version(framed)
    if version.cls is not cls:
        raise _refusal(f"a {version.cls.__name__}, not a {cls.__name__}")
    record: M = version.decode(framed)
    return record


def decode_stored(cls: type[M], framed: bytes) -> M:
    """A record that passed the gate before this site stored it: read as it is, not judged a second time."""
    version = _version(framed)
    record: M | None = version.at_once(framed)
    if record is None:
        body = BytesIO(framed)
        body.seek(_FRAME.size)
        newest = None if version.written is version.newest else version.newest
        plain: Any = fastavro.schemaless_reader(body, version.written, newest)
        record = version.build(plain)
    return record


def planned(
    manifest: ManifestId,
    destination: Destination,
    decision_no: int,
    priority: int,
    plane: str | None,
    routes: tuple[Route, ...],
    body: bytes,
    *,
    repair: bool = False,
) -> TransferPlanned | Framed:
    """A TransferPlanned around the framed ManifestWritten `body`, which passed the gate: its bytes are not made anew.

    A body of an older version is: what a TransferPlanned holds is the newest.
    """
    version = _BY_CLASS[TransferPlanned]
    if not body.startswith(_BY_CLASS[ManifestWritten].frame):
        written = decode_stored(ManifestWritten, body)
        return TransferPlanned(manifest, destination, decision_no, priority, plane, routes, repair, written)
    key = manifest.encode()
    value = bytearray(version.frame)
    for text in (key, destination.encode()):
        value += packed(len(text)) + text
    value += packed(decision_no) + packed(priority)
    value += packed(0) if plane is None else packed(1) + packed(len(plane)) + plane.encode()
    if routes:
        value += packed(len(routes))
        for route in routes:
            for text in (route.site.encode(), route.plane.encode(), route.why.encode()):
                value += packed(len(text)) + text
    value += packed(0) + bytes([repair]) + memoryview(body)[_FRAME.size :]
    return Framed(TransferPlanned, topics.TRANSFERS, key, bytes(value))


def body_of(planned: bytes) -> bytes:
    """The framed ManifestWritten inside a framed TransferPlanned that passed the gate; see `planned`."""
    at = _texts_end(planned, _FRAME.size, 2)
    for _ in range(2):
        _, at = manifest_bytes.long(planned, at)
    fields = _version(planned).fields
    if "plane" in fields:
        given, at = manifest_bytes.long(planned, at)
        at = _texts_end(planned, at, given)
    count = 0
    if "routes" in fields:
        count, at = manifest_bytes.long(planned, at)
    while count:
        at = _texts_end(planned, at, 3 * count)
        count, at = manifest_bytes.long(planned, at)
    at += "repair" in fields
    return _frame_of_body(_version(planned).number) + planned[at:]


@cache
def _frame_of_body(number: int) -> bytes:
    """The frame of the ManifestWritten that a TransferPlanned of this schema id holds."""
    fields = {field["name"]: field["type"] for field in _BY_ID[number].written["fields"]}
    inside = schemas.fingerprint_of(fields["body"])
    return next(v.frame for v in _BY_ID.values() if v.cls is ManifestWritten and v.fingerprint == inside)


def _texts_end(value: bytes, at: int, count: int) -> int:
    """Behind so many texts."""
    for _ in range(count):
        length, at = manifest_bytes.long(value, at)
        at += length
    return at


def chunk_headers(header: ChunkHeader, origin: Origin) -> list[tuple[str, bytes]]:
    return [(CHUNK, encode(header)), (ORIGIN, encode(origin))]


def _refusing(read: Callable[P, T]) -> Callable[P, T]:
    """The same, with every failure a WireError, but for one that is this machine's fault and not the record's."""

    @wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except (WireError, MemoryError):
            raise
        except Exception as error:
            raise _refusal(f"the gate failed: {type(error).__name__}: {error}") from error

    return guarded


@_refusing
def decode(topic: str, key: bytes | None, value: bytes | None, headers: Headers | None, here: Site) -> Heard:
    """The record that stands in `topic` of `here`'s cluster. WireError, and nothing else, when it is refused.

    In a worker agents and view hear the same facts one after the other: a small one is decoded once.
    """
    if value is not None and len(value) <= REMEMBERED_BYTES_MAX:
        with suppress(TypeError):  # what has no hash is not remembered
            return _remembered(topic, key, value, tuple(headers or ()), here)
    return _decoded(topic, key, value, headers, here)


def _decoded(topic: str, key: bytes | None, value: bytes | None, headers: Headers | None, here: Site) -> Heard:
    if value is None:
        raise _refusal("no value: a tombstone means nothing in a journal")
    found = _headers(headers, FINGERPRINT, ORIGIN)
    version = _version(value)
    if found[FINGERPRINT] != version.fingerprint:
        what = "missing" if found[FINGERPRINT] is None else f"not that of schema id {version.number}"
        raise _refusal(f"header {FINGERPRINT}: {what}")
    come_from, base = _standing(topic, here)
    if not records.allowed_in(version.cls, base):
        raise _refusal(f"{version.cls.__name__} does not belong in topic {base}")
    message = version.decode(value)
    if not records.belongs_in(message, base):
        raise _refusal(f"{version.cls.__name__} belongs in topic {records.topic_of(message)}")
    wanted = records.key_of(message)
    if (key or b"") != (wanted if isinstance(wanted, bytes) else wanted.encode()):
        raise _refusal(f"key: not {shown(str(wanted))!r}")
    origin = _origin(found[ORIGIN], come_from)
    author = records.author(message)
    if author is not None and author != origin.site:
        raise _refusal(f"{version.cls.__name__} is the word of {author}, not of {origin.site}", author)
    return Heard(message, origin)


_remembered = lru_cache(REMEMBERED_MAX)(_decoded)
decode_once = _refusing(_decoded)
"""As `decode`, for who hears no record twice."""


@_refusing
def decode_chunk(
    topic: str, key: bytes | None, value: bytes | memoryview | None, headers: Headers | None, here: Site
) -> HeardChunk:
    """A payload record's header and origin; `value` has as many bytes as the segments say. WireError when refused."""
    found = _headers(headers, CHUNK, ORIGIN)
    come_from, base = _standing(topic, here)
    header = _in_header(ChunkHeader, found[CHUNK], CHUNK)
    if base != topics.chunks_to(header.destination.site):
        raise _refusal(f"destination: {header.destination}, in topic {base}")
    if key != header.manifest.encode():
        raise _refusal(f"key: not {header.manifest!r}")
    size = sum(segment.size for segment in header.segments)
    if value is None or len(value) != size or size > PAYLOAD_BYTES_MAX:
        raise _refusal(f"value: not the {size} bytes of the segments")
    return HeardChunk(header, _origin(found[ORIGIN], come_from))


def decode_outline(
    topic: str, key: bytes | None, value: bytes | None, headers: Headers | None, here: Site, place: str = ""
) -> HeardOutline:
    """A manifest without its items, for who counts them and is not the one to refuse. WireError when refused."""
    if value is None:
        raise _refusal("no value: a tombstone means nothing in a journal")
    found = _headers(headers, FINGERPRINT, ORIGIN)
    version = _version(value)
    come_from, base = _standing(topic, here)
    if version.cls is not ManifestWritten or base != topics.MANIFESTS or found[FINGERPRINT] != version.fingerprint:
        raise _refusal(f"no manifest, in topic {base}")
    if len(value) > version.bytes_max:
        raise _refusal(f"{len(value)} bytes, over the cap of {version.bytes_max}")
    if version.written is version.newest:
        try:
            outline = manifest_bytes.read(value, _FRAME.size, place)
        except (InvalidName, ValueError, IndexError) as error:
            raise _refusal(f"malformed manifest: {error}") from error
    else:
        body = version.decode(value)
        outline = manifest_bytes.Outline(Link.of(body, place), tuple(sorted({str(i.dataset) for i in body.items})))
    link, origin = outline.link, _origin(found[ORIGIN], come_from)
    if max(link.source_no, link.no) > limits.NUMBER_MAX:
        raise _refusal(f"source_no and no: over {limits.NUMBER_MAX}")
    if (key or b"") != link.intent.encode():
        raise _refusal(f"key: not {link.intent!r}")
    if link.source != origin.site:
        raise _refusal(f"ManifestWritten is the word of {link.source}, not of {origin.site}", link.source)
    return HeardOutline(outline, origin)


def origin_site(headers: Headers | None) -> str:
    """Site named by the origin header of a record that may have been refused; "" when unreadable."""
    try:
        found = _headers(headers, ORIGIN)[ORIGIN]
        return "" if found is None else str(_in_header(Origin, found, ORIGIN).site)
    except WireError:
        return ""


def dead_letter(
    error: WireError,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None,
) -> DeadLetter:
    """What is kept of a refused record: always encodable, whatever it held."""
    return DeadLetter(
        reason=Text(shown(error.what, _LINE_CHARS)),
        topic=topic,
        partition=partition,
        offset=offset,
        key=bytes(key or b"")[: limits.KEY_BYTES_MAX],
        value=bytes(value or b"")[: limits.VALUE_BYTES_MAX],
        origin_site=origin_site(headers),
    )


def item_fault(item: Item) -> str | None:
    return avro.fault(Item, avro.writer(Item)(item)) or records.item_fault(item, in_bytes=True)


def _headers(headers: Headers | None, *wanted: str) -> dict[str, bytes | None]:
    """The wanted headers, each None when missing; refused when all are too large or a wanted one comes twice."""
    found: dict[str, bytes | None] = dict.fromkeys(wanted)
    size = 0
    for name, value in headers or ():
        size += len(name) + len(value or b"")
        if name in found:
            if found[name] is not None:
                raise _refusal(f"header {name}: comes twice")
            found[name] = value
    if size > HEADER_BYTES_MAX:
        raise _refusal(f"headers: {size} bytes, over the cap of {HEADER_BYTES_MAX}")
    return found


def _version(framed: bytes) -> _Version:
    if len(framed) < _FRAME.size or framed[0] != 0:
        raise _refusal("not a frame of 0x00, schema id, Avro")
    number = _FRAME.unpack_from(framed)[1]
    version = _BY_ID.get(number)
    if version is None:
        raise _refusal(f"unknown schema id {number}")
    return version


def _in_header(cls: type[M], framed: bytes | None, header: str) -> M:
    if framed is None:
        raise _refusal(f"header {header}: missing")
    try:
        return decode_value(cls, framed)
    except WireError as error:
        raise _refusal(f"header {header}: {error.what}") from error


def _standing(topic: str, here: Site) -> tuple[Site, str]:
    """(site whose records stand in a topic of `here`, the topic's local name)."""
    try:
        peer, base = topics.split(topic)
    except InvalidName as error:
        raise _refusal(f"topic {shown(topic)!r}: {error.what}") from error
    if peer is None:
        return here, base
    if peer == here:
        raise _refusal(f"topic {topic}: a copy of this site's own topic")
    if base in (topics.TRANSFERS, topics.DEAD_LETTERS):
        raise _refusal(f"topic {topic}: is never mirrored")
    return peer, base


def _origin(framed: bytes | None, come_from: Site) -> Origin:
    origin = _in_header(Origin, framed, ORIGIN)
    if origin.site != come_from:
        raise _refusal(f"header {ORIGIN}: site {origin.site}, in a topic of {come_from}", origin.site)
    return origin


def _refusal(what: str, speaks_for: Site | None = None) -> WireError:
    """`speaks_for`: in whose name another site wrote the record."""
    return WireError(shown(what, _LINE_CHARS), speaks_for=speaks_for)
