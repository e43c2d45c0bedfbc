"""I1, I2 (as far as the log tells) and I4 of one transfer: what its completion says against everything else said.

Storage is not looked at here. Which sites could be read decides between a finding and "not checkable".
"""

from __future__ import annotations

from collections.abc import Iterable

from streams.core import records as m
from streams.core.ledger.claims import Claim, Files, IntentClaims, ManifestClaim, ManifestClaims, TransferClaims
from streams.core.ledger.findings import FindingList, Invariant
from streams.core.names import Destination, ManifestId, Site
from streams.core.ranges import EMPTY, Ranges

_I1, _I2, _I4 = Invariant.CONSERVATION, Invariant.NO_LIE, Invariant.ONE_EFFECT


class TransferJudge:
    """Judges one transfer after the other. `read`: the sites whose journals were replayed; `sites`: all there are."""

    def __init__(self, sites: Iterable[Site], read: Iterable[Site], findings: FindingList) -> None:
        self._sites = frozenset(sites)
        self._read = frozenset(read)
        self._findings = findings

    def judge(
        self,
        manifest: ManifestId,
        site: Destination,
        intent: IntentClaims,
        row: ManifestClaims,
        transfer: TransferClaims,
    ) -> None:
        completion, written = transfer.completions.first, row.written.first
        self._one_effect(manifest, site, transfer)
        if completion is None:
            self._unfinished(manifest, site, transfer)
        else:
            self._decided(manifest, site, intent, written, completion)
            self._adds_up(manifest, site, completion, row.written.ranked)
            self._evidence(manifest, site, completion, transfer)
            if not site.consumer:  # which is its own last word, and keeps no files
                self._closed(manifest, site, completion, transfer)
        if written is not None and not site.consumer:
            self._catalogue(manifest, site, written, completion, transfer)

    def _one_effect(self, manifest: ManifestId, site: Destination, transfer: TransferClaims) -> None:
        said = transfer.completions.ranked
        if said:
            self._findings.check(_I4)
        for other in said[1:]:
            words = f"two different completions of {manifest} at {site}: {_differ(said[0].word, other.word)}"
            self._findings.find(_I4, words, said[0].place, other.place)
        ends = transfer.closed.ranked
        for end in ends[1:]:
            words = f"{manifest} closed twice at {site}: {_differ(ends[0].word, end.word)}"
            self._findings.find(_I4, words, ends[0].place, end.place)

    def _unfinished(self, manifest: ManifestId, site: Destination, transfer: TransferClaims) -> None:
        closed = transfer.closed.first
        if closed is None:
            return
        self._findings.check(_I1)
        words = f"{manifest} closed at {site} as {closed.word.ended}, but its completion is nowhere"
        self._findings.miss(_I1, words, closed.at_ms, closed.place)

    def _decided(
        self,
        manifest: ManifestId,
        site: Destination,
        intent: IntentClaims,
        written: Claim[ManifestClaim] | None,
        completion: Claim[m.CompletionRecord],
    ) -> None:
        self._findings.check(_I4)
        home = manifest.intent.home
        decisions = [d for words in intent.decisions.values() for d in words.ranked]
        if not decisions:
            if home in self._read or home not in self._sites:
                words = f"{manifest} completed at {site} without any decision of {home}"
                self._findings.miss(_I4, words, completion.at_ms, completion.place)
            else:
                self._findings.cannot(_I4, f"decisions of {home}: not read")
            return
        accepted = [d for d in decisions if d.word.verdict is m.Verdict.ACCEPTED]
        same_no = [d for d in accepted if d.word.source_no == manifest.source_no]
        if not accepted:
            places = (completion.place, decisions[0].place)
            self._findings.find(_I4, f"{manifest} completed at {site}, but its intent was never accepted", *places)
        elif all(site not in d.word.body.destinations for d in accepted):
            places = (completion.place, accepted[0].place)
            self._findings.find(_I4, f"{manifest} completed at {site}, which is no destination of its intent", *places)
        elif written is not None and all(d.word.source != written.word.source for d in same_no) and same_no:
            words = f"{manifest} was written by {written.word.source}, the source decided is {same_no[0].word.source}"
            self._findings.find(_I4, words, completion.place, written.place, same_no[0].place)
        elif all(d.word.source_no < manifest.source_no for d in accepted):
            places = (completion.place, accepted[0].place)
            words = f"{manifest} completed at {site}: no decision has this source number"
            self._findings.miss(_I4, words, completion.at_ms, *places)

    def _adds_up(
        self,
        manifest: ManifestId,
        site: Destination,
        said: Claim[m.CompletionRecord],
        written: list[Claim[ManifestClaim]],
    ) -> None:
        """The completion against the manifest: which one, how many items, each once, how many bytes."""
        self._findings.check(_I1)
        done, title = said.word, f"completion of {manifest} at {site}"
        faults = _partition_faults(done)
        if not written:
            if self._read >= self._sites:
                self._findings.miss(_I1, f"{title}: nobody wrote that manifest", said.at_ms, said.place)
            else:
                self._findings.cannot(
                    _I1, f"manifests written at {', '.join(sorted(self._sites - self._read))}: not read"
                )
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
                lands = first.word.in_entries and not site.consumer
                became = Ranges.of(*(one.item for one in done.landed))
                if lands and became != done.sealed:
                    faults.append(f"items {_some(done.sealed - became)} are sealed, and no file of theirs is told")
                size = done.bytes if lands else first.word.bytes_of(done.sealed)
                if done.bytes != size:
                    faults.append(f"it says {done.bytes} bytes, its sealed items have {size}")
                if done.sealed & first.word.lacking:
                    faults.append(f"items {_some(done.sealed & first.word.lacking)} are sealed, yet nobody held them")
        for fault in faults:
            self._findings.find(_I1, f"{title}: {fault}", said.place, *(w.place for w in written[:1]))

    def _evidence(
        self, manifest: ManifestId, site: Destination, said: Claim[m.CompletionRecord], transfer: TransferClaims
    ) -> None:
        """Sealed without any plane having said so."""
        if site.site in self._sites and site.site not in self._read:
            self._findings.cannot(_I2, f"what the planes of {site} sealed: not read")
            return
        self._findings.check(_I2)
        unproven = said.word.sealed - transfer.evidence
        if unproven:
            words = f"completion of {manifest} at {site}: items {_some(unproven)} are called sealed, no plane said so"
            self._findings.miss(_I2, words, said.at_ms, said.place)

    def _closed(
        self, manifest: ManifestId, site: Destination, said: Claim[m.CompletionRecord], transfer: TransferClaims
    ) -> None:
        closed = transfer.closed.first
        if closed is None:
            if site in self._read:
                self._findings.wait(_I1, "transfers completed, not yet closed")
        elif closed.word != said.word:
            words = (
                f"{manifest} closed at {site} with another completion than published: {_differ(closed.word, said.word)}"
            )
            self._findings.find(_I1, words, closed.place, said.place)

    def _catalogue(
        self,
        manifest: ManifestId,
        site: Destination,
        written: Claim[ManifestClaim],
        completion: Claim[m.CompletionRecord] | None,
        transfer: TransferClaims,
    ) -> None:
        """Files announced as held against the manifest's items and the completion's list, both ways."""
        items, told = written.word.files.landed(completion.word.landed if completion is not None else ()), EMPTY
        number_of = {name: n for n, name in enumerate(items.names)} if transfer.held else {}
        for held in transfer.held.ranked:
            self._findings.check(_I2)
            found = []
            for n, name in enumerate(held.word.names):
                item = number_of.get(name)
                if item is None:
                    words = f"file {n} of a FilesHeld of {site} is not in {manifest}, which it names"
                    self._findings.find(_I2, words, held.place, written.place)
                    continue
                found.append(item)
                why = held.word.differ(n, items, item)
                if why:
                    words = f"file {n} of a FilesHeld of {site} is item {item} of {manifest}, but has {why}"
                    self._findings.find(_I2, words, held.place, written.place)
            here = Ranges.of(*found)
            told = told | here
            if completion is not None and (extra := here - completion.word.sealed):
                words = f"items {_some(extra)} of {manifest} are held at {site}, its completion does not list them"
                self._findings.find(_I2, words, held.place, completion.place)
        if completion is not None and transfer.closed and site in self._read:
            untold = completion.word.sealed - told - _without_adler(items)
            if untold:
                words = f"items {_some(untold)} of {manifest} are sealed at {site}, no FilesHeld says so"
                self._findings.miss(_I1, words, completion.at_ms, completion.place)


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
