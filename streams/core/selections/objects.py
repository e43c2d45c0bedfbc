"""Which objects of a container (a ROOT file, a zip or tar archive) are asked for, and their one text form. Pure.

    selection = pattern *("," pattern)

`dir/hpt*,cutflow` is the object `cutflow` and every one whose name begins with `dir/hpt`. In a pattern `*` stands for
any characters, `/` too, and `?` for one; a backslash takes the next character as it is, needed before one of `,}*?\\`,
and `\\u{e4}` is the character of that number: the grammar of columns (entries.py). The text is canonical: patterns are
sorted and named once, so equal selections have equal texts. It is printable ASCII, whatever the names are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from streams.core.names import shown
from streams.core.selections.entries import (
    COLUMNS_MAX,
    NAME_CHARS_MAX,
    EventSelection,
    escaped,
    is_glob,
    matches,
    tokens,
    unescaped,
)
from streams.errors import InvalidName, UsageError

CHARS_MAX = 4096
SUFFIX_CHARS_MAX = 40

_SUFFIX = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{SUFFIX_CHARS_MAX - 1}}}")
_RULE = "use NAME,NAME with * and ? in them, as dir/hpt*,cutflow"


@dataclass(frozen=True)
class ObjectSelection:
    """Patterns of names, at least one. They come out in their one spelling, sorted, each once.

    Raises InvalidName for a pattern that is none, UsageError for none at all or a text over `CHARS_MAX`.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise UsageError("no object is named", next=f"* is every object; {_RULE}")
        if len(self.names) > COLUMNS_MAX:
            raise UsageError(f"{len(self.names):,} objects are named, {COLUMNS_MAX:,} at most", next="use a glob")
        for pattern in self.names:
            _require_legal(pattern)
        # Columns have the same patterns: their selection knows the one spelling of each.
        object.__setattr__(self, "names", EventSelection(columns=self.names).columns)
        if len(str(self)) > CHARS_MAX:
            raise UsageError(f"a selection of {len(str(self)):,} characters, {CHARS_MAX:,} at most", next="use globs")

    def __str__(self) -> str:
        """The canonical text; `parse` gives the same selection back."""
        return ",".join(self.names)

    @classmethod
    def parse(cls, text: str) -> ObjectSelection:
        """The selection a text stands for, canonical or not."""
        if len(text) > CHARS_MAX:
            raise UsageError(f"a selection of {len(text):,} characters, {CHARS_MAX:,} at most", next="use globs")
        return cls(tuple(_pieces(text)) if text else ())

    def matches(self, name: str) -> bool:
        """Whether an object of this name is asked for."""
        return any(matches(pattern, name) for pattern in self.names)

    @property
    def exact(self) -> tuple[str, ...]:
        """The names that are asked for as they are; all others come from globs."""
        return tuple(unescaped(pattern) for pattern in self.names if not is_glob(pattern))

    @property
    def globs(self) -> tuple[str, ...]:
        return tuple(pattern for pattern in self.names if is_glob(pattern))

    @property
    def one(self) -> str | None:
        """The name, where exactly one is asked for and no glob."""
        return self.exact[0] if len(self.names) == len(self.exact) == 1 else None


def exactly(name: str) -> ObjectSelection:
    """The selection that means the object `name` alone. InvalidName where no selection can name it."""
    return ObjectSelection((escaped(name),))


def name_fault(name: str) -> str | None:
    """Why no selection can mean the object `name` alone; None where one can."""
    if not name:
        return "its name is empty"
    if len(spelled := escaped(name)) > NAME_CHARS_MAX:
        return f"its name has {len(spelled):,} characters as it is spelled, {NAME_CHARS_MAX:,} at most"
    return None


def safe_suffix(name: str, otherwise: str = "object") -> str:
    """What of an object's name may end a landed file's: its last piece, its last characters where it is long."""
    piece = re.sub(r"[^A-Za-z0-9._-]+", "_", name.rpartition("/")[2])[-SUFFIX_CHARS_MAX:].lstrip("._-")
    return piece if _SUFFIX.fullmatch(piece) else otherwise


def _pieces(text: str) -> list[str]:
    """The patterns between commas that no backslash guards."""
    pieces = [""]
    for token in tokens(text):
        if token == ",":
            pieces.append("")
        else:
            pieces[-1] += token
    return pieces


def _require_legal(pattern: str) -> None:
    if not pattern:
        raise InvalidName("an object's name is empty", next=_RULE)
    if len(pattern) > NAME_CHARS_MAX:
        what = f"an object's name of {len(pattern):,} characters: {shown(pattern, 40)!r}"
        raise InvalidName(what, next=f"{NAME_CHARS_MAX:,} at most; use a glob")
    if len(pattern) - len(pattern.rstrip("\\")) & 1:
        raise InvalidName(f"a backslash ends the name {shown(pattern)!r}", next="write \\\\ for a backslash")
