"""Repairing replicas that were read back and are damaged: the log hears that they are lost, and asks for them again.

The damaged file stays under its name until a whole one takes its place, and what is right of it does not cross again.
What is said first is that the file is lost: who asks for it is sent elsewhere, and the site that asks is no source of
itself. Both have the same words each time: run twice, it asks once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streams.client.producer import TransferClient
from streams.consistency import losses
from streams.core import records as m
from streams.core.names import Dataset, IntentId, Lfn, Site, Text
from streams.core.selectors import Kind, Selector
from streams.kafka.publish import Publisher, writer_of
from streams.settings import Settings

REQUESTER = Text("file verify --repair")


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that is not what the log says, or gone. `held`: whether this site is said to hold it."""

    lfn: Lfn
    dataset: Dataset
    why: str
    version: str
    held: bool
    others: tuple[Site, ...]


def repair(settings: Settings, damaged: Iterable[Damaged], told: Callable[[Damaged, IntentId | None], None]) -> None:
    """Say that each is lost here, and ask for those that others hold. `told(file, intent)` of each.

    Raises Temporary where the broker does not take it: run again, it goes on.
    """
    here = settings.here
    with (
        TransferClient(settings, requester=REQUESTER) as client,
        Publisher(settings, here, writer_of("repair"), "cli") as publisher,
    ):
        for one in damaged:
            if one.held:
                losses.say(publisher, m.FilesLost(one.dataset, here, (one.lfn,), losses.reason("verify", one.why)))
            if not one.others:
                told(one, None)
                continue
            # Of a file that is gone there is no version: what it is lost as is what it was asked for as.
            key = f"{one.lfn}\n{one.version}" if one.version else None
            asked = client.publish([Selector(Kind.FILE, one.lfn)], [here], idempotency_key=key, repair=True)
            told(one, asked.id)
