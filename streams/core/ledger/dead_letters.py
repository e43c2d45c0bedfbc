"""Dead letters: which records they answer for, letters that point at nothing, and letters over good records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass

from streams.core import records as m
from streams.core.ledger.claims import IntentClaims
from streams.core.ledger.findings import FindingList, Invariant, LogPosition
from streams.core.ledger.journals import Journal, PartitionId
from streams.core.names import IntentId, ManifestId, Site

_I6 = Invariant.NOT_SILENT

ClaimsOf = Callable[[IntentId], IntentClaims]
"""What was said of an intent; nothing, of one that is not known."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: where it stands, when and by which incarnation of its site it was written, and why."""

    place: LogPosition
    at_ms: int
    incarnation: str
    reason: str


@dataclass(slots=True)
class _Buried:
    """A record that the gate accepts and a letter refuses.

    `intent`: of a body, which may be the second of its id. `manifest`: that it is about, which may never have been.
    """

    content: int
    kind: str
    intent: IntentId | None
    manifest: ManifestId | None
    said_again: bool = False


class DeadLetters:
    """Offsets that dead letters of a site point at, by partition; memory grows with the letters. `release`: today's."""

    def __init__(self, release: int) -> None:
        self._release = release
        self._letters: dict[PartitionId, dict[int, Letter]] = {}
        self._asked: dict[PartitionId, set[int]] = {}
        self._buried: dict[PartitionId, dict[int, _Buried]] = {}
        self._located: dict[PartitionId, set[int]] = {}
        """Offsets that letters point at and a second reading was made for."""

    def bury(self, place: LogPosition, origin: m.Origin, letter: m.DeadLetter) -> None:
        """A site's dead letter speaks of that site's cluster only."""
        letters = self._letters.setdefault((place.site, letter.topic, letter.partition), {})
        before = letters.get(letter.offset)
        if before is None or place < before.place:
            letters[letter.offset] = Letter(place, origin.at_ms, origin.incarnation, letter.reason)

    def absorb(self, other: DeadLetters) -> None:
        """Know also the letters that another ledger read."""
        for partition, letters in other._letters.items():
            mine = self._letters.setdefault(partition, {})
            for offset, letter in letters.items():
                if offset not in mine or letter.place < mine[offset].place:
                    mine[offset] = letter

    def of(self, partition: PartitionId) -> Set[int]:
        return self._letters.get(partition, {}).keys()

    def asked(self, journals: Mapping[PartitionId, Journal]) -> Iterator[PartitionId]:
        """Partitions in which a letter refuses a record that the gate accepts: to be read once more."""
        for key, letters in self._letters.items():
            journal = journals.get(key)
            if journal is not None:
                good = {o for o in letters if o < journal.next_offset and o not in journal.refused}
                if good:
                    self._asked[key] = good
                    self._located.setdefault(key, set()).update(good)
                    yield key

    def unlooked(self, journals: Mapping[PartitionId, Journal]) -> bool:
        """Whether a letter refuses a record that the gate accepts, and no second reading was made for it yet."""
        return any(
            o not in self._located.get(key, ()) and o < journals[key].next_offset and o not in journals[key].refused
            for key, letters in self._letters.items()
            if key in journals
            for o in letters
        )

    def watches(self, partition: PartitionId) -> bool:
        """Whether a record of it was buried, which may be said again."""
        return partition in self._buried

    def locate(self, place: LogPosition, content: int, message: Callable[[], m.Message | None]) -> None:
        """A record of the second reading: one that was buried, or the same one said again behind it."""
        key = place[:3]
        asked = self._asked.get(key)
        if asked is None:
            return
        buried = self._buried.setdefault(key, {})
        if place.offset in asked:
            found = message()
            if found is not None:
                intent = found.intent if isinstance(found, m.TransferIntent) else None
                manifest = getattr(found, "manifest", None)
                buried[place.offset] = _Buried(content, type(found).__name__, intent, manifest)
        elif place.offset not in self._letters[key]:
            for one in buried.values():
                one.said_again |= one.content == content

    def judge(
        self,
        journals: Mapping[PartitionId, Journal],
        claims: ClaimsOf,
        releases: Mapping[tuple[Site, str], int],
        young_ms: int,
        findings: FindingList,
    ) -> None:
        """Letters past the end of what was read are false, unless written since `young_ms`, while we read.

        `releases`: of each incarnation that told its own.
        """
        for key, letters in sorted(self._letters.items()):
            _, topic, partition = key
            journal = journals.get(key)
            if journal is None and "chunks-to-" in topic:
                findings.cannot(_I6, "dead letters of payload records: not journals", len(letters))
                continue
            end = 0 if journal is None else journal.next_offset
            buried = self._buried.get(key, {})
            for offset, letter in sorted(letters.items()):
                if offset < end:
                    findings.check(_I6)
                    if offset in buried:
                        self._judge_buried(
                            LogPosition(*key, offset), buried[offset], letter, claims, releases, findings
                        )
                elif findings.past(letter.at_ms) < young_ms:
                    words = f"a dead letter points at {topic}[{partition}]@{offset}, which was never there"
                    findings.find(_I6, words, letter.place)

    def _judge_buried(
        self,
        place: LogPosition,
        buried: _Buried,
        letter: Letter,
        claims: ClaimsOf,
        releases: Mapping[tuple[Site, str], int],
        findings: FindingList,
    ) -> None:
        if buried.said_again:
            return
        if buried.intent is not None and len(claims(buried.intent).bodies.ranked) > 1:
            return
        words = f"a dead letter refuses a {buried.kind} that the gate accepts ({letter.reason})"
        name = f"{letter.place.partition}:{letter.place.offset}"
        release = releases.get((letter.place.site, letter.incarnation), self._release)
        if release < self._release:
            words += f"; release {release} wrote it: `transfer2go --site {letter.place.site} dlq requeue {name}`"
            findings.note(_I6, words, letter.place, place)
        elif buried.manifest is not None and not _is_written(buried.manifest, claims):
            findings.note(_I6, f"{words}; it is about {buried.manifest}, which nobody wrote", letter.place, place)
        else:
            findings.find(_I6, f"{words}; nobody has said it again", letter.place, place)


def _is_written(manifest: ManifestId, claims: ClaimsOf) -> bool:
    row = claims(manifest.intent).manifests.get((manifest.source_no, manifest.no))
    return row is not None and bool(row.written)
