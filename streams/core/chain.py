"""A chain of manifests: which one counts, now or later, and those that outran the one that they continue. Pure, no I/O.

How a number and a digest continue a chain at all (`succession`) is the same for steps of keeping (keeping/chains.py).

Manifests of one `source_no` continue each other by digest. A mirror may bring them before the decision that names their
source, or before their predecessor: they are kept in a store, and taken from it when their turn has come. What is kept
is a `Link`; its body is the keeper's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from streams.core.manifest import digest
from streams.core.names import IntentId, ManifestId, Site
from streams.core.records import ManifestWritten


class Succession(StrEnum):
    """How something numbered that names its predecessor by digest stands to the end of a chain."""

    NEXT = "next"
    TAKEN = "taken"
    """Its number was given before."""
    AHEAD = "ahead"
    """It leaves out a number."""
    ASTRAY = "astray"
    """It is the next, behind another predecessor."""


def succession(next_no: int, sha256: str, no: int, prev_sha256: str) -> Succession:
    """`next_no`, `sha256`: the number that comes next in the chain, and the digest of its last."""
    if no != next_no:
        return Succession.TAKEN if no < next_no else Succession.AHEAD
    return Succession.NEXT if prev_sha256 == sha256 else Succession.ASTRAY


class Counts(StrEnum):
    """Whether a manifest counts: now, perhaps later (its decision or predecessor is not heard), or never."""

    NOW = "now"
    LATER = "later"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Chain:
    """Manifests of one `source_no` that count: how many, the last one's digest and cursor, whether it was the last."""

    source_no: int = 0
    next_no: int = 0
    sha256: str = ""
    cursor: str = ""
    last: bool = False


UNBEGUN = Chain()


def of_removal(parts: int) -> Chain:
    """That of a removal, which has no manifests: each part that a site reports stands for one, all known at once."""
    return Chain(next_no=parts, last=True)


class Decided(Protocol):
    """What a chain needs to know of a decision: who writes manifests, of which number."""

    @property
    def source(self) -> Site | None: ...
    @property
    def source_no(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Link:
    """A manifest without its items: its place in the chain, and their sums. Of entries, `bytes` is an estimate.

    `place` is where the body can be read again, in the words of who keeps it.
    """

    intent: IntentId
    source: Site
    source_no: int
    no: int
    prev_sha256: str
    sha256: str
    cursor: str
    last: bool
    items: int
    bytes: int
    units: int
    place: str = ""

    @property
    def manifest(self) -> ManifestId:
        return ManifestId.of(self.intent, self.source_no, self.no)

    @classmethod
    def of(cls, body: ManifestWritten, place: str = "") -> Link:
        return cls(
            body.intent,
            body.source,
            body.source_no,
            body.no,
            body.prev_sha256,
            digest(body),
            body.cursor,
            body.last,
            len(body.items),
            sum(item.bytes for item in body.items),
            sum(item.length for item in body.items),
            place,
        )


Placed = Link | ManifestWritten
V = TypeVar("V")


class Store(Protocol[V]):
    """Values by key; a dict or a table of a database is behind it."""

    def __contains__(self, key: str) -> bool: ...
    def get(self, key: str) -> V | None: ...
    def put(self, key: str, value: V) -> None: ...
    def delete(self, key: str) -> None: ...
    def items(self) -> Iterator[tuple[str, V]]: ...


class Memory(Generic[V]):
    """A store in a dict."""

    def __init__(self) -> None:
        self._values: dict[str, V] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> V | None:
        return self._values.get(key)

    def put(self, key: str, value: V) -> None:
        self._values[key] = value

    def delete(self, key: str) -> None:
        self._values.pop(key, None)

    def items(self) -> Iterator[tuple[str, V]]:
        yield from sorted(self._values.items())


def counts(chain: Chain, decided: Decided | None, link: Placed) -> Counts:
    """A manifest counts if the decided source wrote it and it continues that source_no's chain by digest."""
    if decided is None or decided.source_no < link.source_no:
        return Counts.LATER
    if decided.source_no > link.source_no or decided.source != link.source or chain.last:
        return Counts.NEVER
    match succession(chain.next_no, chain.sha256, link.no, link.prev_sha256):
        case Succession.NEXT:
            return Counts.NOW
        case Succession.AHEAD:
            return Counts.LATER
        case _:
            return Counts.NEVER


def continued(chain: Chain, link: Link) -> Chain:
    """The chain behind a manifest that counts now."""
    return Chain(link.source_no, link.no + 1, link.sha256, link.cursor, link.last)


def decided_anew(chain: Chain, decision: Decided) -> Chain:
    """The chain under a decision: a raised source_no begins another."""
    return chain if decision.source_no <= chain.source_no else Chain(decision.source_no)


def key_of(source: Site, source_no: int, no: int, prev_sha256: str) -> str:
    """Where a manifest waits: behind its own predecessor, so that a rival cannot keep the right one's place."""
    return f"{source_no:09d}.{no:09d} {source} {prev_sha256}"


def hear(chain: Chain, decided: Decided | None, link: Link, waiting: Store[Link]) -> tuple[Chain, list[Link]]:
    """The chain after a manifest, and the links that came to count, in their order; one that counts later is kept.

    Of several under one predecessor the first that is kept counts.
    """
    match counts(chain, decided, link):
        case Counts.LATER:
            key = key_of(link.source, link.source_no, link.no, link.prev_sha256)
            if key not in waiting:
                waiting.put(key, link)
        case Counts.NOW:
            chain, more = waited(continued(chain, link), decided, waiting)
            return chain, [link, *more]
        case Counts.NEVER:
            pass
    return chain, []


def waited(chain: Chain, decided: Decided | None, waiting: Store[Link]) -> tuple[Chain, list[Link]]:
    """The chain after those kept links whose turn has come, and them: ask after a decision."""
    found: list[Link] = []
    while decided is not None and decided.source is not None and not chain.last:
        if decided.source_no != chain.source_no:
            break
        key = key_of(decided.source, chain.source_no, chain.next_no, chain.sha256)
        link = waiting.get(key)
        if link is None:
            break
        waiting.delete(key)
        found.append(link)
        chain = continued(chain, link)
    return chain, found


def forget(waiting: Store[Link]) -> None:
    """Of a whole chain: what still waits continues a rival, and would wait for ever."""
    for key, _ in list(waiting.items()):
        waiting.delete(key)
