"""What makes a decoded record believable: whose word it is, and what its fields must say together. Pure; no bytes.

`fault(message)` is the first contradiction inside a record, in words that name the field; `author(message)` the only
site that may say it. Single fields are checked where they are made (names, ranges, whole numbers).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from streams.core import field_checks
from streams.core import messages as m
from streams.core.names import Site, shown
from streams.core.policy import MANIFEST_ITEMS_MAX, PAYLOAD_BYTES_MAX, SEGMENTS_MAX
from streams.core.ranges import Ranges
from streams.core.selections import parts
from streams.errors import Transfer2goError

FILES_MAX = 1000
"""Files of one FilesHeld or FilesLost."""
NAMES_MAX = 1000
"""Selectors of an intent; more is a dataset, a block, or another intent."""
SITES_MAX = 1000
NUMBER_MAX = 999_999_999
"""Of source_no and no: what a manifest id can hold."""
POSITION_MAX = 1 << 62
"""End of a manifest's line: sums stay inside an Avro long."""
VALUE_BYTES_MAX = 64 * 1024
KEY_BYTES_MAX = 4 * 1024
"""What a dead letter keeps of a refused record."""

_API = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(?:/[A-Za-z0-9._/-]*)?")


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
            return message.destination.site
        case m.TransferClosed():
            return message.completion.destination.site
        case m.FilesHeld() | m.FilesLost() | m.SiteAnnounced():
            return message.site
        case _:
            return None


def fault(message: Any) -> str | None:
    """Why the record contradicts itself or a limit, or None. Takes Origin and ChunkHeader too."""
    check = _CHECKS.get(type(message))
    return None if check is None else check(message)


def _origin(o: m.Origin) -> str | None:
    return field_checks.word("writer", o.writer) or field_checks.word("incarnation", o.incarnation)


def _intent(i: m.TransferIntent) -> str | None:
    return (
        field_checks.priority(i.priority)
        or field_checks.some("selectors", i.selectors, NAMES_MAX)
        or field_checks.some("destinations", i.destinations, SITES_MAX)
        or _part(i)
        or _growth(i)
    )


def _part(i: m.TransferIntent) -> str | None:
    entries = i.selection is not None and i.selection.startswith(parts.ENTRIES)
    if i.format is not None and (not entries or i.format not in parts.FORMATS):
        return f"format: of entries only, one of {', '.join(parts.FORMATS)}"
    if not entries and (consumer := next((d for d in i.destinations if d.consumer), None)) is not None:
        return f"destinations: {consumer} reads entries, and none are asked for"
    return None if i.selection is None else _spelled("selection", i.selection)


def _spelled(name: str, selection: str) -> str | None:
    try:
        known = parts.canonical(selection)
    except Transfer2goError as error:
        return f"{name}: {error.what}"
    return None if known == selection else f"{name}: not in its one spelling, {shown(known, 60)!r}"


def _growth(i: m.TransferIntent) -> str | None:
    ends = [name for name in ("until_ms", "until_items") if getattr(i, name) is not None]
    if ends and not i.open:
        return f"{ends[0]}: of an open intent only"
    return "until_items: 0" if i.until_items == 0 else None


def _asked(a: m.IntentAsked) -> str | None:
    if (a.asked is m.Asked.PRIORITY) != (a.priority is not None):
        return "priority: given exactly when it is asked for"
    return None if a.priority is None else field_checks.priority(a.priority)


def _decided(d: m.IntentDecided) -> str | None:
    if d.body.intent != d.intent:
        return "body.intent: not the record's intent"
    if d.verdict is m.Verdict.ACCEPTED and d.source is None:
        return "source: an accepted intent needs one"
    if d.source_no > NUMBER_MAX:
        return f"source_no: over {NUMBER_MAX}"
    inside = _intent(d.body)
    return (
        field_checks.from_one("decision_no", d.decision_no)
        or field_checks.priority(d.priority)
        or (inside and f"body.{inside}")
    )


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
        why = item_fault(item, in_bytes)
        if why is not None:
            return f"items[{n}].{why}"
        total += item.length
    if total > POSITION_MAX:
        return f"items: longer than {POSITION_MAX} together"
    return field_checks.sha256("prev_sha256", w.prev_sha256) if w.no else None


def item_fault(i: m.Item, in_bytes: bool) -> str | None:
    """Why an item of a manifest (`in_bytes`: counted in bytes) contradicts itself, or None."""
    if not i.block.startswith(i.dataset + "#"):
        return "block: not of the item's dataset"
    if i.reason is not None:
        return "length: an item with a reason has length 0" if i.length else None
    if i.holder is None:
        return "holder: missing, and no reason given"
    if i.selection:
        # Its words are its source's: whoever cannot make sense of them fails the item, not the manifest.
        return "target: a part of a file cannot land under the file's own name" if i.target == i.lfn else None
    if i.adler32 is None:
        return "adler32: a whole file needs one"
    if not in_bytes or i.length != i.bytes:
        return "length: of a whole file, must be its bytes"
    return "target: a whole file lands under its own name" if i.target != i.lfn else None


def _source_failed(f: m.SourceFailed) -> str | None:
    return (
        field_checks.from_one("request_no", f.request_no)
        or field_checks.word("plane", f.plane)
        or field_checks.within("items", f.items, MANIFEST_ITEMS_MAX)
    )


def _planned(p: m.TransferPlanned) -> str | None:
    inside = _manifest(p.body)
    if inside is not None:
        return f"body.{inside}"
    if p.manifest != p.body.manifest:
        return "manifest: not that of the body"
    return field_checks.from_one("decision_no", p.decision_no) or field_checks.priority(p.priority)


def _opened(p: m.PartOpened) -> str | None:
    return (
        field_checks.word("endpoint", p.endpoint)
        or field_checks.apart(MANIFEST_ITEMS_MAX, [("present", p.present)], p.failed)
        or _landed(p.landed, p.present)
    )


def _landed(landed: tuple[m.Landed, ...], sealed: Ranges) -> str | None:
    items = [one.item for one in landed]
    if items != sorted(set(items)):
        return "landed: not in the order of the items, each once"
    strange = next((item for item in items if item not in sealed), None)
    return None if strange is None else f"landed: item {strange} is not sealed"


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
    return field_checks.from_one("request_no", r.request_no) or field_checks.word("plane", r.plane)


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
    return field_checks.from_one("request_no", c.request_no)


def _progress(p: m.TransferProgress) -> str | None:
    return (
        field_checks.word("endpoint", p.endpoint)
        or field_checks.within("verified", p.verified, POSITION_MAX)
        or field_checks.apart(MANIFEST_ITEMS_MAX, [("sealed", p.sealed)], p.failed)
        or _landed(p.landed, p.sealed)
    )


def _served(s: m.ChunksServed) -> str | None:
    return field_checks.from_one("request_no", s.request_no) or field_checks.within("ranges", s.ranges, POSITION_MAX)


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
    return field_checks.word("state", r.state)


def _completion(c: m.CompletionRecord) -> str | None:
    if c.manifest.intent != c.intent:
        return "manifest: not of the record's intent"
    if c.items > MANIFEST_ITEMS_MAX:
        return f"items: {c.items}, over {MANIFEST_ITEMS_MAX}"
    why = field_checks.apart(c.items, [("sealed", c.sealed), ("cancelled", c.cancelled)], c.failed)
    if why is not None:
        return why
    if c.sealed.size + c.cancelled.size + sum(f.items.size for f in c.failed) != c.items:
        return "items: one is neither sealed nor failed nor cancelled"
    if c.ended is m.Ended.DONE and c.sealed.size != c.items:
        return "ended: done, yet not every item is sealed"
    if (why := _landed(c.landed, c.sealed)) is not None:
        return why
    if c.landed and c.bytes != sum(one.bytes for one in c.landed):
        return "bytes: not those of the files that landed"
    return field_checks.sha256("manifest_sha256", c.manifest_sha256)


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
    return field_checks.some("files", (f.lfn for f in h.files), FILES_MAX)


def _announced(a: m.SiteAnnounced) -> str | None:
    if a.site in a.peers:
        return "peers: name the site itself"
    if a.api and not _API.fullmatch(a.api):
        return "api: not an http address"
    if len(set(a.peers)) != len(a.peers):
        return "peers: one is named twice"
    return (
        field_checks.word("writer", a.writer)
        or field_checks.word("incarnation", a.incarnation)
        or field_checks.word("role", a.role)
        or field_checks.from_one("every_s", a.every_s)
    )


def _dead(d: m.DeadLetter) -> str | None:
    if len(d.value) > VALUE_BYTES_MAX or len(d.key) > KEY_BYTES_MAX:
        return f"value or key: over {VALUE_BYTES_MAX} or {KEY_BYTES_MAX} bytes"
    return field_checks.word("topic", d.topic)


_CHECKS: dict[type, Callable[[Any], str | None]] = {
    m.Origin: _origin,
    m.TransferIntent: _intent,
    m.IntentAsked: _asked,
    m.IntentDecided: _decided,
    m.ManifestWritten: _manifest,
    m.TransferPlanned: _planned,
    m.TransferDecided: lambda d: (
        field_checks.from_one("decision_no", d.decision_no) or field_checks.priority(d.priority)
    ),
    m.PartOpened: _opened,
    m.LeaseExpired: lambda e: field_checks.from_one("request_no", e.request_no),
    m.SourceFailed: _source_failed,
    m.ChunksRequested: _requested,
    m.ChunkHeader: _chunk,
    m.TransferProgress: _progress,
    m.ChunksServed: _served,
    m.TransferReported: _reported,
    m.CompletionRecord: _completion,
    m.TransferClosed: _closed,
    m.FilesHeld: _held,
    m.FilesLost: lambda lost: field_checks.some("lfns", lost.lfns, FILES_MAX),
    m.SiteAnnounced: _announced,
    m.DeadLetter: _dead,
}
