"""Orders about files that have their final names here: one thread for each kind, one order after the other."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from typing import Generic, TypeVar

from streams.planes.orders import Check, Remove

log = logging.getLogger("streams.planes.replica_orders")

ORDERS_MAX = 64
OrderT = TypeVar("OrderT", bound=Check | Remove)


class ReplicaOrders(Generic[OrderT]):
    """Carries out orders as they come. What it has no room for, or what fails, is owed again by the worker."""

    def __init__(self, what: str, carry_out: Callable[[OrderT], None]) -> None:
        """`what` is done, in words, as "read back"."""
        self._what, self._carry_out = what, carry_out
        self._orders: queue.Queue[OrderT | None] = queue.Queue(ORDERS_MAX)
        self._taken: set[OrderT] = set()
        """What waits or is carried out now: told again, it is passed over."""

    def put(self, order: OrderT) -> None:
        if order in self._taken:
            return
        self._taken.add(order)
        try:
            self._orders.put_nowait(order)
        except queue.Full:
            self._taken.discard(order)
            log.warning("files of %s are not %s: %d orders wait", order.dataset, self._what, ORDERS_MAX)

    def run(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                self._carry_out(order)
            except Exception:
                log.exception("files of %s are not %s", order.dataset, self._what)
            finally:
                self._taken.discard(order)

    def close(self) -> None:
        while True:
            try:
                return self._orders.put_nowait(None)
            except queue.Full:
                try:
                    self._orders.get_nowait()
                except queue.Empty:
                    continue
