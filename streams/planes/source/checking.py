"""Reading back files that another site would remove: what is there is said as a fact. It promises nothing.

One thread: an order is some thousand files, each read from its first byte to its last.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator

from streams.core.names import Adler32, Lfn, Site, Text, shown
from streams.core.records import CheckedFile, KeptFile, Message, ReplicasChecked
from streams.errors import StorageError
from streams.planes.orders import Check
from streams.storage.endpoint import ReadableStorage

log = logging.getLogger("streams.planes.source.checking")

ORDERS_MAX = 64
_REASON_CHARS = 390


class ReplicaChecker:
    """Carries out `Check` orders one after the other. What it has no room for is owed again."""

    def __init__(self, here: Site, storage: ReadableStorage, publish: Callable[[Message], None]) -> None:
        self._here, self._storage, self._publish = here, storage, publish
        self._orders: queue.Queue[Check | None] = queue.Queue(ORDERS_MAX)
        self._taken: set[Check] = set()
        """What waits or is read now: told again, it is passed over."""

    def check(self, order: Check) -> None:
        if order in self._taken:
            return
        self._taken.add(order)
        try:
            self._orders.put_nowait(order)
        except queue.Full:
            self._taken.discard(order)
            log.warning("files of %s are not read back: %d orders wait", order.dataset, ORDERS_MAX)

    def run(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                self._publish(self.checked(order))
            except Exception:
                log.exception("files of %s are not read back", order.dataset)
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

    def checked(self, order: Check) -> ReplicasChecked:
        found, missing = list[CheckedFile](), list[KeptFile]()
        for one in self._each(order.lfns):
            found.append(one) if isinstance(one, CheckedFile) else missing.append(one)
        ask = (order.asker, order.ask_no, order.ask_sha256, order.noted_no)
        return ReplicasChecked(self._here, order.dataset, *ask, tuple(found), tuple(missing))

    def _each(self, lfns: tuple[Lfn, ...]) -> Iterator[CheckedFile | KeptFile]:
        for lfn in lfns:
            try:
                stat = self._storage.stat(lfn)
                # Of this very version: a file that changes meanwhile is none that could be promised.
                adler32 = Adler32(self._storage.checksum(lfn, stat.version))
                yield CheckedFile(lfn, stat.bytes, adler32, stat.version)
            except StorageError as error:
                # Where this site keeps its files is nobody else's business.
                yield KeptFile(lfn, Text(shown(error.what, _REASON_CHARS)))
