"""Objects of ROOT files, each as a ROOT file of its own that is laid out and read in place, never written.

The object's record is the source's, byte for byte but for the positions in its key: nothing is converted or lost,
whatever its class. With it go the directories it is in (of nothing else), the source's table of streamers, and for a
tree its baskets (trees.py). Name, cycle, title and dates are the source's. The file's UUID is made of its
contents, since readers take two files of one UUID for the same. Equal sources give equal bytes.

Not kept: what an object names but does not hold (a tree's friends, the process ids of `TRef`s). Refused, with the
reason: RNTuples, trees that keep branches in other files, other objects with trees inside.
"""

from __future__ import annotations

import re

from streams.core.names import shown
from streams.core.selections.objects import name_fault
from streams.errors import StorageError, permanent
from streams.events.checked_file import CheckedFile
from streams.objects.containers.container import Container
from streams.objects.containers.root.keys import KeyHead, Place, RootKey, unpacked_object, walk
from streams.objects.containers.root.layout import Contents, Layout, LayoutReader, lay_out, uuid_of
from streams.objects.found import Found, Scan, named
from streams.objects.limits import damaged
from streams.objects.tables import TABLES
from streams.storage.endpoint import Reader

OBJECT_BYTES_MAX = 128 << 20
"""Of one object unpacked, a tree's baskets not counted: it is looked at in memory. ROOT itself ends at 1 GB."""
SUFFIX = "root"
_TREES = (b"TTree", b"TNtuple", b"TNtupleD")
_RNTUPLES = (b"ROOT::RNTuple", b"ROOT::Experimental::RNTuple")
_BRANCH = re.compile(rb"TBranch[A-Za-z]*\x00")


class RootObjects(Container):
    """Every key that is no directory is an object."""

    def scan(self, scan: Scan) -> None:
        """Of several cycles of a name the last is the one; each is also there as `name;cycle`, asked for exactly."""
        file = self.file
        exact = set(scan.asked.exact)
        for name, place in root_places(file).items():
            if (name != place.name and name not in exact) or not scan.wants(name):
                continue
            try:
                with LayoutReader(file.reader(), layout_of(file, place)) as reader:
                    scan.add(Found(name, reader.stat.bytes, reader.adler32(), SUFFIX))
            except StorageError as error:
                if error is file.failed:
                    raise
                scan.refuse(name, error)

    def reader(self, name: str, scratch: str) -> Reader:
        file = self.file
        place = named(TABLES.of(file, "", lambda: root_places(file)), name, file.path)
        return LayoutReader(file.reader(), TABLES.of(file, name, lambda: layout_of(file, place)))


def root_places(file: CheckedFile) -> dict[str, Place]:
    """Every object as `name;cycle`, and the last cycle as `name` too."""
    places: dict[str, Place] = {}
    for place in walk(file, KeyHead.read(file)):
        places.setdefault(f"{place.name};{place.key.cycle}", place)
        if place.name not in places or places[place.name].key.cycle < place.key.cycle:
            places[place.name] = place
    return places


def layout_of(file: CheckedFile, place: Place) -> Layout:
    """The file of this object. StorageError: permanent where it cannot travel, data-bad where it is damaged."""
    with file.guarded(f"cannot read the object {shown(place.name)!r}"):
        head = KeyHead.read(file)
        fault = _fault(place)
        if fault is not None:
            raise permanent(f"the object {shown(place.name)!r} cannot travel: {fault}", file.path, "name others")
        _require_record(file, place.key)
        if place.key.classname in _TREES:
            from streams.objects.containers.root.trees import tree_layout

            return tree_layout(file, head, place)
        unpacked = unpacked_object(file, place.key)
        if _BRANCH.search(unpacked):
            what = f"the object {shown(place.name)!r} cannot travel: it holds a tree, whose entries are elsewhere"
            raise permanent(what, file.path, "name others")
        return lay_out(file, head, Contents(place, uuid_of(head, place.key, unpacked)))


def _fault(place: Place) -> str | None:
    key = place.key
    if key.classname in _RNTUPLES:
        return "an RNTuple is not yet an object; ask for its entries"
    if key.object_bytes > OBJECT_BYTES_MAX:
        return f"it has {key.object_bytes:,} bytes, {OBJECT_BYTES_MAX:,} at most"
    return name_fault(f"{place.name};{key.cycle}")


def _require_record(file: CheckedFile, key: RootKey) -> None:
    """What lies there is what the directory says. StorageError, data-bad."""
    if key.start + key.record_bytes > file.bytes:
        raise damaged(f"the object {shown(repr(key.name)[2:-1])!r} reaches beyond the end", file.path)
    there = RootKey.read(file.pread(key.start, key.start + key.key_bytes))
    same = ("record_bytes", "object_bytes", "cycle", "start", "classname", "name", "title", "big")
    if key.key_bytes != key.header_bytes or any(getattr(there, what) != getattr(key, what) for what in same):
        raise damaged(f"the object {shown(repr(key.name)[2:-1])!r} is not where its directory says", file.path)
