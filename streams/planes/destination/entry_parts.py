"""Part files of items of entries, for a landing: see part_files.PartFiles. One part: entry_part.py.

Imported only where entries land: it brings pyarrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from streams.core.names import shown
from streams.core.ranges import Ranges
from streams.core.records import Item
from streams.errors import StorageError
from streams.events.provenance import provenance_of
from streams.planes.destination.entry_part import EntryPart, Room, about_of
from streams.planes.destination.part_files import HeldPart
from streams.storage.endpoint import Endpoint, FileMissing, Sealed, Wanted

T = TypeVar("T")


class EntryParts:
    """See part_files.PartFiles. One for all landings of a process: its bounds are theirs together."""

    reserves = False

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._room = Room(endpoint)

    def present(self, items: Sequence[Item]) -> list[Sealed | StorageError | None]:
        answers = [self._there(item) for item in items]
        found = [at for at, answer in enumerate(answers) if isinstance(answer, Sealed)]
        files = [Wanted(one.lfn, one.bytes, one.adler32) for one in answers if isinstance(one, Sealed)]
        for at, durable in zip(found, self._endpoint.present_group(files) if files else (), strict=True):
            if durable is not True:
                answers[at] = durable or None
        return answers

    def reads_back(self, item: Item) -> bool:
        return isinstance(self._there(item), Sealed)

    def open(self, item: Item, tag: str, verified: Iterable[tuple[int, int]], *, preallocate: bool) -> EntryPart:
        part = EntryPart(self._room, item, tag, Ranges(verified))
        part.open()
        return part

    def discard(self, item: Item, tag: str) -> None:
        self._endpoint.discard(item.target, tag)

    def write(self, held: HeldPart, offset: int, length: int, payload: bytes) -> None:
        held.part.write(offset, length, payload)

    def sync(self, held: Sequence[HeldPart]) -> list[Ranges | StorageError]:
        answers = [_answer(one.part.sync) for one in held]
        for at, failure in zip(range(len(held)), self._settled([one.part for one in held]), strict=True):
            answers[at] = failure or answers[at]
        return answers

    def ready(self, held: HeldPart) -> bool:
        ready: bool = held.part.ready()
        return ready

    def seal(self, held: Sequence[HeldPart]) -> list[Sealed | StorageError]:
        answers = [_answer(partial(self._seal, one.part)) for one in held]
        named = [at for at, answer in enumerate(answers) if isinstance(answer, Sealed)]
        failures = self._endpoint.settle_names([held[at].part.item.target for at in named])
        for at, failure in zip(named, failures, strict=True):
            answers[at] = failure or answers[at]
        return answers

    def ahead(self, held: HeldPart) -> bool:
        went_on: bool = held.part.ahead()
        return went_on

    def _seal(self, part: EntryPart) -> Sealed:
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

    def _there(self, item: Item) -> Sealed | StorageError | None:
        """The file under the final name, if it holds these entries of this version of the file."""
        try:
            about_of(item)
            with self._endpoint.open_reader(item.target) as reader:
                size, version = reader.stat.bytes, reader.stat.version
            where = self._endpoint.pfn(item.target)
            try:
                told = provenance_of(where).provenance
            except StorageError as error:
                if error.failure_class != "data-bad":
                    raise
                return _different(where, error.what)
            if (told.lfn, told.selection, told.version) != (item.lfn, item.selection, item.version):
                return _different(where, f"it holds {told.selection or 'entries'} of {told.lfn} ({told.version})")
            return Sealed(item.target, size, self._endpoint.checksum(item.target, version), already=True)
        except FileMissing:
            return None
        except StorageError as error:
            return error


def _answer(work: Callable[[], T]) -> T | StorageError:
    try:
        return work()
    except StorageError as error:
        return error


def _different(where: str, what: str) -> StorageError:
    return StorageError(
        f"a different file is already at the destination: {shown(what, 200)}",
        where,
        "remove it there, or choose another destination",
        failure_class="permanent",
    )
