"""What people and programs see: tables, JSON, sizes, times, progress. Data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text as RichText

from streams.core.names import shown
from streams.core.ranges import Ranges

T = TypeVar("T")
CELL_CHARS_MAX = 2000
_PLAIN_EVERY_S = 2.0
_LIVE_EVERY_S = 0.1
_WINDOW_S = 5.0
_TOLD_S = 2.0
"""Rate and time left are told from so many seconds on."""
_SHARE = 100
"""Of several files the time left is told once a hundredth of the bytes or of the files is there."""
_RATE_S_MIN = 0.1
_ALIKE = 8
"""Sizes that differ by less tell of each other how fast they move."""


_spoken_s = [-1e9]
before_speaking: list[Callable[[], None]] = []
"""Called before anything is written: whoever has drawn a line takes it away."""


def spoken_s() -> float:
    """When (monotonic seconds) something was last said or shown here."""
    return _spoken_s[0]


def _spoke() -> None:
    for make_room in before_speaking:
        make_room()
    _spoken_s[0] = time.monotonic()


def _echo(line: str, *, err: bool = False) -> None:
    """A line; what the stream's encoding cannot say is escaped."""
    _spoke()
    try:
        click.echo(line, err=err)
    except UnicodeEncodeError as error:
        click.echo(line.encode(error.encoding, "backslashreplace").decode(error.encoding), err=err)


def say(line: str) -> None:
    """A line for the person, on stderr."""
    _echo(shown(line, CELL_CHARS_MAX), err=True)


def put(line: str) -> None:
    """A line of output, control characters escaped."""
    _echo(shown(line, CELL_CHARS_MAX * 4))


def put_json(thing: object, *, default: Callable[[Any], object] = str, ensure_ascii: bool = False) -> None:
    """One JSON object, on one line, whatever its length. JSON has no NaN and no Infinity: they are text."""
    try:
        line = json.dumps(thing, default=default, ensure_ascii=ensure_ascii, allow_nan=False)
    except ValueError:
        line = json.dumps(_numbers_only(thing), default=default, ensure_ascii=ensure_ascii, allow_nan=False)
    try:
        _spoke()
        click.echo(line)
    except UnicodeEncodeError:  # a stream that is not UTF-8: escapes that JSON has are legal in it
        click.echo(json.dumps(json.loads(line)))


def _numbers_only(thing: Any) -> Any:
    if isinstance(thing, float) and not math.isfinite(thing):
        return "NaN" if math.isnan(thing) else "Infinity" if thing > 0 else "-Infinity"
    if isinstance(thing, dict):
        return {key: _numbers_only(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_numbers_only(value) for value in thing]
    return thing


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing to show") -> None:
    """Rows under column names: `>` before a name means numbers, `!` that it must not be folded. Piped, nothing is."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    if not cells:
        say(empty)
        return
    names = [name.lstrip(">!") for name in columns]
    right = [name.startswith(">") for name in columns]
    whole = [name[:1] in ">!" for name in columns]
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        widths = [max(len(row[n]) for row in [names, *cells]) for n in range(len(names))]
        for row in [[name.upper() for name in names], *cells]:
            padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
            _echo("  ".join(padded).rstrip())
        return
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, is_number, is_whole in zip(names, right, whole, strict=True):
        drawn.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_whole)
    for row in cells:
        drawn.add_row(*(RichText(cell) for cell in row))
    console.print(drawn)


def listing(
    things: Iterable[T],
    as_json: bool,
    told: Callable[[T], object],
    columns: Sequence[str],
    row: Callable[[T], Sequence[object]],
    *,
    empty: str = "nothing to show",
) -> None:
    """Things of one kind: JSON lines of what is `told` of each, or a table with a `row` of each."""
    if as_json:
        for thing in things:
            put_json(told(thing))
    else:
        table(columns, map(row, things), empty=empty)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return shown(str(value), CELL_CHARS_MAX)


def size(count: float) -> str:
    """Bytes in decimal units: `1.00 GB`."""
    if count < 1000:
        return f"{count:.0f} B"
    units = ("kB", "MB", "GB", "TB", "PB")
    power = 0
    count /= 1000
    while count >= 999.5 and power < len(units) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.0f} {units[power]}" if count >= 100 else f"{count:.2f} {units[power]}"


def duration(seconds: float) -> str:
    """`0.4 s`, `2 m 05 s`, `3 h 20 m`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} m"


def moment(at_ms: int | None) -> str:
    """ISO 8601 in UTC, to the millisecond; `-` for none."""
    if at_ms is None:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(at_s: float) -> str:
    """A moment (s of the epoch) as a person's clock shows it, with its day where that is not today."""
    at, today = time.localtime(at_s), time.localtime()
    return time.strftime("%H:%M:%S" if at[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", at)


class Outage:
    def __init__(self) -> None:
        self._away = False

    def note(self, why: str) -> None:
        """`why` no news come at present, "" while they do."""
        if why and not self._away:
            say(f"waiting for the broker: {why}")
        elif self._away and not why:
            say("the broker answers again")
        self._away = bool(why)


def draw_in_place(text: str) -> None:
    """In the place of the terminal's last line, cut to its width; "" takes that away."""
    width = max(20, Console(file=sys.stderr).width - 1)
    click.echo("\r" + text[:width] + "\x1b[K", err=True, nl=False)


class LiveLine:
    """A line on stderr: rewritten in place on a terminal, else a new line when it changed; not too often."""

    def __init__(self, live_every_s: float, plain_every_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._live = sys.stderr.isatty()
        self._every_s, self._now_s = live_every_s if self._live else plain_every_s, now_s
        self._drawn, self._drawn_at = "", -1e9

    def is_due(self) -> bool:
        return self._now_s() - self._drawn_at >= self._every_s

    def draw(self, text: str) -> None:
        text = shown(text, CELL_CHARS_MAX)
        _spoke()
        if self._live:
            draw_in_place(text)
        elif text != self._drawn:
            click.echo(text, err=True)
        self._drawn, self._drawn_at = text, self._now_s()

    def clear(self) -> None:
        """Take it away, where that can be done."""
        if self._live and self._drawn:
            draw_in_place("")
            self._drawn = ""

    def close(self) -> None:
        """What is said next begins on a new line."""
        if self._live and self._drawn:
            click.echo("", err=True)
        self._drawn = ""


class ProgressLine(LiveLine):
    """A line on stderr that follows long work.

    Rate and time left are those of the last `window_s`, and are said when there are some. Small files cost by their
    number, large ones by their bytes: each gives a time, the longer one is said. Nothing is where what is left is of
    other sizes than what moved: from a thousand small files nobody can tell how long a large one takes.
    """

    def __init__(self, label: str, *, window_s: float = _WINDOW_S, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__(_LIVE_EVERY_S, _PLAIN_EVERY_S, now_s)
        self._label, self._window_s, self._started = label, window_s, now_s()
        self._points: list[tuple[float, int, int]] = []
        """(seconds, files done, bytes done), the oldest first."""

    def show(self, files: int, total_files: int, done_bytes: int, total_bytes: int, note: str = "") -> None:
        now = self._now_s()
        self._points.append((now, files, done_bytes))
        while len(self._points) > 2 and now - self._points[1][0] >= self._window_s:
            self._points.pop(0)
        if self.is_due():
            self.draw(self._text(files, total_files, done_bytes, total_bytes, note))

    def end(
        self,
        files: int,
        total_files: int,
        done_bytes: int,
        total_bytes: int,
        note: str = "",
        *,
        seconds: float | None = None,
    ) -> None:
        """The last state, and the cursor on a new line. `seconds`: how long it took, if not since this line began."""
        took = self._now_s() - self._started if seconds is None else seconds
        rate = f" at {size(done_bytes / took)}/s" if took >= _RATE_S_MIN and done_bytes else ""
        text = f"{self._label}  {files:,}/{total_files:,} files  {size(done_bytes)} in {duration(took)}{rate}"
        self.draw(f"{text}  {note}".rstrip())
        self.close()

    def _text(self, files: int, total_files: int, done: int, total: int, note: str) -> str:
        (t0, f0, b0), (t1, f1, b1) = self._points[0], self._points[-1]
        some = t1 - t0 >= _TOLD_S
        rate = f"  {size((b1 - b0) / (t1 - t0))}/s" if some else ""
        # of the first few of very many nothing follows: one that is left may be larger than all others
        tells = some and (total_files - files <= 1 or done * _SHARE >= total or files * _SHARE >= total_files)
        left_s = _left_s(t1 - t0, f1 - f0, b1 - b0, total_files - files, total - done) if tells else None
        left = "" if left_s is None else f"  {duration(left_s)} left"
        counted = f"{files:,}/{total_files:,} files" if total_files else ""
        sizes = f"  {size(done)} of {size(total)}{rate}" if total else ""
        parts = (self._label, counted + sizes + left, note)
        return "  ".join(part for part in parts if part)


def _left_s(seconds: float, files: int, moved: int, files_left: int, bytes_left: int) -> float | None:
    """How long the rest takes, by what moved in `seconds`; None when that says nothing about it."""
    if bytes_left <= 0 or moved <= 0:
        return None
    of_moved, of_left = moved / max(1, files), bytes_left / max(1, files_left)
    if (files_left > 1 and of_moved > of_left * _ALIKE) or (files and files_left and of_moved < of_left / _ALIKE):
        return None
    return max(bytes_left * seconds / moved, files_left * seconds / files if files else 0.0)


def labelled(labels: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`labels`, then `values`. A label whose name a value has too gets `_` in front, until it hides nothing."""
    found: dict[str, Any] = {}
    for label, value in labels.items():
        while label in values or label in found:
            label = f"_{label}"
        found[label] = value
    return {**found, **values}


def plain(thing: Any) -> Any:
    """A frozen record as JSON can carry it: names as text, ranges as [start, stop) pairs, bytes as hex."""
    if isinstance(thing, Ranges):
        return [list(span) for span in thing]
    if is_dataclass(thing) and not isinstance(thing, type):
        return {field.name: plain(getattr(thing, field.name)) for field in fields(thing)}
    if isinstance(thing, bytes):
        return thing.hex()
    if isinstance(thing, list | tuple):
        return [plain(one) for one in thing]
    return str(thing) if isinstance(thing, str) else thing
