"""What a site seals: how many records its journals and copies have, and their roots. And whose key signed that."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from streams.core import topics
from streams.core.names import Site
from streams.core.records import field_checks
from streams.core.records.limits import SEALED_JOURNALS_MAX
from streams.core.records.registry import checked, record

SEALER = "sealer"
"""Kind of the keys that sign seals."""
ROOT_BYTES, PUBLIC_KEY_BYTES, SIGNATURE_BYTES = 32, 32, 64


def kid_of(public_key: bytes) -> str:
    """The name of a key by its public half."""
    return sha256(public_key).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class SealedJournal:
    """The first `size` records of a partition of a journal of `site`, as the sealing site has it."""

    site: Site
    topic: str
    partition: int
    size: int
    root: bytes


def _certificate(c: Certificate) -> str | None:
    if len(c.public_key) != PUBLIC_KEY_BYTES:
        return f"public_key: {len(c.public_key)} bytes, must be {PUBLIC_KEY_BYTES}"
    if c.kid != kid_of(c.public_key):
        return "kid: not that of the public key"
    if len(c.signature) != SIGNATURE_BYTES:
        return f"signature: {len(c.signature)} bytes, must be {SIGNATURE_BYTES}"
    if c.not_after_ms <= c.not_before_ms:
        return "not_after_ms: not after not_before_ms"
    return field_checks.word("kind", c.kind)


@checked(_certificate)
@dataclass(frozen=True, slots=True)
class Certificate:
    """The root key of `site` says that a working key is its own, for what, and from when to when."""

    site: Site
    kid: str
    public_key: bytes
    kind: str
    not_before_ms: int
    not_after_ms: int
    signature: bytes


def _sealed(s: JournalsSealed) -> str | None:
    if s.no == 0:
        if s.prev_sha256:
            return "prev_sha256: there is no seal before number 0"
    elif (why := field_checks.sha256("prev_sha256", s.prev_sha256)) is not None:
        return why
    if not 1 <= len(s.journals) <= SEALED_JOURNALS_MAX:
        return f"journals: {len(s.journals)} given, must be 1 to {SEALED_JOURNALS_MAX}"
    before: tuple[Site, str, int] | None = None
    for n, one in enumerate(s.journals):
        name = (one.site, one.topic, one.partition)
        if (why := _journal(one)) is not None:
            return f"journals[{n}].{why}"
        if before is not None and name <= before:
            return f"journals[{n}]: not in ascending order, each once"
        before = name
    return _signed(s)


def _journal(one: SealedJournal) -> str | None:
    if one.topic == topics.SEALS or "." in one.topic or topics.is_chunks(one.topic):
        return "topic: not of a journal that is sealed"
    if one.size < 1:
        return f"size: {one.size} is not at least 1"
    if len(one.root) != ROOT_BYTES:
        return f"root: {len(one.root)} bytes, must be {ROOT_BYTES}"
    return field_checks.word("topic", one.topic)


def _signed(s: JournalsSealed) -> str | None:
    if s.certificate is None:
        return "signature: without a certificate" if s.signature else None
    if len(s.signature) != SIGNATURE_BYTES:
        return f"signature: {len(s.signature)} bytes, must be {SIGNATURE_BYTES}"
    if s.certificate.site != s.site:
        return f"certificate.site: {s.certificate.site}, of a seal of {s.site}"
    why = _certificate(s.certificate)
    return None if why is None else f"certificate.{why}"


@record(topic=topics.SEALS, key=lambda r: r.site, author=lambda r: r.site, check=_sealed)
@dataclass(frozen=True, slots=True)
class JournalsSealed:
    """A site's seal, number `no` of its chain: its journals and copies as they stood, of those that changed.

    `signature` is by the key of `certificate`, over what streams/core/sealing.py::signed_bytes gives.
    """

    site: Site
    no: int
    prev_sha256: str
    sealed_ms: int
    journals: tuple[SealedJournal, ...]
    certificate: Certificate | None
    signature: bytes
    """Empty, as `certificate` is None, where nobody signed."""
