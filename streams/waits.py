"""What this process waits for at present, and since when: said where one waits, told by whoever has a reader.

    with waits.on("the store cern to answer"):
        …                                         # nothing is said here; streams/cli/telling.py looks and tells

Costs a few hundred nanoseconds a wait. Thread-safe; a wait belongs to the thread that opened it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Wait:
    """`what` is waited for, in words that go on from "waits for"; it may be put anew. `since_s`: of time.time()."""

    __slots__ = ("since_s", "what")

    def __init__(self, what: str, since_s: float) -> None:
        self.what, self.since_s = what, since_s


_open: dict[int, Wait] = {}
"""By identity, the oldest first; single operations on it are atomic."""


@contextmanager
def on(what: str) -> Iterator[Wait]:
    """Say that `what` is waited for until the block ends."""
    wait = Wait(what, time.time())
    _open[id(wait)] = wait
    try:
        yield wait
    finally:
        _open.pop(id(wait), None)


def longest(least_s: float) -> Wait | None:
    """Of the waits that have lasted for `least_s`, the one that began last: waits stand inside others."""
    now_s = time.time()
    old = [wait for wait in list(_open.values()) if now_s - wait.since_s >= least_s]
    return old[-1] if old else None


@contextmanager
def looking(look: Callable[[], object], every_s: float, name: str) -> Iterator[None]:
    """Look every so many seconds, in a thread of that name, until the block ends; or until a look says False."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(every_s) and look() is not False:
            pass

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1)  # it may be held up where it writes
