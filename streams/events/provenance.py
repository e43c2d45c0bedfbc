"""What a final file of entries says it holds: written into it at the seal, and read back from any of the kinds.

Not here: replica records, which say the same to the federation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from streams.errors import data_bad
from streams.events.batches import fingerprint
from streams.events.final_files import FORMATS
from streams.storage import oserrors

_PREFIX = "transfer2go."
_HEAD_BYTES = 8


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which entries `[start, stop)` of which tree of which file an item is.

    `selection` is how they were asked for, `version` the source's of the file: "" where that is not told.
    """

    lfn: str
    tree: str
    start: int
    stop: int
    selection: str = ""
    version: str = ""

    def metadata(self, schema: pa.Schema) -> dict[str, str]:
        told = {
            _PREFIX + "columns": json.dumps(schema.names, ensure_ascii=False),
            _PREFIX + "entries": f"{self.start}:{self.stop}",
            _PREFIX + "lfn": self.lfn,
            _PREFIX + "schema": fingerprint(schema),
            _PREFIX + "tree": self.tree,
        }
        asked = {_PREFIX + "selection": self.selection, _PREFIX + "version": self.version}
        return told | {key: value for key, value in asked.items() if value}

    @classmethod
    def parsed(cls, metadata: dict[str, str]) -> Self:
        """KeyError or ValueError where it is not what `metadata` made."""
        start, _, stop = metadata[_PREFIX + "entries"].partition(":")
        return cls(
            metadata[_PREFIX + "lfn"],
            metadata[_PREFIX + "tree"],
            int(start),
            int(stop),
            metadata.get(_PREFIX + "selection", ""),
            metadata.get(_PREFIX + "version", ""),
        )


def provenance_of(path: str) -> Provenance:
    """What the file at `path` holds. StorageError: data-bad where it is none of ours, else why it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
        found = next((one for one in FORMATS.values() if head.startswith(one.begins)), None)
        if found is None:
            raise ValueError("it begins like none of them")
        return Provenance.parsed(found.metadata_of(path))
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise oserrors.reading(error, path) from error
        raise data_bad("not a file of entries of ours", path) from error
