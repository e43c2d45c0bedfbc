"""Five sites on one machine: what they cost when nothing moves, and 200 MB from one to the four others in the log."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

from streams.client.producer import TransferClient
from streams.core.channel import LOG
from streams.core.names import Site
from streams.core.topics import chunks_to
from streams.federation import local
from streams.kafka.reader import LogReader
from streams.kafka.replay import replay
from tests.bench import limit
from tests.bench.rig import WAIT_S, A, Rig

SITES = (A, Site("T2_B"), Site("T2_C"), Site("T2_D"), Site("T2_E"))
SIXTH = Site("T2_F")
SETTLE_S = 45.0
"""Java compiles, views catch up, and the first requests of everybody are done."""
MB = 1e6

Seconds = dict[tuple[str, int, float], float]
"""CPU of each process, by its part, pid and start."""


def cpu(state: Path) -> Seconds:
    """CPU seconds so far of every process of a federation."""
    found: Seconds = {}
    for part in local.status(state):
        with suppress(psutil.Error):
            first = psutil.Process(part.pid) if part.pid else None
            family = [] if first is None else [first]
            family += [] if first is None or part.name == "supervisor" else first.children(recursive=True)
            for process in family:
                spent = process.cpu_times()
                found[part.name, process.pid, process.create_time()] = spent.user + spent.system
    return found


def kind_of(part: str) -> str:
    return next((kind for kind in ("broker", "worker", "follower") if f"-{kind}" in part), part)


class Mesh:
    def __init__(self, rig: Rig, row: Callable[..., None], rounds: int, size: int, idle_s: float) -> None:
        self.rig, self.row, self.rounds, self.size, self.idle_s = rig, row, rounds, size, idle_s

    def run(self) -> None:
        try:
            local.up(self.rig.state, self.rig.cache, SITES)
            five, parts = self._idle()
            self.row("five idle sites, all parts", five, "cores", "<= 0.3", five <= 0.3, **parts)
            with TransferClient(self.rig.settings(A)) as self.rig.client:
                self._fan_out()
            self.rig.client = None
            self._bare()
            local.up(self.rig.state, self.rig.cache, (*SITES, SIXTH))
            six, parts = self._idle()
            self.row("the sixth idle site", six - five, "cores", "<= 0.08", six - five <= 0.08, **parts)
            self._followed(five)
        finally:
            self.rig.down()

    def _idle(self) -> tuple[float, dict[str, float]]:
        """Cores used while nothing moves, and by which kind of parts."""
        time.sleep(SETTLE_S)
        before, began_s = cpu(self.rig.state), time.monotonic()
        time.sleep(self.idle_s)
        after, took_s = cpu(self.rig.state), time.monotonic() - began_s
        used: Counter[str] = Counter()
        for key, spent in after.items():
            used[kind_of(key[0])] += (spent - before.get(key, 0.0)) / took_s
        return sum(used.values()), {kind: round(cores, 3) for kind, cores in sorted(used.items())}

    def _followed(self, five: float) -> None:
        """What a follower of each site adds to `five` idle ones, by what those of six take; and how large one is."""
        local.up(self.rig.state, self.rig.cache, (*SITES, SIXTH), followers=True)
        _, parts = self._idle()
        cores = five + parts["follower"] * len(SITES) / (len(SITES) + 1)
        self.row("five idle sites with their followers", cores, "cores", "<= 0.35", cores <= 0.35, **parts)
        most = max(one.rss_bytes for one in local.status(self.rig.state) if one.name.endswith("-follower")) / MB
        self.row("the largest follower of an idle site", most, "MB", "<= 80", most <= 80)

    def _bare(self) -> None:
        """Brokers and mirror alone: what no client of ours causes."""
        self._workers(0)
        cores, parts = self._idle()
        self._workers(1)
        self.row("five idle sites without workers", cores, "cores", "printed", True, **parts)

    def _workers(self, count: int) -> None:
        for site in SITES:
            local.set_workers(self.rig.state, site, count)

    def _fan_out(self) -> None:
        peers = SITES[1:]
        product, bare, twice = [], [], []
        for number in range(self.rounds + 1):
            block = self.rig.make("fan", 1, self.size)
            before = self._payload(peers)
            began_s = time.monotonic()
            assert self.rig.client is not None
            handle = self.rig.client.publish([block], to=peers, plane=LOG)
            assert handle.wait(timeout_s=WAIT_S).done
            took_s = time.monotonic() - began_s
            sent = self._bytes_since(before)
            self.rig.free(block)
            if not number:
                continue  # it warms up
            product.append(took_s)
            twice.append(sent / (self.size * len(peers)) - 1)
            self._workers(0)
            bare.append(self._limit(peers, number))
            self._workers(1)
            time.sleep(SETTLE_S)
        ratio = statistics.median(b / p for p, b in zip(product, bare, strict=True))
        total = self.size * len(peers) / MB
        more = {
            "MB/s delivered": round(total / statistics.median(product), 1),
            "limit MB/s": round(total / statistics.median(bare), 1),
            "rounds s": [round(s, 2) for s in product],
            "limit rounds s": [round(s, 2) for s in bare],
        }
        name = f"{self.size / MB:.0f} MB from one site to four others, in the log"
        self.row(f"{name}: of the limit", ratio, "ratio", ">= 0.7", ratio >= 0.7, **more)
        most = max(twice)
        self.row(f"{name}: payload sent twice, at most", most, "share", "<= 0.05", most <= 0.05)
        mirror = next(part for part in local.status(self.rig.state) if part.name == "mirror")
        self.row(f"{name}: mirrors started anew", mirror.restarts, "times", "0", not mirror.restarts, why=mirror.why)
        said = (self.rig.state / "supervisor.log").read_text()
        failed = said.count("mirror: restarted, since task")
        self.row(f"{name}: tasks of mirrors that failed", failed, "times", "0", not failed)

    def _limit(self, peers: tuple[Site, ...], number: int) -> float:
        """Seconds of bare producers and consumers, one of each a destination, all at once."""
        began_s = time.monotonic()
        with ThreadPoolExecutor(len(peers)) as movers:
            moves = [
                movers.submit(limit.seconds, self.rig.settings(A), A, peer, [(f"fan-{number}-{peer}", self.size)])
                for peer in peers
            ]
            for move in moves:
                move.result()
        return time.monotonic() - began_s

    def _payload(self, peers: tuple[Site, ...]) -> dict[tuple[str, int], int]:
        """Where the payload topics end."""
        with LogReader(self.rig.settings(A), A) as reader:
            return reader.end_offsets(reader.partitions_of(chunks_to(peer) for peer in peers))

    def _bytes_since(self, starts: dict[tuple[str, int], int]) -> int:
        names = {topic for topic, _ in starts}
        sent = replay(self.rig.settings(A), A, names, start=starts, large_records=True)
        return sum(len(record.value or b"") for record in sent)
