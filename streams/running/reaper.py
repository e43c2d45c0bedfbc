"""A process of its own between a worker and its command, which does not outlive the worker, whatever becomes of that.

Run as `python reaper.py WORKER_PID COMMAND…`; it ends as the command does. Only the standard library: it starts in a
few milliseconds. The command has a process group of its own. When it has ended, when the worker dies, or on SIGTERM,
all that came of it is killed, also what left its group.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from types import FrameType

_PDEATHSIG, _SUBREAPER = 1, 36
NOT_STARTED = 127


def main(worker_pid: int, command: list[str]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    libc = ctypes.CDLL(None)
    libc.prctl(_PDEATHSIG, signal.SIGTERM)
    libc.prctl(_SUBREAPER, 1)
    if os.getppid() != worker_pid:
        return NOT_STARTED
    own_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        libc.prctl(_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == own_pid:
            _become(command)
        os._exit(NOT_STARTED)
    with suppress(OSError):  # it was quicker itself
        os.setpgid(pid, pid)

    def stop(number: int, frame: FrameType | None) -> None:
        _kill_group(pid)

    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _, status = os.waitpid(pid, 0)
    _kill_group(pid)
    _kill_children()
    if os.WIFSIGNALED(status):
        _die_of(os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _become(command: list[str]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _kill_children() -> None:
    """What the command left behind is this process's by now. Waited for until there is none: the list of children may
    leave out one that is dying.
    """
    with suppress(OSError):  # ChildProcessError: none is left
        while True:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = file.read().split()
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.001)


def _die_of(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pause()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
