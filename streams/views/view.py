"""One thread per worker that folds the journals spanning partitions into one RocksDB: replicas and announcements.

Every partition of `replicas` and `site-announcements`, and of every peer's copies, is read with `assign()`. Records and
the offsets behind them go into one write batch, so a process killed anywhere resumes exactly. A view is a cache: one
that belongs to another cluster, format or table version, or is ahead of its journal, is emptied and folded anew.

Nobody else reads these topics here, so what the gate refuses is handed to `on_refused`, which publishes a dead letter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from streams import wire
from streams.core import topics
from streams.core.messages import DeadLetter, FilesHeld, FilesLost, SiteAnnounced
from streams.errors import NeverWorks, Temporary, Transfer2goError, WireError
from streams.kafka import client
from streams.release import release_of
from streams.settings import Settings
from streams.views import rows
from streams.views.catalogue import Catalogue
from streams.views.ends import EndOffsets, Place
from streams.views.folding import Changes
from streams.views.sites import Sites

log = logging.getLogger("streams.views")

FORMAT = 2
"""Raised when the layout in rows.py changes: older views are folded anew."""
_RECORDS_MAX = 32
_FILES_MAX = 4000
"""A batch ends behind so many records or files: ~20 MB of records, ~8 MB of rows."""
_POLL_S = 0.25
_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """What the thread did since its start. `refused` went to `on_refused`; `fault` is why it ended, if it did."""

    applied: int = 0
    refused: int = 0
    rebuilt: int = 0
    fault: str = ""


class View:
    """`start`, read `catalogue` and `sites`, `stop`. The directory belongs to one process at a time.

    Not `opened`: neither the directory nor a client is touched before `open` or `start`.
    `on_refused(letter)` must return only when the dead letter is safe, or raise: it is then tried again, and nothing
    behind the record is applied meanwhile. `on_fault` is called once, in the thread, when the view cannot go on.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        on_refused: Callable[[DeadLetter], None],
        on_fault: Callable[[Exception], None] | None = None,
        *,
        opened: bool = True,
    ) -> None:
        self.path = directory / "view"
        self.catalogue: Catalogue
        self.sites: Sites
        self.progress = Progress()
        self._settings, self._here = settings, settings.here
        self._on_refused, self._on_fault = on_refused, on_fault
        self._places = [
            (name, partition)
            for base in (topics.REPLICAS, topics.ANNOUNCEMENTS)
            for name in (base, *(topics.remote(peer, base) for peer in settings.peers))
            for partition in range(settings.registry.partitions)
        ]
        self._reached: dict[Place, int] = {}
        self._moved = Condition()
        self._stopping = Event()
        self._db: Any = None
        self._ends: EndOffsets
        self._thread = Thread(target=self._run, name="view", daemon=True)
        if opened:
            self.open()

    def open(self) -> None:
        """Take the directory and open what is there; once. NeverWorks when another process has it, else Temporary."""
        if self._db is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = rows.open_primary(str(self.path))
        except Exception as error:
            raise _cannot_open(error, self.path) from error
        self.catalogue, self.sites = Catalogue(self._db), Sites(self._db)
        self._ends = EndOffsets(self._settings, self._here, self._places)

    def start(self) -> None:
        self.open()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and closes the database; readers must be done."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._moved:
            self._moved.notify_all()
        if self._db is not None:
            self._db.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self.progress.fault

    def catch_up(self, timeout_s: float) -> bool:
        """Whether everything that stood in the journals at the time of the call is applied, waiting so long for it.

        False also while the broker is away, a peer's topic does not exist, or the view is dead. Blocks: call it from a
        thread, not from a loop.
        """
        until = time.monotonic() + timeout_s
        while (ends := self._ends.sample(max(0.1, until - time.monotonic()))) is None or len(ends) < len(self._places):
            if not self.alive or time.monotonic() > until - _AGAIN_S or self._stopping.wait(_AGAIN_S):
                return False
        with self._moved:
            return self._moved.wait_for(
                lambda: not self.alive or self._has_reached(ends), max(0.0, until - time.monotonic())
            ) and self._has_reached(ends)

    def _has_reached(self, ends: dict[Place, int]) -> bool:
        return all(self._reached.get(place, 0) >= end for place, end in ends.items())

    # the thread

    def _run(self) -> None:
        try:
            self._read()
        except _Stopped:
            log.info("the view stopped before a refused record")
        except Exception as error:  # noqa: BLE001  a thread has no other way to tell anybody
            log.error("the view stopped: %s", error)
            self.progress = replace(self.progress, fault=str(error) or type(error).__name__)
            if self._on_fault is not None:
                self._on_fault(error)
        finally:
            with self._moved:
                self._moved.notify_all()

    def _read(self) -> None:
        config = client.consumer_config(self._settings, self._here, committed=False)
        config |= {
            "fetch.max.bytes": 4 << 20,
            "queued.max.messages.kbytes": 4 << 10,
            "fetch.wait.max.ms": 100,
            "topic.metadata.refresh.interval.ms": 5000,
        }
        consumer = client.make_consumer(config)
        try:
            if not self._belong(consumer):
                return
            consumer.assign([TopicPartition(*place, self._offset(place)) for place in self._places])
            while not self._stopping.is_set():
                first = consumer.poll(_POLL_S)
                if first is not None:
                    self._apply([first, *consumer.consume(_RECORDS_MAX - 1, timeout=0)])
        finally:
            consumer.close()

    def _offset(self, place: Place) -> int:
        row = self._db.get(rows.offset_key(*place))
        offset = OFFSET_BEGINNING if row is None else int(row)
        self._reached[place] = max(0, offset)
        return offset

    def _belong(self, consumer: Consumer) -> bool:
        """Wait for the broker and empty a view that is not of this journal. False when stopped meanwhile."""
        while not self._stopping.is_set():
            try:
                cluster = consumer.list_topics(timeout=2.0).cluster_id
                ends = self._ends.sample(5.0)
            except KafkaException as error:
                log.warning("the view waits for the broker: %s", error.args[0].str())
                ends = None
            if ends is None:
                self._stopping.wait(0.5)
                continue
            stamp = f"{FORMAT} {self._here} {cluster} {self._settings.registry.table_version}".encode()
            is_ahead = any(int(self._db.get(rows.offset_key(*place)) or 0) > end for place, end in ends.items())
            was = self._db.get(rows.STAMP)
            if was != stamp or is_ahead:
                self._empty(stamp, "" if was is None else "ahead of its journal" if is_ahead else "of another journal")
            return True
        return False

    def _empty(self, stamp: bytes, why: str) -> None:
        if why:
            log.warning("the view in %s is %s and is folded anew", self.path, why)
            self.progress = replace(self.progress, rebuilt=self.progress.rebuilt + 1)
        self._db.delete_range(b"\0", b"\xff")
        self._db[rows.STAMP] = stamp
        self.sites.forget()

    def _apply(self, messages: list[Any]) -> None:
        changes, reached, applied = Changes(self._db), dict[Place, int](), 0
        for message in messages:
            place = (message.topic(), message.partition())
            error = message.error()
            if error is None:
                applied += self._hear(message, changes)
                reached[place] = message.offset() + 1
                changes.extra[rows.offset_key(*place)] = b"%d" % reached[place]
            elif error.code() == KafkaError._PARTITION_EOF:
                reached[place] = message.offset()
            elif error.code() in _FATAL:
                raise client.error_of(error, "reading the journals", f"{place[0]} at {self._here}")
            else:
                log.warning("the view reads %s: %s", place[0], error.str())
            if changes.touched >= _FILES_MAX:
                self._write(changes, reached)
                changes, reached = Changes(self._db), {}
            if self._stopping.is_set():
                break
        self._write(changes, reached)
        self.progress = replace(self.progress, applied=self.progress.applied + applied)

    def _write(self, changes: Changes, reached: dict[Place, int]) -> None:
        changes.write()
        with self._moved:
            self._reached.update(reached)
            self._moved.notify_all()

    def _hear(self, message: Any, changes: Changes) -> int:
        """1 when the record is applied, 0 when it was refused."""
        where = (message.topic(), message.partition(), message.offset())
        key, value, headers = message.key(), message.value(), message.headers()
        try:
            heard = wire.decode(where[0], key, value, headers, self._here)
        except WireError as error:
            self._refuse(wire.dead_letter(error, *where, key, value, headers))
            return 0
        match heard.message:
            case FilesHeld():
                changes.hold(heard.message)
            case FilesLost():
                changes.lose(heard.message)
            case SiteAnnounced():
                changes.extra |= self.sites.hear(heard.message, heard.origin, release_of(headers))
        return 1

    def _refuse(self, letter: DeadLetter) -> None:
        for wait_s in _backoff():
            try:
                self._on_refused(letter)
            except Temporary as error:
                log.warning("a dead letter waits: %s", error)
                if self._stopping.wait(wait_s):
                    raise _Stopped from error
                continue
            self.progress = replace(self.progress, refused=self.progress.refused + 1)
            return


class _Stopped(Exception):
    """Told to stop while a dead letter could not be published: its record is read again after the next start."""


_FATAL = {
    KafkaError._FATAL,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION,
}


def _backoff() -> Iterator[float]:
    wait_s = 0.1
    while True:
        yield wait_s
        wait_s = min(5.0, wait_s * 2)


def _cannot_open(error: Exception, path: Path) -> Transfer2goError:
    if "lock" in str(error).lower():
        return NeverWorks(
            "another process has this view open", str(path), "give each worker a datadir of its own (T2G_DATADIR)"
        )
    return Temporary(f"the view cannot be opened: {error}", str(path), "it is a cache: it may be deleted")
