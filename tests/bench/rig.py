"""A federation to measure on: started, its parts counted and weighed, its files registered. Measures nothing itself."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streams.client.producer import IntentHandle, TransferClient
from streams.core.names import Block, Site
from streams.federation import local
from streams.kafka.publish import Publisher
from streams.registration.registering import register
from streams.settings import Settings, load_settings

A, B = Site("T1_A"), Site("T2_B")
WAIT_S = 300.0


@dataclass
class Weight:
    """Largest resident memory seen, bytes."""

    worker: int = 0
    federation: int = 0


@dataclass
class Rig:
    state: Path
    cache: Path
    blocks: int = 0
    weight: Weight = field(default_factory=Weight)
    client: TransferClient | None = None

    def settings(self, site: Site) -> Settings:
        return load_settings(state=str(self.state), site=site)

    def up(self) -> None:
        local.up(self.state, self.cache, (A, B))
        self.client = TransferClient(self.settings(A))
        self.warm_up()

    def warm_up(self) -> None:
        """Connections, producer ids, first-use topics, and what Java compiles only after a while of payload."""
        for size in (100_000, 500_000_000):
            self.send(self.make("warm", 1, size))

    def without_workers(self, act: Callable[[], float]) -> float:
        """Runs `act` while no worker of the product reads or writes."""
        for site in (A, B):
            local.set_workers(self.state, site, 0)
        try:
            return act()
        finally:
            for site in (A, B):
                local.set_workers(self.state, site, 1)
            block = self.make("warm", 1, 100_000)  # a new worker's first connections
            self.send(block)
            self.free(block)

    def make(self, name: str, count: int, size: int) -> str:
        """Registers `count` files of `size` random bytes at A as a block of its own; returns the block."""
        self.blocks += 1
        block = f"/Bench/Run/RAW#{name}-{self.blocks}"
        folder = self.state / "bench" / f"{name}-{self.blocks}"
        folder.mkdir(parents=True)
        chunk = os.urandom(min(size, 1 << 20))
        for number in range(count):
            with (folder / f"f{number:06}").open("wb") as out:
                out.write(number.to_bytes(8, "little"))
                left = size - 8
                while left > 0:
                    left -= out.write(chunk[:left])
        with Publisher(self.settings(A), A, "bench", "cli") as publisher:
            done = register(
                self.settings(A), publisher, [folder], Block(block), lfn_prefix=f"/store/bench/{folder.name}"
            )
        assert done.files == count, done
        os.sync()
        return block

    def free(self, block: str) -> None:
        """Unlinks what lies of a block at both sites: a whole bench would need some 75 GB."""
        folder = block.partition("#")[2]
        shutil.rmtree(self.state / "bench" / folder)
        for storage in self.state.glob("*/storage"):
            shutil.rmtree(storage / "store" / "bench" / folder, ignore_errors=True)

    def publish(self, what: str, plane: str | None = None) -> IntentHandle:
        assert self.client is not None
        return self.client.publish([what], to=[B], plane=plane)

    def send(self, what: str, plane: str | None = None) -> tuple[float, list[str]]:
        """Seconds from the intent to its last completion at home, and its manifests' ids."""
        start = time.monotonic()
        handle = self.publish(what, plane)
        outcome = handle.wait(timeout_s=WAIT_S)
        took = time.monotonic() - start
        assert outcome.done, outcome
        chain = handle.snapshot().decision
        assert chain is not None
        return took, [f"{handle.id}.0.{n}" for n in range(64)]

    def health(self, site: Site) -> dict[str, Any]:
        port = next(p.port for p in local.status(self.state) if p.name == f"{site}-worker-0")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def events(self) -> int:
        """Records heard by the agents of both sites so far."""
        return sum(sum(self.health(site)["records"].values()) for site in (A, B))  # type: ignore[attr-defined]

    @contextmanager
    def weighed(self) -> Iterator[None]:
        """Samples resident memory while the block runs."""
        done = threading.Event()

        def sample() -> None:
            while not done.wait(0.25):
                parts = [p for p in local.status(self.state) if p.name != "supervisor"]
                workers = [p.rss_bytes for p in parts if "-worker-" in p.name]
                self.weight.worker = max([self.weight.worker, *workers])
                self.weight.federation = max(self.weight.federation, sum(p.rss_bytes for p in parts))

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def down(self) -> None:
        if self.client is not None:
            self.client.close()
        local.down(self.state, purge=True)
