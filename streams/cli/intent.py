"""`transfer2go intent`: ask for a transfer, see how it goes, why it waits, take it back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from streams import waits
from streams.auditing.history import intent_history
from streams.auditing.index import kept_index
from streams.cli import approval, outcomes, piped, previewing, removal, screen, stepping, upgrading
from streams.cli.command import Noun, at_site, json_option, leave
from streams.cli.eta import WINDOW_MS, Eta, News, Pace, estimate, last_said, news_of
from streams.cli.lagging import holdups
from streams.cli.listing import listed
from streams.cli.silences import of_sites, unheld
from streams.cli.telling import TOLD_S
from streams.cli.text_format import text_options, with_options
from streams.cli.words import QUIET_S, carriers, explain, holdup, waiting
from streams.client.follower import history
from streams.client.intent_snapshot import IntentFold, Snapshot
from streams.client.producer import BEAT_S, IntentHandle, Outcome, TransferClient
from streams.client.request import Until
from streams.client.worker_api import WorkerApi
from streams.core import records as m
from streams.core.channel import CARRIERS
from streams.core.intent import State
from streams.core.names import IntentId, Site, shown
from streams.core.selections.entries import EventSelection
from streams.errors import NeverWorks, NotFound, UsageError
from streams.settings import Settings
from streams.views.intent_rows import OPEN
from streams.views.intents import WORDS

_UNDECIDED_LOOKS = 3
"""A home that knows the names decides within a second: two looks later they are looked up."""
_PERIOD = re.compile(r"(\d+)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group(cls=Noun)
def intent() -> None:
    """Transfer intents: preview, add, show, list, watch, board, approve, deny, cancel, close, release, explain, …"""


for _command in (previewing.preview, approval.board, approval.approve, approval.deny):
    intent.add_command(_command)


@intent.command()
@click.argument("selectors", nargs=-1, required=True, metavar="LFN|BLOCK|DATASET…")
@click.option(
    "--to", "destinations", multiple=True, required=True, metavar="SITE", help="Destination; may be repeated."
)
@click.option("--source", metavar="SITE", help="Take the files from this site; else the home chooses.")
@click.option("--move", is_flag=True, help="Files leave --source, each once it is at every destination.")
@click.option("--owner", default="", metavar="NAME", help="Whose they are to be, a group or a person; else yours.")
@click.option("--entries", metavar="PART", help="Only these of each file: TREE[START:STOP]{COLUMN,GLOB*}; [:] is all.")
@text_options
@click.option("--objects", metavar="NAME,GLOB*", help="Only these keys of ROOT files, or members of archives.")
@click.option("--as", "format", metavar="FORMAT", help="What entries land as: parquet (usual), arrow or root.")
@click.option("--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="Higher goes first.")
@click.option("--deadline", metavar="TIME", help="Cancelled when it passes: ISO 8601, or a period as 90s, 30m, 2h, 1d.")
@click.option(
    "--until",
    metavar="TIME|COUNT|close",
    help="Stay open: move what is registered later too, to a time (as --deadline), so many files, or `intent close`.",
)
@click.option(
    "--plane",
    metavar=f"{'|'.join(CARRIERS)}|TOOL",
    help="Bytes come this way and no other, however long that takes; else each destination chooses.",
)
@click.option("--key", metavar="TEXT", help="Idempotency key: the same key and wish is the same intent.")
@click.option("--wait", "wait", is_flag=True, help="Follow it to its end and exit by how it ended.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="With --wait: at most so long."
)
@json_option
@click.pass_obj
def add(
    settings: Settings,
    /,
    selectors: tuple[str, ...],
    destinations: tuple[str, ...],
    entries: str | None,
    deadline: str | None,
    until: str | None,
    key: str | None,
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
    encoding: str | None,
    separator: str | None,
    quote: str | None,
    **given: Any,
) -> None:
    """Ask for files, blocks or datasets at one site or several; prints the intent's id.

    With --wait: exit 0 when all arrived, 8 some, 6 none, 7 refused, 5 still open at --timeout. Of a move also 8 when
    files stay at their source: those that others registered or claim there.
    """
    asked = _asked(entries, {"encoding": encoding, "separator": separator, "quote": quote})
    settings = at_site(settings)
    with TransferClient(settings) as client:
        handle = client.publish(
            selectors,
            destinations,
            deadline=None if deadline is None else _moment(deadline, datetime.now(UTC), "deadline"),
            until=None if until is None else _until(until),
            idempotency_key=key,
            entries=asked,
            **given,
        )
        if not wait:
            screen.put_json({"intent": handle.id}) if as_json else screen.put(handle.id)
            return
        if not as_json:
            with piped.to_its_end():
                screen.put(handle.id)
        outcome = follow(settings, handle, timeout_s)
    _show(settings, outcome.last, as_json)
    leave(outcome.exit_code)


def _asked(entries: str | None, given: dict[str, str | None]) -> EventSelection | None:
    if entries is not None:
        return with_options(EventSelection.parse(entries), given)
    option = next((name for name, value in given.items() if value is not None), None)
    if option is not None:
        raise UsageError(f"--{option} without --entries", next="it says how text files of entries are written")
    return None


class _Standing:
    """How an intent that is followed stands: what it waits for, since when and by whose word; when it will be there.

    Says once which names nobody holds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: tuple[object, ...] = ()
        self._since_s = time.time()
        self._looks = 0
        self._news, self._looked_s = News(), 0.0
        self._pace: Pace | None = None

    def note(self, snapshot: Snapshot) -> str:
        """In words, with the time where it has lasted for some seconds."""
        if snapshot.decision is None and not snapshot.ended:
            self._looks += 1
            if self._looks == _UNDECIDED_LOOKS and (words := unheld(self._settings, snapshot, quickly=True)):
                screen.say(words)
        what = waiting(snapshot)
        seen = (what, snapshot.files, snapshot.arrived, snapshot.lost, [a.open for a in snapshot.destinations])
        now_s = time.time()
        if seen != self._seen:
            self._seen, self._since_s = seen, now_s
        if now_s - self._since_s < TOLD_S or snapshot.ended:
            return what or carriers(snapshot)
        if not what and (held_up := holdup(snapshot)):
            what = f"waits for {held_up}"
        if not what:
            return carriers(snapshot)
        last = last_said(snapshot, self._lately(snapshot))
        return f"{what}, since {screen.clock(self._since_s)}" + (f", last said in {last}" if last is not None else "")

    def eta(self, snapshot: Snapshot) -> Eta | None:
        """By what arrived in the last minute; None when it has ended."""
        if snapshot.ended:
            return None
        now_ms = time.time_ns() // 1_000_000
        if self._pace is None:
            self._pace = Pace(snapshot, self._lately(snapshot), now_ms)
        moved = self._pace.note(snapshot, now_ms)
        return estimate(snapshot, self._news if moved[0] else self._lately(snapshot), now_ms, moved)

    def _lately(self, snapshot: Snapshot) -> News:
        """What was said of it, looked up anew when something changed since, and not too often."""
        now_s = time.time()
        if self._looked_s < self._since_s and now_s - self._looked_s >= TOLD_S:
            self._news, self._looked_s = news_of(self._settings, snapshot, int(1000 * now_s)), now_s
        return self._news


def follow(settings: Settings, handle: IntentHandle, timeout_s: float | None) -> Outcome:
    label, outage = shown(str(handle.id).partition("-")[0]), screen.Outage()
    progress = screen.ProgressLine(label, window_s=WINDOW_MS / 1000)
    standing = _Standing(settings)

    def on_progress(snapshot: Snapshot) -> None:
        outage.note(handle.away)
        note = "waits for the broker" if handle.away else standing.note(snapshot)
        progress.show(snapshot.arrived, snapshot.files, snapshot.arrived_bytes, snapshot.bytes, note)

    try:
        outcome = handle.wait(timeout_s, on_progress)
    except KeyboardInterrupt:
        progress.close()
        screen.say(f"{handle.id} goes on; see `transfer2go intent watch {handle.id}`")
        raise
    last = outcome.last
    own_s = outcomes.took_s(last) if last.ended else None
    progress.end(last.arrived, last.files, last.arrived_bytes, last.bytes, last.outcome, seconds=own_s)
    return outcome


def _until(text: str) -> Until:
    if text == "close":
        return "close"
    if text.isdecimal() and text.isascii():
        return int(text)
    return _moment(text, datetime.now(UTC), "until", ", a number of files, or close")


def _moment(text: str, now: datetime, name: str, more: str = "") -> datetime:
    """ISO 8601 (UTC when it names no zone), or a period from now."""
    if period := _PERIOD.fullmatch(text.strip()):
        return now + timedelta(seconds=int(period[1]) * _SECONDS[period[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{name} {shown(text)!r} is no time", next=f"use ISO 8601, as 2026-11-24T18:00Z, or a period as 2h{more}"
        ) from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if at <= now:
        raise UsageError(f"{name} {at.isoformat()} has passed already")
    return at


def _reader(settings: Settings, name: str) -> Settings:
    """The settings of the site to read at: the one named, else the intent's home."""
    return at_site(settings, settings.site or settings.entry(IntentId(name).home).name)


def _known(settings: Settings, intent: IntentId) -> Snapshot:
    """An intent as a worker's view has it, else as the log says. NotFound when nothing stands of it."""
    unknown = NotFound(f"no intent {intent}", where=f"as {settings.here} knows", next="see `transfer2go intent list`")
    try:
        found = WorkerApi(settings, settings.here).intent(intent, {"fresh": "all"})
    except NotFound:
        raise unknown from None
    if found is not None:
        return found
    fold = IntentFold(intent)
    for fact in history(settings, settings.here, intent):
        fold.hear(*fact)
    if not fold.heard:
        raise unknown
    return fold.snapshot()


@intent.command()
@click.argument("name", metavar="INTENT")
@json_option
@click.pass_obj
def show(settings: Settings, name: str, as_json: bool) -> None:
    """State, counts and reasons of one intent, and when it will have arrived. Exit as `add --wait` would now."""
    settings = _reader(settings, name)
    snapshot = _known(settings, IntentId(name))
    _show(settings, snapshot, as_json)
    leave(0 if not snapshot.ended else snapshot.exit_code)


def _show(settings: Settings, snapshot: Snapshot, as_json: bool) -> None:
    """The whole of it; of one that is open also when it will have arrived, by the journals at `settings.here`."""
    now_ms = time.time_ns() // 1_000_000
    eta = None if snapshot.ended else estimate(snapshot, news_of(settings, snapshot, now_ms), now_ms)
    outcomes.show(snapshot, as_json, eta, now_ms)


@intent.command("list")
@click.option("--open", "only_open", is_flag=True, help="Only those that have not ended.")
@click.option(
    "--state", metavar="WORD", type=click.Choice(WORDS), help=f"Only those that stand so: {', '.join(WORDS)}."
)
@click.option("--requester", metavar="TEXT", help="Only what this requester asked for.")
@click.option("--dataset", metavar="/P/P/T", help="Only those with files of this dataset.")
@click.option(
    "-n", "most", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, the newest."
)
@json_option
@click.pass_obj
def list_intents(
    settings: Settings,
    only_open: bool,
    state: str | None,
    requester: str | None,
    dataset: str | None,
    most: int,
    as_json: bool,
) -> None:
    """Intents that a site knows, the newest last."""
    if only_open and state is not None:
        raise UsageError("--open and --state are given together", next="--state open is the same as --open")
    settings = at_site(settings)
    asked = {"state": OPEN if only_open else state or "", "requester": requester or "", "dataset": dataset or ""}
    chosen = sorted(listed(settings, most, asked), key=lambda s: (s.asked_ms or 0, s.intent))
    screen.listing(
        chosen,
        as_json,
        lambda s: outcomes.as_object(s, short=True),
        ("!intent", "!state", "!asked", "to", ">files", ">arrived", ">failed", ">size", "what"),
        lambda s: (
            s.intent,
            s.outcome,
            screen.moment(s.asked_ms),
            " ".join(d.destination for d in s.destinations),
            s.files,
            s.arrived,
            s.lost,
            screen.size(s.bytes),
            outcomes.what(s),
        ),
        empty="no intents",
    )


@intent.command()
@click.argument("name", metavar="INTENT")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="At most so long.")
@json_option
@click.pass_obj
def watch(settings: Settings, name: str, timeout_s: float | None, as_json: bool) -> None:
    """Follow an intent to its end; exit as `add --wait` does."""
    settings = _reader(settings, name)
    with TransferClient(settings) as client:
        handle = client.intent(name)
        if as_json:
            with piped.ends_with_reader():
                leave(_watch_as_json(settings, handle, timeout_s))
        outcome = follow(settings, handle, timeout_s)
    _show(settings, outcome.last, as_json)
    leave(outcome.exit_code)


def _watch_as_json(settings: Settings, handle: IntentHandle, timeout_s: float | None) -> int:
    outage, standing, said = screen.Outage(), _Standing(settings), None
    snapshot = handle.snapshot()
    with waits.on("news") as wait:
        for snapshot in handle.watch(timeout_s, BEAT_S):
            outage.note(handle.away)
            standing.note(snapshot)
            if snapshot != said:
                screen.put_json(outcomes.as_object(snapshot, short=True, eta=standing.eta(snapshot)))
                wait.since_s = time.time()
            wait.what = waiting(snapshot).removeprefix("waits for ") or holdup(snapshot) or "news"
            said = snapshot
    return snapshot.exit_code


@intent.command()
@click.argument("name", metavar="INTENT")
@click.pass_obj
def cancel(settings: Settings, name: str) -> None:
    """Ask the home to cancel an intent; what has arrived stays."""
    said = f"asked {IntentId(name).home} to cancel {name}; see `transfer2go intent show {name}`"
    _ask_home(settings, name, IntentHandle.cancel, said)


@intent.command()
@click.argument("name", metavar="INTENT")
@click.pass_obj
def close(settings: Settings, name: str) -> None:
    """Let an open intent take nothing more: it ends when what is registered by now has arrived."""
    said = f"{name} takes nothing more; see `transfer2go intent watch {name}`"
    _ask_home(settings, name, IntentHandle.close_intake, said)


@intent.command()
@click.argument("name", metavar="INTENT")
@click.option("--execute", is_flag=True, help="Ask for it; without, only what is claimed is shown.")
@json_option
@click.pass_obj
def release(settings: Settings, name: str, execute: bool, as_json: bool) -> None:
    """Claim nothing any more for an intent that has ended: what it brought stays until a removal names it.

    Without --execute: what its destinations claim for it now. Exit 7: it has not ended, or was refused.
    """
    home = settings.entry(IntentId(name).home).name
    settings = at_site(settings, home)
    with TransferClient(settings) as client:
        handle = client.intent(name)
        before = handle.snapshot()
        if before.body is not None and before.body.verb is m.Verb.REMOVE:
            raise NeverWorks(f"intent {name} removes: nothing is claimed for it")
        if not before.ended or before.state is State.REFUSED:
            raise NeverWorks(f"intent {name} is {before.outcome}", next="an intent is released when it has ended")
        if not execute:
            removal.show_claims(settings, before, as_json)
            screen.say("nothing is released without --execute")
            return
        handle.release()
    screen.say(f"asked {home} to release {name}; what it brought may be removed then, and stays until it is")


def _ask_home(settings: Settings, name: str, ask: Callable[[IntentHandle], None], said: str) -> None:
    """Ask something of an intent that has not ended, where it may be asked; then say so."""
    home = settings.entry(IntentId(name).home).name
    with TransferClient(at_site(settings, home)) as client:
        handle = client.intent(name)
        if (before := handle.snapshot()).ended:
            screen.say(f"{handle.id} has ended already: {before.outcome}")
            return
        ask(handle)
    screen.say(said)


@intent.command("history")
@click.argument("name", metavar="INTENT")
@json_option
@click.pass_obj
def show_history(settings: Settings, name: str, as_json: bool) -> None:
    """Who caused each step of it, where its record stands, and which is missing; as the last `audit` had read it."""
    stepping.show(intent_history(kept_index(settings), IntentId(name)), as_json)


@intent.command("explain")
@click.argument("name", metavar="INTENT")
@click.pass_obj
def explain_intent(settings: Settings, name: str) -> None:
    """In words: what it waits for, at which destination, and who holds it up."""
    settings = _reader(settings, name)
    snapshot = _known(settings, IntentId(name))
    now_ms = time.time_ns() // 1_000_000
    lines = explain(snapshot, now_ms)
    if not snapshot.ended:
        if words := unheld(settings, snapshot):
            lines.append(words[0].upper() + words[1:] + ".")
        if snapshot.last_ms is not None and now_ms - snapshot.last_ms >= 1000 * QUIET_S:
            lines += _late_mirrors(settings, snapshot, now_ms)
        lines += of_sites(settings, _sites_of(snapshot), now_ms)
        lines += upgrading.faults(settings, {settings.here: _sites_of(snapshot)})
    for line in lines:
        screen.put(line)


def _late_mirrors(settings: Settings, snapshot: Snapshot, now_ms: int) -> list[str]:
    home = snapshot.intent.home
    source = snapshot.decision.source if snapshot.decision is not None else None
    places = dict.fromkeys(arrivals.destination.site for arrivals in snapshot.destinations if arrivals.left)
    return holdups(settings, source or home, places, home, now_ms)


def _sites_of(snapshot: Snapshot) -> list[Site]:
    source = snapshot.decision.source if snapshot.decision is not None else None
    destinations = (arrivals.destination.site for arrivals in snapshot.destinations)
    return sorted({snapshot.intent.home, *([source] if source else []), *destinations})
