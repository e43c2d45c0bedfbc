"""What a site seals next, and the bytes that keys sign. Pure: who reads the journals and has the key is elsewhere.

The ledger judges seals by code of its own; both share what a tree and its root are, no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from streams.core import records as m
from streams.core.ledger.cuts import JournalId
from streams.core.ledger.trees import JournalTree
from streams.core.names import Site
from streams.core.topics import SEALS

OWN_MS = 60_000
"""A site's own journals are sealed so often, where they changed."""
COPIES_MS = 10 * OWN_MS
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
    """A site's seals, one behind the other: what was sealed of each journal, and what is due.

    `own_every_ms`: of its own journals; of its copies ten times that.
    """

    def __init__(self, site: Site, *, own_every_ms: int = OWN_MS) -> None:
        self._site, self._own_every_ms = site, own_every_ms
        self._no, self._prev_sha256 = 0, ""
        self._sealed: dict[JournalId, int] = {}
        self._own_ms: int | None = None
        self._copies_ms: int | None = None

    @property
    def next_no(self) -> int:
        return self._no

    def every(self, own_every_ms: int) -> None:
        """Seal so often from now on."""
        self._own_every_ms = own_every_ms

    def take(self, seal: m.JournalsSealed) -> None:
        """The next seal of the site, as it is in the log. What is no later than the last one is known."""
        if seal.site != self._site or seal.no < self._no:
            return
        self._no, self._prev_sha256 = seal.no + 1, digest_of(seal)
        for one in seal.journals:
            self._sealed[JournalId(one.site, one.topic, one.partition)] = one.size

    def due(self, now_ms: int, trees: Mapping[JournalId, JournalTree]) -> list[m.SealedJournal]:
        """What to seal now, ascending: own journals and copies that have grown, when it is time for them.

        `trees`: of all journals of the site's cluster. Asked again before it is time, it gives nothing. A clock that
        went back is followed.
        """
        own = _is_due(self._own_ms, now_ms, self._own_every_ms)
        copies = _is_due(self._copies_ms, now_ms, self._own_every_ms * (COPIES_MS // OWN_MS))
        self._own_ms = now_ms if own else self._own_ms
        self._copies_ms = now_ms if copies else self._copies_ms
        if not own and not copies:
            return []
        return [
            m.SealedJournal(*journal, tree.size, tree.root)
            for journal, tree in sorted(trees.items(), key=lambda one: one[0])
            if (own if journal.site == self._site else copies)
            and journal.topic != SEALS
            and tree.size > self._sealed.get(journal, 0)
        ]

    def next(
        self, now_ms: int, journals: Iterable[m.SealedJournal], certificate: m.Certificate | None
    ) -> m.JournalsSealed:
        """The next seal, not signed yet; it counts when it is taken."""
        return m.JournalsSealed(self._site, self._no, self._prev_sha256, now_ms, tuple(journals), certificate, b"")


def _is_due(last_ms: int | None, now_ms: int, every_ms: int) -> bool:
    return last_ms is None or not 0 <= now_ms - last_ms < every_ms
