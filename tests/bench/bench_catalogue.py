"""How long a million files take to be registered and seen, and to be looked up: prints one JSON object.

    python tests/bench/bench_catalogue.py [--files N] [--bootstrap HOST:PORT]

Metadata only: `ReplicaWriter` in this process, the view in another as in a worker, over a real broker: one of its own,
unless --bootstrap names one that has no topics yet. A benchmark, never a test.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import platformdirs
import psutil
from confluent_kafka.admin import AdminClient, NewTopic

from streams.core import topics
from streams.core.names import Adler32, Block, Dataset, Lfn, Site
from streams.core.records import DeadLetter, HeldFile
from streams.core.selectors import parse
from streams.federation import artifacts, plan
from streams.federation.broker import HEAP, Broker, format_if_new, is_ready
from streams.federation.java import Jvm, find_java
from streams.kafka.publish import Publisher
from streams.registration.replica_writer import ReplicaWriter
from streams.settings import Registry, Settings, SiteEntry
from streams.views.catalogue import Catalogue
from streams.views.view import View

SITE = Site("T1_A")
DATASET = Dataset("/Bench/Run2024A-v1/NANOAOD")
FILES_PER_BLOCK = 1000
PARTITIONS = 8


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--files", type=int, default=1_000_000)
    options.add_argument("--bootstrap", default="")
    options.add_argument("--view", default="", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.view:
        return run_view(settings_for(given.bootstrap, Path(given.view)), given.files)
    with tempfile.TemporaryDirectory(prefix="t2g-bench-") as scratch:
        with broker(given.bootstrap, Path(scratch)) as bootstrap:
            create_topics(bootstrap)
            settings = settings_for(bootstrap, Path(scratch))
            figures = measure(settings, given.files, Path(scratch))
        print(json.dumps(figures, indent=2))
    return None


def settings_for(bootstrap: str, state: Path) -> Settings:
    registry = Registry(partitions=PARTITIONS, sites=(SiteEntry(SITE, bootstrap),))
    return Settings(registry, SITE, state, state / "cache", state / "sites.toml", state / "worker-0")


def listing(files: int) -> Iterator[tuple[str, str, int, str]]:
    for number in range(files):
        block = number // FILES_PER_BLOCK
        yield (
            f"/store/data/Run2024A/Bench/NANOAOD/v1/{block:06}/{number * 2654435761 % 2**32:08X}-{number:08}.root",
            f"{DATASET}#{block:08x}",
            1_000_000 + number,
            f"{number:08x}",
        )


def measure(settings: Settings, files: int, scratch: Path) -> dict[str, object]:
    bootstrap = settings.entry(SITE).bootstrap
    command = [sys.executable, __file__, "--view", str(scratch), "--bootstrap", bootstrap, "--files", str(files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            begun = time.monotonic()
            with Publisher(settings, SITE, "bench", "cli") as publisher:
                writer, blocks = ReplicaWriter(publisher, SITE), cache(Block)
                for lfn, block, size, adler32 in listing(files):
                    writer.add(HeldFile(Lfn(lfn), blocks(block), size, Adler32(adler32), ""))
                writer.finish()
            registered_s = time.monotonic() - begun
            assert writer.acknowledged == files
            seen = json.loads(child.stdout.readline())
            visible_s = time.monotonic() - begun
            figures = json.loads(child.stdout.readline())
        finally:
            child.terminate()
    return {
        "files": files,
        "registered_s": round(registered_s, 2),
        "visible_s": round(visible_s, 2),
        "files_per_s": round(files / visible_s),
        "registering_process": process_figures(),
        **seen,
        **figures,
    }


def process_figures() -> dict[str, object]:
    process = psutil.Process()
    times = process.cpu_times()
    return {"rss_mb": process.memory_info().rss >> 20, "cpu_s": round(times.user + times.system, 1)}


def run_view(settings: Settings, files: int) -> None:
    """The other process: says when it is ready, when all files are visible, and how fast they are looked up."""

    def refused(letter: DeadLetter) -> None:
        raise AssertionError(letter.reason)

    view = View(settings, settings.datadir, refused)
    view.start()
    assert view.catch_up(30), view.progress
    print("ready", flush=True)
    while next((d.known.files for d in view.catalogue.datasets()), 0) < files:
        assert view.alive, view.progress
        time.sleep(0.05)
    print(json.dumps({"view_process": process_figures()}), flush=True)
    figures: dict[str, object] = {"disk_mb": sum(f.stat().st_size for f in view.path.rglob("*")) >> 20}
    figures["primary"] = look_up(view.catalogue, files)
    secondary = Catalogue.open_secondary(str(view.path), str(settings.state / "secondary"))
    begun = time.monotonic()
    secondary.refresh()
    figures["secondary_refresh_ms"] = round((time.monotonic() - begun) * 1000, 2)
    figures["secondary"] = look_up(secondary, files)
    figures["view_process_after"] = process_figures()
    secondary.close()
    view.stop()
    print(json.dumps(figures), flush=True)


def look_up(catalogue: Catalogue, files: int) -> dict[str, object]:
    chosen = random.Random(7)
    names = [lfn for lfn, *_ in listing(files)]
    some = [Lfn(chosen.choice(names)) for _ in range(2000)]
    took = sorted(timed(lambda lfn=lfn: catalogue.where(lfn)) for lfn in some)
    selectors = [parse(DATASET)]
    middle = f"0 {DATASET}#{files // 2 // FILES_PER_BLOCK:08x} {names[files // 2]}"
    return {
        "where_p50_ms": round(statistics.median(took) * 1000, 3),
        "where_p99_ms": round(took[int(len(took) * 0.99)] * 1000, 3),
        "holders_of_the_dataset_ms": round(timed(lambda: catalogue.holders(selectors)) * 1000, 3),
        "blocks_of_the_dataset_ms": round(timed(lambda: list(catalogue.blocks(DATASET))) * 1000, 1),
        "page_of_1000_in_the_middle_ms": round(timed(lambda: catalogue.listing(selectors, middle, 1000)) * 1000, 1),
        "whole_listing_s": round(timed(lambda: walk(catalogue, files)), 1),
    }


def walk(catalogue: Catalogue, files: int) -> None:
    cursor: str | None = ""
    seen = 0
    while cursor is not None:
        page, cursor = catalogue.listing([parse(DATASET)], cursor, 1000)
        seen += len(page)
    assert seen == files


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@contextmanager
def broker(bootstrap: str, scratch: Path) -> Iterator[str]:
    """The given cluster, or a node of our own."""
    if bootstrap:
        yield bootstrap
        return
    cache = Path(os.environ.get("T2G_CACHE", platformdirs.user_cache_path("transfer2go")))
    jars = artifacts.ensure(artifacts.read_list(), cache, lambda step: print(step, file=sys.stderr))
    jvm = Jvm(find_java(), tuple(jars), artifacts.list_path().with_name("log4j2.properties"))
    (planned,) = plan.planned([SITE], None, workers=1, credit_bytes=1, home=str(scratch)).sites
    node = Broker(SITE, scratch / "kafka", planned.port, planned.port + 1)
    format_if_new(node, jvm)
    command = jvm.command("kafka.Kafka", str(node.properties_path), flags=HEAP)
    with (scratch / "kafka.log").open("wb") as log:
        process = subprocess.Popen(command, env=jvm.environment(), stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while not is_ready(node.bootstrap):
            if time.monotonic() > until or process.poll() is not None:
                sys.exit(f"the broker did not start:\n{(scratch / 'kafka.log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield node.bootstrap
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(node.directory, ignore_errors=True)


def create_topics(bootstrap: str) -> None:
    names = [t.name for t in topics.wanted(SITE, [])]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        future.result(30)


if __name__ == "__main__":
    main()
