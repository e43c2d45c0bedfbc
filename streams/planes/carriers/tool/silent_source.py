"""The source's side: it has nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streams.core.records import ChunksRequested


class SilentSource:
    busy = False
    address = ""

    def __init__(self, *_: Any) -> None:
        pass

    def serve(self, request: ChunksRequested) -> None:
        """Its destination has it brought."""

    def threads(self) -> Iterator[Any]:
        return iter(())

    def close(self) -> None:
        pass
