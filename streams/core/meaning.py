"""What makes a decoded record believable: whose word it is, and what its fields must say together. Pure; no bytes.

`fault(message)` is the first contradiction inside a record, in words that name the field; `author(message)` the only
site that may say it. Single fields are checked where they are made (names, ranges, whole numbers).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from streams.core import messages as m
from streams.core.names import Site
from streams.core.policy import MANIFEST_ITEMS_MAX, PAYLOAD_BYTES_MAX, SEGMENTS_MAX
from streams.core.ranges import Ranges

FILES_MAX = 1000
"""Files of one FilesHeld or FilesLost."""
NAMES_MAX = 1000
"""Selectors of an intent; more is a dataset, a block, or another intent."""
SITES_MAX = 1000
PRIORITY_MAX = 9
NUMBER_MAX = 999_999_999
"""Of source_no and no: what a manifest id can hold."""
POSITION_MAX = 1 << 62
"""End of a manifest's line: sums stay inside an Avro long."""
VALUE_BYTES_MAX = 64 * 1024
KEY_BYTES_MAX = 4 * 1024
"""What a dead letter keeps of a refused record."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_API = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(?:/[A-Za-z0-9._/-]*)?")
_WORD_CHARS_MAX = 128


def author(message: m.Message | m.ChunkHeader) -> Site | None:
    """The site whose word this is: the record's origin must be it. None: any site, in its own local topic."""
    match message:
        case m.TransferIntent() | m.IntentAsked() | m.IntentDecided():
            return message.intent.home
        case m.ManifestWritten() | m.ChunksServed():
            return message.source
        case (
            m.TransferPlanned()
            | m.ChunksRequested()
            | m.TransferProgress()
            | m.TransferReported()
            | m.CompletionRecord()
        ):
            return message.destination
        case m.TransferClosed():
            return message.completion.destination
        case m.FilesHeld() | m.FilesLost() | m.SiteAnnounced():
            return message.site
        case _:
            return None


def fault(message: Any) -> str | None:
    """Why the record contradicts itself or a limit, or None. Takes Origin and ChunkHeader too."""
    check = _CHECKS.get(type(message))
    return None if check is None else check(message)


def _word(name: str, text: str) -> str | None:
    return None if 0 < len(text) <= _WORD_CHARS_MAX else f"{name}: must have 1 to {_WORD_CHARS_MAX} characters"


def _priority(number: int) -> str | None:
    return None if 0 <= number <= PRIORITY_MAX else f"priority: {number} is not in 0…{PRIORITY_MAX}"


def _from_one(name: str, number: int) -> str | None:
    return None if number >= 1 else f"{name}: {number} is not at least 1"


def _sha256(name: str, text: str) -> str | None:
    return None if _SHA256.fullmatch(text) else f"{name}: not 64 lower-case hex digits"


def _some(name: str, values: Iterable[object], most: int) -> str | None:
    """At least one, at most `most`, each once."""
    listed = list(values)
    if not 1 <= len(listed) <= most:
        return f"{name}: {len(listed)} given, must be 1 to {most}"
    return None if len(set(listed)) == len(listed) else f"{name}: one is named twice"


def _within(name: str, ranges: Ranges, stop: int) -> str | None:
    """Bounded, so that nobody ever counts through a range of 2^60 items."""
    over = ranges.spans and ranges.spans[-1][1] > stop
    return f"{name}: {ranges.spans[-1][1] - 1} is past the last, {stop - 1}" if over else None


def _apart(items: int, named: Iterable[tuple[str, Ranges]], failed: tuple[m.FailedItems, ...]) -> str | None:
    """Item sets that lie within a manifest of `items` and share no item."""
    seen = Ranges()
    for name, ranges in (*named, *((f"failed[{n}].items", f.items) for n, f in enumerate(failed))):
        if (why := _within(name, ranges, items)) is not None:
            return why
        if seen & ranges:
            return f"{name}: an item is named twice"
        seen |= ranges
    empty = next((n for n, f in enumerate(failed) if not f.items), None)
    return None if empty is None else f"failed[{empty}].items: empty"


def _origin(o: m.Origin) -> str | None:
    return _word("writer", o.writer) or _word("incarnation", o.incarnation)


def _intent(i: m.TransferIntent) -> str | None:
    return (
        _priority(i.priority)
        or _some("selectors", i.selectors, NAMES_MAX)
        or _some("destinations", i.destinations, SITES_MAX)
    )


def _asked(a: m.IntentAsked) -> str | None:
    if (a.asked is m.Asked.PRIORITY) != (a.priority is not None):
        return "priority: given exactly when it is asked for"
    return None if a.priority is None else _priority(a.priority)


def _decided(d: m.IntentDecided) -> str | None:
    if d.body.intent != d.intent:
        return "body.intent: not the record's intent"
    if d.verdict is m.Verdict.ACCEPTED and d.source is None:
        return "source: an accepted intent needs one"
    if d.source_no > NUMBER_MAX:
        return f"source_no: over {NUMBER_MAX}"
    inside = _intent(d.body)
    return _from_one("decision_no", d.decision_no) or _priority(d.priority) or (inside and f"body.{inside}")


def _manifest(w: m.ManifestWritten) -> str | None:
    if w.source_no > NUMBER_MAX or w.no > NUMBER_MAX:
        return f"source_no and no: over {NUMBER_MAX}"
    if not w.items and not w.last:
        return "items: empty, and not the last manifest"
    if len(w.items) > MANIFEST_ITEMS_MAX:
        return f"items: {len(w.items)}, over {MANIFEST_ITEMS_MAX}"
    if w.no == 0 and w.prev_sha256:
        return "prev_sha256: manifest 0 has no predecessor"
    in_bytes = w.unit is m.Unit.BYTES
    if len({item.target for item in w.items}) != len(w.items):
        return "items: two land under one target"
    total = 0
    for n, item in enumerate(w.items):
        why = _item(item, in_bytes)
        if why is not None:
            return f"items[{n}].{why}"
        total += item.length
    if total > POSITION_MAX:
        return f"items: longer than {POSITION_MAX} together"
    return _sha256("prev_sha256", w.prev_sha256) if w.no else None


def _item(i: m.Item, in_bytes: bool) -> str | None:
    if not i.block.startswith(i.dataset + "#"):
        return "block: not of the item's dataset"
    if i.reason is not None:
        return "length: an item with a reason has length 0" if i.length else None
    if i.holder is None:
        return "holder: missing, and no reason given"
    if i.selection:
        return "target: a part of a file cannot land under the file's own name" if i.target == i.lfn else None
    if i.adler32 is None:
        return "adler32: a whole file needs one"
    if not in_bytes or i.length != i.bytes:
        return "length: of a whole file, must be its bytes"
    return "target: a whole file lands under its own name" if i.target != i.lfn else None


def _planned(p: m.TransferPlanned) -> str | None:
    inside = _manifest(p.body)
    if inside is not None:
        return f"body.{inside}"
    if p.manifest != p.body.manifest:
        return "manifest: not that of the body"
    return _from_one("decision_no", p.decision_no) or _priority(p.priority)


def _opened(p: m.PartOpened) -> str | None:
    return _word("endpoint", p.endpoint) or _apart(MANIFEST_ITEMS_MAX, [("present", p.present)], p.failed)


def _requested(r: m.ChunksRequested) -> str | None:
    if not r.ranges:
        return "ranges: empty"
    if len(r.items) > MANIFEST_ITEMS_MAX:
        return f"items: {len(r.items)}, over {MANIFEST_ITEMS_MAX}"
    no, stop = -1, 0
    for n, item in enumerate(r.items):
        if item.no <= no or item.start < stop:
            return f"items[{n}]: not after the one before it"
        no, stop = item.no, item.start + item.length
    if no >= MANIFEST_ITEMS_MAX:
        return f"items: number {no} is past the last, {MANIFEST_ITEMS_MAX - 1}"
    if stop > POSITION_MAX:
        return f"items: end past {POSITION_MAX}"
    if r.ranges - Ranges((i.start, i.start + i.length) for i in r.items):
        return "ranges: not within the items"
    return _from_one("request_no", r.request_no) or _word("plane", r.plane)


def _chunk(c: m.ChunkHeader) -> str | None:
    if len(c.segments) > SEGMENTS_MAX:
        return f"segments: {len(c.segments)}, over {SEGMENTS_MAX}"
    if c.stop > POSITION_MAX:
        return f"stop: past {POSITION_MAX}"
    length, size, item, stop = 0, 0, -1, 0
    for n, s in enumerate(c.segments):
        if s.item >= MANIFEST_ITEMS_MAX:
            return f"segments[{n}].item: {s.item} is past the last, {MANIFEST_ITEMS_MAX - 1}"
        if s.item < item or (s.item == item and s.offset != stop):
            return f"segments[{n}]: does not follow the one before it"
        if s.length == 0:
            return f"segments[{n}].length: 0"
        if (s.crc32c is None) == (s.reason is None):
            return f"segments[{n}]: needs either crc32c or reason"
        if s.crc32c is not None and s.crc32c >> 32:
            return f"segments[{n}].crc32c: over 32 bits"
        if s.reason is not None and s.size:
            return f"segments[{n}].size: a segment with a reason has no bytes"
        item, stop, length, size = s.item, s.offset + s.length, length + s.length, size + s.size
    if length != c.stop - c.start:
        return "segments: do not add up to [start, stop)"
    if size > PAYLOAD_BYTES_MAX:
        return f"segments: {size} bytes, over {PAYLOAD_BYTES_MAX}"
    return _from_one("request_no", c.request_no)


def _progress(p: m.TransferProgress) -> str | None:
    return (
        _word("endpoint", p.endpoint)
        or _within("verified", p.verified, POSITION_MAX)
        or _apart(MANIFEST_ITEMS_MAX, [("sealed", p.sealed)], p.failed)
    )


def _served(s: m.ChunksServed) -> str | None:
    return _from_one("request_no", s.request_no) or _within("ranges", s.ranges, POSITION_MAX)


def _reported(r: m.TransferReported) -> str | None:
    if r.manifest.intent != r.intent:
        return "manifest: not of the record's intent"
    if r.items > MANIFEST_ITEMS_MAX:
        return f"items: {r.items}, over {MANIFEST_ITEMS_MAX}"
    # Items 0 also says: not planned as yet, so that what is sealed is known and what it is part of is not.
    if r.items and r.sealed + r.failed > r.items:
        return "items: fewer than sealed and failed together"
    if (r.items and r.verified > r.total) or r.total > POSITION_MAX:
        return "verified: more than total, or total too large"
    return _word("state", r.state)


def _completion(c: m.CompletionRecord) -> str | None:
    if c.manifest.intent != c.intent:
        return "manifest: not of the record's intent"
    if c.items > MANIFEST_ITEMS_MAX:
        return f"items: {c.items}, over {MANIFEST_ITEMS_MAX}"
    why = _apart(c.items, [("sealed", c.sealed), ("cancelled", c.cancelled)], c.failed)
    if why is not None:
        return why
    if c.sealed.size + c.cancelled.size + sum(f.items.size for f in c.failed) != c.items:
        return "items: one is neither sealed nor failed nor cancelled"
    if c.ended is m.Ended.DONE and c.sealed.size != c.items:
        return "ended: done, yet not every item is sealed"
    return _sha256("manifest_sha256", c.manifest_sha256)


def _closed(c: m.TransferClosed) -> str | None:
    if c.completion.manifest != c.manifest:
        return "completion: of another manifest"
    why = _completion(c.completion)
    return None if why is None else f"completion.{why}"


def _held(h: m.FilesHeld) -> str | None:
    prefix = h.dataset + "#"
    strange = next((n for n, f in enumerate(h.files) if not f.block.startswith(prefix)), None)
    if strange is not None:
        return f"files[{strange}].block: not of the record's dataset"
    return _some("files", (f.lfn for f in h.files), FILES_MAX)


def _announced(a: m.SiteAnnounced) -> str | None:
    if a.site in a.peers:
        return "peers: name the site itself"
    if a.api and not _API.fullmatch(a.api):
        return "api: not an http address"
    if len(set(a.peers)) != len(a.peers):
        return "peers: one is named twice"
    return (
        _word("writer", a.writer)
        or _word("incarnation", a.incarnation)
        or _word("role", a.role)
        or _from_one("every_s", a.every_s)
    )


def _dead(d: m.DeadLetter) -> str | None:
    if len(d.value) > VALUE_BYTES_MAX or len(d.key) > KEY_BYTES_MAX:
        return f"value or key: over {VALUE_BYTES_MAX} or {KEY_BYTES_MAX} bytes"
    return _word("topic", d.topic)


_CHECKS: dict[type, Callable[[Any], str | None]] = {
    m.Origin: _origin,
    m.TransferIntent: _intent,
    m.IntentAsked: _asked,
    m.IntentDecided: _decided,
    m.ManifestWritten: _manifest,
    m.TransferPlanned: _planned,
    m.TransferDecided: lambda d: _from_one("decision_no", d.decision_no) or _priority(d.priority),
    m.PartOpened: _opened,
    m.LeaseExpired: lambda e: _from_one("request_no", e.request_no),
    m.ChunksRequested: _requested,
    m.ChunkHeader: _chunk,
    m.TransferProgress: _progress,
    m.ChunksServed: _served,
    m.TransferReported: _reported,
    m.CompletionRecord: _completion,
    m.TransferClosed: _closed,
    m.FilesHeld: _held,
    m.FilesLost: lambda lost: _some("lfns", lost.lfns, FILES_MAX),
    m.SiteAnnounced: _announced,
    m.DeadLetter: _dead,
}
