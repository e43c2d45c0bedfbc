"""Kills a plane that lands entries by SIGKILL before and after the system calls that matter; a successor ends the job.

Run as a process of its own (it forks): `python entries_killed.py DIRECTORY EVERY_NTH`; prints the number of crash
points and exits 0, or dies with the assertion. Used by test_entries_crash.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from streams.core.names import IntentId
from streams.core.ranges import Ranges
from streams.core.records import Message, PartLost, TransferProgress
from streams.errors import Transfer2goError
from streams.storage import syscalls
from tests.events.landing_tables import bits, flat, jagged
from tests.planes.entries_feed import landed, manifest_of, records
from tests.planes.feed import Receiver

TABLES = {"/store/a.root": jagged(120), "/store/d/b.root": flat(90), "/store/empty.root": flat(0)}
BODY = replace(manifest_of(TABLES), intent=IntentId("T1_A.0f0e1d9e-0000-4000-8000-000000000000"))
RECORDS = records(BODY, TABLES, 40)


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


class Told:
    """What the row of the transfer knows: kept on disk, as it would be in the log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempt, self.verified, self.sealed = 1, Ranges(), Ranges()
        self.landed: dict[int, tuple[int, str]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            self._hear(*json.loads(line))

    def _hear(self, attempt: int, verified: list[list[int]], sealed: list[list[int]], files: list[list[Any]]) -> None:
        if attempt != self.attempt:
            self.attempt, self.verified = attempt, Ranges()
        self.verified |= Ranges((a, b) for a, b in verified)
        self.sealed |= Ranges((a, b) for a, b in sealed)
        for item, size, adler in files:
            assert self.landed.setdefault(item, (size, adler)) == (size, adler), "the file changed after it was told"

    def hear(self, message: Message) -> None:
        line: list[Any]
        if isinstance(message, PartLost):
            line = [message.attempt + 1, [], [], []]
        else:
            assert not message.failed, message.failed  # type: ignore[union-attr]
            progress = isinstance(message, TransferProgress)
            verified, sealed = (message.verified, message.sealed) if progress else (Ranges(), message.present)
            files = [[one.item, one.bytes, one.adler32] for one in message.landed]
            line = [message.attempt, verified.spans, sealed.spans, files]
        with self.path.open("a") as journal:
            journal.write(json.dumps(line) + "\n")
        self._hear(*json.loads(json.dumps(line)))


def transfer(root: Path, told: Told) -> None:
    """What a plane does, until the row knows that everything is sealed."""
    receiver = Receiver(root)
    heard, tries = 0, 0
    while told.sealed != Ranges([(0, len(TABLES))]):
        assert (tries := tries + 1) < 4, "it never ends"
        receiver.open(BODY, told.attempt, verified=told.verified, sealed=told.sealed)
        for at, one in enumerate(RECORDS):
            receiver.take([one])
            if at % 2:
                receiver.sync()
            for message in receiver.told[heard:]:
                told.hear(message)
            heard = len(receiver.told)
        receiver.sync()


def inspect(root: Path, *, finished: bool) -> None:
    """Under a final name there are only whole files, at every instant."""
    receiver = Receiver(root)
    for item, table in zip(BODY.items, TABLES.values(), strict=True):
        there = (root / item.target[1:]).exists()
        assert not there or bits(landed(receiver, item)) == bits(table), f"{item.target} is wrong under its final name"
        assert there or not finished, f"{item.target} is missing"
    if finished:
        assert receiver.leftovers() == [], "a part stays behind"


def in_a_child(action: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        try:
            action()
        except (AssertionError, OSError, Transfer2goError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def crash_at(directory: Path, fatal: int, after: bool) -> bool:
    """Whether there was such a step."""
    root, journal = directory / "root", directory / "journal"
    shutil.rmtree(directory, ignore_errors=True)
    root.mkdir(parents=True)

    def doomed() -> None:
        steps = Steps(fatal, after)
        for module, name in (
            (os, "pwritev"), (os, "pwrite"), (os, "fdatasync"), (os, "fsync"), (os, "mkdir"), (os, "unlink"),
            (os, "ftruncate"), (syscalls, "pwrite_uncached"), (syscalls, "rename_noreplace"),
        ):  # fmt: skip
            steps.wrap(module, name)
        transfer(root, Told(journal))

    code = in_a_child(doomed)
    assert code in (0, -signal.SIGKILL), code
    assert in_a_child(lambda: inspect(root, finished=code == 0)) == 0, (fatal, after)
    if code == 0:
        return False
    assert in_a_child(lambda: transfer(root, Told(journal))) == 0, (fatal, after)
    assert in_a_child(lambda: inspect(root, finished=True)) == 0, (fatal, after)
    return True


def main() -> None:
    directory, every = Path(sys.argv[1]), int(sys.argv[2])
    points = 0
    for after in (False, True):
        step = int(after)
        while crash_at(directory / "run", step, after):
            points += 1
            step += every
    print(points)


if __name__ == "__main__":
    main()
