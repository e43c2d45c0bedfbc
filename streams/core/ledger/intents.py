"""I1 of one intent: what was asked and decided, its chain of manifests, and how it stands at each destination.

Two decisions of one number are no finding: the number makes it a proposal, of which the first in the partition counts.
"""

from __future__ import annotations

from collections import Counter

from streams.core import records as m
from streams.core.ledger.claims import Body, Claim, DecisionClaim, IntentClaims, ManifestClaim, ManifestClaims
from streams.core.ledger.decisions import DecisionJudge
from streams.core.ledger.findings import FindingList, Invariant, LogPosition
from streams.core.ledger.journals import Reached, RefusedRecord
from streams.core.ledger.links import LinkJudge
from streams.core.ledger.stale import Staleness, judge_stale
from streams.core.ledger.transfers import TransferJudge
from streams.core.names import Destination, IntentId, ManifestId, Site
from streams.core.topics import INTENTS

_I1, _I2, _I6 = Invariant.CONSERVATION, Invariant.NO_LIE, Invariant.NOT_SILENT
STALE_MS = 180_000
"""An intent read and undecided for longer is silent: a home waits 60 s for lagging mirrors before it refuses."""


class IntentJudge:
    def __init__(
        self,
        sites: frozenset[Site],
        read: frozenset[Site],
        reached: Reached,
        findings: FindingList,
        now_ms: int,
        staleness: Staleness,
        links: LinkJudge,
    ) -> None:
        self._now_ms, self._staleness = now_ms, staleness
        self._links, self._decisions = links, DecisionJudge(read, reached, findings)
        self._sites, self._read, self._reached, self._findings = sites, read, reached, findings
        self.contradicting: dict[LogPosition, RefusedRecord] = {}
        """Second bodies under an intent's id: only a dead letter at home answers for them."""

    def judge(self, intent: IntentId, row: IntentClaims) -> Counter[str]:
        """What it adds to each count of IntentCounts."""
        counts = Counter({"intents": 1})
        self._findings.check(_I1)
        self._bodies(intent, row)
        self._chain(intent, row)
        decided = [claim.word.body for words in row.decisions.values() for claim in words.ranked]
        gets = frozenset(d.site for body in decided for d in body.destinations if not d.consumer)
        known = gets if decided or intent.home in self._read else None
        for (source_no, no), manifest in sorted(row.manifests.items()):
            counts["manifests"] += 1
            self._holders(manifest)
            for site, transfer in sorted(manifest.transfers.items()):
                manifest_id = ManifestId.of(intent, source_no, no)
                TransferJudge(self._sites, self._read, self._findings, manifest_id, site, transfer).judge(row, manifest)
                self._links.judge(manifest_id, site, transfer, manifest, known)
                if (done := transfer.completions.first) is not None:
                    counts["completions"] += 1
                    counts["files"] += done.word.sealed.size
                    counts["bytes"] += done.word.bytes
        state = self._state(row)
        counts[state] += 1
        if state not in ("undecided", "refused"):
            counts["accepted"] += 1
        grows = state == "open" and self._grows(row)
        self._decisions.judge(intent, row, state == "open" and not (row.is_listed and self._idle(row)), grows)
        if state == "open":
            self._findings.wait(_I1, "intents that take what comes" if grows else "intents open")
        if state == "undecided" or (state == "open" and not (grows and self._idle(row))):
            judge_stale(intent, row, self._now_ms, self._staleness, self._findings)
        return counts

    def _holders(self, manifest: ManifestClaims) -> None:
        """Who is named to hold its items is looked at in files.py, where that site was read."""
        for written in manifest.written.ranked:
            for holder, _ in (*written.word.holders, *written.word.others):
                if holder in self._read:
                    self._findings.check(_I2)
                else:
                    self._findings.cannot(_I2, f"what {holder} holds: not read")

    def _grows(self, row: IntentClaims) -> bool:
        """Whether it was asked to stay open and its last manifest is not written, which is nobody's fault."""
        return row.decision is not None and row.decision.word.body.open and not row.is_listed

    def _idle(self, row: IntentClaims) -> bool:
        """Whether all that it has taken so far has ended."""
        return next(row.open_transfers(), None) is None

    def _bodies(self, intent: IntentId, row: IntentClaims) -> None:
        """Whether what was decided was asked, and who lost when two bodies were asked under one id."""
        bodies, decision = row.bodies.ranked, row.decision
        meant = bodies[0] if bodies else None
        if decision is not None:
            meant = next((b for b in bodies if b.word == decision.word.body), None)
            if meant is None and intent.home in self._read:
                words = f"{intent} was decided on a body that nobody published"
                self._findings.miss(_I1, words, decision.at_ms, decision.place, *(b.place for b in bodies))
        elif meant is not None:
            self._undecided(intent, meant)
        for body in bodies:
            if meant is not None and body is not meant and body.place.topic == INTENTS:
                reason = f"a second body under {intent}"
                self.contradicting[body.place] = RefusedRecord(reason, body.at_ms)

    def _undecided(self, intent: IntentId, body: Claim[Body]) -> None:
        waited_ms = self._reached.alive_after(intent.home, body.at_ms)
        is_stale = body.place.topic == INTENTS and waited_ms > STALE_MS
        if is_stale and self._reached.passed(body.place, body.at_ms):
            since = (
                f"for {waited_ms // 1000} s"
                if self._findings.past(body.at_ms)
                else f"since {self._findings.moment(body.at_ms)}"
            )
            words = f"silent: {intent} was read at {intent.home} and is neither decided nor refused {since}"
            self._findings.find(_I6, words, body.place)
            return
        self._findings.wait(_I1, "intents not decided yet")

    def _chain(self, intent: IntentId, row: IntentClaims) -> None:
        """Manifests of each source number: contiguous from 0, chained by digest, none after the last.

        Two planes may have written rivals of some numbers: the first that goes on from the one that counts does too.
        """
        last_of: dict[int, tuple[int, ManifestClaims]] = {}
        for (source_no, no), manifest in sorted(row.manifests.items()):
            written = manifest.written.first
            if written is None:
                continue
            self._findings.check(_I1)
            before_no, before = last_of.get(source_no, (-1, None))
            if no == before_no + 1 and before is not None and (previous := before.written.first) is not None:
                sha256 = previous.word.sha256
                manifest.written.count_only(lambda word, sha256=sha256: word.prev_sha256 == sha256)  # type: ignore[misc]
                written = manifest.written.first or written
            title = f"manifest {no} of {intent} (source number {source_no})"
            if no != before_no + 1:
                self._missing(f"{title} is written, number {before_no + 1} is nowhere", written)
            elif before is not None and (previous := before.written.first) is not None:
                if any(written.word.prev_sha256 == rival.word.sha256 for rival in before.written.ranked[1:]):
                    # Two planes wrote on for a while, each behind its own: the one whose rival counts writes in vain.
                    self._findings.note(_I1, f"{title} continues a rival of the one before it", written.place)
                    last_of[source_no] = (no, manifest)
                    continue
                if written.word.prev_sha256 != previous.word.sha256:
                    words = f"{title} does not continue the digest of the one before it"
                    self._findings.find(_I1, words, written.place, previous.place)
                if previous.word.last:
                    self._findings.find(_I1, f"{title} stands after the last one", written.place, previous.place)
            last_of[source_no] = (no, manifest)

    def _missing(self, words: str, written: Claim[ManifestClaim]) -> None:
        if self._read >= self._sites:
            self._findings.miss(_I1, words, written.at_ms, written.place)
        else:
            self._findings.cannot(_I1, f"manifests at {', '.join(sorted(self._sites - self._read))}: not read")

    def _state(self, row: IntentClaims) -> str:
        """undecided, refused, or of an accepted one: done, partly, failed, cancelled, open."""
        decision = row.decision
        if decision is None:
            return "undecided"
        verdict = decision.word.verdict
        if verdict is m.Verdict.REFUSED:
            return "refused"
        cancelled = any(
            said.first is not None and said.first.word.verdict is m.Verdict.CANCELLED for said in row.decisions.values()
        )
        if decision.word.body.removes:
            return self._leaving(row, decision.word, "done", cancelled=cancelled)
        chain = [
            (no, r) for (source_no, no), r in sorted(row.manifests.items()) if source_no == decision.word.source_no
        ]
        firsts = [manifest.written.first for _, manifest in chain]
        last = next((n for n, one in enumerate(firsts) if one is not None and one.word.last), len(chain))
        chain = chain[: last + 1]  # what stands behind is of a rival
        written = [r.written.first for _, r in chain]
        whole = [no for no, _ in chain] == list(range(len(chain))) and bool(written)
        ended = whole and (final := written[-1]) is not None and final.word.last
        if any(t.planned and not t.completions for r in row.manifests.values() for t in r.transfers.values()):
            return "open"
        done: list[m.CompletionRecord] = []
        denied = row.denied
        to = [site for site in decision.word.body.destinations if site not in denied]
        if not to:
            return "refused"
        for site in to:
            for _, manifest in chain:
                transfer = manifest.transfers.get(site)
                said = transfer.completions.first if transfer else None
                if said is not None:
                    done.append(said.word)
                elif not cancelled:
                    return "open"
        if not ended and not cancelled:
            return "open"
        sealed, items = sum(c.sealed.size for c in done), sum(c.items for c in done)
        if ended and sealed == items and len(done) == len(chain) * len(to):
            landed = "done" if len(to) == len(decision.word.body.destinations) else "partly"
            return self._leaving(row, decision.word, landed, cancelled=cancelled)
        if cancelled or any(c.cancelled for c in done):
            return "cancelled"
        return self._leaving(row, decision.word, "partly" if sealed else "failed", cancelled=False)

    def _leaving(self, row: IntentClaims, decided: DecisionClaim, landed: str, *, cancelled: bool) -> str:
        """The same where files leave sites: of each part each of these must have said its last word. `landed`: how it
        stands at its destinations."""
        body, denied = decided.body, row.denied
        sites = [Destination(site) for site in body.leaving if site not in denied]
        if body.removes and not sites:
            return "refused"
        parts = [(part, site) for part in range(body.parts) for site in sites]
        last = [said.first.word for name in parts if (said := row.removed.get(name)) is not None and said.first]
        if cancelled and body.removes:
            return "cancelled"
        if len(last) < len(parts):
            return "cancelled" if cancelled else "open"
        removed, kept = sum(word.removed for word in last), sum(word.kept for word in last)
        if not kept and len(sites) == len(body.leaving):
            return landed
        return "partly" if removed or not body.removes else "failed"
