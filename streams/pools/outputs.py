"""What a command wrote, as a file of the site: placed once under the range's name, booked, and only then confirmed.

A crash leaves: nothing; the file, which whoever comes next finds and books; the file and its booking, which is said
again. In none of these is there a second file.
"""

from __future__ import annotations

import os
import stat

from streams.core import records as m
from streams.core.names import Adler32, Lfn, Site
from streams.core.readers.ranges import Meant
from streams.core.readers.shared import Hand
from streams.core.selections import parts
from streams.errors import StorageError, Temporary
from streams.storage.endpoint import Endpoint, FileMissing, PlacedFile

PASSING = ("transient", "quota", "auth")
"""Failures of the storage that are this machine's or this hour's, and not the range's."""


def find(store: Endpoint, lfn: Lfn) -> PlacedFile | None:
    """A range's output that somebody placed, None where nobody did. Raises as `place` does."""
    try:
        seen = store.stat(lfn)
        return PlacedFile(lfn, seen.bytes, store.checksum(lfn, seen.version), seen.version, "already")
    except FileMissing:
        return None
    except StorageError as error:
        raise _told(error) from error


def place(store: Endpoint, lfn: Lfn, path: str) -> PlacedFile:
    """A copy, for whatever the command left running may still write the file. Who comes second takes what is there.

    Raises StorageError (permanent) where the name cannot be had, Temporary where the storage may have it later.
    """
    try:
        return store.place(lfn, path, link=False)
    except StorageError as error:
        if error.failure_class not in PASSING and (found := find(store, lfn)) is not None:
            return found
        raise _told(error) from error


def _told(error: StorageError) -> StorageError | Temporary:
    if error.failure_class in PASSING:
        return Temporary(error.what, error.where, error.next)
    return error


def fault_of(path: str, *, allow_empty: bool) -> str | None:
    """Why a command's output is none, None where it is one."""
    try:
        seen = os.lstat(path)
    except FileNotFoundError:
        return "wrote nothing"
    if not stat.S_ISREG(seen.st_mode):
        return "wrote something that is no regular file"
    return None if seen.st_size or allow_empty else "wrote an empty file"


def booking(site: Site, hand: Hand, of: Meant, output: PlacedFile) -> m.FilesHeld:
    item = hand.row.manifest.items[hand.part.item]
    dataset, block = parts.filed(item.block)
    adler32 = Adler32(output.adler32)
    file = m.HeldFile(Lfn(output.lfn), block, output.bytes, adler32, output.version, of.lfn, of.selection)
    return m.FilesHeld(dataset, site, (file,))
