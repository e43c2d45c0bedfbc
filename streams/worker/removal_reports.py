"""How far the files of a removal, or of a move's source, have left: a RemovalReported of what is known. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from streams.core import records as m
from streams.core.keeping.chains import OpenAsk
from streams.core.names import IntentId, Lfn, Site, Text, shown
from streams.core.records.intents import REASONS_MAX

SoFar = tuple[int, int, int, int, int, int]
"""Files and bytes gone, those that asks kept, and those that are going."""


@dataclass
class PassedFiles:
    """Files that stay without having been asked for, by reason."""

    files: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    firsts: dict[str, Lfn] = field(default_factory=dict)

    def add(self, lfn: Lfn, size: int, why: str) -> None:
        why = shown(why, 390)
        self.files[why] += 1
        self.bytes += size
        self.firsts[why] = min(lfn, self.firsts.get(why, lfn))


def waits_for(asks: Iterable[OpenAsk], so_far: SoFar, *, arrives: bool) -> str:
    """In words. `arrives`: there is nothing left to do but for files that are still to arrive elsewhere."""
    *_, going, _ = so_far
    waits = {f"{' and '.join(ask.asked)} to promise" for ask in asks} | ({"the plane"} if going else set())
    if arrives:
        waits.add("files to arrive")
    return "; ".join(sorted(waits)) or "its files to be looked at"


def removal_report(
    place: tuple[IntentId, Site, int],
    so_far: SoFar,
    kept: Iterable[tuple[Lfn, int, str]],
    passed: PassedFiles,
    asks: Sequence[OpenAsk],
    pending: Sequence[int],
    waiting: str,
    *,
    last: bool,
) -> m.RemovalReported:
    """`place`: intent, site, part. `kept`: what asks kept, and why. `pending`: bytes of each file to be looked at."""
    removed, removed_bytes, _, asked_kept_bytes, going, going_bytes = so_far
    reasons, firsts = Counter(passed.files), dict(passed.firsts)
    for lfn, _, why in kept:
        reasons[why] += 1
        firsts[why] = min(lfn, firsts.get(why, lfn))
    left = [*(file.bytes for ask in asks for file in ask.files), *pending]
    return m.RemovalReported(
        *place,
        removed,
        removed_bytes,
        sum(reasons.values()),
        asked_kept_bytes + passed.bytes,
        len(left) + going,
        sum(left) + going_bytes,
        last,
        _worded(reasons, firsts),
        Text(waiting[:400]),
    )


def _worded(reasons: Counter[str], firsts: Mapping[str, Lfn]) -> tuple[m.KeptFiles, ...]:
    words = [m.KeptFiles(Text(why), count, firsts[why]) for why, count in reasons.most_common()]
    if len(words) <= REASONS_MAX:
        return tuple(words)
    rest = words[REASONS_MAX - 1 :]
    more = Text(f"{len(rest)} other reasons, among them: {rest[0].reason}"[:400])
    return (*words[: REASONS_MAX - 1], m.KeptFiles(more, sum(one.files for one in rest), rest[0].first))
