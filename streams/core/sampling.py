"""Which files' contents are read on which day, when only a share of them is read a day. Pure.

Every LFN has a place on a circle, by its hash; each day the share that follows on yesterday's is read. So 1 % a day
reads every file once in 100 days, whatever files come and go.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import ClassVar, Self

from streams.core.names import shown
from streams.errors import UsageError

_WHOLE = 1_000_000
_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,4}))?%?")
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Sample:
    """So many millionths of the files a day, 1 to 1,000,000."""

    millionths: int
    ALL: ClassVar[Sample]

    @classmethod
    def parse(cls, text: str) -> Self:
        """`1%`, `0.5%`, `20`. Raises UsageError for what is no share, none, or more than all."""
        match = _PERCENT.fullmatch(text.strip())
        millionths = int(match[1] + (match[2] or "").ljust(4, "0")) if match else 0
        if not 0 < millionths <= _WHOLE:
            raise UsageError(f"not a share of the files: {shown(text)!r}", next="use a percentage a day, as 1%")
        return cls(millionths)

    def reads(self, lfn: str, now_ms: int) -> bool:
        """Whether the turn of this file is on the day (UTC) of `now_ms`."""
        place = int.from_bytes(hashlib.blake2b(lfn.encode(), digest_size=8).digest()) % _WHOLE
        return (place - now_ms // _DAY_MS * self.millionths) % _WHOLE < self.millionths


Sample.ALL = Sample(_WHOLE)
