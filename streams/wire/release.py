"""Which release of the product this is: a number, said in a header of every announcement.

A header, since an older gate passes those it does not know; a new field of the record it would refuse every 10 s.
"""

from __future__ import annotations

from collections.abc import Iterable

RELEASE = 8
"""Raised when sites of this release and of the one before should not run beside each other for long."""
UNTOLD = 1
"""That of a writer that says none: the first one did not."""
DIALS_SINCE = 6
"""A plane of this release without a door connects to the door that a request names."""
HEADER = "t2g-release"
_DIGITS_MAX = 9


def header() -> tuple[str, bytes]:
    return HEADER, b"%d" % RELEASE


def release_of(headers: Iterable[tuple[str, bytes | None]] | None) -> int:
    """The release in a record's headers; UNTOLD where there is none, or none that is a number."""
    for name, value in headers or ():
        if name == HEADER and value is not None and value.isdigit() and len(value) <= _DIGITS_MAX:
            return int(value)
    return UNTOLD
