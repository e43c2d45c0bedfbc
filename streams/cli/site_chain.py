"""`transfer2go site chain`: what sites keep, promise and remove, dataset by dataset, and the end of a dispute.

A chain has parted where a site heard two histories of it: after a broker's disk of before was put back, or its disk was
lost. Until an operator settles it no step of it counts there.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import click

from streams import wire
from streams.cli import screen
from streams.cli.command import Noun, json_option
from streams.core import records as m
from streams.core import topics
from streams.core.keeping.chains import ChainRow
from streams.core.names import Dataset, Site, Text, shown
from streams.errors import NeverWorks, NotFound, Temporary, Transfer2goError, WireError
from streams.kafka.publish import Publisher, writer_of
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.views import scratch
from streams.views.folding import Changes
from streams.views.keeping import Chains

ACK_S = 30.0
_TOUCHED_MAX = 4000


@dataclass(frozen=True, slots=True)
class HeardChain:
    """A chain as a site's cluster has it."""

    at: Site
    row: ChainRow

    @property
    def highest_no(self) -> int:
        """Of all steps that were heard there, of whatever history."""
        return max(self.row.no, 0 if self.row.dispute is None else self.row.dispute.highest_no)


@click.group(cls=Noun)
def chain() -> None:
    """Chains of what a site keeps: list, settle."""


@chain.command("list")
@click.argument("dataset", required=False)
@click.option("--disputed", is_flag=True, help="Only those of which no step counts.")
@json_option
@click.pass_obj
def list_chains(settings: Settings, dataset: str | None, disputed: bool, as_json: bool) -> None:
    """Every chain, as the cluster of --site has it: its last step, claims, open asks, promises, and what parted it."""
    only = None if dataset is None else Dataset(dataset)
    with chains_at(settings, settings.here, only) as known:
        rows = (known.chain(*name) for name in known.ids())
        screen.listing(
            (row for row in rows if (row.disputed or not disputed) and only in (None, row.dataset)),
            as_json,
            _told,
            ("!site", "dataset", "state", ">step", ">claims", ">asks", ">promises", "parted at"),
            lambda row: list(_told(row).values()),
        )


@chain.command("settle")
@click.argument("dataset")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for who reads the chain.")
@click.option("--execute", is_flag=True, help="Say it; without, only what would be said is shown.")
@click.pass_obj
def settle(settings: Settings, dataset: str, reason: str, execute: bool) -> None:
    """End a dispute about what this site said of DATASET: whatever was asked and promised before counts no more.

    The clusters of all sites are read, for the step's number must be above all that any of them has heard. Exit 3:
    nobody heard of this chain. 5: a cluster could not be read. 7: there is nothing to settle.
    """
    here, name = settings.here, Dataset(dataset)
    heard = heard_everywhere(settings, here, name)
    step = settling(here, name, heard, Text(shown(reason, 390)), Text(getpass.getuser()))
    if not execute:
        screen.put(f"step {step.no} would settle the chain of {here} about {name}; nothing was said: use --execute")
        return
    _say(settings, step)
    screen.put(f"step {step.no} settles the chain of {here} about {name}")


def settling(here: Site, dataset: Dataset, heard: list[HeardChain], reason: Text, by: Text) -> m.ChainSettled:
    """The step that settles a chain. NotFound, NeverWorks."""
    highest = max(heard, key=lambda one: one.highest_no)
    if not highest.highest_no:
        raise NotFound(f"no site has heard of a chain of {here} about {dataset}", next="see `site chain list`")
    own = next(one for one in heard if one.at == here)
    parted = [one.at for one in heard if one.row.disputed or one.highest_no > own.highest_no]
    if not parted:
        raise NeverWorks(f"the chain of {here} about {dataset} has not parted at any site: there is nothing to settle")
    prev = own.row.sha256 or highest.row.sha256
    now_ms = time.time_ns() // 1_000_000
    return m.ChainSettled(here, dataset, highest.highest_no + 1, prev, "operator", now_ms, by, None, reason)


def heard_everywhere(settings: Settings, origin: Site, dataset: Dataset) -> list[HeardChain]:
    """A chain as the cluster of each site has it. Temporary where one cannot be read."""
    found = []
    for at in settings.registry.names:
        try:
            with chains_at(settings, at, dataset, origin) as known:
                found.append(HeardChain(at, known.chain(origin, dataset)))
        except Transfer2goError as error:
            what = f"{at} cannot be read, and what it has heard decides on the step's number: {error.what}"
            raise Temporary(what, next="settle the chain when it answers") from error
    return found


@contextmanager
def chains_at(
    settings: Settings, at: Site, dataset: Dataset | None = None, origin: Site | None = None
) -> Iterator[Chains]:
    """Chains as the cluster of `at` has them now: of all datasets or one, of all sites or one."""
    names = topics.with_copies([topics.KEEPING], settings.registry.peers_of(at))
    if origin is not None:
        names = [topics.KEEPING if origin == at else topics.remote(origin, topics.KEEPING)]
    partitions = None if dataset is None else [topics.partition_of(dataset, settings.registry.partitions)]
    with scratch.database() as db:
        changes = Changes(db)
        for record in replay(settings, at, names, partitions=partitions):
            with suppress(WireError):  # the site's workers file it as a dead letter
                step = wire.decode(record.topic, record.key, record.value, record.headers, at).message
                if isinstance(step, m.ChainStep) and dataset in (None, step.dataset):
                    changes.decide(step)
            if changes.touched >= _TOUCHED_MAX:
                changes.write()
                changes = Changes(db)
        changes.write()
        yield Chains(db)


def _told(row: ChainRow) -> dict[str, Any]:
    return {
        "site": row.site,
        "dataset": row.dataset,
        "state": row.state,
        "step": row.no,
        "claims": sum(1 for _ in row.claims),
        "asks": len(row.asks),
        "promises": len(row.promises),
        "parted_at": None if row.dispute is None else row.dispute.no,
    }


def _say(settings: Settings, step: m.ChainSettled) -> None:
    answers: list[Exception | None] = []
    with Publisher(settings, step.site, writer_of("settle"), "cli") as publisher:
        publisher.send(step, answers.append)
        publisher.flush(ACK_S)
    if not answers or answers[0] is not None:
        why = f": {answers[0]}" if answers else ""
        raise Temporary(f"the broker of {step.site} did not take the step{why}", next="run it again")
