"""`transfer2go site`: the sites of the federation and who is alive there."""

from __future__ import annotations

import time
from typing import Any

import click

from streams.cli import screen
from streams.cli.command import Noun, json_option
from streams.cli.site_chain import chain
from streams.cli.site_check import check_site
from streams.client import worker_api
from streams.client.announcements import Announcements
from streams.errors import Transfer2goError
from streams.settings import Settings, SiteEntry


@click.group(cls=Noun)
def site() -> None:
    """Sites: list, chain, check."""


site.add_command(chain)
site.add_command(check_site)


@site.command("list")
@json_option
@click.pass_obj
def list_sites(settings: Settings, as_json: bool) -> None:
    """Every site: its brokers, live workers and planes, storage, and whether it answers."""
    show_sites(settings, as_json)


def show_sites(settings: Settings, as_json: bool) -> None:
    rows = [_row(settings, entry) for entry in settings.registry.sites]
    shown = ("site", "bootstrap", "workers", "last_heard", "endpoints", "cluster")
    screen.listing(
        rows,
        as_json,
        dict,
        ("!site", "bootstrap", ">workers", "!last heard", "storage", "cluster"),
        lambda r: [" ".join(r[name]) or "-" if name == "endpoints" else r[name] for name in shown],
    )


def _row(settings: Settings, entry: SiteEntry) -> dict[str, Any]:
    now_ms = time.time_ns() // 1_000_000
    try:
        known, cluster = worker_api.announcements(settings, entry.name), "answers"
    except Transfer2goError as error:
        known, cluster = Announcements(), error.what
    alive = known.alive(entry.name, now_ms)
    return {
        "site": entry.name,
        "bootstrap": entry.bootstrap,
        "auditor": entry.auditor,
        "workers": sum(1 for w in alive if w.role == "worker"),
        "endpoints": sorted({e for w in alive for e in w.endpoints}),
        "apis": [w.api for w in alive if w.api],
        "doors": [w.door for w in alive if w.door],
        "last_heard": screen.moment(max((w.at_ms for w in known.announced(entry.name)), default=None)),
        "cluster": cluster,
    }
