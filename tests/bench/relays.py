"""One large file to 1, 2 and 4 sites by door: copies that leave its source, and the speed beside that of as many
intents to one site each; then to four of which the first is killed in the middle."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Collection

import psutil

from streams.client.producer import IntentHandle, TransferClient
from streams.core.channel import DOOR
from streams.core.names import Site
from streams.core.records import ChunksServed, ManifestWritten, TransferProgress
from streams.core.topics import CHUNK_EVENTS, MANIFESTS
from streams.federation import local
from streams.kafka.replay import replay
from streams.wire import decode
from tests.bench.mesh import MB, SETTLE_S, SITES
from tests.bench.rig import WAIT_S, A, Rig


class Relays:
    def __init__(self, rig: Rig, row: Callable[..., None], rounds: int, size: int) -> None:
        self.rig, self.row, self.rounds, self.size = rig, row, rounds, size

    def run(self) -> None:
        try:
            local.up(self.rig.state, self.rig.cache, SITES)
            time.sleep(SETTLE_S)
            with TransferClient(self.rig.settings(A)) as self.rig.client:
                self._moved(SITES[1:], as_one=True)  # it warms up
                for count in (1, 2, 4):
                    self._against_separate(SITES[1 : 1 + count])
                self._dead_head()
            self.rig.client = None
        finally:
            self.rig.down()

    def _against_separate(self, to: tuple[Site, ...]) -> None:
        as_one, separate, copies = [], [], []
        for _ in range(self.rounds):
            seconds, left = self._moved(to, as_one=True)
            as_one.append(seconds)
            copies.append(left)
            separate.append(self._moved(to, as_one=False)[0])
        name = f"{self.size / MB:.0f} MB to {len(to)} by door"
        most = max(copies)
        self.row(f"{name}: copies that left the source", most, "copies", "<= 1.1", most <= 1.1)
        ratio = statistics.median(s / o for o, s in zip(as_one, separate, strict=True))
        total = self.size * len(to) / MB
        self.row(
            f"{name}: of as many intents",
            ratio,
            "ratio",
            ">= 0.9",
            ratio >= 0.9,
            **{
                "MB/s delivered": round(total / statistics.median(as_one), 1),
                "separate MB/s": round(total / statistics.median(separate), 1),
                "rounds s": [round(s, 2) for s in as_one],
                "separate rounds s": [round(s, 2) for s in separate],
            },
        )

    def _moved(self, to: tuple[Site, ...], *, as_one: bool) -> tuple[float, float]:
        """Seconds until all have it, and copies that left the source."""
        block = self.rig.make("relay", 1, self.size)
        os.sync()
        assert self.rig.client is not None
        began_s = time.monotonic()
        wanted = [to] if as_one else [(site,) for site in to]
        handles = [self.rig.client.publish([block], to=sites, plane=DOOR) for sites in wanted]
        for handle in handles:
            assert handle.wait(timeout_s=WAIT_S).done
        took_s = time.monotonic() - began_s
        time.sleep(6)  # a ticket of which all has left tells it 5 s later
        left = self._left(handles)
        self.rig.free(block)
        return took_s, left

    def _left(self, handles: Collection[IntentHandle]) -> float:
        settings, intents = self.rig.settings(A), {handle.id for handle in handles}
        manifests, size = set(), 0
        for record in replay(settings, A, [MANIFESTS]):
            said = decode(record.topic, record.key, record.value, record.headers, A).message
            if isinstance(said, ManifestWritten) and said.intent in intents:
                manifests.add(said.manifest)
        for record in replay(settings, A, [CHUNK_EVENTS]):
            said = decode(record.topic, record.key, record.value, record.headers, A).message
            if isinstance(said, ChunksServed) and said.manifest in manifests:
                size += said.bytes
        return size / self.size

    def _dead_head(self) -> None:
        """The first of four, by name, is killed with its plane as soon as it has some."""
        first, to = SITES[1], SITES[1:]
        block = self.rig.make("relay", 1, self.size)
        assert self.rig.client is not None
        began_s = time.monotonic()
        handle = self.rig.client.publish([block], to=to, plane=DOOR)
        while not self._has_some(first, handle):
            assert time.monotonic() - began_s < WAIT_S
            time.sleep(0.02)
        part = next(part for part in local.status(self.rig.state) if part.name == f"{first}-worker-0")
        worker = psutil.Process(part.pid)
        for process in [*worker.children(recursive=True), worker]:
            process.send_signal(signal.SIGKILL)
        assert handle.wait(timeout_s=WAIT_S).done
        took_s = time.monotonic() - began_s
        time.sleep(6)
        left = self._left([handle])
        self.rig.free(block)
        name = f"{self.size / MB:.0f} MB to 4 by door, the first killed: copies that left"
        self.row(name, left, "copies", "<= 2.1", left <= 2.1, seconds=round(took_s, 2))

    def _has_some(self, site: Site, handle: IntentHandle) -> bool:
        for record in replay(self.rig.settings(site), site, [CHUNK_EVENTS]):
            said = decode(record.topic, record.key, record.value, record.headers, site).message
            if isinstance(said, TransferProgress) and said.manifest.intent == handle.id and said.verified:
                return True
        return False
