"""Every refusal of the gate: one clear line, the right one, from the bytes up to the meaning."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from io import BytesIO
from typing import Any

import fastavro
import pytest

import schemas
from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.names import Adler32, Lfn, ManifestId, Site, Text
from streams.core.policy import HEADER_BYTES_MAX, RECORD_BYTES_MAX
from streams.core.ranges import Ranges
from streams.errors import InvalidName, WireError
from streams.wire import avro, versions
from tests.wire.conftest import BLOCK, DATASET, LFN, MANIFEST, REASON, SHA256, B

FOREIGN = Site("T9_FOREIGN")


def frame(number: int, body: bytes) -> bytes:
    return struct.pack(">bi", 0, number) + body


def avro_of(name: str, plain: dict[str, Any]) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, schemas.load(name, schemas.ids()[name]), plain)
    return out.getvalue()


def put(plain: Any, path: str, value: Any) -> Any:
    """`plain` with `value` at a path like items__0__lfn; tuples become lists on the way."""
    first, _, rest = path.partition("__")
    if isinstance(plain, dict):
        return {**plain, first: put(plain[first], rest, value) if rest else value}
    return [(put(v, rest, value) if rest else value) if n == int(first) else v for n, v in enumerate(plain)]


def forged(record: Any, message: Any, **fields: Any) -> Any:
    """The record with fields of its value that `encode` would never write; a path uses __ for nesting."""
    plain = avro.writer(type(message))(message)
    for path, value in fields.items():
        plain = put(plain, path, value)
    name = type(message).__name__
    return record(message, value=frame(schemas.ids()[name], avro_of(name, plain)))


def refused(forgery: Any) -> str:
    with pytest.raises(WireError) as caught:
        forgery.decode()
    assert str(caught.value).isprintable()
    assert len(caught.value.what) <= 400
    return caught.value.what


@pytest.fixture
def report(samples: Any) -> Any:
    return samples["TransferReported"]["rich"]


# --- frame, headers, topic, key, origin


def test_tombstone(record: Any, report: Any) -> None:
    assert "tombstone" in refused(record(report, value=None))


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x00\x50\x00\x00", b"\x01\x50\x00\x00\x0f...", b'{"json": 1}'])
def test_no_frame(record: Any, report: Any, value: bytes) -> None:
    assert "not a frame" in refused(record(report, value=value))


@pytest.mark.parametrize("number", [0, 1, schemas.ID_MIN - 1, max(schemas.names()) + 1, -1])
def test_unknown_schema_id(record: Any, report: Any, number: int) -> None:
    assert f"unknown schema id {number}" in refused(record(report, value=frame(number, b"..")))


def test_right_id_with_another_fingerprint(record: Any, report: Any) -> None:
    forgery = record(report)
    forgery.headers = [(wire.FINGERPRINT, schemas.fingerprint("Origin")), *forgery.headers[1:]]
    assert "avro-fp: not that of schema id" in refused(forgery)


@pytest.mark.parametrize("headers", [None, [], [("avro-fp", None)], [("Avro-FP", b"12345678")]])
def test_no_fingerprint(record: Any, report: Any, headers: Any) -> None:
    assert "avro-fp: missing" in refused(record(report, headers=headers))


def test_no_origin(record: Any, report: Any) -> None:
    forgery = record(report)
    forgery.headers = forgery.headers[:1]
    assert "t2g-origin: missing" in refused(forgery)


def test_header_twice(record: Any, report: Any) -> None:
    forgery = record(report)
    forgery.headers = [*forgery.headers, *wire.headers(report, replace(forgery.origin, seq=4))[1:]]
    assert "t2g-origin: comes twice" in refused(forgery)


def test_headers_over_the_cap(record: Any, report: Any) -> None:
    forgery = record(report)
    room = HEADER_BYTES_MAX - sum(len(name) + len(value) for name, value in forgery.headers)
    forgery.headers = [*forgery.headers, ("x", b"." * (room - 1))]
    assert forgery.decode().message == report
    forgery.headers[-1] = ("x", b"." * room)
    assert "headers: 8193 bytes" in refused(forgery)


def test_strange_headers_beside_ours_are_no_fault(record: Any, report: Any) -> None:
    forgery = record(report)
    forgery.headers = [("Faust-Ag-ReplyTo", b"evil"), ("x", None), *forgery.headers]
    assert forgery.decode().message == report


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"", "t2g-origin: not a frame"),
        (frame(7, b""), "t2g-origin: unknown schema id 7"),
        (frame(schemas.ids()["PartLost"], b""), "t2g-origin: a PartLost"),
        (frame(schemas.ids()["Origin"], b"\x02"), "t2g-origin: malformed"),
    ],
)
def test_bad_origin(record: Any, report: Any, header: bytes, why: str) -> None:
    forgery = record(report)
    forgery.headers = [forgery.headers[0], (wire.ORIGIN, header)]
    assert why in refused(forgery)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("site", "not a site", "t2g-origin: site: not a legal site name"),
        ("writer", "", "t2g-origin: writer: must have"),
        ("writer", "a\nb", "t2g-origin: writer: not printable"),
        ("incarnation", "x" * 129, "t2g-origin: incarnation: must have"),
        ("seq", -1, "t2g-origin: seq: -1 is negative"),
    ],
)
def test_meaning_of_an_origin(record: Any, report: Any, field: str, value: Any, why: str) -> None:
    forgery = record(report)
    plain = {**avro.writer(m.Origin)(forgery.origin), field: value}
    forgery.headers = [forgery.headers[0], (wire.ORIGIN, frame(schemas.ids()["Origin"], avro_of("Origin", plain)))]
    assert why in refused(forgery)


def test_size_cap_comes_before_decoding(record: Any, report: Any) -> None:
    huge = record(report).value + bytes(RECORD_BYTES_MAX)
    assert f"over the cap of {RECORD_BYTES_MAX}" in refused(record(report, value=huge))


def test_record_in_a_topic_of_others(record: Any, messages: list[Any]) -> None:
    for message in messages:
        for topic in (*topics.TO_EVERY_PEER, *topics.LOCAL, "chunk-requests-to-T9_FOREIGN", "chunks-to-T3_C", "x", ""):
            once = isinstance(message, m.IntentDecided) and topic == topics.INTENTS
            if topic != m.topic_of(message) and not once:
                assert "topic" in refused(record(message, topic=topic))


def test_a_decision_is_read_where_earlier_releases_wrote_it(record: Any, samples: Any) -> None:
    decided = samples["IntentDecided"]["small"]
    assert m.topic_of(decided) == topics.DECISIONS
    for topic in (topics.DECISIONS, topics.INTENTS):
        assert record(decided, topic=topic).decode().message == decided


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        ("T3_C.transfer-reports", "a copy of this site's own topic"),
        ("not a site.transfer-reports", "not a legal site name"),
        ("T1_A.T2_B.transfer-reports", "does not belong in topic T2_B.transfer-reports"),
        ("T1_A.transfers", "is never mirrored"),
        ("T1_A.dead-letters", "is never mirrored"),
        ("T1_A.transfer-reports", "site T3_C, in a topic of T1_A"),
        ("\x1b[31mred", "does not belong in topic \\x1b[31mred"),
    ],
)
def test_topic(record: Any, report: Any, topic: str, why: str) -> None:
    assert why in refused(record(report, topic=topic))


def test_local_record_of_another_site(record: Any, messages: list[Any]) -> None:
    for message in messages:
        assert "in a topic of T9_FOREIGN" in refused(record(message, here=FOREIGN))


def test_word_of_another_site(record: Any, messages: list[Any]) -> None:
    """Written at a site that has no say in it, into its own topic, with an honest origin."""
    checked = 0
    for message in messages:
        if m.author(message) is not None:
            forgery = record(message, here=FOREIGN)
            forgery.headers = wire.headers(message, replace(forgery.origin, site=FOREIGN))
            assert f"is the word of {m.author(message)}, not of T9_FOREIGN" in refused(forgery)
            checked += 1
    assert checked == 2 * 25


@pytest.mark.parametrize(
    ("name", "author"),
    [
        ("TransferIntent", "T1_A"),
        ("IntentDecided", "T1_A"),
        ("ManifestWritten", "T2_B"),
        ("ChunksServed", "T2_B"),
        ("TransferPlanned", "T3_C"),
        ("ChunksRequested", "T3_C"),
        ("TransferProgress", "T3_C"),
        ("TransferClosed", "T3_C"),
        ("TransferReported", "T3_C"),
        ("CompletionRecord", "T3_C"),
        ("RemovalReported", "T2_B"),
        ("FilesHeld", "T2_B"),
        ("FilesLost", "T2_B"),
        ("SiteAnnounced", "T1_A"),
        ("JournalsSealed", "T1_A"),
        ("ClaimDecided", "T2_B"),
        ("LeaveAsked", "T2_B"),
        ("KeepPromised", "T2_B"),
        ("RemovalDecided", "T2_B"),
        ("ChainSettled", "T2_B"),
        ("ReplicasChecked", "T2_B"),
    ],
)
def test_author(samples: Any, name: str, author: str) -> None:
    assert {m.author(value) for value in samples[name].values()} == {author}


def test_who_asks_speaks_for_the_home_or_for_the_site_that_is_asked(samples: Any) -> None:
    assert [m.author(value) for value in samples["IntentAsked"].values()] == ["T2_B", "T1_A"]


@pytest.mark.parametrize("key", [None, b"", b"T1_A", b"\xff"])
def test_key(record: Any, report: Any, key: bytes | None) -> None:
    assert "key: not 'T1_A.0b5f" in refused(record(report, key=key))


def test_null_key_of_a_dead_letter(record: Any, samples: Any) -> None:
    letter = samples["DeadLetter"]["small"]
    assert record(letter, key=None).decode().message == letter


def test_requests_in_another_source_s_topic(record: Any, samples: Any) -> None:
    request = samples["ChunksRequested"]["rich"]
    assert "belongs in topic chunk-requests-to-T2_B" in refused(record(request, topic="chunk-requests-to-T1_A"))


# --- Avro


def body_of(record: Any, message: Any) -> bytes:
    return bytes(record(message).value[5:])


def with_body(record: Any, message: Any, body: bytes) -> Any:
    return record(message, value=frame(schemas.ids()[type(message).__name__], body))


def test_trailing_bytes(record: Any, messages: list[Any]) -> None:
    for message in messages:
        assert "non-canonical" in refused(with_body(record, message, body_of(record, message) + b"\x00"))


def test_truncated(record: Any, messages: list[Any]) -> None:
    for message in messages:
        body = body_of(record, message)
        for stop in {0, 1, len(body) // 2, len(body) - 1}:
            assert "Avro" in refused(with_body(record, message, body[:stop]))


def expired(record: Any, samples: Any, number: bytes) -> Any:
    """LeaseExpired ends with a long: `number` is its encoding."""
    message = samples["LeaseExpired"]["small"]
    return with_body(record, message, body_of(record, message)[:-1] + number)


@pytest.mark.parametrize("number", [b"\x82\x00", b"\x82\x80\x80\x00", b"\x82" + b"\x80" * 12 + b"\x00"])
def test_overlong_varint(record: Any, samples: Any, number: bytes) -> None:
    assert expired(record, samples, b"\x02").decode().message.request_no == 1
    assert "Avro" in refused(expired(record, samples, number))


def test_varint_without_end(record: Any, samples: Any) -> None:
    assert "Avro" in refused(expired(record, samples, b"\xff" * 100_000))


def asked(record: Any, samples: Any, union: bytes) -> Any:
    """IntentAsked has an optional long before its site and reason, which are empty here."""
    message = samples["IntentAsked"]["rich"]
    return with_body(record, message, body_of(record, message)[:-4] + union + bytes(2))


@pytest.mark.parametrize("union", [b"\x01\x00", b"\x03", b"\x04", b"\x7f", b"\xfe\xff\xff\xff\x0f"])
def test_union_index(record: Any, samples: Any, union: bytes) -> None:
    """-1, -2, 2, -64 and a huge one."""
    assert asked(record, samples, b"\x02\x00").decode().message.priority == 0
    assert "Avro" in refused(asked(record, samples, union))


def opened(record: Any, samples: Any, arrays: bytes) -> Any:
    """PartOpened ends with three arrays, all empty here; `arrays` are the first two."""
    message = samples["PartOpened"]["small"]
    return with_body(record, message, body_of(record, message)[:-3] + arrays + b"\x00")


@pytest.mark.parametrize(
    "arrays",
    [
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\x00\x00",
        b"\x01\x04\x00\x02\x00\x00",
        b"\x02\x00\x02\x02\x04\x06\x00\x00",
    ],
    ids=["2^62 items", "-2^63 items", "a block with its size", "two blocks"],
)
def test_array_blocks(record: Any, samples: Any, arrays: bytes) -> None:
    assert opened(record, samples, b"\x02\x00\x02\x00\x00").decode().message.present == Ranges([(0, 1)])
    assert "Avro" in refused(opened(record, samples, arrays))


@pytest.mark.parametrize(
    "text", [b"\x04\xff\xfe", b"\x06\xed\xa0\x80", b"\x04\xc0\x80", b"\x01", b"\xfe\xff\xff\xff\x0f"]
)
def test_bad_text(record: Any, samples: Any, text: bytes) -> None:
    """Invalid UTF-8, a surrogate, an overlong NUL, a negative length, a length past the end."""
    assert "Avro" in refused(with_body(record, samples["LeaseExpired"]["small"], text + b"\x02\x02"))


def test_boolean_other_than_0_and_1(record: Any, samples: Any) -> None:
    manifest = samples["ManifestWritten"]["rich"]
    assert "Avro" in refused(with_body(record, manifest, body_of(record, manifest)[:-1] + b"\x02"))


# --- fields: record, path, forged value, words of the reason

FIELDS: list[tuple[str, str, Any, str]] = [
    ("TransferReported", "intent", "T1_A.nope", "intent: not a legal intent id"),
    ("TransferReported", "verified", -1, "verified: -1 is negative"),
    ("TransferReported", "waits_for", "a\x1b[2J", "waits_for: not a legal text"),
    ("TransferReported", "waits_for", "\u202etxt", "waits_for: not a legal text"),
    ("TransferReported", "waits_for", "x" * 401, "waits_for: not a legal text"),
    ("TransferReported", "state", "caf\u00e9", "state: not printable ASCII"),
    ("TransferReported", "state", "", "state: must have"),
    ("TransferReported", "reason__scope", "moon", "reason.scope: unknown value 'moon'"),
    ("TransferReported", "reason__phase", "\x00", "reason.phase: not printable"),
    ("TransferReported", "reason__phase", "http://evil", "reason.phase: holds a URL"),
    ("TransferReported", "manifest", "T9_X.0b5f6d6e-5a4e-4a55-8f10-0123456789ab.0.0", "manifest: not of the record's"),
    ("TransferReported", "items", 1001, "items: 1001, over 1000"),
    ("TransferReported", "sealed", 999, "items: fewer than sealed and failed"),
    ("TransferReported", "verified", (1 << 40) + 1, "verified: more than total"),
    ("TransferReported", "total", (1 << 62) + 1, "total too large"),
    ("TransferIntent", "priority", 10, "priority: 10 is not in"),
    ("TransferIntent", "priority", -1, "priority: -1 is negative"),
    ("TransferIntent", "selectors", [], "selectors: 0 given"),
    ("TransferIntent", "selectors__0__name", "file:///etc/passwd", "selectors[0].name: holds a URL"),
    ("TransferIntent", "selectors__0__name", "https://evil/store/x", "selectors[0].name: holds a URL"),
    ("TransferIntent", "selectors__0__name", "/store/../etc/passwd", "not a legal LFN"),
    ("TransferIntent", "selectors__0__kind", "url", "selectors[0].kind: unknown value 'url'"),
    ("TransferIntent", "destinations", [], "destinations: 0 given"),
    ("TransferIntent", "destinations", ["T2_B", "T2_B"], "destinations: one is named twice"),
    ("TransferIntent", "destinations__1", "http://x", "destinations[1]: not a legal destination"),
    ("TransferIntent", "deadline_ms", -5, "deadline_ms: -5 is negative"),
    ("IntentAsked", "priority", None, "priority: given exactly when"),
    ("IntentAsked", "asked", "cancel", "priority: given exactly when"),
    ("IntentAsked", "priority", 11, "priority: 11 is not in"),
    ("IntentAsked", "asked", "suspend", "asked: unknown value 'suspend'"),
    ("IntentDecided", "decision_no", 0, "decision_no: 0 is not at least 1"),
    ("IntentDecided", "source", None, "source: an accepted intent needs one"),
    ("IntentDecided", "source_no", 1 << 30, "source_no: over"),
    ("IntentDecided", "body__intent", "T1_A.1b5f6d6e-5a4e-4a55-8f10-0123456789ab", "body.intent: not the record's"),
    ("IntentDecided", "body__priority", 10, "body.priority: 10"),
    ("IntentDecided", "priority", 10, "priority: 10"),
    ("ManifestWritten", "no", 1 << 30, "source_no and no: over"),
    ("ManifestWritten", "items", [], "items: empty, and not the last"),
    ("ManifestWritten", "prev_sha256", "", "prev_sha256: not 64"),
    ("ManifestWritten", "prev_sha256", "A" * 64, "prev_sha256: not 64"),
    ("ManifestWritten", "unit", "furlongs", "unit: unknown value"),
    ("ManifestWritten", "cursor", "a\tb", "cursor: not printable"),
    ("ManifestWritten", "items__0__lfn", "/store//x", "items[0].lfn: not a legal LFN"),
    ("ManifestWritten", "items__0__lfn", "/store/.hidden", "items[0].lfn: not a legal LFN"),
    ("ManifestWritten", "items__0__lfn", "/store/-rf", "items[0].lfn: not a legal LFN"),
    ("ManifestWritten", "items__0__lfn", "/" + "x" * 1024, "items[0].lfn: not a legal LFN"),
    ("ManifestWritten", "items__0__length", -1, "items[0].length: -1 is negative"),
    ("ManifestWritten", "items__0__adler32", "ABCDEF01", "items[0].adler32: not a legal adler32"),
    ("ManifestWritten", "items__0__holder", None, "items[0].holder: missing, and no reason"),
    ("ManifestWritten", "items__0__block", "/Other/Run2026A-v1/NANOAOD#1", "items[0].block: not of the item's"),
    (
        "ManifestWritten",
        "items__0__target",
        "/store/data/Run2026A/SingleMuon/NANOAOD/v1/000/0001.root",
        "items[0].target",
    ),
    ("ManifestWritten", "items__0__selection", "", "items[0].adler32: a whole file needs one"),
    ("ManifestWritten", "items__1__length", 1, "items[1].length: an item with a reason has length 0"),
    ("ManifestWritten", "items__0__length", (1 << 62) + 1, "items: longer than"),
    ("TransferPlanned", "manifest", "T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab.0.0", "manifest: not that of the body"),
    ("TransferPlanned", "body__items__1__length", 1, "body.items[1].length"),
    ("TransferPlanned", "priority", 10, "priority: 10"),
    ("TransferDecided", "decision_no", 0, "decision_no: 0"),
    ("TransferDecided", "priority", 10, "priority: 10"),
    ("PartOpened", "attempt", -1, "attempt: -1 is negative"),
    ("PartOpened", "endpoint", "", "endpoint: must have"),
    ("PartOpened", "endpoint", "s3://bucket", "endpoint: holds a URL"),
    ("PartOpened", "present", [{"start": 0, "stop": 1 << 60}], "present: 1152921504606846975 is past the last, 999"),
    ("PartOpened", "present", [{"start": 1, "stop": 2}], "failed[0].items: an item is named twice"),
    ("PartOpened", "present", [{"start": 3, "stop": 3}], "present: not canonical ranges at [3, 3)"),
    ("PartOpened", "present", [{"start": -1, "stop": 3}], "present: not canonical"),
    ("PartOpened", "present", [{"start": 5, "stop": 6}, {"start": 1, "stop": 2}], "present: not canonical"),
    ("PartOpened", "present", [{"start": 5, "stop": 7}, {"start": 6, "stop": 8}], "present: not canonical"),
    ("PartOpened", "present", [{"start": 5, "stop": 7}, {"start": 7, "stop": 8}], "present: not canonical"),
    ("PartOpened", "failed__0__items", [], "failed[0].items: empty"),
    ("PartOpened", "failed__1__items", [{"start": 1000, "stop": 1001}], "failed[1].items: 1000 is past the last"),
    ("PartOpened", "failed__1__items", [{"start": 7, "stop": 6}], "failed[1].items: not canonical"),
    ("PartLost", "reason__failure_class", "cosmic", "reason.failure_class: unknown value"),
    ("LeaseExpired", "request_no", 0, "request_no: 0"),
    ("TransferClosed", "completion__ended", "maybe", "completion.ended: unknown value"),
    ("TransferClosed", "completion__items", 11, "completion.items: one is neither"),
    ("TransferClosed", "manifest", "T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab.0.1", "completion: of another manifest"),
    ("ChunksRequested", "ranges", [], "ranges: empty"),
    ("ChunksRequested", "ranges", [{"start": 4000, "stop": 4197}], "ranges: not within the items"),
    ("ChunksRequested", "items", [], "ranges: not within the items"),
    ("ChunksRequested", "items__1__no", 3, "items[1]: not after the one before"),
    ("ChunksRequested", "items__1__start", 4095, "items[1]: not after the one before"),
    ("ChunksRequested", "items__1__no", 1000, "items: number 1000 is past the last"),
    ("ChunksRequested", "items__1__length", 1 << 62, "items: end past"),
    ("ChunksRequested", "items__0__version", "a\x07", "items[0].version: not printable"),
    ("ChunksRequested", "request_no", 0, "request_no: 0"),
    ("ChunksRequested", "plane", "", "plane: must have"),
    ("ChunksRequested", "capability", "https://evil", "capability: holds a URL"),
    ("UrlsOffered", "urls__1__item", 0, "urls[1].item: 0 is not after the one before it"),
    ("UrlsOffered", "urls__1__item", 1000, "urls[1].item: 1000 is not after the one before it, or past 999"),
    ("UrlsOffered", "urls__1__item", 4, "failed[0].items: an item is named twice"),
    ("UrlsOffered", "urls__0__url", "file:///etc/passwd", "urls[0].url: not an http address"),
    ("UrlsOffered", "urls__0__url", "http://user:word@h/f", "urls[0].url: not an http address"),
    ("UrlsOffered", "urls__0__url", "http://h", "urls[0].url: not an http address"),
    ("UrlsOffered", "urls__0__url", "http://h/a b", "urls[0].url: not an http address"),
    ("UrlsOffered", "urls__0__url", "http://h/a\r\nX: y", "urls[0].url: not printable"),
    ("UrlsOffered", "urls__0__etag", 'a"b', "urls[0].etag: not an ETag"),
    ("UrlsOffered", "urls__0__etag", "http://h/f", "urls[0].etag: holds a URL"),
    ("UrlsOffered", "token", "a b", "token: not a bearer token"),
    ("UrlsOffered", "token", "https://evil", "token: holds a URL"),
    ("UrlsOffered", "redirects__0", "*", "redirects[0]: not HOST or *.DOMAIN"),
    ("UrlsOffered", "redirects__0", "*.*.org", "redirects[0]: not HOST or *.DOMAIN"),
    ("UrlsOffered", "redirects__0", "https://h", "redirects[0]: holds a URL"),
    ("UrlsOffered", "redirects", ["h"] * 33, "redirects: 33, over 32"),
    ("UrlsOffered", "ranges", [], "ranges: empty"),
    ("UrlsOffered", "request_no", 0, "request_no: 0"),
    ("UrlsOffered", "failed__0__items", [], "failed[0].items: empty"),
    ("TransferProgress", "verified", [{"start": 0, "stop": (1 << 62) + 1}], "verified: 4611686018427387904 is past"),
    ("TransferProgress", "sealed", [{"start": 4, "stop": 5}], "failed[0].items: an item is named twice"),
    ("TransferProgress", "endpoint", "", "endpoint: must have"),
    ("ChunksServed", "request_no", 0, "request_no: 0"),
    ("ChunksServed", "bytes", -1, "bytes: -1 is negative"),
    ("CompletionRecord", "manifest", "T9_X.0b5f6d6e-5a4e-4a55-8f10-0123456789ab.0.0", "manifest: not of the record's"),
    ("CompletionRecord", "items", 1001, "items: 1001, over 1000"),
    ("CompletionRecord", "items", 11, "items: one is neither sealed nor failed nor cancelled"),
    ("CompletionRecord", "items", 9, "failed[1].items: 9 is past the last, 8"),
    ("CompletionRecord", "cancelled", [{"start": 0, "stop": 1}], "cancelled: an item is named twice"),
    ("CompletionRecord", "ended", "done", "ended: done, yet not every item is sealed"),
    ("CompletionRecord", "manifest_sha256", "00", "manifest_sha256: not 64"),
    ("FilesHeld", "dataset", "/x", "dataset: not a legal dataset"),
    ("FilesHeld", "files", [], "files: 0 given"),
    (
        "FilesHeld",
        "files__1__lfn",
        "/store/data/Run2026A/SingleMuon/NANOAOD/v1/000/0001.root",
        "files: one is named twice",
    ),
    ("FilesHeld", "files__1__block", "/Other/Run2026A-v1/NANOAOD#1", "files[1].block: not of the record's"),
    ("FilesHeld", "files__1__bytes", -1, "files[1].bytes: -1 is negative"),
    ("FilesLost", "lfns", [], "lfns: 0 given"),
    ("FilesLost", "lfns__1", "/store/\n", "lfns[1]: not a legal LFN"),
    ("SiteAnnounced", "api", "file:///etc/passwd", "api: not an http address"),
    ("SiteAnnounced", "api", "http://a b", "api: not an http address"),
    ("SiteAnnounced", "api", "http://a\x1b", "api: not printable"),
    ("SiteAnnounced", "endpoints__0", "file:///data", "endpoints[0]: holds a URL"),
    ("SiteAnnounced", "peers", ["T1_A"], "peers: name the site itself"),
    ("SiteAnnounced", "peers", ["T2_B", "T2_B"], "peers: one is named twice"),
    ("SiteAnnounced", "every_s", 0, "every_s: 0 is not at least 1"),
    ("SiteAnnounced", "role", "", "role: must have"),
    ("SiteAnnounced", "sequences__0__seq", -1, "sequences[0].seq: -1 is negative"),
    ("ClaimDecided", "no", 0, "no: 0 is not at least 1"),
    ("ClaimDecided", "no", 1, "prev_sha256: given, and no is 1"),
    ("ClaimDecided", "no", (1 << 62) + 1, "no: 4611686018427387905 is over"),
    ("ClaimDecided", "noted__0__endpoint", "1", "noted[0].endpoint: not a letter"),
    ("ClaimDecided", "noted__0__selectors", [], "noted[0].selectors: 0 given"),
    ("ClaimDecided", "noted__0__selectors__0__name", "/X/Y/RAW", "noted[0].selectors: /X/Y/RAW is not of the step's"),
    ("ClaimDecided", "noted__0__claim", "", "noted, ended: must have"),
    ("ClaimDecided", "ended__0", "r-2", "noted, ended: one is named twice"),
    ("LeaveAsked", "prev_sha256", "", "prev_sha256: not 64 lower-case hex digits"),
    ("LeaveAsked", "block", "/X/Y/RAW#1", "block: not of the step's dataset"),
    ("LeaveAsked", "asked", [], "asked: 0 given"),
    ("LeaveAsked", "asked__0", "T2_B", "asked: names the site itself"),
    ("LeaveAsked", "copies", -1, "copies: -1 is negative"),
    ("LeaveAsked", "files", [], "files: 0 given"),
    ("LeaveAsked", "files__0__words", [], "files[0].words: 0 given"),
    ("LeaveAsked", "files__0__version", "", "files[0].version: none"),
    ("KeepPromised", "asker", "T2_B", "asker: the site itself"),
    ("KeepPromised", "ask_no", 0, "ask_no: 0 is not at least 1"),
    ("KeepPromised", "ask_sha256", "", "ask_sha256: not 64 lower-case hex digits"),
    ("KeepPromised", "promised__0", "/store/x", "files: one is named twice"),
    ("RemovalDecided", "ask_no", 0, "ask_no: 0 is not at least 1"),
    ("RemovalDecided", "removed__0__lfns", [], "removed[0].lfns: none"),
    ("RemovalDecided", "removed__0__promises__0__site", "T2_B", "removed[0].promises: names the site itself"),
    ("RemovalDecided", "removed__0__promises__1__site", "T1_A", "removed[0].promises: one is named twice"),
    ("RemovalDecided", "removed__0__promises__0__no", 0, "removed[0].no: 0 is not at least 1"),
    ("RemovalDecided", "removed__0__endpoints__0", "#", "removed[0]: not a letter"),
    ("RemovalDecided", "kept__0__lfn", "/store/data/Run2026A/SingleMuon/NANOAOD/v1/000/0001.root", "files: one is"),
    ("ChainSettled", "process", "", "process: must have"),
    ("ReplicasChecked", "ask_no", 0, "ask_no: 0 is not at least 1"),
    ("ReplicasChecked", "ask_sha256", "", "ask_sha256: not 64 lower-case hex digits"),
    ("ReplicasChecked", "found__0__lfn", "/store/x", "files: one is named twice"),
    ("ReplicasChecked", "found__0__adler32", "x", "found[0].adler32: not a legal adler32"),
    ("JournalsSealed", "no", -1, "no: -1 is negative"),
    ("JournalsSealed", "no", 0, "prev_sha256: there is no seal before number 0"),
    ("JournalsSealed", "prev_sha256", "", "prev_sha256: not 64 lower-case hex digits"),
    ("JournalsSealed", "journals", [], "journals: 0 given, must be 1 to 1000"),
    ("JournalsSealed", "journals__0__root", bytes(31), "journals[0].root: 31 bytes, must be 32"),
    ("JournalsSealed", "journals__0__size", 0, "journals[0].size: 0 is not at least 1"),
    ("JournalsSealed", "journals__0__size", -1, "journals[0].size: -1 is negative"),
    ("JournalsSealed", "journals__0__partition", -1, "journals[0].partition: -1 is negative"),
    ("JournalsSealed", "journals__0__topic", "", "journals[0].topic: must have"),
    ("JournalsSealed", "journals__0__topic", "journal-seals", "journals[0].topic: not of a journal that is sealed"),
    ("JournalsSealed", "journals__0__topic", "chunks-to-T2_B", "journals[0].topic: not of a journal"),
    ("JournalsSealed", "journals__0__topic", "T2_B.manifests", "journals[0].topic: not of a journal"),
    ("JournalsSealed", "journals__0__site", "T2_C", "journals[1]: not in ascending order"),
    ("JournalsSealed", "journals__0__site", "a b", "journals[0].site: not a legal site"),
    ("JournalsSealed", "signature", b"", "signature: 0 bytes, must be 64"),
    ("JournalsSealed", "certificate", None, "signature: without a certificate"),
    ("JournalsSealed", "certificate__site", "T2_B", "certificate.site: T2_B, of a seal of T1_A"),
    ("JournalsSealed", "certificate__kid", "0", "certificate.kid: not that of the public key"),
    ("JournalsSealed", "certificate__public_key", b"", "certificate.public_key: 0 bytes, must be 32"),
    ("JournalsSealed", "certificate__signature", b"", "certificate.signature: 0 bytes, must be 64"),
    ("JournalsSealed", "certificate__not_after_ms", 0, "certificate.not_after_ms: not after"),
    ("JournalsSealed", "certificate__kind", "", "certificate.kind: must have"),
    ("DeadLetter", "reason", "\x00", "reason: not a legal text"),
    ("DeadLetter", "value", bytes(64 * 1024 + 1), "value or key: over"),
    ("DeadLetter", "topic", "", "topic: must have"),
]


@pytest.mark.parametrize(("name", "path", "value", "why"), FIELDS, ids=[f"{n}-{p}-{w}"[:70] for n, p, _, w in FIELDS])
def test_field(record: Any, samples: Any, name: str, path: str, value: Any, why: str) -> None:
    assert why in refused(forged(record, samples[name]["rich"], **{path: value}))


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("items__0__length", 4095, "items[0].length: of a whole file, must be its bytes"),
        ("items__0__adler32", None, "items[0].adler32: a whole file needs one"),
        ("items__0__target", "/store/elsewhere", "items[0].target: a whole file lands under its own name"),
        ("unit", "entries", "items[0].length: of a whole file"),
        ("prev_sha256", "0" * 64, "prev_sha256: manifest 0 has no predecessor"),
    ],
)
def test_whole_file(record: Any, samples: Any, path: str, value: Any, why: str) -> None:
    assert why in refused(forged(record, samples["ManifestWritten"]["small"], **{path: value}))


def test_too_many_items(record: Any, samples: Any, rich_items: Any) -> None:
    one = avro.writer(m.Item)(samples["ManifestWritten"]["small"].items[0])
    many = [{**one, "lfn": f"/store/{n}", "target": f"/store/{n}"} for n in range(1001)]
    assert "items: 1001, over 1000" in refused(forged(record, rich_items, items=many))
    assert "items: two land under one target" in refused(forged(record, rich_items, items=[one, one]))


def test_too_many_files(record: Any, samples: Any) -> None:
    held = samples["FilesHeld"]["small"]
    one = avro.writer(m.HeldFile)(held.files[0])
    many = [{**one, "lfn": f"/store/{n}"} for n in range(1001)]
    assert "files: 1001 given, must be 1 to 1000" in refused(forged(record, held, files=many))


# --- chunk headers

CHUNK_FIELDS: list[tuple[str, Any, str]] = [
    ("stop", 1 << 40, "segments: do not add up"),
    ("stop", (1 << 62) + 1, "stop: past"),
    ("start", -1, "start: -1 is negative"),
    ("request_no", 0, "request_no: 0"),
    ("segments__0__crc32c", 1 << 32, "segments[0].crc32c: over 32 bits"),
    ("segments__0__crc32c", None, "segments[0]: needs either crc32c or reason"),
    ("segments__0__crc32c", -1, "segments[0].crc32c: -1 is negative"),
    ("segments__2__crc32c", 1, "segments[2]: needs either crc32c or reason"),
    ("segments__2__size", 1, "segments[2].size: a segment with a reason has no bytes"),
    ("segments__2__offset", 51, "segments[2]: does not follow"),
    ("segments__1__item", 1000, "segments[1].item: 1000 is past the last"),
    ("segments__3__item", 0, "segments[3]: does not follow"),
    ("segments__0__length", 0, "segments[0].length: 0"),
    ("segments__3__size", 9 << 20, "segments: 9437334 bytes, over"),
    ("segments", [], "segments: do not add up"),
    ("manifest", "x", "manifest: not a legal manifest id"),
]


@pytest.mark.parametrize(("path", "value", "why"), CHUNK_FIELDS)
def test_chunk_header_field(samples: Any, path: str, value: Any, why: str) -> None:
    plain = put(avro.writer(m.ChunkHeader)(samples["ChunkHeader"]["rich"]), path, value)
    with pytest.raises(WireError, match=r"\A" + re.escape(why)):
        wire.decode_value(m.ChunkHeader, frame(schemas.ids()["ChunkHeader"], avro_of("ChunkHeader", plain)))


def segments(count: int) -> m.ChunkHeader:
    one = tuple(m.Segment(n, 0, 1, 1, 0xFFFFFFFF) for n in range(count))
    return m.ChunkHeader(ManifestId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab.0.0"), FOREIGN, 1, 0, count, one, True)


def test_most_segments_fit_the_header_cap() -> None:
    wide = m.ChunkHeader(
        ManifestId("A" * 64 + ".0b5f6d6e-5a4e-4a55-8f10-0123456789ab.999999999.999999999"),
        Site("B" * 64),
        1 << 40,
        1 << 50,
        (1 << 50) + 256 * 32768,
        tuple(m.Segment(n, 1 << 50, 32768, 32768, 0xFFFFFFFF) for n in range(744, 1000)),
        True,
    )
    assert len(wire.encode(wide)) < versions.CHUNK_HEADER_BYTES_MAX
    with pytest.raises(WireError, match="segments: 257, over 256"):
        wire.encode(segments(257))


def test_chunk_header_over_the_cap(samples: Any) -> None:
    reason = replace(samples["ChunkHeader"]["rich"].segments[2].reason, text=Text("x" * 400))
    failed = tuple(m.Segment(n, 0, 1, 0, None, reason) for n in range(20))
    with pytest.raises(WireError, match="over the cap of 7168"):
        wire.encode(replace(segments(20), segments=failed))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"topic": "T1_A.chunks-to-T2_B"}, "destination: T3_C, in topic chunks-to-T2_B"),
        ({"topic": "T2_B.chunks-to-T3_C"}, "site T1_A, in a topic of T2_B"),
        ({"topic": "T3_C.chunks-to-T3_C"}, "own topic"),
        ({"key": b"x"}, "key: not"),
        ({"key": None}, "key: not"),
        ({"value": None}, "value: not the 4150 bytes"),
        ({"value": bytes(4151)}, "value: not the 4150 bytes"),
        ({"headers": None}, "t2g-chunk: missing"),
    ],
)
def test_payload_record(samples: Any, changed: dict[str, Any], why: str) -> None:
    header, origin = samples["ChunkHeader"]["rich"], samples["Origin"]["small"]
    stands: dict[str, Any] = {
        "topic": "T1_A.chunks-to-T3_C",
        "key": header.manifest.encode(),
        "value": memoryview(bytes(4150)),
        "headers": wire.chunk_headers(header, origin),
        "here": Site("T3_C"),
    }
    assert wire.decode_chunk(**stands).header == header
    with pytest.raises(WireError) as caught:
        wire.decode_chunk(**{**stands, **changed})
    assert why in caught.value.what


def test_payload_record_without_origin(samples: Any) -> None:
    header = samples["ChunkHeader"]["rich"]
    only = [(wire.CHUNK, wire.encode(header))]
    with pytest.raises(WireError, match="t2g-origin: missing"):
        wire.decode_chunk("T1_A.chunks-to-T3_C", header.manifest.encode(), bytes(4150), only, Site("T3_C"))


# --- writing, dead letters, versions


def test_what_nobody_could_read_is_not_written(samples: Any, rich_items: Any) -> None:
    with pytest.raises(WireError, match=r"TransferIntent\.priority: 12"):
        wire.encode(replace(samples["TransferIntent"]["small"], priority=12))
    with pytest.raises(WireError, match="cannot be encoded: OverflowError"):
        wire.encode(replace(samples["SiteAnnounced"]["small"], every_s=1 << 63))
    long = tuple(
        replace(i, lfn=Lfn(f"/{'x' * 900}/{n}"), target=Lfn(f"/{'x' * 900}/{n}"))
        for n, i in enumerate(rich_items.items)
    )
    with pytest.raises(WireError, match=f"over the cap of {versions.NESTED_BYTES_MAX}"):
        wire.encode(replace(rich_items, items=long))


def test_a_manifest_at_its_cap_fits_its_plan(samples: Any, rich_items: Any) -> None:
    planned = samples["TransferPlanned"]["rich"]
    overhead = len(wire.encode(planned)) - len(wire.encode(planned.body))
    assert versions.NESTED_BYTES_MAX + overhead < RECORD_BYTES_MAX
    decided = samples["IntentDecided"]["rich"]
    overhead = len(wire.encode(decided)) - len(wire.encode(decided.body))
    assert versions.NESTED_BYTES_MAX + overhead + 4 * 400 < RECORD_BYTES_MAX


@pytest.mark.parametrize("value", [None, b"", bytes(70_000), b"\xff" * 70_000])
def test_dead_letter_can_always_be_written(record: Any, value: bytes | None) -> None:
    error = WireError("\x1b" * 500)
    letter = wire.dead_letter(error, "T9.manifests", 3, 4, None if value is None else value[:9000], value, None)
    assert record(letter).decode().message == letter
    assert letter.origin_site == ""
    assert letter.reason.startswith("\\x1b")


def test_text_that_utf_8_cannot_hold() -> None:
    """A file name that is no UTF-8 reaches an error's words as lone surrogates."""
    with pytest.raises(InvalidName):
        Text("/data/\udcff")
    letter = wire.dead_letter(WireError("/data/\udcff"), "manifests", 0, 0, None, None, None)
    assert letter.reason == "/data/\\udcff"
    assert wire.decode_value(m.DeadLetter, wire.encode(letter)) == letter


def test_dead_letter_names_the_origin(record: Any, report: Any) -> None:
    forgery = record(report, key=b"")
    with pytest.raises(WireError) as caught:
        forgery.decode()
    letter = wire.dead_letter(caught.value, forgery.topic, 0, 7, forgery.key, forgery.value, forgery.headers)
    assert (letter.origin_site, letter.value, letter.reason) == ("T3_C", forgery.value, caught.value.what)


def test_decode_value(samples: Any) -> None:
    manifest = samples["ManifestWritten"]["rich"]
    assert wire.decode_value(m.ManifestWritten, wire.encode(manifest)) == manifest
    with pytest.raises(WireError, match="a ManifestWritten, not a PartLost"):
        wire.decode_value(m.PartLost, wire.encode(manifest))


def version(newest: dict[str, Any], older: dict[str, Any]) -> Any:
    return versions.Version(m.LastSequence, 7, fastavro.parse_schema(older), fastavro.parse_schema(newest))


def fields(*named: tuple[str, Any]) -> dict[str, Any]:
    of = [{"name": name, "type": kind, **({"default": None} if isinstance(kind, list) else {})} for name, kind in named]
    return {"type": "record", "name": "x.LastSequence", "fields": of}


def test_an_older_version_is_resolved_to_ours() -> None:
    """Two versions of a record whose class is as the newest one says: fields were dropped, others added and moved."""
    ours = fields(("topic", "string"), ("partition", "long"), ("seq", "long"))
    ours["fields"][2]["default"] = 5
    theirs = fields(("gone", ["null", "string"]), ("partition", "long"), ("topic", "string"))
    out = BytesIO()
    fastavro.schemaless_writer(out, theirs, {"gone": "x", "partition": 3, "topic": "t"})
    reads = version(ours, theirs)
    assert reads.decode(frame(7, out.getvalue())) == m.LastSequence("t", 3, 5)
    with pytest.raises(WireError, match="non-canonical"):
        reads.decode(frame(7, out.getvalue() + b"\x00"))


def test_an_older_version_can_be_written() -> None:
    """Until every site reads the newer one."""
    ours = fields(("topic", "string"), ("partition", "long"), ("seq", "long"))
    ours["fields"][2]["default"] = 0
    theirs = fields(("topic", "string"), ("partition", "long"))
    both = version(ours, theirs)
    assert both.encode(m.LastSequence("t", 3, 0)) == frame(7, b"\x02t\x06")
    assert both.decode(frame(7, b"\x02t\x06")) == m.LastSequence("t", 3, 0)


def test_a_small_record_is_decoded_once_and_judged_by_where_it_stands(record: Any, report: Any) -> None:
    """Agents and view of a worker hear the same facts; what is kept decoded is found by all that the gate looks at."""
    first = record(report).decode()
    assert record(report).decode().message is first.message
    odd = record(report, headers=[(name, bytearray(held)) for name, held in record(report).headers])
    assert odd.decode() == first, "what has no hash is decoded by itself"
    for change in (
        {"topic": "completion-records"},
        {"key": b"another"},
        {"value": record(report).value[:-1]},
        {"headers": record(report).headers[:1]},
        {"here": FOREIGN},
    ):
        refused(record(report, **change))


# What older sites could not read yet.

HELD, LOST = (
    m.FilesHeld(DATASET, B, (m.HeldFile(LFN, BLOCK, 1, Adler32("00000001"), "v"),), None, "tape", "higgs", "r-1"),
    m.FilesLost(DATASET, B, (LFN,), REASON, "tape", (m.TakenWords(("r-1", "w")),), SHA256),
)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (replace(HELD, endpoint="a b"), "endpoint: not a letter"),
        (replace(HELD, word="x" * 129), "word: must have"),
        (replace(HELD, manifest=MANIFEST), "word: of a registration only"),
        (replace(LOST, endpoint="#"), "endpoint: not a letter"),
        (replace(LOST, taken=(m.TakenWords(()),)), "taken[0].words: 0 given, must be 1 to 1000"),
        (replace(LOST, taken=(m.TakenWords(("w", "w")),)), "taken[0].words: one is named twice"),
        (replace(LOST, taken=()), "removal_sha256: without the words"),
        (replace(LOST, taken=LOST.taken * 2), "taken: 2 given, of 1 lfns"),
        (replace(LOST, removal_sha256="x"), "removal_sha256: not 64 lower-case hex digits"),
    ],
)
def test_meaning_of_words_and_their_end(value: Any, why: str) -> None:
    assert (m.fault(value) or "").startswith(why)


@pytest.mark.parametrize("value", [HELD, LOST], ids=lambda value: type(value).__name__)
def test_what_the_written_version_cannot_say_is_refused_and_read_where_somebody_wrote_it(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the version before is written; left out in silence, it would mean another thing."""
    older = schemas.versions()[type(value).__name__][-2]
    monkeypatch.setitem(versions.BY_CLASS, type(value), versions.BY_ID[older])
    with pytest.raises(WireError, match=f"{type(value).__name__}.endpoint: cannot be written yet"):
        wire.encode(value)
    newest = versions.BY_ID[schemas.versions()[type(value).__name__][-1]]
    assert wire.decode_value(type(value), newest.encode(value)) == value
