"""`python -m tests.bench.broker_idle`: what an idle broker pays for who waits at it, for topics, and for transactions.

One broker of the local federation's settings, in cores over SECONDS each: alone; with fetchers that wait so long for
news of so many partitions; with topics more; with ten records a second, and each in a transaction of its own.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.federation import local
from streams.settings import load_settings
from tests.bench.rig import A, B

SECONDS, SETTLE_S = 20.0, 8.0
PARTITIONS = 8
MORE_TOPICS = 100
MADE_S = 60.0
"""After topics were made a broker has work with them for a while."""
A_SECOND = 10


def cpu_s(pid: int) -> float:
    spent = psutil.Process(pid).cpu_times()
    return spent.user + spent.system


class Idle:
    def __init__(self, bootstrap: str, pid: int) -> None:
        self.bootstrap, self.pid = bootstrap, pid
        self.alone = 0.0

    def row(self, what: str, each: float = 1.0, act: Callable[[], object] = lambda: None) -> float:
        """Cores that the broker uses, and how many more than alone, for each of `each`. `act`: once a tenth second."""
        self._during(SETTLE_S, act)
        before, began_s, own = cpu_s(self.pid), time.monotonic(), time.process_time()
        self._during(SECONDS, act)
        took_s = time.monotonic() - began_s
        used, ours = (cpu_s(self.pid) - before) / took_s, (time.process_time() - own) / took_s
        more = (used - self.alone) / each
        print(
            f"{what:<66} {used:.4f} cores, {1000 * more:8.3f} more each (thousandths); this process {ours:.4f}",
            flush=True,
        )
        return used

    def _during(self, seconds: float, act: Callable[[], object]) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            act()
            time.sleep(1 / A_SECOND)

    @contextmanager
    def fetchers(self, count: int, wait_ms: int, places: list[TopicPartition]) -> Iterator[None]:
        config = {"bootstrap.servers": self.bootstrap, "group.id": "t2g-bench-idle", "fetch.wait.max.ms": wait_ms}
        with ExitStack() as stack:
            for _ in range(count):
                consumer = Consumer({**config, "enable.auto.commit": False, "auto.offset.reset": "latest"})
                stack.callback(consumer.close)
                consumer.assign(places)
                consumer.poll(0.5)
            yield

    def run(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        known = admin.list_topics(timeout=10).topics
        places = [
            TopicPartition(name, p) for name, topic in known.items() for p in topic.partitions if "_" not in name[:2]
        ]
        print(f"{len(known)} topics, {len(places)} partitions")
        self._measure_alone()
        for count, wait_ms, size in ((1, 100, 16), (1, 100, 160), (4, 500, 160), (16, 5000, 160), (16, 500, 1)):
            with self.fetchers(count, wait_ms, places[:size]):
                fetches = count * 1000 / wait_ms
                self.row(f"{count} fetchers of {size} partitions that wait {wait_ms} ms: a fetch a second", fetches)
        self._measure_alone()
        self._records()
        self._measure_alone()
        names = [f"idle-{number}" for number in range(MORE_TOPICS)]
        for made in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
            made.result(60)
        time.sleep(MADE_S)
        self.row(f"{MORE_TOPICS} topics of {PARTITIONS} partitions more: a topic", MORE_TOPICS)

    def _measure_alone(self) -> None:
        """Before each kind of rows: what Java has compiled meanwhile is cheaper than before."""
        self.alone = 0.0
        self.alone = self.row("a broker alone")

    def _records(self) -> None:
        plain = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True, "linger.ms": 0})

        def send() -> None:
            plain.produce("manifests", b"x", b"k")
            plain.flush(10)

        self.row("ten records a second: a record", A_SECOND, send)
        bound = Producer({"bootstrap.servers": self.bootstrap, "transactional.id": "t2g-bench-idle", "linger.ms": 0})
        bound.init_transactions(10)

        def commit() -> None:
            bound.begin_transaction()
            bound.produce("manifests", b"x", b"k")
            bound.commit_transaction(10)

        self.row("ten transactions of one record a second: a transaction", A_SECOND, commit)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="t2g-bench-") as folder:
        state = Path(folder) / "state"
        try:
            local.up(state, load_settings(need_federation=False).cache, (A, B), workers=0)
            parts = {part.name: part for part in local.status(state)}
            os.kill(parts["mirror"].pid, signal.SIGSTOP)
            time.sleep(15)  # its fetches have been answered
            settings = load_settings(state=str(state), site=A)
            Idle(settings.entry(A).bootstrap, parts[f"{A}-broker"].pid).run()
        finally:
            local.down(state, purge=True)


if __name__ == "__main__":
    main()
