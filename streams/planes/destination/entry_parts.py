"""Items of entries as a landing's part files (part_files.PartFiles): a spool, and the final file that grows from it.

For each item two files bear its tag: the spool (`part`), which all that is told rests on, and what of the final file
is written so far (`final.part`), which nothing rests on: a crash only costs its writing again. What a crash leaves:
- before the rename: the spool. Its successor writes the final file anew, with the same bytes.
- after the rename: the final name holds the whole file; `present` finds it, and the spool that stayed is discarded.
- power lost in between: if the name is back, so is the spool (or the part is lost, and another attempt is made).

Threads: one writes, another syncs and seals, and a third may close; `_adding`, `_sealing` and `_opening` are taken in
this order. Imported only where entries land: it brings pyarrow.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import Lock
from typing import TypeVar

from streams.core.names import shown
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import Item
from streams.core.selections import parts
from streams.core.selections.entries import EventSelection
from streams.errors import StorageError, UsageError, permanent, without_part_names
from streams.events.batches import unpack
from streams.events.final_files import FORMATS
from streams.events.provenance import Provenance, provenance_of
from streams.events.spool import Spool
from streams.events.spool_records import Recent
from streams.events.writing import Sealing, kind_fault
from streams.planes.destination.part_files import HeldPart
from streams.storage import oserrors
from streams.storage.checksums import Buffer
from streams.storage.endpoint import (
    Beside,
    Endpoint,
    FileMissing,
    PartFileLost,
    Reader,
    SealedFile,
    Wanted,
    different_file,
)

log = logging.getLogger(__name__)

OPEN_SPOOLS_MAX = 64
"""More are closed, the one used longest ago first, and read back when they are used again."""
GROWING_MAX = 2
"""Final files written while entries still come: each holds a row group in memory."""
STEP_BYTES = 128 * 1024 * 1024
"""Of a spool, for which the final file grows at once: others wait for a second or two meanwhile."""
RECENT_BYTES = 48 * 1024 * 1024
_SPOOL, _FINAL = "part", "final.part"
_ONE = Ranges([(0, 1)])
T = TypeVar("T")


class EntryParts:
    """One for all landings of a process: its bounds are theirs together."""

    reserves = False

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._room = Room(endpoint)

    def present(self, items: Sequence[Item]) -> list[SealedFile | StorageError | None]:
        answers = [self._there(item) for item in items]
        found = [at for at, answer in enumerate(answers) if isinstance(answer, SealedFile)]
        files = [Wanted(one.lfn, one.bytes, one.adler32) for one in answers if isinstance(one, SealedFile)]
        for at, durable in zip(found, self._endpoint.present_group(files) if files else (), strict=True):
            if durable is not True:
                answers[at] = durable or None
        return answers

    def reads_back(self, item: Item) -> bool:
        return isinstance(self._there(item), SealedFile)

    def open(
        self, item: Item, tag: str, verified: Iterable[tuple[int, int]], *, preallocate: bool, replaces: bool
    ) -> EntryPart:
        part = EntryPart(self._room, item, tag, Ranges(verified))
        part.open()
        return part

    def open_whole(self, item: Item, tag: str, payload: Buffer) -> EntryPart | None:
        return None  # a spool has more to look at

    def adopt(self, held: HeldPart, offset: int, length: int, is_right: Callable[[memoryview], bool]) -> bool:
        return False  # no source has sums of what is written here

    def leave_seed(self, held: HeldPart) -> None:
        held.part.discard()

    def take_seed(self, item: Item, left: str, tag: str) -> bool:
        return False

    def discard(self, item: Item, tag: str) -> None:
        self._endpoint.discard(item.target, tag)

    def open_reader(self, item: Item, held: HeldPart | None) -> Reader:
        raise permanent("entries are given on by who has the files", item.target)

    def write(self, held: HeldPart, offset: int, length: int, payload: Buffer) -> None:
        held.part.write(offset, length, bytes(payload))

    def sync(self, held: Sequence[HeldPart]) -> list[Ranges | StorageError]:
        answers = [_answer(one.part.sync) for one in held]
        for at, failure in zip(range(len(held)), self._settled([one.part for one in held]), strict=True):
            answers[at] = failure or answers[at]
        return answers

    def ready(self, held: HeldPart) -> bool:
        ready: bool = held.part.ready()
        return ready

    def seal(self, held: Sequence[HeldPart]) -> list[SealedFile | StorageError]:
        answers = [_answer(partial(self._seal, one.part)) for one in held]
        named = [at for at, answer in enumerate(answers) if isinstance(answer, SealedFile)]
        failures = self._endpoint.settle_names([held[at].part.item.target for at in named])
        for at, failure in zip(named, failures, strict=True):
            answers[at] = failure or answers[at]
        return answers

    def ahead(self, held: HeldPart) -> bool:
        went_on: bool = held.part.ahead()
        return went_on

    def _seal(self, part: EntryPart) -> SealedFile:
        sealed = part.seal()
        if sealed is not None:
            return sealed
        (there,) = self.present([part.item])
        if there is None:
            raise StorageError("the file at the destination went away while it was looked at", part.item.target)
        part.discard()
        if isinstance(there, StorageError):
            raise there
        return there

    def _settled(self, opened: Sequence[EntryPart]) -> list[StorageError | None]:
        """Directories that were made for parts are durable before anything in them is told."""
        new = [part for part in opened if not part.directory_durable]
        failures = iter(self._endpoint.settle_names([part.item.target for part in new]))
        answers: list[StorageError | None] = []
        for part in opened:
            failure = None if part.directory_durable else next(failures)
            part.directory_durable = failure is None
            answers.append(failure)
        return answers

    def _there(self, item: Item) -> SealedFile | StorageError | None:
        """The file under the final name, if it holds these entries of this version of the file."""
        try:
            about_of(item)
            with self._endpoint.open_reader(item.target) as reader:
                size, version = reader.stat.bytes, reader.stat.version
            where = self._endpoint.pfn(item.target)
            try:
                told = provenance_of(where)
            except StorageError as error:
                if error.failure_class != "data-bad":
                    raise
                return different_file(shown(error.what, 200), where)
            if (told.lfn, told.selection, told.version) != (item.lfn, item.selection, item.version):
                what = f"it holds {told.selection or 'entries'} of {told.lfn} ({told.version})"
                return different_file(shown(what, 200), where)
            return SealedFile(item.target, size, self._endpoint.checksum(item.target, version), already=True)
        except FileMissing:
            return None
        except StorageError as error:
            return error


class Room:
    """What the parts of a process share, and how many of them may be at work."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.recent = Recent(RECENT_BYTES)
        self._awake: OrderedDict[EntryPart, None] = OrderedDict()
        self._growing: set[EntryPart] = set()
        self._lock = Lock()

    def woke(self, part: EntryPart) -> None:
        with self._lock:
            self._awake[part] = None
            self._awake.move_to_end(part)
            spare = [one for one in self._awake if one is not part][: max(0, len(self._awake) - OPEN_SPOOLS_MAX)]
        for one in spare:
            one.sleep()

    def asleep(self, part: EntryPart) -> None:
        with self._lock:
            self._awake.pop(part, None)
            self._growing.discard(part)

    def may_grow(self, part: EntryPart, *, whole: bool) -> bool:
        """There is always a place for one that is whole: nothing but its turn lies between it and its end."""
        with self._lock:
            if part not in self._growing and len(self._growing) >= GROWING_MAX + whole:
                return False
            self._growing.add(part)
            return True

    def grows_no_more(self, part: EntryPart) -> None:
        with self._lock:
            self._growing.discard(part)


class EntryPart:
    """One item's spool and final file. After `PartFileLost` it is of no more use."""

    def __init__(self, room: Room, item: Item, tag: str, verified: Ranges) -> None:
        self.item = item
        self.directory_durable = False
        self._asked, self._kind = about_of(item)
        self._room, self._tag = room, tag
        self._durable = verified
        self._pfn = room.endpoint.pfn(item.target)
        self._beside: Beside | None = None
        self._spool: Spool | None = None
        self._growing: Sealing | None = None
        self._sealed: SealedFile | None = None
        self._lost: StorageError | None = None
        self._closed = False
        self._adding, self._sealing, self._opening = Lock(), Lock(), Lock()

    def open(self) -> None:
        with self._saying():
            self._awake()

    @property
    def covered(self) -> Ranges:
        with self._opening:
            return self._durable if self._spool is None else self._positions(self._spool, self._spool.taken)

    def write(self, offset: int, length: int, payload: bytes) -> None:
        with self._adding, self._saying():
            spool = self._awake()
            known = spool.schema is not None
            # an item without entries has one position, which a batch without rows serves
            empty = self._may_be_empty and unpack(payload).num_rows == 0
            spool.add(offset, offset if empty else offset + length, payload)
            fault = None if known or spool.schema is None else kind_fault(spool.schema, self._kind)
            if fault:
                raise permanent(fault, self._pfn, "ask for parquet")

    def sync(self) -> Ranges:
        with self._sealing, self._saying():
            spool = self._awake()
            self._durable = self._positions(spool, spool.sync())
            return self._durable

    def ahead(self) -> bool:
        """Let the final file grow a step, if there is room in memory for one more that does; whether it grew."""
        with self._sealing, self._saying():
            if self._closed:
                return False
            spool = self._awake()
            if not self._room.may_grow(self, whole=spool.whole(self.item.length)):
                return False
            try:
                with self._writing():
                    growing = self._sealing_of(spool)
                    return growing.entries < growing.advance(self._step_entries(spool))
            except StorageError:
                self._let_final_go()
                raise

    def ready(self) -> bool:
        """Whether at most a step is left to do."""
        with self._sealing:
            spool, growing = self._spool, self._growing
            if spool is None:  # closed, failed, or asleep for having been unused: whatever it is, it is soon known
                return self.item.bytes <= STEP_BYTES
            done = growing.entries if growing is not None else 0
            return self.item.length - done <= self._step_entries(spool)

    def seal(self) -> SealedFile | None:
        """Write the rest of the final file and give it its name, which is not durable yet; None if something has it."""
        with self._sealing, self._saying():
            if self._sealed is None:
                self._sealed = self._named()
            return self._sealed

    def sleep(self) -> None:
        """Close the spool for now, if nobody is at work with it."""
        if not self._adding.acquire(blocking=False):
            return
        try:
            if not self._sealing.acquire(blocking=False):
                return
            try:
                with self._opening:
                    if self._spool is not None and self._sealed is None:
                        try:
                            self._durable = self._positions(self._spool, self._spool.sync())
                        except StorageError as error:  # whoever wakes it next is told
                            self._lost = error
                    self._let_go()
            finally:
                self._sealing.release()
        finally:
            self._adding.release()

    def discard(self) -> None:
        self.close()
        self._room.endpoint.discard(self.item.target, self._tag)

    def close(self) -> None:
        with self._adding, self._sealing, self._opening:
            self._closed = True
            self._let_go()

    # with the locks held

    @property
    def _may_be_empty(self) -> bool:
        return self.item.length == 1 and self._asked.stop is None

    def _positions(self, spool: Spool, entries: Ranges) -> Ranges:
        return _ONE if self._may_be_empty and not spool.taken and spool.schema is not None else entries

    def _step_entries(self, spool: Spool) -> int:
        return max(1, self.item.length * STEP_BYTES // max(1, spool.file_bytes))

    def _awake(self) -> Spool:
        with self._opening:
            if self._closed:
                raise PartFileLost("the part was closed", self._pfn)
            if self._lost is not None:
                raise self._lost
            spool = self._spool or self._opened()
        self._room.woke(self)
        return spool

    def _opened(self) -> Spool:
        self._beside = self._room.endpoint.open_beside(self.item.target, self._tag)
        try:
            verified = EMPTY if self._may_be_empty else self._durable
            spool = Spool(self._beside.path(_SPOOL), verified=verified, recent=self._room.recent)
            if self._durable - self._positions(spool, spool.durable):
                spool.close()
                raise PartFileLost("verified entries are gone", self._pfn)
        except BaseException:
            self._beside.close()
            raise
        self._spool = spool
        return spool

    def _sealing_of(self, spool: Spool) -> Sealing:
        if self._growing is None:
            assert self._beside is not None
            first = self._asked.start
            entries = 0 if self._may_be_empty and not spool.taken else self.item.length
            about = Provenance(
                self.item.lfn,
                self._asked.tree,
                first,
                first + entries,
                self.item.selection,
                self.item.version,
            )
            self._growing = Sealing(spool, self._kind, self._beside.path(_FINAL), about)
        return self._growing

    def _named(self) -> SealedFile | None:
        spool = self._awake()
        assert self._beside is not None
        try:
            with self._writing():
                written = self._sealing_of(spool).finish()
        finally:
            self._let_final_go()
        if not self._beside.name(_FINAL):
            return None
        with suppress(OSError):  # it is only in the way: the item is there
            os.unlink(self._beside.path(_SPOOL))
        return SealedFile(self.item.target, written.bytes, written.adler32, already=False)

    def _let_final_go(self) -> None:
        growing, self._growing = self._growing, None
        if growing is not None:
            growing.close()
        self._room.grows_no_more(self)

    def _let_go(self) -> None:
        self._let_final_go()
        spool, self._spool = self._spool, None
        beside, self._beside = self._beside, None
        if spool is not None:
            spool.close()
        if beside is not None:
            beside.close()
        self._room.asleep(self)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What a library cannot write fails this item, whatever it raises, and not the round that others are in."""
        try:
            yield
        except (StorageError, OSError):
            raise
        except Exception as error:
            log.exception("%s cannot be written", self._pfn)
            why = shown(without_part_names(str(error)), 200)
            what = f"cannot be written as {self._kind}: {type(error).__name__}: {why}"
            raise permanent(what, self._pfn, "ask for another format") from error

    @contextmanager
    def _saying(self) -> Iterator[None]:
        """Errors name the target. A spool that rotted is lost, and another attempt helps: the data is not bad."""
        try:
            yield
        except StorageError as error:
            error.where = self._pfn
            if isinstance(error, PartFileLost) and error.failure_class == "data-bad":
                error.failure_class = "transient"
            raise
        except OSError as error:
            raise oserrors.writing(error, self._pfn) from error


def about_of(item: Item) -> tuple[EventSelection, str]:
    """Which entries an item is, and as what they land. StorageError (permanent) where that makes no sense."""
    where, suffix = item.target, parts.suffix_of(item.target)
    try:
        asked = parts.entries_of(item.selection)
    except UsageError as error:
        raise permanent(f"the item's selection cannot be read: {error}", where) from None
    if asked is None:
        raise permanent(f"{shown(item.selection, 80)!r} means no entries", where)
    if asked.stop is not None and asked.stop - asked.start != item.length:
        raise permanent(f"{shown(item.selection, 80)!r} has not the item's {item.length:,} entries", where)
    if suffix not in FORMATS:
        raise permanent(f"entries do not land as {shown(suffix, 20)!r}", where, f"use one of {', '.join(FORMATS)}")
    return asked, suffix


def _answer(work: Callable[[], T]) -> T | StorageError:
    try:
        return work()
    except StorageError as error:
        return error
