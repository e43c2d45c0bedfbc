"""What is remembered of an open intent between two looks: its chain's place, what that has taken, what was listed.

All of it is memory: the journal of manifests and the catalogue bring it back. Nothing is listed or written here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from streams.core.commands import WriteManifests
from streams.core.names import Block, IntentId, Lfn
from streams.core.records import Item
from streams.core.selections import parts
from streams.core.selectors import Selector
from streams.views.catalogue import CatalogueFile
from streams.views.selected import Plan

ChainKey = tuple[IntentId, int]
"""An intent and the `source_no` of its chain."""


class FileNumbers:
    """A number for each file, the same for all intents.

    Kept by a hash of 128 bits of the name: in two thirds of the memory, and no two are ever the same.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def of(self, lfn: str) -> int:
        return self._numbers.setdefault(_short(lfn), len(self._numbers))

    def known(self, lfn: str) -> int | None:
        return self._numbers.get(_short(lfn))

    def __len__(self) -> int:
        return len(self._numbers)

    def keep(self, taken: Iterable[TakenFiles]) -> None:
        """Forget the files that none of these has. Numbers begin anew; these are told theirs."""
        taken = list(taken)
        anew: dict[int, int] = {}
        for files in taken:
            for number in files:
                anew.setdefault(number, len(anew))
        self._numbers = {name: anew[number] for name, number in self._numbers.items() if number in anew}
        for files in taken:
            files.renumber(anew)


def name_in_chain(item: Item) -> str:
    """By what a chain knows an item: its file or, of a file's objects, each by the name it lands under."""
    return item.target if parts.means_objects(item.selection) else item.lfn


def _short(lfn: str) -> bytes:
    return blake2b(lfn.encode(), digest_size=16).digest()


class TakenFiles:
    """Files by number, one bit each."""

    def __init__(self) -> None:
        self.count = 0
        self._bits = bytearray()

    def __contains__(self, number: int) -> bool:
        byte = number >> 3
        return byte < len(self._bits) and bool(self._bits[byte] & 1 << (number & 7))

    def __iter__(self) -> Iterator[int]:
        for at, byte in enumerate(self._bits):
            if byte:
                yield from (at << 3 | bit for bit in range(8) if byte & 1 << bit)

    def renumber(self, anew: Mapping[int, int]) -> None:
        numbers = [anew[number] for number in self]
        self.count, self._bits = 0, bytearray()
        for number in numbers:
            self.add(number)

    def add(self, number: int) -> bool:
        """Whether it is new."""
        byte, bit = number >> 3, 1 << (number & 7)
        if byte >= len(self._bits):
            self._bits.extend(bytes(max(64, byte + 1 - len(self._bits), len(self._bits) // 8)))
        if self._bits[byte] & bit:
            return False
        self._bits[byte] |= bit
        self.count += 1
        return True


@dataclass
class Pass:
    """Blocks that are being listed, the first of them from `cursor` on, and their totals when it began."""

    blocks: deque[tuple[Block, bytes]]
    datasets: dict[str, bytes]
    cursor: str = ""
    skipped: bool = False


@dataclass
class OpenChain:
    """An open intent's, behind manifest `no - 1`, whose digest is `sha256`."""

    command: WriteManifests
    told_s: float
    no: int = 0
    sha256: str = ""
    written: int = 0
    """Items in its manifests."""
    written_s: float = 0.0
    due_s: float = 0.0
    taken: TakenFiles = field(default_factory=TakenFiles)
    """In manifests, or found and waiting for one."""
    found: deque[CatalogueFile | Item] = field(default_factory=deque)
    """Files, or objects of files."""
    listed: Pass | None = None
    complete: bool = False
    """While closing: everything was listed."""
    marks: dict[str, bytes] = field(default_factory=dict)
    """Totals of datasets and blocks as they were last listed to the end; see `mark_of`."""
    wide: list[Selector] = field(init=False)
    lfns: list[Lfn] = field(init=False)
    """Asked for by their names, and not found yet."""

    def __post_init__(self) -> None:
        plan = Plan(self.command.body.selectors)
        self.wide, self.lfns = plan.wide, [Lfn(lfn) for lfn in plan.lfns]

    @property
    def heard(self) -> bool:
        return self.command.no == self.no


WHOLE = b"!"


def mark_of(row: bytes, waits: bool) -> bytes:
    """What a later row is compared with: the line over all sites, which another site's copy does not change.

    The whole row where files wait for a site that holds them.
    """
    return WHOLE + row if waits else row.partition(b"\n")[0]


def changed(mark: bytes | None, row: bytes) -> bool:
    if mark is None:
        return bool(row)
    return mark != mark_of(row, mark[:1] == WHOLE)
