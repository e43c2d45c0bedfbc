"""How a text file of entries is written, where it is not as its name says: encoding, separator, quote. Pure.

These are chosen by a user and never guessed: a file that needs another one is refused with a word that names it.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass

from streams.core.names import shown
from streams.errors import UsageError

UTF8 = "utf-8"
ENCODINGS = (
    UTF8,
    *("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
    *("latin-1", *(f"iso8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16))),
    *(f"cp{n}" for n in (437, 850, 852, 855, 858, 866, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258)),
    *("koi8-r", "koi8-u", "mac-roman"),
)
"""Those of which each character stands for itself, whatever came before it: a file can be read from its middle."""
SEPARATORS = {"tab": "\t"}
NO_QUOTE = "none"
_CODECS = {codecs.lookup(name).name: name for name in ENCODINGS}
_CODECS["utf-8-sig"] = UTF8
_RULE = "as ;encoding=latin-1;separator=\\;;quote=none"


@dataclass(frozen=True)
class TextFormat:
    """`separator` "" is the one that the file's name says (a comma, a tab in a .tsv); `quote` "" quotes nothing.

    `encoding` comes out in its one spelling. Raises UsageError for what cannot be.
    """

    encoding: str = UTF8
    separator: str = ""
    quote: str = '"'

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoding", _known(self.encoding))
        separator = SEPARATORS.get(self.separator, self.separator)
        object.__setattr__(self, "separator", separator)
        if len(separator) > 1 or (separator not in ("", "\t") and not (" " <= separator <= "~")):
            raise UsageError(f"{shown(separator, 20)!r} is no separator", next="it is one ASCII character, or tab")
        quote = "" if self.quote == NO_QUOTE else self.quote
        object.__setattr__(self, "quote", quote)
        if len(quote) > 1 or (quote and not ("!" <= quote <= "~")):
            raise UsageError(f"{shown(quote, 20)!r} is no quote", next="it is one ASCII character, or none")
        if quote and quote == (separator or ","):
            raise UsageError(f"{quote!r} is the separator and the quote", next="name another quote, or none")

    def told(self) -> list[tuple[str, str]]:
        """Names and values of what is not as usual, in the order of the names."""
        found = [] if self.encoding == UTF8 else [("encoding", self.encoding)]
        found += [] if self.quote == '"' else [("quote", self.quote or NO_QUOTE)]
        return found + ([("separator", self.separator)] if self.separator else [])

    @classmethod
    def of(cls, options: Iterable[tuple[str, str]]) -> TextFormat:
        """What `told` says. Raises UsageError for a name that is unknown, there twice or without a value."""
        given: dict[str, str] = {}
        for name, value in options:
            if name not in ("encoding", "separator", "quote"):
                what = f"{shown(name, 40)!r} is no option"
                raise UsageError(what, next=f"there are encoding, separator and quote, {_RULE}")
            if name in given or not value:
                raise UsageError(f"the option {name} is {'there twice' if name in given else 'empty'}", next=_RULE)
            given[name] = value
        return cls(**given)


def _known(name: str) -> str:
    try:
        return _CODECS[codecs.lookup(name).name]
    except (LookupError, ValueError):
        what = f"the encoding {shown(name, 40)!r} is not known here"
        raise UsageError(what, next=f"there are {', '.join(ENCODINGS)}") from None
