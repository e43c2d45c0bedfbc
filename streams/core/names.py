"""Names of the field: each type's constructor parses or raises `InvalidName`. No other module invents a name's shape.

All are `str`, so they travel, sort and hash as text; having one means that it is legal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Self

from streams.errors import InvalidName

_SITE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_DESTINATION = re.compile(rf"{_SITE.pattern}(?:/[A-Za-z][A-Za-z0-9_-]{{0,63}})?")
_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"
# =~ is left out: a shell puts somebody's home directory there.
_LFN = re.compile(r"(?!.*=~)(?:/[A-Za-z0-9_][A-Za-z0-9._=+@,~-]*+)++")
_DATASET = re.compile(rf"/{_SEGMENT}/{_SEGMENT}/{_SEGMENT}")
_BLOCK = re.compile(rf"/{_SEGMENT}/{_SEGMENT}/{_SEGMENT}#[A-Za-z0-9][A-Za-z0-9-]{{0,63}}")
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_INTENT = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,63}}\.{_UUID}")
_MANIFEST = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,63}}\.{_UUID}\.(?:0|[1-9][0-9]{{0,8}})\.(?:0|[1-9][0-9]{{0,8}})")
_ADLER32 = re.compile(r"[0-9a-f]{8}")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]*")

LFN_BYTES_MAX = 1024


def shown(text: str, chars: int = 120) -> str:
    """`text` made safe to show to a person: control characters escaped, cut to `chars`."""
    safe = "".join(c if _PRINTABLE.fullmatch(c) else c.encode("unicode_escape").decode() for c in text[: chars + 1])
    return safe if len(safe) <= chars else safe[:chars] + "…"


class _Name(str):
    __slots__ = ()
    _pattern: re.Pattern[str]
    _kind: str
    _rule: str
    _bytes_max = 512

    def __new__(cls, text: str) -> Self:
        if type(text) is cls:
            return text
        if not isinstance(text, str) or len(text) > cls._bytes_max or not cls._pattern.fullmatch(text):
            raise InvalidName(f"not a legal {cls._kind}: {shown(str(text))!r}", next=cls._rule)
        return super().__new__(cls, text)

    @classmethod
    def parser(cls) -> Callable[[bytes], Self]:
        """The constructor for who makes very many of UTF-8: twice as fast. It raises ValueError, without words."""
        is_legal, most, make = cls._pattern.fullmatch, cls._bytes_max, str.__new__

        def parsed(raw: bytes) -> Any:
            text = raw.decode()
            if len(text) > most or is_legal(text) is None:
                raise ValueError
            return make(cls, text)

        return parsed


class Destination(_Name):
    """Where an intent's items go: a site, or a consumer of events that reads at one, as `T2_CH_CERN/zpeak`."""

    __slots__ = ()
    _pattern, _kind = _DESTINATION, "destination"
    _rule = "use SITE, or SITE/NAME with letters, digits, _ and - (64 at most)"

    @property
    def site(self) -> Site:
        return _site_of(self)

    @property
    def consumer(self) -> str:
        """Its name at the site; "" for the site itself."""
        return self.partition("/")[2]


class Site(Destination):
    """One Kafka cluster with its storage and agents, as `T1_US_FNAL`."""

    __slots__ = ()
    _pattern, _kind = _SITE, "site name"
    _rule = "use a letter, then letters, digits or _ (64 at most), as T1_US_FNAL"


@lru_cache(1024)
def _site_of(destination: str) -> Site:
    return Site(destination.partition("/")[0])


class Lfn(_Name):
    """Logical file name, the same at every site.

    Legal without quotes in a shell, as a path on a disk, of a URL and of a key: no blanks, nothing a shell or a URL
    reads as its own (`: % # & ? * $` …), ASCII only (no two spellings of one name). A segment starts with none of
    `- + @ = , ~` (options, files of arguments, expansion) and not with a dot: nobody places hidden files at another
    site.
    """

    __slots__ = ()
    _pattern, _kind, _bytes_max = _LFN, "LFN", LFN_BYTES_MAX
    _rule = (
        "use an absolute ASCII path of letters, digits and . _ = + @ , ~ -, where each segment starts with a letter, "
        "digit or _ and no ~ follows =; 1,024 at most"
    )


class Dataset(_Name):
    """`/Primary/Processed/TIER`."""

    __slots__ = ()
    _pattern, _kind, _rule = _DATASET, "dataset", "use /Primary/Processed/TIER"


class Block(_Name):
    """`/Primary/Processed/TIER#name`: a part of a dataset."""

    __slots__ = ()
    _pattern, _kind, _rule = _BLOCK, "block", "use /Primary/Processed/TIER#NAME"

    @property
    def dataset(self) -> Dataset:
        return Dataset(self.partition("#")[0])


class IntentId(_Name):
    """`HOME.uuid`; the home alone decides on it."""

    __slots__ = ()
    _pattern, _kind, _rule = _INTENT, "intent id", "use HOME.uuid, as printed by `intent add`"

    @property
    def home(self) -> Site:
        return Site(self.partition(".")[0])


class ManifestId(_Name):
    """`INTENT.SOURCE_NO.NO`: keys transfers, requests, payload and progress."""

    __slots__ = ()
    _pattern, _kind, _rule = _MANIFEST, "manifest id", "use INTENT.SOURCE_NO.NO"

    @classmethod
    def of(cls, intent: IntentId, source_no: int, no: int) -> ManifestId:
        return cls(f"{intent}.{source_no}.{no}")

    @property
    def intent(self) -> IntentId:
        return IntentId(self.rsplit(".", 2)[0])

    @property
    def source_no(self) -> int:
        return int(self.rsplit(".", 2)[1])

    @property
    def no(self) -> int:
        return int(self.rsplit(".", 1)[1])


class Adler32(_Name):
    """Checksum of a whole file: 8 lower-case hex digits, leading zeros kept."""

    __slots__ = ()
    _pattern, _kind, _rule = _ADLER32, "adler32", "use 8 lower-case hex digits"


class Text(_Name):
    """Free text for people: no control or direction-changing characters, 400 at most."""

    __slots__ = ()
    _pattern, _kind, _bytes_max, _rule = _PRINTABLE, "text", 400, "use printable characters, 400 at most"
