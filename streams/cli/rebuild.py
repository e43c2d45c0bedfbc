"""`transfer2go rebuild`: tables are a cache; forget them and fold the journals anew."""

from __future__ import annotations

import re
import time

import click

from streams.cli import screen
from streams.cli.command import Verb, execute_option
from streams.cli.up import is_local, step_teller
from streams.federation import local, plan
from streams.settings import Settings

_LINE = re.compile(r"(?m)^(\s*table_version\s*=\s*)(\d+)")


@click.command(cls=Verb)
@execute_option
@click.pass_obj
def rebuild(settings: Settings, execute: bool) -> None:
    """Raise `table_version` in sites.toml: workers then start with empty tables and fold every journal anew.

    Nothing is lost: the journals are the truth. Shows only, until --execute. A local federation's workers are
    restarted; others must be stopped all, given the same sites.toml, and started.
    """
    old = settings.registry.table_version
    path = settings.sites_path
    text = path.read_text()
    raised, found = _LINE.subn(lambda m: f"{m[1]}{old + 1}", text, count=1)
    if not found:
        raised = f"table_version = {old + 1}\n{text}"
    if not execute:
        screen.put(f"would set table_version {old} → {old + 1} in {path}; add --execute to do it")
        return
    record = plan.read_record(settings.state) if is_local(settings) else None
    plan.write(path, raised)
    screen.put(f"table_version {old} → {old + 1} in {path}")
    if record is None or not record.running:
        screen.say("now stop every worker of every site, give all the same sites.toml, and start them")
        return
    started = time.monotonic()
    tell = step_teller(started)
    names = [site.name for site in record.sites]
    local.down(settings.state, on_step=tell)
    local.up(settings.state, settings.cache, names, on_step=tell)
    screen.put(f"tables are folded anew in {screen.duration(time.monotonic() - started)}")
