"""Who reads an intent's entries, as its session with the log sees it: intent_reader.py, or a pool of workers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from streams.consuming.manifest_reader import ManifestReader
from streams.core import records as m
from streams.core.names import Destination, ManifestId, Site
from streams.core.ranges import Ranges


class Consumer(Protocol):
    """Who listens, as the line's thread sees it: what is heard goes in, what is to be asked for and told comes out.

    Everything is called with `Line.news` held.
    """

    destination: Destination
    exclusive: bool
    """Whether one process at a time reads under its name; else others of the name are at work beside it."""
    attempt: int
    """What its progress carries; the line sets it where the name is one process's."""

    @property
    def manifests(self) -> Collection[ManifestId]:
        """Those that were entered."""

    @property
    def stopped(self) -> bool: ...

    def new(self) -> Sequence[m.ManifestWritten]: ...

    def enter(self, body: m.ManifestWritten, told: list[m.TransferProgress]) -> object: ...

    def hear_progress(self, progress: m.TransferProgress) -> None: ...

    def take(self, header: m.ChunkHeader, segment: m.Segment, payload: bytes, now_ms: int, lease_ms: int) -> None: ...

    def served(self, header: m.ChunkHeader, now_ms: int) -> None: ...

    def asks(self, now_ms: int, lease_ms: int, retry_ms: int) -> Sequence[tuple[ManifestReader, Site, Ranges]]: ...

    def tells(self) -> Sequence[m.TransferProgress | m.CompletionRecord]: ...

    def claims(self) -> Sequence[m.TransferProgress]:
        """What says that its name is this process's now, of the manifests entered since the last call."""

    def place(self, manifest: ManifestId) -> m.TransferProgress:
        """How far it is with a manifest."""

    def reports(self, retry_ms: int) -> Sequence[m.TransferReported]: ...
