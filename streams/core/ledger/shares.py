"""Rows that several ledgers made, each of a share of all partitions, brought into one: their names numbered anew.

A share is the partitions of one remainder by the number of shares. A mirror keeps partitions, so a journal and its
copies are in one share, and so are all words on one stream but what its writer announced. Seals are heard in each,
since trees are held against them; of their rows those of a share count.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from streams.core.ledger.rows import (
    FACT,
    FILE,
    FILE_WORD,
    KEEPING,
    MANIFEST,
    NAME,
    REGISTRATION,
    REPLICA,
    TAGS,
    Names,
    Rows,
)

_NUMBER = struct.Struct(">I")


class Share(NamedTuple):
    """The partitions whose number leaves `no` when divided by `of`."""

    no: int
    of: int

    def __contains__(self, partition: object) -> bool:
        assert isinstance(partition, int)
        return partition % self.of == self.no


def renumbered(rows: Rows, share: Share, names: Names) -> Iterator[tuple[bytes, bytes]]:
    """The rows of a share's ledger, as one with these names has them; rows of names are not among them.

    A number of which they have no name is one that both had before the share was read.
    """
    anew = numbering(rows, names)
    for prefix, rewrite in _REWRITTEN:
        for key, row in rows.scan(prefix):
            yield rewrite(key, row, anew)
    for key, row in rows.scan(TAGS):
        if _NUMBER.unpack_from(key, 1 + 12)[0] in share:
            yield key[:1] + anew(key[1:13]) + key[13:], row


def numbering(rows: Rows, names: Names) -> Anew:
    """Gives numbers of names, each in four bytes, as these names have them."""
    known = {_NUMBER.unpack_from(key, 1)[0]: names.number(row.decode()) for key, row in rows.scan(NAME)}

    def anew(packed: bytes) -> bytes:
        numbers = struct.unpack(f">{len(packed) // 4}I", packed)
        return struct.pack(f">{len(numbers)}I", *(known.get(number, number) for number in numbers))

    return anew


Anew = Callable[[bytes], bytes]


def _fact(key: bytes, row: bytes, anew: Anew) -> tuple[bytes, bytes]:
    """`i HOME UUID SITE TOPIC PARTITION OFFSET`; in the row the writer's life."""
    return key[:1] + anew(key[1:5]) + key[5:21] + anew(key[21:29]) + key[29:], row[:2] + anew(row[2:6]) + row[6:]


def _of_file(key: bytes, row: bytes, anew: Anew) -> tuple[bytes, bytes]:
    """`f NAME w PLACE FILE`: life, dataset and the manifest's home; of a manifest's item each holder."""
    if key[9:10] == FILE_WORD:
        manifest = row[_WORD_BYTES:]
        named = row[:1] + anew(row[1:9]) + row[9:_WORD_BYTES] + anew(manifest[:4]) + manifest[4:]
        return key[:10] + anew(key[10:18]) + key[18:], named
    holders = row[_ITEM_BYTES:]
    some = [holders[at : at + 1] + anew(holders[at + 1 : at + 5]) for at in range(0, len(holders), 5)]
    return key, row[:_ITEM_BYTES] + b"".join(some)


def _written(key: bytes, row: bytes, anew: Anew) -> tuple[bytes, bytes]:
    """`m CONTENT PLACE`: in the row a time, then the manifest, which begins with its home."""
    return key[:9] + anew(key[9:17]) + key[17:], row[:8] + anew(row[8:12]) + row[12:]


def _registered(key: bytes, row: bytes, anew: Anew) -> tuple[bytes, bytes]:
    """`r PLACE`: life and dataset."""
    return key[:1] + anew(key[1:9]) + key[9:], anew(row)


def _kept(key: bytes, row: bytes, anew: Anew) -> tuple[bytes, bytes]:
    """`k DATASET PLACE`, and `h` likewise: in the row the writer's life."""
    return key[:1] + anew(key[1:13]) + key[13:], row[:2] + anew(row[2:6]) + row[6:]


_WORD_BYTES = struct.calcsize(">BIIQIq")
_ITEM_BYTES = struct.calcsize(">BQq")
_REWRITTEN = (
    (FACT, _fact),
    (FILE, _of_file),
    (MANIFEST, _written),
    (REGISTRATION, _registered),
    (KEEPING, _kept),
    (REPLICA, _kept),
)
