"""`transfer2go config`: what is configured, where each value came from, and what a mirror must be configured with."""

from __future__ import annotations

import click

from streams.cli import screen
from streams.cli.command import Noun, json_option
from streams.federation import mirror as mirrors
from streams.settings import Settings


@click.group(cls=Noun)
def config() -> None:
    """Configuration: show, mirror."""


@config.command(federation=False)
@click.option("--origin", is_flag=True, help="Also say where each value came from.")
@json_option
@click.pass_obj
def show(settings: Settings, origin: bool, as_json: bool) -> None:
    """Every setting as it is in force here; secrets are masked.

    Flags win over T2G_… variables, ./transfer2go.toml, the user's file, /etc, the site's own file, defaults.
    """
    names = ("name", "value", "origin") if origin else ("name", "value")
    columns = ("setting", "value", "from")[: len(names)]
    values = [[getattr(value, name) for name in names] for value in sorted(settings.values, key=lambda v: v.name)]
    screen.listing(values, as_json, lambda value: dict(zip(names, value, strict=True)), columns, list)


@config.command("mirror")
@click.option("--to", "target", metavar="SITE", help="Only flows to this site: one mirror a site, beside its cluster.")
@click.option("--replication", default=3, show_default=True, help="Of the mirror's own topics.")
@click.pass_obj
def mirror_properties(settings: Settings, target: str | None, replication: int) -> None:
    """A MirrorMaker 2 configuration for the sites of sites.toml: each line follows a measured rule.

    Add what your clusters ask of Java clients (T1_A.security.protocol, T1_A.sasl.jaas.config, ...).
    """
    registry = settings.registry
    flows = mirrors.mesh({entry.name: entry.auditor for entry in registry.sites})
    if target is not None:
        only = settings.entry(target).name
        flows = [flow for flow in flows if flow.target == only]
    bootstraps = {str(entry.name): entry.bootstrap for entry in registry.sites}
    most = next(flag for flag in mirrors.heap(len(flows)) if flag.startswith("-Xmx"))
    screen.put(f'# Start it with KAFKA_HEAP_OPTS="{most}" at least, which {len(flows)} flows need.')
    for key, value in mirrors.properties(bootstraps, flows, replication=replication).items():
        screen.put(f"{key} = {value}")
