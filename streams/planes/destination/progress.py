"""What is known of one manifest at its destination: bytes written and durable, items sealed and failed.

Interval arithmetic only: no storage, no clock. Positions are on the manifest's line, items are numbers. What is told is
always all that is known, so that a later record heals a lost one; `news` says whether it is worth telling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from threading import RLock

from streams.core.manifest import ItemLayout
from streams.core.names import Site, Text, shown
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import FailedItems, Landed, ManifestWritten, PartOpened, Reason, TransferProgress
from streams.planes.orders import Open

REASONS_MAX = 200
"""Different reasons in one record; the rest share the last. 390 characters each stay below the largest record."""


class LandingProgress:
    """Safe to use from several threads; `lock` may be held around steps that belong together."""

    def __init__(self, body: ManifestWritten, order: Open) -> None:
        self.id = body.manifest
        self.attempt = order.attempt
        self.line = ItemLayout(item.length for item in body.items)
        self.lock = RLock()
        self.written = order.verified
        self.synced = order.verified
        self.sealed = order.sealed
        # what the manifest itself wrote off is the agents' business
        unobtainable = Ranges.of(*(n for n, item in enumerate(body.items) if item.reason is not None))
        self.over = order.sealed | order.failed | unobtainable
        self.news = False
        self._present = EMPTY
        self._adopted = EMPTY
        self._failed: dict[int, Reason] = {}
        self._landed: dict[int, Landed] = {}
        self.found(order.removed, (one for one in order.landed if body.items[one.item].adler32 is None))
        for group in order.refused:
            for item in group.items.numbers():
                self.fail(item, group.reason)

    def whole(self, item: int) -> bool:
        return self.written.covers(*self.line.span(item))

    def reached(self, start: int, stop: int) -> int:
        """How many positions from `start` on are written."""
        missing = Ranges([(start, stop)]) - self.written
        return (missing.spans[0][0] if missing else stop) - start

    def durable_of(self, item: int) -> list[tuple[int, int]]:
        """Durable ranges of an item, as offsets in it."""
        if not self.synced:
            return []
        first, last = self.line.span(item)
        return [(a - first, b - first) for a, b in self.synced & Ranges([(first, last)])]

    # what happens

    def wrote(self, item: int, start: int, stop: int) -> bool:
        """Whether the bytes count: not if the item ended meanwhile."""
        with self.lock:
            if item in self.over:
                return False
            self.written |= Ranges([(start, stop)])
            return True

    def adopted(self, start: int, stop: int) -> None:
        """Positions of the line that an earlier attempt brought."""
        with self.lock:
            self._adopted |= Ranges([(start, stop)])

    def made_durable(self, item: int, ranges: Ranges) -> None:
        """`ranges` are offsets in the item."""
        first = self.line.starts[item]
        with self.lock:
            before = self.synced
            self.synced |= Ranges((a + first, b + first) for a, b in ranges)
            self.news |= self.synced != before

    def resumed(self, item: int, ranges: Ranges) -> None:
        """Offsets in the item that its part had when it was opened; durable or not, they need not come again."""
        first = self.line.starts[item]
        with self.lock:
            self.written |= Ranges((a + first, b + first) for a, b in ranges)

    def seal(self, items: Ranges, landed: Iterable[Landed] = ()) -> None:
        """Under their final names."""
        with self.lock:
            self._landed.update((one.item, one) for one in landed)
            held = self.line.ranges_of(items)
            self.written |= held
            self.synced |= held
            self.sealed |= items
            self.over |= items
            self.news |= bool(items)

    def found(self, items: Ranges, landed: Iterable[Landed] = ()) -> None:
        """Whole at the destination when the part was opened: PartOpened tells it."""
        with self.lock:
            self._landed.update((one.item, one) for one in landed)
            held = self.line.ranges_of(items)
            self.written |= held
            self.synced |= held
            self._present |= items
            self.sealed |= items
            self.over |= items

    def fail(self, item: int, reason: Reason) -> bool:
        """False if the item ended before."""
        with self.lock:
            if item in self.over:
                return False
            self._failed[item] = reason
            self.over |= Ranges.of(item)
            self.news = True
            return True

    def lacking(self, ranges: Ranges) -> Ranges:
        """What is not here of these ranges. Where that is nothing, whoever offers them does not know: news again."""
        with self.lock:
            lacks = ranges - self.written - self.line.ranges_of(self.over)
            self.news |= not lacks
            return lacks

    def heard_again(self, order: Open) -> bool:
        """False if the order knows more of the disk than we do."""
        with self.lock:
            self.news = True
            return not order.verified - self.synced

    def knowing(self, order: Open) -> Open:
        """The order, with what is durable here added."""
        with self.lock:
            return replace(order, verified=order.verified | self.synced, sealed=order.sealed | self.sealed)

    def inherit(self, other: LandingProgress) -> None:
        """What that of the same attempt knew of the files that its items became."""
        with self.lock, other.lock:
            self._landed |= {item: one for item, one in other._landed.items() if item in self.sealed}

    # what is told

    def opened(self, endpoint: str) -> PartOpened:
        with self.lock:
            landed = tuple(one for one in self._all_landed() if one.item in self._present)
            return PartOpened(self.id, self.attempt, endpoint, self._present, grouped(self._failed), landed)

    def tell(self, here: Site, endpoint: str) -> TransferProgress | None:
        """All that is known, if there is news; told from now on."""
        with self.lock:
            if not self.news:
                return None
            self.news = False
            failed = grouped(self._failed)
            landed, adopted = self._all_landed(), self._adopted & self.synced
            return TransferProgress(
                self.id, here, self.attempt, endpoint, self.synced, self.sealed, failed, landed, adopted
            )

    def _all_landed(self) -> tuple[Landed, ...]:
        return tuple(one for _, one in sorted(self._landed.items()))


def grouped(failed: Mapping[int, Reason]) -> tuple[FailedItems, ...]:
    groups: dict[Reason, list[int]] = {}
    for item, reason in sorted(failed.items()):
        if reason not in groups and len(groups) >= REASONS_MAX:
            reason = next(reversed(groups))
        groups.setdefault(reason, []).append(item)
    out = [FailedItems(Ranges.of(*items), reason) for reason, items in groups.items()]
    if len({*failed.values()}) > REASONS_MAX:
        last = out[-1]
        text = Text(shown(f"several reasons, among them: {last.reason.text}", 390))
        out[-1] = FailedItems(last.items, replace(last.reason, text=text))
    return tuple(out)
