"""Entries of ROOT files: finding the tree, choosing columns. TTree and RNTuple are modules of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa
import uproot
import uproot.source.chunk
import uproot.source.futures

from streams.core.names import shown
from streams.core.selections.entries import EventSelection, nearest
from streams.errors import permanent
from streams.events.checked_file import CheckedFile
from streams.events.cut_points import CutPoints
from streams.events.entries import Entries, chosen, refuse_unreadable
from streams.events.formats.root.file import keys_of, lacks, open_root

TTREES = ("TTree", "TNtuple", "TNtupleD")
RNTUPLES = ("ROOT::RNTuple", "ROOT::Experimental::RNTuple")


class Tree(Protocol):
    """A TTree or an RNTuple, its columns known by name."""

    entries: int
    names: Sequence[str]

    def plan(self, names: Sequence[str], lenient: bool) -> tuple[list[pa.Field], dict[str, str]]:
        """The fields of the columns that can be read, and why the others cannot; called once."""

    def borders(self) -> list[tuple[Sequence[int], Sequence[int]]]:
        """Of each planned column: edges of its pieces in entries, and their decoded bytes."""

    def load(self, start: int, stop: int) -> list[pa.Array]: ...


class RootEntries(Entries):
    """A TTree's or RNTuple's entries. Columns are leaf branches by their full names, or top-level fields."""

    def __init__(self, file: CheckedFile, selection: EventSelection) -> None:
        super().__init__(file, selection)
        file.lacks = lacks
        with file.guarded("cannot read the ROOT file"):
            self.tree, found = _open_tree(file, selection.tree)
            self._tree = _tree(found, file)
            names = chosen(selection, self._tree.names, file.path)
            fields, unreadable = self._tree.plan(names, selection.lenient)
            refuse_unreadable(unreadable, selection, file.path, fields)
            start, stop = self._range(self._tree.entries)
            borders = CutPoints(start, stop, self._tree.borders())
        self._found(pa.schema(fields), unreadable, borders)

    def _load(self, start: int, stop: int) -> Sequence[pa.Array]:
        return self._tree.load(start, stop)


def _tree(found: Any, file: CheckedFile) -> Tree:
    if isinstance(found, uproot.behaviors.RNTuple.RNTuple):
        from streams.events.formats.root.rntuple import NTuple

        return NTuple(found, file)
    from streams.events.formats.root.ttree import BranchTree

    return BranchTree(found, file)


def _open_tree(file: CheckedFile, wanted: str) -> tuple[str, Any]:
    """The full name and the object of the tree asked for."""
    root = open_root(file)
    trees: dict[str, tuple[int, Any]] = {}
    others: list[str] = []
    for name, cycle, classname, key in keys_of(root):
        if classname not in TTREES + RNTUPLES:
            others.append(f"{name} (a {classname})")
            continue
        if wanted == f"{name};{cycle}":
            return wanted, key.get()
        if name not in trees or trees[name][0] < cycle:
            trees[name] = cycle, key
    if wanted:
        if wanted not in trees:
            names = list(trees)
            raise permanent(f"no tree {shown(wanted)!r}{nearest(wanted, names)}", file.path)
        return wanted, trees[wanted][1].get()
    if len(trees) == 1:
        ((name, (_, key)),) = trees.items()
        return name, key.get()
    if not trees:
        has = f"; there is {shown(', '.join(others[:5]))}" if others else "; it is empty"
        raise permanent(f"no tree in the file{has}", file.path)
    listed = ", ".join(shown(name, 60) for name in list(trees)[:10])
    raise permanent(f"{len(trees)} trees in the file: {listed}", file.path, "name one, as TREE{COLUMN}")
