"""One process that reads an intent under a name: what it takes from the log, what it asks for, what it owes. Pure.

Who carries out reads the log and publishes (streams/consuming/session.py; the simulation has its own): it tells what
it heard, and does what is owed until it hears that. Nothing here rests on a process before it but what the log says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streams.core import records as m
from streams.core.channel import LOG
from streams.core.names import ManifestId
from streams.core.readers.claims import NameClaim, standing, taken_over
from streams.core.readers.ordered import OrderedReader
from streams.core.readers.reader import IntentReader
from streams.core.readers.row import ATTEMPT
from streams.core.readers.window import Ask

Said = tuple[NameClaim, m.TransferProgress]
"""Progress, and under which claim it was said."""


class ReaderProcess:
    """`writer` is the name under which it publishes, as `claims.writer_name` makes it."""

    def __init__(self, reader: IntentReader[Any], writer: str, *, lease_ms: int, retry_ms: int) -> None:
        self.reader, self.writer = reader, writer
        self.claim: NameClaim | None = None
        """Under which its name is this process's, where it is one process's."""
        self._lease_ms, self._retry_ms = lease_ms, retry_ms
        self._request_no = 0

    @property
    def attempt(self) -> int:
        return ATTEMPT if self.claim is None else self.claim.attempt

    def enter(
        self, bodies: Sequence[m.ManifestWritten], found: Mapping[ManifestId, Sequence[Said]], *, at_start: bool
    ) -> list[m.TransferProgress]:
        """Takes manifests in, with what the log holds of the way through them; what is to be said before anything of
        them is handed out."""
        reader = self.reader
        if at_start and reader.exclusive:
            before = [claim.attempt for said in found.values() for claim, _ in said]
            self.claim = NameClaim.by(1 + max(before, default=0), self.writer)
        for body in bodies:
            reader.enter(body, self._counting(found.get(body.manifest, ())), self.attempt)
        return reader.claims() if isinstance(reader, OrderedReader) else []

    def _counting(self, said: Sequence[Said]) -> list[m.TransferProgress]:
        """All of a shared reader's, and of an ordered one's what the process says that has the name."""
        if self.claim is None or any(progress.endpoint != self.reader.endpoint for _, progress in said):
            return [progress for _, progress in said]
        return standing(said)

    def hear(self, said: m.TransferProgress, writer: str) -> None:
        """The next record of a manifest's partition. Raises what ends this process: the name is another's."""
        claim = NameClaim.by(said.attempt, writer)
        if self.claim is not None and said.endpoint == self.reader.endpoint and writer != self.writer:
            if claim > self.claim:
                raise taken_over(self.reader.destination, claim)
        else:
            self.reader.hear_progress(said)

    def take(self, header: m.ChunkHeader, pieces: Iterable[tuple[m.Segment, bytes]], now_ms: int) -> None:
        """A payload record: its segments whose checksums are right. Of others' ranges nothing is taken."""
        if header.destination != self.reader.destination:
            return
        for segment, payload in pieces:
            self.reader.take(header, segment, payload, now_ms, self._lease_ms)
        if header.last:
            self.reader.served(header, now_ms)

    def asks(self, now_ms: int) -> Sequence[Ask]:
        """What to ask for now: `request` it, or call it unsent."""
        return () if self.reader.stopped else self.reader.asks(now_ms, self._lease_ms, self._retry_ms)

    def request(self, ask: Ask, now_ms: int, clock_us: int) -> m.ChunksRequested:
        """The record that asks; its number is of no earlier process, nor of another at work at the same time."""
        self._request_no = max(self._request_no + 1, clock_us)
        ask.sent(self._request_no)
        manifest = ask.window.manifest
        return m.ChunksRequested(
            manifest=manifest.body.manifest,
            destination=self.reader.destination,
            source=ask.source,
            request_no=self._request_no,
            attempt=self.attempt,
            plane=LOG,
            items=manifest.requested(ask.ranges, ask.source),
            ranges=ask.ranges,
            until_ms=now_ms + self._lease_ms,
        )

    def reports(self) -> list[m.TransferReported]:
        return self.reader.reports(self._retry_ms)
