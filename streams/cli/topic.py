"""`transfer2go topic`: create and list what a site needs, read any of it decoded, see how far readers lag."""

from __future__ import annotations

import sys

import click

from streams.cli import lagging, piped, screen
from streams.cli.command import Noun, at_site, json_option, leave
from streams.cli.tailing import as_line, as_object, is_payload, last, tell
from streams.core.names import shown
from streams.errors import NotFound, Temporary, UsageError, did_you_mean
from streams.kafka import admin
from streams.kafka.reader import LogReader, Record
from streams.kafka.replay import end_offsets
from streams.kafka.steady import SteadyReader
from streams.settings import Settings

_WAIT_S = 0.1


@click.group(cls=Noun)
def topic() -> None:
    """Topics: create, list, tail, lag."""


@topic.command()
@json_option
@click.pass_obj
def create(settings: Settings, as_json: bool) -> None:
    """Create every topic that is missing, mirrored copies included, and put wrong settings right.

    At all sites, or at --site only. Run it after adding a site, before its mirrors start.
    """
    sites = None if settings.site is None else [settings.entry(settings.site).name]
    for done in admin.provision(settings, sites):
        if as_json:
            screen.put_json({"site": done.site, "created": done.created, "mended": done.mended, "kept": done.kept})
            continue
        screen.put(f"{done.site}: {len(done.created)} created, {len(done.mended)} put right, {done.kept} as they were")
        for name in done.created:
            screen.say(f"  created {name}")
        for name in done.mended:
            screen.say(f"  put right {name}")


@topic.command("list")
@json_option
@click.pass_obj
def list_topics(settings: Settings, as_json: bool) -> None:
    """Every topic a site needs: class, partitions, records, and what is wrong with it. Exit 7 if anything is."""
    settings = at_site(settings)
    site = settings.here
    needed = admin.needed(settings, site)
    counts = admin.partition_counts(settings, site)
    present = [t.name for t in needed if t.name in counts]
    ends = end_offsets(settings, site, present) if present else {}
    faults = admin.faults(settings, site)
    rows = []
    for one in needed:
        records = sum(end for (name, _), end in ends.items() if name == one.name)
        wrong = next((f for f in faults if f.startswith(f"topic {one.name} ")), "")
        state = "missing" if one.name not in counts else "wrong" if wrong else "ok"
        rows.append((one.name, str(one.retention), counts.get(one.name, 0), records, state, wrong))
    with piped.to_its_end():
        _show_topics(rows, faults, as_json)
    leave(7 if faults else 0)


def _show_topics(rows: list[tuple[str, str, int, int, str, str]], faults: list[str], as_json: bool) -> None:
    names = ("topic", "class", "partitions", "offsets", "state", "fault")
    columns = ("topic", "class", ">partitions", ">offsets", "state")
    screen.listing(rows, as_json, lambda row: dict(zip(names, row, strict=True)), columns, lambda row: row[:5])
    if not as_json:
        for fault in faults:
            screen.say(fault)


@topic.command("tail", follows=True)
@click.argument("names", nargs=-1, required=True, metavar="TOPIC…")
@click.option("-n", "most", default="10", show_default=True, metavar="COUNT|all", help="So many of the newest.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--bytes", "as_bytes", is_flag=True, help="The raw values, one after the other, undecoded.")
@json_option
@click.pass_obj
def tail_topics(
    settings: Settings, names: tuple[str, ...], most: str, follow: bool, as_bytes: bool, as_json: bool
) -> None:
    """The newest records, decoded, a line each: time, place, key, kind, writer#number, meaning.

    A peer's copy is read as PEER.TOPIC. What the gate refuses is shown as REFUSED with its reason.
    """
    settings = at_site(settings)
    site = settings.here
    if most != "all" and not most.isdigit():
        raise UsageError(f"-n {shown(most)} is neither a count nor `all`")
    _check_names(settings, names)
    with LogReader(settings, site) as reader:
        ends = reader.end_offsets(reader.partitions_of(names))

    def show(record: Record) -> None:
        if as_bytes:
            sys.stdout.buffer.write(record.value or b"")
            sys.stdout.buffer.flush()
        elif as_json:
            screen.put_json(as_object(tell(record, site)))
        else:
            screen.put(as_line(tell(record, site)))

    count = sys.maxsize // 1024 if most == "all" else int(most)
    shown_records = last(settings, site, names, count) if count else []
    for record in shown_records:
        show(record)
    if not shown_records and not follow:
        screen.say("no records")
    if follow:
        outage = screen.Outage()
        with SteadyReader(settings, site, ends, large_records=any(map(is_payload, names))) as steady:
            while True:
                found = steady.batch(_WAIT_S)
                outage.note(steady.away)
                for record in found:
                    show(record)


def _check_names(settings: Settings, names: tuple[str, ...]) -> None:
    known = {t.name for t in admin.needed(settings, settings.here)}
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or "see `transfer2go topic list`"
            raise NotFound(f"no topic {shown(name)!r} at {settings.here}", next=hint)


@topic.command()
@json_option
@click.pass_obj
def lag(settings: Settings, as_json: bool) -> None:
    """How far each mirror is behind its origin, and each site's workers behind their topics.

    For all sites, or --site only. A mirror's lag is in records, and in time between the two last records.
    """
    sites = settings.registry.names if settings.site is None else (settings.site,)
    mirrors: list[lagging.FlowLag] = []
    groups: list[lagging.Behind] = []
    code = 0
    for site in sites:
        try:
            mirrors += lagging.mirror_lag(settings, site)
            groups += lagging.worker_lag(settings, site)
        except Temporary as error:
            screen.say(f"{site} cannot be compared: {error}")
            code = error.exit_code
    with piped.to_its_end():
        _show_lag(mirrors, groups, as_json)
    leave(code)


def _show_lag(mirrors: list[lagging.FlowLag], groups: list[lagging.Behind], as_json: bool) -> None:
    if as_json:
        for flow in mirrors:
            screen.put_json({"kind": "mirror", **screen.plain(flow)})
        for group in groups:
            screen.put_json({"kind": "workers", **screen.plain(group)})
        return
    screen.table(
        ("from", "to", "topic", ">records behind", ">time behind"),
        ((f.origin, f.site, f.topic, f.records, screen.duration(f.behind_s) if f.records else "-") for f in mirrors),
        empty="no mirrored topics: the federation has one site",
    )
    screen.table(
        ("site", "topic", ">records behind"),
        ((g.site, g.topic, g.records) for g in groups),
        empty="no worker has committed anything yet",
    )
