"""`transfer2go audit`: one call of streams.audit, a table of what held and what did not, an exit code.

0 clean · 1 a promise is broken (retrying does not mend it, and no transfer was asked for) · 5 nothing is broken as far
as could be seen, but a site could not be read: try again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from streams.audit import AuditReport
from streams.audit import audit as run_audit
from streams.core.ledger import Finding, Invariant, PartitionCount, Remark
from streams.core.names import Site
from streams.settings import Settings

PROMISES: Mapping[Invariant, str] = {
    Invariant.CONSERVATION: "everything asked for is accounted for",
    Invariant.NO_LIE: "what is called done is there and whole",
    Invariant.ONE_EFFECT: "one effect, no contradiction",
    Invariant.FENCING: "old attempts are ignored",
    Invariant.NOT_SILENT: "no record ends silently",
    Invariant.NO_GAP: "no unseen gap",
}
SHOWN_MAX = 50
"""Findings printed for people; `--json` has them all."""


@click.command("audit")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option("--storage", is_flag=True, help="Read every completed file back and compare size and adler32.")
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Look at this site only (may be repeated).")
@click.pass_obj
def audit(settings: Settings, as_json: bool, storage: bool, sites: Sequence[str]) -> None:
    """Replay the journals of all sites from the beginning and check that every promise was kept.

    Exit 0: clean. 1: a promise is broken. 5: not everything could be read.
    """

    def tell(line: str) -> None:
        if sys.stderr.isatty():
            click.echo(line, err=True)

    report = run_audit(settings, sites=[Site(name) for name in sites], storage=storage, tell=tell)
    if as_json:
        click.echo(json.dumps(as_object(report), ensure_ascii=False))
    else:
        click.echo("\n".join(lines(report)))
    for site, why in report.unreachable.items():
        click.echo(f"{site} could not be read: {why}", err=True)
    raise SystemExit(report.exit_code)


def as_object(report: AuditReport) -> dict[str, Any]:
    """The report as one JSON object."""
    judgement = report.judgement
    return {
        "clean": not judgement.broken,
        "complete": report.is_complete,
        "exit_code": report.exit_code,
        "sites": list(report.sites),
        "unreachable": dict(report.unreachable),
        "records": report.records,
        "seconds": round(report.seconds, 3),
        "records_per_s": round(rate(report)),
        "counts": asdict(judgement.counts),
        "invariants": {
            str(i): {
                "checked": judgement.checked[i],
                "findings": judgement.found[i],
                "not_checkable": _total(judgement.unchecked, i),
                "waiting": _total(judgement.waiting, i),
            }
            for i in Invariant
        },
        "findings": [_finding(f) for f in judgement.findings],
        "waiting": [asdict(r) for r in judgement.waiting],
        "not_checkable": [asdict(r) for r in judgement.unchecked],
        "partitions": [asdict(p) for p in judgement.partitions],
        "storage": None if report.storage is None else asdict(report.storage),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "invariant": finding.invariant,
        "severity": finding.severity,
        "words": finding.words,
        "records": [place._asdict() for place in finding.records],
    }


def rate(report: AuditReport) -> float:
    return report.records / report.seconds if report.seconds else 0.0


def _total(remarks: Iterable[Remark], invariant: Invariant) -> int:
    return sum(r.count for r in remarks if r.invariant is invariant)


def lines(report: AuditReport) -> list[str]:
    """The report for people."""
    judgement, counts = report.judgement, report.judgement.counts
    head = ("promise", "checked", "findings", "waiting", "not checkable")
    rows = [
        (
            f"{i} {PROMISES[i]}",
            f"{judgement.checked[i]:,}",
            f"{judgement.found[i]:,}",
            f"{_total(judgement.waiting, i):,}",
            f"{_total(judgement.unchecked, i):,}",
        )
        for i in Invariant
    ]
    out = _table(head, rows)
    out += ["", *_records(judgement.partitions)]
    out += [
        "",
        f"{counts.intents:,} intents: {counts.done:,} done, {counts.partly:,} partly, {counts.failed:,} failed, "
        f"{counts.cancelled:,} cancelled, {counts.open:,} open, {counts.refused:,} refused, "
        f"{counts.undecided:,} undecided",
        f"{counts.files:,} files, {counts.bytes:,} bytes completed; {report.records:,} records of "
        f"{len(report.sites)} sites in {report.seconds:.1f} s, {rate(report):,.0f} records/s",
    ]
    if report.storage is not None:
        out.append(f"{report.storage.files:,} files, {report.storage.bytes:,} bytes read back from storage")
    for title, remarks in (("waiting", judgement.waiting), ("not checkable from here", judgement.unchecked)):
        if remarks:
            out += ["", f"{title}:", *(f"  {r.invariant}  {r.count:,} × {r.words}" for r in remarks)]
    out += ["", *_findings(judgement.findings)]
    out.append(_verdict(report))
    return out


def _records(partitions: Iterable[PartitionCount]) -> list[str]:
    """The sums of the partitions of each topic at each site."""
    names = ("records", "applied", "duplicate", "superseded", "dead_lettered", "pending", "silent")
    sums: dict[tuple[str, str], list[int]] = {}
    for count in partitions:
        row = sums.setdefault((count.site, count.topic), [0] * len(names))
        for n, name in enumerate(names):
            row[n] += getattr(count, name)
    rows = [(site, topic, *(f"{n:,}" for n in row)) for (site, topic), row in sorted(sums.items()) if row[0]]
    return _table(("site", "journal", *(name.replace("_", "-") for name in names)), rows, left=2)


def _findings(findings: Sequence[Finding]) -> list[str]:
    out = []
    for finding in findings[:SHOWN_MAX]:
        out.append(f"{finding.invariant} {finding.severity}: {finding.words}")
        out += [f"     {place}" for place in finding.records]
    if len(findings) > SHOWN_MAX:
        out.append(f"… and {len(findings) - SHOWN_MAX:,} more: see --json")
    return [*out, ""] if out else out


def _verdict(report: AuditReport) -> str:
    broken = sum(report.judgement.found.values())
    if broken:
        return f"BROKEN: {broken:,} findings"
    return "clean" if report.is_complete else "INCOMPLETE: no finding, but not everything could be looked at"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns padded to their widest cell; the first `left` ones to the left, numbers to the right."""
    table = [head, *rows]
    widths = [max(len(row[n]) for row in table) for n in range(len(head))]
    return [
        "  ".join(
            cell.ljust(w) if n < left else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
