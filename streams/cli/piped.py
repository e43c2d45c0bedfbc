"""Whoever reads our output may go (`| head`): that is no error, and no reason to wait for more, nor to hide a verdict.

- what lists ends at its next line, with 0;
- what follows (`ends_with_reader`) ends when the reader goes, not at a line that may never come;
- what judges (`to_its_end`) goes on unheard, and its exit code is its verdict.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from streams import waits

_LOOK_S = 0.5
_ended = threading.Event()
"""A verb was ended because its reader had gone."""


def is_gone(stream: IO[str]) -> bool:
    """Whether what is written there is read by nobody any more. False for files, terminals, and where none can say."""
    try:
        look = select.poll()
        look.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in look.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


def hush() -> bool:
    """From now on nothing is written to a stream whose reader has gone; whether there is one."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        if is_gone(stream):
            found = True
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
    return found


def has_ended() -> bool:
    """Whether the interrupt just seen was ours: the reader had gone. The answer forgets it."""
    ended = _ended.is_set()
    _ended.clear()
    return ended


@contextmanager
def to_its_end() -> Iterator[None]:
    """Write here what comes before a verdict; without a reader the rest of the block is left out."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not hush():
            raise


@contextmanager
def ends_with_reader() -> Iterator[None]:
    """End the verb, as an interrupt would, when nobody reads its output any more. Only in the main thread.

    By SIGPIPE: what runs in a shell's background may have been told to ignore interrupts.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main or main.ident is None:
        yield
        return
    thread = main.ident

    def look() -> bool:
        if gone := is_gone(sys.stdout):
            signal.pthread_kill(thread, signal.SIGPIPE)
        return not gone

    _ended.clear()
    before = signal.signal(signal.SIGPIPE, _end)
    try:
        with waits.looking(look, _LOOK_S, "reader"):
            yield
    finally:
        signal.signal(signal.SIGPIPE, before)


def _end(*_: object) -> None:
    if is_gone(sys.stdout):  # else another pipe or connection broke, whose user hears of it
        _ended.set()
        raise KeyboardInterrupt
