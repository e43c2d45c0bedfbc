"""Brings the records of watched intents from one site's cluster: history by replay, news by one shared reader.

One thread and one reader a client, however many intents are watched. What the facts mean is in intent_snapshot.py.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from weakref import WeakValueDictionary

from streams import wire
from streams.client.intent_snapshot import IntentFold, Snapshot
from streams.core import records as m
from streams.core import topics
from streams.core.closing import Closing
from streams.core.names import IntentId, Site
from streams.core.topics import LogPartition
from streams.errors import Transfer2goError, WireError
from streams.kafka.reader import LogReader, Record
from streams.kafka.replay import replay
from streams.kafka.steady import SteadyReader
from streams.settings import Settings

_log = logging.getLogger(__name__)
_POLL_S = 0.2


def topics_of_intents(settings: Settings, site: Site) -> list[str]:
    """Every topic at `site` that can hold a fact about an intent, its own and its peers' copies."""
    return topics.with_copies(topics.OF_INTENTS, settings.registry.peers_of(site))


class Watched:
    """One intent as the news come in. Thread-safe; `no` counts the changes."""

    def __init__(self, intent: IntentId) -> None:
        self.intent = intent
        self.no = 0
        self.away = ""
        """Why no news come at present, "" while they do."""
        self.refusals: list[m.DeadLetter] = []
        self._fold = IntentFold(intent)
        self._changed = threading.Condition()
        self._error: Transfer2goError | None = None

    @property
    def heard(self) -> int:
        """Facts heard so far; 0: nobody here knows of it."""
        return self._fold.heard

    def hear(self, facts: Iterable[tuple[m.Message, int]]) -> None:
        with self._changed:
            for message, at_ms in facts:
                if isinstance(message, m.DeadLetter):
                    self.refusals.append(message)
                else:
                    self._fold.hear(message, at_ms)
            self.no += 1
            self._changed.notify_all()

    def fail(self, error: Transfer2goError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def snapshot(self) -> Snapshot:
        with self._changed:
            return self._fold.snapshot()

    def wait(self, seen_no: int, timeout_s: float) -> bool:
        """Whether there is news past `seen_no`, within `timeout_s`. Raises what ended the following."""
        with self._changed:
            self._changed.wait_for(lambda: self.no > seen_no or self._error is not None, timeout_s)
            if self._error is not None:
                raise self._error
            return self.no > seen_no


class Follower(Closing):
    """Follows all intents of one site from the moment it starts; `watch` says which of them matter."""

    def __init__(self, settings: Settings, site: Site) -> None:
        self._settings, self._site = settings, site
        self._watched: WeakValueDictionary[bytes, Watched] = WeakValueDictionary()
        """Of whom somebody still holds a handle: what nobody can ask for is not followed."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Transfer2goError | None = None
        self._away = ""

    def start(self) -> None:
        """Note where the topics end now and follow from there; once. Raises Temporary, NotFound, NotAllowed."""
        with self._lock:
            if self._thread is not None:
                return
            names = [*topics_of_intents(self._settings, self._site), topics.DEAD_LETTERS]
            with LogReader(self._settings, self._site) as reader:
                ends = reader.end_offsets(reader.partitions_of(names))
            self._thread = threading.Thread(target=self._run, args=(ends,), name="intent-follower", daemon=True)
            self._thread.start()

    def watch(self, intent: IntentId) -> Watched:
        """What is heard of `intent` from now on, and was since it was first watched."""
        with self._lock:
            watched = self._watched.get(intent.encode())
            if watched is None:
                watched = self._watched[intent.encode()] = Watched(intent)
        if self._error is not None:
            watched.fail(self._error)
        return watched

    def recall(self, watched: Watched) -> None:
        """Fold all that was written about it so far; news may come in between and change nothing twice."""
        watched.hear(list(history(self._settings, self._site, watched.intent)))

    def forget(self, intent: IntentId) -> None:
        with self._lock:
            self._watched.pop(intent.encode(), None)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self, starts: Mapping[LogPartition, int]) -> None:
        try:
            with SteadyReader(self._settings, self._site, starts) as reader:
                while not self._stop.is_set():
                    news = reader.batch(_POLL_S)
                    self._say_away(reader.away)
                    if news:
                        self._hear(news)
        except Transfer2goError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  else whoever waits would wait for ever
            _log.exception("the following of intents failed")
            self._fail(Transfer2goError(f"the following of intents failed: {type(error).__name__}: {error}"))

    def _say_away(self, why: str) -> None:
        if bool(why) != bool(self._away):
            _log.info("no news: %s", why) if why else _log.info("news come again")
        self._away = why
        for watched in self._all():
            watched.away = why

    def _fail(self, error: Transfer2goError) -> None:
        self._error = error
        for watched in self._all():
            watched.fail(error)

    def _all(self) -> list[Watched]:
        with self._lock:
            return list(self._watched.values())

    def _hear(self, records: Sequence[Record]) -> None:
        news: dict[bytes, list[tuple[m.Message, int]]] = {}
        for record in records:
            if (
                record.key is not None
                and record.key in self._watched
                and (fact := fact_of(record, self._site)) is not None
            ):
                news.setdefault(record.key, []).append(fact)
        for key, facts in news.items():
            if (watched := self._watched.get(key)) is not None:
                watched.hear(facts)


def history(
    settings: Settings, site: Site, intent: IntentId, names: Iterable[str] | None = None
) -> Iterator[tuple[m.Message, int]]:
    """(fact, when) of all that stands about `intent` at `site`, or in some topics there, from the beginning."""
    partition, key = topics.partition_of(intent, settings.registry.partitions), intent.encode()
    names = topics_of_intents(settings, site) if names is None else names
    for record in replay(settings, site, names, partitions=[partition]):
        if record.key == key and (fact := fact_of(record, site)) is not None:
            yield fact


def asked_before(settings: Settings, site: Site, intent: IntentId) -> m.TransferIntent | None:
    """The body under which an intent of this site stands in its own topics, by its asker's or its home's word.

    Reads one partition of two topics, as little as the question needs.
    """
    fold = IntentFold(intent)
    for fact in history(settings, site, intent, (topics.INTENTS, topics.DECISIONS)):
        fold.hear(*fact)
    return fold.head.body


def fact_of(record: Record, site: Site) -> tuple[m.Message, int] | None:
    """(message, when it was written), or None for what the gate refuses: the agents file that as a dead letter."""
    try:
        heard = wire.decode(record.topic, record.key, record.value, record.headers, site)
    except WireError as error:
        _log.warning("a record is refused: %s (%s %s@%s)", error, record.topic, record.partition, record.offset)
        return None
    return heard.message, heard.origin.at_ms
