"""From paths a person gave to files and the LFNs they get. Looks at names only: nothing is opened, placed or said."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from streams.core.names import Lfn, shown
from streams.errors import InvalidName, StorageError, UsageError
from streams.storage.endpoint import Endpoint, FileStat
from streams.storage.posix_removal import LOCK_DIRECTORY
from streams.storage.tree import OWN_DIRECTORY

Refuse = Callable[[str, str], None]
"""(path, why)"""
_OF_AN_ENDPOINT = (LOCK_DIRECTORY, OWN_DIRECTORY)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file, or a link to one; `tail` is its path below the directory that was given, else its base name."""

    path: str
    tail: str


@dataclass(frozen=True, slots=True)
class Renaming:
    """`s/REGEX/REPLACEMENT/`, with any character for the slashes: every match in a path below what was given."""

    pattern: re.Pattern[str]
    replacement: str

    @classmethod
    def parse(cls, text: str) -> Renaming:
        """Raises UsageError for what is no such text, or no regular expression."""
        pieces = text[2:].split(text[1]) if len(text) > 2 and text[0] == "s" else []
        rule = "use s/REGEX/REPLACEMENT/, as 's/ /_/', with another character than / where one stands in it"
        if len(pieces) != 3 or pieces[2] or not pieces[0]:
            raise UsageError(f"not a renaming: {shown(text)!r}", next=rule)
        try:
            made = cls(re.compile(pieces[0]), pieces[1])
            re.compile(pieces[0] + "|").sub(pieces[1], "")
        except (re.error, IndexError) as error:
            raise UsageError(f"not a renaming: {shown(text)!r}: {shown(str(error))}", next=rule) from error
        return made

    def of(self, tail: str) -> str:
        return self.pattern.sub(self.replacement, tail)


@dataclass(frozen=True, slots=True)
class Named:
    """A file and its LFN; `in_place`: it stands where the endpoint keeps that LFN."""

    path: str
    lfn: Lfn
    in_place: bool
    stat: FileStat | None = None
    """Where finding it told that already."""


def find(paths: Iterable[str | os.PathLike[str]], refuse: Refuse) -> Iterator[FoundFile]:
    """Every file at or below the paths, directories in order of name. Parts of running transfers are passed over."""
    for given in paths:
        path = os.fspath(given)
        if os.path.isdir(path):
            yield from _below(path, refuse)
        elif os.path.isfile(path):
            yield FoundFile(path, os.path.basename(path))
        else:
            refuse(path, "not a regular file" if os.path.lexists(path) else "no such file or directory")


def _below(top: str, refuse: Refuse) -> Iterator[FoundFile]:
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(directory) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            refuse(directory, (error.strerror or str(error)).lower())
            continue
        below = []
        for entry in entries:
            is_part = entry.name.startswith(".t2g-") and entry.name.endswith(".part")
            if is_part or entry.name in _OF_AN_ENDPOINT:
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif entry.is_file():
                    yield FoundFile(entry.path, os.path.relpath(entry.path, top))
                elif entry.is_symlink():
                    refuse(entry.path, "a link to a directory, or to nothing, is not followed")
                else:
                    refuse(entry.path, "not a regular file")
            except OSError as error:  # a link in a circle, a directory that may not be entered: one name's fault
                refuse(entry.path, (error.strerror or str(error)).lower())
        waiting += reversed(below)


def place_of(path: str) -> str:
    """The one spelling of a name's place: its directory without links, the name itself as it is."""
    return os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))


def name(
    found: FoundFile,
    endpoint: Endpoint,
    prefix: str | None,
    renamings: Sequence[Renaming] = (),
) -> Named:
    """The LFN of a file: from its place under the root, else `prefix` and its tail.

    The tail is renamed, one renaming after the other; a file under the root keeps the name of its place, if that is a
    legal LFN or nothing is renamed.

    Raises InvalidName when that is no legal LFN, UsageError when neither applies.
    """
    place = place_of(found.path)
    root = os.path.realpath(endpoint.root).rstrip("/")
    if place.startswith(root + "/"):
        try:
            in_place = endpoint.lfn_of(place[len(root) + 1 :])
        except InvalidName:
            if not renamings:
                raise
        else:
            if in_place is not None and _keeps(endpoint, in_place, place):
                return Named(found.path, in_place, True)
    if prefix is None:
        raise UsageError("not under the storage root", next="say which LFN it gets, with a prefix")
    tail = found.tail
    for renaming in renamings:
        tail = renaming.of(tail)
    return Named(found.path, Lfn(f"{prefix.rstrip('/')}/{tail}"), False)


def _keeps(endpoint: Endpoint, lfn: Lfn, place: str) -> bool:
    try:
        return endpoint.pfn(lfn) == place
    except StorageError:
        return False
