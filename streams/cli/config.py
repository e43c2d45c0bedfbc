"""`transfer2go config`: what is configured, and where each value came from."""

from __future__ import annotations

import click

from streams.cli import screen
from streams.cli.command import Noun, json_option
from streams.settings import Settings


@click.group(cls=Noun)
def config() -> None:
    """Configuration: show."""


@config.command(federation=False)
@click.option("--origin", is_flag=True, help="Also say where each value came from.")
@json_option
@click.pass_obj
def show(settings: Settings, origin: bool, as_json: bool) -> None:
    """Every setting as it is in force here; secrets are masked.

    Flags win over T2G_… variables, ./transfer2go.toml, the user's file, /etc, the site's own file, defaults.
    """
    values = sorted(settings.values, key=lambda v: v.name)
    if as_json:
        for value in values:
            screen.put_json({"name": value.name, "value": value.value, **({"origin": value.origin} if origin else {})})
        return
    if origin:
        screen.table(("setting", "value", "from"), ((v.name, v.value, v.origin) for v in values))
    else:
        screen.table(("setting", "value"), ((v.name, v.value) for v in values))
