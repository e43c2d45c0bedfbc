"""Why a broker of a local federation does not answer: the disk of its log, its last error. Read-only."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from streams.core.names import shown
from streams.federation.broker import SEGMENT_BYTES

_TAIL_BYTES = 256 << 10
_FAULT = re.compile(r"\b(?:FATAL|ERROR)\b")


def free_bytes(directory: Path) -> int | None:
    """Of the disk that the directory is on; None where that cannot be told."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def is_full(free: int | None) -> bool:
    """A broker opens files of a segment's size, and ends itself when one cannot be written."""
    return free is not None and free < SEGMENT_BYTES


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
