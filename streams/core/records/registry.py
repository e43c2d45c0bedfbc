"""What each class of records says of itself: topic, key, author, check and the kind of row that hears it.

    @record(topic=topics.REPORTS, key=lambda r: r.intent, author=lambda r: r.destination.site, row=Row.INTENT)
    @dataclass(frozen=True, slots=True)
    class TransferReported: ...

The gate, the dispatcher and the readers of topics ask here; they list no classes. No machine is imported: a row's kind
is a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from streams.core.names import Site

T = TypeVar("T", bound=type)
ValueCheck = Callable[[Any], str | None]
"""The first contradiction inside a value, in words that name the field; None when there is none."""


class Row(StrEnum):
    """Which rows of a worker fold a record."""

    NONE = ""
    INTENT = "intent"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Registered:
    """`topic` of a record at its writer's site; `is_in`: whether it may stand in a topic of this base name.

    `once_in`: where earlier releases wrote it; what stands there is read for ever. `author`: the site whose word it
    is, None: any site's, in its own local topic. `has_one_topic`: all records of the class, so that `is_in` says all.
    """

    topic: Callable[[Any], str]
    is_in: Callable[[str], bool]
    key: Callable[[Any], str | bytes]
    author: Callable[[Any], Site | None]
    row: Row
    once_in: str | None
    has_one_topic: bool


_RECORDS: dict[type, Registered] = {}
_OUTLINES: set[type] = set()
_CHECKS: dict[type, ValueCheck] = {}


def record(
    *,
    topic: str | Callable[[Any], str],
    key: Callable[[Any], str | bytes],
    author: Callable[[Any], Site | None] = lambda _: None,
    check: ValueCheck | None = None,
    row: Row = Row.NONE,
    once_in: str | None = None,
    is_in: Callable[[str], bool] | None = None,
) -> Callable[[T], T]:
    """Registers a class of records. `is_in` is needed where `topic` depends on the record."""

    def registered(cls: T) -> T:
        if isinstance(topic, str):
            _RECORDS[cls] = Registered(
                lambda _: topic, is_in or (lambda base: base == topic), key, author, row, once_in, True
            )
        else:
            assert is_in is not None
            _RECORDS[cls] = Registered(topic, is_in, key, author, row, once_in, False)
        return cls if check is None else checked(check)(cls)

    return registered


def outline_of(cls: type, *, check: ValueCheck) -> Callable[[T], T]:
    """Registers what is read of a record of `cls` without one of its parts: it stands where that does, by its key."""

    def registered(outline: T) -> T:
        _RECORDS[outline] = _RECORDS[cls]
        _OUTLINES.add(outline)
        return checked(check)(outline)

    return registered


def checked(check: ValueCheck) -> Callable[[T], T]:
    """Registers what the fields of a value must say together; of records, `record` does it."""

    def registered(cls: T) -> T:
        _CHECKS[cls] = check
        return cls

    return registered


def registered_classes() -> tuple[type, ...]:
    return tuple(cls for cls in _RECORDS if cls not in _OUTLINES)


def row_of_class(cls: type) -> Row:
    return _RECORDS[cls].row


def row_of(message: Any) -> Row:
    """Which kind of row folds a record."""
    return row_of_class(type(message))


def topic_of(message: Any) -> str:
    """The local topic a record is published to, at its writer's site."""
    return _RECORDS[type(message)].topic(message)


def key_of(message: Any) -> str | bytes:
    """What the record is keyed by: one key per row, so that one worker owns it."""
    return _RECORDS[type(message)].key(message)


def author(message: Any) -> Site | None:
    """The site whose word this is: the record's origin must be it. None: any site, in its own local topic."""
    known = _RECORDS.get(type(message))
    return None if known is None else known.author(message)


def allowed_in(kind: type, base_topic: str) -> bool:
    """Whether a record of this class may stand in a topic of this base name."""
    known = _RECORDS.get(kind)
    return known is not None and (known.is_in(base_topic) or base_topic == known.once_in)


def belongs_in(message: Any, base_topic: str) -> bool:
    """Whether this very record may stand there: a request's topic names its source."""
    return base_topic in (topic_of(message), _RECORDS[type(message)].once_in)


def check_of(cls: type) -> ValueCheck | None:
    """What the fields of a value of this class must say together."""
    return _CHECKS.get(cls)


def registered_as(cls: type) -> Registered | None:
    """What a class of records says of itself; None of what is no record."""
    return _RECORDS.get(cls)


def fault(value: Any) -> str | None:
    """Why a record, Origin or ChunkHeader contradicts itself or a limit, or None."""
    check = _CHECKS.get(type(value))
    return None if check is None else check(value)
