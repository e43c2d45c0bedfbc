"""The process that owns a local federation: `python -m streams.federation.supervisor STATE CACHE`.

Brokers first, then topics, then the mirror, then workers; each is watched and started again when it ends. SIGTERM
stops all in the opposite order, SIGHUP reads the plan again (a site was added). Whatever kills the supervisor kills
the parts: they carry a parent-death signal. It prints to STATE/supervisor.log; what others see is federation.json.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from streams.core.topics import mirrored
from streams.errors import Temporary, Transfer2goError
from streams.federation import artifacts, broker, class_archive, java, mirror, plan
from streams.federation.jvm import Jvm
from streams.settings import load_settings

PARTS_READY_S = 90.0
STOP_S = 15.0
START_ME_AGAIN = 75
QUICK_S = 30.0
"""A part that ended sooner than this after its start is started again ever more slowly."""
BACKOFF_MAX_S = 30.0
LOG_BYTES_MAX = 20_000_000
LOG_BYTES_KEPT = 1_000_000
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Running:
    """A part with its process. `probe` says whether it is truly ready."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    probe: Callable[[], bool]
    popen: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    state: str = "stopped"
    restarts: int = 0
    not_before: float = 0.0
    why: str = ""
    quick_ends: int = field(default=0)

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # Appending, so that the log can be cut while the part goes on writing.
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.started, self.state = time.monotonic(), "starting"

    def ended(self, code: int) -> None:
        """Notes the end and when to start again: at once if asked for or after a long life, else ever later."""
        lived_s = time.monotonic() - self.started
        self.quick_ends = self.quick_ends + 1 if lived_s < QUICK_S else 0
        wait_s = 0.0 if self.quick_ends <= 1 else min(BACKOFF_MAX_S, 2.0 ** (self.quick_ends - 2))
        self.not_before = time.monotonic() + wait_s
        self.restarts += 1
        self.popen = None
        self.state = "ended" if self.quick_ends < 4 else "failing"
        wants = "asked to be started again" if code == START_ME_AGAIN else f"ended with {_code(code)}"
        self.why = f"{wants} after {lived_s:.0f} s; last line: {last_line(self.log)}"

    def part(self) -> plan.Part:
        pid, created = 0, 0.0
        if self.popen is not None:
            pid = self.popen.pid
            with contextlib.suppress(psutil.Error):
                created = psutil.Process(pid).create_time()
        return plan.Part(self.name, pid, created, self.state, self.restarts, self.why)


def _code(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def last_line(log: Path) -> str:
    """The last line a part printed that says something, for a person."""
    try:
        with log.open("rb") as text:
            text.seek(max(0, log.stat().st_size - 8192))
            lines = [line.strip() for line in text.read().decode("utf-8", "replace").splitlines()]
    except OSError:
        return "(no log)"
    said = [line for line in lines if line and not line.startswith(("at ", "^", "~", "+-", "|"))]
    return "".join(c if c.isprintable() else " " for c in (said[-1] if said else "(nothing)"))[:240]


class Supervisor:
    """Starts, watches and stops the parts of one state directory."""

    def __init__(self, state: Path, cache: Path, record: plan.Record, jvm: Jvm) -> None:
        self.state, self.cache, self.jvm = state, cache, jvm
        self.record = replace(record, pid=os.getpid(), created=psutil.Process().create_time(), ready=False, fault="")
        self.parts: dict[str, Running] = {}
        self.stopping = False
        self.reload = False

    def publish(self, step: str | None = None, **changes: object) -> None:
        parts = tuple(part.part() for part in self.parts.values())
        step = self.record.step if step is None else step
        self.record = replace(self.record, parts=parts, step=step, **changes)  # type: ignore[arg-type]
        plan.write_record(self.state, self.record)

    def bring_up(self) -> None:
        """Starts what is not running yet, in order; raises Temporary when a part does not become ready."""
        self.publish("starting brokers")
        brokers = [self._broker(site) for site in self.record.sites]
        for site in self.record.sites:
            broker.format_if_new(site.broker(self.state), self.jvm)
        self._start_and_wait(brokers)
        self.publish("creating topics")
        from streams.kafka import admin  # confluent-kafka is loaded only when there is a broker to ask

        settings = load_settings(environ={}, files=[], state=str(self.state))
        admin.provision(settings)
        self.publish("starting the mirror")
        self._start_and_wait([self._mirror()], wait=False)
        self.publish("starting workers")
        self._start_and_wait([w for site in self.record.sites for w in self._workers(site)])
        self.publish("ready", ready=True)

    def add(self, part: Running) -> Running:
        return self.parts.setdefault(part.name, part)

    def _broker(self, site: plan.SitePlan) -> Running:
        node = site.broker(self.state)
        command = self.jvm.command("kafka.Kafka", str(node.properties_path), flags=broker.HEAP)
        return self.add(
            Running(
                f"{site.name}-broker",
                command,
                self.jvm.environment(),
                self._log(f"{site.name}-broker"),
                lambda: broker.is_ready(node.bootstrap, cluster_id=node.cluster_id),
            )
        )

    def _mirror(self) -> Running:
        bootstraps = {str(s.name): s.broker(self.state).bootstrap for s in self.record.sites}
        flows = [
            mirror.Flow(a.name, b.name, mirrored(b.name))
            for a in self.record.sites
            for b in self.record.sites
            if a.name != b.name
        ]
        path = self.state / "mirror" / "mm2.properties"
        path.parent.mkdir(parents=True, exist_ok=True)
        broker.write_properties(path, mirror.properties(bootstraps, flows))
        command = self.jvm.command(mirror.MAIN_CLASS, str(path), flags=mirror.heap(len(flows)))
        return self.add(Running("mirror", command, self.jvm.environment(), self._log("mirror"), lambda: True))

    def _workers(self, site: plan.SitePlan) -> list[Running]:
        return [self.worker(site, number) for number in range(site.workers)]

    def worker(self, site: plan.SitePlan, number: int) -> Running:
        port = site.worker_port(number)
        environment = worker_environment(self.state, site, number)
        name = f"{site.name}-worker-{number}"
        command = [sys.executable, "-m", "faust", "-A", "agents", "worker", "-l", "info"]
        return self.add(Running(name, command, environment, self._log(name), lambda: is_healthy(port)))

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def _start_and_wait(self, parts: list[Running], *, wait: bool = True) -> None:
        for part in parts:
            if part.popen is None:
                part.start()
        deadline = time.monotonic() + PARTS_READY_S
        waiting = list(parts) if wait else []
        before = {part.name: part.restarts for part in parts}
        while waiting and not self.stopping:
            self.watch()
            for part in list(waiting):
                if part.popen is not None and part.probe():
                    part.state = "ready"
                    waiting.remove(part)
                    self.publish()
                elif part.restarts - before[part.name] >= 3:
                    raise Temporary(f"{part.name} does not stay up: {part.why}", str(part.log), "read that log")
            if waiting and time.monotonic() > deadline:
                names = ", ".join(part.name for part in waiting)
                raise Temporary(
                    f"not ready within {PARTS_READY_S:.0f} s: {names}", str(waiting[0].log), "read that log"
                )
            time.sleep(0.05)

    def watch(self) -> None:
        """Starts again what ended, and cuts logs that grew too long."""
        for part in self.parts.values():
            code = part.popen.poll() if part.popen is not None else None
            if code is not None:
                part.ended(code)
                _say(f"{part.name} {part.why}")
                self.publish()
            if part.popen is None and time.monotonic() >= part.not_before and not self.stopping:
                part.start()
                self.publish()
            _cut(part.log)

    def run(self) -> None:
        """Watches until told to stop; a part that is ready again is said so."""
        while not self.stopping:
            if self.reload:
                self._reload()
            self.watch()
            for part in self.parts.values():
                if part.state in ("starting", "ended", "failing") and part.popen is not None and part.probe():
                    part.state = "ready"
                    self.publish()
            time.sleep(0.1)

    def _reload(self) -> None:
        """A site or worker was added: brokers and topics first, then a new mirror, then every worker, site by site."""
        self.reload = False
        found = plan.read_record(self.state)
        if found is None:
            return
        grew = {s.name for s in found.sites} != {s.name for s in self.record.sites}
        self.record = replace(self.record, sites=found.sites, ready=False)
        if grew:
            self._stop([self.parts.pop("mirror")])
            self._stop([self.parts.pop(name) for name in list(self.parts) if "-worker-" in name])
        for name in [n for n in self.parts if "-worker-" in n and n not in _workers_of(found)]:
            self._stop([self.parts.pop(name)])
        self.bring_up()

    def stop_all(self) -> None:
        """Workers and the mirror, then brokers: TERM, wait, KILL."""
        self.stopping = True
        brokers = [part for name, part in self.parts.items() if name.endswith("-broker")]
        self._stop([part for part in self.parts.values() if part not in brokers])
        self._stop(brokers)
        self.publish("stopped", ready=False, pid=0, created=0.0)

    def _stop(self, parts: list[Running]) -> None:
        alive = [p.popen for p in parts if p.popen is not None and p.popen.poll() is None]
        for popen in alive:
            popen.terminate()
        deadline = time.monotonic() + STOP_S
        for popen in alive:
            try:
                popen.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()
        for part in parts:
            part.popen, part.state = None, "stopped"


def _workers_of(record: plan.Record) -> set[str]:
    return {f"{site.name}-worker-{n}" for site in record.sites for n in range(site.workers)}


def worker_environment(state: Path, site: plan.SitePlan, number: int) -> dict[str, str]:
    """What a worker of a local federation is started with, beside what this process has."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("T2G_") or k.startswith("T2G_POLICY_")}
    return {
        **own,
        "T2G_STATE": str(state),
        "T2G_SITES": str(state / "sites.toml"),
        "T2G_SITE_CONFIG": str(state / site.name / "site.toml"),
        "T2G_DATADIR": str(state / site.name / f"worker-{number}"),
        "T2G_WEB_PORT": str(site.worker_port(number)),
        # glibc's arena per thread would triple a worker's memory.
        "MALLOC_ARENA_MAX": "2",
        "PYTHONUNBUFFERED": "1",
    }


def is_healthy(port: int) -> bool:
    """Whether the worker at `port` says that it has caught up."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2) as answer:
            said = json.load(answer)
            return isinstance(said, dict) and said.get("ready") is True
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _cut(log: Path) -> None:
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES_MAX:
            with log.open("rb") as text:
                text.seek(-LOG_BYTES_KEPT, os.SEEK_END)
                log.with_suffix(".log.1").write_bytes(text.read(LOG_BYTES_KEPT))
            os.truncate(log, 0)


def _say(line: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}", flush=True)


def main(state: Path, cache: Path) -> int:
    """Runs the federation of `state` until SIGTERM. The parent reads federation.json for what happened."""
    record = plan.read_record(state)
    if record is None:
        _say("no plan here")
        return 7
    found_java, jars = java.find_java(), tuple(a.path(cache) for a in artifacts.read_list())
    archive = class_archive.ensure(found_java, jars, cache)
    jvm = Jvm(found_java, jars, artifacts.list_path().with_name("log4j2.properties"), archive)
    supervisor = Supervisor(state, cache, record, jvm)

    def stop(*_: object) -> None:
        supervisor.stopping = True

    def hang_up(*_: object) -> None:
        supervisor.reload = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, hang_up)
    code = 0
    try:
        supervisor.bring_up()
        supervisor.run()
    except Transfer2goError as error:
        _say(str(error))
        code = error.exit_code
        supervisor.publish(fault=str(error), exit_code=code)
    finally:
        supervisor.stop_all()
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
