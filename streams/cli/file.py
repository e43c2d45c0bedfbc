"""`transfer2go file`: say which files a site holds, ask where they are, read them back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from streams.auditing.history import file_history
from streams.auditing.index import kept_index
from streams.auditing.points import PastPoint
from streams.cli import differing, holdings, outcomes, piped, removal, screen, stepping
from streams.cli import repair as repairing
from streams.cli.as_of import as_of_option, in_order, in_words, parsed
from streams.cli.command import Noun, at_site, json_option, leave
from streams.cli.repair import Damaged
from streams.client.producer import TransferClient
from streams.client.worker_api import WorkerApi
from streams.core.endpoint_config import DEFAULT_ENDPOINT
from streams.core.names import Block, Dataset, IntentId, Lfn, Site, shown
from streams.core.selectors import Kind, Selector, parse
from streams.errors import NotFound, PartlyDone, StorageError, Temporary, TransferFailed, UsageError
from streams.kafka.publish import Publisher, writer_of
from streams.registration.discovery import Renaming
from streams.registration.registering import Checked, Registration, register, verify
from streams.settings import Settings
from streams.settings.user import user_name
from streams.storage import marker, open_named
from streams.storage.endpoint import Endpoint
from streams.views.differences import differences


@click.group(cls=Noun)
def file() -> None:
    """Files: register, list, where, diff, history, verify, remove."""


@file.command("register")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--block", required=True, metavar="/P/P/T#NAME", help="The block they belong to.")
@click.option("--prefix", metavar="LFN", help="LFN under which files outside the storage are placed.")
@click.option(
    "--rename", multiple=True, metavar="s/REGEX/TEXT/", help="Of paths below PATH, before they are LFNs. Repeat."
)
@click.option("--copy", is_flag=True, hidden=True, help="As is done without --link.")
@click.option("--link", is_flag=True, help="Hard-link into the storage, no copy: never write to the files again.")
@click.option("--owner", metavar="NAME", help="Whose they are, a group or a person; else yours.")
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
    owner: str | None,
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
            owner=shown(user_name() if owner is None else owner, 100),
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
@as_of_option
@json_option
@click.pass_obj
def list_files(settings: Settings, name: str | None, as_of: PastPoint | None, as_json: bool) -> None:
    """Datasets; or the files of one DATASET or BLOCK with the sites that hold them."""
    settings = at_site(settings)
    if name is None:
        _list_datasets(settings, as_of, as_json)
        return
    chosen = parse(name)
    if chosen.kind is Kind.FILE:
        raise UsageError(f"{name!r} is neither a dataset nor a block", next="for one file use `file where`")
    rows = _files(settings, chosen, as_of)
    if not rows:
        raise NotFound(f"no file in {name}", where=_as_known(settings, as_of), next="see `transfer2go file list`")
    screen.listing(
        rows,
        as_json,
        dict,
        ("lfn", ">bytes", "adler32", "block", "sites"),
        lambda r: (r["lfn"], r["bytes"], r["adler32"], str(r["block"]).partition("#")[2], " ".join(r["sites"])),
    )


def _as_known(settings: Settings, as_of: PastPoint | None) -> str:
    return f"as {settings.here} " + ("knows" if as_of is None else f"knew as of {in_words(as_of)}")


def _files(settings: Settings, chosen: Selector, as_of: PastPoint | None) -> list[dict[str, Any]]:
    """One row a file: lfn, block, bytes, adler32, sites. From a worker's view, else from the journals."""
    with suppress(Temporary):  # the log itself
        if as_of is None:
            answer = WorkerApi(settings, settings.here).pages("/api/files", "files", {chosen.kind.value: chosen.name})
            return [_row(found["lfn"], found["replicas"]) for found in answer if found["replicas"]]
    found = holdings.files(settings, settings.here, chosen, as_of=as_of)
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


def _list_datasets(settings: Settings, as_of: PastPoint | None, as_json: bool) -> None:
    rows = None
    with suppress(Temporary):
        if as_of is None:
            answer = WorkerApi(settings, settings.here).pages("/api/datasets", "datasets", {})
            rows = [(r["name"], r["files"], r["bytes"], sorted(r["sites"])) for r in answer]
    if rows is None:
        with holdings.catalogue(settings, settings.here, as_of=as_of) as known:
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
@as_of_option
@json_option
@click.pass_obj
def where(settings: Settings, lfn: str, as_of: PastPoint | None, as_json: bool) -> None:
    """Which sites hold a file."""
    name, settings = Lfn(lfn), at_site(settings)
    found = _where(settings, name, as_of)
    if not found:
        raise NotFound(f"no site is known to hold {name}", where=_as_known(settings, as_of))
    shown = ("site", "block", "bytes", "adler32")
    columns = ("site", "block", ">bytes", "adler32")
    screen.listing(found, as_json, dict, columns, lambda replica: [replica[name] for name in shown])


@file.command("diff")
@click.argument("earlier", metavar="T1")
@click.argument("later", metavar="T2")
@click.argument("dataset", required=False, metavar="[DATASET]")
@click.option("-n", "most", type=click.IntRange(min=1), default=1000, show_default=True, help="About so many lines.")
@click.option("--after", default="", metavar="LFN", help="Go on behind this file, where an earlier call ended.")
@json_option
@click.pass_obj
def show_differences(
    settings: Settings, earlier: str, later: str, dataset: str | None, most: int, after: str, as_json: bool
) -> None:
    """What came, went and changed from T1 to T2: each an instant, or a file that `audit digest --json` printed.

    Of each file, dataset and site: held at T2 and not at T1, the other way round, or with another size, checksum or
    block. By name; how many there are of each is said on stderr.
    """
    was, now = parsed(earlier, "T1"), parsed(later, "T2")
    in_order(was, now)
    chosen, settings = None if dataset is None else Dataset(dataset), at_site(settings)
    with holdings.two_catalogues(settings, settings.here, was, now, chosen) as (before, is_now):
        found = differences(before, is_now, dataset=chosen, behind=Lfn(after) if after else "")
        differing.show(found, most, as_json)


@file.command("history")
@click.argument("lfn", metavar="LFN")
@json_option
@click.pass_obj
def show_history(settings: Settings, lfn: str, as_json: bool) -> None:
    """Who said what of a file, how it came where it is, and who gave it up; as the last `audit` had read it."""
    stepping.show(file_history(kept_index(settings), Lfn(lfn)), as_json)


def _where(settings: Settings, lfn: Lfn, as_of: PastPoint | None) -> list[dict[str, Any]]:
    if as_of is None:
        answer = WorkerApi(settings, settings.here).ask("/api/where", {"lfn": lfn})
        if isinstance(answer, list):
            return answer
    with holdings.catalogue(settings, settings.here, lfn=lfn, as_of=as_of) as known:
        return [found.told for found in known.where(lfn)]


@file.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="LFN|BLOCK|DATASET…")
@click.option("--at", "sites", multiple=True, required=True, metavar="SITE", help="Where; may be repeated.")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for who finds them gone.")
@click.option(
    "--copies",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="So many other sites must promise to keep a file before it goes.",
)
@click.option("--key", metavar="TEXT", help="Idempotency key: the same key and wish is the same removal.")
@click.option("--execute", is_flag=True, help="Ask for it; without, only what it would come to is shown.")
@click.option("--wait", is_flag=True, help="With --execute: follow it to its end and exit by how it ended.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="With --wait: at most so long."
)
@json_option
@click.pass_obj
def remove_files(
    settings: Settings,
    names: tuple[str, ...],
    sites: tuple[str, ...],
    reason: str,
    copies: int,
    key: str | None,
    execute: bool,
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Ask sites to remove files that others keep; prints the intent's id. Nothing is asked without --execute.

    A file goes only once other sites have read their copies back and promised to keep them; the last copy stays, and
    what an intent claims until it is released (`intent release`). Files that are named must be of one dataset.

    With --wait: exit 0 when all are gone, 8 some, 6 none, 7 refused, 5 still open at --timeout.
    """
    settings = at_site(settings)
    chosen = [parse(name) for name in names]
    if not execute:
        where = list(dict.fromkeys(settings.entry(site).name for site in sites))
        removal.show(removal.preview(settings, chosen, where, copies), as_json)
        screen.say("nothing is removed without --execute")
        return
    with TransferClient(settings) as client:
        handle = client.remove(chosen, sites, reason=reason, copies=copies, idempotency_key=key)
        if not wait:
            screen.put_json({"intent": handle.id}) if as_json else screen.put(handle.id)
            return
        if not as_json:
            with piped.to_its_end():
                screen.put(handle.id)
        outcome = handle.wait(timeout_s)
    outcomes.show(outcome.last, as_json)
    leave(outcome.exit_code)


@file.command("verify")
@click.argument("names", nargs=-1, required=True, metavar="LFN|BLOCK|DATASET…")
@click.option("--repair", is_flag=True, help="Say of damaged files from where they can be repaired.")
@click.option("--execute", is_flag=True, help="With --repair: do it.")
@json_option
@click.pass_obj
def verify_files(settings: Settings, names: tuple[str, ...], repair: bool, execute: bool, as_json: bool) -> None:
    """Read this site's replicas back from its disk and compare size and adler32 with the journals.

    With --repair a damaged or missing file is one that is lost here: the log hears so, and it is asked for again. It
    stays where it is until a whole one takes its place; of its blocks only those that differ cross. Nothing is done
    without --execute. Files that others hold and that lie damaged under their names here are repaired too.

    Exit 0: all as expected, or being repaired; 8: some not; 6: none, or one that cannot be repaired.
    """
    if execute and not repair:
        raise UsageError("--execute without --repair", next="files are only read back then, at once")
    settings = at_site(settings)
    if repair and settings.endpoint_url:
        with open_named(settings.endpoints) as storage:  # of another disk nothing is called lost
            marker.check(storage, marker.Remembered.of(settings.state, settings.here, DEFAULT_ENDPOINT))
    expected = {one.lfn: one for name in names for one in _expected(settings, parse(name), repair=repair)}
    total, bad = 0, list[tuple[Checked, Damaged | None]]()
    progress = screen.ProgressLine(f"reading back at {settings.here}")
    size = sum(one.bytes for one in expected.values())
    asked = [(one.lfn, one.bytes, one.adler32) for one in expected.values()]
    for count, checked in enumerate(verify(settings, asked), 1):
        total += checked.bytes
        progress.show(count, len(expected), total, size)
        if checked.why:
            bad.append((checked, expected[checked.lfn].damaged(checked)))
        with piped.to_its_end():
            if as_json and not (checked.why and repair):
                _put_checked(checked)
            elif checked.why and not repair:
                screen.put(f"{checked.lfn}: {checked.why}")
    progress.close()
    left = _repaired(settings, bad, execute, as_json) if repair else len(bad)
    good = len(expected) - len(bad)
    if not as_json:
        when = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        screen.put(
            f"{good:,} of {len(expected):,} files ({screen.size(total)}) are whole at {settings.here}, read {when}"
        )
        if repair and bad and not execute:
            screen.say("nothing is repaired without --execute")
    if repair and execute:
        leave(TransferFailed.exit_code if left else 0)
    leave(0 if not bad else PartlyDone.exit_code if good else TransferFailed.exit_code)


def _repaired(settings: Settings, bad: Sequence[tuple[Checked, Damaged | None]], execute: bool, as_json: bool) -> int:
    """Says what is, or would be, done for each; how many are not repaired."""
    left = 0

    def say(checked: Checked, damaged: Damaged | None, intent: IntentId | None) -> None:
        nonlocal left
        left += intent is None
        with piped.to_its_end():
            if as_json:
                _put_checked(checked, sources=list(damaged.others) if damaged else [], intent=intent)
            else:
                screen.put(f"{checked.lfn}: {checked.why}: {_remedy(damaged, intent)}")

    damaged = [one for _, one in bad if one is not None]
    of = {one.lfn: checked for checked, one in bad if one is not None}
    for checked, one in bad:
        if one is None or not execute:
            say(checked, one, None)
    if execute and damaged:
        repairing.repair(settings, damaged, lambda one, intent: say(of[one.lfn], one, intent))
    return left


def _remedy(damaged: Damaged | None, intent: IntentId | None) -> str:
    if damaged is None:
        return "it cannot be judged now, and is left"
    if not damaged.others:
        return "no other site holds it"
    sites = " or ".join(damaged.others)
    return f"would be repaired from {sites}" if intent is None else f"is repaired from {sites} by {intent}"


def _put_checked(checked: Checked, **more: Any) -> None:
    screen.put_json({"lfn": checked.lfn, "bytes": checked.bytes, "ok": not checked.why, "why": checked.why, **more})


@dataclass(frozen=True, slots=True)
class Expected:
    """A file that should be on this site's disk. `held`: as this site says; else only others do."""

    lfn: Lfn
    dataset: Dataset
    bytes: int
    adler32: str
    held: bool
    others: tuple[Site, ...]

    def damaged(self, checked: Checked) -> Damaged | None:
        if not checked.damaged:
            return None
        return Damaged(self.lfn, self.dataset, checked.why, checked.version, self.held, self.others)


def _expected(settings: Settings, chosen: Selector, *, repair: bool) -> list[Expected]:
    """This site's replicas, as its journals say. NotFound when there is none.

    With `repair` also what it does not hold any more and has a file of.
    """
    found: list[Expected] = []
    with ExitStack() as stack:
        store = stack.enter_context(open_named(settings.endpoints)) if repair and settings.endpoint_url else None
        for file in holdings.files(settings, settings.here, chosen, prefer=settings.here):
            first = file.replicas[0]
            held = first.site == settings.here
            if not held and (store is None or not _there(store, file.lfn)):
                continue
            same = (other for other in file.replicas if (other.bytes, other.adler32) == (first.bytes, first.adler32))
            others = tuple(other.site for other in same if other.site != settings.here)
            found.append(Expected(file.lfn, first.dataset, first.bytes, str(first.adler32), held, others))
    if not found:
        raise NotFound(f"{settings.here} holds nothing of {chosen.name}", next="see `transfer2go file where`")
    return found


def _there(store: Endpoint, lfn: Lfn) -> bool:
    try:
        store.stat(lfn)
    except StorageError:
        return False
    return True
