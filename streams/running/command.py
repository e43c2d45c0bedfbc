"""One run of a command: started, watched, stopped, and how it ended in words. What it is for is not known.

What it says (stderr, and stdout unless that is wanted) is read away as it comes, and the end of it kept.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from streams.core.names import shown
from streams.running import reaper

TAIL_BYTES = 4096
LINE_CHARS = 200
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """`code` as of subprocess: negative for a signal. `tail` is the last line that it said."""

    code: int
    timed_out: bool
    tail: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.timed_out

    @property
    def words(self) -> str:
        if self.timed_out:
            how = f"took longer than {self.seconds:.4g} s"
        elif self.code < 0:
            how = f"was ended by {_signal(-self.code)}"
        else:
            how = f"ended with exit code {self.code}"
        return f"{how}: {self.tail}" if self.tail else how


def is_installed(program: str) -> bool:
    """Whether a command may begin with it here, as a name or a path."""
    return shutil.which(program) is not None


def _own(names: Collection[str] | None) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if names is None or name in names}


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class RunningCommand:
    """A command at work, with `variables` in its environment. `stop` it, or ask `ended` until it says how.

    `inherits`: which of this process's variables it has too, all of them for None. `in_words`: what may be told of the
    last line that it said. Start it on a thread that lives as long as the process: the command ends when that thread
    does.
    """

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        *,
        stdin: str | None = None,
        stdout: str | None = None,
        timeout_s: float | None = None,
        inherits: Collection[str] | None = None,
        in_words: Callable[[str], str] = str,
    ) -> None:
        self._timeout_s, self._started_s = timeout_s, time.monotonic()
        self._ended: CommandEnd | None = None
        self._tail = b""
        self._in_words = in_words
        argv = [sys.executable, "-I", "-S", str(reaper.__file__), str(os.getpid()), *command]
        reads, writes = os.pipe()
        try:
            with (
                open(stdin or os.devnull, "rb") as feed,
                open(stdout, "wb") if stdout is not None else os.fdopen(os.dup(writes), "wb") as said,
            ):
                self._process = subprocess.Popen(
                    argv,
                    stdin=feed,
                    stdout=said,
                    stderr=writes,
                    env={**_own(inherits), **variables},
                    start_new_session=True,
                )
        except BaseException:
            os.close(reads)
            raise
        finally:
            os.close(writes)
        self._reading = threading.Thread(target=self._read, args=(os.fdopen(reads, "rb", 0),), daemon=True)
        self._reading.start()

    @property
    def pid(self) -> int:
        """Of the reaper (reaper.py), whose child the command is."""
        return self._process.pid

    def ended(self) -> CommandEnd | None:
        """How it ended, None while it runs; one that takes too long is stopped here."""
        if self._ended is None:
            if self._process.poll() is not None:
                self._ended = self._how(timed_out=False)
            elif self._timeout_s is not None and time.monotonic() - self._started_s > self._timeout_s:
                self._end()
                self._ended = self._how(timed_out=True)
        return self._ended

    def stop(self) -> None:
        """Kill it and all that came of it; returns when they are gone."""
        if self._process.poll() is None:
            self._end()
        self._reading.join(1.0)

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:  # stopped by a signal, perhaps; the command dies with it
            self._process.kill()
            self._process.wait()

    def _how(self, *, timed_out: bool) -> CommandEnd:
        self._reading.join(1.0)
        seconds = time.monotonic() - self._started_s
        if timed_out and self._timeout_s is not None:
            seconds = self._timeout_s
        lines = [line for line in self._tail.decode("utf-8", "replace").splitlines() if line.strip()]
        last = shown(self._in_words(lines[-1].strip()), LINE_CHARS) if lines else ""
        return CommandEnd(self._process.returncode, timed_out, last, seconds)

    def _read(self, said: BinaryIO) -> None:
        with said:
            while block := said.read(1 << 16):
                self._tail = (self._tail + block)[-TAIL_BYTES:]
