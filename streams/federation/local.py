"""A local federation from outside: up, down, status. Everything is started and watched by supervisor.py.

Where STATE/sites.toml was written by hand it names existing clusters: nothing is started, topics are provisioned, and
the caller runs workers itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from streams import waits
from streams.core.names import Site, shown
from streams.errors import NeverWorks, NotFound, Temporary, Transfer2goError
from streams.federation import artifacts, class_archive, java, plan, process, purging

DEFAULT_SITES = ("T1_A", "T2_B", "T2_C", "T2_D", "T2_E", "T2_F", "T2_G", "T2_H")
CREDIT_BYTES = 128 * 1024 * 1024
UP_S = 420.0
DOWN_S = 60.0
DISK_FREE_BYTES_MIN = 2_000_000_000
_supervisors: list[subprocess.Popen[bytes]] = []
"""Started by this process, which they outlive: dropping one while it runs is what Python warns of."""

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PartStatus:
    """A part for a person: resident bytes include the children of a worker."""

    name: str
    state: str
    pid: int
    rss_bytes: int
    restarts: int
    port: int
    why: str


@dataclass(frozen=True, slots=True)
class Federation:
    """What `up` found or started."""

    state: Path
    record: plan.FederationRecord
    found: bool

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(site.name for site in self.record.sites)


def up(
    state: Path,
    cache: Path,
    sites: Sequence[str] = DEFAULT_SITES[:2],
    *,
    workers: int = 1,
    credit_bytes: int = CREDIT_BYTES,
    followers: bool = False,
    on_step: OnStep = lambda step: None,
) -> Federation:
    """Starts a federation of `sites`, or finds the one that runs and adds what it lacks; waits until all is ready.

    `followers`: one `audit follow` a site; they start when all else is ready, and are not waited for.

    Raises NeverWorks (a sum differs, no Java, foreign sites.toml), Temporary (port taken, disk full, download failed,
    a part does not come up).
    """
    state = state.resolve()
    for path in (state, cache.resolve()):
        _refuse_path(path)
    if not plan.is_managed(state):
        raise NeverWorks(
            "sites.toml names clusters of your own: nothing is started for them",
            str(state / "sites.toml"),
            "run `transfer2go topic create` and your workers, or choose another --state",
        )
    with _locked(state):
        record = plan.read_record(state)
        if record is not None and record.running:
            return _grown(state, record, sites, workers, followers, on_step)
        wanted = plan.planned(
            sites, record, workers=workers, credit_bytes=credit_bytes, home=str(state), followers=followers
        )
        _clean_up(record)
        _check_disk(state)
        plan.check_ports(wanted.sites)
        found_java = java.find_java()
        jars = artifacts.ensure(artifacts.read_list(), cache, on_step)
        class_archive.ensure(found_java, jars, cache, on_step)
        _write_files(state, replace(wanted, parts=(), pid=0, ready=False, fault="", step=""))
        started = _spawn(state, cache)
        try:
            return Federation(state, _wait(state, started, on_step), found=False)
        except KeyboardInterrupt:
            # It may not have said its pid yet, so `down` could not find it.
            started.terminate()
            started.wait(DOWN_S)
            raise


def _refuse_path(path: Path) -> None:
    """A broker takes a comma in its directory's path for two directories, Java a colon for two class paths."""
    odd = next((c for c in str(path) if c in ",:" or c < " " or "\ud800" <= c <= "\udfff"), None)
    if odd is not None:
        what = f"a path that brokers cannot have: it holds {shown(odd)!r}"
        raise NeverWorks(what, shown(str(path)), "choose another directory (--state, T2G_CACHE)")


def _grown(
    state: Path, record: plan.FederationRecord, sites: Sequence[str], workers: int, followers: bool, on_step: OnStep
) -> Federation:
    """Adds missing sites to a running federation, workers to its sites, and followers."""
    known = {site.name for site in record.sites}
    credit_bytes, home = record.credit_bytes, str(state)
    wanted = plan.planned(sites, record, workers=workers, credit_bytes=credit_bytes, home=home, followers=followers)
    wanted = replace(wanted, sites=tuple(replace(s, workers=max(s.workers, workers)) for s in wanted.sites))
    if (wanted.sites, wanted.followers) != (record.sites, record.followers):
        plan.check_ports([s for s in wanted.sites if s.name not in known])
        _write_files(state, replace(wanted, ready=False))
        os.kill(record.pid, signal.SIGHUP)
    return Federation(state, _wait(state, None, on_step), found=True)


def set_workers(state: Path, site: str, workers: int, on_step: OnStep = lambda step: None) -> Federation:
    """Runs so many workers of a site; NotFound when the federation does not run or has no such site."""
    with _locked(state):
        record = plan.read_record(state.resolve())
        if record is None or not record.running:
            raise NotFound("no local federation runs here", str(state), "run `transfer2go up`")
        if site not in {s.name for s in record.sites}:
            raise NotFound(f"no site {site} in this federation")
        changed = tuple(replace(s, workers=workers) if s.name == site else s for s in record.sites)
        _write_files(state, replace(record, sites=changed, ready=False))
        os.kill(record.pid, signal.SIGHUP)
        return Federation(state, _wait(state, None, on_step), found=True)


def down(state: Path, *, purge: bool = False, on_step: OnStep = lambda step: None) -> bool:
    """Stops the federation, whether it is well or not; True if anything ran. `purge` removes its state directory."""
    state = state.resolve()
    record = plan.read_record(state)
    ran = False
    if record is not None:
        ran = record.running
        if ran:
            on_step("stopping")
            os.kill(record.pid, signal.SIGTERM)
            with waits.on("workers, the mirror and brokers to end"):
                _until(lambda: not record.running, DOWN_S)
            if record.running:
                os.kill(record.pid, signal.SIGKILL)
        ran |= _clean_up(plan.read_record(state))
        _clean_up(record)
        for started in _supervisors:
            started.poll()
    if purge and state.exists():
        if record is None or not plan.is_managed(state):
            raise NeverWorks("not a local federation's state: not removed", str(state), "remove it yourself")
        on_step("removing the state directory")
        with waits.on(f"{state} to be removed"):
            _purge(state)
    return ran


def _purge(state: Path) -> None:
    """What says that this is a federation's state goes last, so that it can be purged again. Raises Temporary."""
    last = ("federation.json", "sites.toml")
    try:
        faults = purging.remove_within(str(state), last)
        if not faults:
            for name in last:
                (state / name).unlink(missing_ok=True)
            state.rmdir()
    except OSError as error:
        faults = [(error.filename or str(state), (error.strerror or str(error)).lower())]
    if faults:
        path, why = faults[0]
        more = f" and {len(faults) - 1} more" if faults[1:] else ""
        raise Temporary(
            f"not all could be removed: {shown(path, 300)}{more}: {why}", str(state), "mend that, then purge it again"
        )


def status(state: Path) -> list[PartStatus]:
    """Every part as it is now; NotFound where no federation was ever started."""
    record = plan.read_record(state.resolve())
    if record is None:
        raise NotFound("no local federation here", str(state), "run `transfer2go up`")
    ports = {f"{s.name}-broker": s.port for s in record.sites}
    ports |= {f"{s.name}-worker-{n}": s.worker_port(n) for s in record.sites for n in range(s.workers)}
    ports |= {f"{s.name}-follower": s.follower_port for s in record.sites}
    own = [plan.FederationPart("supervisor", record.pid, record.created, "ready" if record.ready else record.step)]
    found = []
    for part in (*own, *record.parts):
        alive = part.alive
        state_now = part.state if alive else ("stopped" if part.state in ("stopped", "") else f"dead ({part.state})")
        found.append(
            PartStatus(
                part.name,
                state_now,
                part.pid if alive else 0,
                resident_bytes(part.pid, children=part.name != "supervisor") if alive else 0,
                part.restarts,
                ports.get(part.name, 0),
                part.why,
            )
        )
    return found


def resident_bytes(pid: int, *, children: bool = True) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        family = [process, *(process.children(recursive=True) if children else ())]
        for member in family:
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
    return total


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One `up` at a time per state directory."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        with (state / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Temporary("another `up` is at work here", str(state), "wait for it") from error
            yield
    except OSError as error:
        raise Temporary(f"the state directory cannot be used: {error.strerror}", str(state)) from error


def _check_disk(state: Path) -> None:
    free = shutil.disk_usage(state).free
    if free < DISK_FREE_BYTES_MIN:
        raise Temporary(
            f"only {free / 1e9:.1f} GB free, {DISK_FREE_BYTES_MIN / 1e9:.0f} GB are needed",
            str(state),
            "make room or choose another --state",
        )


def _clean_up(record: plan.FederationRecord | None) -> bool:
    """Kills what is left of a federation whose supervisor died: only processes that are provably its own."""
    killed = False
    for part in record.parts if record else ():
        if part.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(part.pid, signal.SIGKILL)
                killed = True
    if killed and record:
        _until(lambda: not any(part.alive for part in record.parts), 10.0)
    return killed


def _write_files(state: Path, record: plan.FederationRecord) -> None:
    for site in record.sites:
        (state / site.name / "storage").mkdir(parents=True, exist_ok=True)
    for path, text in plan.site_files(state, record):
        if path.name != "site.toml" or not plan.says(path, text):
            plan.write(path, text)
    plan.write_record(state, record)


def _spawn(state: Path, cache: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "streams.federation.supervisor", str(state), str(cache)]
    with (state / "supervisor.log").open("ab") as out:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    _supervisors.append(started)
    return started


def _wait(state: Path, started: subprocess.Popen[bytes] | None, on_step: OnStep) -> plan.FederationRecord:
    """Follows federation.json until the supervisor is ready or has given up."""
    said, deadline = "", time.monotonic() + UP_S
    with waits.on("the supervisor") as wait:
        while time.monotonic() < deadline:
            record = plan.read_record(state)
            assert record is not None
            wait.what = ", ".join(part.name for part in record.parts if part.state != "ready") or "the supervisor"
            if record.step and record.step != said and (record.running or record.fault):
                said = record.step
                on_step(said)
            if record.ready and record.running:
                return record
            dead = started is not None and started.poll() is not None
            if record.fault or dead or (started is None and not record.running):
                raise _fault(state, record)
            time.sleep(0.1)
    raise Temporary(f"the federation is not ready after {UP_S:.0f} s", str(state / "supervisor.log"), "read that log")


def _fault(state: Path, record: plan.FederationRecord) -> Transfer2goError:
    if record.fault:
        kind = NeverWorks if record.exit_code == NeverWorks.exit_code else Temporary
        return kind(record.fault)
    log = state / "supervisor.log"
    return Temporary(f"the supervisor ended: {process.last_line(log)}", str(log), "read that log")


def _until(done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
