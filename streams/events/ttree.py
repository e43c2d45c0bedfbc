"""Columns of a TTree: baskets decoded by uproot one by one, each once as long as entries are read in order.

The tables of contents are checked before a basket is read: uproot would wait for ever for a basket that is named twice.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import uproot
from uproot.interpretation.identify import UnknownInterpretation
from uproot.interpretation.numerical import AsDtype
from uproot.interpretation.objects import CannotBeAwkward

from streams.events.columns import NoArrowType, arrow_array, arrow_field
from streams.events.counted import CountedFile, in_words

KEPT_BYTES = 128 << 20
"""Decoded baskets that reach beyond a window are kept up to this size; larger ones are decoded again."""

_AWKWARD = uproot.interpretation.library.Awkward()
_OPTIONS = {"ak_add_doc": False}


@dataclass(slots=True)
class _Column:
    branch: Any
    interpretation: Any
    kind: pa.DataType
    offsets: list[int]
    sizes: list[int]
    kept: dict[int, Any] = field(default_factory=dict)


class BranchTree:
    """The leaf branches of a TTree, named by their path in it."""

    def __init__(self, tree: Any, file: CountedFile) -> None:
        self._file = file
        self.entries = int(tree.num_entries)
        if self.entries < 0:
            raise ValueError(f"a tree of {self.entries} entries")
        self._branches: dict[str, Any] = {}
        self._twice: set[str] = set()
        for name, branch in _leaves(tree, ""):
            if name in self._branches:
                self._twice.add(name)
            self._branches[name] = branch
        self.names = tuple(self._branches)
        self._columns: list[_Column] = []
        self._kept_bytes = 0

    def plan(self, names: Sequence[str]) -> tuple[list[pa.Field], dict[str, str]]:
        fields, unreadable = [], {}
        for name in names:
            try:
                if name in self._twice:
                    raise NoArrowType("two branches have this name")
                fields.append(self._add(name, self._branches[name]))
            except (NoArrowType, UnknownInterpretation, CannotBeAwkward, NotImplementedError) as error:
                unreadable[name] = _why(error, self._branches[name])
        return fields, unreadable

    def borders(self) -> list[tuple[Sequence[int], Sequence[int]]]:
        return [(column.offsets, column.sizes) for column in self._columns]

    def load(self, start: int, stop: int) -> list[pa.Array]:
        return [self._load(column, start, stop) for column in self._columns]

    def _add(self, name: str, branch: Any) -> pa.Field:
        interpretation = branch.interpretation
        if isinstance(interpretation, UnknownInterpretation):
            raise interpretation
        found = arrow_field(name, interpretation.awkward_form(branch.file))
        offsets = [int(offset) for offset in branch.entry_offsets]
        if int(branch.num_entries) != self.entries or offsets[0] != 0 or offsets[-1] != self.entries:
            raise NoArrowType(f"it has {int(branch.num_entries):,} entries, the tree {self.entries:,}")
        if any(a > b for a, b in pairwise(offsets)):
            raise ValueError(f"the baskets of {name} are out of order")
        _check_places(branch, self._file.bytes)
        self._columns.append(_Column(branch, interpretation, found.type, offsets, _sizes(branch, offsets)))
        return found

    def _load(self, column: _Column, start: int, stop: int) -> pa.Array:
        first = bisect_right(column.offsets, start) - 1
        baskets, last = {}, first
        while last < len(column.offsets) - 1 and column.offsets[last] < stop:
            if column.offsets[last + 1] > column.offsets[last]:
                baskets[last] = self._basket(column, last)
            last += 1
        # uproot walks all offsets it is given, so it is given those of these baskets only.
        final = column.interpretation.final_array(
            {number - first: array for number, array in baskets.items()},
            start,
            stop,
            column.offsets[first : last + 1],
            _AWKWARD,
            column.branch,
            _OPTIONS,
        )
        self._keep(column, baskets, stop)
        return arrow_array(final, column.kind)

    def _basket(self, column: _Column, number: int) -> Any:
        if number in column.kept:
            return column.kept[number]
        branch = column.branch
        basket = branch.basket(number)
        entries = column.offsets[number + 1] - column.offsets[number]
        if basket.num_entries != entries:
            raise ValueError(f"basket {number} of {branch.name} has {basket.num_entries} entries, not {entries}")
        array = column.interpretation.basket_array(
            basket.data,
            basket.byte_offsets,
            basket,
            branch,
            {**branch.context, "forth": threading.local()},
            basket.member("fKeylen"),
            _AWKWARD,
            _OPTIONS,
        )
        if len(array) != entries:
            raise ValueError(f"basket {number} of {branch.name} holds {len(array)} entries, not {entries}")
        return array

    def _keep(self, column: _Column, baskets: dict[int, Any], stop: int) -> None:
        """The last basket, if the next window begins inside it."""
        self._kept_bytes -= sum(column.sizes[number] for number in column.kept)
        column.kept = {}
        for number, array in baskets.items():
            if column.offsets[number + 1] > stop and self._kept_bytes + column.sizes[number] <= KEPT_BYTES:
                column.kept[number] = array
                self._kept_bytes += column.sizes[number]


def _leaves(parent: Any, prefix: str) -> list[tuple[str, Any]]:
    found = []
    for branch in parent.branches:
        name = prefix + branch.name
        found += _leaves(branch, name + "/") if branch.branches else [(name, branch)]
    return found


def _why(error: Exception, branch: Any) -> str:
    if isinstance(error, UnknownInterpretation):
        return f"uproot has no interpretation for it: {in_words(Exception(error.reason))}"
    if isinstance(error, CannotBeAwkward):
        return f"its type {branch.typename} has no columns: {in_words(Exception(error.because))}"
    if isinstance(error, NotImplementedError):
        return f"uproot cannot read its type {branch.typename}: {in_words(error)}"
    return f"{in_words(error)} (type {branch.typename})" if "entries" not in str(error) else str(error)


def _check_places(branch: Any, file_bytes: int) -> None:
    """Every basket lies inside the file and has room for its header."""
    count = branch._num_normal_baskets
    seeks = np.asarray(branch.member("fBasketSeek")[:count], dtype=np.int64)
    sizes = np.asarray(branch.member("fBasketBytes")[:count], dtype=np.int64)
    if len(seeks) < count or len(sizes) < count:
        raise ValueError(f"the table of baskets of {branch.name} is too short")
    bad = np.flatnonzero((seeks <= 0) | (sizes <= 0) | (seeks > file_bytes - sizes))
    if len(bad):
        i = int(bad[0])
        raise ValueError(
            f"basket {i} of {branch.name} would lie at {seeks[i]:,} with {sizes[i]:,} bytes in a file of {file_bytes:,}"
        )


def _sizes(branch: Any, offsets: Sequence[int]) -> list[int]:
    """Bytes of each basket once decoded: exact for flat numbers, else by the branch's own compression."""
    entries = [b - a for a, b in pairwise(offsets)]
    if isinstance(branch.interpretation, AsDtype):
        kind = branch.interpretation.to_dtype
        width = kind.itemsize
        return [-(-n * width // 8) if kind.base == np.bool_ else n * width for n in entries]
    total, zipped = max(1, int(branch.uncompressed_bytes)), max(1, int(branch.compressed_bytes))
    total = max(total, zipped)
    if total > zipped << 10:  # more than a thousandfold is no estimate to plan by
        total = zipped << 10
    return [branch.basket_compressed_bytes(i) * total // zipped for i in range(len(entries))]
