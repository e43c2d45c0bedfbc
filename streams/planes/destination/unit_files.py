"""Which part files a manifest's unit needs: bytes, or entries where their libraries are installed."""

from __future__ import annotations

from collections.abc import Sequence

from streams.core.records import Item, Unit
from streams.errors import StorageError
from streams.planes.destination.part_files import ByteParts, PartFiles
from streams.storage.endpoint import Endpoint, SealedFile


def part_files(unit: Unit, endpoint: Endpoint) -> PartFiles:
    """Only for entries their libraries are imported."""
    if unit is Unit.BYTES:
        return ByteParts(endpoint)
    try:
        from streams.planes.destination.entry_parts import EntryParts
    except ImportError as error:
        return WithoutLibraries(endpoint, str(error))
    return EntryParts(endpoint)


class WithoutLibraries(ByteParts):
    """Of entries, where the extra is not installed: nothing can land."""

    def __init__(self, endpoint: Endpoint, missing: str) -> None:
        super().__init__(endpoint)
        self._missing = missing

    def present(self, items: Sequence[Item]) -> list[SealedFile | StorageError | None]:
        what, then = "this site cannot land entries", "install transfer2go[events] there"
        return [StorageError(what, self._missing, then, failure_class="permanent") for _ in items]
