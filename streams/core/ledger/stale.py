"""Open intents of which nothing has been heard for long: since when, what was heard last, and what they wait for.

Times are those of the log, never the words of a writer. One that waits for its user is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.core.ledger.claims import IntentClaims
from streams.core.ledger.findings import FindingList, Invariant
from streams.core.names import IntentId

_NAMED_MAX = 3
"""Transfers whose wait is told."""


@dataclass(frozen=True, slots=True)
class Staleness:
    """After how long (ms) it is told, and whether as a finding or as a note."""

    after_ms: int = 3_600_000
    is_finding: bool = False


def judge_stale(intent: IntentId, row: IntentClaims, now_ms: int, staleness: Staleness, findings: FindingList) -> None:
    """Of an intent that is open or undecided."""
    heard = row.heard
    if heard is None or now_ms - findings.past(heard.logged_ms) < staleness.after_ms:
        return
    age = f"({(now_ms - heard.logged_ms) // 60_000} min)" if heard.logged_ms <= now_ms else "(by a wrong clock)"
    words = (
        f"{intent} is open and nothing has been heard of it since {findings.moment(heard.logged_ms)} "
        f"{age}; the last was {heard.kind}, and it waits for {_waits_for(intent, row)}"
    )
    (findings.find if staleness.is_finding else findings.note)(Invariant.CONSERVATION, words, heard.place)


def _waits_for(intent: IntentId, row: IntentClaims) -> str:
    """In words: the decision, the manifests, or what open transfers have said."""
    decision = row.decision
    if decision is None:
        return f"the decision of {intent.home}"
    said: list[str] = []
    more = 0
    for (source_no, no), manifest in sorted(row.manifests.items()):
        if source_no != decision.word.source_no:
            continue
        for destination in decision.word.body.destinations:
            transfer = manifest.transfers.get(destination)
            if transfer is not None and transfer.completions:
                continue
            if len(said) == _NAMED_MAX:
                more += 1
                continue
            told = transfer.report.waits_for if transfer is not None and transfer.report is not None else ""
            what = "its plan" if transfer is None or transfer.planned is None else told or "an end it has not told of"
            said.append(f"{what} (manifest {no} at {destination})")
    if not said:
        return f"the manifests of {decision.word.source}"
    return ", ".join(said) + (f" and {more} more" if more else "")
