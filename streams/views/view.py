"""Two threads per worker that fold journals spanning partitions into one RocksDB: replicas, keeping and announcements;
intents.

Every partition of `replicas`, `keeping`, `site-announcements` and the intents' topics, and of every peer's copies, is
read with `assign()`. Records and the offsets behind them go into one write batch, so a process killed anywhere resumes
exactly. A view is a cache: one that belongs to another cluster, format or table version, or is ahead of its journal, is
emptied and folded anew. Intents begin when the others stand where they did at the start: a home decides by these, and a
long history of intents must not hold it up. They are also read more lazily: people look at them, while decisions wait
for replicas.

Nobody else reads replicas, keeping and announcements here, so what the gate refuses of them is handed to `on_refused`,
which publishes a dead letter. The intents' topics are read by the agents too, who do that themselves: it is skipped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from threading import Condition, Event, Lock, Thread
from types import MappingProxyType
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from streams import wire
from streams.core import topics
from streams.core.keeping.chains import ChainRow
from streams.core.names import IntentId
from streams.core.records import (
    ChainStep,
    DeadLetter,
    FilesHeld,
    FilesLost,
    IntentDecided,
    ReplicasChecked,
    SiteAnnounced,
    word_of,
)
from streams.core.topics import LogPartition
from streams.errors import NeverWorks, Temporary, Transfer2goError, WireError
from streams.kafka import client
from streams.settings import Settings
from streams.views import intent_rows as layout
from streams.views import marks, rows
from streams.views.catalogue import Catalogue
from streams.views.ends import EndOffsets
from streams.views.folding import Changes
from streams.views.intents import IntentChanges, Intents
from streams.views.keeping import ChainId, Chains
from streams.views.sites import Sites
from streams.wire.release import release_of

log = logging.getLogger("streams.views")

FORMAT = 5
"""Raised when the layout in rows.py changes: older views are folded anew."""
INTENTS_FORMAT = 5
"""Raised when the layout in intent_rows.py or the fold of intents changes: only these are folded anew."""
_RECORDS_MAX = 32
_FILES_MAX = 500
"""A batch ends behind so many records or files: ~20 MB of records, ~1 MB of rows. While RocksDB's binding writes, no
other thread has the interpreter, the agents' loop neither."""
_INTENTS_RECORDS_MAX = 256
_INTENTS_AGE_MS = 200
"""While facts of intents come, the broker answers a fetch of them when so long has passed, however many there are. Each
fact by itself cost the broker a fetch and the agents' loop the interpreter, for a view that people look at (seen in a
burst of small intents: a sixth of a worker's interpreter, and two to three times the readers' fetches at each broker).
"""
_IDLE_MS = 5000
"""While none come, a fetch is answered by the next one, or after so long. Each names every partition, and costs the
broker 3 to 7 ms; but a partition that is not ready when the first goes out is heard of only behind its answer: until
then another reader goes on, whose fetches wait `_SOON_MS`."""
_SOON_MS = 200
_QUIET_S = 10.0
"""Longer than a wait: the last fetch of a reader that was let go is answered when it is needed again."""
_POLL_S = 0.25
_AGAIN_S = 0.1
_ANSWER_S = 10.0
_AGAIN_REFUSED_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)


@dataclass(frozen=True, slots=True)
class ReadProgress:
    """What the thread did since its start. `refused` went to `on_refused`; `fault` is why it ended, if it did.

    `applied` are records of replicas and announcements, `folded` those of intents, of which `skipped` were refused.
    """

    applied: int = 0
    folded: int = 0
    skipped: int = 0
    refused: int = 0
    rebuilt: int = 0
    fault: str = ""


class View:
    """`start`, read `catalogue` and `sites`, `stop`. The directory belongs to one process at a time.

    Not `opened`: neither the directory nor a client is touched before `open` or `start`.
    `on_refused(letter)` must return only when the dead letter is safe, or raise: it is then tried again, and nothing
    behind the record is applied meanwhile. `on_fault` is called once, in the thread, when the view cannot go on.
    `on_keeping` is called in the thread with each step of a chain, each look of the plane, each landing and each end of
    a removal, once they are written; `on_decided` in the other one with each decision on an intent, and `on_moved` with
    each move of which all has arrived, and each move or removal that a site has answered, or that has ended.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        on_refused: Callable[[DeadLetter], None],
        on_fault: Callable[[Exception], None] | None = None,
        on_keeping: Callable[[ChainStep | ReplicasChecked | FilesHeld | FilesLost], None] = lambda fact: None,
        on_decided: Callable[[IntentDecided], None] = lambda decision: None,
        on_moved: Callable[[IntentId], None] = lambda intent: None,
        *,
        opened: bool = True,
    ) -> None:
        self.path = directory / "view"
        self.catalogue: Catalogue
        self.sites: Sites
        self.intents: Intents
        self.chains: Chains
        self.progress = ReadProgress()
        self._settings, self._here = settings, settings.here
        self._on_refused, self._on_fault, self._on_keeping = on_refused, on_fault, on_keeping
        self._on_decided, self._on_moved = on_decided, on_moved
        self._places = self._places_of(topics.REPLICAS, topics.KEEPING, topics.ANNOUNCEMENTS, topics.SEALS)
        partitions = range(self._settings.registry.partitions)
        self._own_places = [(name, partition) for name in (topics.REPLICAS, topics.KEEPING) for partition in partitions]
        self._read_places = [*self._places, *((topics.REPLICA_CHECKS, partition) for partition in partitions)]
        """Who waits for the view waits for no look of the plane."""
        self._intent_places = self._places_of(*topics.OF_INTENTS)
        self._intent_changes: IntentChanges
        self._known_chains: dict[ChainId, ChainRow] = {}
        """Of the thread that folds holdings."""
        self._waits_for: dict[LogPartition, int] | None = None
        """What must be reached before intents are read; None: not known yet."""
        self._reached: dict[LogPartition, int] = {}
        self._moved = Condition()
        self._counting = Lock()
        self._stopping = Event()
        self._db: Any = None
        self._ends: EndOffsets
        self._threads = [
            Thread(target=self._run, args=(read,), name=name, daemon=True)
            for name, read in (("view", self._read_holdings), ("view of intents", self._read_intents))
        ]
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
        self.catalogue, self.sites, self.intents = Catalogue(self._db), Sites(self._db), Intents(self._db)
        self.chains = Chains(self._db)
        self._intent_changes = IntentChanges(self._db)
        self._ends = EndOffsets(self._settings, self._here, [*self._places, *self._intent_places])

    def _places_of(self, *bases: str) -> list[LogPartition]:
        names = topics.with_copies(bases, self._settings.peers)
        return [(name, partition) for name in names for partition in range(self._settings.registry.partitions)]

    def start(self) -> None:
        self.open()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads and closes the database; readers must be done."""
        self._stopping.set()
        with self._moved:
            self._moved.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if self._db is not None:
            self._db.close()

    @property
    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads) and not self.progress.fault

    def catch_up(self, timeout_s: float) -> bool:
        """Whether all that stood in replicas and announcements at the time of the call is applied, waiting so long.

        False also while the broker is away, a peer's topic does not exist, or the view is dead. Blocks: call it from a
        thread, not from a loop.
        """
        return self._catch_up(self._places, timeout_s)

    def catch_up_own(self, timeout_s: float) -> bool:
        """As `catch_up`, of what this site said of its own replicas and keeping."""
        return self._catch_up(self._own_places, timeout_s)

    def catch_up_intent(self, intent: IntentId, timeout_s: float, *, asked: bool = False) -> bool:
        """As `catch_up`, of what is said of one intent; `asked`: of what its home published of it."""
        partition = topics.partition_of(intent, self._settings.registry.partitions)
        bases, home = (topics.INTENTS, topics.DECISIONS), intent.home
        names = bases if home == self._here else [topics.remote(home, base) for base in bases]
        return self._catch_up(
            [place for place in self._intent_places if place[1] == partition and (not asked or place[0] in names)],
            timeout_s,
        )

    def _catch_up(self, places: Sequence[LogPartition], timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        before = self._heard(places)
        while (ends := self._ends.sample(max(0.1, until - time.monotonic()), places)) is None or len(ends) < len(
            places
        ):
            if not self.alive or time.monotonic() > until - _AGAIN_S or self._stopping.wait(_AGAIN_S):
                return False
        if any(ends[place] < before[place] for place in places):
            # The worker ends, and the view is folded anew at its next start.
            self._fail(Temporary("a journal is shorter than what the view has heard of it", self.path.name))
            return False
        with self._moved:
            return self._moved.wait_for(
                lambda: not self.alive or self._has_reached(ends), max(0.0, until - time.monotonic())
            ) and self._has_reached(ends)

    def _stands_where_it_did(self) -> bool:
        """Whether replicas and announcements are read as far as they went at the start."""
        return self._waits_for is not None and self._has_reached(self._waits_for)

    def _has_reached(self, ends: dict[LogPartition, int]) -> bool:
        return all(self._reached.get(place, 0) >= end for place, end in ends.items())

    # the threads

    def _run(self, read: Callable[[], None]) -> None:
        try:
            read()
        except _Stopped:
            log.info("the view stopped before a refused record")
        except Exception as error:  # noqa: BLE001  a thread has no other way to tell anybody
            self._fail(error)
        finally:
            with self._moved:
                self._moved.notify_all()

    def _fail(self, error: Exception) -> None:
        log.error("the view stopped: %s", error)
        self.progress = replace(self.progress, fault=str(error) or type(error).__name__)
        if self._on_fault is not None:
            self._on_fault(error)

    def _read_holdings(self) -> None:
        with self._consumer({"fetch.wait.max.ms": _IDLE_MS}) as waiting:
            with self._consumer({"fetch.wait.max.ms": _SOON_MS}) as first:
                if not self._belong(first):
                    return
                both_s = float("inf")

                def until(_: int, __: float) -> bool:
                    nonlocal both_s
                    if both_s == float("inf") and self._stands_where_it_did():
                        self._assign(waiting, self._read_places)
                        both_s = time.monotonic()
                    return time.monotonic() - both_s > _both_s()

                self._assign(first, self._read_places)
                self._follow(first, _RECORDS_MAX, self._hear, until=until)
            self._follow(waiting, _RECORDS_MAX, self._hear, heard=self._heard(self._read_places))

    def _read_intents(self) -> None:
        with self._moved:
            self._moved.wait_for(lambda: self._stopping.is_set() or self.progress.fault or self._stands_where_it_did())
        if self._stopping.is_set() or self.progress.fault:
            return
        with (
            self._consumer({"fetch.wait.max.ms": _INTENTS_AGE_MS, "fetch.min.bytes": 4 << 20}) as gathering,
            self._consumer({"fetch.wait.max.ms": _IDLE_MS}) as waiting,
        ):
            while not self._stopping.is_set():
                self._gather_intents(gathering, waiting)
                self._wait_for_intents(waiting, gathering)

    def _gather_intents(self, gathering: Consumer, waiting: Consumer) -> None:
        """Until none have come for a while, and the other reader can go on."""
        both = False

        def until(_: int, quiet_s: float) -> bool:
            nonlocal both
            if both and quiet_s < _QUIET_S:
                waiting.unassign()
                both = False
            elif not both and quiet_s > _QUIET_S:
                self._assign(waiting, self._intent_places)
                both = True
            if not both:
                waiting.poll(0)  # what it has to log
            return both and quiet_s > _QUIET_S + _both_s()

        self._assign(gathering, self._intent_places)
        take, hear = self._take_intents, self._hear_intent
        self._follow(gathering, _INTENTS_RECORDS_MAX, hear, take, until)
        gathering.unassign()

    def _wait_for_intents(self, waiting: Consumer, gathering: Consumer) -> None:
        """Until one comes."""

        def until(records: int, _: float) -> bool:
            gathering.poll(0)
            return records > 0

        take, hear, heard = self._take_intents, self._hear_intent, self._heard(self._intent_places)
        self._follow(waiting, _INTENTS_RECORDS_MAX, hear, take, until, heard)
        waiting.unassign()

    @contextmanager
    def _consumer(self, fetching: dict[str, Any]) -> Iterator[Consumer]:
        config = client.consumer_config(self._settings, self._here)
        config |= {
            "fetch.max.bytes": 4 << 20,
            "queued.max.messages.kbytes": 4 << 10,
            "topic.metadata.refresh.interval.ms": 30_000,
        }
        consumer = client.make_consumer(config | fetching)
        try:
            yield consumer
        finally:
            consumer.close()

    def _follow(
        self,
        consumer: Consumer,
        most: int,
        hear: Callable[[Any, Changes], None],
        gathered: Callable[[Changes], None] = lambda changes: None,
        until: Callable[[int, float], bool] = lambda records, quiet_s: False,
        heard: Mapping[LogPartition, int] = MappingProxyType({}),
    ) -> None:
        """Reads what is assigned until stopped, `most` records a batch. `gathered` adds what hearing kept back until
        its end.

        `until`: of how many records were heard, and for how many seconds none was, whether that is enough.
        `heard`: what stands before these offsets another reader had.
        """
        records, heard_s = 0, time.monotonic()
        while not self._stopping.is_set() and not until(records, time.monotonic() - heard_s):
            first = consumer.poll(_POLL_S)
            if first is None:
                continue
            batch = [first, *consumer.consume(most - 1, timeout=0)]
            batch = [message for message in batch if not _is_of(heard, message)]
            if news := sum(message.error() is None for message in batch):
                records, heard_s = records + news, time.monotonic()
            self._apply(batch, hear, gathered)

    def _assign(self, consumer: Consumer, places: Sequence[LogPartition]) -> None:
        consumer.assign([TopicPartition(*place, self._offset(place)) for place in places])

    def _heard(self, places: Sequence[LogPartition]) -> dict[LogPartition, int]:
        with self._moved:
            return {place: self._reached.get(place, 0) for place in places}

    def _offset(self, place: LogPartition) -> int:
        """The next to read: behind the last record that was applied, or the last end that was heard of."""
        row = self._db.get(rows.offset_key(*place))
        with self._moved:
            known = self._reached.get(place, OFFSET_BEGINNING)
            offset = max(known, OFFSET_BEGINNING if row is None else marks.offset_of(row) or 0)
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
            held = (place for place in self._places if place in ends)
            read = {place: row for place in held if (row := self._db.get(rows.offset_key(*place))) is not None}
            was = self._db.get(rows.STAMP)
            if was == stamp:
                try:
                    why = _not_of(consumer, read, ends)
                except TimeoutError as error:
                    log.warning("the view waits for the broker: %s", error)
                    continue
            else:
                why = "of another journal"
            if why:
                self._empty(stamp, "" if was is None else why)
            self._forget_other_intents()
            with self._moved:
                self._waits_for = {place: ends[place] for place in self._places if place in ends}
            return True
        return False

    def _forget_other_intents(self) -> None:
        stamp = b"%d" % INTENTS_FORMAT
        if self._db.get(rows.INTENTS_STAMP) == stamp:
            return
        for prefix in (layout.HEAD, layout.BODY, layout.CELL, layout.INDEX):
            self._db.delete_range(prefix, prefix + b"\xff")
        for place in self._intent_places:
            self._db.delete(rows.offset_key(*place))
        self._intent_changes.forget()
        self._db[rows.INTENTS_STAMP] = stamp

    def _empty(self, stamp: bytes, why: str) -> None:
        if why:
            log.warning("the view in %s is %s and is folded anew", self.path, why)
            self._count(rebuilt=1)
        self._db.delete_range(b"\0", b"\xff")
        self._db[rows.STAMP] = stamp
        self.sites.forget()
        self._known_chains.clear()
        self._intent_changes.forget()

    def _apply(
        self, messages: list[Any], hear: Callable[[Any, Changes], None], gathered: Callable[[Changes], None]
    ) -> None:
        changes, reached = Changes(self._db, self._known_chains), dict[LogPartition, int]()
        last: dict[LogPartition, Any] = {}
        for message in messages:
            place = (message.topic(), message.partition())
            error = message.error()
            if error is None:
                hear(message, changes)
                reached[place] = message.offset() + 1
                last[place] = message
            elif error.code() == KafkaError._PARTITION_EOF:
                reached[place] = message.offset()
            elif error.code() in _FATAL:
                raise client.error_of(error, "reading the journals", f"{place[0]} at {self._here}")
            else:
                log.warning("the view reads %s: %s", place[0], error.str())
            if changes.touched >= _FILES_MAX:
                self._write(changes, reached, last)
                changes, reached, last = Changes(self._db, self._known_chains), {}, {}
            if self._stopping.is_set():
                break
        gathered(changes)
        self._write(changes, reached, last)

    def _write(self, changes: Changes, reached: dict[LogPartition, int], last: Mapping[LogPartition, Any]) -> None:
        """`last`: the last record of each partition that the changes hold."""
        for place, message in last.items():
            changes.extra[rows.offset_key(*place)] = marks.pack(message.offset() + 1, marks.mark_of(message))
        changes.write()
        with self._moved:
            self._reached.update(reached)
            self._moved.notify_all()
        for fact in changes.news:
            self._on_keeping(fact)
        for decision in changes.decided:
            self._on_decided(decision)
        for intent in changes.moved:
            self._on_moved(intent)

    def _count(self, **more: int) -> None:
        with self._counting:
            found = {name: getattr(self.progress, name) + number for name, number in more.items()}
            self.progress = replace(self.progress, **found)

    def _hear(self, message: Any, changes: Changes) -> None:
        where = (message.topic(), message.partition(), message.offset())
        key, value, headers = message.key(), message.value(), message.headers()
        try:
            heard = wire.decode(where[0], key, value, headers, self._here)
            match heard.message:
                case FilesHeld():
                    changes.hold(heard.message, word_of(heard.message, heard.origin))
                    if heard.message.manifest is not None:
                        changes.news.append(heard.message)
                case FilesLost():
                    changes.lose(heard.message)
                    if heard.message.removal_sha256:
                        changes.news.append(heard.message)
                case ChainStep():
                    changes.decide(heard.message)
                    changes.news.append(heard.message)
                case ReplicasChecked():
                    changes.news.append(heard.message)
                case SiteAnnounced():
                    at_ms, release = message.timestamp()[1], release_of(headers)
                    changes.extra |= self.sites.hear(heard.message, heard.origin, at_ms, release)
        except WireError as error:
            fault = error
        except _OURS as error:  # a fault of ours in one record must not end the worker, again at every start
            log.exception("a record is not in the view: %s [%d] @ %d", *where)
            fault = WireError(f"the view could not take it: {type(error).__name__}: {error}")
        else:
            self._count(applied=1)
            return
        self._refuse(wire.dead_letter(fault, *where, key, value, headers))

    def _take_intents(self, changes: Changes) -> None:
        changes.extra |= self._intent_changes.take()
        changes.moved += self._intent_changes.moved

    def _hear_intent(self, message: Any, changes: Changes) -> None:
        where = (message.topic(), message.partition(), message.offset())
        skipped = 1
        try:
            record = (message.key(), message.value(), message.headers())
            decision = self._intent_changes.hear_record(where, record, self._here)
            if decision is not None:
                changes.decided.append(decision)
            skipped = 0
        except WireError as error:
            log.debug("skipped: %s (%s [%d] @ %d)", error, *where)
        except _OURS:
            # The agents decide by rows of their own: a fault of ours here must not end them, again at every start.
            log.exception("an intent's fact is not in the view: %s [%d] @ %d", *where)
        self._count(folded=1, skipped=skipped)

    def _refuse(self, letter: DeadLetter) -> None:
        for wait_s in chain(_AGAIN_REFUSED_S, repeat(_AGAIN_REFUSED_S[-1])):
            try:
                self._on_refused(letter)
            except Temporary as error:
                log.warning("a dead letter waits: %s", error)
                if self._stopping.wait(wait_s):
                    raise _Stopped from error
                continue
            self._count(refused=1)
            return


_OURS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, Transfer2goError)
"""Not what RocksDB's binding raises, a plain Exception."""


def _not_of(consumer: Consumer, read: Mapping[LogPartition, bytes], ends: Mapping[LogPartition, int]) -> str:
    """Why a view that read so far is not one of these journals; "": it is. TimeoutError when they do not answer."""
    if any((marks.offset_of(row) or 0) > ends[place] for place, row in read.items()):
        return "ahead of its journal"
    place = marks.changed(consumer, read, _ANSWER_S)
    return "" if place is None else f"of another {place[0]} than there is now: was its broker put back?"


def _both_s() -> float:
    """So long two readers go on: by then the first fetch of the one that waits was answered."""
    return _IDLE_MS / 1000 + 1


def _is_of(heard: Mapping[LogPartition, int], message: Any) -> bool:
    """Whether a record, or the end of a partition, stands before these offsets."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        return False
    return bool(message.offset() < heard.get((message.topic(), message.partition()), 0))


class _Stopped(Exception):
    """Told to stop while a dead letter could not be published: its record is read again after the next start."""


_FATAL = {
    KafkaError._FATAL,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION,
}


def _cannot_open(error: Exception, path: Path) -> Transfer2goError:
    if "lock" in str(error).lower():
        return NeverWorks(
            "another process has this view open", str(path), "give each worker a datadir of its own (T2G_DATADIR)"
        )
    return Temporary(f"the view cannot be opened: {error}", str(path), "it is a cache: it may be deleted")
