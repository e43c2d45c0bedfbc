"""Rows of a worker's tables held against rows folded from its journals: the same bytes, or which differ.

Rows of intents, transfers and manifests, and the entries of those that are open, are functions of the facts that were
heard, in whatever order topics came. Of manifests that wait, while their intent has not ended, that holds for the body
of each that counts, and for what stands under the key of an early one. Which early ones are kept, and whether a body
stands under its own key or under its early one, depends on how topics came: of that nothing is compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from streams.auditing.table_fold import OWNER_OF, TableFold, place_of
from streams.core.ledger.findings import LogPosition
from streams.core.names import Site, shown
from streams.errors import InvalidName
from streams.worker.turn import FORGET

SHOWN_MAX = 10
"""Rows that are named; the others are counted."""
_FIELDS_MAX, _VALUE_CHARS = 5, 60

Rows = Iterator[tuple[bytes, bytes]]
"""By partition and key, as `TableFold.table` gives them."""
Held = tuple[bytes | None, bytes | None]
"""A row of the fold, and the one that was found."""


class Fault(StrEnum):
    CHANGED = "is not what its journals give"
    MISSING = "is missing"
    UNEXPECTED = "is in no fold of its journals"


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A row that differs. `of`: where it was read, a changelog or a directory.

    `fields`: of rows that are JSON objects, what differs, in words, the first five. `heard`: the last record in the
    journals of its intent, transfer, file or dataset. `put`: the last record in the changelog of its key; of a view,
    the last record that it had read of the partition of `heard`.
    """

    site: Site
    table: str
    partition: int
    key: str
    fault: Fault
    of: str
    fields: tuple[str, ...] = ()
    heard: LogPosition | None = None
    put: LogPosition | None = None


@dataclass(slots=True)
class TableTally:
    """Rows of a table of a site, as they were read somewhere.

    `compared`: keys that were held against each other, of which `different` differ. `moving`: the worker heard of them
    while this was read. `left_over`: rows of what has ended, which a worker that was killed may leave, and nothing
    reads. `unordered`: manifests that wait, kept or not as topics came.
    """

    site: Site
    table: str
    of: str
    compared: int = 0
    different: int = 0
    moving: int = 0
    left_over: int = 0
    unordered: int = 0


@dataclass
class Comparison:
    """What was compared, and the first rows that differ."""

    tallies: list[TableTally] = field(default_factory=list)
    differences: list[RowDifference] = field(default_factory=list)

    @property
    def different(self) -> int:
        return sum(tally.different for tally in self.tallies)

    def differs(self, tally: TableTally, difference: RowDifference) -> None:
        tally.different += 1
        if len(self.differences) < SHOWN_MAX:
            self.differences.append(difference)


def merged(one: Rows, other: Rows) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """(key, row of the one, row of the other) of two scans, by key; None where it has none."""
    first, second = next(one, None), next(other, None)
    while first is not None or second is not None:
        if second is None or (first is not None and first[0] < second[0]):
            assert first is not None
            yield first[0], first[1], None
            first = next(one, None)
        elif first is None or second[0] < first[0]:
            yield second[0], None, second[1]
            second = next(other, None)
        else:
            yield first[0], first[1], second[1]
            first, second = next(one, None), next(other, None)


def fields_of(wanted: bytes | None, found: bytes | None) -> tuple[str, ...]:
    """Where two JSON objects differ, in words, the first five names; nothing where one is none."""
    try:
        first, second = json.loads(wanted or b""), json.loads(found or b"")
    except ValueError:
        return ()
    if not isinstance(first, dict) or not isinstance(second, dict):
        return ()
    names = (name for name in sorted({*first, *second}) if first.get(name) != second.get(name))
    return tuple(
        f"{shown(name)} {_short(second.get(name))} instead of {_short(first.get(name))}"
        for name in islice(names, _FIELDS_MAX)
    )


def _short(value: object) -> str:
    return shown(json.dumps(value, separators=(",", ":")), _VALUE_CHARS)


class TableComparer:
    """Holds tables read somewhere against one fold of their site's journals.

    `put`: of a table and what stands behind its prefix, the place of the last record of that key in the changelog.
    """

    def __init__(
        self,
        fold: TableFold,
        site: Site,
        comparison: Comparison,
        put: Callable[[str, bytes], LogPosition | None] = lambda table, key: None,
    ) -> None:
        self._fold, self._site, self._comparison, self._put = fold, site, comparison, put

    def compare(
        self,
        table: str,
        of: str,
        found: Iterable[tuple[bytes, bytes]],
        get: Callable[[bytes], bytes | None],
        partitions: frozenset[int],
    ) -> None:
        """All of a table in these partitions: `found` are its rows by partition and key, `get` gives one of them."""
        tally = TableTally(self._site, table, of)
        self._comparison.tallies.append(tally)
        folded = ((key, row) for key, row in self._fold.table(table) if place_of(key)[0] in partitions)
        for raw, wanted, row in merged(folded, iter(found)):
            partition, key = place_of(raw)
            try:
                owner = OWNER_OF[table](key)
                same = self._same(tally, owner, partition, key, (wanted, row), get)
            except InvalidName:  # no key of a table's
                owner, same = key, (wanted, row)
            if same is None:
                continue
            tally.compared += 1
            if same[0] != same[1]:
                self._differs(tally, owner, raw, *same)

    def _same(
        self, tally: TableTally, owner: str, partition: int, key: str, held: Held, get: Callable[[bytes], bytes | None]
    ) -> Held | None:
        """What must be the same under a key: of the fold, and as found. None: nothing must."""
        wanted, row = held
        if self._fold.hovers(owner):
            tally.moving += 1
            return None
        if tally.table == "waiting":
            return self._waiting(tally, partition, key, held, get)
        if row is not None and wanted is None and self._fold.is_over(tally.table, key):
            tally.left_over += 1
            return None
        return held

    def _differs(self, tally: TableTally, owner: str, raw: bytes, wanted: bytes | None, row: bytes | None) -> None:
        partition, key = place_of(raw)
        fault = Fault.MISSING if row is None else Fault.UNEXPECTED if wanted is None else Fault.CHANGED
        heard = self._fold.last(owner, self._site)
        difference = RowDifference(
            *(self._site, tally.table, partition, key, fault, tally.of),
            fields_of(wanted, row),
            heard,
            self._put(tally.table, raw),
        )
        self._comparison.differs(tally, difference)

    def _waiting(
        self,
        tally: TableTally,
        partition: int,
        key: str,
        held: Held,
        get: Callable[[bytes], bytes | None],
    ) -> Held | None:
        """As `_same`, of manifests that wait."""
        wanted, row = held
        if self._fold.is_over("waiting", key):
            tally.left_over += row is not None
            return None
        if key.startswith(FORGET) or key.endswith("@@early"):
            tally.unordered += 1
            return None
        if key.count("@") == 1:
            return self._body(partition, wanted, self._folded), self._body(partition, row, get)
        if wanted is None or row is None:
            tally.unordered += 1
            return None
        return held

    def _folded(self, raw: bytes) -> bytes | None:
        return self._fold.row("waiting", raw)

    @staticmethod
    def _body(partition: int, row: bytes | None, get: Callable[[bytes], bytes | None]) -> bytes | None:
        """The body that a row is, or that stands under the early key which it names."""
        if row is None or row.startswith(b"\0"):
            return row
        return get(partition.to_bytes(4, "big") + row)
