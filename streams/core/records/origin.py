"""Who wrote a record: the header that every record carries."""

from __future__ import annotations

from dataclasses import dataclass

from streams.core.names import Site
from streams.core.records import field_checks
from streams.core.records.registry import checked


def _origin(o: Origin) -> str | None:
    return field_checks.word("writer", o.writer) or field_checks.word("incarnation", o.incarnation)


@checked(_origin)
@dataclass(frozen=True, slots=True)
class Origin:
    """Who wrote a record and its place in the writer's own count; travels in a header, preserved by mirrors."""

    site: Site
    writer: str
    incarnation: str
    seq: int
    at_ms: int
