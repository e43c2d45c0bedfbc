"""`transfer2go event work`: a worker with its progress on stderr and, as JSON lines, its ranges on stdout."""

from __future__ import annotations

import shutil
import signal
from typing import Any

from streams.cli import screen
from streams.cli.command import INTERRUPTED, leave, terminable
from streams.cli.entry_rows import need_packages
from streams.core.names import Lfn, shown
from streams.errors import InvalidName, NotFound, UsageError
from streams.pools.job import Job, RangeOutcome
from streams.pools.worker import PoolWorker
from streams.settings import Settings

_EVERY_S = 2.0
_LIVE_EVERY_S = 0.5


class _Terminated(Exception):
    """SIGTERM came."""


def work(
    settings: Settings,
    intent: str,
    name: str | None,
    command: tuple[str, ...],
    kind: Any,
    given: dict[str, Any],
    as_json: bool,
) -> None:
    """Run `command` on ranges until none is left. Raises as `PoolWorker.run`; 130 or 143: told to stop."""
    job = Job(command, kind, **given)
    _checked(job)
    line = _Line()

    def on_range(told: RangeOutcome) -> None:
        if as_json:
            screen.put_json(_object(told))
        elif told.reason is not None:
            line.clear()
            screen.say(f"{told.of.lfn}: {told.reason.text}")

    worker = PoolWorker(settings, settings.here, intent, name, job, on_range=on_range, on_beat=line.show)
    with terminable(_Terminated):
        try:
            worker.run()
        except (_Terminated, KeyboardInterrupt) as end:
            line.clear()
            screen.say("stopped; what was in hand goes to other workers")
            leave(128 + signal.SIGTERM if isinstance(end, _Terminated) else INTERRUPTED)
        finally:
            line.end()


def _checked(job: Job) -> None:
    need_packages("event work needs")
    try:
        Lfn(f"/x.{job.suffix.replace('/', '?')}")
    except InvalidName as error:
        raise UsageError(f"--out-suffix {shown(job.suffix, 40)!r}", next="use letters, digits, . _ and -") from error
    if shutil.which(job.command[0]) is None:
        raise NotFound(f"no command {shown(job.command[0], 200)}", next="is it on PATH, and executable?")
    if not job.stdout and not any("{out}" in word for word in job.command):
        screen.say("COMMAND has no {out}: it is to write its output at $T2G_OUTPUT")


def _object(told: RangeOutcome) -> dict[str, object]:
    found: dict[str, object] = {"lfn": told.of.lfn, "start": told.of.start, "stop": told.of.stop}
    if told.reason is not None:
        found |= {"failed": told.reason.text, "class": told.reason.failure_class}
    elif told.output is not None:
        found |= {"output": told.output.lfn, "bytes": told.output.bytes, "adler32": told.output.adler32}
        found["already"] = told.output.how == "already"
    return {**found, "tries": told.tries, "seconds": round(told.seconds, 3)}


class _Line(screen.LiveLine):
    """How far the pool is, and what this worker did of it."""

    def __init__(self) -> None:
        super().__init__(_LIVE_EVERY_S, _EVERY_S)
        self._last = ""

    def show(self, worker: PoolWorker) -> None:
        done, known = worker.counts
        slots = f"{worker.slots} slots" if worker.slots else "no slot, waiting"
        self._last = f"{done:,}/{known:,} ranges, {worker.own:,} here, {slots}"
        if waits_for := worker.waits_for:
            self._last = f"waiting for {waits_for}"
        if worker.away:
            self._last += f"; no news: {worker.away}"
        if self.is_due() and self._last != self._drawn:
            self.draw(self._last)

    def end(self) -> None:
        if self._last and self._last != self._drawn:
            self.draw(self._last)
        self.close()
