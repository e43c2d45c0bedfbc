"""Bytes ⇄ messages: the one gate. Nothing enters or leaves a log but through here; no Kafka client, no decisions.

`versions` knows how each record is written and read, `canonical` reads one in one pass, `avro` turns its class into
plain values, `manifest_bytes` reads a manifest without building it, `origin_bytes` the origin of a writer that is
known, `release` is the number of this release.

A value is a Confluent frame: 0x00, int32 schema id, Avro body. Header `avro-fp` carries the schema's fingerprint,
`t2g-origin` a framed Origin, `t2g-chunk` of a payload record a framed ChunkHeader. Reading: caps, frame, fingerprint,
canonical bytes with legal fields, then meaning. What is odd is read once more, by fastavro, and encoded again to
compare (fastavro takes malformed input). What fails is a WireError whose `what` is one line that names the field;
nothing else is ever raised by `decode` and `decode_chunk`.

A schema that evolved is read with its writer's version and resolved to ours; writer schemas come from the package,
never off the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import schemas
from streams.core import records, topics
from streams.core.chain import Link
from streams.core.names import Destination, ManifestId, Site, Text, shown
from streams.core.policy import HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX
from streams.core.records import (
    ChunkHeader,
    DeadLetter,
    Item,
    ManifestWritten,
    Message,
    Origin,
    PlanOutline,
    Route,
    TransferPlanned,
    limits,
)
from streams.core.varint import packed
from streams.errors import InvalidName, WireError
from streams.wire import avro, canonical, manifest_bytes, origin_bytes
from streams.wire.versions import (
    BY_CLASS,
    BY_ID,
    FRAME,
    LINE_CHARS,
    Version,
    refusal,
    version_of,
)

FINGERPRINT, ORIGIN, CHUNK = "avro-fp", "t2g-origin", "t2g-chunk"
REMEMBERED_MAX, REMEMBERED_BYTES_MAX = 2048, 1024
"""Records that are kept decoded, and the largest of them: some 10 MB."""
PLACES_REMEMBERED = 1024
"""Versions in topics of a cluster."""

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
class HeardPlan:
    """A TransferPlanned that passed the gate, and whose manifest had passed it before."""

    message: PlanOutline
    origin: Origin


@dataclass(frozen=True, slots=True)
class Framed:
    """A record that is encoded already, for who has its bytes: its class, topic and key, and the framed value."""

    cls: type
    topic: str
    key: bytes
    value: bytes


def encode(record: Message | Origin | ChunkHeader) -> bytes:
    """The framed value. WireError when it has no meaning or is over the cap: nobody could read it."""
    version = BY_CLASS[type(record)]
    if (why := records.fault(record)) is not None:
        raise refusal(f"{version.cls.__name__}.{why}")
    if (lost := next((name for name, default in version.later if getattr(record, name) != default), None)) is not None:
        raise refusal(f"{version.cls.__name__}.{lost}: cannot be written yet, older sites could not read it")
    try:
        framed = version.encode(record)
    except (InvalidName, ValueError) as error:
        why = avro.fault(version.cls, avro.writer(version.cls)(record)) or str(error)
        raise refusal(f"{version.cls.__name__}.{why}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise refusal(f"{version.cls.__name__} cannot be encoded: {type(error).__name__}: {error}") from error
    if len(framed) > version.bytes_max:
        raise refusal(f"{version.cls.__name__}: {len(framed)} bytes, over the cap of {version.bytes_max}")
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
    return [(FINGERPRINT, BY_CLASS[cls].fingerprint), (ORIGIN, encode(origin))]


def decode_value(cls: type[M], framed: bytes) -> M:
    """A record this site stored itself: its value alone, without topic, key or headers. WireError when refused."""
    version = version_of(framed)
    if version.cls is not cls:
        raise refusal(f"a {version.cls.__name__}, not a {cls.__name__}")
    record: M = version.decode(framed)
    return record


def decode_stored(cls: type[M], framed: bytes) -> M:
    """A record that passed the gate before this site stored it: read as it is, not judged a second time."""
    version = version_of(framed)
    record: M = version.decode_stored(framed)
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
    version = BY_CLASS[TransferPlanned]
    if not body.startswith(BY_CLASS[ManifestWritten].frame):
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
    value += packed(0) + bytes([repair]) + memoryview(body)[FRAME.size :]
    return Framed(TransferPlanned, topics.TRANSFERS, key, bytes(value))


def body_of(planned: bytes) -> bytes:
    """The framed ManifestWritten inside a framed TransferPlanned that passed the gate; see `planned`."""
    at = _texts_end(planned, FRAME.size, 2)
    for _ in range(2):
        _, at = manifest_bytes.long(planned, at)
    fields = version_of(planned).fields
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
    return _frame_of_body(version_of(planned).number) + planned[at:]


@cache
def _frame_of_body(number: int) -> bytes:
    """The frame of the ManifestWritten that a TransferPlanned of this schema id holds."""
    fields = {field["name"]: field["type"] for field in BY_ID[number].written["fields"]}
    inside = schemas.fingerprint_of(fields["body"])
    return next(v.frame for v in BY_ID.values() if v.cls is ManifestWritten and v.fingerprint == inside)


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
            raise refusal(f"the gate failed: {type(error).__name__}: {error}") from error

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
        raise refusal("no value: a tombstone means nothing in a journal")
    found = _headers(headers, FINGERPRINT, ORIGIN)
    placed = _placed(bytes(value[: FRAME.size]), _bytes(found[FINGERPRINT]), topic, here)
    message = placed.version.decode(value)
    return Heard(message, _written(placed, message, key, found[ORIGIN]))


_remembered = lru_cache(REMEMBERED_MAX)(_decoded)
decode_once = _refusing(_decoded)
"""As `decode`, for who hears no record twice."""


def decode_plan(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None,
    here: Site,
    is_legal: Callable[[bytes], bool],
) -> HeardPlan | None:
    """A TransferPlanned without its manifest, which `is_legal`: known by the bytes that `manifest_in` gives.

    None for any other record, and for a plan that is refused: `decode_once` says why.
    """
    if value is None or (found := _plan_in(value)) is None:
        return None
    plan, at = found
    if not is_legal(value[at:]) or plan.manifest != _manifest_at(value, at) or records.fault(plan) is not None:
        return None
    try:
        stands = _headers(headers, FINGERPRINT, ORIGIN)
        placed = _placed(value[: FRAME.size], stands[FINGERPRINT], topic, here)
        return HeardPlan(plan, _written(placed, plan, key, stands[ORIGIN]))
    except WireError:
        return None


def manifest_in(value: bytes) -> bytes | None:
    """The Avro of a ManifestWritten, or of the one in a TransferPlanned; None of any other, and of older versions."""
    if value.startswith(BY_CLASS[ManifestWritten].frame):
        return value[FRAME.size :]
    found = _plan_in(value)
    return None if found is None else value[found[1] :]


def _plan_in(value: bytes) -> tuple[PlanOutline, int] | None:
    """What stands before the manifest of a TransferPlanned, and where that begins."""
    version = BY_CLASS[TransferPlanned]
    if not value.startswith(version.frame) or len(value) > version.bytes_max:
        return None
    try:
        return canonical.head_reader(PlanOutline)(value, FRAME.size)
    except canonical.Odd:
        return None


def _manifest_at(value: bytes, at: int) -> str:
    """The name of the legal manifest whose Avro begins there."""
    end = _texts_end(value, at, 1)
    _, start = manifest_bytes.long(value, at)
    source_no, behind = manifest_bytes.long(value, _texts_end(value, end, 1))
    no, _ = manifest_bytes.long(value, behind)
    return f"{value[start:end].decode()}.{source_no}.{no}"


def _bytes(held: bytes | None) -> bytes | None:
    """The same as what has a hash."""
    return None if held is None else bytes(held)


class _Placed(NamedTuple):
    """What few records differ in: version, how it stands in logs, base name and site of the topic."""

    version: Version
    stands: records.Registered
    base: str
    come_from: Site


@lru_cache(PLACES_REMEMBERED)
def _placed(frame: bytes, fingerprint: bytes | None, topic: str, here: Site) -> _Placed:
    """Of a record that is not read yet."""
    version = version_of(frame)
    if fingerprint != version.fingerprint:
        what = "missing" if fingerprint is None else f"not that of schema id {version.number}"
        raise refusal(f"header {FINGERPRINT}: {what}")
    come_from, base = _standing(topic, here)
    if version.stands is None or not records.allowed_in(version.cls, base):
        raise refusal(f"{version.cls.__name__} does not belong in topic {base}")
    return _Placed(version, version.stands, base, come_from)


def _written(placed: _Placed, message: Any, key: bytes | None, framed: bytes | None) -> Origin:
    """Who wrote a record that was read, by its origin header. Refused where its topic, key or author is not this."""
    version, stands, base, come_from = placed
    if not (stands.has_one_topic or records.belongs_in(message, base)):
        raise refusal(f"{version.cls.__name__} belongs in topic {records.topic_of(message)}")
    wanted = stands.key(message)
    if (key or b"") != (wanted if isinstance(wanted, bytes) else wanted.encode()):
        raise refusal(f"key: not {shown(str(wanted))!r}")
    origin = _origin(framed, come_from)
    author = stands.author(message)
    if author is not None and author != origin.site:
        raise refusal(f"{version.cls.__name__} is the word of {author}, not of {origin.site}", author)
    return origin


@_refusing
def decode_chunk(
    topic: str, key: bytes | None, value: bytes | memoryview | None, headers: Headers | None, here: Site
) -> HeardChunk:
    """A payload record's header and origin; `value` has as many bytes as the segments say. WireError when refused."""
    found = _headers(headers, CHUNK, ORIGIN)
    come_from, base = _standing(topic, here)
    header = _in_header(ChunkHeader, found[CHUNK], CHUNK)
    if base != topics.chunks_to(header.destination.site):
        raise refusal(f"destination: {header.destination}, in topic {base}")
    if key != header.manifest.encode():
        raise refusal(f"key: not {header.manifest!r}")
    size = sum(segment.size for segment in header.segments)
    if value is None or len(value) != size or size > PAYLOAD_BYTES_MAX:
        raise refusal(f"value: not the {size} bytes of the segments")
    return HeardChunk(header, _origin(found[ORIGIN], come_from))


def decode_outline(
    topic: str, key: bytes | None, value: bytes | None, headers: Headers | None, here: Site, place: str = ""
) -> HeardOutline:
    """A manifest without its items, for who counts them and is not the one to refuse. WireError when refused."""
    if value is None:
        raise refusal("no value: a tombstone means nothing in a journal")
    found = _headers(headers, FINGERPRINT, ORIGIN)
    version = version_of(value)
    come_from, base = _standing(topic, here)
    if version.cls is not ManifestWritten or base != topics.MANIFESTS or found[FINGERPRINT] != version.fingerprint:
        raise refusal(f"no manifest, in topic {base}")
    if len(value) > version.bytes_max:
        raise refusal(f"{len(value)} bytes, over the cap of {version.bytes_max}")
    if version.written is version.newest:
        try:
            outline = manifest_bytes.read(value, FRAME.size, place)
        except (InvalidName, ValueError, IndexError) as error:
            raise refusal(f"malformed manifest: {error}") from error
    else:
        body = version.decode(value)
        outline = manifest_bytes.Outline(Link.of(body, place), tuple(sorted({str(i.dataset) for i in body.items})))
    link, origin = outline.link, _origin(found[ORIGIN], come_from)
    if max(link.source_no, link.no) > limits.NUMBER_MAX:
        raise refusal(f"source_no and no: over {limits.NUMBER_MAX}")
    if (key or b"") != link.intent.encode():
        raise refusal(f"key: not {link.intent!r}")
    if link.source != origin.site:
        raise refusal(f"ManifestWritten is the word of {link.source}, not of {origin.site}", link.source)
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
        reason=Text(shown(error.what, LINE_CHARS)),
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
                raise refusal(f"header {name}: comes twice")
            found[name] = value
    if size > HEADER_BYTES_MAX:
        raise refusal(f"headers: {size} bytes, over the cap of {HEADER_BYTES_MAX}")
    return found


def _in_header(cls: type[M], framed: bytes | None, header: str) -> M:
    if framed is None:
        raise refusal(f"header {header}: missing")
    try:
        return decode_value(cls, framed)
    except WireError as error:
        raise refusal(f"header {header}: {error.what}") from error


def _standing(topic: str, here: Site) -> tuple[Site, str]:
    """(site whose records stand in a topic of `here`, the topic's local name)."""
    try:
        peer, base = topics.split(topic)
    except InvalidName as error:
        raise refusal(f"topic {shown(topic)!r}: {error.what}") from error
    if peer is None:
        return here, base
    if peer == here:
        raise refusal(f"topic {topic}: a copy of this site's own topic")
    if base in (topics.TRANSFERS, topics.DEAD_LETTERS):
        raise refusal(f"topic {topic}: is never mirrored")
    return peer, base


def origin_in(framed: bytes | None) -> Origin:
    """The origin in its header. WireError when refused."""
    if type(framed) is bytes and (found := origin_bytes.read(framed)) is not None:
        return found
    origin = _in_header(Origin, framed, ORIGIN)
    if type(framed) is bytes:
        origin_bytes.learn(framed, origin)
    return origin


def _origin(framed: bytes | None, come_from: Site) -> Origin:
    origin = origin_in(framed)
    if origin.site != come_from:
        raise refusal(f"header {ORIGIN}: site {origin.site}, in a topic of {come_from}", origin.site)
    return origin
