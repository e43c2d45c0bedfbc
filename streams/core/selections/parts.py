"""Which part of a file is meant: the text of intents and items, and the names a part lands under. Pure.

    part = "entries:" event selection (entries.py) | "objects:" names and globs (objects.py)

The same text stands in an intent, for each of its files, and in an item, where the tree's name and range are those of
the file, and one object is named. A part is filed beside what it was taken from, in a dataset of its own: whoever moves
a dataset moves its files, not what somebody once cut from them.
"""

from __future__ import annotations

import hashlib

from streams.core.names import LFN_BYTES_MAX, Block, Dataset, Lfn, shown
from streams.core.selections.entries import EventSelection, escaped
from streams.core.selections.objects import ObjectSelection, exactly, name_fault
from streams.errors import UsageError

ENTRIES, OBJECTS = "entries:", "objects:"
CHARS_MAX = 4096
FORMATS = ("parquet", "arrow", "root")
"""What entries land as; the first unless something else is asked for."""
SEGMENT_BYTES_MAX = 255
"""Of one name on a disk."""
_OF_PARTS = "-PART"
_BEGUN = 80
"""Characters of a name that cannot be spelled, for people."""


def canonical(text: str) -> str:
    """The one spelling of a part. Raises UsageError or InvalidName that says what is wrong with it."""
    if (selection := entries_of(text)) is not None:
        found = f"{ENTRIES}{selection}"
    elif (objects := objects_of(text)) is not None:
        found = f"{OBJECTS}{objects}"
    else:
        then = f"begin with {ENTRIES} or {OBJECTS}, as entries:Events[0:1000]{{Muon_pt}} or objects:h*,cutflow"
        raise UsageError(f"which part of a file is {shown(text)!r}?", next=then)
    if len(found) > CHARS_MAX:
        raise UsageError("a part is named in at most 4,096 characters", next="use globs for columns")
    return found


def means_entries(text: str | None) -> bool:
    return text is not None and text.startswith(ENTRIES)


def means_objects(text: str | None) -> bool:
    return text is not None and text.startswith(OBJECTS)


def entries_of(text: str) -> EventSelection | None:
    """The entries that a part means; None where it means no entries."""
    return EventSelection.parse(text[len(ENTRIES) :]) if means_entries(text) else None


def objects_of(text: str) -> ObjectSelection | None:
    """The objects that a part means; None where it means none."""
    return ObjectSelection.parse(text[len(OBJECTS) :]) if means_objects(text) else None


def of_object(name: str) -> str:
    """The part that means the object `name` alone; of a name that is empty or too long, one that stands for it.

    That one means no object: its item only says why it cannot travel.
    """
    if name_fault(name) is None:
        return f"{OBJECTS}{exactly(name)}"
    return f"{OBJECTS}{escaped(name[:_BEGUN])}*{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"


def target_of(lfn: Lfn, selection: str, suffix: str) -> Lfn:
    """The LFN that a part lands under: the same part always under the same name.

    Where that were too long for an LFN or for a name on a disk, the file's name is cut.
    """
    tail = f".{hashlib.sha256(selection.encode()).hexdigest()[:12]}.{suffix}"
    folder, _, name = lfn.rpartition("/")
    if len(lfn) + len(tail) <= LFN_BYTES_MAX and len(name) + len(tail) <= SEGMENT_BYTES_MAX:
        return Lfn(f"{lfn}{tail}")
    tail = f".{hashlib.sha256(f'{lfn} {selection}'.encode()).hexdigest()[:12]}.{suffix}"
    room = min(SEGMENT_BYTES_MAX, LFN_BYTES_MAX - len(folder) - 1) - len(tail)
    if room > 0:
        return Lfn(f"{folder}/{name[:room]}{tail}")
    return Lfn(f"{lfn[: LFN_BYTES_MAX - len(tail)].rstrip('/')}{tail}")


def suffix_of(target: str) -> str:
    return target.rpartition(".")[2]


def filed(block: Block) -> tuple[Dataset, Block]:
    """(dataset, block) of what is cut from a block's files."""
    if block.dataset.endswith(_OF_PARTS):
        return block.dataset, block
    dataset = Dataset(f"{block.dataset}{_OF_PARTS}")
    return dataset, Block(f"{dataset}#{block.partition('#')[2]}")
