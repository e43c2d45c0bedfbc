"""The process that owns a local federation: `python -m streams.federation.supervisor STATE CACHE`.

Brokers first, then topics, then the mirror, then workers, then followers (`audit follow`), which are not waited for;
each is watched and started again when it ends. SIGTERM stops all in the opposite order, SIGHUP reads the plan again (a
site was added). Whatever kills the supervisor kills the parts: they carry a parent-death signal. It prints to
STATE/supervisor.log; what others see is federation.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from streams.errors import Temporary, Transfer2goError
from streams.federation import artifacts, broker, class_archive, java, mirror, plan, process
from streams.federation.java import Jvm
from streams.federation.mirror_tasks import MirrorTasks
from streams.federation.process import RunningPart
from streams.settings import load_settings

PARTS_READY_S = 90.0
FLOW_READY_S = 3.0
"""More for each flow of the mirror: its two Connect workers take a second of a core, and a machine may be busy."""
RELOAD_AGAIN_S = 10.0
_FORMATS = 3
"""At once."""
FOLLOWERS_AFTER_S = 5.0
"""After all is ready: what somebody brought it up for comes first."""


class Supervisor:
    def __init__(self, state: Path, record: plan.FederationRecord, jvm: Jvm) -> None:
        self.state, self.jvm = state, jvm
        self.record = replace(record, pid=os.getpid(), created=psutil.Process().create_time(), ready=False, fault="")
        self.parts: dict[str, RunningPart] = {}
        self.mirror_tasks: MirrorTasks | None = None
        self.stopping = False
        self.reload = False
        self._reload_s = 0.0
        """When to bring up again what a reload could not."""
        self._inode = state.stat().st_ino

    def publish(self, step: str | None = None, **changes: object) -> None:
        """Says how it stands. Raises Temporary on a full disk."""
        parts = tuple(part.part() for part in self.parts.values())
        step = self.record.step if step is None else step
        self.record = replace(self.record, parts=parts, step=step, **changes)  # type: ignore[arg-type]
        plan.write_record(self.state, self.record)

    def note(self, step: str | None = None, **changes: object) -> None:
        """Says how it stands, if it can: on a full disk what runs goes on."""
        if self.state_is_gone():
            return  # a directory made anew would look like a federation
        try:
            self.publish(step, **changes)
        except Temporary as error:
            _say(str(error))

    def bring_up(self) -> None:
        """Starts what is not running yet, in order; raises Temporary when a part does not become ready."""
        self.publish("starting brokers")
        brokers = [self._broker(site) for site in self.record.sites]
        with ThreadPoolExecutor(_FORMATS) as formats:  # each is a Java's start
            list(formats.map(lambda site: broker.format_if_new(site.broker(self.state), self.jvm), self.record.sites))
        self._start_and_wait(brokers)
        self.publish("creating topics")
        from streams.kafka import admin  # confluent-kafka is loaded only when there is a broker to ask

        settings = load_settings(environ={}, files=[], state=str(self.state))
        admin.provision(settings)
        self.publish("starting the mirror and workers")
        workers = (self.worker(site, number) for site in self.record.sites for number in range(site.workers))
        self._start_and_wait([self._mirror(), *workers])
        for site in self.record.sites if self.record.followers else ():
            self.follower(site)  # started as what ended is
        self.publish("ready", ready=True)

    def add(self, part: RunningPart) -> RunningPart:
        return self.parts.setdefault(part.name, part)

    def _part(
        self,
        name: str,
        command: list[str],
        environment: Callable[[], Mapping[str, str]],
        probe: Callable[[], bool],
        **traits: Any,
    ) -> RunningPart:
        log = self.state / "logs" / f"{name}.log"
        return self.add(RunningPart(name, command, environment, log, probe, **traits))

    def _broker(self, site: plan.SitePlan) -> RunningPart:
        node = site.broker(self.state)
        command = self.jvm.command("kafka.Kafka", str(node.properties_path), flags=broker.HEAP)
        return self._part(
            f"{site.name}-broker",
            command,
            self.jvm.environment,
            lambda: broker.is_ready(node.bootstrap, cluster_id=node.cluster_id),
        )

    def _mirror(self) -> RunningPart:
        bootstraps = {str(s.name): s.broker(self.state).bootstrap for s in self.record.sites}
        flows = mirror.mesh({site.name: False for site in self.record.sites})
        path = self.state / "mirror" / "mm2.properties"
        path.parent.mkdir(parents=True, exist_ok=True)
        broker.write_properties(path, mirror.properties(bootstraps, flows))
        command = self.jvm.command(mirror.MAIN_CLASS, str(path), flags=mirror.heap(len(flows)))
        if self.mirror_tasks is None:
            topics = mirror.status_topics(flows)
            self.mirror_tasks = MirrorTasks({bootstraps[site]: names for site, names in topics.items()})
        tasks = self.mirror_tasks
        # Its connectors end one after the other, in 8 s; what they mirrored and had not noted is fenced or repeated.
        part = self._part("mirror", command, self.jvm.environment, lambda: False, killable=True)
        part.probe = lambda: tasks.running(part.started_ms)
        return part

    def _look_at_mirror(self) -> None:
        """Restarts tasks of the mirror that failed: Connect would leave them so."""
        part = self.parts.get("mirror")
        if part is None or part.popen is None or self.mirror_tasks is None:
            return
        for failed in self.mirror_tasks.failed(part.started_ms):
            if self.mirror_tasks.restart(failed, time.monotonic()):
                part.why = f"restarted, since {failed.words}"
                _say(f"mirror: {part.why}")
                self.note()

    def worker(self, site: plan.SitePlan, number: int) -> RunningPart:
        environment = partial(worker_environment, self.state, site, number)
        command = [sys.executable, "-m", "faust", "-A", "agents", "worker", "-l", "info"]
        port = site.worker_port(number)
        return self._part(f"{site.name}-worker-{number}", command, environment, lambda: is_healthy(port), recovers=True)

    def follower(self, site: plan.SitePlan) -> RunningPart:
        environment = partial(follower_environment, self.state, site)
        command = [sys.executable, "-m", "streams.cli", "audit", "follow", "--metrics", str(site.follower_port)]
        port, when = site.follower_port, time.monotonic() + FOLLOWERS_AFTER_S
        probe = partial(is_following, port)
        return self._part(f"{site.name}-follower", command, environment, probe, not_before=when, recovers=True)

    def _start_and_wait(self, parts: list[RunningPart]) -> None:
        for part in parts:
            if part.popen is None:
                part.start()
        sites = len(self.record.sites)
        ready_s = PARTS_READY_S + FLOW_READY_S * sites * (sites - 1)
        deadline = time.monotonic() + ready_s
        waiting, anew = list(parts), False
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
                late = [part for part in waiting if not part.recovers and part.popen is not None]
                if late and not anew and all(part.killable for part in late):
                    # A mirror of thirty flows was seen not to come to all of its tasks.
                    anew, deadline = True, time.monotonic() + ready_s
                    for part in late:
                        part.kill(f"started anew, since it was not ready within {ready_s:.0f} s")
                        _say(f"{part.name}: {part.why}")
                else:
                    self._say_late(waiting, ready_s)
            time.sleep(0.05)

    def _say_late(self, waiting: list[RunningPart], ready_s: float) -> None:
        """Raises Temporary, unless all that is waited for are workers that read their tables."""
        names = ", ".join(part.name for part in waiting)
        if not all(part.recovers and part.popen is not None for part in waiting):
            raise Temporary(f"not ready within {ready_s:.0f} s: {names}", str(waiting[0].log), "read that log")
        if self.record.step != (step := f"waiting for {names} to read its tables"):
            self.publish(step)

    def state_is_gone(self) -> bool:
        """Whether the state directory was removed, or another stands in its place."""
        try:
            return self.state.stat().st_ino != self._inode
        except FileNotFoundError:
            return True
        except OSError:
            return False  # it cannot be asked now

    def watch(self) -> None:
        """Starts again what ended, and cuts logs that grew too long."""
        for part in self.parts.values():
            code = part.popen.poll() if part.popen is not None else None
            if code is not None:
                part.ended(code)
                _say(f"{part.name} {part.why}")
                self.note()
            if part.popen is None and time.monotonic() >= part.not_before and not self.stopping:
                self._start(part)
                self.note()
            process.cut(part.log)

    def _start(self, part: RunningPart) -> None:
        try:
            part.start()
        except OSError as error:  # no room for its log, no process, no descriptor: for now
            part.not_started(error)
            _say(f"{part.name} {part.why}")

    def run(self) -> None:
        """Watches until told to stop, or its directory is removed; a part that is ready again is said so."""
        while not self.stopping:
            if self.state_is_gone():  # `down` finds nothing to end there: all would be started again for ever
                _say(f"{self.state} is gone: what ran there ends")
                return
            if self.reload and time.monotonic() >= self._reload_s:
                self._try_reload()
            self.watch()
            self._look_at_mirror()
            for part in self.parts.values():
                if part.state in ("starting", "ended", "failing") and part.popen is not None and part.probe():
                    part.state = "ready"
                    self.note()
            time.sleep(0.1)

    def _try_reload(self) -> None:
        """What cannot be brought up now is tried again; meanwhile what runs goes on."""
        try:
            self._reload()
        except Transfer2goError as error:
            _say(str(error))
            self.reload, self._reload_s = True, time.monotonic() + RELOAD_AGAIN_S
            self.note(fault=str(error))

    def _reload(self) -> None:
        """A site or worker was added: brokers and topics first, then a new mirror, then every worker, site by site."""
        self.reload = False
        found = plan.read_record(self.state)
        if found is None:
            return
        grew = {s.name for s in found.sites} != {s.name for s in self.record.sites}
        self.record = replace(self.record, sites=found.sites, followers=found.followers, ready=False, fault="")
        if grew:
            if "mirror" in self.parts:
                process.stop([self.parts.pop("mirror")])
            self._forget_tasks()
            process.stop([self.parts.pop(name) for name in list(self.parts) if _speaks_of_sites(name)])
        workers = {f"{site.name}-worker-{n}" for site in found.sites for n in range(site.workers)}
        for name in [n for n in self.parts if "-worker-" in n and n not in workers]:
            process.stop([self.parts.pop(name)])
        self.bring_up()

    def _forget_tasks(self) -> None:
        if self.mirror_tasks is not None:
            self.mirror_tasks.close()
            self.mirror_tasks = None

    def stop_all(self) -> None:
        """Workers and the mirror, then brokers: TERM, wait, KILL."""
        self.stopping = True
        self._forget_tasks()
        brokers = [part for name, part in self.parts.items() if name.endswith("-broker")]
        process.stop([part for part in self.parts.values() if part not in brokers])
        process.stop(brokers)
        self.note("stopped", ready=False, pid=0, created=0.0)


def _speaks_of_sites(name: str) -> bool:
    """Whether a part has read which sites there are."""
    return "-worker-" in name or name.endswith("-follower")


def _environment(state: Path, site: plan.SitePlan) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("T2G_") or k.startswith("T2G_POLICY_")}
    return {
        **own,
        "T2G_STATE": str(state),
        "T2G_SITES": str(state / "sites.toml"),
        "T2G_SITE_CONFIG": str(state / site.name / "site.toml"),
        "PYTHONUNBUFFERED": "1",
    }


def follower_environment(state: Path, site: plan.SitePlan) -> dict[str, str]:
    """What a follower of a local federation is started with, beside what this process has."""
    return {**_environment(state, site), "MALLOC_ARENA_MAX": "1"}


def worker_environment(state: Path, site: plan.SitePlan, number: int) -> dict[str, str]:
    """What a worker of a local federation is started with, beside what this process has."""
    return {
        **_environment(state, site),
        "T2G_DATADIR": str(state / site.name / f"worker-{number}"),
        "T2G_WEB_PORT": str(site.worker_port(number)),
        **_door(state / site.name / "site.toml"),
        # glibc's arena per thread would triple a worker's memory.
        "MALLOC_ARENA_MAX": "2",
    }


def _door(site_toml: Path) -> dict[str, str]:
    """A local site's workers have doors, at free ports, unless its own file says otherwise."""
    try:
        own = tomllib.loads(site_toml.read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # the worker says what is wrong with it
    return {} if "door" in own else {"T2G_DOOR_HOST": "127.0.0.1"}


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2) as answer:
            said = json.load(answer)
            return isinstance(said, dict) and said.get("ready") is True
    except (OSError, urllib.error.URLError, ValueError):
        return False


def is_following(port: int) -> bool:
    """Whether a follower has read what stood there at its start."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            return any(line.startswith(b"transfer2go_follow_up{") and line.rstrip().endswith(b" 1") for line in answer)
    except (OSError, urllib.error.URLError, ValueError):
        return False


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
    supervisor = Supervisor(state, record, jvm)

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
        supervisor.note(fault=str(error), exit_code=code)
    finally:
        supervisor.stop_all()
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
