"""What a consumer fetched and its streams have not acknowledged, by partition, and what may be committed of it. Pure.

Faust loses records on their way from the consumer to a stream: it clears queues when the flow resumes, cuts a delivery
short when the flow stops, passes by what belongs to a paused partition or to another generation. So a record is open
from when it is fetched, all of a batch at once, until it is acknowledged; a commit passes nothing that is open.

Offsets between fetched ones hold nothing (markers of transactions, what compaction removed) and hold nothing up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from faust.types import TP


@dataclass
class _Fetched:
    open: set[int] = field(default_factory=set)
    behind: int = 0
    """The offset after the last acknowledged one."""
    lost_since_s: float | None = None


class Deliveries:
    """Of one position of a consumer: `begin` forgets all, whenever the position is set."""

    def __init__(self) -> None:
        self.position_no = 0
        """Of how often the position was set. What was fetched at another number is delivered, and does not count."""
        self._partitions: dict[TP, _Fetched] = {}

    def begin(self, position_no: int) -> None:
        """All is read again from what is committed: what was fetched before counts no more, nor what is said of it."""
        self.position_no = position_no
        self._partitions.clear()

    def fetched(self, tp: TP, offsets: Iterable[int]) -> None:
        self._partitions.setdefault(tp, _Fetched()).open.update(offsets)

    def acknowledged(self, tp: TP, offsets: Iterable[int]) -> None:
        """Of what is not open, because its position is over or it was delivered twice, nothing is taken."""
        partition = self._partitions.get(tp)
        if partition is None:
            return
        for offset in offsets:
            if offset in partition.open:
                partition.open.discard(offset)
                partition.behind = max(partition.behind, offset + 1)

    def committable(self, tp: TP) -> int | None:
        """The offset before which every fetched record is acknowledged; None where none is yet."""
        partition = self._partitions.get(tp)
        if partition is None or not partition.behind:
            return None
        return min(partition.behind, min(partition.open, default=partition.behind))

    def unheard(self, tp: TP) -> list[int]:
        partition = self._partitions.get(tp)
        return sorted(partition.open) if partition is not None else []

    def lost(self, now_s: float, for_s: float) -> dict[TP, int]:
        """Partitions with an open record behind which others are acknowledged for `for_s`, with its offset.

        A stream takes the records of a partition in order: such a record reached none, and nothing delivers it again.
        """
        found = {}
        for tp, partition in self._partitions.items():
            first = min(partition.open, default=partition.behind)
            if first >= partition.behind:
                partition.lost_since_s = None
            elif partition.lost_since_s is None:
                partition.lost_since_s = now_s
            elif now_s - partition.lost_since_s >= for_s:
                found[tp] = first
        return found

    @property
    def places(self) -> tuple[TP, ...]:
        return tuple(self._partitions)
