"""`make bench`: the product and the limit of its path, side by side in one run; medians, ratios, JSON. No test.

Results go to tests/bench/results/, named by commit. `--rounds N` (3), `--quick` (100 MB instead of 1 GB, one round),
`--only NAME`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from streams.core.channel import DOOR, LOG
from streams.core.records import LeaseExpired, TransferProgress
from streams.core.topics import CHUNK_EVENTS, TRANSFERS
from streams.federation import local
from streams.federation.process import QUICK_S
from streams.kafka.replay import replay
from streams.settings import load_settings
from streams.wire import decode
from tests.bench import limit
from tests.bench.audit_reading import INTENTS, MANIFESTS, audit_reading
from tests.bench.consistency import FILES as ON_DISK
from tests.bench.consistency import consistency
from tests.bench.csv_reading import ROWS, csv_reading
from tests.bench.entries import EVENTS, Entries
from tests.bench.mesh import Mesh
from tests.bench.present import Present
from tests.bench.product_peers import ProductPeers
from tests.bench.relays import Relays
from tests.bench.removing import FILES as REMOVED
from tests.bench.removing import Removing, moved
from tests.bench.rig import WAIT_S, A, B, Rig
from tests.bench.start import Start
from tests.bench.tiny import FILES, tiny
from tests.kafka.tailing import tail

MB = 1e6


class Bench:
    def __init__(self, rig: Rig, rounds: int, big: int) -> None:
        self.rig, self.rounds, self.big = rig, rounds, big
        self.rows: list[dict[str, Any]] = []

    def row(self, workload: str, value: float, unit: str, reach: str, ok: bool, **more: Any) -> None:
        self.rows.append(
            {"workload": workload, "value": round(value, 3), "unit": unit, "reach": reach, "ok": ok, **more}
        )
        extra = "  ".join(f"{k} {v}" for k, v in more.items())
        print(f"{workload:<58} {value:>10.3f} {unit:<9} reach {reach:<18} {'yes' if ok else 'NO'}  {extra}", flush=True)

    def against_limit(
        self,
        name: str,
        count: int,
        size: int,
        floor: float,
        files_per_s: float | None = None,
        plane: str | None = None,
    ) -> None:
        """Rounds of product and limit in turn; the median of the rounds' ratios is what counts."""
        product, bare, total = [], [], count * size
        for _ in range(self.rounds):
            block = self.rig.make(f"n{count}", count, size)
            with self.rig.weighed():
                took, manifests = self.rig.send(block, plane)
            self.rig.free(block)
            product.append(took)
            lines = self._lines(manifests, count, size)
            bare.append(self.rig.without_workers(lambda lines=lines: limit.seconds(self.rig.settings(A), A, B, lines)))
        ratio = statistics.median(b / p for p, b in zip(product, bare, strict=True))
        mb = {"MB/s": round(total / statistics.median(product) / MB, 1)}
        mb["limit MB/s"] = round(total / statistics.median(bare) / MB, 1)
        mb["rounds s"] = [round(x, 2) for x in product]
        mb["limit rounds s"] = [round(x, 2) for x in bare]
        self.row(f"{name}: of the limit", ratio, "ratio", f">= {floor}", ratio >= floor, **mb)
        if files_per_s is not None:
            rate = count / statistics.median(product)
            self.row(f"{name}: files", rate, "files/s", f">= {files_per_s:.0f}", rate >= files_per_s)

    def link_rate(self, count: int, size: int, rate: int) -> None:
        """So many intents of a file each, all at once, over a link that is bounded at its destination."""
        own = self.rig.state / B / "site.toml"
        text = own.read_text()
        shares, lapsed = [], 0
        try:
            own.write_text(f"{text}\n[links.{A}]\nrate = {rate}\n")
            self.rig.without_workers(lambda: 0.0)
            for _ in range(self.rounds):
                blocks = [self.rig.make("rate", 1, size) for _ in range(count)]
                began_s = time.monotonic()
                handles = [self.rig.publish(block, DOOR) for block in blocks]
                assert all(handle.wait(timeout_s=WAIT_S).done for handle in handles)
                shares.append(count * size / (time.monotonic() - began_s) / rate)
                intents = {handle.id for handle in handles}
                for record in replay(self.rig.settings(B), B, [TRANSFERS]):
                    said = decode(record.topic, record.key, record.value, record.headers, B).message
                    lapsed += isinstance(said, LeaseExpired) and said.manifest.intent in intents
                for block in blocks:
                    self.rig.free(block)
        finally:
            own.write_text(text)
            self.rig.without_workers(lambda: 0.0)
        share = statistics.median(shares)
        name = f"{count} files of {size / MB:.0f} MB over a link of {rate / MB:.0f} MB/s"
        self.row(f"{name}: of the rate", share, "ratio", "0.95-1.0", 0.95 <= share <= 1.0, rounds=shares)
        self.row(f"{name}: leases that ended", lapsed, "leases", "0", not lapsed)

    def _lines(self, manifests: list[str], count: int, size: int) -> list[tuple[str, int]]:
        """(key, bytes) of each manifest the product made of these files: 1,000 items or 1 GB each."""
        per = max(1, min(1000, int(1_000_000_000 // size)))
        sizes = [min(per, count - at) * size for at in range(0, count, per)]
        return list(zip(manifests, sizes, strict=False))

    def latency(self, tries: int) -> None:
        times = [self.rig.send(self.rig.make("one", 1, 1_000_000))[0] for _ in range(tries)]
        times.sort()
        p50, p95 = statistics.median(times), times[max(0, int(len(times) * 0.95) - 1)]
        self.row("one 1 MB file on idle sites: p50", p50, "s", "<= 0.5", p50 <= 0.5, tries=tries)
        self.row("one 1 MB file on idle sites: p95", p95, "s", "<= 1", p95 <= 1.0)

    def many_intents(self, count: int) -> None:
        rates = []
        for _ in range(self.rounds):
            blocks = [self.rig.make("many", 1, 65536) for _ in range(count)]
            start = time.monotonic()
            with ThreadPoolExecutor(20) as producers:  # each publish waits for the broker's word
                handles = list(producers.map(self.rig.publish, blocks))
            for handle in handles:
                assert handle.wait(timeout_s=120).done
            rates.append(count / (time.monotonic() - start))
        rate = statistics.median(rates)
        self.row(f"{count:,} intents of one file at once", rate, "intents/s", ">= 50", rate >= 50)

    def events(self) -> None:
        block = self.rig.make("mixed", 2000, 65536)
        big = self.rig.make("mixedbig", 1, self.big)
        before = self.rig.events()
        assert self.rig.client is not None
        handle = self.rig.client.publish([block, big], to=[B])
        assert handle.wait(timeout_s=300).done
        time.sleep(2.5)
        heard = self.rig.events() - before
        self.row("Faust events: 2,000 files and one of 1 GB, both sites", heard, "events", "<= 150", heard <= 150)

    def restart(self) -> None:
        """kill -9 of the destination's worker mid-file, to its first progress after that.

        One that was killed shortly before is started again later each time: so it lives for a while first.
        """
        times = []
        for _ in range(self.rounds):
            block = self.rig.make("killed", 1, self.big)
            handle = self.rig.publish(block)
            _, plane = self._progress_after(time.time_ns() // 1_000_000)
            worker = next(p for p in local.status(self.rig.state) if p.name == f"{B}-worker-0")
            killed_ms = time.time_ns() // 1_000_000
            os.kill(worker.pid, signal.SIGKILL)
            times.append((self._progress_after(killed_ms, plane)[0] - killed_ms) / 1000)
            assert handle.wait(timeout_s=120).done
            self.rig.free(block)
            time.sleep(QUICK_S)
        median = statistics.median(times)
        self.row(
            "killed worker to first new progress",
            median,
            "s",
            "<= 15",
            median <= 15,
            rounds=[round(t, 1) for t in times],
        )

    def _progress_after(self, at_ms: int, besides: str = "") -> tuple[int, str]:
        """When (ms), and by whom, the first TransferProgress with verified bytes was written at B after `at_ms`.

        `besides`: a plane says its last word after its worker was killed; it does not count.
        """
        settings, stop = self.rig.settings(B), [False]
        for record in tail(settings, B, [CHUNK_EVENTS], stop=lambda: stop[0], start=at_ms):
            heard = decode(record.topic, record.key, record.value, record.headers, B)
            said, origin = heard.message, heard.origin
            if (
                isinstance(said, TransferProgress)
                and said.verified
                and origin.at_ms > at_ms
                and origin.writer != besides
            ):
                stop[0] = True
                return origin.at_ms, origin.writer
        raise TimeoutError("no progress")

    def memory(self) -> None:
        worker, whole = self.rig.weight.worker / MB, self.rig.weight.federation / MB
        self.row("resident: a worker with its planes, at most", worker, "MB", "<= 300", worker <= 300)
        self.row("resident: the two-site federation, at most", whole, "MB", "<= 2000", whole <= 2000)


def main() -> None:
    ask = argparse.ArgumentParser(prog="make bench", description=__doc__)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--quick", action="store_true")
    ask.add_argument("--only", default="")
    said = ask.parse_args()
    big = 100_000_000 if said.quick else 1_000_000_000
    rounds = 1 if said.quick else said.rounds
    with tempfile.TemporaryDirectory(prefix="t2g-bench-") as folder:
        rig = Rig(Path(folder) / "state", load_settings(need_federation=False).cache)
        bench = Bench(rig, rounds, big)
        entries = cache(lambda: Entries(rig, rounds, EVENTS // 10 if said.quick else EVENTS, bench.row))
        sites_parts = {
            "latency": lambda: bench.latency(20),
            "intents": lambda: bench.many_intents(100),
            "events": bench.events,
            "small": lambda: bench.against_limit("2,000 files of 64 KiB in one intent", 2000, 65536, 0.6, 1000),
            "big": lambda: bench.against_limit("a 1 GB file, in the log", 1, big, 0.8, plane=LOG),
            "four": lambda: bench.against_limit("four files of 1 GB at once, in the log", 4, big, 0.8, plane=LOG),
            "rate": lambda: bench.link_rate(20, big // 10, 100_000_000),
            "door": lambda: bench.against_limit("a 1 GB file, by door", 1, big, 1.0, plane=DOOR),
            "restart": bench.restart,
            "memory": bench.memory,
            "entries": lambda: entries().landing(),
            "first-batch": lambda: entries().first_batch(11),
            "columns": lambda: entries().columns(),
            "thousand": lambda: bench.many_intents(1000),
            "tiny": lambda: tiny(rig, bench.row, 20_000 if said.quick else FILES),
            "present": lambda: Present(rig, bench.row, 1_000 if said.quick else 10_000, big, rounds).run(),
            "moved": lambda: moved(rig, bench.row, 5 if said.quick else 20),
            "removal": lambda: Removing(rig, bench.row, REMOVED // 10 if said.quick else REMOVED, rounds).run(),
            "start": lambda: Start(rig, bench.row, 0.05 if said.quick else 1.0).run(),
        }
        mesh, relays = (Rig(Path(folder) / name, rig.cache) for name in ("mesh", "relays"))
        other_parts = {
            "csv": lambda: csv_reading(Path(folder) / "x.csv", ROWS // 10 if said.quick else ROWS, rounds, bench.row),
            "audit": lambda: audit_reading(
                *(n // 10 if said.quick else n for n in (INTENTS, MANIFESTS)), rounds, bench.row
            ),
            "consistency": lambda: consistency(ON_DISK // 10 if said.quick else ON_DISK, rounds, bench.row),
            "mesh": lambda: Mesh(mesh, bench.row, rounds, big // 5, 10.0 if said.quick else 60.0).run(),
            "relays": lambda: Relays(relays, bench.row, rounds, big).run(),
            "peers": lambda: ProductPeers(rig.cache, Path(folder), bench.row, rounds, 2 * big).run(),
        }
        wanted = [part for name, part in sites_parts.items() if said.only in ("", name)]
        if wanted:
            try:
                rig.up()
                for part in wanted:
                    part()
            finally:
                rig.down()
        for name, part in other_parts.items():
            if said.only in ("", name):
                part()
    keep(bench.rows, rounds, said.quick or bool(said.only))


def keep(rows: list[dict[str, Any]], rounds: int, partial: bool) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False).stdout
    name = f"{time.strftime('%Y-%m-%d', time.gmtime())}-{commit or 'unknown'}{'-dirty' if dirty else ''}"
    found = {
        "commit": commit,
        "dirty": bool(dirty),
        "rounds": rounds,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    if partial:
        print("a partial run is not kept")
        return
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**found, "rows": rows}, indent=1) + "\n")
    print(f"kept as {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
