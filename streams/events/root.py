"""Entries of ROOT files: opening one, finding its tree, choosing columns. TTree and RNTuple are modules of their own.

The read goes through `CheckedFile`, in one thread; uproot's own executors and caches are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa
import uproot
import uproot.source.chunk
import uproot.source.futures

from streams.core.names import shown
from streams.core.selections.entries import EventSelection, nearest
from streams.errors import StorageError
from streams.events.checked_file import CheckedFile, not_implemented
from streams.events.cut_points import CutPoints
from streams.events.entries import Entries, chosen, refuse_unreadable

TTREES = ("TTree", "TNtuple", "TNtupleD")
RNTUPLES = ("ROOT::RNTuple", "ROOT::Experimental::RNTuple")

_ALGORITHM = re.compile(r"(?:unsupported|unrecognized) compression algorithm: b'([A-Z0-9]{2})'")
_KEYS_MAX = 200_000
_DEPTH_MAX = 32


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
        self._found(pa.schema(fields), unreadable, self._tree.entries, borders)

    def _load(self, start: int, stop: int) -> Sequence[pa.Array]:
        return self._tree.load(start, stop)


def _tree(found: Any, file: CheckedFile) -> Tree:
    if isinstance(found, uproot.behaviors.RNTuple.RNTuple):
        from streams.events.rntuple import NTuple

        return NTuple(found, file)
    from streams.events.ttree import BranchTree

    return BranchTree(found, file)


def lacks(error: BaseException) -> str | None:
    """Of compressions uproot tells only in words; names of two capitals or digits are some other release's."""
    algorithm = _ALGORITHM.search(str(error)) if isinstance(error, ValueError) else None
    if algorithm is not None:
        return f"it is packed by the algorithm {algorithm[1]!r}"
    return not_implemented(error)


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
            raise StorageError(
                f"no tree {shown(wanted)!r}{nearest(wanted, names)}", file.path, failure_class="permanent"
            )
        return wanted, trees[wanted][1].get()
    if len(trees) == 1:
        ((name, (_, key)),) = trees.items()
        return name, key.get()
    if not trees:
        has = f"; there is {shown(', '.join(others[:5]))}" if others else "; it is empty"
        raise StorageError(f"no tree in the file{has}", file.path, failure_class="permanent")
    listed = ", ".join(shown(name, 60) for name in list(trees)[:10])
    raise StorageError(
        f"{len(trees)} trees in the file: {listed}", file.path, "name one, as TREE{COLUMN}", failure_class="permanent"
    )


def open_root(file: CheckedFile) -> Any:
    """Its directory, read through `file`, with no cache and no class that another file taught."""
    return uproot.open(
        {file.path: None},
        handler=_source_of(file),
        object_cache=None,
        array_cache=None,
        custom_classes=_own_classes(),
    )


def keys_of(root: Any) -> Iterator[tuple[str, int, str, Any]]:
    """(name with directories, cycle, class, key) of everything; directories that hold each other end the walk."""
    todo = [("", root, 0)]
    seen = {int(root.cursor.index)}
    count = 0
    while todo:
        prefix, directory, depth = todo.pop(0)
        for key in directory._keys:
            count += 1
            if count > _KEYS_MAX:
                raise ValueError(f"more than {_KEYS_MAX:,} keys")
            name = prefix + key.fName
            yield name, key.fCycle, key.classname(), key
            if key.classname() in ("TDirectory", "TDirectoryFile") and depth < _DEPTH_MAX:
                inner = key.get()
                where = int(inner.cursor.index)
                if where not in seen:
                    seen.add(where)
                    todo.append((name + "/", inner, depth + 1))


def _own_classes() -> dict[str, Any]:
    """uproot's classes, for one file only: what a file says of its classes must not be believed of the next file."""
    own: dict[str, Any] = {}
    for name, cls in uproot.classes.items():
        versions = getattr(cls, "known_versions", None)
        if versions is None:
            own[name] = cls
        else:
            members = {"known_versions": dict(versions), "__module__": cls.__module__}
            own[name] = type(cls)(cls.__name__, (cls,), members)
    return own


def _source_of(file: CheckedFile) -> type[uproot.source.chunk.Source]:
    return type("CountedSource", (_CountedSource,), {"counted": file})


class _CountedSource(uproot.source.chunk.Source):  # type: ignore[misc]
    """uproot's physical layer over a `CheckedFile`: reads at once, in the calling thread."""

    counted: CheckedFile

    def __init__(self, file_path: str, **_: Any) -> None:
        super().__init__()
        self._file_path = file_path
        self._num_bytes = self.counted.bytes

    def chunk(self, start: int, stop: int) -> Any:
        block = self.counted.pread(start, stop)
        future = uproot.source.futures.TrivialFuture(block)
        return uproot.source.chunk.Chunk(self, int(start), int(stop), future)

    def chunks(self, ranges: Any, notifications: Any) -> list[Any]:
        found = [self.chunk(start, stop) for start, stop in ranges]
        for chunk in found:
            notifications.put(chunk)
        return found

    @property
    def closed(self) -> bool:
        return self.counted.closed

    def __enter__(self) -> _CountedSource:
        return self

    def __exit__(self, *_: object) -> None:
        """The file is its owner's to close."""
