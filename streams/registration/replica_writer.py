"""Saying which files a site holds: FilesHeld records of up to 1,000 files, acknowledged. No file is read here."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Condition

from streams import waits
from streams.core.names import Dataset, Site
from streams.core.policy import RECORD_BYTES_MAX
from streams.core.records import FilesHeld, HeldFile
from streams.core.records.limits import FILES_MAX
from streams.errors import Temporary
from streams.kafka.publish import Publisher

_BATCH_BYTES = RECORD_BYTES_MAX - 4096
"""Below the cap by the record's other fields."""
_FILE_BYTES = 32
"""Of a file in a record, besides its names: checksum, lengths, numbers."""
_PENDING_FILES_MAX = 50_000
_IN_FLIGHT_MAX = 24
"""Records not acknowledged: below a publisher's buffer of 32 MiB even at 512 KB each."""


class ReplicaWriter:
    """Collects files per dataset, sends full records, sends again what was not delivered. One thread uses it.

    After `timeout_s` without any acknowledgement it gives up: Temporary, and `acknowledged` says how many files got
    through. Saying them again is harmless.
    """

    def __init__(
        self,
        publisher: Publisher,
        site: Site,
        *,
        timeout_s: float = 60.0,
        on_acknowledged: Callable[[int, int], None] | None = None,
        owner: str = "",
    ) -> None:
        self._publisher, self._site, self._timeout_s, self._owner = publisher, site, timeout_s, owner
        self._pending: dict[Dataset, list[HeldFile]] = {}
        self._pending_bytes: dict[Dataset, int] = {}
        self._pending_files = 0
        self._in_flight = 0
        self._undelivered: list[FilesHeld] = []
        self._why = "no answer"
        self._changed = Condition()
        self._on_acknowledged = on_acknowledged
        self.acknowledged = 0
        self.acknowledged_bytes = 0

    def add(self, file: HeldFile) -> None:
        """One more file. The caller names each LFN once: a record that names one twice may not travel (WireError)."""
        dataset = file.block.dataset
        size = len(file.lfn) + len(file.block) + len(file.version) + _FILE_BYTES
        if self._pending_bytes.get(dataset, 0) + size > _BATCH_BYTES:
            self._send(dataset)
        self._pending.setdefault(dataset, []).append(file)
        self._pending_bytes[dataset] = self._pending_bytes.get(dataset, 0) + size
        self._pending_files += 1
        if len(self._pending[dataset]) == FILES_MAX:
            self._send(dataset)
        elif self._pending_files >= _PENDING_FILES_MAX:
            self._send(max(self._pending, key=lambda d: len(self._pending[d])))

    def finish(self) -> None:
        """Send the rest and wait until everything is in the log."""
        for dataset in list(self._pending):
            self._send(dataset)
        self._wait(in_flight_max=0)

    def _send(self, dataset: Dataset) -> None:
        files = self._pending.pop(dataset)
        del self._pending_bytes[dataset]
        self._pending_files -= len(files)
        self._wait(in_flight_max=_IN_FLIGHT_MAX - 1)
        self._publish(FilesHeld(dataset, self._site, tuple(files), owner=self._owner))

    def _publish(self, record: FilesHeld) -> None:
        def answered(error: Exception | None) -> None:
            with self._changed:
                self._in_flight -= 1
                if error is None:
                    self.acknowledged += len(record.files)
                    self.acknowledged_bytes += sum(file.bytes for file in record.files)
                else:
                    self._why = str(error)
                    self._undelivered.append(record)
                self._changed.notify_all()

        until = time.monotonic() + self._timeout_s
        while True:
            with self._changed:
                self._in_flight += 1
            try:
                return self._publisher.send(record, answered)
            except Temporary as error:  # the buffer is full of others' records
                with self._changed:
                    self._in_flight -= 1
                if time.monotonic() > until:
                    raise self._gave_up(str(error)) from error
                time.sleep(0.02)

    def _wait(self, in_flight_max: int) -> None:
        """Until so few records are in flight and none waits to be sent again."""
        with waits.on(f"the broker of {self._site} to take what is registered"):
            until, seen = time.monotonic() + self._timeout_s, self.acknowledged
            while True:
                with self._changed:
                    again, self._undelivered = self._undelivered, []
                    if not again:
                        if self._in_flight <= in_flight_max:
                            break
                        self._changed.wait(0.1)
                    if self.acknowledged > seen:
                        until, seen = time.monotonic() + self._timeout_s, self.acknowledged
                if time.monotonic() > until:
                    self._undelivered = again
                    raise self._gave_up(self._why)
                for record in again:
                    self._publish(record)
        if self._on_acknowledged is not None:
            self._on_acknowledged(self.acknowledged, self.acknowledged_bytes)

    def _gave_up(self, why: str) -> Temporary:
        return Temporary(
            f"{self.acknowledged} files are registered, the rest is not: {why}",
            f"cluster of {self._site}",
            "register again when it answers; what is registered stays so",
        )
