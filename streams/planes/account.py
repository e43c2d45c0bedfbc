"""What is known of one manifest at its destination: bytes written, durable and told; items sealed, failed and told.

Interval arithmetic only: no storage, no clock. Positions are on the manifest's line, items are numbers. `synced` is
what may be reported; what was reported once and is asked for again is told again, for its row may be stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from threading import RLock

from streams.core.manifest import Line
from streams.core.messages import FailedItems, PartOpened, Reason, TransferProgress
from streams.core.names import Site
from streams.core.ranges import EMPTY, Ranges
from streams.planes.orders import Open

FAILED_REASONS_MAX = 500
"""Different reasons in one record: 400 characters each stay well below the largest record."""


class Account:
    """Safe to use from several threads; `lock` may be held around steps that belong together."""

    def __init__(self, order: Open) -> None:
        self.id = order.manifest.manifest
        self.attempt = order.attempt
        self.line = Line(item.length for item in order.manifest.items)
        self.lock = RLock()
        self.written = order.verified
        self.synced = order.verified
        self.sealed = order.sealed
        # what the manifest itself wrote off is the agents' business
        unobtainable = Ranges.of(*(n for n, item in enumerate(order.manifest.items) if item.reason is not None))
        self.over = order.sealed | order.failed | unobtainable
        self._present = EMPTY
        self._failed: dict[int, Reason] = {}
        self._untold_verified = EMPTY
        self._untold_sealed = EMPTY
        self._untold_failed: dict[int, Reason] = {}

    @property
    def news(self) -> bool:
        return bool(self._untold_verified or self._untold_sealed or self._untold_failed)

    def whole(self, item: int) -> bool:
        return self.written.covers(*self.line.span(item))

    def durable_of(self, item: int) -> list[tuple[int, int]]:
        """Durable ranges of an item, as offsets in it."""
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

    def made_durable(self, item: int, ranges: Ranges) -> None:
        """`ranges` are offsets in the item."""
        first = self.line.starts[item]
        with self.lock:
            self._durable(Ranges((a + first, b + first) for a, b in ranges))

    def _durable(self, ranges: Ranges) -> None:
        self._untold_verified |= ranges - self.synced
        self.synced |= ranges
        self.written |= ranges

    def seal(self, item: int) -> None:
        with self.lock:
            self._durable(Ranges([self.line.span(item)]))
            self.sealed |= Ranges.of(item)
            self.over |= Ranges.of(item)
            self._untold_sealed |= Ranges.of(item)

    def found(self, items: Ranges) -> None:
        """Whole at the destination when the part was opened: PartOpened tells it."""
        with self.lock:
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
            self._failed[item] = self._untold_failed[item] = reason
            self.over |= Ranges.of(item)
            return True

    def asked_again(self, item: int, start: int, stop: int) -> None:
        """Bytes came that were here: whoever asked for them does not know."""
        with self.lock:
            if item in self.sealed:
                self._untold_sealed |= Ranges.of(item)
            if item in self._failed:
                self._untold_failed[item] = self._failed[item]
            self._untold_verified |= Ranges([(start, stop)]) & self.synced

    def heard_again(self, order: Open) -> bool:
        """Tell what the order shows its row does not know. False if the order knows more of the disk than we."""
        with self.lock:
            if order.verified - self.synced:
                return False
            self._untold_verified |= self.synced - order.verified
            self._untold_sealed |= self.sealed - order.sealed
            self._untold_failed |= {n: why for n, why in self._failed.items() if n not in order.failed}
            return True

    def knowing(self, order: Open) -> Open:
        """The order, with what is durable here added."""
        with self.lock:
            return replace(order, verified=order.verified | self.synced, sealed=order.sealed | self.sealed)

    # what is told

    def opened(self, endpoint: str) -> PartOpened:
        """Failures of opening are told here; if they are too many, the rest comes as progress."""
        with self.lock:
            groups = grouped(self._failed)[:FAILED_REASONS_MAX]
            for group in groups:
                for item in group.items.numbers():
                    self._untold_failed.pop(item, None)
            return PartOpened(self.id, self.attempt, endpoint, self._present, groups)

    def tell(self, here: Site, endpoint: str) -> list[TransferProgress]:
        """What was not told yet, in as few records as their size allows; told from now on."""
        with self.lock:
            verified, self._untold_verified = self._untold_verified, EMPTY
            sealed, self._untold_sealed = self._untold_sealed, EMPTY
            failed, self._untold_failed = self._untold_failed, {}
        groups = grouped(failed)
        if not (verified or sealed or groups):
            return []
        first = TransferProgress(self.id, here, self.attempt, endpoint, verified, sealed, groups[:FAILED_REASONS_MAX])
        rest = range(FAILED_REASONS_MAX, len(groups), FAILED_REASONS_MAX)
        return [
            first,
            *(replace(first, verified=EMPTY, sealed=EMPTY, failed=groups[at : at + FAILED_REASONS_MAX]) for at in rest),
        ]


def grouped(failed: Mapping[int, Reason]) -> tuple[FailedItems, ...]:
    groups: dict[Reason, list[int]] = {}
    for item, reason in failed.items():
        groups.setdefault(reason, []).append(item)
    return tuple(FailedItems(Ranges.of(*items), reason) for reason, items in groups.items())
