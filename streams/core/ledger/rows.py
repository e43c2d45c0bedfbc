"""Where the ledger's facts lie: rows under keys that bring together what belongs together, read back by a scan.

    N NUMBER                                  a name: of a site, a topic, a writer's life, a dataset
    i INTENT PLACE                            a fact of an intent, its manifests and transfers (facts.py)
    f NAME w PLACE FILE                       a site's word on a file: held or lost (files.py)
    f NAME i CONTENT ITEM, f NAME t …         a manifest that brings the file, or has it land under this name
    m CONTENT PLACE                           a manifest as it was written: which it is, and when
    r PLACE                                   a registration: who wrote it, of which dataset
    k DATASET PLACE                           a step of keeping, a look or a removal's end (keeping_facts.py)
    h DATASET PLACE                           files that a site says it holds of a dataset
    t STREAM PAGE CUT                         what numbers of a writer stand for (tags.py)
    v INTENT                                  what was made of an intent that has ended (verdicts.py)

Rows are put and never changed: the same fact again is the same row, so that a record that is read twice counts once.
Numbers in keys are big-endian, so that rows of a partition stand in its order. No `hash()` of Python is in any of them,
since it differs from one process to the next; `salt` keys all hashes, so that nobody can foresee them.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

from streams.core import records as m
from streams.core.ledger.findings import LogPosition
from streams.core.names import Dataset, IntentId, ManifestId, Site

FACT, FILE, MANIFEST, REGISTRATION, VERDICT, TAGS, NAME = b"i", b"f", b"m", b"r", b"v", b"t", b"N"
KEEPING, REPLICA = b"k", b"h"
_NUMBER = struct.Struct(">I")
_PLACE = struct.Struct(">IIIQ")
_STREAM = struct.Struct(">IIII")
_TRANSFER = struct.Struct(">II")
INTENT_BYTES = 4 + 16
PLACE_BYTES = _PLACE.size
DATASET_BYTES = _NUMBER.size
_PARTITION_BYTES = 12
FILE_WORD = b"w"
REMEMBERED = 4096
_HASH = struct.Struct(">Q")
_PLACE_AT = (
    (FACT, b"", 1 + INTENT_BYTES),
    (MANIFEST, b"", 1 + 8),
    (REGISTRATION, b"", 1),
    (KEEPING, b"", 1 + DATASET_BYTES),
    (REPLICA, b"", 1 + DATASET_BYTES),
    (FILE, FILE_WORD, 1 + 8 + 1),
)
"""Rows with the place of their record in the key: prefix, what stands before the place, and where it begins."""


class Rows(Protocol):
    """`put` may keep rows back for a while, but `scan` gives all that was put before it, by ascending key."""

    def put(self, key: bytes, row: bytes) -> None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class MemoryRows:
    """Rows of a small ledger."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []

    def put(self, key: bytes, row: bytes) -> None:
        self._rows[key] = row

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        if len(self._keys) != len(self._rows):
            self._keys = sorted(self._rows)
        keys = self._keys
        for at in range(bisect_left(keys, prefix), len(keys)):
            key = keys[at]
            if not key.startswith(prefix):
                return
            yield key, self._rows[key]


class Names:
    """Small numbers for names that many rows say. A number is in the rows before any row that says it."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._names: list[str] = [row.decode() for _, row in rows.scan(NAME)]
        self._numbers = {name: number for number, name in enumerate(self._names)}

    def number(self, name: str) -> int:
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self._names)
            self._names.append(name)
            self._rows.put(NAME + _NUMBER.pack(found), name.encode())
        return found

    def name(self, number: int) -> str:
        return self._names[number]

    def known(self, name: str) -> int | None:
        """Its number, if any row can say it."""
        return self._numbers.get(name)


class Codec:
    """Places, intents and hashes as rows have them. `salt`: at most 64 bytes.

    Records that follow each other say the same: what they said last is remembered, `REMEMBERED` of each kind.
    """

    def __init__(self, names: Names, salt: bytes) -> None:
        self.names = names
        self._hashing = blake2b(digest_size=8, key=salt)
        self._sites: dict[int, Site] = {}
        self._partitions: dict[tuple[Site, str, int], bytes] = {}
        self.file: Callable[[str], int] = lru_cache(REMEMBERED)(self._file)
        """The hash of a file's name."""
        self.intent: Callable[[str], bytes] = lru_cache(REMEMBERED)(self._intent)

    def content(self, data: bytes | None) -> int:
        """64 bits that nobody can foresee; of no value those of an empty one."""
        hashing = self._hashing.copy()
        hashing.update(data or b"")
        return _HASH.unpack(hashing.digest())[0]  # type: ignore[no-any-return]

    def _file(self, name: str) -> int:
        return self.content(name.encode())

    def number_of(self, leaf: bytes) -> int:
        """What tells two records of one number apart."""
        return self.content(leaf)

    def life(self, origin: m.Origin) -> int:
        """Of a writer's incarnation."""
        return self.names.number(f"{origin.incarnation}\0{origin.writer}")

    def life_of(self, number: int) -> tuple[str, str]:
        """Incarnation and writer."""
        incarnation, _, writer = self.names.name(number).partition("\0")
        return incarnation, writer

    def stream(self, stream: tuple[str, str, str, int], writer: str) -> bytes:
        """Of (site, incarnation, topic, partition)."""
        site, incarnation, topic, partition = stream
        number = self.names.number
        return _STREAM.pack(number(site), number(f"{incarnation}\0{writer}"), number(topic), partition)

    def site(self, number: int) -> Site:
        found = self._sites.get(number)
        if found is None:
            found = self._sites[number] = Site(self.names.name(number))
        return found

    def place(self, place: LogPosition) -> bytes:
        partition = self._partitions.get(place[:3])
        if partition is None:
            partition = self._partitions[place[:3]] = self.partition(*place[:3])
        return partition + place.offset.to_bytes(8, "big")

    def partition(self, site: Site, topic: str, partition: int) -> bytes:
        """How the places of a partition begin."""
        number = self.names.number
        return _PLACE.pack(number(site), number(topic), partition, 0)[:_PARTITION_BYTES]

    def place_of(self, packed: bytes) -> LogPosition:
        site, topic, partition, offset = _PLACE.unpack(packed)
        return LogPosition(self.site(site), self.names.name(topic), partition, offset)

    def dataset(self, dataset: str) -> bytes:
        return _NUMBER.pack(self.names.number(dataset))

    def dataset_of(self, packed: bytes) -> Dataset:
        return Dataset(self.names.name(*_NUMBER.unpack(packed)))

    def _intent(self, intent: str) -> bytes:
        home, _, uuid = intent.partition(".")
        return _NUMBER.pack(self.names.number(home)) + bytes.fromhex(uuid.replace("-", ""))

    def known_intent(self, intent: str) -> bytes | None:
        """The same, None where no row is of its home."""
        return None if self.names.known(intent.partition(".")[0]) is None else self.intent(intent)

    def intent_of(self, packed: bytes) -> IntentId:
        (home,), uuid = _NUMBER.unpack_from(packed), packed[4:INTENT_BYTES].hex()
        parts = (uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:])
        return IntentId(f"{self.names.name(home)}.{'-'.join(parts)}")

    def manifest(self, manifest: ManifestId) -> bytes:
        intent, source_no, no = manifest.rsplit(".", 2)
        return self.intent(intent) + _TRANSFER.pack(int(source_no), int(no))

    def manifest_of(self, packed: bytes) -> ManifestId:
        source_no, no = _TRANSFER.unpack_from(packed, INTENT_BYTES)
        return ManifestId.of(self.intent_of(packed), source_no, no)


def beyond(rows: Rows, ends: Mapping[bytes, int], cut: int) -> Iterator[bytes]:
    """Keys of rows of records behind the end of their partition, of tags put since `cut`, and of all verdicts.

    What a manifest brings is left: without a row of the manifest it says nothing.
    """
    for prefix, kind, at in _PLACE_AT:
        for key, _ in rows.scan(prefix):
            partition, offset = key[at : at + _PARTITION_BYTES], key[at + _PARTITION_BYTES : at + PLACE_BYTES]
            if key[at - len(kind) : at] == kind and int.from_bytes(offset, "big") >= ends.get(partition, 0):
                yield key
    for key, _ in rows.scan(TAGS):
        if int.from_bytes(key[-4:], "big") >= cut:
            yield key
    for key, _ in rows.scan(VERDICT):
        yield key
