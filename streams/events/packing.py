"""Which compression a file begins with, whatever it holds. Not here: any decoder."""

from __future__ import annotations

import re

HEAD_BYTES = 18
"""Enough of a file's beginning to tell."""

_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    # a frame, or one to be skipped that an encoder puts before it
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
_OTHERS = {
    "lz4": re.compile(rb"\x04\x22\x4d\x18"),
    "lzip": re.compile(rb"LZIP\x01"),
    "compress": re.compile(rb"\x1f\x9d"),
    "7z": re.compile(rb"7z\xbc\xaf\x27\x1c"),
    "rar": re.compile(rb"Rar!\x1a\x07"),
}


def packing_of(first: bytes) -> str | None:
    """The compression that can be unpacked here of what begins like this."""
    return next((kind for kind, magic in _MAGIC.items() if magic.match(first)), None)


def other_packing_of(first: bytes) -> str | None:
    """One that can be named only."""
    return next((kind for kind, magic in _OTHERS.items() if magic.match(first)), None)
