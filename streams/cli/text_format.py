"""How a text file is written, as options of commands that read entries: the same as those of a selection's text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from streams.core.selections.entries import EventSelection
from streams.core.selections.text_format import TextFormat
from streams.errors import UsageError

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--encoding", metavar="NAME", help="Of text, if not UTF-8: latin-1, cp1252, utf-16…"),
    click.option("--separator", metavar="CHAR", help="Of CSV: one character, or tab."),
    click.option("--quote", metavar="CHAR", help="Of CSV: one character, or none."),
)


def text_options(command: _F) -> _F:
    """Adds --encoding, --separator and --quote, arguments of the same names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def with_options(selection: EventSelection, given: dict[str, str | None]) -> EventSelection:
    """The selection with what the options say too. Raises UsageError where its text says something else."""
    named = {name: value for name, value in given.items() if value is not None}
    said = dict(selection.text.told())
    both = {**said, **named}
    found = replace(selection, text=TextFormat.of(both.items()))
    told = dict(found.text.told())
    twice = next((name for name in named if name in said and told.get(name) != said[name]), None)
    if twice is not None:
        raise UsageError(f"the part says another {twice} than --{twice}", next="say it once")
    return found
