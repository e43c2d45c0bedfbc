"""I1 of what homes decide: cancellations and priorities follow somebody's asking or a deadline; asking is answered.

What it cannot prove: who asked (`asked_by` is a word like any other); which of two rivals a site acted upon. Two
decisions or manifests of one number are notes: two workers may propose, and the first in the partition counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.core import records as m
from streams.core.ledger.claims import Asking, Claim, DecisionClaim, IntentClaims
from streams.core.ledger.findings import FindingList, Invariant
from streams.core.ledger.journals import Reached
from streams.core.names import Destination, IntentId, ManifestId, Site

_I1 = Invariant.CONSERVATION
ANSWERED_MS = 180_000
"""What was asked for and is not answered for longer was not heard, or is refused without a word."""
BY_POLICY = "the site's policy"
"""Where a site takes its rule back, what waits is let in."""
_CLOCK_STEP_MS = 1000
"""A home's clock may be set back by so much between looking at a deadline and writing that it passed."""


@dataclass(frozen=True, slots=True)
class DecisionJudge:
    """`read`: sites whose journals were replayed whole."""

    read: frozenset[Site]
    reached: Reached
    findings: FindingList

    def judge(self, intent: IntentId, row: IntentClaims, is_open: bool, grows: bool) -> None:
        """`is_open`: it is accepted and has not ended; `grows`: and takes what comes."""
        self._rivals(intent, row)
        self._unapproved(intent, row)
        if intent.home not in self.read:
            return
        self._causes(intent, row)
        if is_open and row.askings is not None:
            self._answers(intent, row, grows)

    def _rivals(self, intent: IntentId, row: IntentClaims) -> None:
        for number, said in sorted(row.decisions.items()):
            if len(said.ranked) > 1:
                words = f"{len(said.ranked)} different decisions {number} of {intent}: the first counts"
                self.findings.note(_I1, words, *(one.place for one in said.ranked))
        for (source_no, no), manifest in sorted(row.manifests.items()):
            written = manifest.written.ranked
            if len({one.word.sha256 for one in written}) > 1:
                words = f"{len(written)} different manifests {ManifestId.of(intent, source_no, no)}: one counts"
                self.findings.note(_I1, words, *(one.place for one in written))

    def _causes(self, intent: IntentId, row: IntentClaims) -> None:
        for number, said in sorted(row.decisions.items()):
            for decision in said.ranked:
                self.findings.check(_I1)
                why = self._unasked(number, decision, row)
                if why:
                    words = f"decision {number} of {intent} {why}"
                    self.findings.miss(_I1, words, decision.at_ms, decision.place)

    def _unapproved(self, intent: IntentId, row: IntentClaims) -> None:
        """Who let an intent in, or did not, said so to the site: by name, as records are not signed."""
        wanted = {m.Answer.ADMITTED: m.Asked.APPROVE, m.Answer.DENIED: m.Asked.DENY}
        asked = row.askings.of_sites if row.askings is not None else set()
        for (site, number), said in sorted(row.answers.items()):
            for one in said.ranked if Site(site) in self.read else ():
                self.findings.check(_I1)
                wish = wanted.get(one.word.answer)
                if wish is not None and (wish, one.word.by, site) not in asked and one.word.by != BY_POLICY:
                    who = f"{one.word.answer} by {one.word.by}, who asked nothing"
                    words = f"answer {number} of {site} to {intent}: {who}"
                    self.findings.miss(_I1, words, one.at_ms, one.place)
        denied = row.denied
        for (source_no, no), manifest in sorted(row.manifests.items()) if denied else ():
            for site in sorted(denied & {str(name) for name in manifest.transfers}):
                planned = manifest.transfers[Destination(site)].planned
                if planned is not None and site in self.read:
                    words = f"{ManifestId.of(intent, source_no, no)} is planned at {site}, which denied it"
                    self.findings.find(_I1, words, planned)

    def _unasked(self, number: int, decision: Claim[DecisionClaim], row: IntentClaims) -> str:
        """What of a decision nobody asked for, "" if all follows from something."""
        word, askings = decision.word, row.askings
        if word.verdict is m.Verdict.CANCELLED:
            deadline_ms = word.body.deadline_ms
            if deadline_ms is not None and decision.at_ms + _CLOCK_STEP_MS >= deadline_ms:
                return ""
            if askings is None or m.Asked.CANCEL not in askings.kinds:
                of = "" if deadline_ms is None else f", and its deadline is {self.findings.moment(deadline_ms)}"
                return f"cancels it though nobody asked{of}"
        elif word.verdict is m.Verdict.RELEASED:
            if askings is None or m.Asked.RELEASE not in askings.kinds:
                return "releases it though nobody asked"
        elif word.verdict is m.Verdict.ACCEPTED:
            known = {word.body.priority, *(askings.priorities if askings is not None else ())}
            if word.priority not in known:
                return f"gives it priority {word.priority}, which nobody asked for"
        return ""

    def _answers(self, intent: IntentId, row: IntentClaims, grows: bool) -> None:
        askings, decision = row.askings, row.decision
        assert askings is not None
        assert decision is not None
        if askings.cancel is not None and decision.word.verdict is not m.Verdict.CANCELLED:
            self._unanswered(intent, askings.cancel, "to cancel it", intent.home)
        wanted = askings.priority
        if wanted is not None and wanted.priority != decision.word.priority:
            self._unanswered(intent, wanted, f"for priority {wanted.priority}", intent.home)
        if grows and askings.close is not None and decision.word.source is not None:
            self._unanswered(intent, askings.close, "to take nothing more", decision.word.source)

    def _unanswered(self, intent: IntentId, asking: Asking, what: str, by: Site) -> None:
        """A finding once a worker of the site that answers has been alive for long since."""
        is_read = by != intent.home or self.reached.passed(asking.place, asking.at_ms)
        if is_read and self.reached.alive_after(by, asking.at_ms) > ANSWERED_MS:
            words = f"{intent} was asked {what}, and {by} has not answered"
            self.findings.find(_I1, words, asking.place)
