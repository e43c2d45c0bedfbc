"""The part files of one open manifest at its destination: opened, written, lent to sync rounds, sealed, let go.

A landing is opened in steps (an opening thread), takes records (payload thread) and lends its parts to a round (sync
thread) between `lend` and `settle`. It may be released at any time, by a thread of orders too.
What is known in intervals is progress.py's. Nothing here waits, reads a clock or publishes; see coordinator.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from streams.core.channel import Giver
from streams.core.names import Adler32, Site
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import (
    ChunkHeader,
    FailureClass,
    Item,
    Landed,
    ManifestWritten,
    Reason,
    RequestedItem,
    Scope,
    Segment,
    Unit,
)
from streams.core.transfer import WRONG
from streams.errors import StorageError, WireError
from streams.planes.destination.part_files import HeldPart, PartFiles
from streams.planes.destination.progress import LandingProgress
from streams.planes.destination.unread import UnreadAnswers, UnreadFact, together
from streams.planes.orders import Open
from streams.planes.reasons import reason_of
from streams.storage.checksums import AdlerRanges, Buffer, adler32_hex, crc32c
from streams.storage.endpoint import DifferentFile, PartFileLost, Reader, SealedFile, part_tag

log = logging.getLogger(__name__)

PREALLOCATE_BYTES_MIN = 8 * 1024 * 1024
"""A big file's blocks are reserved when it is opened: a full disk is known before the bytes travel."""
STEP_BYTES = 256 * 1024 * 1024
"""Of files that may be there already, and then are read back in one step of an opening: about a second of a disk."""
SYNC_BYTES = 32 * 1024 * 1024
"""Not synced: then it is synced. A request's size on the log, so usually its last record comes first."""
SEED_BYTES_MIN = 8 * 1024 * 1024
"""Of a file, beside those that were not what they should be, of which a new attempt adopts what is right. Of a smaller
one the sums would take longer than its bytes."""
LINE_SYNC_BYTES = 256 * 1024 * 1024
"""The same of one whose bytes come by the line, which is faster than a disk is asked to tell."""
_NEVER = float("inf")


@dataclass(slots=True)
class Lent:
    """What a sync round does for one landing."""

    whole: list[HeldPart]
    partial: list[HeldPart]
    bytes: int


class Landing:
    """`lost` is set once the attempt is useless or over; nothing is taken or sealed from then on."""

    def __init__(self, body: ManifestWritten, order: Open, files: PartFiles, root: str) -> None:
        """`root`: of the storage, for who has to make room on it."""
        self.id = body.manifest
        self.attempt = order.attempt
        self.progress = LandingProgress(body, order)
        self.lost: Reason | None = None
        self.refused = 0
        self.unsynced_bytes = 0
        self.sync_bytes = SYNC_BYTES
        # when to sync: kept by coordinator.py, which has the clock
        self.urgent = False
        self.first_at = _NEVER
        self.last_at = _NEVER
        self.not_before = 0.0
        self.files = files
        self._root = root
        self._items = body.items
        self._of_entries = body.unit is Unit.ENTRIES
        self._lock = self.progress.lock
        self._held: dict[int, HeldPart] = {}
        self._dirty: dict[int, HeldPart] = {}
        self._complained: set[int] = set()
        self._unread, self._never = UnreadAnswers(), UnreadAnswers()
        """What sources cannot read now; what they never will, of items that others have."""
        self._resumed, self._failed_before = order.verified, order.failed
        self._came: dict[Giver, Ranges] = {}
        """Of items that others have, and of what came by line: who gave which positions in this attempt."""
        self._unchecked = EMPTY
        """What came by line: nothing compared a checksum before the whole."""
        self._bad: dict[int, Reason] = {}
        """Whole items that were not what the manifest says."""
        self._wrong: set[int] = set()
        """The same, told or not."""
        self._seeds: set[int] = set()
        """Items of which an earlier attempt left bytes that may be right."""
        self._repair = order.repair
        self._replaced: set[int] = set()
        """Items of which another file has the place."""
        self._sums: dict[tuple[int, Site], AdlerRanges] = {}
        """Of items with such bytes: what sources said their own bytes have."""

    @property
    def news(self) -> bool:
        """Whether a round has anything to do or to tell."""
        return bool(self._dirty) or self.progress.news

    # opening (an opening thread)

    def opening(self) -> Iterator[bool]:
        """Find what is there already, resume what is verified, make room for what is big. May set `lost`.

        In steps: after each the caller may look after others; True: the next one reads back a file of more than
        STEP_BYTES. Once `lost` is set it ends with the step it is in.
        """
        if self.attempt > 1:
            for item in self._failed_before.numbers():
                self._discard_part(item, self.attempt - 1)
        for items in self._in_steps():
            if self._items[items[0]].bytes > STEP_BYTES and self.files.reads_back(self._items[items[0]]):
                yield True
            answers = self.files.present([self._items[n] for n in items])
            if self.lost is None:
                self._open_items(items, answers)
            if self.lost is not None:
                return
            yield False

    def _in_steps(self) -> Iterator[list[int]]:
        """Items that are not over, so many at a time as are read back in a step."""
        step: list[int] = []
        size = 0
        for item in (n for n in range(self.progress.line.count) if n not in self.progress.over):
            if step and size + self._items[item].bytes > STEP_BYTES:
                yield step
                step, size = [], 0
            step.append(item)
            size += self._items[item].bytes
        if step:
            yield step

    def _open_items(self, items: Sequence[int], answers: Sequence[SealedFile | StorageError | None]) -> None:
        there = {n: one for n, one in zip(items, answers, strict=True) if isinstance(one, SealedFile)}
        for item in there:  # its writer may have died before it could
            self._discard_part(item, self.attempt)
            if self.attempt > 1:
                self._discard_part(item, self.attempt - 1)
        landed = [one for item, sealed in there.items() if (one := self._landed(item, sealed)) is not None]
        self.progress.found(Ranges.of(*there), landed)
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, DifferentFile) and self._repair:
                self._seeds.add(item)
                self._replaced.add(item)
            elif isinstance(answer, StorageError):
                self._broke_at_open(item, answer)
            if self.lost is None and item not in self.progress.over:
                self._open_item(item)

    def _open_item(self, item: int) -> None:
        durable = bool(self.progress.durable_of(item))
        if self.attempt > 1:
            self._take_seed(item, durable)
        big = self.files.reserves and self._items[item].bytes >= PREALLOCATE_BYTES_MIN
        if self._items[item].length and not big and not durable and item not in self._seeds:
            return  # its part is made when its first bytes come: a thousand are not needed at once
        try:
            held = self._hold(item, preallocate=big)
        except StorageError as error:
            self._broke_at_open(item, error)
        else:
            if self.progress.whole(item):
                self._dirty[item] = held

    def _take_seed(self, item: int, durable: bool) -> None:
        """Take over what the attempt before left to adopt from; what else is left of it is deleted."""
        left, tag = (part_tag(self.id, item, attempt) for attempt in (self.attempt - 1, self.attempt))
        try:
            if not durable and self.files.take_seed(self._items[item], left, tag):
                self._seeds.add(item)
        except StorageError as error:
            log.warning("%s item %d: all of it comes again: %s", self.id, item, error)
        self._discard_part(item, self.attempt - 1)

    def _broke_at_open(self, item: int, error: StorageError) -> None:
        if error.failure_class == "transient":
            self.lost = self.lost or reason_of(error, "open")  # the agent comes back later, with the next attempt
        else:
            self.broke(item, error, "open")

    def _discard_part(self, item: int, attempt: int) -> None:
        try:
            self.files.discard(self._items[item], part_tag(self.id, item, attempt))
        except StorageError as error:
            log.warning("%s item %d: a part of attempt %d stays behind: %s", self.id, item, attempt, error)

    def item(self, number: int) -> Item | None:
        return self._items[number] if number < len(self._items) else None

    # being read (threads of a door)

    def open_reader(self, item: int) -> Reader:
        """Of an item's part, or of its file. Transient while it has neither."""
        with self._lock:
            held = self._held.get(item)
        if held is None and item not in self.progress.sealed:
            raise StorageError("nothing of it is here yet", self._items[item].target)
        return self.files.open_reader(self._items[item], held)

    def has(self, item: RequestedItem) -> bool:
        """Whether the item of this number is that file."""
        own = self._items[item.no] if item.no < len(self._items) else None
        return own is not None and (own.lfn, own.length) == (item.lfn, item.length)

    def holds(self, site: Site) -> bool:
        """Whether the manifest says that a site has any of the items."""
        return any(site == item.holder or site in item.others for item in self._items)

    # letting go (any thread)

    def release(self, why: Reason, *, discard: bool) -> None:
        """Take no more bytes; close the parts, for whoever resumes the attempt, or delete them."""
        for one in self._taken_out(why):
            one.part.close()
        if discard:
            for item in range(self.progress.line.count):
                if item not in self.progress.sealed:
                    self._discard_part(item, self.attempt)
                    if self.attempt > 1:  # this attempt may never have been opened
                        self._discard_part(item, self.attempt - 1)

    def give_up(self, why: Reason) -> None:
        """The attempt is over: delete its parts, but leave to the next what it may adopt from, if data were wrong."""
        left = set()
        for one in self._taken_out(why):
            large = bool(self._wrong) and self._items[one.item].bytes >= SEED_BYTES_MIN
            if one.item in self._wrong or large:
                left.add(one.item)
                try:
                    self.files.leave_seed(one)
                except StorageError as error:
                    log.warning("%s item %d: its part stays behind: %s", self.id, one.item, error)
            else:
                one.part.close()
        for item in range(self.progress.line.count):
            if item not in self.progress.sealed and item not in left:
                self._discard_part(item, self.attempt)

    def _taken_out(self, why: Reason) -> Iterable[HeldPart]:
        with self._lock:
            self.lost = self.lost or why
            held, self._held = self._held, {}
            self._dirty.clear()
        return held.values()

    # taking bytes (payload thread)

    def take(self, giver: Giver, header: ChunkHeader, payload: bytes) -> tuple[int, list[UnreadFact]]:
        """Write what is new of a record; bytes written, and what its source cannot read now or, of others' too, never.

        Bad segments are counted and skipped: they come again.
        """
        taken = at = 0
        unread: dict[int, Reason] = {}
        never: dict[int, Reason] = {}
        alone = len(header.segments) == 1
        for segment in header.segments:
            if self.lost is not None:
                break
            piece = payload if alone else payload[at : at + segment.size]
            at += segment.size
            taken += self._take(giver, header, segment, piece, unread, never)
        if self.lost is not None:
            return taken, []
        said = self._unread.heard(giver.source, header, unread)
        said += [fact for fact in self._never.heard(giver.source, header, never) if fact.items]
        return taken, said

    def _take(
        self,
        giver: Giver,
        header: ChunkHeader,
        segment: Segment,
        piece: bytes,
        unread: dict[int, Reason],
        never: dict[int, Reason],
    ) -> int:
        line, item = self.progress.line, segment.item
        if item >= line.count:
            return self._refuse(header, f"item {item} is not in the manifest")
        first, last = line.span(item)
        start, stop = first + segment.offset, first + segment.offset + segment.length
        if stop > last:
            return self._refuse(header, f"segment [{start}, {stop}) is not in item {item} of [{first}, {last})")
        if item in self.progress.over or self.progress.written.covers(start, stop):
            self.progress.news = True  # whoever asked for it does not know: tell again
            return 0
        if segment.reason is not None:
            if segment.reason.failure_class is FailureClass.TRANSIENT:
                unread.setdefault(item, segment.reason)
            elif self._items[item].others:
                never.setdefault(item, segment.reason)
            else:
                self.fail(item, segment.reason)
            return 0
        if crc32c(piece) != segment.crc32c:
            return self._refuse(header, f"item {item}: crc32c of [{start}, {stop}) differs")
        if self._items[item].others:
            self._note(giver, Ranges([(start, stop)]), checked=True)
        try:
            return self.write(item, segment.offset, segment.length, piece)
        except WireError as error:
            return self._refuse(header, f"item {item}: {error.what}")

    def _note(self, giver: Giver, came: Ranges, *, checked: bool) -> None:
        """Who gives positions of items that others have too, or that nothing checked on their way."""
        with self._lock:
            self._came[giver] = self._came.get(giver, EMPTY) | came
            if not checked:
                self._unchecked |= came

    def _givers(self, item: int) -> dict[tuple[Site, str], int]:
        """Who gave any of an item that is noted, by carrier, and the last number of each."""
        of_item, found = Ranges([self.progress.line.span(item)]), dict[tuple[Site, str], int]()
        for giver, came in self._came.items():
            if came & of_item:
                name = giver.source, giver.carrier
                found[name] = max(found.get(name, 0), giver.request_no)
        return found

    def take_line(self, giver: Giver, start: int, view: memoryview) -> int:
        """Write what is new of the line's bytes from `start` on; bytes written. Of several threads at once."""
        taken = 0
        self.sync_bytes = LINE_SYNC_BYTES
        # Of what is here already nothing is taken, and who gives it again is not to blame.
        self._note(giver, Ranges([(start, start + len(view))]) - self.progress.written, checked=False)
        for piece in self.progress.line.pieces(start, start + len(view)):
            if self.lost is not None:
                break
            stop = piece.position + piece.length
            if piece.item in self.progress.over or self.progress.written.covers(piece.position, stop):
                self.progress.news = True  # whoever asked for it does not know: tell again
                continue
            part = view[piece.position - start : stop - start]
            taken += self.write(piece.item, piece.offset, piece.length, part)
        return taken

    def seeds(self, ranges: Ranges) -> Ranges:
        """Of these positions, those of items of which an earlier attempt left bytes that may be right."""
        return ranges & self.progress.line.ranges_of(Ranges.of(*self._seeds)) if self._seeds else EMPTY

    def adopt(self, giver: Giver, start: int, stop: int, adler32: int, is_right: Callable[[memoryview], bool]) -> int:
        """Count `[start, stop)` of the line, all of one item, as written, if what an earlier attempt left is right.

        `adler32`: of what the giver has there. Returns the bytes that count from now on. Of several threads at once.
        """
        (piece,) = self.progress.line.pieces(start, stop)
        item, end = piece.item, piece.offset + piece.length
        with self._lock:
            sums = self._sums.setdefault((item, giver.source), AdlerRanges())
            if sums.uncovered(piece.offset, end) == [(piece.offset, end)]:
                sums.add(piece.offset, end, adler32)
        if self.lost is not None or item in self.progress.over:
            return 0
        self._note(giver, Ranges([(start, stop)]), checked=False)
        try:
            held = self._held.get(item) or self._hold(item)
            if not self.files.adopt(held, piece.offset, piece.length, is_right):
                return 0
        except StorageError as error:
            self.broke(item, error, "write")
            return 0
        self.progress.adopted(start, stop)
        return self._wrote(held, start, stop, piece.length)

    def write(self, item: int, offset: int, length: int, piece: Buffer) -> int:
        """Write `[offset, offset + length)` of an item, whatever carried it, checked already; bytes written.

        Offsets are in the manifest's unit. WireError for a piece that cannot be these.
        """
        first, last = self.progress.line.span(item)
        start = first + offset
        try:
            held = self._held.get(item)
            if held is None:
                held = self._hold(item, whole=piece if length == last - first else None)
            self.files.write(held, offset, length, piece)
        except StorageError as error:
            self.broke(item, error, "write")
            return 0
        return self._wrote(held, start, start + length, len(piece))

    def _wrote(self, held: HeldPart, start: int, stop: int, size: int) -> int:
        with self._lock:
            if not self.progress.wrote(held.item, start, stop) or self.lost is not None:
                return 0
            self._dirty[held.item] = held
            self.unsynced_bytes += size
        return size

    def _hold(self, item: int, *, preallocate: bool = False, whole: Buffer | None = None) -> HeldPart:
        """Open an item's part, resuming what is durable of it. `whole`: all of the item, to be written at once."""
        wanted = self._items[item]
        with self._lock:
            if self.lost is not None or item in self.progress.over:
                raise PartFileLost("the transfer was stopped", wanted.target)
            if item in self._held:
                return self._held[item]  # another thread brought its first bytes
            tag, verified = part_tag(self.id, item, self.attempt), self.progress.durable_of(item)
            replaces = item in self._replaced
            part = None
            if whole is not None and not verified and not replaces:
                part = self.files.open_whole(wanted, tag, whole)
            if part is None:
                part = self.files.open(wanted, tag, verified, preallocate=preallocate, replaces=replaces)
            held = self._held[item] = HeldPart(item, part)
            if self._of_entries and (untold := part.covered - Ranges(verified)):
                # A spool may hold more than was told. Of what is asked for next nothing may be new then, and who asks
                # would never hear that it is here: the next round tells.
                self.progress.resumed(item, untold)
                self._dirty[item] = held
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
            if not self.progress.fail(item, reason):
                return
            self._dirty.pop(item, None)
            held = self._held.pop(item, None)
        if held is not None:
            held.part.close()
        self._discard_part(item, self.attempt)

    def never_given(self, items: Ranges, reason: Reason) -> Ranges:
        """A source will never give these items: those that nobody else has fail; the others."""
        others = Ranges.of(*(n for n in items.numbers() if n < len(self._items) and self._items[n].others))
        for item in (items - others).numbers():
            self.fail(item, reason)
        return others - self.progress.over

    def blame(self) -> Iterator[tuple[Giver, Ranges, Reason]]:
        """Who gave the items that were not the file: for good where it was one alone and all was checked on its way, or
        where by its own sums its copy is not the file.

        Else nobody is blamed of an item that an earlier process had a part of: the next attempt knows.
        """
        with self._lock:
            bad, self._bad = self._bad, {}
            givers = {item: self._givers(item) for item in bad}
        found: dict[tuple[Site, str, bool], dict[int, int]] = {}
        for item in bad:
            differ = {source for source, _ in givers[item] if self._copy_differs(item, source)}
            resumed = bool(self._resumed & Ranges([self.progress.line.span(item)]))
            alone = len({source for source, _ in givers[item]}) == 1
            checked = not resumed and alone and not self._unchecked & Ranges([self.progress.line.span(item)])
            for (source, carrier), request_no in givers[item].items():
                if source in differ or not (differ or resumed):
                    found.setdefault((source, carrier, checked or source in differ), {})[item] = request_no
        for (source, carrier, sure), items in found.items():
            reason = together([bad[item] for item in items])
            if not sure:
                reason = replace(reason, failure_class=FailureClass.TRANSIENT)
            yield Giver(source, carrier, max(items.values())), Ranges.of(*items), replace(reason, phase=WRONG)

    def _copy_differs(self, item: int, source: Site) -> bool:
        sums = self._sums.get((item, source))
        whole = sums.whole(self._items[item].length) if sums is not None else None
        return whole is not None and adler32_hex(whole) != self._items[item].adler32

    def broke(self, item: int, error: StorageError, phase: str) -> None:
        """An item's storage operation failed: sealed by another, failed, lost, or worth another try."""
        if self.lost is not None or item in self.progress.over:
            return
        if error.failure_class == "quota":
            more = f"; {self._items[item].bytes:,} bytes are wanted on the disk of {self._root}"
            self.fail(item, reason_of(error, phase, more=more))
        elif error.failure_class in ("permanent", "auth", "data-bad"):
            self.fail(item, reason_of(error, phase))
        elif not isinstance(error, PartFileLost):
            log.warning("%s item %d: %s; tried again", self.id, item, error)
        elif (there := self._there(item)) is not None:
            self._sealed({item: there})
        else:
            self.lost = reason_of(error, phase)

    def _there(self, item: int) -> SealedFile | None:
        (found,) = self.files.present([self._items[item]])
        if isinstance(found, StorageError):
            log.info("%s item %d: %s", self.id, item, found)
            return None
        return found

    def _landed(self, item: int, sealed: SealedFile) -> Landed | None:
        return Landed(item, sealed.bytes, Adler32(sealed.adler32)) if self._of_entries else None

    # sync rounds (sync thread)

    def lend_last(self) -> Lent:
        """What is whole of an attempt that ends since data were wrong: it need not come again."""
        with self._lock:
            dirty = list(self._dirty.values()) if self._wrong else []
            return Lent([held for held in dirty if self.progress.whole(held.item)], [], 0)

    def lend(self) -> Lent:
        """What is to be synced or sealed now. Whole items take no more writes."""
        with self._lock:
            dirty, self._dirty = self._dirty, {}
            taken, self.unsynced_bytes = self.unsynced_bytes, 0
            whole: list[HeldPart] = []
            partial: list[HeldPart] = []
            for held in dirty.values():
                ready = self.progress.whole(held.item) and self.files.ready(held)
                (whole if ready else partial).append(held)
        return Lent(whole, partial, taken)

    def settle(
        self, lent: Lent, seals: Iterable[SealedFile | StorageError], syncs: Iterable[Ranges | StorageError]
    ) -> None:
        """Take in the answers of `seal(whole)` and `sync(partial)`."""
        for held, synced in zip(lent.partial, syncs, strict=True):
            if isinstance(synced, StorageError):
                self._failed(held, synced, "sync")
            else:
                self.progress.made_durable(held.item, synced)
        good: dict[int, SealedFile] = {}
        for held, sealed in zip(lent.whole, seals, strict=True):
            if isinstance(sealed, SealedFile):
                good[held.item] = sealed
            elif sealed.failure_class == "data-bad" and self._may_come_again(held.item):
                self._bad[held.item] = reason_of(sealed, WRONG, Scope.SOURCE)
                self._wrong.add(held.item)
            else:
                self._failed(held, sealed, "seal")
        self._sealed(good)
        if self._bad:  # what of the attempt is not sealed begins anew, since what was told as verified is not
            self.lost = self.lost or next(iter(self._bad.values()))

    def _may_come_again(self, item: int) -> bool:
        """An item that was not the file: from another holder, or by log what came unchecked."""
        unknown = bool((self._resumed | self._unchecked) & Ranges([self.progress.line.span(item)]))
        going = self.lost is None or bool(self._bad)
        return going and (unknown or bool(self._items[item].others))

    def ahead(self, lent: Lent) -> bool:
        """Do of later seals what can be done now, which may take long; whether something has to be tried again."""
        failed = False
        for held in lent.partial:
            if self.lost is None and held.item not in self.progress.over:
                try:
                    went_on = self.files.ahead(held)
                except StorageError as error:
                    self._failed(held, error, "seal")
                    failed = True
                else:
                    failed |= self.progress.whole(held.item) and not self._go_on(held, at_once=went_on)
        return failed

    def _go_on(self, held: HeldPart, *, at_once: bool) -> bool:
        """A whole item that was not ready to be sealed has its next step after others had their round."""
        with self._lock:
            if self._held.get(held.item) is held:
                self._dirty[held.item] = held
                self.urgent |= at_once
        return at_once

    def _failed(self, held: HeldPart, error: StorageError, phase: str) -> None:
        self.broke(held.item, error, phase)
        if held.item not in self.progress.over and self.lost is None:
            self._dirty[held.item] = held  # to be tried again

    def _sealed(self, sealed: Mapping[int, SealedFile]) -> None:
        landed = [one for item, file in sealed.items() if (one := self._landed(item, file)) is not None]
        with self._lock:
            self.progress.seal(Ranges.of(*sealed), landed)
            for item in sealed:
                self._dirty.pop(item, None)
            held = [part for item in sealed if (part := self._held.pop(item, None)) is not None]
        for part in held:
            part.part.close()
