"""`transfer2go dlq`: records that were refused, why, and a way to say them again once the cause is mended."""

from __future__ import annotations

import re

import click

from streams import wire
from streams.cli import screen
from streams.cli.command import Noun, at_site, execute_option, json_option
from streams.cli.tailing import TailedRecord, as_object, last, tell
from streams.core import records as m
from streams.core.names import Site, shown
from streams.core.records import topic_of
from streams.core.topics import DEAD_LETTERS, split
from streams.errors import NeverWorks, NotFound, Temporary, UsageError, WireError
from streams.kafka.publish import Publisher, writer_of
from streams.kafka.reader import Record
from streams.kafka.replay import replay
from streams.settings import Settings

_NAME = re.compile(r"(\d{1,6}):(\d{1,18})")


@click.group(cls=Noun)
def dlq() -> None:
    """Dead letters: list, show, requeue."""


@dlq.command("list")
@click.option("-n", "most", type=click.IntRange(min=1), default=50, show_default=True, help="So many of the newest.")
@json_option
@click.pass_obj
def list_letters(settings: Settings, most: int, as_json: bool) -> None:
    """Refused records of a site, the newest last; the first column names them for `show` and `requeue`."""
    settings = at_site(settings)
    letters = [tell(record, settings.here) for record in last(settings, settings.here, [DEAD_LETTERS], most)]
    screen.listing(
        letters,
        as_json,
        lambda told: {"letter": _name(told.record), **as_object(told)},
        ("!letter", "!time", "refused record", "from", "reason"),
        lambda told: (_name(told.record), screen.moment(told.record.timestamp_ms), *_row(told)),
        empty=f"no dead letters at {settings.here}",
    )


def _name(record: Record) -> str:
    return f"{record.partition}:{record.offset}"


def _row(told: TailedRecord) -> tuple[str, str, str]:
    letter = told.fact
    if not isinstance(letter, m.DeadLetter):
        return "?", "?", told.what
    return f"{letter.topic}[{letter.partition}]@{letter.offset}", letter.origin_site or "?", str(letter.reason)


def _letter(settings: Settings, name: str) -> tuple[Record, m.DeadLetter]:
    """The dead letter PARTITION:OFFSET of this site."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise UsageError(f"{shown(name)!r} names no dead letter", next="use PARTITION:OFFSET, as `dlq list` prints it")
    partition, offset = int(parts[1]), int(parts[2])
    found = _record(settings, DEAD_LETTERS, partition, offset)
    told = tell(found, settings.here) if found else None
    if found is None or told is None or not isinstance(told.fact, m.DeadLetter):
        raise NotFound(f"no dead letter {name} at {settings.here}", next="see `transfer2go dlq list`")
    return found, told.fact


def _record(settings: Settings, topic: str, partition: int, offset: int) -> Record | None:
    for record in replay(settings, settings.here, [topic], partitions=[partition], start={(topic, partition): offset}):
        return record if record.offset == offset else None
    return None


@dlq.command()
@click.argument("name", metavar="LETTER")
@click.option("--bytes", "as_bytes", is_flag=True, help="The refused value as it was, undecoded.")
@json_option
@click.pass_obj
def show(settings: Settings, name: str, as_bytes: bool, as_json: bool) -> None:
    """One dead letter: why it was refused, and what stood in it."""
    settings = at_site(settings)
    record, letter = _letter(settings, name)
    if as_bytes:
        click.get_binary_stream("stdout").write(letter.value)
        return
    if as_json:
        screen.put_json({"letter": name, **screen.plain(letter)})
        return
    screen.put(f"refused  {screen.moment(record.timestamp_ms)}")
    screen.put(f"reason   {letter.reason}")
    screen.put(f"record   {letter.topic}[{letter.partition}]@{letter.offset}, from {letter.origin_site or 'unknown'}")
    screen.put(f"key      {letter.key.decode('utf-8', 'backslashreplace')}")
    screen.put(
        f"value    {len(letter.value):,} bytes: {letter.value[:64].hex(' ')}{' …' if len(letter.value) > 64 else ''}"
    )


@dlq.command()
@click.argument("name", metavar="LETTER")
@execute_option
@click.pass_obj
def requeue(settings: Settings, name: str, execute: bool) -> None:
    """Publish the refused record again, from where it stands, with a new number. Shows only, until --execute.

    What the gate still refuses cannot be requeued: that is bytes nobody can read.
    """
    settings = at_site(settings)
    _, letter = _letter(settings, name)
    record = _record(settings, letter.topic, letter.partition, letter.offset)
    if record is None:
        where = f"{letter.topic}[{letter.partition}]@{letter.offset} at {settings.here}"
        raise NotFound("the refused record is not in its topic any more", where=where)
    try:
        heard = wire.decode(record.topic, record.key, record.value, record.headers, settings.here)
    except WireError as error:
        raise NeverWorks(f"the gate still refuses it: {error.what}", next="ask its writer to say it anew") from error
    home: Site = split(record.topic)[0] or settings.here
    what = f"{type(heard.message).__name__} {shown(str((record.key or b'').decode('utf-8', 'backslashreplace')))}"
    if not execute:
        screen.put(f"would publish {what} again in {topic_of(heard.message)} of {home}; add --execute to do it")
        return
    _publish(at_site(settings, home), home, heard.message)
    screen.put(f"published {what} again in {topic_of(heard.message)} of {home}")


def _publish(settings: Settings, home: Site, message: m.Message) -> None:
    failed: list[Exception] = []
    with Publisher(settings, home, writer_of("requeue"), "cli") as publisher:
        publisher.send(message, lambda error: failed.append(error) if error else None)
        left = publisher.flush(35)
    if failed or left:
        raise Temporary(
            f"the broker of {home} did not take it: {failed[0] if failed else 'no answer'}", next="try again"
        )
