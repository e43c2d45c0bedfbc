"""Every fact that can be heard, as frozen values (union `Message`). No behaviour, no bytes: gate.py encodes them.

Field names, order and meaning are those of `schemas/*.avsc`; a class's name is its schema's name. Times are
milliseconds of the Unix epoch (`_ms`); positions and ranges are in a manifest's unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from streams.core.names import Adler32, Block, Dataset, Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.ranges import Ranges
from streams.core.selectors import Selector


class Verdict(StrEnum):
    """What a home decides on an intent, and a destination on one of its transfers."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class Asked(StrEnum):
    CANCEL = "cancel"
    PRIORITY = "priority"
    CLOSE = "close"
    """An open intent takes nothing more."""


class Unit(StrEnum):
    BYTES = "bytes"
    ENTRIES = "entries"


class Ended(StrEnum):
    """How a transfer ended."""

    DONE = "done"
    PARTLY = "partly"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class Scope(StrEnum):
    SOURCE = "source"
    DESTINATION = "destination"
    NETWORK = "network"
    AGENT = "agent"
    POLICY = "policy"


class FailureClass(StrEnum):
    TRANSIENT = "transient"
    PERMANENT = "permanent"
    DATA_BAD = "data-bad"
    QUOTA = "quota"
    AUTH = "auth"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who wrote a record and its place in the writer's own count; travels in a header, preserved by mirrors."""

    site: Site
    writer: str
    incarnation: str
    seq: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something failed or was refused: scope × class × phase, and words for who asked."""

    scope: Scope
    failure_class: FailureClass
    phase: str
    text: Text


@dataclass(frozen=True, slots=True)
class FailedItems:
    """Item numbers of a manifest that share one reason."""

    items: Ranges
    reason: Reason


@dataclass(frozen=True, slots=True)
class TransferIntent:
    """A producer's wish. `priority` 0…9, higher first; the same intent id with the same body changes nothing.

    `selection` is a part of each file, in the words of core/selections/parts.py; `format` what entries land as. An
    `open` intent takes what is registered later, until one of `until_…` or a close.
    """

    intent: IntentId
    requester: Text
    selectors: tuple[Selector, ...]
    destinations: tuple[Destination, ...]
    source: Site | None = None
    priority: int = 5
    deadline_ms: int | None = None
    selection: str | None = None
    format: str | None = None
    open: bool = False
    until_ms: int | None = None
    until_items: int | None = None


@dataclass(frozen=True, slots=True)
class IntentAsked:
    intent: IntentId
    asked: Asked
    asked_by: Text
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class IntentDecided:
    """The home's word; the highest `decision_no` wins. `source` writes the manifests of `source_no`."""

    intent: IntentId
    decision_no: int
    verdict: Verdict
    body: TransferIntent
    source: Site | None
    source_no: int
    priority: int
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to move: `length` in the manifest's unit, `target` the LFN it lands under, `holder` whom to ask.

    `version` is opaque and binds only the holder that wrote it ("" when another site wrote the manifest).
    `selection` is empty for a whole file. An item nobody holds has a `reason`, and length 0.
    """

    lfn: Lfn
    dataset: Dataset
    block: Block
    target: Lfn
    selection: str
    length: int
    bytes: int
    adler32: Adler32 | None
    version: str
    holder: Site | None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class ManifestWritten:
    """Items of an intent, laid end to end. `prev_sha256` chains to manifest `no - 1` of the same `source_no`."""

    intent: IntentId
    source: Site
    source_no: int
    no: int
    prev_sha256: str
    cursor: str
    unit: Unit
    items: tuple[Item, ...]
    last: bool

    @property
    def manifest(self) -> ManifestId:
        return ManifestId.of(self.intent, self.source_no, self.no)


@dataclass(frozen=True, slots=True)
class TransferPlanned:
    manifest: ManifestId
    destination: Destination
    decision_no: int
    priority: int
    body: ManifestWritten


@dataclass(frozen=True, slots=True)
class TransferDecided:
    manifest: ManifestId
    decision_no: int
    verdict: Verdict
    priority: int
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Landed:
    """The file that an item of entries became; its manifest could not know."""

    item: int
    bytes: int
    adler32: Adler32


@dataclass(frozen=True, slots=True)
class PartOpened:
    """The plane holds the part files of `attempt`; `present` items were found whole at the destination."""

    manifest: ManifestId
    attempt: int
    endpoint: str
    present: Ranges
    failed: tuple[FailedItems, ...] = ()
    landed: tuple[Landed, ...] = ()


@dataclass(frozen=True, slots=True)
class PartLost:
    """The part files of `attempt` are gone for good (or were dropped after a cancellation)."""

    manifest: ManifestId
    attempt: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    manifest: ManifestId
    source: Site
    request_no: int


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """A source said that it cannot read now what it was asked for. `plane`: the carrier by which it was asked.

    No `items`: nothing more comes of request `request_no`, and of no other. With `items` (numbers within the manifest):
    these cannot be had there now, and the rest of the request goes on. `at_ms`: when the destination's plane heard it,
    by its clock; the source may be asked again after a back-off read from it.
    """

    manifest: ManifestId
    source: Site
    request_no: int
    plane: str
    items: Ranges
    reason: Reason
    at_ms: int


@dataclass(frozen=True, slots=True)
class RequestedItem:
    """What a source needs to serve an item's part: where it starts on the manifest's line, and which version."""

    no: int
    lfn: Lfn
    start: int
    length: int
    version: str
    selection: str = ""


@dataclass(frozen=True, slots=True)
class ChunksRequested:
    manifest: ManifestId
    destination: Destination
    source: Site
    request_no: int
    attempt: int
    plane: str
    items: tuple[RequestedItem, ...]
    ranges: Ranges
    until_ms: int
    capability: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of a chunk inside one item. `offset` in the item; `size` bytes in the payload; crc32c, or a reason.

    crc32c is an unsigned 32-bit number carried as a long.
    """

    item: int
    offset: int
    length: int
    size: int
    crc32c: int | None
    reason: Reason | None = None
    fingerprint: str = ""
    """Of the schema of entries; "" for bytes."""


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """Header `t2g-chunk` of a payload record whose value is the segments' bytes, end to end."""

    manifest: ManifestId
    destination: Destination
    request_no: int
    start: int
    stop: int
    segments: tuple[Segment, ...]
    last: bool
    """Whether this is the final record of the request, so that the plane may sync at once."""


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """Ranges written *and synced*, items sealed under their final names, items that cannot arrive."""

    manifest: ManifestId
    destination: Destination
    attempt: int
    endpoint: str
    verified: Ranges
    sealed: Ranges
    failed: tuple[FailedItems, ...] = ()
    landed: tuple[Landed, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunksServed:
    manifest: ManifestId
    source: Site
    destination: Destination
    request_no: int
    ranges: Ranges
    bytes: int


@dataclass(frozen=True, slots=True)
class TransferReported:
    """A transfer's state in numbers, for its intent. `verified` and `total` in units; `sealed`, `failed` in items."""

    intent: IntentId
    manifest: ManifestId
    destination: Destination
    decision_no: int
    state: str
    verified: int
    total: int
    sealed: int
    failed: int
    items: int
    waits_for: Text
    reason: Reason | None = None
    unit: Unit = Unit.BYTES


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """The destination's last word: a pure function of the closed row, so that it can be published again, byte-equal."""

    intent: IntentId
    manifest: ManifestId
    destination: Destination
    ended: Ended
    items: int
    sealed: Ranges
    failed: tuple[FailedItems, ...]
    cancelled: Ranges
    bytes: int
    manifest_sha256: str
    landed: tuple[Landed, ...] = ()


@dataclass(frozen=True, slots=True)
class TransferClosed:
    """The last word of a transfer, kept so that a closed row can say it again.

    `acknowledged`: completion and replicas are in the log. False fixes the last word before it is published: the
    first that is heard of a manifest counts, whatever its plane still says.
    """

    manifest: ManifestId
    completion: CompletionRecord
    acknowledged: bool = True


@dataclass(frozen=True, slots=True)
class HeldFile:
    lfn: Lfn
    block: Block
    bytes: int
    adler32: Adler32
    version: str
    part_of: Lfn | None = None
    selection: str | None = None


@dataclass(frozen=True, slots=True)
class FilesHeld:
    """Replicas at `site`; `manifest` names the transfer that brought them, none for a registration."""

    dataset: Dataset
    site: Site
    files: tuple[HeldFile, ...]
    manifest: ManifestId | None = None


@dataclass(frozen=True, slots=True)
class FilesLost:
    dataset: Dataset
    site: Site
    lfns: tuple[Lfn, ...]
    reason: Reason


@dataclass(frozen=True, slots=True)
class LastSequence:
    topic: str
    partition: int
    seq: int


@dataclass(frozen=True, slots=True)
class SiteAnnounced:
    """A writer of a site is alive or, `closing`, says its last numbers. `api` is its http address, "" if none."""

    site: Site
    writer: str
    incarnation: str
    role: str
    api: str
    registry_digest: str
    peers: tuple[Site, ...]
    endpoints: tuple[str, ...]
    every_s: int
    closing: bool
    sequences: tuple[LastSequence, ...]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was refused, kept whole (value cut at 64 KiB), with where it stood."""

    reason: Text
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    origin_site: str
    """Site of the refused record's origin header, "" when unreadable."""


Message = (
    TransferIntent
    | IntentAsked
    | IntentDecided
    | ManifestWritten
    | TransferPlanned
    | TransferDecided
    | PartOpened
    | PartLost
    | LeaseExpired
    | SourceFailed
    | TransferClosed
    | ChunksRequested
    | TransferProgress
    | ChunksServed
    | TransferReported
    | CompletionRecord
    | FilesHeld
    | FilesLost
    | SiteAnnounced
    | DeadLetter
)
