"""`transfer2go up`: a local federation, started or found."""

from __future__ import annotations

import time

import click

from streams.cli import screen
from streams.cli.command import Verb, json_option
from streams.core.names import Site
from streams.errors import UsageError
from streams.federation import local, plan
from streams.kafka import admin
from streams.settings import Settings

SITES_MAX = len(local.DEFAULT_SITES)


@click.command(cls=Verb, federation=False)
@click.option("--sites", default="2", show_default=True, metavar="N|NAME,NAME…", help="How many sites, or their names.")
@click.option("--workers", type=click.IntRange(1, 8), default=1, show_default=True, help="Workers of each site.")
@click.option(
    "--follow/--no-follow",
    "followers",
    default=True,
    show_default=True,
    help="Keep an `audit follow` of each site, which is not waited for.",
)
@json_option
@click.pass_obj
def up(settings: Settings, sites: str, workers: int, followers: bool, as_json: bool) -> None:
    """Start a local federation: per site a Kafka broker and workers, one mirror between all; wait until it is ready.

    A second `up` finds the first, and adds what it lacks: `up --sites 3` adds a third site to two. Where sites.toml
    names clusters of your own nothing is started: their topics are created.
    """
    if settings.sites_path.is_file() and not is_local(settings):
        _use_existing(settings, as_json)
        return
    started = time.monotonic()
    names = site_names(sites)
    teller = step_teller(started)
    federation = local.up(settings.state, settings.cache, names, workers=workers, followers=followers, on_step=teller)
    took = time.monotonic() - started
    if as_json:
        ports = {site.name: site.port for site in federation.record.sites}
        screen.put_json({"state": str(federation.state), "found": federation.found, "sites": ports, "seconds": took})
        return
    what = "found running" if federation.found else f"ready in {screen.duration(took)}"
    screen.put(f"{len(federation.sites)} sites {what}: {' '.join(federation.sites)}  (state in {federation.state})")
    screen.say("next: transfer2go status · transfer2go file register … · transfer2go down")


def is_local(settings: Settings) -> bool:
    """Whether sites.toml is that of a federation that `up` manages in the state directory."""
    return settings.sites_path == settings.state / "sites.toml" and plan.is_managed(settings.state)


def site_names(text: str) -> list[str]:
    """`3` → the first three default names; `A,B` → those."""
    if text.isdigit():
        count = int(text)
        if not 1 <= count <= SITES_MAX:
            raise UsageError(f"--sites {count}: between 1 and {SITES_MAX} run here", next="or name them: --sites A,B")
        return list(local.DEFAULT_SITES[:count])
    names = [str(Site(name.strip())) for name in text.split(",")]
    if len(set(names)) != len(names):
        raise UsageError("--sites names one twice")
    return names


def step_teller(started: float) -> local.OnStep:
    """Says each step on stderr with the seconds since `started`."""
    return lambda step: screen.say(f"{time.monotonic() - started:5.1f} s  {step}")


def _use_existing(settings: Settings, as_json: bool) -> None:
    done = admin.provision(settings)
    created, mended = sum(len(site.created) for site in done), sum(len(site.mended) for site in done)
    if as_json:
        screen.put_json({"sites": list(settings.registry.names), "found": True, "created": created, "mended": mended})
        return
    screen.put(
        f"{settings.sites_path} names {len(done)} clusters of your own: nothing to start; "
        f"{created} topics created, {mended} put right, the others are in order"
    )
    screen.say("run a worker at each site: python -m faust -A agents worker -l info")
    screen.say("and one follower of each: transfer2go --site SITE audit follow")
