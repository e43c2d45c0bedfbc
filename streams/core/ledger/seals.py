"""What sites sealed of their journals and copies, held against what is read, and against each other.

A seal is the word of a site: so many records, of this root. A later record never changes the root of earlier ones, so a
journal that is shorter than sealed, or has another root there, was changed; of two seals of one size and two roots,
one history was shown to each of two sites. Seals are heard before the journals: a tree keeps no root of a size that it
has passed. What it cannot prove: what a site had changed before it sealed it first, or since its last seal.

Nothing here is shared with who makes seals (core/sealing.py) but the tree: digests and what was signed are computed by
the ledger itself.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.core import records as m
from streams.core.ledger.cuts import JournalId
from streams.core.ledger.digests import certified, seal_sha256, sealed
from streams.core.ledger.findings import FindingList, Invariant, LogPosition
from streams.core.ledger.numbering import ClockReading
from streams.core.ledger.sealed_sizes import SIZES_MAX, Contradiction, SealedSizes, SealName, SealWalk
from streams.core.ledger.shares import Share
from streams.core.ledger.trees import JournalTree
from streams.core.names import Site
from streams.core.topics import TO_EVERY_PEER, remote

_SEAL = Invariant.SEAL
FAULTS_MAX = 1000
"""Faults of single seals that are named; the others are counted."""
CHAIN_MAX = 1 << 62
"""Seals of a site that are remembered: all of them, unless who follows says otherwise."""
JOURNALS_MAX = 200_000
"""Journals that seals may name, a kilobyte each: 59 sites have 5,000 a cluster."""
STALE_MS = 3_600_000
"""Records so much younger than the last seal of their site: does anybody still seal?"""
_NEVER = 1 << 63
_ROOT = 32
_GIVEN = frozenset(("_keys", "_is_signed", "_sizes_max", "_chain_max"))

IsSigned = Callable[[bytes, bytes, bytes], bool]
"""Whether the owner of a public key signed a message: key, message, signature."""


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A site's root key (public half), and the names of its keys that are revoked, with since when (ms)."""

    root_key: bytes
    revoked: Mapping[str, int] = field(default_factory=dict)


class _Chain:
    """Seals of one site, by number: what each is, and where it stands first."""

    floor = 0
    """Seals of lower numbers were forgotten: what was wrong of them was told."""

    def __init__(self) -> None:
        self.nos, self.offsets, self.where = array("Q"), array("Q"), array("H")
        self.digests = bytearray()
        self.partitions: list[tuple[Site, str, int]] = []
        self.unlinked: dict[int, bytes] = {}
        """What seals say of those before them that were not heard then."""
        self.twice: dict[int, LogPosition] = {}
        self.broken: set[int] = set()
        self.last_ms = 0
        self.unsigned = self.unpinned = 0

    def find(self, no: int) -> int | None:
        at = bisect_left(self.nos, no)
        return at if at < len(self.nos) and self.nos[at] == no else None

    def digest(self, at: int) -> bytes:
        return bytes(self.digests[at * _ROOT : (at + 1) * _ROOT])

    def add(self, no: int, digest: bytes, prev: bytes, place: LogPosition) -> None:
        if place[:3] not in self.partitions:
            self.partitions.append(place[:3])
        at = len(self.nos) if not self.nos or no > self.nos[-1] else bisect_left(self.nos, no)
        self.nos.insert(at, no)
        self.offsets.insert(at, place.offset)
        self.where.insert(at, self.partitions.index(place[:3]))
        self.digests[at * _ROOT : at * _ROOT] = digest
        if no and (before := self.find(no - 1)) is None:
            if len(self.unlinked) < FAULTS_MAX:
                self.unlinked[no] = prev
        elif no and before is not None and self.digest(before) != prev:
            self._break(no)
        if (said := self.unlinked.pop(no + 1, None)) is not None and said != digest:
            self._break(no + 1)

    def _break(self, no: int) -> None:
        if len(self.broken) < FAULTS_MAX:
            self.broken.add(no)

    def place(self, no: int) -> LogPosition | None:
        at = self.find(no)
        return None if at is None else LogPosition(*self.partitions[self.where[at]], self.offsets[at])

    def forget(self, most: int) -> None:
        """Keep the last `most` seals, once there are twice as many."""
        if len(self.nos) < 2 * most:
            return
        drop = len(self.nos) - most
        self.floor = self.nos[drop]
        del self.nos[:drop], self.offsets[:drop], self.where[:drop], self.digests[: drop * _ROOT]
        self.unlinked = {no: prev for no, prev in self.unlinked.items() if no > self.floor}

    def holes(self) -> Iterator[tuple[int, int]]:
        """Numbers [start, stop) that nobody has heard, below the last one."""
        expected = self.floor
        for no in self.nos:
            if no > expected:
                yield expected, no
            expected = no + 1


class Seals:
    """Seals of all sites as they are heard, and the walks of the trees that are held against them.

    `keys`: of the sites that have pinned one. Memory: 50 bytes a seal, of the last `chain_max` of a site, and 50 for
    each journal in it, of `sizes_max` sizes of a journal.
    """

    def __init__(
        self,
        keys: Mapping[Site, PinnedKey] | None = None,
        is_signed: IsSigned | None = None,
        *,
        sizes_max: int = SIZES_MAX,
        chain_max: int = CHAIN_MAX,
    ) -> None:
        self._keys, self._is_signed, self._sizes_max = keys or {}, is_signed, sizes_max
        self._chain_max = chain_max
        self._chains: dict[Site, _Chain] = {}
        self._sealed: dict[JournalId, SealedSizes] = {}
        self._last: dict[tuple[Site, JournalId], tuple[int, int]] = {}
        self._faults: dict[bytes, tuple[LogPosition, str]] = {}
        """Of seals that are nobody's word, by their digest."""
        self._shrunk: list[tuple[JournalId, SealName, int, SealName, int]] = []
        self._more_faults = self._beyond = 0
        self._certified: dict[m.Certificate, bool] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What was heard, without the keys by which it is believed."""
        return {name: known for name, known in self.__dict__.items() if name not in _GIVEN}

    def go_on(self, before: Seals) -> None:
        """Know what `before` had heard."""
        self.__dict__.update(before.__getstate__())

    def absorb(self, other: Seals, share: Share) -> None:
        """Know what another ledger heard, which read a share of the journals and all seals; of the first share all."""
        if share.no == 0:
            self.go_on(other)
        self._sealed.update((journal, known) for journal, known in other._sealed.items() if journal.partition in share)

    def hear(self, place: LogPosition, seal: m.JournalsSealed, logged_ms: int) -> bool:
        """The next record of a partition of seals. `logged_ms`: when its log took it.

        Whether it is its site's word: not made by a wrong key, nor the second of its number.
        """
        chain = self._chains.get(seal.site)
        digest = seal_sha256(seal)
        at = None if chain is None else chain.find(seal.no)
        if digest in self._faults or (chain is not None and seal.no < chain.floor):
            return False
        if chain is not None and at is not None and chain.digest(at) == digest:
            return True
        if (why := self._fault(seal, logged_ms)) is not None:
            self._blame(place, digest, f"{SealName(seal.site, seal.no)}: {why}")
            return False
        if chain is not None and at is not None:
            if len(chain.twice) < FAULTS_MAX:
                chain.twice.setdefault(seal.no, place)
            return False
        if chain is None:
            chain = self._chains[seal.site] = _Chain()
        chain.add(seal.no, digest, bytes.fromhex(seal.prev_sha256), place)
        chain.forget(self._chain_max)
        chain.last_ms = max(chain.last_ms, seal.sealed_ms)
        if seal.certificate is None:
            chain.unsigned += 1
            if seal.site in self._keys:
                return True  # anybody may have written it: it accuses nobody
        elif seal.site not in self._keys:
            chain.unpinned += 1
        self._enter(seal)
        return True

    def _enter(self, seal: m.JournalsSealed) -> None:
        name = SealName(seal.site, seal.no)
        for one in seal.journals:
            journal = JournalId(one.site, one.topic, one.partition)
            if (known := self._sealed.get(journal)) is None:
                if len(self._sealed) >= JOURNALS_MAX:
                    self._beyond += 1
                    continue
                known = self._sealed[journal] = SealedSizes(self._sizes_max)
            last_no, last_size = self._last.get((seal.site, journal), (-1, 0))
            if seal.no > last_no:
                if one.size < last_size and len(self._shrunk) < FAULTS_MAX:
                    self._shrunk.append((journal, SealName(seal.site, last_no), last_size, name, one.size))
                self._last[seal.site, journal] = seal.no, one.size
            known.add(one.size, one.root, name)

    def _blame(self, place: LogPosition, digest: bytes, words: str) -> None:
        if len(self._faults) < FAULTS_MAX:
            self._faults[digest] = place, words
        else:
            self._more_faults += 1

    def _fault(self, seal: m.JournalsSealed, logged_ms: int) -> str | None:
        """Why a seal is nobody's word; None also where that cannot be told."""
        pinned, certificate = self._keys.get(seal.site), seal.certificate
        if pinned is None or certificate is None or self._is_signed is None:
            return None
        if certificate.kind != m.SEALER:
            return f"its key is a {certificate.kind}'s, not a sealer's"
        if certificate not in self._certified:
            if len(self._certified) > FAULTS_MAX:
                self._certified.clear()
            is_certified = self._is_signed(pinned.root_key, certified(certificate), certificate.signature)
            self._certified[certificate] = is_certified
        if not self._certified[certificate]:
            return f"its key {certificate.kid} is not certified by the root key of {seal.site}"
        if not certificate.not_before_ms <= seal.sealed_ms <= certificate.not_after_ms:
            return f"its key {certificate.kid} was not good when it was made"
        if logged_ms >= pinned.revoked.get(certificate.kid, _NEVER):
            return f"its key {certificate.kid} was revoked before it was logged"
        if not self._is_signed(certificate.public_key, sealed(seal), seal.signature):
            return f"its signature is not that of its key {certificate.kid}"
        return None

    @property
    def last_ms(self) -> dict[Site, int]:
        """When each site sealed last, by its own clock."""
        return {site: chain.last_ms for site, chain in self._chains.items()}

    def walk(self, site: Site, journal: JournalId, tree: JournalTree) -> SealWalk:
        """A tree of the journal at a site, to be told of what is appended."""
        if (known := self._sealed.get(journal)) is None:
            known = self._sealed[journal] = SealedSizes(self._sizes_max)
        return SealWalk(site, tree, known)

    def judge(
        self,
        sites: frozenset[Site],
        has: Callable[[Site, str], bool],
        latest: Mapping[Site, ClockReading],
        young_ms: int,
        findings: FindingList,
        *,
        lengths: bool = True,
    ) -> None:
        """`sites`: of the federation. `has`: whether a journal or copy was read whole. `latest`: when the log of a site
        took the last record of its own journals. `young_ms`: what was sealed since may not have come to a copy yet.
        Without `lengths` nothing is said of what is shorter than sealed, as while reading goes on."""
        for site in sorted(sites | self._chains.keys()):
            self._judge_chain(site, latest.get(site), findings)
        for place, words in self._faults.values():
            findings.find(_SEAL, words, place)
        if self._more_faults:
            findings.find(_SEAL, f"{self._more_faults} more seals that are not as their sites' keys say")
        if self._beyond:
            findings.cannot(_SEAL, "sealed sizes of more journals than are kept", self._beyond)
        for journal, before, size, after, less in self._shrunk:
            words = f"{after} has {less} records of {journal}, {before} had {size}: sizes never shrink"
            findings.find(_SEAL, words, self._place(after), self._place(before))
        for journal, known in sorted(self._sealed.items()):
            if known.sizes:
                _JournalJudge(self, journal, known, sites, has, young_ms, findings).judge(lengths)

    def _place(self, seal: SealName | None) -> LogPosition | None:
        return None if seal is None else self._chains[seal.site].place(seal.no)

    def _judge_chain(self, site: Site, latest: ClockReading | None, findings: FindingList) -> None:
        chain = self._chains.get(site)
        if chain is None:
            findings.cannot(_SEAL, f"journals of {site}: no seal of them was read")
            return
        findings.check(_SEAL, len(chain.nos))
        for no, place in sorted(chain.twice.items()):
            words = f"{site} has two seals of number {no} that say different things"
            findings.find(_SEAL, words, chain.place(no), place)
        for no in sorted(chain.broken):
            words = f"{SealName(site, no)} does not continue {SealName(site, no - 1)}: it names another seal before it"
            findings.find(_SEAL, words, chain.place(no), chain.place(no - 1))
        for start, stop in chain.holes():
            missing = f"seal {start}" if stop == start + 1 else f"seals {start} to {stop - 1}"
            before = chain.place(start - 1) if start else None
            findings.find(_SEAL, f"{missing} of {site}: nowhere that was read", before, chain.place(stop))
        if chain.unsigned:
            findings.cannot(_SEAL, f"who made seals of {site}: unsigned", chain.unsigned)
        if chain.unpinned:
            findings.cannot(_SEAL, f"who made seals of {site}: sites.toml pins no root_key of it", chain.unpinned)
        if latest is not None and findings.past(latest.at_ms) - chain.last_ms > STALE_MS:
            hours = (findings.began_ms - chain.last_ms) / 3_600_000
            words = (
                f"the last seal of {site} is {hours:,.1f} hours old, and it has written since: does `audit follow` run?"
            )
            findings.note(_SEAL, words, chain.place(chain.nos[-1]), latest.place)


@dataclass(frozen=True, slots=True)
class _JournalJudge:
    """One journal, its copies that were read, and what was sealed of either."""

    seals: Seals
    journal: JournalId
    known: SealedSizes
    sites: frozenset[Site]
    has: Callable[[Site, str], bool]
    young_ms: int
    findings: FindingList

    def _topic_at(self, site: Site) -> str:
        return self.journal.topic if site == self.journal.site else remote(self.journal.site, self.journal.topic)

    def _is_read(self, site: Site) -> bool:
        return self.has(site, self._topic_at(site))

    def judge(self, lengths: bool) -> None:
        walks = sorted((walk for walk in self.known.walks if self._is_read(walk.site)), key=lambda walk: walk.site)
        origin_read = self._is_read(self.journal.site)
        self.findings.check(_SEAL, len(self.known.sizes))
        if self.known.left_out:
            self.findings.cannot(_SEAL, "sealed sizes beyond what is kept of a journal", self.known.left_out)
        for walk in walks:
            if walk.late:
                self.findings.cannot(_SEAL, "sealed sizes that were passed before their seal was read", walk.late)
            for sealer, what in sorted(walk.bad.items()):
                if self._is_theirs(walk.site, sealer, origin_read):
                    self._contradicts(walk.site, what)
        sizes = {walk.site: walk.tree.size for walk in walks}
        if lengths:
            self._lengths(sizes, origin_read)
        if not origin_read:
            self._rivals(max(sizes.values(), default=0))

    def _is_theirs(self, site: Site, sealer: Site, origin_read: bool) -> bool:
        """Whether this tree is what to hold against the sealer's word: its own if that was read, else the original,
        else any copy."""
        if sealer == site:
            return True
        return not self._is_read(sealer) and (site == self.journal.site or not origin_read)

    def _contradicts(self, site: Site, what: Contradiction) -> None:
        origin = self.journal.site
        here = f"{self.journal}" if site == origin else f"{site}'s copy of {self.journal}"
        if what.seal.site == site:
            words = f"{here} is not as {site} sealed it"
        elif what.seal.site == origin:
            words = f"{here} is not the history that {origin} sealed"
        else:
            words = f"{origin} showed {site} and {what.seal.site} two histories: {here} is not as the latter sealed it"
        words += f": {what.seal} has another root of its first {what.size} records"
        words += "" if what.good is None else f", {what.good} the same of its first {what.good_size}"
        place = None if what.offset is None else LogPosition(site, self._topic_at(site), self.journal[2], what.offset)
        rival = self._rival_of(what.size, what.seal.site)
        self.findings.find(_SEAL, words, place, *map(self.seals._place, (what.good, what.seal, rival)))

    def _rival_of(self, size: int, sealer: Site) -> SealName | None:
        """The origin's own seal of that size, where another site's is contradicted."""
        if sealer == self.journal.site:
            return None
        at = bisect_left(self.known.sizes, size)
        while at < len(self.known.sizes) and self.known.sizes[at] == size:
            if (seal := self.known.seal(at)).site == self.journal.site:
                return seal
            at += 1
        return None

    def _longest(self, sealer: Site | None) -> tuple[int, SealName] | None:
        """The largest size that was sealed, by this site or any."""
        for at in range(len(self.known.sizes) - 1, -1, -1):
            if (seal := self.known.seal(at)).site == sealer or sealer is None:
                return self.known.sizes[at], seal
        return None

    def _lengths(self, sizes: Mapping[Site, int], origin_read: bool) -> None:
        origin, shorter = self.journal.site, False
        if origin_read and (most := self._longest(None)) is not None and most[0] > sizes.get(origin, 0):
            shorter = True
            words = f"{self.journal} is shorter than sealed: it has {sizes.get(origin, 0)} records"
            self._shorter(words, *most)
        is_shared = self.journal.topic in TO_EVERY_PEER and origin in self.sites
        everywhere = self.sites if is_shared else frozenset[Site]()
        for site in sorted({*self.known.sites, *sizes, *everywhere} - {origin}):
            if shorter or not self._is_read(site):
                continue
            here = sizes.get(site, 0)
            mine = self._longest(site)
            if mine is not None and mine[0] > here:
                words = f"{site}'s copy of {self.journal} is shorter than it sealed: it has {here} records"
                self._shorter(words, *mine)
            elif not origin_read and (most := self._longest(None)) is not None and most[0] > here:
                self._behind(site, here, *most)

    def _shorter(self, words: str, size: int, seal: SealName) -> None:
        self.findings.find(_SEAL, f"{words}, {seal} has {size}", self.seals._place(seal))

    def _behind(self, site: Site, here: int, size: int, seal: SealName) -> None:
        """A copy whose original was not read lacks what is sealed: on its way, or lost."""
        sealed_ms = self.seals._chains[seal.site].last_ms
        if self.findings.past(sealed_ms) >= self.young_ms:
            self.findings.wait(_SEAL, f"sealed records in flight to {site}", size - here)
            return
        words = f"{site}'s copy of {self.journal} lacks sealed records: it has {here}"
        self._shorter(words, size, seal)

    def _rivals(self, reached: int) -> None:
        """Two sites sealed one size with two roots, of which no tree that was read tells."""
        sizes, told = self.known.sizes, Counter[Site]()
        for at in range(max(1, bisect_right(sizes, reached)), len(sizes)):
            one, other = self.known.seal(at - 1), self.known.seal(at)
            if sizes[at - 1] != sizes[at] or sizes[at] <= reached or self.known.root(at - 1) == self.known.root(at):
                continue
            told[other.site] += 1
            if told[other.site] == 1 and one.site != other.site:
                words = (
                    f"{one.site} and {other.site} sealed two histories of {self.journal}, of {sizes[at]} records each"
                )
                self.findings.find(_SEAL, words, self.seals._place(one), self.seals._place(other))
