"""A running federation as the tests use it: register, publish, wait, listen, kill, audit. No test and no fixture here.

Everything goes through what users have (producer API, registration, audit, a worker's pages) or an operator
(signals, the supervisor's record); only `produce` writes records that no gate has seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self
from unittest import mock

import psutil
from click.testing import Result
from confluent_kafka import Producer

from streams import wire
from streams.auditing.disks import Disks
from streams.auditing.replaying import AuditReport, audit
from streams.auditing.tables import TablesReport, audit_tables
from streams.client.producer import IntentHandle, Outcome, TransferClient
from streams.core import records as m
from streams.core.names import Block, Dataset, IntentId, Site
from streams.core.topics import partition_of
from streams.errors import Temporary, WireError
from streams.federation import local, plan
from streams.kafka.publish import Publisher
from streams.kafka.reader import LogReader, Record, record_of
from streams.kafka.replay import end_offsets, replay
from streams.registration.registering import register
from streams.settings import Settings, load_settings
from streams.storage.endpoint import FileStat, ReadableStorage

A, B, C = Site("T1_A"), Site("T2_B"), Site("T2_C")
PATIENCE_S = 90.0
"""For what takes a second on a quiet machine: bounded, and far from any limit that a test is about."""
AUDIT_S = 45.0

Files = Mapping[str, bytes]
Run = Callable[..., Result]
"""The command line, run in this process with its words."""


def until(done: Callable[[], object], what: str, timeout_s: float = PATIENCE_S, every_s: float = 0.05) -> Any:
    """The first true answer; fails the test with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (answer := done()):
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(every_s)
    return answer


def noise(size: int, seed: object) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    piece = random.Random(str(seed)).randbytes(min(size, 64 << 20))  # it takes 4 s for a GB, and cannot at once
    pieces = [piece, *(at.to_bytes(8, "big") + piece[8:] for at in range(len(piece), size, len(piece) or 1))]
    return b"".join(pieces)[:size]


def adler(content: bytes) -> str:
    return f"{zlib.adler32(content):08x}"


@dataclass(frozen=True)
class Spot:
    """Names nobody else uses: a dataset and a directory of one test."""

    name: str

    @property
    def dataset(self) -> Dataset:
        return Dataset(f"/Sites/{self.name}/RAW")

    def block(self, name: str = "one") -> Block:
        return Block(f"{self.dataset}#{name}")

    def lfn(self, tail: str) -> str:
        return f"/store/sites/{self.name}/{tail}"


@dataclass
class Ear:
    """Hears everything that is written to some topics of a site from the moment it was made. A context manager."""

    settings: Settings
    site: Site
    topics: Sequence[str]
    heard: list[tuple[float, Record, wire.Heard | None]] = field(default_factory=list)
    """(monotonic seconds, record, what the gate made of it)"""

    def __enter__(self) -> Self:
        self._reader = LogReader(self.settings, self.site, away_s=1e9)
        self._reader.assign(self._reader.end_offsets(self._reader.partitions_of(self.topics)))
        self._news, self._stop = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(Temporary):
                for message in self._reader.batch(0.05):
                    record = record_of(message)
                    with self._news:
                        self.heard.append((time.monotonic(), record, _decoded(record, self.site)))
                        self._news.notify_all()

    def messages(self, kind: type | None = None) -> list[Any]:
        with self._news:
            found = [heard.message for _, _, heard in self.heard if heard is not None]
        return [message for message in found if kind is None or isinstance(message, kind)]

    def until(
        self, wanted: Callable[[m.Message], bool], what: str, timeout_s: float = PATIENCE_S, after_s: float = 0.0
    ) -> tuple[float, Any]:
        """(when, message) of the first that is wanted and was heard after `after_s` (monotonic)."""
        deadline, seen = time.monotonic() + timeout_s, 0
        with self._news:
            while True:
                for at, _, heard in self.heard[seen:]:
                    if heard is not None and at > after_s and wanted(heard.message):
                        return at, heard.message
                seen = len(self.heard)
                left = deadline - time.monotonic()
                assert left > 0, f"not heard at {self.site} within {timeout_s:.0f} s: {what}"
                self._news.wait(left)


def _decoded(record: Record, site: Site) -> wire.Heard | None:
    try:
        return wire.decode(record.topic, record.key, record.value, record.headers, site)
    except WireError:
        return None


@dataclass
class NamesWatch:
    """Looks at final names all the time: what stands under one must be the whole file, at every instant (I3)."""

    expected: Mapping[Path, bytes]
    looks: int = 0
    wrong: list[str] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            for path, content in self.expected.items():
                self.looks += 1
                if path in self.seen or not path.exists():
                    continue
                self.seen.add(path)
                if (found := path.read_bytes()) != content:
                    self.wrong.append(f"{path} appeared with {len(found):,} bytes that are not the file's")


class LookedAt:
    """What the audits of one federation have decoded and read back, so that the next one need not.

    Each audit reads all journals and all files of the tests before. What the gate makes of a record is a function of
    its arguments, and a file of the same version has the same contents.
    """

    def __init__(self) -> None:
        self._decode = lru_cache(maxsize=50_000)(wire.decode)
        self._decode_value = lru_cache(maxsize=50_000)(wire.decode_value)
        self._checksums: dict[tuple[Site, str, str], str] = {}

    @contextlib.contextmanager
    def known(self) -> Iterator[None]:
        checksum, checksums = Disks._checksum, self._checksums

        def once(disks: Disks, endpoint: ReadableStorage, site: Site, lfn: str, stat: FileStat) -> str:
            name = site, lfn, stat.version
            if name not in checksums:
                checksums[name] = checksum(disks, endpoint, site, lfn, stat)
            return checksums[name]

        def decode(topic: str, key: Any, value: Any, headers: Any, here: Site) -> wire.Heard:
            return self._decode(topic, key, value, headers and tuple(headers), here)

        with (
            mock.patch.object(wire, "decode", decode),
            mock.patch.object(wire, "decode_value", self._decode_value),
            mock.patch.object(Disks, "_checksum", once),
        ):
            yield


class Rig:
    """One federation. `settings(site)` as a user of that site would load them, whatever the environment holds."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._clients: dict[Site, TransferClient] = {}
        self._publishers: dict[Site, Publisher] = {}
        self._raw: dict[Site, Producer] = {}
        self._looked_at = LookedAt()

    def close(self) -> None:
        for one in (*self._clients.values(), *self._publishers.values()):
            one.close()
        self._clients.clear()
        self._publishers.clear()
        self._raw.clear()

    def settings(self, site: Site | None = None) -> Settings:
        return load_settings(environ={}, files=[], state=str(self.state), site=site)

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(site.name for site in self.record.sites)

    # files

    def storage(self, site: Site) -> Path:
        return self.state / site / "storage"

    def path(self, site: Site, lfn: str) -> Path:
        return self.storage(site) / lfn.lstrip("/")

    def write(self, files: Files, at: Site = A) -> list[Path]:
        """Puts files where the site's storage keeps those LFNs, registering nothing."""
        paths = []
        for lfn, content in files.items():
            path = self.path(at, lfn)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            paths.append(path)
        return paths

    def register(self, files: Files, block: Block, at: Site = A) -> None:
        """Writes the files at a site and registers them, in place."""
        done = register(self.settings(at), self.publisher(at), self.write(files, at), block)
        assert not done.faults, done.faults
        assert done.files == len(files)

    def assert_arrived(self, files: Files, at: Site = B) -> None:
        for lfn, content in files.items():
            path = self.path(at, lfn)
            assert path.exists(), f"{lfn} is not at {at}"
            assert path.read_bytes() == content, f"{lfn} at {at} differs"
        self.assert_no_parts(files, at)

    def assert_no_parts(self, files: Files, at: Site = B) -> None:
        for directory in {self.path(at, lfn).parent for lfn in files}:
            left = [p.name for p in directory.glob(".t2g-*")] if directory.exists() else []
            assert not left, f"part files stay behind at {at}: {left}"

    # intents

    def publisher(self, site: Site) -> Publisher:
        if site not in self._publishers:
            self._publishers[site] = Publisher(self.settings(site), site, "tests", "producer")
        return self._publishers[site]

    def client(self, site: Site = A) -> TransferClient:
        if site not in self._clients:
            self._clients[site] = TransferClient(self.settings(site), requester="tests")
        return self._clients[site]

    def publish(
        self, selectors: Sequence[str], to: Sequence[Site] = (B,), *, home: Site = A, **more: Any
    ) -> IntentHandle:
        return self.client(home).publish(selectors, to, **more)

    def wait(self, handle: IntentHandle, timeout_s: float = PATIENCE_S) -> Outcome:
        outcome = handle.wait(timeout_s)
        assert outcome.last.ended, f"{handle.id} is open after {timeout_s:.0f} s: {outcome.last.destinations}"
        return outcome

    def wait_done(self, handle: IntentHandle, timeout_s: float = PATIENCE_S) -> Outcome:
        outcome = self.wait(handle, timeout_s)
        assert outcome.done, f"{outcome.state} {outcome.reason} {outcome.last.unfinished[:5]}"
        return outcome

    # processes

    @property
    def record(self) -> plan.FederationRecord:
        record = plan.read_record(self.state)
        assert record is not None
        return record

    def part(self, name: str) -> plan.FederationPart:
        part = next((p for p in self.record.parts if p.name == name), None)
        assert part is not None, f"no part {name}"
        return part

    def plane_pid(self, worker: str) -> int:
        """The plane that lives in a child process of a worker."""

        def found() -> int:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(self.part(worker).pid).children():
                    if "streams.planes.host.child" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                        return child.pid
            return 0

        pid: int = until(found, f"{worker} has a plane")
        return pid

    def kill(self, name: str) -> plan.FederationPart:
        """kill -9; the part as it was. What the supervisor does then is waited for with `until_back`."""
        part = self.part(name)
        assert part.alive, f"{name} does not run: {part}"
        os.kill(part.pid, signal.SIGKILL)
        return part

    def until_back(self, before: plan.FederationPart, timeout_s: float = PATIENCE_S) -> plan.FederationPart:
        """Waits until another process of this part runs and is ready."""

        def back() -> plan.FederationPart | None:
            now = self.part(before.name)
            return now if now.pid != before.pid and now.alive and now.state == "ready" else None

        part: plan.FederationPart = until(back, f"{before.name} runs again", timeout_s)
        return part

    def start_again(self, site: Site) -> None:
        """Ends the site's only worker in order and starts one anew, which reads its settings. One that is killed for
        that, time after time, is started ever later.
        """
        for workers in (0, 1):
            local.set_workers(self.state, site, workers)

    def restarts(self) -> dict[str, int]:
        return {part.name: part.restarts for part in self.record.parts}

    def ask(self, site: Site, page: str, worker: int = 0) -> Any:
        """A worker's page, as JSON."""
        port = next(s for s in self.record.sites if s.name == site).worker_port(worker)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=5) as answer:
            return json.load(answer)

    # logs

    def ear(self, site: Site, *topics: str) -> Ear:
        return Ear(self.settings(site), site, topics)

    def ends(self, site: Site, *topics: str) -> dict[tuple[str, int], int]:
        """The records' end; a mirror's transaction markers count, so compare only where none is open."""
        return end_offsets(self.settings(site), site, topics)

    def records(self, site: Site, *topics: str, key: str | None = None) -> Iterator[Record]:
        """What stands in topics now, of one key if given."""
        partitions = None if key is None else [partition_of(key, self.settings().registry.partitions)]
        for record in replay(self.settings(site), site, topics, partitions=partitions):
            if key is None or record.key == key.encode():
                yield record

    def facts(self, site: Site, *topics: str, key: str | None = None) -> list[Any]:
        """The messages among `records` that the gate takes."""
        found = [_decoded(record, site) for record in self.records(site, *topics, key=key)]
        return [heard.message for heard in found if heard is not None]

    def produce(
        self,
        site: Site,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        partition: int | None = None,
    ) -> tuple[int, int]:
        """Writes a record past every gate; (partition, offset) once the broker has it."""
        if site not in self._raw:
            bootstrap = self.settings().entry(site).bootstrap
            self._raw[site] = Producer(
                {"bootstrap.servers": bootstrap, "acks": "all", "message.max.bytes": 4 << 20, "linger.ms": 0}
            )
        answer: list[tuple[int, int]] = []
        if partition is None:
            partition = partition_of((key or b"").decode("latin-1"), self.settings().registry.partitions)

        def delivered(error: object, message: Any) -> None:
            assert error is None, error
            answer.append((message.partition(), message.offset()))

        self._raw[site].produce(
            topic, value=value, key=key, headers=list(headers), partition=partition, on_delivery=delivered
        )
        self._raw[site].flush(30)
        assert answer, f"{topic} of {site} did not take the record"
        return answer[0]

    def _last_of_mirror(self) -> str:
        """What its log ended with."""
        return "\n".join((self.state / "logs" / "mirror.log").read_text(errors="replace").splitlines()[-20:])

    def audit(self, timeout_s: float = AUDIT_S) -> AuditReport:
        """The audit of all sites with their disks, which must be clean; asked again while something only waits."""
        began, looks = time.monotonic(), []
        while True:
            with self._looked_at.known():
                report = audit(self.settings(), storage=True)
            waits = [r for r in report.judgement.waiting if "written while the audit was reading" not in r.words]
            after_s = time.monotonic() - began
            looks.append(f"{after_s:.1f} s, of them {report.seconds:.1f} s of reading: {waits}")
            if report.judgement.broken or not waits or after_s > timeout_s:
                break
            time.sleep(0.5)
        assert not report.judgement.broken, "\n".join(
            f"{f.invariant} {f.words} {[str(r) for r in f.records]}" for f in report.judgement.broken[:10]
        )
        assert report.exit_code == 0
        assert not waits, "\n".join([*looks, *map(str, self.record.parts), self._last_of_mirror()])
        return report

    def audit_tables(self) -> TablesReport:
        """What workers keep against their journals, where nothing is under way: every row must be the same."""

        def at_rest() -> TablesReport | None:
            report = audit_tables(self.settings())
            moves = report.unseen or any(tally.moving for tally in report.tallies)
            return None if moves and not report.comparison.different else report

        report: TablesReport = until(at_rest, "workers have committed all that there is", every_s=1.0)
        assert report.differences == [], "\n".join(map(str, report.differences))
        assert report.unreachable == {}
        return report


def completions(facts: Sequence[Any], intent: IntentId) -> list[m.CompletionRecord]:
    return [fact for fact in facts if isinstance(fact, m.CompletionRecord) and fact.intent == intent]
