"""`transfer2go event`: what event files hold: their columns and entries, and a part of one as a file of its own.

What is asked for is written in one text, as `Events[0:1000]{Muon_pt,Jet_*}`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from streams.cli import screen
from streams.cli.command import Noun, at_site, json_option
from streams.cli.entry_rows import need_packages, rows_of, worded
from streams.cli.text_format import text_options, with_options
from streams.core.selections.parts import FORMATS
from streams.errors import NeverWorks, NotFound, StorageError, Temporary, UsageError
from streams.settings import Settings
from streams.storage import syscalls
from streams.storage.endpoint import FileMissing

if TYPE_CHECKING:
    from streams.events.entries import Entries

_BATCH_BYTES = 1 << 20
_INPUTS = ("parquet", "root", "arrow")
_KINDS = {f".{name}": name for name in FORMATS}

_part = click.argument("part", required=False, default="[:]")


@click.group(cls=Noun)
def event() -> None:
    """Events: columns, show and copy of a file; tail of an intent, work on its entries."""


def _opened(path: str, part: str, given: dict[str, str | None], *, lenient: bool = False) -> Entries:
    need_packages("event files need")
    from streams.core.selections.entries import EventSelection
    from streams.events.reading import open_entries

    asked = with_options(EventSelection.parse(part), given)
    entries = open_entries(path, replace(asked, lenient=True) if lenient else asked)
    for note in entries.notes:
        screen.say(note)
    return entries


@contextmanager
def _codes() -> Iterator[None]:
    """A storage's words with the exit code that says what to do next."""
    try:
        yield
    except FileMissing as error:
        raise NotFound(error.what, error.where, error.next) from error
    except StorageError as error:
        passes = error.failure_class in ("transient", "quota")
        raise (Temporary if passes else NeverWorks)(error.what, error.where, error.next) from error


def _batches(entries: Entries, most: int | None = None) -> Iterator[tuple[int, int, Any]]:
    end = entries.stop if most is None else min(entries.stop, entries.start + most)
    for start, stop in entries.cuts(_BATCH_BYTES):
        if start >= end:
            return
        yield start, min(stop, end), entries.read(start, min(stop, end))


@event.command(federation=False)
@click.argument("path")
@_part
@text_options
@json_option
def columns(path: str, part: str, as_json: bool, **given: str | None) -> None:
    """The columns of PATH, or of a PART of it (TREE, or TREE{COLUMN,GLOB*}), with their Arrow types."""
    with _codes(), _opened(path, part, given, lenient=True) as entries:
        rows = [(field.name, str(field.type)) for field in entries.schema]
        rows += [(name, f"unreadable: {why}") for name, why in entries.unreadable.items()]
        tree, count = entries.tree, entries.entries
    screen.listing(rows, as_json, lambda r: {"column": r[0], "type": r[1]}, ("!column", "type"), tuple)
    if not as_json:
        screen.say(f"{count:,} entries{f' of the tree {tree}' if tree else ''}, {len(rows)} columns")


@event.command(federation=False)
@click.argument("path")
@_part
@click.option("-n", "most", default=10, show_default=True, type=click.IntRange(min=0), help="Entries, at most.")
@text_options
def show(path: str, part: str, most: int, **given: str | None) -> None:
    """Entries of PATH as JSON lines: TREE[START:STOP]{COLUMN,GLOB*}, whatever is left out means all.

    Each begins with its number, `entry`; where a column has that name, `_entry`.
    """
    with _codes(), _opened(path, part, given) as entries:
        for start, _, batch in _batches(entries, most):
            for number, values in enumerate(rows_of(batch), start):
                screen.put_json(screen.labelled({"entry": number}, values), default=worded, ensure_ascii=True)


@event.command(follows=True)
@click.argument("intent")
@click.option("--name", help="Read as this consumer of the intent, and move its place; else as an onlooker.")
@click.option("--columns", metavar="COL,GLOB*", help="Only these columns travel; not with --name.")
@click.option("-n", "most", type=click.IntRange(min=1), help="Entries, at most.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Without an entry.")
@click.pass_obj
def tail(
    settings: Settings, intent: str, name: str | None, columns: str | None, most: int | None, timeout_s: float | None
) -> None:
    """Entries of INTENT as JSON lines, from the first on, while they come.

    An onlooker asks for the same with an intent of its own, and cancels that when it leaves.
    """
    from streams.cli.event_tail import tail

    tail(at_site(settings), intent, name, columns, most, timeout_s)


@event.command()
@click.argument("intent")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND…", type=click.UNPROCESSED)
@click.option(
    "--name", metavar="POOL", help="The intent's consumer at this site to work for; its only one if left out."
)
@click.option(
    "--input", "kind", type=click.Choice(_INPUTS), default=_INPUTS[0], show_default=True, help="Arrow comes on stdin."
)
@click.option("--stdout", is_flag=True, help="What COMMAND writes to stdout is the output, not the file at {out}.")
@click.option("--out-suffix", "suffix", default="out", show_default=True, metavar="TEXT", help="Of the outputs' names.")
@click.option("--allow-empty", is_flag=True, help="An empty output is one.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Of a range."
)
@click.option("--tries", type=click.IntRange(1, 100), default=3, show_default=True, help="Of a range.")
@json_option
@click.pass_obj
def work(
    settings: Settings,
    /,
    intent: str,
    command: tuple[str, ...],
    name: str | None,
    kind: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Work on INTENT's entries together with whoever else does: COMMAND runs once for each range of them.

    The intent was asked for with `--to SITE/POOL`. In COMMAND {in} is a file with the range's entries and {out}
    where to write what came of them, which becomes a file of the site; {lfn}, {start} and {stop} say which entries
    they are, and so do T2G_INPUT, T2G_OUTPUT, T2G_LFN, T2G_RANGE_START and T2G_RANGE_STOP.

    Run it as often as you like, and stop it any time: ranges of one that went are taken over within seconds, and each
    is counted once. It ends when all are done: with 8, or 6, if COMMAND failed on some.
    """
    from streams.cli.event_work import work

    work(at_site(settings), intent, name, command, kind, given, as_json)


@event.command(federation=False)
@click.argument("path")
@click.argument("part")
@click.argument("out")
@text_options
def copy(path: str, part: str, out: str, **given: str | None) -> None:
    """Write a PART of PATH to a new file OUT: .parquet, .arrow or .root, the same values to the last bit."""
    kind = _KINDS.get(os.path.splitext(out)[1])
    if kind is None:
        raise UsageError(f"which kind of file is {out}?", next=f"end it with one of {', '.join(_KINDS)}")
    if os.path.lexists(out):
        raise NeverWorks("there is something under that name already", where=out, next="choose another name")
    with _codes(), _opened(path, part, given) as entries:
        size, adler32 = _written(entries, kind, path, out)
        what = f"{entries.entries:,} entries, {len(entries.columns)} columns"
    screen.put(f"{what}, {screen.size(size)}, adler32 {adler32}")


def _written(entries: Entries, kind: str, path: str, out: str) -> tuple[int, str]:
    """Through a spool, as entries that travel; the final name appears with the whole file."""
    from streams.events import batches
    from streams.events.provenance import Provenance
    from streams.events.spool import Spool
    from streams.events.writing import Sealing

    directory, name = os.path.split(os.path.abspath(out))
    spooled, part = (os.path.join(directory, f".t2g-{secrets.token_hex(8)}-{n}.part") for n in range(2))
    spool = Spool(spooled)
    try:
        first = entries.start
        for start, stop, batch in _batches(entries):
            spool.add(start - first, stop - first, batches.pack(batch))
        about = Provenance(path, entries.tree, entries.start, entries.stop)
        with Sealing(spool, kind, part, about, schema=entries.schema) as sealing:
            sealed = sealing.finish()
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            syscalls.rename_noreplace(fd, os.path.basename(part), fd, name)
            os.fsync(fd)
        finally:
            os.close(fd)
    finally:
        spool.discard()
        if os.path.exists(part):
            os.unlink(part)
    return sealed.bytes, sealed.adler32
