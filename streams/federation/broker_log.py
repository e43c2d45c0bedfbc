"""Why a broker of a local federation does not answer: the disk of its log, its last error. Read-only."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from streams.core.names import shown
from streams.federation.broker import SEGMENT_BYTES

_TAIL_BYTES = 256 << 10
_FAULT = re.compile(r"\b(?:FATAL|ERROR)\b")


def free_if_full(directory: Path) -> int | None:
    """Free bytes of the disk that the directory is on, if it is full; None if it is not, or nobody can tell.

    A broker opens files of a segment's size, and ends itself when one cannot be written.
    """
    try:
        free = shutil.disk_usage(directory).free
    except OSError:
        return None
    return free if free < SEGMENT_BYTES else None


def last_fault(log: Path) -> str:
    """The last line of an error near the end of a broker's log, cut to what can be shown; "" for none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except OSError:
        return ""
    lines = [line for line in tail.decode(errors="replace").splitlines() if _FAULT.search(line)]
    return shown(lines[-1].strip(), 300) if lines else ""
