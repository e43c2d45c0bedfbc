"""How much of an archive is believed, each limit with its reason, and the words when it is not. No format is known."""

from __future__ import annotations

from streams.core.names import shown
from streams.errors import StorageError, data_bad, permanent
from streams.events.checked_file import NOT_SUPPORTED

MEMBERS_MAX = 100_000
"""Of one archive: their table is held in memory, about 400 bytes for each."""

TABLE_BYTES_MAX = 64 << 20
"""Of a zip archive's table, which is read at once: 100,000 members with names of 500 characters."""

SCRATCH_BYTES_MAX = 8 << 30
"""Of all that is kept unpacked at once, and so of one compressed tar archive or one compressed zip member."""

RATIO_MAX = 250
"""Unpacked to packed bytes: text and tables stay below 100, what is made to fill disks reaches 1,000 and more."""

RATIO_FREE_BYTES = 16 << 20
"""Up to this size any ratio goes: a histogram of zeros is no bomb."""


def ratio_max(packed_bytes: int) -> int:
    """The most that so many packed bytes may become without being a bomb."""
    return max(RATIO_FREE_BYTES, RATIO_MAX * packed_bytes)


def unpacked_max(packed_bytes: int) -> int:
    """The most that so many packed bytes may become where the whole must be kept unpacked."""
    return min(SCRATCH_BYTES_MAX, ratio_max(packed_bytes))


def bomb(what: str, packed_bytes: int, most: int, where: str) -> StorageError:
    """For what would become more than `most` bytes."""
    why = f"{what} would become more than {most:,} bytes from {packed_bytes:,}"
    return permanent(why, where, "unpack it yourself and register the files")


def member_name(name: str) -> str:
    """As it is asked for: without the `./` that tar puts before names."""
    while name.startswith("./"):
        name = name[2:]
    return name


def refused(why: str, name: str, path: str) -> StorageError:
    """A member that is there and cannot travel."""
    return permanent(f"the member {shown(name)!r} cannot travel: {why}", path, "name others")


def missing_ability(what: str) -> str:
    """The fault of a member that may be whole and that is not read here."""
    return f"{NOT_SUPPORTED}{what}"


def damaged(why: str, path: str) -> StorageError:
    """Bytes that cannot be right; another source may have them whole."""
    return data_bad(why, path, "fetch it again from its source")
