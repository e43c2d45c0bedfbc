"""`transfer2go demo`: two real sites, real files, one table at the end. What it does is in streams/demo/files.py."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import click

from streams.cli import screen
from streams.cli.audit import verdict
from streams.cli.command import Verb, at_site, leave, settings_of, terminable
from streams.cli.up import is_local, step_teller
from streams.cli.words import waiting
from streams.client.intent_snapshot import Snapshot
from streams.core.names import Site
from streams.demo import events
from streams.demo import files as play
from streams.demo.files import Tell
from streams.errors import NeverWorks, PartlyDone
from streams.federation import local, plan
from streams.settings import Settings


@click.command(cls=Verb, federation=False)
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@click.option("--keep", is_flag=True, help="Leave the federation up; `transfer2go down` stops it.")
@click.option("--small", is_flag=True, help="A generated file of 20 MB instead of 1 GB.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), default=900, show_default=True, metavar="SECONDS")
@click.pass_context
def demo(ctx: click.Context, paths: tuple[str, ...], keep: bool, small: bool, timeout_s: float) -> None:
    """Move real files from one real site to another, verify them there, audit, and show what happened.

    Without PATH: three ROOT files of CMS and Scikit-HEP, 500 small files and a generated one of 1 GB. With PATH: your
    own files and directories, linked or copied into the first site's storage.

    Exit 0: all arrived, whole, and the audit is clean; else by the table of exit codes. A federation that was not
    running before is stopped and removed again, unless --keep or something went wrong.
    """
    settings: Settings = ctx.obj
    if settings.sites_path.is_file() and not is_local(settings):
        raise NeverWorks(
            "the demo runs a federation of its own", where=str(settings.sites_path), next="use another --state"
        )
    play.check_room(settings.state, paths, small=small)
    with terminable(KeyboardInterrupt):  # it cleans up as Ctrl-C does
        code = _stage(ctx, settings, paths, keep, small, timeout_s)
    leave(code)


def _stage(
    ctx: click.Context, settings: Settings, paths: Sequence[str], keep: bool, small: bool, timeout_s: float
) -> int:
    started = time.monotonic()
    tell = step_teller(started)
    fresh = plan.read_record(settings.state) is None
    running = not fresh and _runs(settings.state)
    purge = False
    try:
        federation = local.up(settings.state, settings.cache, on_step=tell)
        settings = settings_of(ctx)
        source, destination = federation.sites[:2]
        tell(f"{source} and {destination} are ready")
        code = _act(settings, (source, destination), paths, small, timeout_s, tell)
        purge = fresh and code == 0
        return code
    except KeyboardInterrupt:
        purge = fresh
        raise
    finally:
        if not keep and not running:
            _clear_away(settings.state, purge=purge, tell=tell)
        elif _runs(settings.state):
            screen.say("the federation is still up: see `transfer2go status`, `transfer2go intent list`;")
            screen.say("end it with `transfer2go down --purge`")


def _runs(state: Path) -> bool:
    record = plan.read_record(state)
    return record is not None and record.running


def _clear_away(state: Path, *, purge: bool, tell: Tell) -> None:
    """Stop what was started; another Ctrl-C does not leave it half stopped."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        known = plan.read_record(state) is not None
        local.down(state, purge=purge and known, on_step=tell)
        if known and not purge:
            tell(f"stopped; topics, files and logs are kept in {state} (`transfer2go down --purge` removes them)")
    finally:
        signal.signal(signal.SIGINT, before)


def _act(
    settings: Settings, sites: tuple[Site, Site], paths: Sequence[str], small: bool, timeout_s: float, tell: Tell
) -> int:
    here, there = (at_site(settings, site) for site in sites)
    storage = settings.state / here.here / "storage"
    lots = play.inputs(storage, paths, small=small, tell=tell)
    play.enter(here, lots, tell)
    tell(f"asking {here.here} for {len(lots)} transfers to {there.here}")
    progress = _Shown(f"{here.here} → {there.here}")
    seconds = play.move(here, there.here, lots, progress.show, timeout_s)
    progress.end()
    tell(f"reading every file back from the disk of {there.here}")
    wrong = play.read_back(there, lots)
    for line in wrong[:10]:
        screen.say(f"NOT WHOLE: {line}")
    play.count_completions(here, there.here, lots)
    peak = _events(here, there, lots[0], tell) if not paths else None
    tell("auditing the journals of both sites")
    report = play.DemoReport(here.here, there.here, tuple(lots), seconds, tuple(wrong), play.judge(settings, tell))
    show(report)
    if peak is not None:
        show_peak(peak, here.here, there.here)
        return report.exit_code or (PartlyDone.exit_code if peak.wrong else 0)
    return report.exit_code


def _events(here: Settings, there: Settings, lot: play.Lot, tell: Tell) -> events.Peak | None:
    if package := events.missing():
        tell(f"events are left out: {package} is not installed (transfer2go[events])")
        return None
    return events.play(here, there, lot, Path("zpeak.png"), tell)


def show_peak(peak: events.Peak, source: Site, destination: Site) -> None:
    histogram = peak.histogram
    assert histogram is not None
    screen.put(f"{histogram.title}: {histogram.entries:,} pairs in {peak.batches} batches, mass in {histogram.unit}")
    for line in histogram.text():
        screen.put(line)
    screen.put(
        f"events: first batch at {destination} {peak.first_s:.2f} s after the intent, all in {peak.seconds:.2f} s; "
        f"as an object back at {source}: {screen.size(peak.object_bytes)}"
    )
    for line in peak.wrong:
        screen.put(f"NOT RIGHT: {line}")
    if not peak.wrong:
        drawn = f"; drawn as {peak.png}" if peak.png else ""
        screen.put(f"bin by bin what uproot makes of the source's file, and so are the Parquet columns{drawn}")


class _Shown:
    def __init__(self, label: str) -> None:
        self._progress = screen.ProgressLine(label)
        self._last: tuple[int, int, int, int] = (0, 0, 0, 0)

    def show(self, snapshots: Sequence[Snapshot]) -> None:
        self._last = (
            sum(s.arrived for s in snapshots),
            sum(s.files for s in snapshots),
            sum(s.arrived_bytes for s in snapshots),
            sum(s.bytes for s in snapshots),
        )
        self._progress.show(*self._last, next(filter(None, map(waiting, snapshots)), ""))

    def end(self) -> None:
        self._progress.end(*self._last)


def show(report: play.DemoReport) -> None:
    rows = []
    for lot in report.lots:
        outcome = lot.outcome
        rate = lot.bytes / lot.seconds if lot.seconds else 0.0
        rows.append(
            (
                lot.block,
                "-" if outcome is None else outcome.last.outcome,
                len(lot.expected),
                lot.whole,
                screen.size(lot.bytes),
                screen.duration(lot.seconds),
                f"{screen.size(rate)}/s",
                lot.completions,
            )
        )
    screen.table(("block", "!state", ">files", ">whole there", ">size", ">time", ">rate", ">completions at home"), rows)
    for lot in report.lots:
        if lot.outcome is not None and lot.outcome.exit_code:
            for one in lot.outcome.unfinished[:10]:
                screen.put(f"{one.destination}: {one.lfn}: {one.reason.text}")
            if lot.outcome.reason:
                screen.put(f"{lot.block}: {lot.outcome.reason}")
    audit = report.audit
    if audit is not None:
        word = verdict(audit) + ("" if audit.exit_code == 0 else ", see `transfer2go audit`")
        screen.put(
            f"audit: {word}; {audit.records:,} records of {len(audit.sites)} sites in {screen.duration(audit.seconds)}"
        )
    files = sum(lot.whole for lot in report.lots)
    wanted = sum(len(lot.expected) for lot in report.lots)
    total = sum(lot.bytes for lot in report.lots)
    ending = "all files are whole" if report.exit_code == 0 else f"exit code {report.exit_code}"
    screen.put(
        f"{files:,} of {wanted:,} files, {screen.size(total)} from {report.source} to {report.destination} "
        f"in {screen.duration(report.seconds)} ({screen.size(total / report.seconds)}/s): {ending}"
    )
