"""`transfer2go audit storage`: what sites hold against what is on their disks, without the replay of everything; and
findings as both audits show them.

0 clean · 1 a file is missing or altered, or is on a disk and in no replica · 5 a storage or a journal was out of reach.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import click

from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE
from streams.auditing.storage import StorageTally, check_storage
from streams.cli import piped
from streams.cli.command import Verb, json_option, leave
from streams.cli.screen import put, put_json, size
from streams.core.ledger.findings import Finding, FindingList, IntentCounts, Judgement
from streams.core.names import Site
from streams.core.sampling import Sample
from streams.errors import UsageError
from streams.settings import Settings

_F = TypeVar("_F", bound=Callable[..., Any])
SHOWN_MAX = 50
"""Findings printed for people; `--json` has them all."""


def sample_option(command: _F) -> _F:
    return click.option(
        "--sample",
        metavar="P%",
        callback=lambda _ctx, _param, value: None if value is None else Sample.parse(value),
        help="Read the contents of so many files only: 1% a day reads each once in 100 days. All are looked for.",
    )(command)


def in_its_place(storage: bool, sample: Sample | None) -> bool:
    """Whether `audit` is followed by a verb; UsageError for its options before a verb, or a sample of nothing."""
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        if sample is not None and not storage:
            raise UsageError("--sample is of what --storage reads", next="add --storage")
        return False
    given = [param for param in ctx.params if ctx.get_parameter_source(param) is not click.core.ParameterSource.DEFAULT]
    if given:
        raise UsageError(f"options of `audit {ctx.invoked_subcommand}` stand after it")
    return True


@click.command("storage", cls=Verb)
@json_option
@sample_option
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Look at this site only (may be repeated).")
@click.pass_obj
def storage_verb(settings: Settings, as_json: bool, sample: Sample | None, sites: Sequence[str]) -> None:
    """Compare what sites hold with what is on their disks, both ways. Nothing is changed.

    Exit 0: clean. 1: a file is missing, altered, or in no replica. 5: not everything could be read.
    """
    chosen = [settings.entry(Site(name)).name for name in sites] or list(settings.registry.names)
    findings = FindingList(int(time.time() * 1000))
    tally = check_storage(settings, chosen, findings, sample=sample)
    judged = findings.close((), IntentCounts())
    code = EXIT_BROKEN if judged.broken else EXIT_INCOMPLETE if tally.unreachable else EXIT_CLEAN
    with piped.to_its_end():
        put_json(_as_object(judged, tally, chosen, code)) if as_json else _show(judged, tally)
    leave(code)


def _as_object(judged: Judgement, tally: StorageTally, sites: Sequence[Site], code: int) -> dict[str, Any]:
    return {
        "clean": code == EXIT_CLEAN,
        "complete": not tally.unreachable,
        "exit_code": code,
        "sites": list(sites),
        "storage": asdict(tally),
        "found": sum(judged.found.values()),
        **findings_object(judged),
    }


def findings_object(judgement: Judgement) -> dict[str, Any]:
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
    for title, remarks in (("waiting", judgement.waiting), ("not checkable from here", judgement.unchecked)):
        if remarks:
            put(f"{title}:")
        for remark in remarks:
            put(f"  {remark.invariant}  {remark.count:,} × {remark.words}")


def put_findings(judgement: Judgement, worded: Callable[[Finding], str]) -> None:
    for finding in judgement.findings[:SHOWN_MAX]:
        put(worded(finding))
        for place in finding.records:
            put(f"     {place}")
    if len(judgement.findings) > SHOWN_MAX:
        put(f"… and {len(judgement.findings) - SHOWN_MAX:,} more: see --json")


def put_tally(tally: StorageTally) -> None:
    put(
        f"{tally.files:,} files read back from storage, {size(tally.bytes)}; {tally.replicas:,} replicas looked for, "
        f"{tally.registered:,} of them registered; {tally.walked:,} names on disks"
    )


def _show(judged: Judgement, tally: StorageTally) -> None:
    put_tally(tally)
    put_remarks(judged)
    put_findings(judged, lambda finding: finding.words)
    found = sum(judged.found.values())
    if found:
        put(f"BROKEN: {found:,} findings")
    else:
        put("INCOMPLETE: no finding, but not everything could be looked at" if tally.unreachable else "clean")
