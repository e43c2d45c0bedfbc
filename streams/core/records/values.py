"""Values that stand in records of more than one kind: verdicts, reasons, sets of items, who wrote a record. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from streams.core.names import Adler32, Text
from streams.core.ranges import Ranges


class Verdict(StrEnum):
    """What a home decides on an intent, and a destination on one of its transfers."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    RELEASED = "released"
    """The intent has ended, and claims nothing any more."""


class Verb(StrEnum):
    """What an intent asks for."""

    COPY = "copy"
    REMOVE = "remove"
    MOVE = "move"


class Asked(StrEnum):
    CANCEL = "cancel"
    PRIORITY = "priority"
    CLOSE = "close"
    """An open intent takes nothing more."""
    RELEASE = "release"
    """Nobody claims any more what it brought."""
    APPROVE = "approve"
    """The site that is named takes part in it."""
    DENY = "deny"


OF_A_SITE = frozenset((Asked.APPROVE, Asked.DENY))
"""What is asked of a site; all else of an intent's home."""


class Answer(StrEnum):
    """Whether a site takes part in an intent."""

    PENDING = "pending"
    ADMITTED = "admitted"
    DENIED = "denied"


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
class Landed:
    """The file that an item of entries became; its manifest could not know."""

    item: int
    bytes: int
    adler32: Adler32
