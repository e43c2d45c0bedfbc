"""Following topics, for tests and measurements: records as they come, until told to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from streams.kafka.reader import LogReader, Record
from streams.kafka.replay import StartAt, _places, _starts
from streams.kafka.steady import SteadyReader
from streams.settings import Settings


def tail(
    settings: Settings,
    site: str,
    topics: Iterable[str],
    *,
    stop: Callable[[], bool],
    start: StartAt = "end",
    on_away: Callable[[str], None] = lambda _: None,
) -> Iterator[Record]:
    """For ever, until `stop()` is true, asked at least every 0.1 s while the cluster answers."""
    with LogReader(settings, site) as asked:
        places = _places(asked, topics, None)
        starts = _starts(asked, places, start, asked.begin_offsets(places))
    with SteadyReader(settings, site, starts) as steady:
        while not stop():
            found = steady.batch(0.1)
            on_away(steady.away)
            yield from found
