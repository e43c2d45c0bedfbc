"""Points of the past in a user's words: an instant, or a cut that `audit digest --json` printed into a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from streams.auditing.digesting import read_cut
from streams.auditing.points import Instant, KeptCut, PastPoint
from streams.cli import screen
from streams.core.names import shown
from streams.errors import NotFound, UsageError

_F = TypeVar("_F", bound=Callable[..., Any])
_DIGEST_CHARS = 12


def in_words(point: PastPoint) -> str:
    if isinstance(point, Instant):
        return moment(point.at_ms)
    assert isinstance(point, KeptCut)
    return f"the cut {point.cut.digest[:_DIGEST_CHARS]}"


def tell(point: PastPoint) -> None:
    """Say which positions it became, once all was read at one site."""
    ends = sorted(point.ends.items())
    places = ", ".join(f"{topic}[{partition}]@{end}" for (_, topic, partition), end in ends)
    screen.say(f"as of {in_words(point)}, " + (f"which is the cut {places}" if places else "when nothing was written"))
    if isinstance(point, KeptCut) and (lacking := point.lacking):
        words = f"{lacking[0]}" + (f" and {len(lacking) - 1} more journals" if len(lacking) > 1 else "")
        screen.say(f"here are fewer records of {words} than in the cut: a mirror lags, or they are gone")


def check_any(point: PastPoint) -> None:
    """NotFound where the point is before the first record of all that was read."""
    if not point.ends:
        first = "" if point.first_ms is None else f"; the first record is of {moment(point.first_ms)}"
        raise NotFound(f"nothing was written by {in_words(point)}{first}")


def moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def instant(text: str, name: str) -> int:
    """A time as ISO 8601 has it, of UTC where it names no zone, in ms of the epoch; of before 1970 its first moment.

    UsageError for other words and for what is to come. `name`: of the option or argument.
    """
    return _instant(text, name, "is no instant", "use a time as 2026-11-30T14:00:00Z")


def _instant(text: str, name: str, fault: str, next: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{shown(text)!r} {fault}", name, next) from error
    at_ms = int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
    if at_ms > time.time() * 1000:
        raise UsageError(f"{text} is in the future", name, "what is to come is in no journal yet")
    return max(0, at_ms)


def parsed(text: str, name: str = "--as-of") -> PastPoint:
    """An instant, or the cut in a file of this name. UsageError for what is neither."""
    with suppress(OSError):  # of words that are too long to be a name
        if (path := Path(text)).is_file():
            return KeptCut(read_cut(path))
    how = "use a time as 2026-11-30T14:00:00Z, or a file that `transfer2go audit digest --json` printed"
    return Instant(_instant(text, name, "is no instant, and no file with a cut", how))


def in_order(earlier: PastPoint, later: PastPoint) -> None:
    """UsageError where two instants stand the other way round; of cuts that shows while journals are read."""
    if isinstance(earlier, Instant) and isinstance(later, Instant) and earlier.at_ms > later.at_ms:
        raise behind(earlier, later)


def behind(earlier: PastPoint, later: PastPoint) -> UsageError:
    return UsageError(f"{in_words(earlier)} is behind {in_words(later)}", next="give the earlier of the two first")


def point_option(name: str, words: str) -> Callable[[_F], _F]:
    """An option that takes a point of the past."""
    return click.option(
        name,
        metavar="INSTANT|CUT",
        callback=lambda _ctx, _param, value: None if value is None else parsed(value, name),
        help=words,
    )


def as_of_option(command: _F) -> _F:
    words = "As the journals here stood then, a time as 2026-11-30T14:00:00Z: they are read from their beginning."
    return point_option("--as-of", words)(command)
