"""What came, went and changed between two catalogues: their rows of files side by side, by name. Nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from streams.views import rows
from streams.views.rows import FILE, Entry


class Change(StrEnum):
    CAME = "came"
    WENT = "went"
    CHANGED = "changed"
    """It is held at both times, and has another size, checksum or block."""


class Difference(NamedTuple):
    """A file of a dataset at a site that is not as it was; `before` or `after` is None where it was not held then."""

    lfn: str
    before: Entry | None
    after: Entry | None

    @property
    def change(self) -> Change:
        if self.before is None:
            return Change.CAME
        return Change.WENT if self.after is None else Change.CHANGED

    @property
    def entry(self) -> Entry:
        """As it is, else as it was."""
        found = self.after or self.before
        assert found is not None
        return found


def differences(before: Any, after: Any, *, dataset: str | None = None, behind: str = "") -> Iterator[Difference]:
    """Between two databases of a view, by LFN. `dataset`: of this one only. `behind`: of LFNs that come after this."""
    for lfn, was, now in _paired(before, after, behind):
        if was == now:
            continue
        held_then, held_now = _held(was, dataset), _held(now, dataset)
        for place in sorted(held_then.keys() | held_now.keys()):
            one, other = held_then.get(place), held_now.get(place)
            if one is None or other is None or _content(one) != _content(other):
                yield Difference(lfn, one, other)


def _paired(before: Any, after: Any, behind: str) -> Iterator[tuple[str, bytes | None, bytes | None]]:
    """Each file that either knows, with both rows."""
    start = rows.file_key(behind) + b"\0" if behind else b""
    old, new = rows.scan(before, FILE, start), rows.scan(after, FILE, start)
    was, now = next(old, None), next(new, None)
    while was is not None or now is not None:
        key = min(one[0] for one in (was, now) if one is not None)
        rows_of = [one[1] if one is not None and one[0] == key else None for one in (was, now)]
        yield key[len(FILE) :].decode(), *rows_of  # type: ignore[misc]
        was = next(old, None) if rows_of[0] is not None else was
        now = next(new, None) if rows_of[1] is not None else now


def _held(row: bytes | None, dataset: str | None) -> dict[tuple[str, str, str], Entry]:
    """By dataset, site and endpoint."""
    entries = (e for e in rows.unpack_file(row) if e.held and dataset in (None, e.dataset))
    return {(e.dataset, e.site, e.endpoint): e for e in entries}


def _content(entry: Entry) -> tuple[str, int, str]:
    return entry.block, entry.bytes, entry.adler32
