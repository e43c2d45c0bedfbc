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

import awkward as ak
import numpy as np
import pyarrow as pa
import uproot
from uproot.interpretation.identify import UnknownInterpretation
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype
from uproot.interpretation.objects import CannotBeAwkward
from uproot.interpretation.strings import AsStrings

from streams.core.names import shown
from streams.errors import StorageError, Transfer2goError, data_bad
from streams.events import entries as windows
from streams.events.checked_file import CheckedFile, in_words
from streams.events.columns import NoArrowType, arrow_array, arrow_field

_AWKWARD = uproot.interpretation.library.Awkward()
_OPTIONS = {"ak_add_doc": False}
_KEPT_PROMISES = (AsDtype, AsStrings)


@dataclass(slots=True)
class _Column:
    name: str
    branch: Any
    interpretation: Any
    kind: pa.DataType
    offsets: list[int]
    sizes: list[int]
    kept: dict[int, Any] = field(default_factory=dict)


class BranchTree:
    """The leaf branches of a TTree, named by their path in it."""

    def __init__(self, tree: Any, file: CheckedFile) -> None:
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
        self.names: Sequence[str] = tuple(self._branches)
        self._columns: list[_Column] = []
        self._kept_bytes = 0

    def plan(self, names: Sequence[str], lenient: bool) -> tuple[list[pa.Field], dict[str, str]]:
        fields, unreadable = [], {}
        for name in names:
            branch = self._branches[name]
            try:
                column = self._column(name, branch)
                fields.append(self._proved(column, lenient))
            except NoArrowType as error:
                unreadable[name] = str(error)
                continue
            self._columns.append(column)
        return fields, unreadable

    def borders(self) -> list[tuple[Sequence[int], Sequence[int]]]:
        return [(column.offsets, column.sizes) for column in self._columns]

    def load(self, start: int, stop: int) -> list[pa.Array]:
        found = []
        for column in self._columns:
            with self._file.guarded(f"cannot read entries {start:,} to {stop:,} of the column {shown(column.name)!r}"):
                found.append(arrow_array(self._values(column, start, stop), column.kind))
        return found

    def _column(self, name: str, branch: Any) -> _Column:
        """Raises NoArrowType for a type that cannot be read, ValueError for a table of baskets that cannot be."""
        if name in self._twice:
            raise NoArrowType("two branches have this name")
        try:
            interpretation = branch.interpretation
            if isinstance(interpretation, UnknownInterpretation):
                raise interpretation
            found = arrow_field(name, _form(interpretation, branch))
        except Transfer2goError:
            raise
        except Exception as error:
            raise NoArrowType(f"{_why(error)} (type {_typename(branch)})") from error
        if int(branch.num_entries) != self.entries:
            raise NoArrowType(f"it has {int(branch.num_entries):,} entries, the tree {self.entries:,}")
        offsets = [int(offset) for offset in branch.entry_offsets]
        if offsets[0] != 0 or offsets[-1] != self.entries or any(a > b for a, b in pairwise(offsets)):
            raise ValueError(f"the baskets of {name} are out of order")
        _check_places(branch, self._file.bytes)
        return _Column(name, branch, interpretation, found.type, offsets, _sizes(branch, offsets))

    def _proved(self, column: _Column, lenient: bool) -> pa.Field:
        """The column's field. Of objects, whose types promise more than uproot keeps, one entry is read to see."""
        simple = column.interpretation
        simple = simple.content if isinstance(simple, AsJagged) else simple
        if not self.entries or type(simple) in _KEPT_PROMISES:
            return pa.field(column.name, column.kind, nullable=False)
        try:
            array = ak.to_layout(self._values(column, 0, 1))
            field = arrow_field(column.name, array.form)
            column.kind = field.type
            arrow_array(array, field.type)
        except (NoArrowType, StorageError):
            raise
        except Exception as error:
            why = f"{_why(error)} (type {_typename(column.branch)})"
            if lenient or isinstance(error, NotImplementedError):
                raise NoArrowType(why) from error
            # Damage looks the same as a type that uproot cannot read; another source may have it whole.
            what = f"cannot read the column {shown(column.name)!r}: {why}"
            then = "name other columns, end the selection with ? to skip it, or fetch the file again"
            raise data_bad(what, self._file.path, then) from error
        return field

    def _values(self, column: _Column, start: int, stop: int) -> Any:
        number = bisect_right(column.offsets, start) - 1
        baskets, offsets = {}, [column.offsets[number]]
        while number < len(column.offsets) - 1 and column.offsets[number] < stop:
            if column.offsets[number + 1] > column.offsets[number]:
                baskets[number] = self._basket(column, number)
                offsets.append(column.offsets[number + 1])
            number += 1
        self._keep(column, baskets, stop)
        # uproot walks all offsets it is given, so it is given those of these baskets only, and of none without entries.
        return column.interpretation.final_array(
            dict(enumerate(baskets.values())),
            start,
            stop,
            offsets,
            _AWKWARD,
            column.branch,
            _OPTIONS,
        )

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
            if column.offsets[number + 1] > stop and self._kept_bytes + column.sizes[number] <= windows.KEPT_BYTES:
                column.kept[number] = array
                self._kept_bytes += column.sizes[number]


def _form(interpretation: Any, branch: Any) -> Any:
    if (
        isinstance(interpretation, AsDtype) and interpretation.to_dtype.names
    ):  # a leaf list: uproot lacks those of arrays
        return _form_of(interpretation.to_dtype)
    return interpretation.awkward_form(branch.file)


def _form_of(kind: np.dtype[Any]) -> Any:
    if kind.subdtype is not None:
        base, shape = kind.subdtype
        form = _form_of(base)
        for length in reversed(shape):
            form = ak.forms.RegularForm(form, length)
        return form
    if kind.names:
        return ak.forms.RecordForm([_form_of(kind[name]) for name in kind.names], kind.names)
    return ak.forms.NumpyForm(kind.name)


def _leaves(parent: Any, prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for branch in parent.branches:
        name = prefix + branch.name
        found += _leaves(branch, name + "/") if branch.branches else [(name, branch)]
    return found


def _why(error: Exception) -> str:
    if isinstance(error, UnknownInterpretation):
        return f"uproot has no interpretation for it: {in_words(Exception(error.reason))}"
    if isinstance(error, CannotBeAwkward):
        return f"no columns hold its type: {in_words(Exception(error.because))}"
    if isinstance(error, NoArrowType):
        return str(error)
    return f"uproot cannot read it: {in_words(error)}"


def _typename(branch: Any) -> str:
    try:
        return shown(branch.typename, 80)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:  # not to be parsed
        return type(error).__name__


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
    found = [branch.basket_compressed_bytes(i) * total // zipped for i in range(len(entries))]
    for at, basket in enumerate(branch.embedded_baskets, branch._num_normal_baskets):  # never compressed, in the tree
        found[at] = len(basket.data) + 4 * entries[at]
    return found
