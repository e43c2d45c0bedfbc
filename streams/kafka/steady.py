"""Reading that outlives its broker: while it is away this waits, says why, and goes on at the record where it was.

Positions are kept here. A client that saw its broker go is made anew when the broker knows all topics again, and reads
on behind the last record: one of several in a process was seen to stay deaf for a minute and more after a restart.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from streams.core.closing import Closing
from streams.core.topics import LogPartition
from streams.errors import CLUSTER_AWAY
from streams.kafka.reader import LogReader, Record, record_of
from streams.settings import Settings

AGAIN_S = 0.2


class SteadyReader(Closing):
    """One consumer of one site's cluster, used by one thread; `starts`: the next offset of each place.

    Raises NotAllowed, and what else no waiting mends; `partitions_of` and `end_offsets` raise CLUSTER_AWAY too.
    """

    def __init__(
        self,
        settings: Settings,
        site: str,
        starts: Mapping[LogPartition, int] | None = None,
        *,
        large_records: bool = False,
        away_s: float = 10.0,
        fetch_wait_ms: int | None = None,
    ) -> None:
        self._settings, self._site = settings, site
        self._large, self._away_s, self._fetch_wait_ms = large_records, away_s, fetch_wait_ms
        self._next = dict(starts or {})
        self._reader: LogReader | None = None
        self._gone_s: float | None = None
        """Since when the cluster has not answered."""
        self.away = ""
        """Why nothing is heard at present, "" while the broker answers."""

    def batch(self, wait_s: float) -> list[Record]:
        """The records that are here, in order of each partition; waits up to `wait_s` for the first.

        None also while the broker is away, which is said after `away_s`; then this may take 5 s longer.
        """
        reader = self._open()
        if self._gone_s is not None:
            self._look(reader)
            return []
        found: list[Record] = []
        try:
            found = [record_of(message) for message in reader.batch(wait_s)]
        except CLUSTER_AWAY:
            self._gone_s = time.monotonic()
        if reader.outages:
            self._gone_s = time.monotonic()
        for record in found:
            self._next[record.topic, record.partition] = record.offset + 1
        return found

    def partitions_of(self, topics: Iterable[str]) -> list[LogPartition]:
        return self._open().partitions_of(topics)

    def end_offsets(self, places: Iterable[LogPartition]) -> dict[LogPartition, int]:
        return self._open().end_offsets(places)

    def add(self, starts: Mapping[LogPartition, int]) -> None:
        """Read these places too, each from its offset on."""
        new = {place: at for place, at in starts.items() if place not in self._next}
        self._next |= new
        if self._reader is not None:
            self._reader.add(new)

    def _look(self, reader: LogReader) -> None:
        """Whether the cluster is back; if so, the client is made anew."""
        assert self._gone_s is not None
        try:
            reader.check(self._next)
        except CLUSTER_AWAY as error:
            if time.monotonic() - self._gone_s >= self._away_s:
                self.away = str(error)
            time.sleep(AGAIN_S)
            return
        self.close()
        self._gone_s, self.away = None, ""

    def _open(self) -> LogReader:
        if self._reader is None:
            self._reader = LogReader(
                self._settings,
                self._site,
                large_records=self._large,
                away_s=self._away_s,
                fetch_wait_ms=self._fetch_wait_ms,
            )
            self._reader.assign(self._next)
        return self._reader

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
