"""Which part of a file is meant: the text of intents and items, and the names a part lands under. Pure.

    part = "entries:" event selection (asked.py) | "objects:" names and globs (named.py)

The same text stands in an intent, for each of its files, and in an item, where the tree's name and range are those of
the file, and one object is named. A part is filed beside what it was taken from, in a dataset of its own: whoever moves
a dataset moves its files, not what somebody once cut from them.
"""

from __future__ import annotations

import hashlib

from streams.core.asked import EventSelection
from streams.core.named import ObjectSelection
from streams.core.names import Block, Dataset, Lfn, shown
from streams.errors import UsageError

ENTRIES, OBJECTS = "entries:", "objects:"
CHARS_MAX = 4096
FORMATS = ("parquet", "arrow", "root")
"""What entries land as; the first unless something else is asked for."""
_OF_PARTS = "-PART"


def canonical(text: str) -> str:
    """The one spelling of a part. Raises UsageError or InvalidName that says what is wrong with it."""
    if (selection := entries_of(text)) is not None:
        found = f"{ENTRIES}{selection}"
    elif (objects := objects_of(text)) is not None:
        found = f"{OBJECTS}{objects}"
    else:
        then = f"begin with {ENTRIES} or {OBJECTS}, as entries:Events[0:1000]{{Muon_pt}} or objects:h*,cutflow"
        raise UsageError(f"which part of a file is {shown(text)!r}?", next=then)
    if len(found) > CHARS_MAX or not (found.isascii() and found.isprintable()) or "://" in found:
        raise UsageError("a part is named in at most 4,096 printable ASCII characters", next="use globs for columns")
    return found


def entries_of(text: str) -> EventSelection | None:
    """The entries that a part means; None where it means no entries."""
    return EventSelection.parse(text[len(ENTRIES) :]) if text.startswith(ENTRIES) else None


def objects_of(text: str) -> ObjectSelection | None:
    """The objects that a part means; None where it means none."""
    return ObjectSelection.parse(text[len(OBJECTS) :]) if text.startswith(OBJECTS) else None


def target_of(lfn: Lfn, selection: str, suffix: str) -> Lfn:
    """The LFN that a part lands under: the same part always under the same name."""
    return Lfn(f"{lfn}.{hashlib.sha256(selection.encode()).hexdigest()[:12]}.{suffix}")


def suffix_of(target: str) -> str:
    return target.rpartition(".")[2]


def filed(block: Block) -> tuple[Dataset, Block]:
    """(dataset, block) of what is cut from a block's files."""
    if block.dataset.endswith(_OF_PARTS):
        return block.dataset, block
    dataset = Dataset(f"{block.dataset}{_OF_PARTS}")
    return dataset, Block(f"{dataset}#{block.partition('#')[2]}")
