"""Which dark files may be set aside: those that a check of a week ago saw already, as they are now. Pure.

What was seen is noted beside the files, in the endpoint's own room: it is of this disk, wherever it is mounted and
whoever checks it; of another disk that is mounted in its place nothing was seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

SEEN = "dark-files.jsonl"
"""Among what the endpoint keeps for itself."""
SEEN_FOR_MS = 7 * 24 * 3600 * 1000
SHARE_MAX = 0.05
"""Of the names on a disk: where more look dark, the catalogue or the place is likelier wrong than they."""
NOTED_MAX = 100_000
"""Dark files that are noted, some 20 MB of memory: the rest begins its week when these are gone."""


class Seen(NamedTuple):
    """A dark file as it was seen: since when (ms of the epoch), and its version."""

    since_ms: int
    version: str


def parse(content: bytes | None) -> dict[str, Seen]:
    """By path. A line that is none is passed over: its file is new again."""
    found: dict[str, Seen] = {}
    for line in (content or b"").splitlines()[:NOTED_MAX]:
        with suppress(ValueError, TypeError):
            since_ms, version, path = json.loads(line)
            if isinstance(since_ms, int) and isinstance(version, str) and isinstance(path, str):
                found[path] = Seen(since_ms, version)
    return found


def packed(seen: Mapping[str, Seen]) -> bytes:
    return b"".join(json.dumps([*one, path]).encode() + b"\n" for path, one in sorted(seen.items()))


def seen_since(before: Mapping[str, Seen], path: str, version: str, now_ms: int) -> int:
    """Since when a dark file has been seen as it is now. What a wrong clock dated is new."""
    known = before.get(path)
    return known.since_ms if known is not None and known.version == version and known.since_ms <= now_ms else now_ms


def is_due(since_ms: int, now_ms: int) -> bool:
    return now_ms - since_ms >= SEEN_FOR_MS


def too_many(dark: int, names: int) -> bool:
    """`names`: all that were met on the disk."""
    return dark > SHARE_MAX * names
