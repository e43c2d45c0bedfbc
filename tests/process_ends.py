"""Whether a process has ended, for tests that look at processes they did not start."""

from __future__ import annotations

import psutil


def has_ended(pid: int) -> bool:
    """Also of one whose parent has yet to collect it; asked in one step, for it may end between two."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
