"""`transfer2go site check`: what a site holds against its disk, and what is to be done about it, told or done.

0 nothing is wrong · 1 something was found · 3 no such site · 5 a disk or a journal was out of reach · 7 dark files are
due to be set aside, and too many look dark.
"""

from __future__ import annotations

import getpass
import time
from collections import Counter
from typing import Any

import click

from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE
from streams.cli import piped
from streams.cli.as_of import moment
from streams.cli.audit_storage import SHOWN_MAX, put_remarks
from streams.cli.command import Verb, at_site, json_option, leave
from streams.cli.screen import put, put_json
from streams.consistency import dark
from streams.consistency.checking import CheckTally, Dark, Lost, Told, Wrong, check
from streams.core.ledger.findings import FindingList, IntentCounts, Judgement
from streams.core.names import Site, shown
from streams.core.sampling import Sample
from streams.errors import NeverWorks
from streams.settings import Settings

_NAME_CHARS = 1024


@click.command("check", cls=Verb)
@click.argument("site")
@click.option(
    "--sample",
    metavar="P%",
    callback=lambda _ctx, _param, value: None if value is None else Sample.parse(value),
    help="Read the contents of so many files too, as `audit storage` does. Without it names and sizes are compared.",
)
@click.option("--execute", is_flag=True, help="Do what is shown; without, nothing is said, asked for or moved.")
@json_option
@click.pass_obj
def check_site(settings: Settings, site: str, sample: Sample | None, execute: bool, as_json: bool) -> None:
    """Compare what SITE holds with what is on its disk, and mend it.

    Lost files are said to be lost, and those that a claim covers are asked for where another site holds them. What is
    on the disk and in no replica is set aside once it has been seen so for a week, never deleted. Files that are there
    and wrong are left to `file verify --repair`.

    Exit 0: nothing is wrong. 1: something was found. 3: no such site. 5: the disk or the log is out of reach, or
    another disk is mounted. 7: more than 5 % of the disk looks dark, and nothing is set aside.
    """
    settings = at_site(settings, settings.entry(Site(site)).name)
    findings = FindingList(int(time.time() * 1000))
    shown_now: Counter[type] = Counter()

    def tell(one: Told) -> None:
        shown_now[type(one)] += 1
        with piped.to_its_end():
            if as_json:
                put_json(_as_object(one, execute))
            elif shown_now[type(one)] <= SHOWN_MAX:
                put(_in_words(one, execute))

    tally = check(settings, findings, tell, sample=sample, execute=execute, by=getpass.getuser())
    judged = findings.close((), IntentCounts())
    refused = execute and tally.too_many_dark and tally.due > 0
    code = EXIT_BROKEN if tally.found else EXIT_INCOMPLETE if tally.unseen else EXIT_CLEAN
    code = NeverWorks.exit_code if refused else code
    with piped.to_its_end():
        if as_json:
            put_json(_summary(settings.here, tally, judged, code))
        else:
            _show(settings.here, tally, judged, shown_now, execute)
    leave(code)


def _in_words(one: Told, execute: bool) -> str:
    match one:
        case Wrong():
            lfn = one.replica.lfn
            return f"wrong: {lfn} {one.why}: `transfer2go file verify {lfn} --repair` shows who holds it whole"
        case Dark():
            return f"dark: {shown('/' + one.path, _NAME_CHARS)} is in no replica, {_fate(one, execute)}"
        case Lost():
            return f"lost: {one.replica.lfn} of {one.replica.block} {_state(one)}; {_remedy(one, execute)}"


def _state(one: Lost) -> str:
    if one.why_not:
        return "is not there, and is not said to be lost"
    return "was lost before" if one.before else "is lost" if one.said else "is not there, and would be said to be lost"


def _remedy(one: Lost, execute: bool) -> str:
    if one.why_not:
        return one.why_not
    if not one.claim:
        return "no claim covers it: it is not asked for"
    if not one.holders:
        return f"claimed by {one.claim}: lost everywhere, no other site holds it"
    sites = " or ".join(one.holders)
    if one.intent is not None:
        return f"claimed by {one.claim}: asked of {sites} by {one.intent}"
    then = f"is asked of {sites} by the next check" if execute else f"would be asked of {sites}"
    return f"claimed by {one.claim}: {then}"


def _fate(one: Dark, execute: bool) -> str:
    since = f"seen so since {moment(one.since_ms)}"
    if one.aside:
        return f"{since}: set aside as {shown(one.aside, _NAME_CHARS)}"
    if one.why_not:
        return f"{since}: stays, {one.why_not}"
    if not one.due:
        return f"{since}: stays until a check after {moment(one.since_ms + dark.SEEN_FOR_MS)} sees it again"
    return f"{since}: stays" if execute else f"{since}: would be set aside"


def _as_object(one: Told, execute: bool) -> dict[str, Any]:
    if isinstance(one, Dark):
        return {
            "found": "dark",
            "path": "/" + one.path,
            "since": moment(one.since_ms),
            "due": one.due,
            "aside": one.aside or None,
            "why": _fate(one, execute),
        }
    replica = one.replica
    told = {"lfn": replica.lfn, "dataset": replica.dataset, "block": replica.block, "bytes": replica.bytes}
    if isinstance(one, Wrong):
        return {"found": "wrong", **told, "why": one.why}
    return {
        "found": "lost",
        **told,
        "before": one.before,
        "said": one.said,
        "claim": one.claim or None,
        "holders": list(one.holders),
        "intent": one.intent,
        "why": _remedy(one, execute),
    }


def _summary(site: Site, tally: CheckTally, judged: Judgement, code: int) -> dict[str, Any]:
    names = ("replicas", "walked", "read", "lost", "owed", "wrong", "dark", "due", "said", "asked", "aside")
    return {
        "found": "summary",
        "site": site,
        "clean": code == EXIT_CLEAN,
        "complete": not tally.unseen,
        "exit_code": code,
        **{name: getattr(tally, name) for name in names},
        "too_many_dark": tally.too_many_dark,
        "not_noted": tally.unnoted or None,
        "waiting": [{"words": remark.words, "count": remark.count} for remark in judged.waiting],
        "not_checkable": [{"words": remark.words, "count": remark.count} for remark in judged.unchecked],
    }


def _show(site: Site, tally: CheckTally, judged: Judgement, shown_now: Counter[type], execute: bool) -> None:
    more = sum(max(0, count - SHOWN_MAX) for count in shown_now.values())
    if more:
        put(f"… and {more:,} more: see --json")
    put(
        f"{tally.replicas:,} replicas of {site} looked for, {tally.walked:,} names on its disk, "
        f"{tally.read:,} files read back"
    )
    put_remarks(judged)
    if tally.unnoted:
        put(f"which files are dark is not noted, so their week does not begin: {tally.unnoted}")
    if tally.too_many_dark:
        put(
            f"{tally.dark:,} of {tally.walked:,} names look dark, more than {dark.SHARE_MAX:.0%}: none is set aside; "
            "is it the disk of this site, and are its path rules right?"
        )
    if not tally.found:
        put("INCOMPLETE: nothing was found, but not everything could be looked at" if tally.unseen else "clean")
        return
    owed = f", {tally.owed:,} lost before" if tally.owed else ""
    put(f"found: {tally.lost:,} lost{owed}, {tally.wrong:,} wrong, {tally.dark:,} dark")
    if execute:
        put(f"done: {tally.said:,} said to be lost, {tally.asked:,} asked for, {tally.aside:,} set aside")
    else:
        put("nothing was done: use --execute")
