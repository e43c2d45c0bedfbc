"""How a landing's items become files: one small protocol, and its answer for bytes.

Not here: the answer for entries (entry_parts.py), what is known in intervals (progress.py), what a failure means
(landing.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from streams.core.ranges import Ranges
from streams.core.records import Item
from streams.errors import StorageError, WireError, permanent
from streams.storage.checksums import Buffer
from streams.storage.endpoint import Endpoint, Reader, SealedFile, Wanted


class FilePart(Protocol):
    """An item's open part, as far as a landing knows it."""

    @property
    def covered(self) -> Ranges:
        """Positions in the item that need not come any more, durable or not."""

    def close(self) -> None:
        """Let go of it, leaving it for whoever resumes it."""


@dataclass(slots=True, eq=False)
class HeldPart:
    """An open part."""

    item: int
    part: Any


class PartFiles(Protocol):
    """Parts of one kind. Positions are in the item; StorageError as the storage contract says it."""

    reserves: bool
    """Whether a part can reserve its blocks when it is opened."""

    def present(self, items: Sequence[Item]) -> list[SealedFile | StorageError | None]:
        """For each: the file, if it is there whole and durable, or why it can never land; None if it is to come."""

    def reads_back(self, item: Item) -> bool:
        """Whether `present` reads a whole file to answer: something of its name and size is there."""

    def open(
        self, item: Item, tag: str, verified: Iterable[tuple[int, int]], *, preallocate: bool, replaces: bool
    ) -> FilePart:
        """Create or resume a part. `replaces`: it takes the place of the file that is there, and may adopt from it."""

    def open_whole(self, item: Item, tag: str, payload: Buffer) -> FilePart | None:
        """Create a part of which nothing is durable, with all of its item in it; None where that is no one step."""

    def adopt(self, held: HeldPart, offset: int, length: int, is_right: Callable[[memoryview], bool]) -> bool:
        """Take `[offset, offset + length)` as written, if it is there from an earlier attempt and right; whether."""

    def leave_seed(self, held: HeldPart) -> None:
        """Let go of a part that is not to be used as it is: what of it is right need not come again. Else discard."""

    def take_seed(self, item: Item, left: str, tag: str) -> bool:
        """Make what was left so under one tag the part of another; whether there was anything."""

    def discard(self, item: Item, tag: str) -> None:
        """Delete the files of a part that is not open."""

    def open_reader(self, item: Item, held: HeldPart | None) -> Reader:
        """Of an open part, or of the file that it became. Transient while it is neither."""

    def write(self, held: HeldPart, offset: int, length: int, payload: Buffer) -> None:
        """Take `[offset, offset + length)`, whose checksum agreed already. WireError for a payload that is refused.

        Several threads may write at once.
        """

    def sync(self, held: Sequence[HeldPart]) -> list[Ranges | StorageError]:
        """Make durable what is written; positions that are."""

    def ready(self, held: HeldPart) -> bool:
        """Whether to seal a part that is whole; else it would take too long, and `ahead` is to do most of it."""

    def seal(self, held: Sequence[HeldPart]) -> list[SealedFile | StorageError]:
        """Give the final names to parts that are whole, durably."""

    def ahead(self, held: HeldPart) -> bool:
        """Do a step of a later seal, if there is anything to do by now; whether there was. A second or two at most."""


class ByteParts:
    reserves = True

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def present(self, items: Sequence[Item]) -> list[SealedFile | StorageError | None]:
        answers = self._endpoint.present_group([Wanted(item.target, item.bytes, item.adler32) for item in items])
        return [
            answer
            if isinstance(answer, StorageError)
            else SealedFile(item.target, item.bytes, item.adler32 or "", already=True)
            if answer
            else None
            for item, answer in zip(items, answers, strict=True)
        ]

    def reads_back(self, item: Item) -> bool:
        try:
            return self._endpoint.stat(item.target).bytes == item.bytes
        except StorageError:  # `present` says so
            return False

    def open(
        self, item: Item, tag: str, verified: Iterable[tuple[int, int]], *, preallocate: bool, replaces: bool
    ) -> FilePart:
        size, adler = item.bytes, item.adler32
        return self._endpoint.open_part(
            item.target, tag, bytes=size, adler32=adler, verified=verified, preallocate=preallocate, replaces=replaces
        )

    def open_whole(self, item: Item, tag: str, payload: Buffer) -> FilePart | None:
        if len(payload) != item.bytes:
            return None  # `write` refuses it
        return self._endpoint.write_part(item.target, tag, payload, adler32=item.adler32)

    def adopt(self, held: HeldPart, offset: int, length: int, is_right: Callable[[memoryview], bool]) -> bool:
        right: bool = held.part.adopt(offset, offset + length, is_right)
        return right

    def leave_seed(self, held: HeldPart) -> None:
        held.part.leave_seed()

    def take_seed(self, item: Item, left: str, tag: str) -> bool:
        return self._endpoint.take_seed(item.target, left, tag)

    def discard(self, item: Item, tag: str) -> None:
        self._endpoint.discard(item.target, tag)

    def open_reader(self, item: Item, held: HeldPart | None) -> Reader:
        reader: Reader = self._endpoint.open_reader(item.target) if held is None else held.part.open_reader()
        return reader

    def write(self, held: HeldPart, offset: int, length: int, payload: Buffer) -> None:
        if len(payload) != length:
            raise WireError(f"{len(payload)} bytes stand for {length}")
        held.part.write(offset, payload)

    def sync(self, held: Sequence[HeldPart]) -> list[Ranges | StorageError]:
        return self._endpoint.sync_group([one.part for one in held])

    def ready(self, held: HeldPart) -> bool:
        return True

    def seal(self, held: Sequence[HeldPart]) -> list[SealedFile | StorageError]:
        return self._endpoint.seal_group([one.part for one in held])

    def ahead(self, held: HeldPart) -> bool:
        return False  # a part of bytes is the file already


class WithoutLibraries(ByteParts):
    """Of entries, where the extra is not installed: nothing can land."""

    def __init__(self, endpoint: Endpoint, missing: str) -> None:
        super().__init__(endpoint)
        self._missing = missing

    def present(self, items: Sequence[Item]) -> list[SealedFile | StorageError | None]:
        error = permanent("this site cannot land entries", self._missing, "install transfer2go[events] there")
        return [error for _ in items]
