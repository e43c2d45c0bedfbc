"""What part of an event file is asked for, and its one text form. Pure: no file is opened, no format is known here.

    selection = [tree] ["[" [start] ":" [stop] "]"] ["{" column *("," column) "}"] ["?"] *(";" option "=" value)

`Events[100:2000]{Muon_pt,Jet_*}` is entries 100 up to, not including, 2000 of the tree `Events`, and of those the
column `Muon_pt` and every column that begins with `Jet_`. Whatever is left out means all (for the tree: the only one
of the file); everything of everything is `[:]`. A `?` at the end is lenient: columns whose type cannot be read are
left out and told, instead of being an error.

Options say how a text file is written (`text_format.py`): behind a range, columns or a `?`, never behind a bare name,
of which they would be a part. `[:]{a,b};encoding=latin-1;separator=\\;` is one. A file with a tree is no text file.

In a column, `*` stands for any characters and `?` for one. A backslash takes the next character as it is; the tree's
name needs it before one of `[{?\\`, a column's before one of `,}*?\\`, a value's before one of `;\\`. `\\u{e4}` is the
character of that number, `ä`: so any name that a file has travels in printable ASCII without a URL, and `readable`
shows it as it is.

The text is canonical: numbers are bare decimals, columns are sorted and named once, each character has its one
spelling, so equal selections have equal texts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from streams.core.names import shown
from streams.core.selections.text_format import TextFormat
from streams.errors import InvalidName, UsageError

CHARS_MAX = 16384
COLUMNS_MAX = 2048
NAME_CHARS_MAX = 1024
"""Of a name as it is spelled, escapes counted."""
ENTRIES_MAX = (1 << 63) - 1
ALL = "[:]"
_TOLD = 5  # names shown in an error

_TREE_ESCAPES = "[{?\\"
_COLUMN_ESCAPES = ",}*?\\"
_VALUE_ESCAPES = ";\\"
_TOKEN = re.compile(r"\\u\{[0-9a-f]{1,6}\}|\\.|.", re.DOTALL)
_LAST = 0x10FFFF
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_RULE = "use TREE[START:STOP]{COLUMN,COLUMN}, as Events[0:1000]{Muon_pt,Jet_*}"


def escaped(name: str) -> str:
    """The column pattern that means exactly the column `name`."""
    return _spelled(name, _COLUMN_ESCAPES)


def readable(text: str) -> str:
    """A selection for people: characters in place of their numbers, where a terminal can show them."""
    return "".join(
        c if len(token) > 3 and int(token[3:-1], 16) <= _LAST and shown(c := _meant(token)) == c else token
        for token in _TOKEN.findall(text)
    )


def matches(column: str, name: str) -> bool:
    """Whether the pattern means this name. Time grows with the product of the lengths, whatever the pattern."""
    pattern = tokens(column)
    t = n = 0
    star, retry = -1, 0
    while n < len(name):
        if t < len(pattern) and pattern[t] == "*":
            star, retry = t, n
            t += 1
        elif t < len(pattern) and (pattern[t] == "?" or _meant(pattern[t]) == name[n]):
            t, n = t + 1, n + 1
        elif star >= 0:
            # The last star takes one character more; stars before it need never be tried again.
            retry += 1
            t, n = star + 1, retry
        else:
            return False
    return all(token == "*" for token in pattern[t:])


def is_glob(column: str) -> bool:
    """Whether the pattern may mean several columns."""
    return not {"*", "?"}.isdisjoint(tokens(column))


def unescaped(text: str) -> str:
    """The name a pattern without `*` and `?` means."""
    return "".join(map(_meant, tokens(text)))


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


@lru_cache(4096)
def tokens(text: str) -> tuple[str, ...]:
    """Characters, a backslash together with the one it guards or names. InvalidName for a number of no character."""
    found = tuple(_TOKEN.findall(text))
    strange = next((token for token in found if len(token) > 3 and int(token[3:-1], 16) > _LAST), None)
    if strange is not None:
        raise InvalidName(f"{strange} is no character", next="the last one is \\u{10ffff}")
    return found


def _meant(token: str) -> str:
    return chr(int(token[3:-1], 16)) if len(token) > 3 else token[-1]


def _spelled(name: str, escapes: str) -> str:
    """A name in printable ASCII without a URL; each character in its one spelling."""
    return _no_url(
        "".join(f"\\u{{{ord(c):x}}}" if not " " <= c <= "~" else "\\" + c if c in escapes else c for c in name)
    )


def _no_url(spelled: str) -> str:
    """Nothing that a gate takes for a URL, nor where it stands behind a colon."""
    plain = spelled.replace("://", "\\u{3a}//")
    return "\\u{2f}" + plain[1:] if plain.startswith("//") else plain


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
    text: TextFormat = field(default_factory=TextFormat)

    def __post_init__(self) -> None:
        _legal("tree", _spelled(self.tree, _TREE_ESCAPES), empty=True)
        if self.tree and self.text.told():
            name, _ = self.text.told()[0]
            raise UsageError(
                f"the {name} is given, and the tree {shown(self.tree)!r}", next="a text file has no trees: leave it out"
            )
        if len(self.columns) > COLUMNS_MAX:
            raise UsageError(f"{len(self.columns):,} columns are named, {COLUMNS_MAX:,} at most", next="use a glob")
        for column in self.columns:
            _legal("column", _tidy(column))
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
        tree = _spelled(self.tree, _TREE_ESCAPES)
        entries = "" if not self.start and self.stop is None else f"[{self.start}:{_or_none(self.stop)}]"
        columns = "{" + ",".join(self.columns) + "}" if self.columns else ""
        options = "".join(f";{name}={_spelled(value, _VALUE_ESCAPES)}" for name, value in self.text.told())
        return (tree + entries + columns or ALL) + ("?" if self.lenient else "") + options

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
    """One spelling of a pattern: no needless escape, no star beside a star."""
    tidy: list[str] = []
    for token in tokens(column):
        kept = token if token in ("*", "?") else _spelled(_meant(token), _COLUMN_ESCAPES)
        if not (kept == "*" and tidy[-1:] == ["*"]):
            tidy.append(kept)
    return _no_url("".join(tidy))


def _legal(kind: str, name: str, *, empty: bool = False) -> None:
    if not name and not empty:
        raise InvalidName(f"an empty {kind} name", next=_RULE)
    if len(name) > NAME_CHARS_MAX:
        raise InvalidName(
            f"a {kind} name of {len(name):,} characters: {shown(name, 40)!r}", next=f"{NAME_CHARS_MAX:,} at most"
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
        options = []
        while self._took(";"):
            name = self._until("=;")
            if not self._took("="):
                raise self._fault("an option has no value")
            options.append((name, unescaped(self._until(";"))))
        if self.at < len(self.text):
            raise self._fault(f"{shown(self.text[self.at], 8)!r} is not expected here")
        return EventSelection(tree, start, stop, tuple(columns), lenient, TextFormat.of(options))

    def _until(self, ends: str) -> str:
        """The raw text up to one of `ends`, escapes kept."""
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in ends:
            token = _TOKEN.match(self.text, self.at)
            assert token is not None, "any character is one"
            self.at += 2 if token[0] == "\\" else len(token[0])
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
