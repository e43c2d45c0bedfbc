"""What came, went and changed between two points of the past, as people and programs see it: a page at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from streams.cli import piped, screen
from streams.views.differences import Change, Difference
from streams.views.rows import Entry


def show(found: Iterator[Difference], most: int, as_json: bool) -> None:
    """The first by name, about `most` and whole files only, then on stderr how many there are of each change."""
    counts: Counter[Change] = Counter()
    page: list[Difference] = []
    last = ""
    for one in found:
        counts[one.change] += 1
        if not last and len(page) >= most and one.lfn != page[-1].lfn:
            last = page[-1].lfn
        if not last:
            page.append(one)
    with piped.to_its_end():
        screen.listing(
            page,
            as_json,
            _as_object,
            ("!change", "lfn", "site", "block", ">bytes", "adler32", "was"),
            _row,
            empty="no file came, went or changed",
        )
    screen.say(", ".join(f"{counts[change]:,} {change}" for change in Change))
    if last:
        screen.say(f"{len(page):,} shown; go on with --after {last}")


def _row(one: Difference) -> tuple[object, ...]:
    entry, before = one.entry, one.before
    was = _in_words(before) if before is not None and one.change is Change.CHANGED else None
    return one.change, one.lfn, entry.site, _block(entry), entry.bytes, entry.adler32, was


def _in_words(entry: Entry) -> str:
    return f"{entry.bytes:,} bytes, adler32 {entry.adler32}, in {_block(entry)}"


def _block(entry: Entry) -> str:
    return f"{entry.dataset}#{entry.block}"


def _as_object(one: Difference) -> dict[str, object]:
    return {
        "change": one.change,
        "lfn": one.lfn,
        "site": one.entry.site,
        "dataset": one.entry.dataset,
        "before": _held(one.before),
        "after": _held(one.after),
    }


def _held(entry: Entry | None) -> dict[str, object] | None:
    return None if entry is None else {"block": _block(entry), "bytes": entry.bytes, "adler32": entry.adler32}
