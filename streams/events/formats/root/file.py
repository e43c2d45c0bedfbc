"""A ROOT file as uproot opens it: its keys, and what uproot cannot do. What a key holds is others' to say.

The read goes through `CheckedFile`, in one thread; uproot's own executors and caches are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import uproot

from streams.events.checked_file import CheckedFile, not_implemented

_ALGORITHM = re.compile(r"(?:unsupported|unrecognized) compression algorithm: b'([A-Z0-9]{2})'")
_KEYS_MAX = 200_000
_DEPTH_MAX = 32


def lacks(error: BaseException) -> str | None:
    """Of compressions uproot tells only in words; names of two capitals or digits are some other release's."""
    algorithm = _ALGORITHM.search(str(error)) if isinstance(error, ValueError) else None
    if algorithm is not None:
        return f"it is packed by the algorithm {algorithm[1]!r}"
    return not_implemented(error)


def open_root(file: CheckedFile) -> Any:
    """Its directory, read through `file`, with no cache and no class that another file taught."""
    return uproot.open(
        {file.path: None},
        handler=type("CountedSource", (_CountedSource,), {"counted": file}),
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
