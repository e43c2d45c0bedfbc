"""Which dark files may go, by what was noted of them."""

from __future__ import annotations

import pytest

from streams.consistency import dark

DAY_MS = 86_400_000


def test_what_was_noted_is_read_back_whatever_the_names_are() -> None:
    seen = {path: dark.Seen(n, f"{n}:1:2") for n, path in enumerate(["store/a", "two\nlines", "\udcff.dat", '"{', "é"])}
    assert dark.parse(dark.packed(seen)) == seen
    assert dark.packed(seen) == dark.packed(dict(reversed(seen.items())))


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[1]", b'["1", "v", "p"]', b"[1, 2, 3]", b"\xff\xfe", b'[1, "v", "p"', b"null"]
)
def test_a_line_that_is_none_is_passed_over(line: bytes) -> None:
    good = dark.packed({"store/a": dark.Seen(5, "v")})
    assert dark.parse(line + b"\n" + good) == {"store/a": dark.Seen(5, "v")}


def test_nothing_was_noted() -> None:
    assert dark.parse(None) == {}


@pytest.mark.parametrize(
    ("path", "version", "now_ms", "since_ms"),
    [
        ("store/a", "v", 20, 10),
        ("store/a", "other", 20, 20),
        ("store/b", "v", 20, 20),
        ("store/a", "v", 5, 5),  # it was noted by a clock that was ahead
    ],
)
def test_since_when_it_is_seen_as_it_is(path: str, version: str, now_ms: int, since_ms: int) -> None:
    assert dark.seen_since({"store/a": dark.Seen(10, "v")}, path, version, now_ms) == since_ms


def test_a_week() -> None:
    assert not dark.is_due(1, 7 * DAY_MS)
    assert dark.is_due(0, 7 * DAY_MS)


@pytest.mark.parametrize(("count", "names", "many"), [(5, 100, False), (6, 100, True), (1, 19, True), (0, 0, False)])
def test_more_than_a_twentieth_are_too_many(count: int, names: int, many: bool) -> None:
    assert dark.too_many(count, names) is many
