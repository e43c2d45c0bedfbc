"""What part of an event file is asked for, and its one text form. Pure: no file is opened, no format is known here.

    selection = [tree] ["[" [start] ":" [stop] "]"] ["{" column *("," column) "}"] ["?"]

`Events[100:2000]{Muon_pt,Jet_*}` is entries 100 up to, not including, 2000 of the tree `Events`, and of those the
column `Muon_pt` and every column that begins with `Jet_`. Whatever is left out means all (for the tree: the only one
of the file); everything of everything is `[:]`. A `?` at the end is lenient: columns whose type cannot be read are
left out and told, instead of being an error.

In a column, `*` stands for any characters and `?` for one. A backslash takes the next character as it is; the tree's
name needs it before one of `[{?\\`, a column's before one of `,}*?\\`.

The text is canonical: numbers are bare decimals, columns are sorted and named once, so equal selections have equal
texts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from streams.core.names import shown
from streams.errors import InvalidName, UsageError

CHARS_MAX = 16384
COLUMNS_MAX = 2048
NAME_CHARS_MAX = 512
ENTRIES_MAX = (1 << 63) - 1
ALL = "[:]"
_TOLD = 5  # names shown in an error

_TREE_ESCAPES = "[{?\\"
_COLUMN_ESCAPES = ",}*?\\"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_RULE = "use TREE[START:STOP]{COLUMN,COLUMN}, as Events[0:1000]{Muon_pt,Jet_*}"


def escaped(name: str) -> str:
    """The column pattern that means exactly the column `name`."""
    return "".join("\\" + c if c in _COLUMN_ESCAPES else c for c in name)


def matches(column: str, name: str) -> bool:
    """Whether the pattern means this name. Time grows with the product of the lengths, whatever the pattern."""
    tokens = _tokens(column)
    t = n = 0
    star, retry = -1, 0
    while n < len(name):
        if t < len(tokens) and tokens[t] == "*":
            star, retry = t, n
            t += 1
        elif t < len(tokens) and (tokens[t] == "?" or tokens[t][-1] == name[n]):
            t, n = t + 1, n + 1
        elif star >= 0:
            # The last star takes one character more; stars before it need never be tried again.
            retry += 1
            t, n = star + 1, retry
        else:
            return False
    return all(token == "*" for token in tokens[t:])


def is_glob(column: str) -> bool:
    """Whether the pattern may mean several columns."""
    return not {"*", "?"}.isdisjoint(_tokens(column))


def unescaped(text: str) -> str:
    """The name a pattern without `*` and `?` means."""
    return "".join(token[-1] for token in _tokens(text))


def nearest(name: str, names: Sequence[str]) -> str:
    """What to say of `names` when `name` is not among them: the like-named first, else the first few."""
    if not names:
        return "; there is none"
    folded = {other.lower(): other for other in reversed(names)}
    like = [folded[f] for f in difflib.get_close_matches(name.lower(), list(folded), n=_TOLD, cutoff=0.6)]
    if like:
        return f"; nearest: {', '.join(shown(other, 60) for other in like)}"
    more = f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else ""
    return f"; there are {', '.join(shown(other, 60) for other in names[:_TOLD])}{more}"


def _tokens(text: str) -> list[str]:
    """Characters, a backslash together with the one it guards."""
    return re.findall(r"\\.|.", text, flags=re.DOTALL)


@dataclass(frozen=True)
class EventSelection:
    """`tree` "" is the only tree of the file; entries `[start, stop)`, `stop` None the end; no `columns` are all.

    Raises InvalidName for a name and UsageError for a range that cannot be. Columns come out sorted, each once.
    """

    tree: str = ""
    start: int = 0
    stop: int | None = None
    columns: tuple[str, ...] = ()
    lenient: bool = False

    def __post_init__(self) -> None:
        _legal("tree", self.tree, empty=True)
        if len(self.columns) > COLUMNS_MAX:
            raise UsageError(f"{len(self.columns):,} columns are named, {COLUMNS_MAX:,} at most", next="use a glob")
        for column in self.columns:
            _legal("column", column)
            if len(column) - len(column.rstrip("\\")) & 1:
                raise InvalidName(f"a backslash ends the column {shown(column)!r}", next="write \\\\ for a backslash")
        object.__setattr__(self, "columns", tuple(sorted({_tidy(column) for column in self.columns})))
        for number in (self.start, self.stop):
            if number is not None and not 0 <= number <= ENTRIES_MAX:
                raise UsageError(f"{number} is no entry number", next=f"they go from 0 to {ENTRIES_MAX}")
        if self.stop is not None and self.start >= self.stop:
            raise UsageError(
                f"entries {self.start}:{self.stop} are none", next="the stop is not included: make it larger"
            )

    def __str__(self) -> str:
        """The canonical text; `parse` gives the same selection back."""
        tree = "".join("\\" + c if c in _TREE_ESCAPES else c for c in self.tree)
        entries = "" if not self.start and self.stop is None else f"[{self.start}:{_or_none(self.stop)}]"
        columns = "{" + ",".join(self.columns) + "}" if self.columns else ""
        return (tree + entries + columns or ALL) + ("?" if self.lenient else "")

    @classmethod
    def parse(cls, text: str) -> EventSelection:
        """The selection a text stands for, canonical or not. Raises UsageError that names the position, from 1."""
        if not text:
            raise UsageError("no selection is given", next=f"{ALL} is everything; {_RULE}")
        if len(text) > CHARS_MAX:
            raise UsageError(f"a selection of {len(text):,} characters, {CHARS_MAX:,} at most", next="use globs")
        return _Reading(text).selection()


def _or_none(stop: int | None) -> str:
    return "" if stop is None else str(stop)


def _tidy(column: str) -> str:
    """One spelling of a pattern: no needless backslash, no star beside a star."""
    tidy: list[str] = []
    for token in _tokens(column):
        kept = token if len(token) == 1 or token[1] in _COLUMN_ESCAPES else token[1]
        if kept == "," or kept == "}":
            kept = "\\" + kept
        if not (kept == "*" and tidy[-1:] == ["*"]):
            tidy.append(kept)
    return "".join(tidy)


def _legal(kind: str, name: str, *, empty: bool = False) -> None:
    if not name and not empty:
        raise InvalidName(f"an empty {kind} name", next=_RULE)
    if len(name) > NAME_CHARS_MAX:
        raise InvalidName(f"a {kind} name of {len(name):,} characters: {shown(name, 40)!r}", next="512 at most")
    for at, c in enumerate(name):
        if shown(c) != c:
            raise InvalidName(
                f"not a legal {kind} name: {shown(name)!r}, character {at + 1} is {shown(c)!r}",
                next="use printable characters",
            )


class _Reading:
    """One text being read from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def selection(self) -> EventSelection:
        tree = unescaped(self._until("[{?"))
        start, stop = 0, None
        if self._took("["):
            start = self._number() or 0
            if not self._took(":"):
                raise self._fault("a colon is missing between the first entry and the last")
            stop = self._number()
            if not self._took("]"):
                raise self._fault("the range is not closed by ]")
        columns = []
        if self._took("{"):
            columns.append(self._until(",}"))
            while self._took(","):
                columns.append(self._until(",}"))
            if not self._took("}"):
                raise self._fault("the columns are not closed by }")
            if "" in columns:
                raise self._fault("a column's name is empty")
        lenient = self._took("?")
        if self.at < len(self.text):
            raise self._fault(f"{shown(self.text[self.at], 8)!r} is not expected here")
        return EventSelection(tree, start, stop, tuple(columns), lenient)

    def _until(self, ends: str) -> str:
        """The raw text up to one of `ends`, escapes kept."""
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in ends:
            self.at += 2 if self.text[self.at] == "\\" else 1
        if self.at > len(self.text):
            self.at = len(self.text)
            raise self._fault("a backslash must have a character after it")
        return self.text[start : self.at]

    def _took(self, c: str) -> bool:
        found = self.text.startswith(c, self.at)
        self.at += found
        return found

    def _number(self) -> int | None:
        """A number if one is here; None where the range is open."""
        if self.text[self.at : self.at + 1] in (":", "]", ""):
            return None
        found = _NUMBER.match(self.text, self.at)
        if found is None or self.text[found.end() : found.end() + 1] not in (":", "]", ""):
            raise self._fault("an entry number is a bare decimal number")
        self.at = found.end()
        return int(found[0])

    def _fault(self, what: str) -> UsageError:
        return UsageError(f"{what}: {shown(self.text)!r}, position {self.at + 1}", next=_RULE)
