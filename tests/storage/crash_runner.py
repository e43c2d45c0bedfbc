"""Kills a writer by SIGKILL before and after every system call that matters, and lets a successor finish the job.

Run as a process of its own (it forks): `python crash_runner.py DIRECTORY modern|no-renameat2|repair`; prints the number
of crash points and exits 0, or dies with the assertion. Used by test_posix_crash.py. `repair`: under each final name is
a damaged file from the beginning, some of whose bytes are right.
"""

from __future__ import annotations

import errno
import json
import operator
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from streams.core.ranges import Ranges
from streams.errors import StorageError
from streams.storage import syscalls
from streams.storage.checksums import adler32, adler32_hex
from streams.storage.endpoint import DifferentFile, PartFileLost, SealedFile, part_tag
from streams.storage.posix import PosixEndpoint

MANIFEST = "T1_A.0f0e1d9e-0000-4000-8000-000000000000.0.0"
FILES = {f"/store/d{n % 3}/f{n}": random.Random(n).randbytes(3_000 * (n % 4) + n) for n in range(10)}
PIECE_BYTES = 2_500
DAMAGED = {lfn: bytes(byte ^ (at % 4_000 < 10) for at, byte in enumerate(content)) for lfn, content in FILES.items()}


class Steps:
    """Counts the system calls; the chosen one is the last thing this process does, or the last it does not do."""

    def __init__(self, fatal: int, after: bool) -> None:
        self.fatal, self.after, self.seen = fatal, after, 0

    def wrap(self, module: Any, name: str) -> None:
        original = getattr(module, name)

        def counted(*args: Any, **more: Any) -> Any:
            mine = self.seen
            self.seen += 1
            if mine == self.fatal and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return original(*args, **more)
            finally:
                if mine == self.fatal and self.after:
                    os.kill(os.getpid(), signal.SIGKILL)

        setattr(module, name, counted)


def transfer(root: str, journal: str, attempts: dict[str, int]) -> None:
    """What a plane does: look, open, write, sync, report, seal, report. The journal is what Kafka hears."""
    verified = {lfn: Ranges() for lfn in FILES}
    for line in Path(journal).read_text().splitlines() if Path(journal).exists() else ():
        lfn, attempt, spans = json.loads(line)
        if attempt == attempts[lfn]:
            verified[lfn] |= Ranges(tuple(span) for span in spans)
    with PosixEndpoint(root, open_parts_max=3) as endpoint:
        parts = []
        for item, (lfn, content) in enumerate(FILES.items()):
            adler = adler32_hex(adler32(content))
            replaces = False
            try:
                if endpoint.present(lfn, len(content), adler):
                    endpoint.discard(lfn, part_tag(MANIFEST, item, attempts[lfn]))
                    continue
            except DifferentFile:
                replaces = True
            while True:
                tag = part_tag(MANIFEST, item, attempts[lfn])
                try:
                    part = endpoint.open_part(
                        lfn, tag, bytes=len(content), adler32=adler, verified=verified[lfn], replaces=replaces
                    )
                    break
                except PartFileLost:
                    attempts[lfn], verified[lfn] = attempts[lfn] + 1, Ranges()
            parts.append(part)
        report = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for half in (0, 1):
            for part in parts:
                pieces = [span for span in range(0, part.bytes, PIECE_BYTES) if span // PIECE_BYTES % 2 == half]
                for at in pieces:
                    piece = FILES[part.lfn][at : at + PIECE_BYTES]
                    if not part.adopt(at, at + len(piece), partial(operator.eq, piece)):
                        part.write(at, piece)
            for part, synced in zip(parts, endpoint.sync_group(parts), strict=True):
                assert isinstance(synced, Ranges), synced
                os.write(report, json.dumps([part.lfn, attempts[part.lfn], synced.spans]).encode() + b"\n")
        for answer in endpoint.seal_group(parts):
            assert isinstance(answer, SealedFile), answer
        os.close(report)


def inspect(root: Path, variant: str, *, finished: bool) -> None:
    """Under a final name there are only whole files, at every instant; or the damaged one that is to be replaced."""
    for lfn, content in FILES.items():
        path, damaged = root / lfn.lstrip("/"), variant == "repair"
        known = [content, DAMAGED[lfn]] if damaged and not finished else [content]
        assert not path.exists() or path.read_bytes() in known, f"{lfn} is wrong under its final name"
        assert path.exists() or not (finished or damaged), f"{lfn} is missing"
    if finished:
        assert list(root.rglob(".t2g-*.part")) == [], "a part stays behind"


def in_a_child(action: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        try:
            action()
        except StorageError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def crash_at(directory: Path, fatal: int, after: bool, variant: str) -> bool:
    """Whether there was such a step."""
    root, journal = directory / "root", str(directory / "journal")
    shutil.rmtree(directory, ignore_errors=True)
    root.mkdir(parents=True)
    for lfn, content in DAMAGED.items() if variant == "repair" else ():
        path = root / lfn.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def doomed() -> None:
        steps = Steps(fatal, after)
        if variant == "no-renameat2":
            forget_renameat2()
        for module, name in (
            (os, "pwrite"), (os, "fdatasync"), (os, "fsync"), (os, "mkdir"), (os, "link"), (os, "unlink"),
            (syscalls, "open_beneath"), (syscalls, "syncfs"), (syscalls, "rename_noreplace"),
            (syscalls, "rename_exchange"),
        ):  # fmt: skip
            steps.wrap(module, name)
        transfer(str(root), journal, dict.fromkeys(FILES, 0))

    code = in_a_child(doomed)
    assert code in (0, -signal.SIGKILL), code
    inspect(root, variant, finished=code == 0)
    if code == 0:
        return False
    attempts = dict.fromkeys(FILES, 0)
    assert in_a_child(lambda: transfer(str(root), journal, attempts)) == 0
    inspect(root, variant, finished=True)
    return True


def forget_renameat2() -> None:
    def unknown(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "no such call")

    syscalls.rename_noreplace = unknown


def main() -> None:
    directory, variant = Path(sys.argv[1]), sys.argv[2]
    points = 0
    for after in (False, True):
        step = 0
        while crash_at(directory / "run", step, after, variant):
            step += 1
        points += step
    print(points)


if __name__ == "__main__":
    main()
