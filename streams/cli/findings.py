"""Findings and remarks of an audit, as `audit` and `audit storage` show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from streams.cli.screen import put
from streams.core.ledger import Finding, Judgement

SHOWN_MAX = 50
"""Findings printed for people; `--json` has them all."""


def findings_object(judgement: Judgement) -> dict[str, Any]:
    """The JSON fields that hold findings, what waits, and what is not checkable."""
    return {
        "findings": [
            {
                "invariant": finding.invariant,
                "severity": finding.severity,
                "words": finding.words,
                "records": [place._asdict() for place in finding.records],
            }
            for finding in judgement.findings
        ],
        "waiting": [asdict(remark) for remark in judgement.waiting],
        "not_checkable": [asdict(remark) for remark in judgement.unchecked],
    }


def put_remarks(judgement: Judgement) -> None:
    """What waits, and what is not checkable."""
    for title, remarks in (("waiting", judgement.waiting), ("not checkable from here", judgement.unchecked)):
        if remarks:
            put(f"{title}:")
        for remark in remarks:
            put(f"  {remark.invariant}  {remark.count:,} × {remark.words}")


def put_findings(judgement: Judgement, worded: Callable[[Finding], str]) -> None:
    """The first findings with their records, and how many more there are."""
    for finding in judgement.findings[:SHOWN_MAX]:
        put(worded(finding))
        for place in finding.records:
            put(f"     {place}")
    if len(judgement.findings) > SHOWN_MAX:
        put(f"… and {len(judgement.findings) - SHOWN_MAX:,} more: see --json")
