"""One process of a federation: started so that it dies with its starter, timed when it ends, stopped, its log cut."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from streams.federation import plan

STOP_S = 15.0
START_ME_AGAIN = 75
QUICK_S = 30.0
"""A part that ended sooner than this after its start is started again ever more slowly."""
BACKOFF_MAX_S = 30.0
LOG_BYTES_MAX = 20_000_000
LOG_BYTES_KEPT = 1_000_000
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """In a child before it becomes its program: whatever kills the starter kills it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class RunningPart:
    """A part with its process. `probe` says whether it is truly ready."""

    name: str
    command: list[str]
    environment: Callable[[], Mapping[str, str]]
    """Asked at each start: its configuration may have changed since the last."""
    log: Path
    probe: Callable[[], bool]
    popen: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    started_ms: int = 0
    state: str = "stopped"
    restarts: int = 0
    not_before: float = 0.0
    why: str = ""
    quick_ends: int = field(default=0)
    recovers: bool = False
    """Reads its tables before it is ready, which takes as long as they are large."""
    killable: bool = False
    """Loses nothing by a kill -9, and takes long to end otherwise."""

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # Appending, so that the log can be cut while the part goes on writing.
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.command,
                env=dict(self.environment()),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.started, self.started_ms = time.monotonic(), time.time_ns() // 1_000_000
        self.state = "starting"

    def ended(self, code: int) -> None:
        """Notes the end and when to start again: at once if asked for or after a long life, else ever later."""
        lived_s = time.monotonic() - self.started
        self.quick_ends = self.quick_ends + 1 if lived_s < QUICK_S else 0
        wait_s = 0.0 if self.quick_ends <= 1 else min(BACKOFF_MAX_S, 2.0 ** (self.quick_ends - 2))
        self.not_before = time.monotonic() + wait_s
        self.restarts += 1
        self.popen = None
        self.state = "ended" if self.quick_ends < 4 else "failing"
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        wants = "asked to be started again" if code == START_ME_AGAIN else f"ended with {how}"
        again = f", starts in {wait_s:.0f} s" if wait_s else ""
        self.why = f"{wants} after {lived_s:.0f} s{again}; last line: {last_line(self.log)}"

    def not_started(self, error: OSError) -> None:
        """Notes why there is no process, and when to try again."""
        self.popen, self.state = None, "failing"
        self.not_before = time.monotonic() + BACKOFF_MAX_S
        self.why = f"cannot be started: {error.strerror or error}, tried again in {BACKOFF_MAX_S:.0f} s"

    def kill(self, why: str) -> None:
        """Ends a part that runs and does not work; it is started again as one that ended by itself."""
        if self.popen is None:
            return
        self.popen.kill()
        self.ended(self.popen.wait())
        self.why = why

    def part(self) -> plan.FederationPart:
        pid, created = 0, 0.0
        if self.popen is not None:
            pid = self.popen.pid
            with contextlib.suppress(psutil.Error):
                created = psutil.Process(pid).create_time()
        return plan.FederationPart(self.name, pid, created, self.state, self.restarts, self.why)


def last_line(log: Path) -> str:
    try:
        with log.open("rb") as text:
            text.seek(max(0, log.stat().st_size - 8192))
            lines = [line.strip() for line in text.read().decode("utf-8", "replace").splitlines()]
    except OSError:
        return "(no log)"
    said = [line for line in lines if line and not line.startswith(("at ", "^", "~", "+-", "|"))]
    return "".join(c if c.isprintable() else " " for c in (said[-1] if said else "(nothing)"))[:240]


def cut(log: Path) -> None:
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES_MAX:
            with log.open("rb") as text:
                text.seek(-LOG_BYTES_KEPT, os.SEEK_END)
                log.with_suffix(".log.1").write_bytes(text.read(LOG_BYTES_KEPT))
            os.truncate(log, 0)


def stop(parts: Sequence[RunningPart]) -> None:
    """TERM to all at once (KILL to the killable), then KILL to those that still run after STOP_S."""
    alive = [p.popen for p in parts if p.popen is not None and p.popen.poll() is None]
    killable = {p.popen for p in parts if p.killable}
    for popen in alive:
        popen.send_signal(signal.SIGKILL if popen in killable else signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    for popen in alive:
        try:
            popen.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
    for part in parts:
        part.popen, part.state = None, "stopped"
