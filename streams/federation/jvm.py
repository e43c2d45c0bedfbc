"""How a Java program of the federation is launched: class path, flags, class-data archive, logging.

Nothing here knows what a broker or a mirror is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from streams.federation.java import Java

LIGHT = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""The quick compiler alone: half the CPU of a start, a quarter less memory, and the same MB/s and CPU per GB, since
bytes are moved by the kernel."""


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
