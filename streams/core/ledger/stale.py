"""Open intents and transfers of which nothing was heard for long: since when, what was last, and what they wait for.

Times are those of the log, never the words of a writer. One that waits for its user is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.core.ledger.claims import IntentClaims, LastHeard, TransferClaims
from streams.core.ledger.findings import FindingList, Invariant
from streams.core.names import IntentId, ManifestId

_NAMED_MAX = 3
"""Transfers whose wait is told."""


@dataclass(frozen=True, slots=True)
class Staleness:
    """After how long (ms) it is told, and whether as a finding or as a note."""

    after_ms: int = 3_600_000
    is_finding: bool = False


def judge_stale(intent: IntentId, row: IntentClaims, now_ms: int, staleness: Staleness, findings: FindingList) -> None:
    """Of an intent that is open or undecided; where it has news itself, of each open transfer that has none."""
    heard = row.heard
    if heard is None:
        return
    if not _is_silent(heard, now_ms, staleness, findings):
        _judge_transfers(intent, row, now_ms, staleness, findings)
        return
    words = f"{intent} is open and {_since(heard, now_ms, findings)}, and it waits for {_waits_for(intent, row)}"
    (findings.find if staleness.is_finding else findings.note)(Invariant.CONSERVATION, words, heard.place)


def _judge_transfers(
    intent: IntentId, row: IntentClaims, now_ms: int, staleness: Staleness, findings: FindingList
) -> None:
    tell = findings.find if staleness.is_finding else findings.note
    for source_no, no, destination, transfer in row.open_transfers():
        heard = None if transfer is None else transfer.heard
        if heard is not None and _is_silent(heard, now_ms, staleness, findings):
            words = (
                f"{ManifestId.of(intent, source_no, no)} at {destination} is open and "
                f"{_since(heard, now_ms, findings)}, and it waits for {_wait_of(transfer)}"
            )
            tell(Invariant.CONSERVATION, words, heard.place)


def _is_silent(heard: LastHeard, now_ms: int, staleness: Staleness, findings: FindingList) -> bool:
    return now_ms - findings.past(heard.logged_ms) >= staleness.after_ms


def _since(heard: LastHeard, now_ms: int, findings: FindingList) -> str:
    age = f"({(now_ms - heard.logged_ms) // 60_000} min)" if heard.logged_ms <= now_ms else "(by a wrong clock)"
    since = findings.moment(heard.logged_ms)
    return f"nothing has been heard of it since {since} {age}; the last was {heard.kind}"


def _wait_of(transfer: TransferClaims | None) -> str:
    told = transfer.report.waits_for if transfer is not None and transfer.report is not None else ""
    return "its plan" if transfer is None or transfer.planned is None else told or "an end it has not told of"


def _waits_for(intent: IntentId, row: IntentClaims) -> str:
    """In words: the decision, the manifests, or what open transfers have said."""
    decision = row.decision
    if decision is None:
        return f"the decision of {intent.home}"
    said = [
        f"{_wait_of(transfer)} (manifest {no} at {destination})"
        for _, no, destination, transfer in row.open_transfers()
    ]
    if not said:
        return f"the manifests of {decision.word.source}"
    more = len(said) - _NAMED_MAX
    return ", ".join(said[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
