"""The part files of one open manifest at its destination: opened, written, lent to sync rounds, sealed, let go.

A landing takes records (payload thread) and lends its parts to a round (sync thread) between `lend` and `settle`.
What is known in intervals is account.py's. Nothing here waits, reads a clock or publishes; see destination.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

from streams.core.messages import ChunkHeader, FailureClass, Reason, Scope, Segment
from streams.core.names import Text, shown
from streams.core.ranges import Ranges
from streams.errors import StorageError
from streams.planes.account import Account
from streams.planes.orders import Open
from streams.storage.checksums import crc32c
from streams.storage.endpoint import Endpoint, Part, PartLost, Sealed, Wanted, part_tag

log = logging.getLogger(__name__)

PREALLOCATE_BYTES_MIN = 8 * 1024 * 1024
"""A big file's blocks are reserved when it is opened: a full disk is known before the bytes travel."""
_NEVER = float("inf")


def reason_of(error: StorageError, phase: str, scope: Scope = Scope.DESTINATION, more: str = "") -> Reason:
    return Reason(scope, FailureClass(error.failure_class), phase, Text(shown(f"{error}{more}", 390)))


@dataclass(slots=True, eq=False)
class Held:
    """An open part. The lock is held while a thread uses it: writers and sync rounds take turns."""

    item: int
    part: Part
    lock: Lock = field(default_factory=Lock)


@dataclass(slots=True)
class Lent:
    """What a sync round does for one landing."""

    whole: list[Held]
    partial: list[Held]
    bytes: int


class Landing:
    """`lost` is set once the attempt is useless or over; nothing is taken or sealed from then on."""

    def __init__(self, order: Open, endpoint: Endpoint) -> None:
        self.id = order.manifest.manifest
        self.attempt = order.attempt
        self.account = Account(order)
        self.lost: Reason | None = None
        self.refused = 0
        self.unsynced_bytes = 0
        # when to sync: kept by destination.py, which has the clock
        self.urgent = False
        self.first_at = _NEVER
        self.last_at = _NEVER
        self.not_before = 0.0
        self._endpoint = endpoint
        self._wanted = [Wanted(item.target, item.bytes, item.adler32) for item in order.manifest.items]
        self._lock = self.account.lock
        self._held: dict[int, Held] = {}
        self._dirty: dict[int, Held] = {}
        self._complained: set[int] = set()

    @property
    def news(self) -> bool:
        """Whether a round has anything to do or to tell."""
        return bool(self._dirty) or self.account.news

    # opening and letting go (order thread)

    def open(self) -> None:
        """Find what is there already, resume what is verified, make room for what is big. May set `lost`."""
        account = self.account
        waiting = [n for n in range(account.line.count) if n not in account.over]
        answers = self._endpoint.present_group([self._wanted[n] for n in waiting])
        there = Ranges.of(*(n for n, answer in zip(waiting, answers, strict=True) if answer is True))
        for item in there.numbers():
            if account.durable_of(item):
                self._discard_part(item, self.attempt)
        account.found(there)
        for item, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, StorageError):
                self._broke_at_open(item, answer)
            if self.lost is None and item not in account.over:
                self._open_item(item)

    def _open_item(self, item: int) -> None:
        if self.attempt > 1:
            self._discard_part(item, self.attempt - 1)
        length = self._wanted[item].bytes
        big = length >= PREALLOCATE_BYTES_MIN
        if length and not big and not self.account.durable_of(item):
            return  # its part is made when its first bytes come: a thousand are not needed at once
        try:
            held = self._hold(item, preallocate=big)
        except StorageError as error:
            self._broke_at_open(item, error)
        else:
            if self.account.whole(item):
                self._dirty[item] = held

    def _broke_at_open(self, item: int, error: StorageError) -> None:
        if error.failure_class == "transient":
            self.lost = reason_of(error, "open")  # the agent comes back later, with the next attempt
        else:
            self.broke(item, error, "open")

    def _discard_part(self, item: int, attempt: int) -> None:
        try:
            self._endpoint.discard(self._wanted[item].lfn, part_tag(self.id, item, attempt))
        except StorageError as error:
            log.warning("%s item %d: a part of attempt %d stays behind: %s", self.id, item, attempt, error)

    def release(self, why: Reason, *, discard: bool) -> None:
        """Take no more bytes; close the parts, for whoever resumes the attempt, or delete them."""
        with self._lock:
            self.lost = self.lost or why
            held, self._held = self._held, {}
            self._dirty.clear()
        for one in held.values():
            with one.lock:
                one.part.close()
        if discard:
            for item in range(self.account.line.count):
                if item not in self.account.sealed:
                    self._discard_part(item, self.attempt)

    # taking bytes (payload thread)

    def take(self, header: ChunkHeader, payload: bytes) -> int:
        """Write what is new of a record; bytes written. Bad segments are counted and skipped: they come again."""
        taken = at = 0
        alone = len(header.segments) == 1
        for segment in header.segments:
            if self.lost is not None:
                break
            piece = payload if alone else payload[at : at + segment.size]
            at += segment.size
            taken += self._take(header, segment, piece)
        return taken

    def _take(self, header: ChunkHeader, segment: Segment, piece: bytes) -> int:
        line, item = self.account.line, segment.item
        if item >= line.count:
            return self._refuse(header, f"item {item} is not in the manifest")
        first, last = line.span(item)
        start, stop = first + segment.offset, first + segment.offset + segment.length
        if stop > last:
            return self._refuse(header, f"segment [{start}, {stop}) is not in item {item} of [{first}, {last})")
        if item in self.account.over or self.account.written.covers(start, stop):
            self.account.news = True  # whoever asked for it does not know: tell again
            return 0
        if segment.reason is not None:
            self.fail(item, segment.reason)
            return 0
        if len(piece) != segment.length:
            return self._refuse(header, f"item {item}: {len(piece)} bytes stand for {segment.length}")
        if crc32c(piece) != segment.crc32c:
            return self._refuse(header, f"item {item}: crc32c of [{start}, {stop}) differs")
        return self._write(item, segment.offset, start, piece)

    def _write(self, item: int, offset: int, start: int, piece: bytes) -> int:
        try:
            held = self._held.get(item) or self._hold(item)
            with held.lock:
                held.part.write(offset, piece)
        except StorageError as error:
            self.broke(item, error, "write")
            return 0
        with self._lock:
            if not self.account.wrote(item, start, start + len(piece)) or self.lost is not None:
                return 0
            self._dirty[item] = held
            self.unsynced_bytes += len(piece)
        return len(piece)

    def _hold(self, item: int, *, preallocate: bool = False) -> Held:
        """Open an item's part, resuming what is durable of it."""
        wanted = self._wanted[item]
        with self._lock:
            if self.lost is not None or item in self.account.over:
                raise PartLost("the transfer was stopped", wanted.lfn)
            part = self._endpoint.open_part(
                wanted.lfn,
                part_tag(self.id, item, self.attempt),
                bytes=wanted.bytes,
                adler32=wanted.adler32,
                verified=self.account.durable_of(item),
                preallocate=preallocate,
            )
            held = self._held[item] = Held(item, part)
        return held

    def _refuse(self, header: ChunkHeader, why: str) -> int:
        """Said once per request; the range stays missing, and is asked for again when its lease ends."""
        self.refused += 1
        if header.request_no not in self._complained:
            self._complained.add(header.request_no)
            what = "%s request %d: a segment is refused and will be asked for again; further ones are only counted: %s"
            log.warning(what, self.id, header.request_no, why)
        return 0

    # failing

    def fail(self, item: int, reason: Reason) -> None:
        """The item cannot arrive: excuse it and free its part; the next progress tells."""
        with self._lock:
            if not self.account.fail(item, reason):
                return
            self._dirty.pop(item, None)
            held = self._held.pop(item, None)
        if held is not None:
            with held.lock:
                held.part.close()
        self._discard_part(item, self.attempt)

    def broke(self, item: int, error: StorageError, phase: str) -> None:
        """An item's storage operation failed: sealed by another, failed, lost, or worth another try."""
        if self.lost is not None or item in self.account.over:
            return
        if error.failure_class == "quota":
            more = f"; {self._wanted[item].bytes:,} bytes are wanted on the disk of {self._endpoint.root}"
            self.fail(item, reason_of(error, phase, more=more))
        elif error.failure_class in ("permanent", "auth", "data-bad"):
            self.fail(item, reason_of(error, phase))
        elif not isinstance(error, PartLost):
            log.warning("%s item %d: %s; tried again", self.id, item, error)
        elif self._is_there(item):
            self._sealed(item)
        else:
            self.lost = reason_of(error, phase)

    def _is_there(self, item: int) -> bool:
        wanted = self._wanted[item]
        try:
            return self._endpoint.present(wanted.lfn, wanted.bytes, wanted.adler32)
        except StorageError as error:
            log.info("%s item %d: %s", self.id, item, error)
            return False

    # sync rounds (sync thread)

    def lend(self) -> Lent:
        """What is to be synced or sealed now. Whole items take no more writes; partial ones wait for their lock."""
        with self._lock:
            dirty, self._dirty = self._dirty, {}
            taken, self.unsynced_bytes = self.unsynced_bytes, 0
            whole: list[Held] = []
            partial: list[Held] = []
            for held in dirty.values():
                (whole if self.account.whole(held.item) else partial).append(held)
        return Lent(whole, partial, taken)

    def settle(
        self, lent: Lent, seals: Iterable[Sealed | StorageError], syncs: Iterable[Ranges | StorageError]
    ) -> None:
        """Take in the answers of `seal_group(whole)` and `sync_group(partial)`."""
        for held, synced in zip(lent.partial, syncs, strict=True):
            if isinstance(synced, StorageError):
                self.broke(held.item, synced, "sync")
            else:
                self.account.made_durable(held.item, synced)
        for held, sealed in zip(lent.whole, seals, strict=True):
            if isinstance(sealed, Sealed):
                self._sealed(held.item)
                continue
            self.broke(held.item, sealed, "seal")
            if held.item not in self.account.over and self.lost is None:
                self._dirty[held.item] = held  # to be tried again

    def _sealed(self, item: int) -> None:
        with self._lock:
            self.account.seal(item)
            self._dirty.pop(item, None)
            held = self._held.pop(item, None)
        if held is not None:
            held.part.close()
