"""Where replicas come from, and what manifests say of them: each word about a file leans on one of its holder.

A replica comes from a transfer, or from a registration, which no worker and no plane writes; what is given up was held;
a manifest names holders that said they hold the file, and its size and checksum as they said them. What it cannot
prove: that a registered file is there (`audit --storage`), nor when, between two journals, a holder's word still stood:
any earlier or later word of it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streams.core.ledger.claims import Claim, Claims, ManifestClaim
from streams.core.ledger.files import ReplicaJudge, Said
from streams.core.ledger.findings import FindingList, Invariant
from streams.core.names import ManifestId, Site
from streams.core.ranges import Ranges

_I2 = Invariant.NO_LIE
_NEVER_REGISTER = frozenset(("worker", "plane"))


@dataclass(frozen=True, slots=True)
class OriginJudge:
    """`roles`: of the incarnations of each site that announced one. `read`: sites whose journals were read whole."""

    replicas: ReplicaJudge
    roles: Mapping[tuple[Site, str], str]
    read: frozenset[Site]
    findings: FindingList

    def judge(self, claims: Claims) -> None:
        for number, said in enumerate(self.replicas.said):
            if said.site not in self.read or "." in said.place.topic:
                continue
            if said.is_loss:
                self._loss(number, said)
            elif said.manifest is None:
                self._registration(said)
        for intent, row in sorted(claims.intents.items()):
            for (source_no, no), manifest in sorted(row.manifests.items()):
                for written in manifest.written.ranked:
                    self._manifest(ManifestId.of(intent, source_no, no), written)

    def _registration(self, said: Said) -> None:
        role = self.roles.get((said.site, said.incarnation))
        self.findings.check(_I2)
        if role in _NEVER_REGISTER:
            words = (
                f"a {role} of {said.site} says it holds files of {said.dataset} that no transfer brought: "
                "only who registers says so"
            )
            self.findings.find(_I2, words, said.place)

    def _loss(self, number: int, said: Said) -> None:
        self.findings.check(_I2)
        for at, name in enumerate(self.replicas.names_of(number)):
            if not any(
                held and one.site == said.site and one.dataset == said.dataset and one.place < said.place
                for one, _, _, held in self.replicas.of_name(name)
            ):
                words = f"{said.site} gives up file {at} of its FilesLost of {said.dataset}, which it never held"
                self.findings.find(_I2, words, said.place)

    def _manifest(self, manifest: ManifestId, written: Claim[ManifestClaim]) -> None:
        word = written.word
        for holders, what in ((word.holders, "its holder"), (word.others, "who also has it")):
            for holder, items in holders:
                if holder not in self.read:
                    self.findings.cannot(_I2, f"what {holder} holds: not read")
                    continue
                self.findings.check(_I2)
                self._holder(manifest, written, holder, items, what)

    def _holder(
        self, manifest: ManifestId, written: Claim[ManifestClaim], holder: Site, items: Ranges, what: str
    ) -> None:
        """Each item as this site said it of the file, ever; a finding for the first of each kind, with the count."""
        word = written.word
        never: list[int] = []
        other: list[tuple[int, str, Said]] = []
        for item in (items - word.lacking).numbers():
            said = [one for one in self.replicas.of_name(word.lfns[item]) if one[0].site == holder and one[3]]
            if not said:
                never.append(item)
            elif word.lfns[item] == word.files.names[item]:  # of a part the file's size is not the item's
                size, adler = word.files.bytes[item], word.files.adlers[item]
                if not any(one[1:3] == (size, adler) for one in said):
                    last, its_size, its_adler, _ = said[-1]
                    why = f"{size} bytes and adler32 {adler:08x}, {what} {holder} said {its_size} and {its_adler:08x}"
                    other.append((item, why, last))
        if never:
            more = f" (and {len(never) - 1} more items)" if len(never) > 1 else ""
            words = f"{manifest} names {holder} as {what} of item {never[0]}{more}, which never said it held it"
            self.findings.miss(_I2, words, written.at_ms, written.place)
        if other:
            item, why, last = other[0]
            more = f" (and {len(other) - 1} more items)" if len(other) > 1 else ""
            words = f"item {item} of {manifest}{more} has {why}"
            self.findings.miss(_I2, words, written.at_ms, written.place, last.place)
