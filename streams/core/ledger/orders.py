"""I7 of a copy's order: a mirror repeats and never reorders, so of one size a copy has its original's root, or it lies.

Where roots differ both are read once more, and the first record that stands out of its place is named. A mirror whose
target refused a record for a while begins again there, and sends again what came behind it: a note. What only one
of them has is a gap, and a number with two contents a contradiction, both told elsewhere. What it cannot prove: the
order of the last records, fewer than a block, of a copy that has not caught up; a change that is the same in the
original and all copies, which only a digest of an earlier cut shows (cuts.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from streams.core.ledger.findings import FindingList, Invariant, LogPosition
from streams.core.ledger.journals import Journal, PartitionId
from streams.core.ledger.numbering import Stream, StreamId
from streams.core.ledger.spans import SpanSet
from streams.core.ledger.trees import BLOCK
from streams.core.names import Site

_I7 = Invariant.NO_GAP
COMPARED_MAX = 1 << 20
"""Records of a partition whose order is looked into, from the first block that differs: 20 bytes each."""


@dataclass(slots=True)
class _Side:
    """A partition read once more: the records that its counterpart has too, from a place on, in order."""

    other: Site
    skip: int
    streams: dict[StreamId, int] = field(default_factory=dict)
    """Each with the number that stands for it in `which`."""
    seen: dict[StreamId, SpanSet] = field(default_factory=dict)
    which: array[int] = field(default_factory=lambda: array("I"))
    seqs: array[int] = field(default_factory=lambda: array("Q"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    sent: list[array[int]] | None = None
    """Of a copy: all that was sent, repeats too; streams and numbers."""
    next_offset: int = 0

    def number(self, stream: StreamId) -> int:
        return self.streams.setdefault(stream, len(self.streams))


@dataclass(frozen=True, slots=True)
class _Pair:
    copy: PartitionId
    original: PartitionId
    start: int


class OrderJudge:
    """`streams`: all, which tell what stands where. `has`: whether a site's journal was read whole."""

    def __init__(self, streams: Mapping[StreamId, Stream], has: Callable[[Site, str], bool]) -> None:
        self._streams, self._has = streams, has
        self._pairs: list[_Pair] = []
        self._sides: dict[PartitionId, dict[PartitionId, _Side]] = {}
        """By the partition that is read and the one it is compared with."""

    def _compared(self, journals: Mapping[PartitionId, Journal]) -> Iterator[tuple[Journal, Journal]]:
        for key, copy in sorted(journals.items()):
            original = journals.get((copy.writer, copy.base, copy.partition))
            if copy.is_original or original is None or copy.base.startswith("chunks-to-"):
                continue
            if self._has(copy.writer, copy.base) and self._has(key[0], key[1]):
                yield copy, original

    def asked(self, journals: Mapping[PartitionId, Journal]) -> Iterator[PartitionId]:
        """Partitions to be read once more, since their trees part."""
        self._pairs, self._sides = [], {}
        for copy, original in self._compared(journals):
            start = original.tree.parts_from(copy.tree)
            if start is None:
                continue
            one, other = copy.key, original.key
            self._pairs.append(_Pair(one, other, start))
            self._sides.setdefault(one, {})[other] = _Side(original.site, start, sent=[array("I"), array("Q")])
            self._sides.setdefault(other, {})[one] = _Side(copy.site, start)
            yield one
            yield other

    def locate(self, place: LogPosition, stream: StreamId, seq: int) -> None:
        """The next record of a partition in the second reading."""
        for side in self._sides.get(place[:3], {}).values():
            known = self._streams.get(stream)
            if known is None or place.offset < side.next_offset:
                continue
            side.next_offset = place.offset + 1
            is_first = side.seen.setdefault(stream, SpanSet()).add(seq)
            if side.skip:
                side.skip -= is_first
                continue
            if len(side.seqs) >= COMPARED_MAX or not known.stands(side.other, seq):
                continue
            if is_first:
                side.which.append(side.number(stream))
                side.seqs.append(seq)
                side.offsets.append(place.offset)
            if side.sent is not None and len(side.sent[0]) < COMPARED_MAX:
                side.sent[0].append(side.number(stream))
                side.sent[1].append(seq)

    def judge(self, journals: Mapping[PartitionId, Journal], findings: FindingList) -> None:
        for copy, original in self._compared(journals):
            findings.check(_I7)
            behind = copy.tree.size - original.tree.compared(copy.tree)
            if behind > 0:
                findings.cannot(
                    _I7, f"the order of the last records, fewer than {BLOCK}, of copies not of one size", behind
                )
        for pair in self._pairs:
            self._judge(pair, journals[pair.copy], findings)

    def _judge(self, pair: _Pair, copy: Journal, findings: FindingList) -> None:
        mine, theirs = self._sides[pair.copy][pair.original], self._sides[pair.original][pair.copy]
        names = [list(side.streams) for side in (mine, theirs)]
        title = f"{copy.site}'s copy of {copy.base}[{copy.partition}] of {copy.writer}"
        for at in range(min(len(mine.seqs), len(theirs.seqs))):
            one = names[0][mine.which[at]], mine.seqs[at]
            other = names[1][theirs.which[at]], theirs.seqs[at]
            if one == other:
                continue
            words = (
                f"{title} is in another order: number {one[1]} of {self._streams[one[0]].called} stands where the "
                f"original has number {other[1]} of {self._streams[other[0]].called}"
            )
            places = (LogPosition(*pair.copy, mine.offsets[at]), LogPosition(*pair.original, theirs.offsets[at]))
            if _is_resent(mine, theirs):
                findings.note(_I7, f"{words}, as of a mirror that failed and began again", *places)
            else:
                findings.find(_I7, words, *places)
            return
        here = [stream for stream in self._streams.values() if stream.id[2:] == (copy.base, copy.partition)]
        of = [stream for stream in here if stream.id.site == copy.writer]
        explained = any(s.conflicts or s.here(copy.site) != s.here(copy.writer) for s in of)
        if not explained:
            words = f"{title} differs from its original from its record {pair.start} on"
            first = [(pair.copy, mine), (pair.original, theirs)]
            findings.find(_I7, words, *(LogPosition(*key, side.offsets[0]) for key, side in first if side.offsets))


def _is_resent(copy: _Side, original: _Side) -> bool:
    """Whether a mirror can have sent a copy so: in passes, each of which goes on from an earlier record and leaves out
    nothing that stands there already, and the last of which comes to the end. What its target refused comes later.
    """
    names = list(original.streams)
    position = {
        (names[which], seq): at for at, (which, seq) in enumerate(zip(original.which, original.seqs, strict=True))
    }
    streams, (which, seqs) = list(copy.streams), copy.sent or ([], [])
    stood, at = SpanSet(), -1
    for one, seq in zip(which, seqs, strict=True):
        here = position.get((streams[one], seq), -1)  # -1: before the records that are looked at
        if stood.touches(at + 1, here):
            return False
        at = here
        if here >= 0:
            stood.add(here)
    return at == stood.last
