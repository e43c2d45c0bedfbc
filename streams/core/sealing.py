"""What a site seals next, and the bytes that keys sign. Pure: who reads the journals and has the key is elsewhere.

The ledger judges seals by code of its own; both share what a tree and its root are, no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from streams.core import records as m
from streams.core.ledger.cuts import JournalId, JournalRoot
from streams.core.names import Site
from streams.core.topics import SEALS

OWN_MS = 60_000
"""A site's own journals are sealed so often, where they changed."""
COPIES_MS = 600_000
"""Its copies of its peers' journals."""


def certified_bytes(certificate: m.Certificate) -> bytes:
    """What a root key signs."""
    c = certificate
    lines = (c.site, c.kid, c.public_key.hex(), c.kind, str(c.not_before_ms), str(c.not_after_ms))
    return "\n".join(("transfer2go certificate 1", *lines)).encode()


def signed_bytes(seal: m.JournalsSealed) -> bytes:
    """What a sealer signs: every field before the signature, its certificate's own signature too."""
    lines = ["transfer2go seal 1", seal.site, str(seal.no), seal.prev_sha256, str(seal.sealed_ms)]
    lines += [f"{one.site}\t{one.topic}\t{one.partition}\t{one.size}\t{one.root.hex()}" for one in seal.journals]
    signed = "\n".join(lines).encode()
    if seal.certificate is not None:
        signed += b"\n" + certified_bytes(seal.certificate) + b"\n" + seal.certificate.signature.hex().encode()
    return signed


def digest_of(seal: m.JournalsSealed) -> str:
    """What the next seal says of this one: sha256 (hex) over what was signed, and the signature."""
    return sha256(signed_bytes(seal) + b"\n" + seal.signature.hex().encode()).hexdigest()


class SealChain:
    """A site's seals, one behind the other: what was sealed of each journal, and what is due."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._no, self._prev_sha256 = 0, ""
        self._sealed: dict[JournalId, int] = {}
        self._own_ms: int | None = None
        self._copies_ms: int | None = None

    @property
    def next_no(self) -> int:
        return self._no

    def take(self, seal: m.JournalsSealed) -> None:
        """The next seal of the site, as it is in the log. What is no later than the last one is known."""
        if seal.site != self._site or seal.no < self._no:
            return
        self._no, self._prev_sha256 = seal.no + 1, digest_of(seal)
        for one in seal.journals:
            self._sealed[JournalId(one.site, one.topic, one.partition)] = one.size

    def due(self, now_ms: int, journals: Iterable[JournalRoot]) -> list[m.SealedJournal]:
        """What to seal now, ascending: own journals and copies that have grown, when it is time for them.

        `journals`: those of the site's cluster. Each is due once: what is returned counts as sealed at `now_ms`. A
        clock that went back is followed.
        """
        own = _is_due(self._own_ms, now_ms, OWN_MS)
        copies = _is_due(self._copies_ms, now_ms, COPIES_MS)
        self._own_ms = now_ms if own else self._own_ms
        self._copies_ms = now_ms if copies else self._copies_ms
        if not own and not copies:
            return []
        return [
            m.SealedJournal(*journal, size, bytes.fromhex(root))
            for journal, size, root in sorted(journals)
            if (own if journal.site == self._site else copies)
            and journal.topic != SEALS
            and size > self._sealed.get(journal, 0)
        ]

    def next(
        self, now_ms: int, journals: Iterable[m.SealedJournal], certificate: m.Certificate | None
    ) -> m.JournalsSealed:
        """The next seal, not signed yet; it counts when it is taken."""
        return m.JournalsSealed(self._site, self._no, self._prev_sha256, now_ms, tuple(journals), certificate, b"")


def _is_due(last_ms: int | None, now_ms: int, every_ms: int) -> bool:
    return last_ms is None or not 0 <= now_ms - last_ms < every_ms
