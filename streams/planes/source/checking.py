"""Looking at files that would be removed: what is there is said as a fact. It promises nothing.

Who answers another site reads each from its first byte to its last; who would remove his own looks at size and version.
"""

from __future__ import annotations

from collections.abc import Iterator

from streams.core.names import Adler32, Lfn, Site, Text, shown
from streams.core.records import CheckedFile, KeptFile, ReplicasChecked, SeenFile
from streams.errors import StorageError
from streams.planes.orders import Check
from streams.storage.endpoint import ReadableStorage

_REASON_CHARS = 390


def checked(here: Site, storage: ReadableStorage, order: Check) -> ReplicasChecked:
    """What is there of the files of an order."""
    found, seen, missing = list[CheckedFile](), list[SeenFile](), list[KeptFile]()
    for one in _each(storage, order):
        match one:
            case CheckedFile():
                found.append(one)
            case SeenFile():
                seen.append(one)
            case KeptFile():
                missing.append(one)
    ask = (order.asker, order.ask_no, order.ask_sha256, order.noted_no)
    return ReplicasChecked(here, order.dataset, *ask, tuple(found), tuple(missing), tuple(seen))


def _each(storage: ReadableStorage, order: Check) -> Iterator[CheckedFile | SeenFile | KeptFile]:
    for lfn in order.lfns:
        try:
            yield _look(storage, lfn, read_back=order.read_back)
        except StorageError as error:
            # Where this site keeps its files is nobody else's business.
            yield KeptFile(lfn, Text(shown(error.what, _REASON_CHARS)))


def _look(storage: ReadableStorage, lfn: Lfn, *, read_back: bool) -> CheckedFile | SeenFile:
    stat = storage.stat(lfn)
    if not read_back:
        return SeenFile(lfn, stat.bytes, stat.version)
    # Of this very version: a file that changes meanwhile is none that could be promised.
    return CheckedFile(lfn, stat.bytes, Adler32(storage.checksum(lfn, stat.version)), stat.version)
