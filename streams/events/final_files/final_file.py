"""A final file of entries as something tables are put into, and what a format of them says of itself.

No date, no name of a machine or a user is written: equal tables make equal files. Which tables is writing.py's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from streams.events.batches import Compression


class FinalFile(ABC):
    """An open descriptor that becomes a file; the caller opens, syncs and closes it.

    Whatever the disk says is an OSError. After one, or for a file that is not wanted any more, `abandon`.
    """

    @abstractmethod
    def write(self, table: pa.Table) -> None:
        """A row group; its columns are in one piece each."""

    @abstractmethod
    def close(self) -> tuple[int, int]:
        """End the file: its bytes and their adler32."""

    @abstractmethod
    def abandon(self) -> None: ...


Create = Callable[[int, str, pa.Schema, str, Mapping[str, str], Compression], FinalFile]
"""Of descriptor, path (for errors only), schema, the tree's name (for formats that have one), metadata, compression."""


@dataclass(frozen=True, slots=True)
class FinalFormat:
    """A format that entries land as. One that intents may ask for stands in `core.selections.parts.FORMATS` too."""

    name: str
    """As it is asked for, and as the names of its files end."""
    begins: bytes
    """Its files' first bytes, 8 at most."""
    create: Create
    metadata_of: Callable[[str], dict[str, str]]
    """What the file at a path was given as metadata. ArrowException, KeyError, ValueError where that cannot be read,
    OSError where the disk fails."""
    fault: Callable[[pa.Schema], str | None] = lambda _: None
    """Why such a file cannot hold a schema, naming the column; None where it can (nulls are only seen later)."""
