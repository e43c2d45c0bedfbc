"""`transfer2go down`: stop the local federation."""

from __future__ import annotations

import time

import click

from streams.cli import screen
from streams.cli.command import Verb
from streams.cli.up import step_teller
from streams.federation import local
from streams.settings import Settings


@click.command(cls=Verb, federation=False)
@click.option("--purge", is_flag=True, help="Also remove its state: topics, tables, and the files of every site.")
@click.pass_obj
def down(settings: Settings, purge: bool) -> None:
    """Stop the federation of this state directory; its topics and files stay unless --purge."""
    ran = local.down(settings.state, purge=purge, on_step=step_teller(time.monotonic()))
    screen.put(("stopped" if ran else "nothing was running") + (f", {settings.state} removed" if purge else ""))
