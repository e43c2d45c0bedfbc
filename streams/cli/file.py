"""`transfer2go file`: say which files a site holds, ask where they are, read them back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from streams.cli import holdings, piped, screen
from streams.cli.command import Noun, at_site, json_option, leave
from streams.client.worker_api import WorkerApi
from streams.core.names import Block, Lfn, Site
from streams.core.selectors import Kind, Selector, parse
from streams.errors import NotFound, PartlyDone, Temporary, TransferFailed, UsageError
from streams.kafka.publish import Publisher, writer_of
from streams.registration.discovery import Renaming
from streams.registration.registering import Registration, register, verify
from streams.settings import Settings


@click.group(cls=Noun)
def file() -> None:
    """Files: register, list, where, verify."""


@file.command("register")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--block", required=True, metavar="/P/P/T#NAME", help="The block they belong to.")
@click.option("--prefix", metavar="LFN", help="LFN under which files outside the storage are placed.")
@click.option(
    "--rename", multiple=True, metavar="s/REGEX/TEXT/", help="Of paths below PATH, before they are LFNs. Repeat."
)
@click.option("--copy", is_flag=True, hidden=True, help="As is done without --link.")
@click.option("--link", is_flag=True, help="Hard-link into the storage, no copy: never write to the files again.")
@json_option
@click.pass_obj
def register_files(
    settings: Settings,
    paths: tuple[str, ...],
    block: str,
    prefix: str | None,
    rename: tuple[str, ...],
    copy: bool,
    link: bool,
    as_json: bool,
) -> None:
    """Say to the log that this site holds the files at PATH… (directories are walked).

    A PATH 's3://NAME/PATTERN' is the keys of the site's store NAME that match, * and ? standing for any characters.
    Files outside the site's storage are placed into it first, under --prefix, by default /store/BLOCK'S DATASET: cloned
    where the filesystem can share blocks, else copied. With --link a later write to such a file changes the replica.
    Exit 0: all registered; 8: some refused; 6: none registered.
    """
    chosen, settings = Block(block), at_site(settings)
    renamings = [Renaming.parse(text) for text in rename]
    lfn_prefix = prefix or f"/store{chosen.dataset}"
    progress = screen.ProgressLine("registering")
    with (
        holdings.replicas_of(settings, settings.here, chosen.dataset) as replicas_of,
        Publisher(settings, settings.here, writer_of("register"), "cli") as publisher,
    ):
        done = register(
            settings,
            publisher,
            paths,
            chosen,
            lfn_prefix=lfn_prefix,
            replicas_of=replicas_of,
            renamings=renamings,
            link=link and not copy,
            on_progress=lambda files, size: progress.show(files, files, size, size),
            on_fault=lambda fault: screen.say(f"refused: {fault}"),
        )
    with piped.to_its_end():
        _show_registered(done, chosen, settings.here, as_json)
    leave(_exit_code(done))


def _show_registered(done: Registration, block: Block, site: Site, as_json: bool) -> None:
    if as_json:
        faults = [{"where": fault.where, "why": fault.why} for fault in done.faults]
        screen.put_json(
            {
                "site": site,
                "block": block,
                "files": done.files,
                "bytes": done.bytes,
                "placed": done.placed,
                "repeated": done.repeated,
                "refused": done.faults_count,
                "faults": faults,
            }
        )
        return
    how = ", ".join(f"{count:,} {what}" for what, count in sorted(done.placed.items()))
    screen.put(
        f"{done.files:,} files, {screen.size(done.bytes)} registered at {site} in {block}"
        + (f" ({how})" if how else "")
    )
    if done.faults_count:
        screen.say(f"{done.faults_count:,} refused")


def _exit_code(done: Registration) -> int:
    if done.stopped is not None:
        raise done.stopped
    if not done.faults_count:
        return 0
    return PartlyDone.exit_code if done.files or done.repeated else TransferFailed.exit_code


@file.command("list")
@click.argument("name", required=False, metavar="[DATASET|BLOCK]")
@json_option
@click.pass_obj
def list_files(settings: Settings, name: str | None, as_json: bool) -> None:
    """Datasets; or the files of one DATASET or BLOCK with the sites that hold them."""
    settings = at_site(settings)
    if name is None:
        _list_datasets(settings, as_json)
        return
    chosen = parse(name)
    if chosen.kind is Kind.FILE:
        raise UsageError(f"{name!r} is neither a dataset nor a block", next="for one file use `file where`")
    rows = _files(settings, chosen)
    if not rows:
        raise NotFound(f"no file in {name}", where=f"as {settings.here} knows", next="see `transfer2go file list`")
    screen.listing(
        rows,
        as_json,
        dict,
        ("lfn", ">bytes", "adler32", "block", "sites"),
        lambda r: (r["lfn"], r["bytes"], r["adler32"], str(r["block"]).partition("#")[2], " ".join(r["sites"])),
    )


def _files(settings: Settings, chosen: Selector) -> list[dict[str, Any]]:
    """One row a file: lfn, block, bytes, adler32, sites. From a worker's view, else from the journals."""
    try:
        answer = WorkerApi(settings, settings.here).pages("/api/files", "files", {chosen.kind.value: chosen.name})
        return [_row(found["lfn"], found["replicas"]) for found in answer if found["replicas"]]
    except Temporary:
        pass  # the log itself
    found = holdings.files(settings, settings.here, chosen)
    return [_row(one.lfn, [replica.told for replica in one.replicas]) for one in found]


def _row(lfn: str, replicas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = replicas[0]
    return {
        "lfn": lfn,
        "block": first["block"],
        "bytes": first["bytes"],
        "adler32": first["adler32"],
        "sites": sorted(r["site"] for r in replicas),
    }


def _list_datasets(settings: Settings, as_json: bool) -> None:
    try:
        answer = WorkerApi(settings, settings.here).pages("/api/datasets", "datasets", {})
        rows = [(r["name"], r["files"], r["bytes"], sorted(r["sites"])) for r in answer]
    except Temporary:
        with holdings.catalogue(settings, settings.here) as known:
            rows = [(one.name, *one.known, sorted(str(site) for site in one.per_site)) for one in known.datasets()]
    screen.listing(
        rows,
        as_json,
        lambda row: dict(zip(("dataset", "files", "bytes", "sites"), row, strict=True)),
        ("dataset", ">files", ">size", "sites"),
        lambda row: (*row[:2], screen.size(row[2]), " ".join(row[3])),
        empty="no dataset is known here yet; see `transfer2go file register --help`",
    )


@file.command()
@click.argument("lfn", metavar="LFN")
@json_option
@click.pass_obj
def where(settings: Settings, lfn: str, as_json: bool) -> None:
    """Which sites hold a file."""
    name, settings = Lfn(lfn), at_site(settings)
    found = _where(settings, name)
    if not found:
        raise NotFound(f"no site is known to hold {name}", where=f"as {settings.here} knows")
    shown = ("site", "block", "bytes", "adler32")
    columns = ("site", "block", ">bytes", "adler32")
    screen.listing(found, as_json, dict, columns, lambda replica: [replica[name] for name in shown])


def _where(settings: Settings, lfn: Lfn) -> list[dict[str, Any]]:
    answer = WorkerApi(settings, settings.here).ask("/api/where", {"lfn": lfn})
    if isinstance(answer, list):
        return answer
    with holdings.catalogue(settings, settings.here, lfn=lfn) as known:
        return [found.told for found in known.where(lfn)]


@file.command("verify")
@click.argument("names", nargs=-1, required=True, metavar="LFN|BLOCK|DATASET…")
@json_option
@click.pass_obj
def verify_files(settings: Settings, names: tuple[str, ...], as_json: bool) -> None:
    """Read this site's replicas back from its disk and compare size and adler32 with the journals.

    Exit 0: all as expected; 8: some not; 6: none.
    """
    settings = at_site(settings)
    expected = [one for name in names for one in expected_at(settings, parse(name))]
    good = bad = total = 0
    progress = screen.ProgressLine(f"reading back at {settings.here}")
    size = sum(bytes_ for _, bytes_, _ in expected)
    for checked in verify(settings, expected):
        good, bad, total = good + (not checked.why), bad + bool(checked.why), total + checked.bytes
        progress.show(good + bad, len(expected), total, size)
        with piped.to_its_end():
            if as_json:
                screen.put_json({"lfn": checked.lfn, "bytes": checked.bytes, "ok": not checked.why, "why": checked.why})
            elif checked.why:
                screen.put(f"{checked.lfn}: {checked.why}")
    progress.close()
    if not as_json:
        when = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        screen.put(
            f"{good:,} of {len(expected):,} files ({screen.size(total)}) are whole at {settings.here}, read {when}"
        )
    leave(0 if not bad else PartlyDone.exit_code if good else TransferFailed.exit_code)


def expected_at(settings: Settings, chosen: Selector) -> list[tuple[Lfn, int, str]]:
    """(LFN, bytes, adler32) of this site's replicas, as its journals say. NotFound when there is none."""
    mine = [
        (found.lfn, found.replicas[0].bytes, str(found.replicas[0].adler32))
        for found in holdings.files(settings, settings.here, chosen, prefer=settings.here)
        if found.replicas[0].site == settings.here
    ]
    if not mine:
        raise NotFound(f"{settings.here} holds nothing of {chosen.name}", next="see `transfer2go file where`")
    return mine
