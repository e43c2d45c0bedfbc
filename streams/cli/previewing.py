"""`transfer2go intent preview`: what an intent would come to, as the log says now. Nothing is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import click

from streams.cli import holdings, screen
from streams.cli.command import Verb, at_site, json_option
from streams.cli.removal import ClaimsOf, Preview
from streams.core.names import Site
from streams.core.selectors import Selector, parse
from streams.errors import NotFound, UsageError
from streams.settings import Settings
from streams.views.catalogue import CatalogueFile


@dataclass
class Coming:
    """Of one destination: files and bytes of the selection, those that are there already, and those to come."""

    site: Site
    files: int = 0
    bytes: int = 0
    there: int = 0
    to_come: int = 0
    to_come_bytes: int = 0
    nowhere: int = 0
    """Files that the source that is named does not hold, and others do."""

    @property
    def told(self) -> dict[str, Any]:
        return {"site": self.site, **{k: v for k, v in vars(self).items() if k != "site"}}


@click.command(cls=Verb)
@click.argument("selectors", nargs=-1, required=True, metavar="LFN|BLOCK|DATASET…")
@click.option(
    "--to", "destinations", multiple=True, required=True, metavar="SITE", help="Destination; may be repeated."
)
@click.option("--source", metavar="SITE", help="Of what this site holds.")
@click.option("--move", is_flag=True, help="And what would leave --source.")
@json_option
@click.pass_obj
def preview(
    settings: Settings,
    selectors: tuple[str, ...],
    destinations: tuple[str, ...],
    source: str | None,
    move: bool,
    as_json: bool,
) -> None:
    """Say what an intent would bring, and of a move what would leave. Nothing is asked for.

    Exit 3: nobody knows a name, or a site is none.
    """
    settings = at_site(settings)
    if move and source is None:
        raise UsageError("a move without the site that its files leave", next="name it: --source SITE")
    to = [settings.entry(name).name for name in dict.fromkeys(destinations)]
    start = None if source is None else settings.entry(source).name
    if move and start in to:
        raise UsageError(f"{start} is where the files come from and where they go")
    found, leaving = previewed(settings, [parse(name) for name in dict.fromkeys(selectors)], to, start, move)
    _show(found, leaving, as_json)


def previewed(
    settings: Settings, chosen: Sequence[Selector], to: Sequence[Site], source: Site | None, move: bool
) -> tuple[list[Coming], Preview | None]:
    """What would come where, and leave. NotFound for a name that nobody knows."""
    found = [Coming(site) for site in to]
    leaving = Preview(source) if move and source is not None else None
    with ExitStack() as stack:
        claims = ClaimsOf(settings, stack)
        for selector in dict.fromkeys(chosen):
            known = False
            for file in holdings.files(settings, settings.here, selector, prefer=source):
                known = True
                for one in found:
                    _add(one, file, source)
                if leaving is not None:
                    _leave(leaving, file, claims)
            if not known:
                raise NotFound(f"no site is known to hold {selector.name}", next="see `transfer2go file list`")
    return found, leaving


def _add(into: Coming, file: CatalogueFile, source: Site | None) -> None:
    size, holders = file.replicas[0].bytes, {one.site for one in file.replicas}
    into.files, into.bytes = into.files + 1, into.bytes + size
    if into.site in holders:
        into.there += 1
    elif source is not None and source not in holders:
        into.nowhere += 1
    else:
        into.to_come, into.to_come_bytes = into.to_come + 1, into.to_come_bytes + size


def _leave(into: Preview, file: CatalogueFile, claims: ClaimsOf) -> None:
    one = next((one for one in file.replicas if one.site == into.site), None)
    if one is None:
        return
    into.files, into.bytes = into.files + 1, into.bytes + one.bytes
    claim = claims.protecting(into.site, one.dataset, one.block, file.lfn)
    if claim is not None:
        into.stays[f"claimed by {claim}"] += 1


def _show(found: Sequence[Coming], leaving: Preview | None, as_json: bool) -> None:
    if as_json:
        for one in found:
            screen.put_json(one.told)
        if leaving is not None:
            told = {"files": leaving.files, "bytes": leaving.bytes, "stays": dict(leaving.stays.most_common())}
            screen.put_json({"leaves": leaving.site, **told})
        return
    screen.table(
        ("to", ">files", ">size", ">there already", ">to come", ">size to come", ">not at the source"),
        (
            (
                *(one.site, one.files, screen.size(one.bytes), one.there),
                *(one.to_come, screen.size(one.to_come_bytes), one.nowhere),
            )
            for one in found
        ),
        empty="nothing",
    )
    if leaving is not None:
        screen.put(f"{leaving.site}: {leaving.goes:,} of {leaving.files:,} files would leave as they arrive")
        for why in _stays(leaving):
            screen.put(f"{leaving.site}: {why}")


def _stays(leaving: Preview) -> Iterator[str]:
    for why, count in leaving.stays.most_common(5):
        yield f"{count:,} would stay: {why}"
