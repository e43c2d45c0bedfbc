"""S3-compatible stores a site reads besides its own storage: which LFNs their keys have, how keys are asked for. Pure.

    [stores.NAME]  lfn = "/store/s3/NAME"  prefix = "2026/"        s3://NAME/run1/*.root

The key `2026/run1/a.root` is the LFN `/store/s3/NAME/run1/a.root`. What is asked for counts from the prefix too; its
patterns are those of objects (objects.py), and what ends with a slash means everything below it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import takewhile

from streams.core.names import Lfn, shown
from streams.core.selections.entries import tokens, unescaped
from streams.core.selections.objects import ObjectSelection
from streams.errors import UsageError

SCHEME = "s3://"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_ASKED = re.compile(r"s3://([^/]*)/?(.*)", re.DOTALL)


BASE = "/store/s3/"
"""What the LFNs of stores begin with, unless `lfn` says otherwise."""


@dataclass(frozen=True, slots=True)
class Store:
    """A bucket, or what begins with `prefix` in it. Without keys and `credentials_file` requests are not signed."""

    name: str
    url: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    path_style: bool = True
    lfn: str = ""
    """LFN under which its keys appear; "" is `/store/s3/NAME`."""
    direct: bool = False
    """Whether destinations may fetch keys from the store themselves, by URLs that are signed for them."""
    ca_file: str = ""
    credentials_file: str = ""
    profile: str = "default"
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)

    @property
    def base(self) -> str:
        return self.lfn or f"{BASE}{self.name}"

    def holds(self, lfn: str) -> bool:
        """Whether the name is one of this store, be there such a key or not."""
        return lfn.startswith(self.base + "/")

    def key(self, lfn: str) -> str:
        return self.prefix + lfn[len(self.base) + 1 :]

    def lfn_of(self, key: str) -> Lfn:
        """Raises InvalidName for a key that no LFN can name."""
        return Lfn(f"{self.base}/{key.removeprefix(self.prefix)}")


def name_fault(name: str) -> str | None:
    """Why a store cannot have this name."""
    if _NAME.fullmatch(name):
        return None
    return f"{shown(name, 40)!r} is no name of a store: use a lower-case letter, then those, digits or -, 32 at most"


def is_asked(text: str) -> bool:
    return text.startswith(SCHEME)


@dataclass(frozen=True, slots=True)
class AskedKeys:
    """What `s3://NAME/PATTERN` means: keys behind the store's prefix that match."""

    store: str
    selection: ObjectSelection

    @classmethod
    def parse(cls, text: str) -> AskedKeys:
        """Raises UsageError (InvalidName for a pattern that is none)."""
        match = _ASKED.fullmatch(text)
        if match is None or name_fault(match[1]):
            raise UsageError(f"{shown(text)!r} names no key of a store", next="use s3://NAME/PATTERN")
        pattern = match[2]
        if not pattern or pattern.endswith("/"):
            pattern += "*"
        return cls(match[1], ObjectSelection.parse(pattern))

    @property
    def begins(self) -> str:
        """What every matching key begins with."""
        heads = [_literal(pattern) for pattern in self.selection.names]
        first, last = min(heads), max(heads)  # what these two share, all between them share
        differ = (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
        return first[: next(differ, len(first))]


def _literal(pattern: str) -> str:
    return unescaped("".join(takewhile(lambda token: token not in ("*", "?"), tokens(pattern))))
