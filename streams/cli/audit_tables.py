"""`transfer2go audit tables`: what workers keep against what their journals give, byte for byte.

0 the same · 1 a row differs · 5 not everything could be compared · 7 the registry and the clusters do not speak of the
same federation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from streams.auditing.replaying import EXIT_CLEAN
from streams.auditing.table_comparing import RowDifference
from streams.auditing.tables import TablesReport, audit_tables
from streams.cli import piped
from streams.cli.command import Verb, json_option, leave
from streams.cli.screen import put, put_json, say, table
from streams.core.names import Site, shown
from streams.settings import Settings


@click.command("tables", cls=Verb)
@json_option
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Of this site's workers only (may be repeated).")
@click.pass_obj
def tables_verb(settings: Settings, as_json: bool, sites: Sequence[str]) -> None:
    """Fold every table anew from the topics, and compare it byte for byte with what the workers keep.

    That is their changelogs and, where they are here, their directories with the catalogue and its totals.

    Exit 0: the same. 1: a row differs. 5: not everything could be compared.
    """
    report = audit_tables(
        settings, sites=[Site(name) for name in sites], tell=say if sys.stderr.isatty() else lambda _: None
    )
    with piped.to_its_end():
        put_json(as_object(report)) if as_json else show(report)
    for site, why in report.unreachable.items():
        say(f"{site} could not be read: {why}")
    leave(report.exit_code)


def as_object(report: TablesReport) -> dict[str, Any]:
    return {
        "clean": report.exit_code == EXIT_CLEAN,
        "exit_code": report.exit_code,
        "sites": list(report.sites),
        "unreachable": dict(report.unreachable),
        "unseen": report.unseen,
        "remarks": report.remarks,
        "records": report.records,
        "tables": [asdict(tally) for tally in report.tallies],
        "different": report.comparison.different,
        "differences": [_difference(one) for one in report.differences],
    }


def _difference(one: RowDifference) -> dict[str, Any]:
    records = {name: place and place._asdict() for name, place in (("heard", one.heard), ("put", one.put))}
    return {**asdict(one), **records}


def show(report: TablesReport) -> None:
    table(
        ("site", "table", "of", ">compared", ">different", ">moving", ">left-over", ">unordered"),
        [
            (t.site, t.table, t.of, t.compared, t.different, t.moving, t.left_over, t.unordered)
            for t in report.tallies
            if t.compared or t.moving or t.left_over or t.unordered
        ],
        empty="no rows",
    )
    put("")
    for line in report.remarks:
        put(line)
    for line in report.unseen:
        put(f"not seen: {line}")
    for one in report.differences:
        put(in_words(one))
        for what, place in (("last heard", one.heard), ("last put", one.put)):
            if place is not None:
                put(f"     {what}: {place}")
    different = report.comparison.different
    if different > len(report.differences):
        put(f"… and {different - len(report.differences):,} more")
    put(verdict(report))


def in_words(one: RowDifference) -> str:
    fields = f", in {', '.join(one.fields)}" if one.fields else ""
    return f"{one.site} {one.table}[{one.partition}] {shown(one.key)}: the row of {one.of} {one.fault}{fields}"


def verdict(report: TablesReport) -> str:
    if different := report.comparison.different:
        return f"BROKEN: {different:,} rows differ; `transfer2go rebuild` folds all tables anew"
    if report.exit_code != EXIT_CLEAN:
        return "INCOMPLETE: no row differs, but not everything could be compared"
    compared = sum(tally.compared for tally in report.tallies)
    return f"the same: {compared:,} rows, folded from {report.records:,} records"
