"""`transfer2go schema`: the records of the wire, as every site reads them."""

from __future__ import annotations

import json
from contextlib import suppress

import click

import schemas
from streams.cli import screen
from streams.cli.command import Noun, json_option
from streams.core.names import shown
from streams.errors import NotFound, did_you_mean


@click.group(cls=Noun)
def schema() -> None:
    """Record schemas: list, show."""


@schema.command("list", federation=False)
@json_option
def list_schemas(as_json: bool) -> None:
    """Every record: its id on the wire, fingerprint, fields and purpose."""
    rows = []
    for name, number in sorted(schemas.ids().items()):
        found = json.loads(schemas.text(name, number))
        doc = " ".join(str(found.get("doc", "")).split())
        rows.append((name, number, schemas.fingerprint(name, number).hex(), len(found["fields"]), doc))
    screen.listing(
        rows,
        as_json,
        lambda row: dict(zip(("name", "id", "fingerprint", "fields", "doc"), row, strict=True)),
        ("!record", "!id", "!fingerprint", ">fields", "purpose"),
        lambda row: (row[0], f"0x{row[1]:08x}", *row[2:]),
    )


@schema.command(federation=False)
@click.argument("name", metavar="NAME|ID")
def show(name: str) -> None:
    """The Avro schema of a record, by name or by the id in a record's frame."""
    number: int | None = None
    known = schemas.versions()
    if name not in known:
        with suppress(ValueError):
            number = int(name, 0)
        found = schemas.names().get(number) if number is not None else None
        if found is None:
            hint = did_you_mean(name, known) or "see `transfer2go schema list`"
            raise NotFound(f"no schema {shown(name)!r}", next=hint)
        name = found
    click.echo(schemas.text(name, number).rstrip())
