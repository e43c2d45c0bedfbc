"""What single fields and sets of items must be: a line that names the field, or None. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from streams.core.ranges import EMPTY, Ranges
from streams.core.records.values import FailedItems, Landed

PRIORITY_MAX = 9
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORD_CHARS_MAX = 128
_TICKET = re.compile(r"[A-Za-z0-9_-]{20,100}")
_ENDPOINT = re.compile(r"(?:[A-Za-z][A-Za-z0-9_-]{0,63})?")
_HTTP = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(?:/[A-Za-z0-9._/-]*)?")
_URL = re.compile(
    r"https?://[A-Za-z0-9.\[\]:_-]+/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*(?:\?[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)?"
)
_URL_CHARS_MAX = 4096
_HOST_PATTERN = re.compile(r"(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_ETAG = re.compile(r"[!#-~]{0,128}")
_BEARER = re.compile(r"(?:[A-Za-z0-9._~+/-]{1,4096}={0,4})?")


def word(name: str, text: str) -> str | None:
    return None if 0 < len(text) <= _WORD_CHARS_MAX else f"{name}: must have 1 to {_WORD_CHARS_MAX} characters"


def is_ticket(text: str) -> bool:
    return _TICKET.fullmatch(text) is not None


def words(name: str, texts: Collection[str], most: int) -> str | None:
    """What says that a file is at a place: at least one, each once."""
    return some(name, texts, most) or next((why for text in texts if (why := word(name, text))), None)


def endpoint(name: str, text: str) -> str | None:
    """A name of a site's endpoint; "" is the default one."""
    return None if _ENDPOINT.fullmatch(text) else f"{name}: not a letter, then at most 63 letters, digits, _ or -"


def is_http(address: str) -> bool:
    return _HTTP.fullmatch(address) is not None


def is_url(address: str) -> bool:
    """Of one file: with a path, maybe with a query, which may hold what opens it."""
    return len(address) <= _URL_CHARS_MAX and _URL.fullmatch(address) is not None


def is_host_pattern(text: str) -> bool:
    """HOST, or *.DOMAIN for all below it."""
    return _HOST_PATTERN.fullmatch(text) is not None


def is_etag(text: str) -> bool:
    """Without its quotes; "" for none."""
    return _ETAG.fullmatch(text) is not None


def is_bearer(text: str) -> bool:
    """As RFC 6750 has tokens; "" for none."""
    return _BEARER.fullmatch(text) is not None


def priority(number: int) -> str | None:
    return None if 0 <= number <= PRIORITY_MAX else f"priority: {number} is not in 0…{PRIORITY_MAX}"


def from_one(name: str, number: int) -> str | None:
    return None if number >= 1 else f"{name}: {number} is not at least 1"


def sha256(name: str, text: str) -> str | None:
    return None if _SHA256.fullmatch(text) else f"{name}: not 64 lower-case hex digits"


def some(name: str, values: Iterable[object], most: int) -> str | None:
    """At least one, at most `most`, each once."""
    listed = list(values)
    if not 1 <= len(listed) <= most:
        return f"{name}: {len(listed)} given, must be 1 to {most}"
    return None if len(set(listed)) == len(listed) else f"{name}: one is named twice"


def within(name: str, ranges: Ranges, stop: int) -> str | None:
    """Bounded, so that nobody ever counts through a range of 2^60 items."""
    over = ranges.spans and ranges.spans[-1][1] > stop
    return f"{name}: {ranges.spans[-1][1] - 1} is past the last, {stop - 1}" if over else None


def apart(items: int, named: Iterable[tuple[str, Ranges]], failed: tuple[FailedItems, ...]) -> str | None:
    """Item sets that lie within a manifest of `items` and share no item."""
    seen = EMPTY
    further = [(f"failed[{n}].items", f.items) for n, f in enumerate(failed)] if failed else ()
    for name, ranges in (*named, *further):
        if not ranges:
            continue
        if (why := within(name, ranges, items)) is not None:
            return why
        if seen and seen & ranges:
            return f"{name}: an item is named twice"
        seen |= ranges
    empty = next((n for n, f in enumerate(failed) if not f.items), None) if failed else None
    return None if empty is None else f"failed[{empty}].items: empty"


def in_order(landed: tuple[Landed, ...], sealed: Ranges) -> str | None:
    items = [one.item for one in landed]
    if items != sorted(set(items)):
        return "landed: not in the order of the items, each once"
    strange = next((item for item in items if item not in sealed), None)
    return None if strange is None else f"landed: item {strange} is not sealed"
