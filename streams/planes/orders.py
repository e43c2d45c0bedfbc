"""What a worker tells its plane, and how orders cross the pipe. An order is never answered: facts are.

An order is pickled behind its length (4 bytes, big-endian); both ends of the pipe are the same program, and nobody else
can write to it. A lost order is owed again by the worker, so the pipe needs no acknowledgement.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import BinaryIO

from streams.core.commands import WriteManifests
from streams.core.keeping.chains import CountedRemoval
from streams.core.names import Dataset, Lfn, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import ChunksRequested, FailedItems, Landed, Reason
from streams.settings import Settings

_LENGTH = struct.Struct(">I")
ORDER_BYTES_MAX = 16 * 1024 * 1024
"""Far above an Open of a full manifest; a longer length means that the pipe is out of step."""


@dataclass(frozen=True, slots=True)
class Start:
    """The first order: who the child is. `incarnation` is this child's own, new at each start."""

    settings: Settings
    writer: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Assign:
    """Payload partitions to read from now on, of every peer's copy and the own topic; replaces the one before.

    The value says where a partition that is new here begins: at a time (ms of the epoch), or None for its end as it
    is now. A partition that is kept goes on where it is. Transfers of other partitions are let go.
    """

    partitions: dict[int, int | None]


@dataclass(frozen=True, slots=True)
class Open:
    """Hold the part files of `attempt`. `verified` is the line's part already written and synced by any plane.

    `manifest` is the framed ManifestWritten, as wire.encode gives it: the child decodes it where it opens the parts.
    """

    manifest_id: ManifestId
    manifest: bytes
    attempt: int
    verified: Ranges
    sealed: Ranges
    failed: Ranges
    repair: bool = False
    """Whether another file under a target is replaced."""
    removed: Ranges = EMPTY
    """Items that landed before and were removed since: they are told as present, and left alone."""
    landed: tuple[Landed, ...] = ()
    """What removed items had become."""
    refused: tuple[FailedItems, ...] = ()
    """Items that may not land: they are told as failed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Delete the parts of a transfer and say PartLost with this reason.

    `manifest`, framed as in Open, names the parts that an earlier plane left where this one never opened the transfer.
    """

    manifest_id: ManifestId
    attempt: int
    reason: Reason
    manifest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """Nobody will ever give these items of an open transfer: the next progress says so."""

    manifest_id: ManifestId
    failed: tuple[FailedItems, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """The transfer is closed: keep nothing of it in memory."""

    manifest_id: ManifestId


@dataclass(frozen=True, slots=True)
class Serve:
    """Send the payload of a request addressed to this site."""

    request: ChunksRequested


@dataclass(frozen=True, slots=True)
class Bring:
    """Have the tool on the link from `source` bring these ranges of a transfer whose parts are open for `attempt`.

    `plane`: as the request named it. Told again until the request is over.
    """

    manifest_id: ManifestId
    source: Site
    request_no: int
    attempt: int
    plane: str
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Write:
    """Write the manifests of an intent whose source is this site."""

    command: WriteManifests


@dataclass(frozen=True, slots=True)
class Expect:
    """Let in, once, the connection that shows this ticket: `source` answers a request by making it."""

    manifest_id: ManifestId
    source: Site
    request_no: int
    ticket: str


@dataclass(frozen=True, slots=True)
class Check:
    """Look at these files and say what is there (ReplicasChecked): `asker` would remove its own.

    `noted_no`: what the site's own chain had come to before. `read_back`: from the first byte to the last, or only size
    and version.
    """

    dataset: Dataset
    asker: Site
    ask_no: int
    ask_sha256: str
    noted_no: int
    lfns: tuple[Lfn, ...]
    read_back: bool = True


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete these files and say so (FilesLost): removals of one step of the site's chain, at one endpoint.

    `ordered_by`: the process of the worker, without which nothing is deleted any more.
    """

    dataset: Dataset
    removals: tuple[CountedRemoval, ...]
    ordered_by: str
    reason: Text


Order = Start | Assign | Open | Stop | Fail | Forget | Serve | Bring | Expect | Write | Check | Remove


def pack(order: Order) -> bytes:
    body = pickle.dumps(order, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def read_order(pipe: BinaryIO) -> object | None:
    """The next order, or None at the end of the pipe. Raises ValueError for one that cannot be read.

    A length out of bounds raises EOFError: what follows cannot be trusted any more.
    """
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > ORDER_BYTES_MAX:
        raise EOFError(f"an order of {length} bytes")
    body = pipe.read(length)
    if len(body) < length:
        return None
    try:
        order: object = pickle.loads(body)
    except Exception as error:
        raise ValueError(f"unreadable order of {length} bytes: {error}") from error
    return order
