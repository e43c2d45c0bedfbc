"""I1, I2 (as far as the log tells) and I4 of one transfer: what its completion says against everything else said.

Storage is not looked at here. Which sites could be read decides between a finding and "not checkable".
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.core import records as m
from streams.core.ledger.claims import Claim, Files, IntentClaims, ManifestClaim, ManifestClaims, TransferClaims
from streams.core.ledger.findings import FindingList, Invariant
from streams.core.ledger.landed import judge_landed
from streams.core.names import Destination, ManifestId, Site
from streams.core.ranges import EMPTY, Ranges

_I1, _I2, _I4 = Invariant.CONSERVATION, Invariant.NO_LIE, Invariant.ONE_EFFECT


@dataclass(frozen=True, slots=True)
class TransferJudge:
    """Judges one transfer. `sites`: all there are; `read`: those whose journals were replayed whole."""

    sites: frozenset[Site]
    read: frozenset[Site]
    findings: FindingList
    manifest: ManifestId
    site: Destination
    transfer: TransferClaims

    def judge(self, intent: IntentClaims, row: ManifestClaims) -> None:
        completion, written = self.transfer.completions.first, row.written.first
        self._one_effect()
        if completion is None:
            self._unfinished()
            self._meant_for(intent)
        else:
            self._decided(intent, written, completion)
            self._adds_up(completion, row.written.ranked)
            self._evidence(completion)
            if not self.site.consumer:  # which is its own last word, and keeps no files
                self._closed(completion)
                if self.site.site in self.read:
                    judge_landed(self.manifest, self.site, self.transfer, completion, self.findings)
        if written is not None and not self.site.consumer:
            self._catalogue(written, completion)
        if self.site.site in self.read:
            self._brought(written)

    def _one_effect(self) -> None:
        said = self.transfer.completions.ranked
        if said:
            self.findings.check(_I4)
        for other in said[1:]:
            words = f"two different completions of {self.manifest} at {self.site}: {_differ(said[0].word, other.word)}"
            self.findings.find(_I4, words, said[0].place, other.place)
        ends = self.transfer.closed.ranked
        for end in ends[1:]:
            words = f"{self.manifest} closed twice at {self.site}: {_differ(ends[0].word, end.word)}"
            self.findings.find(_I4, words, ends[0].place, end.place)

    def _unfinished(self) -> None:
        closed = self.transfer.closed.first
        if closed is None:
            return
        self.findings.check(_I1)
        words = f"{self.manifest} closed at {self.site} as {closed.word.ended}, but its completion is nowhere"
        self.findings.miss(_I1, words, closed.at_ms, closed.place)

    def _meant_for(self, intent: IntentClaims) -> None:
        """Work for who is no destination of the intent, before any completion says so."""
        heard = self.transfer.heard
        accepted = [
            d for words in intent.decisions.values() for d in words.ranked if d.word.verdict is not m.Verdict.REFUSED
        ]
        if heard is None or not accepted or self.manifest.intent.home not in self.read:
            return
        if all(self.site not in d.word.body.destinations for d in accepted):
            words = f"{heard.kind} of {self.manifest} at {self.site}, which is no destination of its intent"
            self.findings.find(_I4, words, heard.place, accepted[0].place)

    def _decided(
        self, intent: IntentClaims, written: Claim[ManifestClaim] | None, completion: Claim[m.CompletionRecord]
    ) -> None:
        self.findings.check(_I4)
        home, title = self.manifest.intent.home, f"{self.manifest} completed at {self.site}"
        decisions = [d for words in intent.decisions.values() for d in words.ranked]
        if not decisions:
            if home in self.read or home not in self.sites:
                words = f"{title} without any decision of {home}"
                self.findings.miss(_I4, words, completion.at_ms, completion.place)
            else:
                self.findings.cannot(_I4, f"decisions of {home}: not read")
            return
        accepted = [d for d in decisions if d.word.verdict is m.Verdict.ACCEPTED]
        same_no = [d for d in accepted if d.word.source_no == self.manifest.source_no]
        if not accepted:
            places = (completion.place, decisions[0].place)
            self.findings.find(_I4, f"{title}, but its intent was never accepted", *places)
        elif all(self.site not in d.word.body.destinations for d in accepted):
            places = (completion.place, accepted[0].place)
            self.findings.find(_I4, f"{title}, which is no destination of its intent", *places)
        elif written is not None and all(d.word.source != written.word.source for d in same_no) and same_no:
            decided = same_no[0].word.source
            words = f"{self.manifest} was written by {written.word.source}, the source decided is {decided}"
            self.findings.find(_I4, words, completion.place, written.place, same_no[0].place)
        elif all(d.word.source_no < self.manifest.source_no for d in accepted):
            places = (completion.place, accepted[0].place)
            words = f"{title}: no decision has this source number"
            self.findings.miss(_I4, words, completion.at_ms, *places)

    def _adds_up(self, said: Claim[m.CompletionRecord], written: list[Claim[ManifestClaim]]) -> None:
        """The completion against the manifest: which one, how many items, each once, how many bytes."""
        self.findings.check(_I1)
        done, title = said.word, f"completion of {self.manifest} at {self.site}"
        faults = _partition_faults(done)
        if not written:
            if self.read >= self.sites:
                self.findings.miss(_I1, f"{title}: nobody wrote that manifest", said.at_ms, said.place)
            else:
                self.findings.cannot(_I1, f"manifests written at {', '.join(sorted(self.sites - self.read))}: not read")
        else:
            first = written[0]
            meant = next((w for w in written if w.word.sha256 == done.manifest_sha256), None)
            if meant is None:
                faults.append("its sha256 is not the manifest's")
            elif meant is not first:
                faults.append(f"it follows the manifest at {meant.place}, not the first one in the partition")
            if done.items != first.word.items:
                faults.append(f"it counts {done.items} items, the manifest has {first.word.items}")
            else:
                lands = first.word.in_entries and not self.site.consumer
                became = Ranges.of(*(one.item for one in done.landed))
                if lands and became != done.sealed:
                    faults.append(f"items {_some(done.sealed - became)} are sealed, and no file of theirs is told")
                size = done.bytes if lands else first.word.bytes_of(done.sealed)
                if done.bytes != size:
                    faults.append(f"it says {done.bytes} bytes, its sealed items have {size}")
                if done.sealed & first.word.lacking:
                    faults.append(f"items {_some(done.sealed & first.word.lacking)} are sealed, yet nobody held them")
        for fault in faults:
            self.findings.find(_I1, f"{title}: {fault}", said.place, *(w.place for w in written[:1]))

    def _evidence(self, said: Claim[m.CompletionRecord]) -> None:
        """Sealed without any plane having said so."""
        if self.site.site in self.sites and self.site.site not in self.read:
            self.findings.cannot(_I2, f"what the planes of {self.site} sealed: not read")
            return
        self.findings.check(_I2)
        unproven = said.word.sealed - self.transfer.evidence
        if unproven:
            title = f"completion of {self.manifest} at {self.site}"
            words = f"{title}: items {_some(unproven)} are called sealed, no plane said so"
            self.findings.miss(_I2, words, said.at_ms, said.place)

    def _closed(self, said: Claim[m.CompletionRecord]) -> None:
        closed = self.transfer.closed.first
        if closed is None:
            if self.site in self.read:
                self.findings.wait(_I1, "transfers completed, not yet closed")
        elif closed.word != said.word:
            how = _differ(closed.word, said.word)
            words = f"{self.manifest} closed at {self.site} with another completion than published: {how}"
            self.findings.find(_I1, words, closed.place, said.place)

    def _catalogue(self, written: Claim[ManifestClaim], completion: Claim[m.CompletionRecord] | None) -> None:
        """Files announced as held against the manifest's items and the completion's list, both ways."""
        items, told = written.word.files.landed(completion.word.landed if completion is not None else ()), EMPTY
        number_of = {name: n for n, name in enumerate(items.names)} if self.transfer.held else {}
        for held in self.transfer.held.ranked:
            self.findings.check(_I2)
            found = []
            for n, name in enumerate(held.word.files.names):
                item = number_of.get(name)
                if item is None:
                    words = f"file {n} of a FilesHeld of {self.site} is not in {self.manifest}, which it names"
                    self.findings.find(_I2, words, held.place, written.place)
                    continue
                found.append(item)
                why = held.word.files.differ(n, items, item)
                if why:
                    words = f"file {n} of a FilesHeld of {self.site} is item {item} of {self.manifest}, but has {why}"
                    self.findings.find(_I2, words, held.place, written.place)
            here = Ranges.of(*found)
            told = told | here
            if completion is not None and (extra := here - completion.word.sealed):
                what = f"items {_some(extra)} of {self.manifest} are held at {self.site}"
                words = f"{what}, its completion does not list them"
                self.findings.find(_I2, words, held.place, completion.place)
            elif completion is None and self.site.site in self.read and (extra := here - self.transfer.evidence):
                words = f"items {_some(extra)} of {self.manifest} are held at {self.site}, no plane sealed them"
                self.findings.miss(_I2, words, held.at_ms, held.place)
        if completion is not None and self.transfer.closed and self.site in self.read:
            untold = completion.word.sealed - told - _without_adler(items)
            if untold:
                words = f"items {_some(untold)} of {self.manifest} are sealed at {self.site}, no FilesHeld says so"
                self.findings.miss(_I1, words, completion.at_ms, completion.place)

    def _brought(self, written: Claim[ManifestClaim] | None) -> None:
        """What is held by a transfer that cannot have been. A worker says what it holds after its own plan."""
        held = next((one for one in self.transfer.held.ranked if "." not in one.place.topic), None)
        if held is None:
            return
        if written is None and self.read == self.sites:
            why = "which nobody wrote"
        elif self.transfer.planned is None and not self.transfer.completions:
            why = "which was never planned there"
        else:
            return
        words = f"{self.site} says it holds files of {held.word.dataset} by {self.manifest}, {why}"
        self.findings.miss(_I2, words, held.at_ms, held.place)


def _without_adler(files: Files) -> Ranges:
    return Ranges.of(*(n for n, adler in enumerate(files.adlers) if adler < 0))


def _partition_faults(done: m.CompletionRecord) -> list[str]:
    lost = EMPTY
    for group in done.failed:
        lost = lost | group.items
    counted = done.sealed.size + done.cancelled.size + sum(group.items.size for group in done.failed)
    faults = []
    if counted != done.items or (done.sealed | lost | done.cancelled) != Ranges([(0, done.items)]):
        faults.append("its items are not each sealed, failed or cancelled once")
    if (done.ended is m.Ended.DONE) != (done.sealed.size == done.items):
        faults.append(f"it ended {done.ended} with {done.sealed.size} of {done.items} items sealed")
    return faults


def _differ(one: m.CompletionRecord, other: m.CompletionRecord) -> str:
    fields = ("ended", "items", "sealed", "failed", "cancelled", "bytes", "manifest_sha256", "landed")
    names = [name for name in fields if getattr(one, name) != getattr(other, name)]
    return "they differ in " + ", ".join(names) if names else "same fields, other bytes"


def _some(items: Ranges) -> str:
    """At most five spans, in words."""
    shown = [str(a) if b == a + 1 else f"{a}…{b - 1}" for a, b in items.spans[:5]]
    return ", ".join(shown) + (f" and more ({items.size})" if len(items.spans) > 5 else "")
