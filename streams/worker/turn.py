"""One turn: fold a fact into its row and put the row. What it owes is asked afterwards, by scheduler.py.

    read ▸ fold ▸ put ▸ (the caller:) ask ▸ carry out ▸ acknowledge

A crash before the put: the fact is heard again. Between put and acknowledgement: it is heard again and changes nothing,
but the row is put all the same, since its changelog may have died with the worker. After it: what was owed is read off
the row by the next owner.

A manifest's body is decoded where it is heard and goes on as bytes. What folding and asking need of it is its index,
stored beside the body; the body itself is read for who asks a source, and when the transfer ends.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from streams import wire
from streams.core import intent as intents
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.chain import Counts, Link
from streams.core.manifest import Manifest, ManifestIndex
from streams.core.names import IntentId, ManifestId, Site
from streams.core.owed import owes_release
from streams.core.topics import split
from streams.wire import avro
from streams.worker import rows

EARLY_MAX = 4000
"""Names of early manifests noted for one intent, about 130 bytes each; what a mirror brings out of order is few."""
DECODED_MAX = 2000
DECODED_BYTES_MAX = 4096
"""Rows kept decoded, so many and each so large: 20 MB at most."""
INDEXES_MAX = 2000
"""Indexes in memory: some 10 kB each of a full manifest."""
BODIES_BYTES_MAX = 4 << 20
"""Of encoded manifests that are kept decoded, which is five times as much."""
MARKED_MAX = 50_000
"""Open rows whose entry this process is known to have put; of one that is forgotten it is put again."""
FORGOTTEN_A_TURN = 32
"""Bodies of an ended intent that one turn deletes: a million files are a thousand bodies."""
FORGET = "forget/"
INDEXED_MIN = 64
"""Items of a manifest whose index is stored beside it: that of a smaller one is read off its body in a millisecond."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class IntentTurn:
    row: intents.IntentRow
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class TransferTurn:
    row: transfers.TransferRow
    index: ManifestIndex | None


@dataclass(frozen=True, slots=True)
class Leftover:
    """Bodies of an ended intent that are still to be deleted: numbers from `no` on, then `early` keys."""

    source: Site
    source_no: int
    no: int
    stop: int
    early: tuple[str, ...]


class Turns:
    """Folds facts into the tables of one site."""

    def __init__(self, tables: rows.Tables, here: Site | None) -> None:
        """`here` None: of no site. Rows of intents are then without what a site's own destination reported."""
        self.tables = tables
        self.here = here
        self._decoded: OrderedDict[str, tuple[bytes, intents.IntentRow | transfers.TransferRow]] = OrderedDict()
        """Rows as they were last put, by key, beside their bytes: what is read is what the table says."""
        self._indexes: OrderedDict[ManifestId, ManifestIndex] = OrderedDict()
        self._bodies: OrderedDict[ManifestId, tuple[Manifest, int]] = OrderedDict()
        self._bodies_bytes = 0
        self._marked: OrderedDict[str, None] = OrderedDict()
        self._leftovers: dict[int, dict[IntentId, Leftover]] = {}

    # intents

    def intent(self, partition: int, msg: intents.IntentMessage, value: bytes) -> IntentTurn:
        """Folds one fact of an intent. `refused` says why it contradicts what is known: a dead letter.

        `value`: the fact as it stands in the log, framed.
        """
        table = self.tables.intents
        before = self._row(msg.intent, table.get(msg.intent), rows.intent_row)
        refused = intents.contradiction(before, msg)
        if refused is not None and before is not None:
            table.put(msg.intent, rows.encode(before))
            return IntentTurn(before, refused)
        row = before or intents.IntentRow(msg.intent)
        if isinstance(msg, m.ManifestWritten):
            link = Link.of(msg)
            self._keep(row, msg, link, value)
            row = intents.follow(row, link)
        else:
            row = intents.fold(row, msg, self.here)
            if isinstance(msg, m.IntentDecided):
                self._name_again(row, 0, "")
        row, taken = self._advanced(row)
        if isinstance(msg, m.CompletionRecord) and msg.destination == self.here:
            self._drop_body(row, msg.manifest)
        if finished(row) and not (before is not None and finished(before)):
            # Before the put: a crash between the two has the fact heard again, on a row that is not finished.
            self._forget(partition, row)
        self._put(table, msg.intent, row, is_open=owes(row, self.here))
        for early in taken:
            self.tables.waiting.delete(early)
        self._forget_some(partition)
        return IntentTurn(row)

    def _row(self, key: str, raw: bytes | None, decode: Callable[[bytes | None], R | None]) -> R | None:
        known = self._decoded.get(key)
        if known is not None and known[0] == raw:
            return known[1]  # type: ignore[return-value]
        return decode(raw)

    def _put(
        self,
        table: rows.Table,
        key: str,
        row: intents.IntentRow | transfers.TransferRow,
        *,
        is_open: bool,
    ) -> None:
        """A row with its entry among the open ones; see rows.py for the order."""
        entry, raw = rows.open_key(key), rows.encode(row)
        if is_open and key not in self._marked:
            # By each process once: the changelog of an earlier one's put may have died with it.
            table.put(entry, b"")
            self._marked[key] = None
            if len(self._marked) > MARKED_MAX:
                self._marked.popitem(last=False)
        table.put(key, raw)
        self._decoded.pop(key, None)
        if len(raw) <= DECODED_BYTES_MAX:
            self._decoded[key] = raw, row
        if len(self._decoded) > DECODED_MAX:
            self._decoded.popitem(last=False)
        if not is_open:
            self._marked.pop(key, None)
            table.delete(entry)

    def _keep(self, row: intents.IntentRow, msg: m.ManifestWritten, link: Link, value: bytes) -> None:
        # Kept until its completion is heard, not only until its transfer answers: a row that fell back finds it again.
        counts, table = row.counts(link), self.tables.waiting
        useless = self.here not in row.destinations or row.is_closed(msg.manifest, self.here)
        if row.ended or (counts is not Counts.LATER and useless):
            return
        if counts is Counts.NOW:
            table.put(waiting_key(msg.manifest, msg.source), value)
        elif counts is Counts.LATER:
            self._keep_early(early_key(msg), link, value)
            self._note_early(msg.intent, early_key(msg))
        elif self._counted(row, msg):
            self._keep_counted(row, msg, link, value)

    def _keep_counted(self, row: intents.IntentRow, msg: m.ManifestWritten, link: Link, value: bytes) -> None:
        """Of a number that counts already: puts again what stands there, or what a crash left of it, and no rival."""
        key, early, table = waiting_key(msg.manifest, msg.source), early_key(msg), self.tables.waiting
        known = table.get(key)
        if known is None and table.get(link_key(early)) is not None:
            known = early.encode()
        is_last = msg.no + 1 == row.chain.next_no
        if known is None and is_last and link.sha256 != row.chain.sha256:
            return
        if known is not None and _is_name(known) and known.decode() == early:
            self._keep_early(early, link, value)
        table.put(key, value if known is None else known)
        if self.waiting_body(msg.manifest, msg.source) == value:  # else a rival, whose followers never count
            self._name_again(row, msg.no + 1, link.sha256)

    def _keep_early(self, key: str, link: Link, value: bytes) -> None:
        """Body and link. The first counts, and is put again: the changelog of its put may have died with a worker."""
        table = self.tables.waiting
        body, known = table.get(key), table.get(link_key(key))
        table.put(key, value if body is None else body)
        table.put(link_key(key), json.dumps(avro.writer(Link)(link)).encode() if known is None else known)

    def _counted(self, row: intents.IntentRow, msg: m.ManifestWritten) -> bool:
        """Heard again after it, or a rival of its number, counted."""
        decided = row.decision
        current = decided is not None and (decided.source, decided.source_no) == (msg.source, msg.source_no)
        return current and msg.no < row.chain.next_no

    def _advanced(self, row: intents.IntentRow) -> tuple[intents.IntentRow, list[str]]:
        """The row after those waiting manifests that count now, and the early keys whose bodies nobody needs here.

        Their links stay until the intent ends. Two tables have two changelogs: the put of a row may die with a worker,
        and the end of a link live on: heard again, the decision found no chain, and the row never ended (seen).
        """
        table, taken = self.tables.waiting, list[str]()
        while row.decision is not None and row.decision.source is not None and not row.chain.last:
            key = waiting_key(row.next_manifest, row.decision.source)
            early = f"{key}@{row.chain.sha256}"
            raw = table.get(link_key(early))
            if raw is None:
                break
            link = avro.reader(Link)(json.loads(raw))
            if row.counts(link) is not Counts.NOW:
                break
            if self.here in row.destinations and not row.is_closed(row.next_manifest, self.here):
                # The body stays where it is: of a full one it is a quarter of a megabyte, in the changelog too.
                table.put(key, early.encode())
            else:
                taken.append(early)
            row = intents.follow(row, link)
        return row, taken

    def _name_again(self, row: intents.IntentRow, no: int, sha256: str) -> None:
        """Puts the names again under which early manifests came to count, from `no` on: the fact behind which they did
        is heard again, and the changelog of its puts may have died with a worker while the row's lived on."""
        decided, table = row.decision, self.tables.waiting
        if row.ended or decided is None or decided.source is None or self.here not in row.destinations:
            return
        for counted in range(no, row.chain.next_no):
            manifest = ManifestId.of(row.intent, row.chain.source_no, counted)
            key = waiting_key(manifest, decided.source)
            early = f"{key}@{sha256}"
            raw = table.get(link_key(early))
            if raw is None:
                return
            if not row.is_closed(manifest, self.here):
                table.put(key, table.get(key) or early.encode())
            sha256 = avro.reader(Link)(json.loads(raw)).sha256

    def _note_early(self, intent: IntentId, key: str, *, waits: bool = True) -> None:
        """Notes the key of an early manifest, to delete it when the intent ends: one that continues a rival never
        counts, and nothing else would find it."""
        table, noted = self.tables.waiting, early_names(intent)
        names = [name for name in _names(table.get(noted)) if name != key]
        if waits and len(names) < EARLY_MAX:
            names.append(key)
        if names:
            table.put(noted, "\n".join(names).encode())
        else:
            table.delete(noted)

    def _drop_early(self, key: str) -> None:
        self.tables.waiting.delete(key)
        self.tables.waiting.delete(link_key(key))
        self._note_early(intent_of(key), key, waits=False)

    def _drop_body(self, row: intents.IntentRow, manifest: ManifestId) -> None:
        """A transfer that is over here needs no body, unless its row fell back: then a decision has it answer."""
        if row.decision is None or row.decision.source is None:
            return
        key = waiting_key(manifest, row.decision.source)
        stored = self.tables.waiting.get(key)
        if stored is None:
            return
        if _is_name(stored):
            self._drop_early(stored.decode())
        self.tables.waiting.delete(key)

    def _forget(self, partition: int, row: intents.IntentRow) -> None:
        """Has the bodies deleted that an ended intent leaves behind, in this turn and later ones of the partition."""
        early = tuple(_names(self.tables.waiting.get(early_names(row.intent))))
        decided = row.decision
        left = Leftover(row.intent.home, 0, 0, 0, early)
        if decided is not None and decided.source is not None and self.here in row.destinations:
            left = Leftover(decided.source, row.chain.source_no, 0, row.chain.next_no, early)
        if left.stop + len(early) > FORGOTTEN_A_TURN:
            self._leave(partition, row.intent, left)
        elif left.stop or early:
            self._delete(row.intent, left, left.stop, early)
            self.tables.waiting.delete(early_names(row.intent))

    def _leave(self, partition: int, intent: IntentId, left: Leftover) -> None:
        self.tables.waiting.put(forget_key(intent), json.dumps(avro.writer(Leftover)(left)).encode())
        self._leftovers.setdefault(partition, {})[intent] = left

    def _forget_some(self, partition: int) -> None:
        left, budget = self._leftovers.get(partition), FORGOTTEN_A_TURN
        while left and budget > 0:
            intent, rest = next(iter(left.items()))
            stop = min(rest.stop, rest.no + budget)
            early = rest.early[: budget - (stop - rest.no)]
            budget -= stop - rest.no + len(early)
            self._delete(intent, rest, stop, early)
            rest = replace(rest, no=stop, early=rest.early[len(early) :])
            if rest.no < rest.stop or rest.early:
                self._leave(partition, intent, rest)
            else:
                del left[intent]
                self.tables.waiting.delete(early_names(intent))
                self.tables.waiting.delete(forget_key(intent))

    def _delete(self, intent: IntentId, left: Leftover, stop: int, early: tuple[str, ...]) -> None:
        table = self.tables.waiting
        for no in range(left.no, stop):
            table.delete(waiting_key(ManifestId.of(intent, left.source_no, no), left.source))
        for key in early:
            table.delete(key)
            table.delete(link_key(key))

    def note_leftovers(self, partition: int) -> Iterator[None]:
        """Finds what an earlier owner of the partition had not deleted yet; a step for each."""
        for key in self.tables.waiting.keys(partition, FORGET):
            raw = self.tables.waiting.get(key)
            if raw is not None:
                left = avro.reader(Leftover)(json.loads(raw))
                self._leftovers.setdefault(partition, {})[IntentId(key.removeprefix(FORGET))] = left
            yield

    def drop(self, partition: int) -> None:
        """The partition went to another worker."""
        self._leftovers.pop(partition, None)
        self._marked.clear()  # another owner may have ended rows meanwhile

    def intent_row(self, intent: IntentId) -> intents.IntentRow | None:
        return self._row(intent, self.tables.intents.get(intent), rows.intent_row)

    def waiting_body(self, manifest: ManifestId, source: Site) -> bytes | None:
        """The framed body of a manifest that counts and is not closed."""
        raw = self.tables.waiting.get(waiting_key(manifest, source))
        return self.tables.waiting.get(raw.decode()) if raw is not None and _is_name(raw) else raw

    # transfers

    def transfer(self, msg: transfers.TransferMessage, value: bytes) -> TransferTurn:
        """Folds one fact of a transfer; words as for `intent`."""
        table = self.tables.transfers
        row = self._row(msg.manifest, table.get(msg.manifest), rows.transfer_row)
        closed = row is not None and row.state is transfers.State.CLOSED
        index = None if closed else self.index(msg.manifest)
        if isinstance(msg, m.TransferPlanned) and not closed:
            index = self._planned(msg, value, index)
        row = transfers.fold(row, msg, index)
        if row.state is transfers.State.CLOSED and not closed:
            # Before the put, as above.
            self._drop(msg.manifest)
        is_open = row.state is not transfers.State.CLOSED
        self._put(table, msg.manifest, row, is_open=is_open)
        return TransferTurn(row, index)

    def _planned(self, msg: m.TransferPlanned, value: bytes, index: ManifestIndex | None) -> ManifestIndex:
        """Stores body and index; of two bodies the first stays. Put again all the same: see the module."""
        table = self.tables.manifests
        body = table.get(msg.manifest)
        if body is None:
            body = wire.body_of(value)
            index = self._index_of(msg.manifest, Manifest(msg.body), len(body))
        assert index is not None, "it is read off the body"
        table.put(msg.manifest, body)
        if len(index.lengths) >= INDEXED_MIN:
            table.put(rows.index_key(msg.manifest), rows.encode_index(index))
        return index

    def _drop(self, manifest: ManifestId) -> None:
        self.tables.manifests.delete(manifest)
        self.tables.manifests.delete(rows.index_key(manifest))
        self._indexes.pop(manifest, None)
        _, size = self._bodies.pop(manifest, (None, 0))
        self._bodies_bytes -= size

    def transfer_row(self, manifest: ManifestId) -> transfers.TransferRow | None:
        return self._row(manifest, self.tables.transfers.get(manifest), rows.transfer_row)

    def keeps(self, manifest: ManifestId, decision_no: int) -> bool:
        """Whether an open transfer has all that a plan would bring: its row, under that decision, and its body."""
        row = self.transfer_row(manifest)
        if row is None or row.state in (transfers.State.NEW, transfers.State.CLOSED) or row.decision_no < decision_no:
            return False
        stored = self.tables.manifests.get
        return stored(rows.index_key(manifest)) is not None or stored(manifest) is not None

    def index(self, manifest: ManifestId) -> ManifestIndex | None:
        """The index of a stored manifest."""
        known = self._indexes.get(manifest)
        if known is not None:
            self._indexes.move_to_end(manifest)
            return known
        found = rows.manifest_index(self.tables.manifests.get(rows.index_key(manifest)))
        if found is not None:
            return self._remember(manifest, found)
        body = self.body(manifest)
        if body is None:
            return None
        return self._index_of(manifest, Manifest(wire.decode_stored(m.ManifestWritten, body)), len(body))

    def _index_of(self, key: ManifestId, manifest: Manifest, size: int) -> ManifestIndex:
        return self._remember(key, self.remember_manifest(key, manifest, size).index)

    def _remember(self, manifest: ManifestId, index: ManifestIndex) -> ManifestIndex:
        self._indexes[manifest] = index
        while len(self._indexes) > INDEXES_MAX:
            self._indexes.popitem(last=False)
        return index

    def body(self, manifest: ManifestId) -> bytes | None:
        """A stored manifest, framed."""
        return self.tables.manifests.get(manifest)

    def manifest(self, manifest: ManifestId) -> Manifest | None:
        """A stored manifest, decoded."""
        known = self.known_manifest(manifest)
        if known is not None:
            return known
        raw = self.body(manifest)
        if raw is None:
            return None
        return self.remember_manifest(manifest, Manifest(wire.decode_stored(m.ManifestWritten, raw)), len(raw))

    def known_manifest(self, manifest: ManifestId) -> Manifest | None:
        """One that is decoded already."""
        known = self._bodies.get(manifest)
        if known is None:
            return None
        self._bodies.move_to_end(manifest)
        return known[0]

    def remember_manifest(self, key: ManifestId, manifest: Manifest, size: int) -> Manifest:
        """Keeps one decoded while there is room, by the bytes of its body."""
        self._bodies_bytes += size - self._bodies.pop(key, (None, 0))[1]
        self._bodies[key] = (manifest, size)
        while self._bodies_bytes > BODIES_BYTES_MAX and len(self._bodies) > 1:
            self._bodies_bytes -= self._bodies.popitem(last=False)[1][1]
        return manifest


def row_here(topic: str, message: m.Message) -> m.Row:
    """Which row of a site folds a record that stands in `topic` there; NONE: it changes none.

    What a peer asks for is served and not folded, and a consumer keeps its own place.
    """
    match message:
        case m.ChunksRequested() if split(topic)[0] is not None or message.destination.consumer:
            return m.Row.NONE
        case m.TransferProgress() if message.destination.consumer:
            return m.Row.NONE
    return m.row_of(message)


def finished(row: intents.IntentRow) -> bool:
    """Whether it has ended, and no transfer of this site's destination is still being stopped."""
    return row.ended and not row.told


def owes(row: intents.IntentRow, here: Site | None) -> bool:
    """Whether this site may owe something for it, now or when time has passed."""
    if row.intent.home == here and owes_release(row):
        return True
    return here is not None and (bool(row.told) or (not row.ended and row.concerns(here)))


def waiting_key(manifest: ManifestId, source: Site) -> str:
    """A manifest that counts, by the site that wrote it: a wrong writer must not keep the right one's place.

    It holds the framed body, or the early key where that stands.
    """
    return f"{manifest}@{source}"


def early_key(msg: m.ManifestWritten) -> str:
    """A manifest whose decision or predecessor is not heard yet. It keeps the place behind its own predecessor only."""
    return f"{waiting_key(msg.manifest, msg.source)}@{msg.prev_sha256}"


def link_key(early: str) -> str:
    """What an early manifest is to its chain."""
    return f"{early}@link"


def early_names(intent: IntentId) -> str:
    """Where the names of an intent's early manifests are noted, until it ends."""
    return f"{ManifestId.of(intent, 0, 0)}@@early"


def forget_key(intent: IntentId) -> str:
    """Which bodies of an ended intent are still to be deleted."""
    return FORGET + intent


def intent_of(key: str) -> IntentId:
    """Whose a key of the waiting table is: all of an intent lies in the intent's partition."""
    if key.startswith(FORGET):
        return IntentId(key.removeprefix(FORGET))
    return ManifestId(key.partition("@")[0]).intent


def _is_name(stored: bytes) -> bool:
    """Whether an entry of the waiting table names another: a framed body begins with 0."""
    return not stored.startswith(b"\0")


def _names(raw: bytes | None) -> list[str]:
    return [] if not raw else raw.decode().split("\n")
