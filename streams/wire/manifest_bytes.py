"""A manifest read from its Avro bytes without making its items: what its chain needs, sums, datasets, its digest.

A fifth of what the gate needs, for who only counts; the gate of the site's agents hears the same record and judges it
whole. Read is the one way in which fastavro writes it (one block of items); anything else is a ValueError.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from streams.core.chain import Link
from streams.core.names import Dataset, IntentId, Site
from streams.core.policy import OTHERS_MAX
from streams.core.records import Unit
from streams.core.varint import varint

_NAMES = ("lfn", "dataset", "block", "target", "selection")
ITEMS_MAX = 100_000
"""Far over what the gate lets through; a count that lies ends the reading before it costs much."""


class Outline(NamedTuple):
    """A manifest's link, and the datasets of its files by name."""

    link: Link
    datasets: tuple[str, ...]


def read(framed: bytes, start: int, place: str = "") -> Outline:
    """The outline of the ManifestWritten (schema id 1342177322) whose Avro begins at `start`.

    Raises ValueError or IndexError when these bytes are none, InvalidName for a head's name that is not legal.
    """
    intent, at = _bytes(framed, start)
    source, at = _bytes(framed, at)
    source_no, at = long(framed, at)
    no, at = long(framed, at)
    prev, at = _bytes(framed, at)
    cursor, at = _bytes(framed, at)
    unit, at = _bytes(framed, at)
    count, at = long(framed, at)
    if count > ITEMS_MAX:
        raise ValueError(f"{count} items")
    lines: list[bytes] = []
    datasets: set[bytes] = set()
    units, size, at = _items(framed, at, count, lines, datasets)
    if count:
        end, at = long(framed, at)
        if end:
            raise ValueError("more than one block of items")
    last = framed[at]
    if at + 1 != len(framed) or last > 1:
        raise ValueError("bytes left over")
    words = (intent, source, b"%d" % source_no, b"%d" % no, prev, unit, b"True" if last else b"False")
    link = Link(
        IntentId(intent.decode()),
        Site(source.decode()),
        source_no,
        no,
        prev.decode("ascii"),
        hashlib.sha256(b"\n".join((b"\t".join(words), *lines))).hexdigest(),
        cursor.decode("ascii"),
        bool(last),
        count,
        size,
        units,
        place,
    )
    Unit(unit.decode())
    return Outline(link, tuple(sorted(str(Dataset(name.decode())) for name in datasets)))


def _items(b: bytes, at: int, count: int, lines: list[bytes], datasets: set[bytes]) -> tuple[int, int, int]:
    """(units, bytes, where the array goes on); adds each item's line of the digest.

    Written out, since a call for each of a thousand items' eleven fields would double the time; short lengths, which
    are nearly all, take the branch without a call.
    """
    units = size = 0
    for _ in range(count):
        names = []
        odd = 0
        for _ in _NAMES:
            n = b[at]
            at += 1
            if n > 127:
                n, at = varint(b, at - 1)
            names.append(b[at : (at := at + (n >> 1))])
            odd |= n
        length = shift = 0
        while (n := b[at]) > 127:
            length |= (n & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of over 64 bits")
            at += 1
        length |= n << shift
        at += 1
        bytes_ = shift = 0
        while (n := b[at]) > 127:
            bytes_ |= (n & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of over 64 bits")
            at += 1
        bytes_ |= n << shift
        at += 1
        adler32, at = _optional(b, at)
        n = b[at]
        at += 1
        if n > 127:
            n, at = varint(b, at - 1)
        version = b[at : (at := at + (n >> 1))]
        if (odd | n | length | bytes_) & 1:
            raise ValueError("a negative number")
        holder, at = _optional(b, at)
        why = b""
        if b[at]:
            why, at = _reason(b, at)
        else:
            at += 1
        if b[at]:
            at = _behind_others(b, at)
        else:
            at += 1
        units += length >> 1
        size += bytes_ >> 1
        datasets.add(names[1])
        words = (b"%d" % (length >> 1), b"%d" % (bytes_ >> 1), adler32, version, holder, why)
        lines.append(b"\t".join((*names, *words)))
    return units, size, at


def _behind_others(b: bytes, at: int) -> int:
    """Where the next item begins: other holders are no part of the digest."""
    count, at = long(b, at)
    if count > OTHERS_MAX:
        raise ValueError(f"{count} other holders")
    for _ in range(count):
        _, at = _bytes(b, at)
    end, at = long(b, at)
    if end:
        raise ValueError("more than one block of other holders")
    return at


def _reason(b: bytes, at: int) -> tuple[bytes, int]:
    if b[at] != 2:
        raise ValueError("no such branch")
    at += 1
    words = []
    for _ in range(4):
        word, at = _bytes(b, at)
        words.append(word)
    return b"/".join(words), at


def _optional(b: bytes, at: int) -> tuple[bytes, int]:
    """A union of null and string, as the digest has it: "-" for null or nothing."""
    branch = b[at]
    if branch == 0:
        return b"-", at + 1
    if branch != 2:
        raise ValueError("no such branch")
    n = b[at + 1]
    at += 2
    if n > 127:
        n, at = varint(b, at - 1)
    if n & 1:
        raise ValueError("a negative length")
    return b[at : at + (n >> 1)] or b"-", at + (n >> 1)


def _bytes(b: bytes, at: int) -> tuple[bytes, int]:
    n, at = varint(b, at)
    if n & 1:
        raise ValueError("a negative length")
    end = at + (n >> 1)
    if end > len(b):
        raise ValueError("cut off")
    return b[at:end], end


def long(b: bytes, at: int) -> tuple[int, int]:
    """(number, position behind it) of a long ≥ 0."""
    n, at = varint(b, at)
    if n & 1:
        raise ValueError("a negative number")
    return n >> 1, at
