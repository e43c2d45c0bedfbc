"""Every fact that can be heard, as frozen values (union `Message`), and what each says of itself. No bytes: the gate
encodes them.

Field names, order and meaning are those of `schemas/*.avsc`; a class's name is its schema's name. Times are
milliseconds of the Unix epoch (`_ms`); positions and ranges are in a manifest's unit.

A new record is a class in the module of its kind, with `@record`, and a line in the union below. Records import no
machine: the audit's ledger imports records, and judges the machines.
"""

from __future__ import annotations

from streams.core.records.chunks import (
    READS_URLS,
    ChunkHeader,
    ChunksOffered,
    ChunksRequested,
    ChunksServed,
    ItemUrl,
    OfferedDoor,
    RequestedItem,
    Segment,
    UrlsOffered,
)
from streams.core.records.intents import (
    IntentAsked,
    IntentDecided,
    KeptFiles,
    RemovalReported,
    SiteAnswered,
    TransferIntent,
    leaving_sites,
    owner_of,
    parts_of,
)
from streams.core.records.keeping import (
    ChainSettled,
    ChainStep,
    CheckedFile,
    ClaimDecided,
    KeepingStep,
    KeepPromised,
    KeptFile,
    LeaveAsked,
    LeavingFile,
    NotedClaim,
    ReliedOn,
    RemovalDecided,
    RemovedFiles,
    ReplicasChecked,
    SeenFile,
    names_of,
    step_sha256,
)
from streams.core.records.limits import SEALED_JOURNALS_MAX
from streams.core.records.manifests import Item, ManifestWritten, item_fault
from streams.core.records.registry import (
    Registered,
    Row,
    allowed_in,
    author,
    belongs_in,
    check_of,
    fault,
    key_of,
    registered_as,
    registered_classes,
    row_of,
    row_of_class,
    topic_of,
)
from streams.core.records.replicas import FilesHeld, FilesLost, HeldFile, TakenWords, word_of
from streams.core.records.seals import SEALER, Certificate, JournalsSealed, SealedJournal
from streams.core.records.sites import DeadLetter, LastSequence, Origin, SiteAnnounced, is_own_door
from streams.core.records.transfers import (
    CompletionRecord,
    LeaseExpired,
    PartLost,
    PartOpened,
    PlanOutline,
    Route,
    SourceFailed,
    TransferClosed,
    TransferDecided,
    TransferPlanned,
    TransferProgress,
    TransferReported,
)
from streams.core.records.values import (
    OF_A_SITE,
    Answer,
    Asked,
    Ended,
    FailedItems,
    FailureClass,
    Landed,
    Reason,
    Scope,
    Unit,
    Verb,
    Verdict,
)

Message = (
    TransferIntent
    | IntentAsked
    | IntentDecided
    | SiteAnswered
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
    | ChunksOffered
    | UrlsOffered
    | TransferReported
    | CompletionRecord
    | RemovalReported
    | FilesHeld
    | FilesLost
    | ClaimDecided
    | LeaveAsked
    | KeepPromised
    | RemovalDecided
    | ChainSettled
    | ReplicasChecked
    | SiteAnnounced
    | JournalsSealed
    | DeadLetter
)

__all__ = [
    "OF_A_SITE",
    "READS_URLS",
    "SEALED_JOURNALS_MAX",
    "SEALER",
    "Answer",
    "Asked",
    "Certificate",
    "ChainSettled",
    "ChainStep",
    "CheckedFile",
    "ChunkHeader",
    "ChunksOffered",
    "ChunksRequested",
    "ChunksServed",
    "ClaimDecided",
    "CompletionRecord",
    "DeadLetter",
    "Ended",
    "FailedItems",
    "FailureClass",
    "FilesHeld",
    "FilesLost",
    "HeldFile",
    "IntentAsked",
    "IntentDecided",
    "Item",
    "ItemUrl",
    "JournalsSealed",
    "KeepPromised",
    "KeepingStep",
    "KeptFile",
    "KeptFiles",
    "Landed",
    "LastSequence",
    "LeaseExpired",
    "LeaveAsked",
    "LeavingFile",
    "ManifestWritten",
    "Message",
    "NotedClaim",
    "OfferedDoor",
    "Origin",
    "PartLost",
    "PartOpened",
    "PlanOutline",
    "Reason",
    "Registered",
    "ReliedOn",
    "RemovalDecided",
    "RemovalReported",
    "RemovedFiles",
    "ReplicasChecked",
    "RequestedItem",
    "Route",
    "Row",
    "Scope",
    "SealedJournal",
    "SeenFile",
    "Segment",
    "SiteAnnounced",
    "SiteAnswered",
    "SourceFailed",
    "TakenWords",
    "TransferClosed",
    "TransferDecided",
    "TransferIntent",
    "TransferPlanned",
    "TransferProgress",
    "TransferReported",
    "Unit",
    "UrlsOffered",
    "Verb",
    "Verdict",
    "allowed_in",
    "author",
    "belongs_in",
    "check_of",
    "fault",
    "is_own_door",
    "item_fault",
    "key_of",
    "leaving_sites",
    "names_of",
    "owner_of",
    "parts_of",
    "registered_as",
    "registered_classes",
    "row_of",
    "row_of_class",
    "step_sha256",
    "topic_of",
    "word_of",
]
