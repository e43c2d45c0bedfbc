"""`transfer2go audit digest`: one line that two auditors compare, of what all journals say, in which order.

0 told, and as the cut has it · 1 a journal is not as the cut has it · 5 not everything could be read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from streams.auditing.digesting import DigestReport, cut_object, read_cut, read_digest
from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE
from streams.cli import piped
from streams.cli.command import Verb, json_option, leave
from streams.cli.screen import put, put_json, say, table
from streams.core.names import Site
from streams.core.topics import TO_EVERY_PEER
from streams.settings import Settings


@click.command("digest", cls=Verb)
@json_option
@click.option(
    "--at",
    metavar="CUT",
    type=click.Path(path_type=Path),
    help="As the journals stood in this cut, a file that `--json` printed before; they must be as they were.",
)
@click.option("--journals", "is_long", is_flag=True, help="Each journal with its records and root, too.")
@click.option(
    "--tables", is_flag=True, help="One SHA-256 of each table and partition, folded from these journals, too."
)
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Read this site's cluster only (may be repeated).")
@click.pass_obj
def digest_verb(
    settings: Settings, as_json: bool, at: Path | None, is_long: bool, tables: bool, sites: Sequence[str]
) -> None:
    """Tell one line that is the same for whoever reads the same records: whatever first, twice, or from a mirror.

    It is over the journals that every site holds. Exit 0: told. 1: a journal is not as CUT has it. 5: not all was read.
    """
    cut = None if at is None else read_cut(at)
    report = read_digest(
        settings,
        sites=[Site(name) for name in sites],
        at=cut,
        tables=tables,
        tell=say if sys.stderr.isatty() else lambda _: None,
    )
    code = exit_code(report)
    with piped.to_its_end():
        put_json(cut_object(report)) if as_json else _show(report, is_long)
    for site, why in report.unreachable.items():
        say(f"{site} could not be read: {why}")
    for journal in report.rewritten:
        say(f"{journal} is not as the cut has it: its first records were rewritten, or are gone")
    for journal in report.unseen:
        say(f"{journal} is in the cut, and nothing of it was read")
    leave(code)


def exit_code(report: DigestReport) -> int:
    if report.rewritten:
        return EXIT_BROKEN
    return EXIT_INCOMPLETE if report.unreachable or report.unseen else EXIT_CLEAN


def _show(report: DigestReport, is_long: bool) -> None:
    if is_long:
        rows = [(j.journal.site, j.journal.topic, j.journal.partition, j.size, j.root) for j in report.journals]
        table(("site", "journal", ">partition", ">records", "root"), rows, empty="no records")
        put("")
    if report.tables:
        table(("table", "site", ">partition", ">rows", "sha256"), report.tables)
        put("")
    shared = [one for one in report.journals if one.size and one.journal.topic in TO_EVERY_PEER]
    put(f"{report.digest} of {len(shared)} journals that every site holds, {sum(j.size for j in shared):,} records")
