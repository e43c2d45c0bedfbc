"""Tells a person what a verb waits for, when nothing else has been said for some seconds. On stderr only.

On a terminal it is one line, drawn anew and taken away; elsewhere a line when it begins, when what is waited for
changes, and now and then. Every verb has it: the command line's root starts it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from streams import waits
from streams.cli import screen
from streams.core.names import shown

TOLD_S = 3.0
"""A shorter wait is none."""
ANEW_S = 10.0
"""Between two lines about different waits, where lines stay."""
STILL_S = 60.0
"""Until the same is told once more, where lines stay."""
_LOOK_S = 0.5


@contextmanager
def telling() -> Iterator[None]:
    teller = Teller()
    screen.before_speaking.append(teller.clear)
    try:
        with waits.looking(teller.look_if_heard, _LOOK_S, "telling"):
            yield
    finally:
        screen.before_speaking.remove(teller.clear)
        with suppress(OSError, ValueError):
            teller.clear()


class Teller:
    """Looks at what is waited for, and says it where that is due."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._said = ""
        self._said_s = -1e9
        self._drawing = threading.RLock()

    def look_if_heard(self) -> bool:
        """As `look`; False when nobody reads stderr any more."""
        try:
            self.look()
        except (OSError, ValueError):
            return False
        return True

    def look(self) -> None:
        with self._drawing:
            wait = waits.longest(TOLD_S)
            now_s = time.monotonic()
            if wait is None or now_s - screen.spoken_s() < TOLD_S:
                self.clear()
                return
            text = shown(f"waits for {wait.what}, since {screen.clock(wait.since_s)}", screen.CELL_CHARS_MAX)
            if self._live:
                screen.draw_in_place(f"{text} ({screen.duration(time.time() - wait.since_s)})")
                self._said = text
            elif now_s - self._said_s >= (STILL_S if text == self._said else ANEW_S):
                click.echo(text, err=True)
                self._said, self._said_s = text, now_s

    def clear(self) -> None:
        with self._drawing:
            if self._live and self._said:
                screen.draw_in_place("")
                self._said = ""
