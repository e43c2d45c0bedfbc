"""Intents in the view: folded by its thread, read from any. Survives a million: nothing of an ended one is in memory.

The folding is that of intent_snapshot.py, over rows. What is listed is found by keys of its own, newest first, a page
at a time. Facts are as old as the last record applied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from streams import wire
from streams.client.intent_snapshot import Head, IntentFold, Snapshot, snapshot
from streams.core import records as m
from streams.core import topics
from streams.core.chain import Link
from streams.core.intent import State
from streams.core.names import IntentId, Site
from streams.core.selectors import Kind
from streams.errors import Transfer2goError, UsageError
from streams.views import intent_rows as layout
from streams.views import rows

WORDS = (*(str(state) for state in State), "partly", "failed", layout.OPEN)
"""What an intent may be listed by: how it stands in one word, and `open` for all that have not ended."""
PAGE_MAX = 1000
SCANNED_MAX = 5000
"""Keys looked at for one page, and cells read for it: where most do not fit the question, a page is short."""
_READ_MAX = 16
"""Heads kept by who reads, with their bodies."""
_HEADS_MAX = 2000
_NAMES_MAX = 50_000
"""Heads kept in memory while their facts come, and the names that they ask for: about 10 MB."""

Where = tuple[str, int, int]
"""Topic, partition, offset."""
Raw = tuple[bytes | None, bytes | None, Any]
"""Key, value, headers."""
_OF_INTENTS = (
    m.TransferIntent,
    m.IntentAsked,
    m.IntentDecided,
    m.SiteAnswered,
    m.TransferReported,
    m.CompletionRecord,
    m.RemovalReported,
)


@dataclass(frozen=True, slots=True)
class Page:
    """Intents, newest first, and the cursor behind them; None: no more."""

    intents: tuple[Snapshot, ...]
    cursor: str | None


class IntentChanges:
    """The folding side, used by the view's thread only. Facts gather until `take`: an intent of which several come in
    one batch is written once. Between batches, what it remembers may always be forgotten.
    """

    def __init__(self, db: Any) -> None:
        self._db = db
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._names = 0
        self._cells: layout.Rows = {}
        self._changed: dict[IntentId, tuple[Head | None, Head]] = {}
        """Heads of this batch: as they stand in the database, and as they stand now."""
        self.moved: list[IntentId] = []
        """Of moves and removals those of which all has arrived, that sites have answered, or that have ended."""

    def __len__(self) -> int:
        """Rows, about, that `take` would give."""
        return len(self._cells) + 8 * len(self._changed)

    def hear_record(self, where: Where, record: Raw, here: Site) -> m.IntentDecided | None:
        """Fold what stands in one of the intents' topics of `here`; the decision where it is one. WireError for what
        the gate refuses; what raises has changed nothing.
        """
        topic = where[0]
        if topic.rpartition(".")[2] == topics.MANIFESTS:
            found = wire.decode_outline(topic, *record, here, place="{} {} {}".format(*where))
            link, datasets = found.outline
            self._hear(link, link.intent, found.origin.at_ms, datasets)
            return None
        heard = wire.decode(topic, *record, here)
        if isinstance(heard.message, _OF_INTENTS):
            self._hear(heard.message, heard.message.intent, heard.origin.at_ms)
        return heard.message if isinstance(heard.message, m.IntentDecided) else None

    def take(self) -> layout.Rows:
        """The rows that changed since the last call; they are to be written together."""
        found, self._cells = self._cells, {}
        self.moved = []
        for intent, (before, head) in self._changed.items():
            if head.gives and _moved(head) != (_moved(before) if before is not None else _moved(Head(intent))):
                self.moved.append(intent)
            found[layout.head_key(intent)] = layout.pack_head(head)
            if head.body is not None and (before is None or head.body is not before.body):
                found[layout.body_key(intent)] = layout.pack_body(head.body)
            found |= index_rows(head, before)
        self._changed = {}
        return found

    def forget(self) -> None:
        self._heads.clear()
        self._names = 0

    def _hear(self, message: m.Message | Link, intent: IntentId, at_ms: int, datasets: Iterable[str] = ()) -> None:
        pending = layout.Pending(self._cells)
        before = self._head(intent)
        fold = IntentFold(intent, before or Head(intent), layout.cells(self._db, intent, pending), names=None)
        fold.hear(message, at_ms, datasets)
        self._cells |= pending.new
        if fold.head != before:
            self._changed[intent] = (self._changed[intent][0] if intent in self._changed else before, fold.head)
            self._remember(intent, fold.head)

    def _head(self, intent: IntentId) -> Head | None:
        if intent in self._changed:
            return self._changed[intent][1]
        known = self._heads.get(intent)
        if known is not None:
            self._heads.move_to_end(intent)
            return known
        return _stored(self._db, intent)

    def _remember(self, intent: IntentId, head: Head) -> None:
        self._names += _weight(head) - _weight(self._heads.pop(intent, None))
        self._heads[intent] = head
        while len(self._heads) > _HEADS_MAX or (self._names > _NAMES_MAX and len(self._heads) > 1):
            self._names -= _weight(self._heads.popitem(last=False)[1])


def index_rows(head: Head, before: Head | None = None) -> layout.Rows:
    """How an intent is found, where it was found differently `before`; None deletes."""
    found: layout.Rows = {}
    if before is None:
        _move((), _named_keys(head), found)
        _move((), _word_keys(head, head.standing), found)
        return found
    if _basis(before) != _basis(head):
        _move(_named_keys(before), _named_keys(head), found)
    was, now = before.standing, head.standing
    if was != now or before.asked_ms != head.asked_ms:
        _move(_word_keys(before, was), _word_keys(head, now), found)
    return found


def _moved(head: Head) -> tuple[object, ...]:
    """By what sites learn how far an intent is by which files leave them."""
    return head.landed, head.ended, head.answers


def _move(before: Iterable[bytes], after: Iterable[bytes], extra: layout.Rows) -> None:
    old, new = set(before), set(after)
    extra.update((key, None) for key in old - new)
    extra.update((key, b"") for key in new - old)


def _stored(db: Any, intent: IntentId, row: bytes | None = None) -> Head | None:
    """A head as the database has it; `row`: its own, where it was read already."""
    row = db.get(layout.head_key(intent)) if row is None else row
    body = None if row is None else db.get(layout.body_key(intent))
    return None if row is None else layout.unpack_head(intent, row, None if body is None else layout.unpack_body(body))


def _weight(head: Head | None) -> int:
    return 0 if head is None or head.body is None else len(head.body.selectors)


def _basis(head: Head) -> tuple[object, ...]:
    """What the keys of an intent are made of, its word apart. Bodies are compared as objects: they may be long."""
    return head.asked_ms, id(head.body), head.decision and head.decision.source, head.datasets


def _named_keys(head: Head) -> Iterator[bytes]:
    place = layout.index_place(head.asked_ms or 0, head.intent)
    yield layout.index_prefix(layout.ALL, "") + place
    body = head.body
    sites = {str(head.intent.home)}
    datasets = set(head.datasets)
    if body is not None:
        yield layout.index_prefix(layout.REQUESTER, body.requester) + place
        sites |= {str(destination.site) for destination in body.destinations}
        sites |= {str(body.source)} if body.source is not None else set()
        sites |= {str(site) for site in m.leaving_sites(body)}
        datasets |= {selector.name.partition("#")[0] for selector in body.selectors if selector.kind is not Kind.FILE}
    if head.decision is not None and head.decision.source is not None:
        sites.add(str(head.decision.source))
    for site in sites:
        yield layout.index_prefix(layout.SITE, site) + place
    for dataset in datasets:
        yield layout.index_prefix(layout.DATASET, dataset) + place


def _word_keys(head: Head, standing: tuple[str, bool]) -> Iterator[bytes]:
    place = layout.index_place(head.asked_ms or 0, head.intent)
    word, ended = standing
    for name in (word,) if ended else (word, layout.OPEN):
        yield layout.index_prefix(layout.WORD, name) + place


class Intents:
    """Reads the rows that IntentChanges writes. Safe to share between threads."""

    def __init__(self, db: Any) -> None:
        self._db = db
        self._known: OrderedDict[IntentId, tuple[bytes, Head]] = OrderedDict()
        """By the row that they were read from: a body may have 10,000 names, and who removes asks for it each step."""
        self._lock = Lock()

    def snapshot(self, intent: IntentId) -> Snapshot | None:
        """The intent as it stands; None when nothing is known of it. Items that failed have no names: see `places`."""
        head = self.head(intent)
        return None if head is None else snapshot(head, layout.cells(self._db, intent))

    def head(self, intent: IntentId) -> Head | None:
        row = self._db.get(layout.head_key(intent))
        if row is None:
            return None
        with self._lock:
            before, head = self._known.get(intent, (b"", None))
        if head is None or row != before:
            head = _stored(self._db, intent, row)
            assert head is not None
        with self._lock:
            self._known[intent] = row, head
            self._known.move_to_end(intent)
            while len(self._known) > _READ_MAX:
                self._known.popitem(last=False)
        return head

    def places(self, intent: IntentId) -> dict[str, str]:
        """Where the manifests stand of which items failed: by manifest, as whoever folded it said it."""
        prefix = layout.cells(self._db, intent).failed
        return {key.partition(" ")[2]: found.place for key, found in prefix.items() if found.place}

    def page(
        self,
        *,
        state: str = "",
        requester: str = "",
        dataset: str = "",
        site: str = "",
        cursor: str = "",
        limit: int = 100,
    ) -> Page:
        """Up to `limit` intents that fit all that is given, newest first. A page may be short, or empty, with more
        behind its cursor. UsageError for a word or a cursor that is none.
        """
        if state and state not in WORDS:
            raise UsageError(f"no state {state!r}", next=f"one of: {', '.join(WORDS)}")
        limit = max(1, min(limit, PAGE_MAX))
        asked = {layout.DATASET: dataset, layout.REQUESTER: requester, layout.WORD: state, layout.SITE: site}
        prefix = _narrowest(asked)
        start = prefix + _behind(cursor) if cursor else prefix
        room, found, last = SCANNED_MAX, list[Snapshot](), b""
        wanted = {layout.index_prefix(index, name) for index, name in asked.items() if name} - {prefix}
        behind = (key[len(prefix) :] for key, _ in rows.scan(self._db, prefix, start))
        for places in rows.batched(behind, min(limit, 200)):
            fits = self._fitting(places, wanted)
            heads = self._db.get([layout.HEAD + place[8:] for place in fits]) if fits else []
            rows_of = dict(zip(fits, heads, strict=True))
            for place in places:
                if room <= 0 or len(found) == limit:
                    return Page(tuple(found), f"{last[:8].hex()}.{last[8:].decode()}")
                room, last = room - 1, place
                if (row := rows_of.get(place)) is not None:
                    intent = IntentId(place[8:].decode())
                    head = _stored(self._db, intent, row)
                    assert head is not None
                    found.append(snapshot(head, layout.cells(self._db, intent)))
                    room -= _cost(head)
        return Page(tuple(found), None)

    def _fitting(self, places: Sequence[bytes], wanted: set[bytes]) -> list[bytes]:
        """Those that stand in the other indexes too: no head is read of one that does not fit."""
        fits = list(places)
        for prefix in wanted:
            if fits:
                found = self._db.get([prefix + place for place in fits])
                fits = [place for place, row in zip(fits, found, strict=True) if row is not None]
        return fits


def _cost(head: Head) -> int:
    """What an intent adds to a page beside its key: cells to read, names to say."""
    failed = sum(min(side.failed, side.closed.size) for side in head.sides)
    return head.open + failed + _weight(head) // 4


def _narrowest(asked: Mapping[bytes, str]) -> bytes:
    """The index with the fewest intents, as far as that can be said without looking: `asked` has the usual order."""
    if asked[layout.WORD] in (layout.OPEN, State.NEW, State.ASKED, State.ACTIVE):
        return layout.index_prefix(layout.WORD, asked[layout.WORD])
    return next((layout.index_prefix(*one) for one in asked.items() if one[1]), layout.index_prefix(layout.ALL, ""))


def _behind(cursor: str) -> bytes:
    """The first place behind a cursor's."""
    time, _, intent = cursor.partition(".")
    try:
        place = bytes.fromhex(time)
        if len(place) != 8:
            raise ValueError
        return place + IntentId(intent).encode() + b"\0"
    except (ValueError, Transfer2goError):
        raise UsageError(f"no cursor {cursor[:80]!r}", next="give back what the last page said") from None
