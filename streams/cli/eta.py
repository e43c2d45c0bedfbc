"""When an intent will have arrived: bytes left by the rate of the last minute. Or what it waits for, and who said so.

The rate is that of verified bytes, by when their records were written. Of files that failed nothing is left. Sizes of
entries are estimates, and so is what is made of them here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import NamedTuple

from streams.cli.screen import duration, moment, size
from streams.cli.words import holdup, waiting
from streams.client.follower import fact_of, topics_of_intents
from streams.client.intent_snapshot import Snapshot
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import LogPosition
from streams.core.names import Destination, IntentId, ManifestId
from streams.errors import Transfer2goError
from streams.kafka.reader import Record
from streams.kafka.replay import replay
from streams.settings import Settings

WINDOW_MS = 60_000
_CLOCKS_MS = 5_000
"""By so much a writer's clock and its broker's may differ."""
_READ_MAX = 100_000
"""Records that are looked through for those of one intent."""


class Said(NamedTuple):
    """A record about an intent: when it was written (ms), and where it stands."""

    at_ms: int
    place: LogPosition


class _Point(NamedTuple):
    """How much of a transfer is verified: a share of its items, or bytes."""

    at_ms: int
    verified: int
    total: int
    items: int
    in_bytes: bool


class News:
    """What was said of an intent lately. `hear` in any order."""

    def __init__(self) -> None:
        self.last: Said | None = None
        self._waits: dict[tuple[Destination, ManifestId, str], tuple[Said, Said]] = {}
        """By a transfer and its words: who said them first and last."""
        self._points: dict[tuple[Destination, ManifestId], list[_Point]] = {}

    def hear(self, message: m.Message, said: Said) -> None:
        if self.last is None or said > self.last:
            self.last = said
        match message:
            case m.TransferReported():
                in_bytes = message.unit is m.Unit.BYTES
                point = _Point(said.at_ms, message.verified, message.total, message.items, in_bytes)
                self._points.setdefault((message.destination, message.manifest), []).append(point)
                name = message.destination, message.manifest, str(message.waits_for)
                first, last = self._waits.get(name, (said, said))
                self._waits[name] = min(first, said), max(last, said)
            case m.CompletionRecord():
                # Its bytes are those of a whole transfer in bytes; of entries all items are there.
                point = _Point(said.at_ms, -1, message.bytes, message.sealed.size, True)
                self._points.setdefault((message.destination, message.manifest), []).append(point)
            case _:
                pass

    def waits(self, report: m.TransferReported) -> tuple[Said, Said] | None:
        """Who said first, of what was read, and last that the transfer waits for what the report says."""
        return self._waits.get((report.destination, report.manifest, str(report.waits_for)))

    def moved(self, now_ms: int, item_bytes: float) -> tuple[float, float]:
        """Bytes that were verified in the last minute, and in how many seconds. `item_bytes`: of an item of entries."""
        since, moved, first = now_ms - WINDOW_MS, 0.0, now_ms
        for points in self._points.values():
            lately = sorted(point for point in points if point.at_ms >= since)
            first = min([first, *(point.at_ms for point in lately)])
            done = [_bytes_of(point, lately, item_bytes) for point in lately]
            moved += sum(max(0.0, later - earlier) for earlier, later in pairwise(done))
        return moved, max(1.0, (now_ms - first) / 1000)


def _bytes_of(point: _Point, beside: list[_Point], item_bytes: float) -> float:
    if point.verified >= 0:
        share = point.verified / point.total if point.total else 0.0
        return point.verified if point.in_bytes else share * point.items * item_bytes
    is_of_entries = any(other.verified >= 0 and not other.in_bytes for other in beside)
    return point.items * item_bytes if is_of_entries else point.total


@dataclass(frozen=True, slots=True)
class Eta:
    """`at_ms`: None where nothing moves; then `why`, since when, and in which record that was said last.

    `is_final`: whether all files are known; of an open intent, or while manifests are written, there may be more.
    """

    left_bytes: int
    bytes_per_s: float
    at_ms: int | None
    is_final: bool = True
    why: str = ""
    since_ms: int | None = None
    record: LogPosition | None = None

    def in_words(self, now_ms: int) -> str:
        if self.at_ms is not None:
            left = f"{size(self.left_bytes)} left at {size(self.bytes_per_s)}/s, the rate of the last minute"
            more = "" if self.is_final else "; more files may come"
            return f"ETA {moment(self.at_ms)}, in {duration((self.at_ms - now_ms) / 1000)}: {left}{more}"
        since = "" if self.since_ms is None else f", since {moment(self.since_ms)}"
        return f"ETA none: {self.why}{since}" + ("" if self.record is None else f", last said in {self.record}")

    def as_object(self) -> dict[str, object]:
        return {
            "at": None if self.at_ms is None else moment(self.at_ms),
            "left_bytes": self.left_bytes,
            "bytes_per_s": round(self.bytes_per_s),
            "final": self.is_final,
            "why": self.why or None,
            "since": None if self.since_ms is None else moment(self.since_ms),
            "record": None if self.record is None else self.record._asdict(),
        }


def estimate(snapshot: Snapshot, news: News, now_ms: int, moved: tuple[float, float] | None = None) -> Eta | None:
    """None of an intent that has ended. `news`: of the last minute at least, or for its last news.

    `moved`: bytes in so many seconds of the last minute; without it as the news say.
    """
    if snapshot.ended:
        return None
    left_bytes = _left(snapshot)
    arrived, seconds = _moved(snapshot, news, now_ms) if moved is None else moved
    if arrived and left_bytes:
        rate = arrived / seconds
        return Eta(left_bytes, rate, now_ms + int(1000 * left_bytes / rate), is_final=snapshot.planned)
    why, said = _why(snapshot, news)
    first = news.last if said is None else said[0]
    since_ms = None if first is None else first.at_ms
    return Eta(left_bytes, 0.0, None, snapshot.planned, why, since_ms, last_said(snapshot, news))


def _moved(snapshot: Snapshot, news: News, now_ms: int) -> tuple[float, float]:
    return news.moved(now_ms, snapshot.bytes / max(1, snapshot.files))


class Pace:
    """What arrives while an intent is watched: bytes, by when they were seen. `news`: of the minute before."""

    def __init__(self, snapshot: Snapshot, news: News, now_ms: int) -> None:
        arrived, seconds = _moved(snapshot, news, now_ms)
        self._points = deque([(now_ms - int(1000 * seconds), snapshot.arrived_bytes - arrived)])

    def note(self, snapshot: Snapshot, now_ms: int) -> tuple[float, float]:
        """Bytes that arrived in the last minute, and in how many seconds."""
        self._points.append((now_ms, snapshot.arrived_bytes))
        while now_ms - self._points[1][0] >= WINDOW_MS:
            self._points.popleft()
        at_ms, before = self._points[0]
        return max(0.0, snapshot.arrived_bytes - before), max(1.0, (now_ms - at_ms) / 1000)


def _left(snapshot: Snapshot) -> int:
    """Bytes of the files that are still to come: as open transfers report them, and of those that none reports yet.

    What failed in transfers that have ended is among the latter, and taken for as large as they are.
    """
    left, item_bytes = 0.0, snapshot.bytes / max(1, snapshot.files)
    for one in snapshot.destinations:
        reported = sum(_bytes_left(report, item_bytes) for report in one.open)
        files = one.left - sum(report.items - report.sealed - report.failed for report in one.open)
        never = one.failed + one.cancelled - sum(report.failed for report in one.open)
        others = max(0.0, one.bytes - one.arrived_bytes - reported)
        left += reported + (others * files / (files + max(0, never)) if files > 0 else 0.0)
    return round(left)


def _bytes_left(report: m.TransferReported, item_bytes: float) -> float:
    if report.unit is m.Unit.BYTES:
        return max(0, report.total - report.verified)
    return report.items * item_bytes * (1 - report.verified / max(1, report.total))


def _why(snapshot: Snapshot, news: News) -> tuple[str, tuple[Said, Said] | None]:
    """In words, and the records that said so first and last; None where the last of all must do."""
    if words := waiting(snapshot):
        return words, None
    if not (words := holdup(snapshot)):
        return "nothing has moved for a minute", None
    reports = (report for one in snapshot.destinations for report in one.open if report.waits_for)
    report = next(reports, None)
    return f"waits for {words}", None if report is None else news.waits(report)


def last_said(snapshot: Snapshot, news: News) -> LogPosition | None:
    """The record that says last what it waits for."""
    _, said = _why(snapshot, news)
    last = news.last if said is None else said[1]
    return None if last is None else last.place


def news_of(settings: Settings, snapshot: Snapshot, now_ms: int) -> News:
    """What the journals at `settings.here` say of an intent since a minute, or since its last news, if that is older.

    Nothing where they cannot be read: what is known of an intent is worth telling without them.
    """
    since_ms = min(now_ms, now_ms if snapshot.last_ms is None else snapshot.last_ms) - WINDOW_MS - _CLOCKS_MS
    news = News()
    with suppress(Transfer2goError):
        for message, said in _since(settings, snapshot.intent, max(0, since_ms)):
            news.hear(message, said)
    return news


def _since(settings: Settings, intent: IntentId, since_ms: int) -> Iterator[tuple[m.Message, Said]]:
    here, key = settings.here, intent.encode()
    partitions = [topics.partition_of(intent, settings.registry.partitions)]
    records: Iterable[Record] = replay(
        settings, here, topics_of_intents(settings, here), partitions=partitions, start=since_ms
    )
    for record in islice(records, _READ_MAX):
        if record.key == key and (fact := fact_of(record, here)) is not None:
            yield fact[0], Said(fact[1], LogPosition(here, *record[:3]))
