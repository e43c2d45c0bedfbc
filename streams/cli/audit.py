"""`transfer2go audit`: one call of streams.auditing.replaying, a table of what held and what did not, an exit code.

0 clean · 1 a promise is broken (retrying does not mend it, and no transfer was asked for) · 5 nothing is broken as far
as could be seen, but not everything could be · 7 the registry and the clusters do not speak of the same federation, or
the index of the audits before is of another one, or of other journals.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from streams.auditing.digesting import journal_objects
from streams.auditing.index import kept_index
from streams.auditing.points import PastPoint
from streams.auditing.replaying import EXIT_CLEAN, STALE_S, AuditReport
from streams.auditing.replaying import audit as run_audit
from streams.cli import as_of, audit_digest, audit_follow, audit_page, audit_storage, audit_tables, piped
from streams.cli.command import ActingNoun, acting_settings, json_option, leave
from streams.cli.screen import duration, put, put_json, say, size, table
from streams.core.ledger.findings import Invariant, PartitionCount, Remark
from streams.core.names import Site
from streams.core.sampling import Sample
from streams.errors import UsageError

PROCESSES_MAX = 64
PROMISES: Mapping[Invariant, str] = {
    Invariant.CONSERVATION: "everything asked for is accounted for",
    Invariant.NO_LIE: "what is called done is there and whole",
    Invariant.ONE_EFFECT: "one effect, no contradiction",
    Invariant.FENCING: "old attempts are ignored",
    Invariant.NOT_SILENT: "no record ends silently",
    Invariant.NO_GAP: "no unseen gap",
    Invariant.LAST_COPY: "decisions leave enough copies",
    Invariant.CLAIMED: "what landed under a claim stays",
    Invariant.REMOVAL: "removals stand on asks and promises",
    Invariant.CLOCK: "no record is dated after the audit",
    Invariant.SEAL: "journals are as they were sealed",
}
TRAFFIC_DAYS = 30
"""Of the page: bytes by link and day."""


@click.group("audit", cls=ActingNoun)
@json_option
@click.option(
    "--storage", is_flag=True, help="Compare what sites hold with what is on their disks, both ways; read it back."
)
@audit_storage.sample_option
@click.option(
    "--stale",
    "stale_s",
    is_flag=False,
    flag_value=STALE_S,
    type=click.FloatRange(min=0),
    metavar="[SECONDS]",
    help="An open intent without news for so long (an hour) is a finding; without this, after an hour, a note.",
)
@click.option("--strict", is_flag=True, help="A note counts as a finding: exit 1.")
@click.option("--fresh", is_flag=True, help="Read all journals from their first record on.")
@click.option(
    "--html",
    metavar="FILE",
    callback=lambda _ctx, _param, value: None if value is None else audit_page.target_of(value),
    help="Write what was found as one page that needs nothing else.",
)
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Look at this site only (may be repeated).")
@click.option(
    "--processes",
    type=click.IntRange(1, PROCESSES_MAX),
    default=1,
    show_default=True,
    metavar="N",
    help="So many read; each needs a core.",
)
@as_of.point_option("--until", "As the journals stood then: a time as 2026-11-30T14:00:00Z, or a cut that was kept.")
def audit(
    as_json: bool,
    storage: bool,
    sample: Sample | None,
    stale_s: float | None,
    strict: bool,
    fresh: bool,
    html: Path | None,
    sites: Sequence[str],
    processes: int,
    until: PastPoint | None,
) -> None:
    """Replay the journals of all sites and check that every promise was kept.

    It goes on where the last audit stopped. With --site or --until all is read anew, and nothing is kept.

    Exit 0: clean. 1: a promise is broken. 5: not everything could be seen. 7: the registry names the wrong clusters.
    """
    if audit_storage.in_its_place(storage, sample):
        return
    if until is not None and storage:
        raise UsageError("--until and --storage are given together", next="disks can be looked at as they are now only")
    settings = acting_settings()
    report = run_audit(
        settings,
        sites=[Site(name) for name in sites],
        storage=storage,
        sample=sample,
        stale_s=stale_s,
        strict=strict,
        index=None if sites else kept_index(settings),
        fresh=fresh,
        until=until,
        processes=processes,
        traffic_days=0 if html is None else TRAFFIC_DAYS,
        tell=say if sys.stderr.isatty() else lambda _: None,
    )
    if until is not None:
        as_of.check_any(until)
        say(f"as of {as_of.in_words(until)}; `--json` tells the cut that it became")
    if html is not None and report.traffic is not None:
        audit_page.write(html, audit_page.page_of(report, verdict(report), PROMISES, report.traffic, time.time()))
    with piped.to_its_end():
        put_json(as_object(report, until)) if as_json else show(report)
    for site, why in report.unreachable.items():
        say(f"{site} could not be read: {why}")
    leave(report.exit_code)


audit.add_command(audit_storage.storage_verb)
audit.add_command(audit_digest.digest_verb)
audit.add_command(audit_follow.follow_verb)
audit.add_command(audit_tables.tables_verb)


def as_object(report: AuditReport, until: PastPoint | None = None) -> dict[str, Any]:
    """With `until`, also the cut that was read: `audit digest --at` and `--until` take what is printed."""
    judgement = report.judgement
    cut = {} if until is None else {"as_of": as_of.in_words(until), "journals": journal_objects(report.journals)}
    return {
        **cut,
        "clean": report.exit_code == EXIT_CLEAN,
        "complete": report.is_complete,
        "exit_code": report.exit_code,
        "sites": list(report.sites),
        "left_out": list(report.left_out),
        "unreachable": dict(report.unreachable),
        "disks_unread": list(report.disks_unread),
        "unseen": list(judgement.unseen),
        "records": report.records,
        "records_before": report.known,
        "digest": report.digest,
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
        **audit_storage.findings_object(judgement),
        "partitions": [asdict(p) for p in judgement.partitions],
        "storage": None if report.storage is None else asdict(report.storage),
    }


def rate(report: AuditReport) -> float:
    return report.records / report.seconds if report.seconds else 0.0


def _total(remarks: Iterable[Remark], invariant: Invariant) -> int:
    return sum(r.count for r in remarks if r.invariant is invariant)


def show(report: AuditReport) -> None:
    judgement, counts = report.judgement, report.judgement.counts
    table(
        ("promise", ">checked", ">findings", ">waiting", ">not checkable"),
        [
            (
                f"{i} {PROMISES[i]}",
                judgement.checked[i],
                judgement.found[i],
                _total(judgement.waiting, i),
                _total(judgement.unchecked, i),
            )
            for i in Invariant
        ],
    )
    put("")
    _show_journals(judgement.partitions)
    put("")
    put(
        f"{counts.intents:,} intents: {counts.done:,} done, {counts.partly:,} partly, {counts.failed:,} failed, "
        f"{counts.cancelled:,} cancelled, {counts.open:,} open, {counts.refused:,} refused, "
        f"{counts.undecided:,} undecided"
    )
    put(f"{counts.files:,} files completed, {size(counts.bytes)}")
    put(
        f"{report.records:,} records of {len(report.sites)} sites read in {duration(report.seconds)}, "
        f"{rate(report):,.0f} records/s" + (f"; earlier audits had read {report.known:,}" if report.known else "")
    )
    put(f"digest {report.digest} (`audit digest`)")
    if report.storage is not None:
        audit_storage.put_tally(report.storage)
    for line in judgement.unseen:
        put(f"not seen: {line}")
    audit_storage.put_remarks(judgement)
    audit_storage.put_findings(judgement, lambda finding: f"{finding.invariant} {finding.severity}: {finding.words}")
    unread = ", ".join(report.disks_unread) if report.exit_code == EXIT_CLEAN else ""
    put(verdict(report) + (f"; the disks of {unread} were not read (--storage)" if unread else ""))


def _show_journals(partitions: Iterable[PartitionCount]) -> None:
    """The sums over the partitions of each topic at each site."""
    names = ("records", "applied", "duplicate", "superseded", "dead_lettered", "pending", "silent")
    sums: dict[tuple[str, str], list[int]] = {}
    for count in partitions:
        row = sums.setdefault((count.site, count.topic), [0] * len(names))
        for n, name in enumerate(names):
            row[n] += getattr(count, name)
    columns = ("site", "journal", *(">" + name.replace("_", "-") for name in names))
    table(columns, [(*key, *row) for key, row in sorted(sums.items()) if row[0]], empty="no records")


def verdict(report: AuditReport) -> str:
    judgement = report.judgement
    broken = sum(judgement.found.values())
    if broken:
        return f"BROKEN: {broken:,} findings"
    if report.strict and judgement.notes:
        return f"BROKEN: {len(judgement.notes):,} notes, which --strict counts"
    if not report.is_complete:
        return "INCOMPLETE: no finding, but not everything could be seen"
    return "clean as far as asked" if report.left_out else "clean"
