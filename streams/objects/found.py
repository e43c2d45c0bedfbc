"""What a container was found to hold of what was asked: names, sizes, checksums, refusals. Not here: any format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from streams.core.names import shown
from streams.core.selections.entries import matches, nearest, readable
from streams.core.selections.objects import ObjectSelection
from streams.errors import StorageError, permanent
from streams.storage.checksums import ADLER32_EMPTY, Buffer, adler32, adler32_hex

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """One object that can travel. `adler32`: 8 hex digits; `suffix` may end the name of the file it lands as."""

    name: str
    bytes: int
    adler32: str
    suffix: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects asked for, by name. `version` is that of the file, as `streams.storage` tells it."""

    found: tuple[Found, ...]
    refused: tuple[tuple[str, StorageError], ...]
    version: str


@dataclass(slots=True)
class Scan:
    """Filled by a format while it walks through a file; of a name that comes twice the last is the one."""

    asked: ObjectSelection
    path: str
    names: list[str] = field(default_factory=list)
    found: dict[str, Found] = field(default_factory=dict)
    refused: dict[str, StorageError] = field(default_factory=dict)
    _exact: frozenset[str] = frozenset()
    _globs_met: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._exact = frozenset(self.asked.exact)

    def wants(self, name: str) -> bool:
        """Notes that the name is there; whether it is asked for."""
        self.names.append(name)
        met = [glob for glob in self.asked.globs if matches(glob, name)]
        self._globs_met.update(met)
        return bool(met) or name in self._exact

    def add(self, found: Found) -> None:
        self.refused.pop(found.name, None)
        self.found[found.name] = found

    def refuse(self, name: str, error: StorageError) -> None:
        self.found.pop(name, None)
        self.refused[name] = error

    def listing(self, version: str) -> Listing:
        """Raises StorageError, permanent, for a name or a glob that nothing matches."""
        there = set(self.names)
        for name in sorted(self._exact - there):
            raise self._missing(f"no object {shown(name)!r}", name)
        for glob in self.asked.globs:
            if glob not in self._globs_met:
                raise self._missing(f"no object matches {shown(readable(glob))!r}", readable(glob).strip("*"))
        found = tuple(self.found[name] for name in sorted(self.found))
        refused = tuple((name, self.refused[name]) for name in sorted(self.refused))
        return Listing(found, refused, version)

    def _missing(self, what: str, name: str) -> StorageError:
        names = list(dict.fromkeys(self.names))
        return permanent(what + nearest(name, names), self.path, "name objects it has")


def named(members: Mapping[str, T], name: str, path: str) -> T:
    """The member of a container that a scan found before. Raises StorageError, permanent, where it is not there."""
    if name not in members:
        raise permanent(f"no object {shown(name)!r}", path, "list its objects again")
    return members[name]


def measured(blocks: Iterable[Buffer]) -> tuple[int, str]:
    """Bytes and adler32 of what comes in pieces."""
    size, adler = 0, ADLER32_EMPTY
    for block in blocks:
        size += len(block)
        adler = adler32(block, adler)
    return size, adler32_hex(adler)
