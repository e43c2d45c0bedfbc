"""Replicas over all sites: one name has one content, and each comes from a registration or a transfer.

Names are hashes here: 28 bytes a replica. A second reading gives the names that findings tell.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from streams.core import records as m
from streams.core.ledger.claims import Claims, name_hash
from streams.core.ledger.findings import FINDINGS_MAX, FindingList, Invariant, LogPosition
from streams.core.ledger.journals import PartitionId
from streams.core.names import Dataset, ManifestId, Site

_I2, _I4 = Invariant.NO_LIE, Invariant.ONE_EFFECT
_LOST = (1 << 64) - 1
"""Stands for the size of what was given up."""


@dataclass(frozen=True, slots=True)
class Said:
    """One FilesHeld or FilesLost: its files are those from `start` on."""

    place: LogPosition
    at_ms: int
    site: Site
    dataset: Dataset
    manifest: ManifestId | None
    start: int
    incarnation: str
    is_loss: bool = False


class ReplicaJudge:
    """What sites said they hold and gave up, in each journal's order."""

    def __init__(self) -> None:
        self._said: list[Said] = []
        self._names, self._bytes, self._adlers, self._by = array("Q"), array("Q"), array("I"), array("I")
        self._conflicts: list[tuple[int, int]] = []
        """Two files of one name and different contents that stand beside each other."""
        self._more = self._count = 0
        self._order = array("I")
        self._asked: dict[LogPosition, set[int]] = {}
        self._lfns: dict[int, str] = {}

    def hear(self, place: LogPosition, origin: m.Origin, message: m.FilesHeld | m.FilesLost) -> None:
        """The next record of its journal, and who wrote it; a copy counts where the original is not read."""
        by, start = len(self._said), len(self._names)
        if isinstance(message, m.FilesHeld):
            manifest = message.manifest
            self._names.extend(name_hash(file.lfn) for file in message.files)
            self._bytes.extend(file.bytes for file in message.files)
            self._adlers.extend(int(file.adler32, 16) for file in message.files)
        else:
            manifest = None
            self._names.extend(name_hash(lfn) for lfn in message.lfns)
            self._bytes.extend([_LOST] * len(message.lfns))
            self._adlers.extend([0] * len(message.lfns))
        is_loss = isinstance(message, m.FilesLost)
        self._said.append(
            Said(place, origin.at_ms, message.site, message.dataset, manifest, start, origin.incarnation, is_loss)
        )
        self._by.extend([by] * (len(self._names) - len(self._by)))

    def asked(self, claims: Claims, read: Collection[Site]) -> Iterator[PartitionId]:
        """Partitions to be read once more for the names of files with two contents. `read`: sites that were read."""
        self._compare(claims, read)
        for files in self._conflicts:
            for file in files:
                self._asked.setdefault(self._said[self._by[file]].place, set()).add(file)
        yield from {place[:3] for place in self._asked}

    def _compare(self, claims: Claims, read: Collection[Site]) -> None:
        self._conflicts, self._more, self._asked = [], 0, {}
        converted: dict[int, bool] = {}
        names, by = self._names, self._by
        self._count = 0
        for _, group in groupby(self.in_order(), key=names.__getitem__):
            self._count += 1
            files = list(group)
            if len(files) == 1:
                continue
            last: dict[tuple[Site, Dataset], int] = {}
            for file in files:
                said = self._said[by[file]]
                if "." in said.place.topic and said.site in read:
                    continue
                before = last.get((said.site, said.dataset))
                if before is not None and self._replaces(before, file, claims, converted):
                    self._conflict(before, file)
                last[said.site, said.dataset] = file
            standing = sorted(
                (file for file in last.values() if self._bytes[file] != _LOST),
                key=lambda file: self._said[by[file]].place.rank,
            )
            other = next((file for file in standing[1:] if self._content(file) != self._content(standing[0])), None)
            if other is None or any(self._is_converted(by[file], claims, converted) for file in standing):
                continue
            self._conflict(standing[0], other)

    def _conflict(self, one: int, other: int) -> None:
        if len(self._conflicts) < FINDINGS_MAX:
            self._conflicts.append((one, other))
        else:
            self._more += 1

    def _replaces(self, before: int, file: int, claims: Claims, converted: dict[int, bool]) -> bool:
        """Whether a transfer says it gave a name another content than one before it: a name is given once."""
        one, other = self._said[self._by[before]].manifest, self._said[self._by[file]].manifest
        if one is None or other is None or one == other or self._content(before) == self._content(file):
            return False
        return not any(self._is_converted(self._by[each], claims, converted) for each in (before, file))

    # what other judges ask

    @property
    def said(self) -> Sequence[Said]:
        return self._said

    def in_order(self) -> array[int]:
        """Numbers of all files by the hash of their name, and of one name in the order in which they were heard."""
        if len(self._order) != len(self._names):
            self._order = array("I", sorted(range(len(self._names)), key=self._names.__getitem__))
        return self._order

    def of_name(self, name: int) -> Iterator[tuple[Said, int, int, bool]]:
        """(record, bytes, adler32, whether it is held) of each original word on a name, by its hash."""
        order, names = self.in_order(), self._names
        at = bisect_left(order, name, key=names.__getitem__)
        while at < len(order) and names[order[at]] == name:
            file = order[at]
            said, (size, adler) = self._said[self._by[file]], self._content(file)
            if "." not in said.place.topic:
                yield said, size, adler, size != _LOST
            at += 1

    def names_of(self, number: int) -> array[int]:
        """Hashes of the names in the record of this number."""
        stop = self._said[number + 1].start if number + 1 < len(self._said) else len(self._names)
        return self._names[self._said[number].start : stop]

    def has(self, site: Site, name: int, manifest: ManifestId) -> bool:
        """Whether the site says that it holds the name by another record than those of this transfer."""
        return any(said.site == site and held and said.manifest != manifest for said, _, _, held in self.of_name(name))

    def _content(self, file: int) -> tuple[int, int]:
        return self._bytes[file], self._adlers[file]

    def _is_converted(self, by: int, claims: Claims, known: dict[int, bool]) -> bool:
        """Whether a destination made these files from entries: two sites may write the same entries as other bytes."""
        if by not in known:
            manifest = self._said[by].manifest
            written = None if manifest is None else claims.manifest(manifest).written.first
            known[by] = written is not None and written.word.in_entries
        return known[by]

    def locate(self, place: LogPosition, message: Callable[[], m.Message | None]) -> None:
        files = self._asked.get(place)
        if not files:
            return
        found = message()
        if isinstance(found, m.FilesHeld):
            for file in files:
                self._lfns[file] = found.files[file - self._said[self._by[file]].start].lfn

    def judge(self, claims: Claims, sites: Collection[Site], is_complete: bool, findings: FindingList) -> None:
        """`sites`: whose journals were all read whole; `is_complete`: they are those of the whole federation."""
        findings.check(_I4, self._count)
        for one, other in self._conflicts:
            both = [self._said[self._by[file]] for file in (one, other)]
            if any(findings.past(word.at_ms) >= findings.began_ms for word in both):
                findings.wait(_I4, "written while the audit was reading")  # what gave up the other may not be read
                continue
            lfn = self._lfns.get(one) or self._lfns.get(other) or "a file"
            words = f"{lfn} has two contents: {self._told(one)}, and {self._told(other)}"
            findings.find(_I4, words, *(word.place for word in both))
        if self._more:
            findings.find(_I4, f"{self._more} more files have two contents")
        told: set[tuple[Site, ManifestId]] = set()
        for said in self._said:
            if said.manifest is None or said.site not in sites or "." in said.place.topic:
                continue
            if (said.site, said.manifest) in told:
                continue
            why = self._from_nothing(said.manifest, said.site, claims, is_complete)
            if why is not None:
                told.add((said.site, said.manifest))
                words = f"{said.site} says it holds files of {said.dataset} by {said.manifest}, {why}"
                findings.miss(_I2, words, said.at_ms, said.place)

    def _told(self, file: int) -> str:
        said = self._said[self._by[file]]
        size, adler = self._content(file)
        return f"{size} bytes with adler32 {adler:08x} at {said.site} in {said.dataset}"

    def _from_nothing(self, manifest: ManifestId, site: Site, claims: Claims, is_complete: bool) -> str | None:
        """Why no transfer can have brought it, or None. A worker says what it holds after its own plan."""
        row = claims.known(manifest)
        if is_complete and (row is None or not row.written):
            return "which nobody wrote"
        transfer = None if row is None else next((t for d, t in row.transfers.items() if d == site), None)
        if transfer is None or (transfer.planned is None and not transfer.completions):
            return "which was never planned there"
        return None
