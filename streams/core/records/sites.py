"""Records of a site's writers: that they live, and what they refused; and the header that says who wrote a record."""

from __future__ import annotations

from dataclasses import dataclass

from streams.core import topics
from streams.core.names import Site, Text
from streams.core.records import field_checks
from streams.core.records.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX
from streams.core.records.registry import checked, record


@dataclass(frozen=True, slots=True)
class LastSequence:
    topic: str
    partition: int
    seq: int


def _announced(a: SiteAnnounced) -> str | None:
    if a.site in a.peers:
        return "peers: name the site itself"
    if a.api and not field_checks.is_http(a.api):
        return "api: not an http address"
    if a.door and not field_checks.is_http(a.door):
        return "door: not an http address"
    if len(set(a.peers)) != len(a.peers):
        return "peers: one is named twice"
    return (
        field_checks.word("writer", a.writer)
        or field_checks.word("incarnation", a.incarnation)
        or field_checks.word("role", a.role)
        or field_checks.from_one("every_s", a.every_s)
    )


@record(topic=topics.ANNOUNCEMENTS, key=lambda r: r.site, author=lambda r: r.site, check=_announced)
@dataclass(frozen=True, slots=True)
class SiteAnnounced:
    """A writer of a site is alive or, `closing`, says its last numbers.

    `api` is its http address, and `door` that of its plane's door; "" if none. A door of another make, which gives what
    the site holds, has a path, "/" at least: it can be asked for files, and for nothing else that a door does.
    """

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
    door: str = ""


def is_own_door(address: str) -> bool:
    """Of a door that was announced, whether it is one of this product."""
    return bool(address) and not address.endswith("/")


def _dead(d: DeadLetter) -> str | None:
    if len(d.value) > VALUE_BYTES_MAX or len(d.key) > KEY_BYTES_MAX:
        return f"value or key: over {VALUE_BYTES_MAX} or {KEY_BYTES_MAX} bytes"
    return field_checks.word("topic", d.topic)


@record(topic=topics.DEAD_LETTERS, key=lambda r: r.key, check=_dead)
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
