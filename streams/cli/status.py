"""`transfer2go status`: what runs, where, and how it is."""

from __future__ import annotations

from collections.abc import Iterable

import click

from streams.cli import piped, screen, seal_ages, upgrading
from streams.cli.command import Verb, json_option, leave
from streams.cli.site import show_sites
from streams.cli.up import is_local
from streams.core.names import Site
from streams.errors import Temporary
from streams.federation import local
from streams.settings import Settings


@click.command(cls=Verb)
@json_option
@click.pass_obj
def status(settings: Settings, as_json: bool) -> None:
    """Every part of the local federation with its memory and restarts; for clusters of your own, the sites.

    Sites of another release, mirrors that lack a topic and how old the last seal of each site is are told on stderr.
    Exit 0: all is well; 5: something is not ready.
    """
    if not is_local(settings):
        show_sites(settings, as_json)
        _say_faults(settings, settings.registry.names)
        return
    parts = local.status(settings.state)
    well = all(part.state == "ready" or is_follower_to_be(part) for part in parts)
    with piped.to_its_end():
        _show_parts(settings, parts, as_json)
    up = {part.name for part in parts if part.state == "ready"}
    _say_faults(settings, [site for site in settings.registry.names if f"{site}-broker" in up])
    leave(0 if well else Temporary.exit_code)


def is_follower_to_be(part: local.PartStatus) -> bool:
    """Whether it is about to follow, which nothing else waits for."""
    return part.name.endswith("-follower") and part.state in ("stopped", "starting") and not part.restarts


def _show_parts(settings: Settings, parts: list[local.PartStatus], as_json: bool) -> None:
    screen.listing(
        parts,
        as_json,
        screen.plain,
        ("!part", "state", ">pid", ">port", ">memory", ">restarts", "last end"),
        lambda part: (
            part.name,
            part.state,
            str(part.pid or "-"),
            str(part.port or "-"),
            screen.size(part.rss_bytes) if part.rss_bytes else "-",
            part.restarts,
            part.why or "-",
        ),
    )
    if not as_json:
        screen.put(f"memory together: {screen.size(sum(part.rss_bytes for part in parts))}")
        screen.say(f"logs: {settings.state / 'logs'}")


def _say_faults(settings: Settings, sites: Iterable[Site]) -> None:
    names = list(sites)
    for line in upgrading.faults(settings, {site: [site] for site in names}):
        screen.say(line)
    for site in names:
        screen.say(seal_ages.line(settings, site))
