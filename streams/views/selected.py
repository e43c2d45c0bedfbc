"""A selection made ready to walk: contained names left out, one place for each file, cursors. No database here."""

from __future__ import annotations

from collections.abc import Sequence

from streams.core.selectors import Kind, Selector
from streams.errors import UsageError
from streams.views.rows import Entry

SelectionCursor = tuple[int, str]
"""Number of a selector of `wide`, and the block (`DATASET#BLOCK`) in it."""


class Plan:
    """`wide`: datasets and blocks as asked, without blocks of a dataset that is asked too. `lfns`: the files."""

    def __init__(self, selectors: Sequence[Selector]) -> None:
        asked = list(dict.fromkeys(selectors))
        datasets = {s.name for s in asked if s.kind is Kind.DATASET}
        self.wide = [
            s
            for s in asked
            if s.kind is Kind.DATASET or (s.kind is Kind.BLOCK and s.name.partition("#")[0] not in datasets)
        ]
        self.lfns = [s.name for s in asked if s.kind is Kind.FILE]
        self._number = {s.name: number for number, s in enumerate(self.wide)}

    def place(self, entries: Sequence[Entry]) -> SelectionCursor | None:
        """Where a file is listed: in the first selector that has it, its first block there. None: by its own name."""
        best: SelectionCursor | None = None
        for e in entries:
            block = f"{e.dataset}#{e.block}"
            number = self._number.get(e.dataset, self._number.get(block))
            if number is not None and (best is None or (number, block) < best):
                best = (number, block)
        return best

    def behind(self, cursor: str) -> tuple[int, tuple[str, str] | None, int]:
        """(selector number, (block, lfn) to start behind in it, first file of `lfns`) of a cursor; "" is the start."""
        if not cursor:
            return 0, None, 0
        try:
            number, *rest = cursor.split(" ")
            if int(number) == len(self.wide):
                (index,) = rest
                return int(number), None, int(index)
            block, lfn = rest
            if 0 <= int(number) < len(self.wide):
                return int(number), (block, lfn), 0
        except ValueError:
            pass
        raise UsageError("not a cursor of this selection", cursor[:120])
