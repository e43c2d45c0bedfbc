"""Whose a consumer's name is when two processes read under it: the one that came later. Pure.

Each process that reads an intent as `SITE/NAME` takes an attempt one higher than all it finds in the log, and says its
place under it for every open manifest before it hands anything out. The highest attempt has the name; of equal ones
(two that found the same log) the one that started later, as its writer's name says. Who hears a higher one ends; what
a lower one says behind a higher one counts for nobody.

Limits. Until a newcomer's word is heard, some milliseconds or as long as a process stands still or its broker is away,
both may hand out the same entries; what the earlier one commits from then on fails. What both made of them is in both
outputs: only a position stored with the output (`Checkpoint`) tells which to take. Of two that started at the same
moment, which came later is as good as their hosts' clocks. Earlier releases put no start into a writer's name: their
processes fence nobody, and are not fenced among themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from streams.core import records as m
from streams.core.names import Destination
from streams.errors import Transfer2goError

_START = re.compile(r"-s([0-9a-f]{8,16})\Z")
_HOST_CHARS = 100


def writer_name(host: str, pid: int, started_us: int) -> str:
    """A writer's name that no other process has, nor another stream of this one; its end says when it started."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{host[:_HOST_CHARS]}-{pid}") + f"-s{started_us:08x}"


@dataclass(frozen=True, slots=True, order=True)
class NameClaim:
    """A process's right to a name; of two, the greater has it."""

    attempt: int
    started_us: int
    writer: str

    @classmethod
    def by(cls, attempt: int, writer: str) -> NameClaim:
        found = _START.search(writer)
        return cls(attempt, int(found[1], 16), writer) if found else cls(attempt, 0, "")


def standing(said: Iterable[tuple[NameClaim, m.TransferProgress]]) -> list[m.TransferProgress]:
    """Of a manifest's progress in the order of the log: what the process says that has the name. Its first word holds
    all that it found, so no earlier one's is needed."""
    found = list(said)
    holder = max((claim for claim, _ in found), default=None)
    return [progress for claim, progress in found if claim == holder]


def taken_over(destination: Destination, by: NameClaim) -> Transfer2goError:
    return Transfer2goError(
        f"{by.writer} reads {destination} now, and took over its place",
        where="one process a name",
        next="let one of them read; workers that share entries are `transfer2go event work`",
    )
