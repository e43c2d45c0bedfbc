"""What cannot be told or listed ends with its reason, in a manifest that every gate takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams import wire
from streams.core import records as m
from streams.core.commands import WriteManifests
from streams.errors import NeverWorks, StorageError, Temporary, WireError
from streams.planes.inventory.unlisted import INTENTS_MAX, UNLISTED, Unlisted, sayable
from tests.core import example as x

COMMAND = WriteManifests(x.body(), 0, 3, "ab" * 32, "at")


def test_an_item_that_the_gate_refuses_fails_with_the_reason_and_the_others_stay() -> None:
    good, bad, other = x.item(0, 10), replace(x.item(1, 10), version="naïve"), replace(x.item(2, 10), length=7)
    body = replace(x.written(0, [good]), items=(good, bad, other))
    with pytest.raises(WireError):
        wire.encode(body)
    told = sayable(body.items)
    assert told[0] == good
    assert [item.lfn for item in told] == [item.lfn for item in body.items]
    assert told[1].reason is not None
    assert "version" in told[1].reason.text
    assert told[2].reason is not None
    assert "length" in told[2].reason.text
    again = replace(body, items=tuple(told))
    assert wire.decode_value(m.ManifestWritten, wire.encode(again)) == again
    assert sayable(told) == told


@pytest.mark.parametrize("error", [ValueError("odd"), NeverWorks("never"), StorageError("x", failure_class="data-bad")])
def test_what_fails_the_same_way_twice_ends(error: Exception) -> None:
    unlisted = Unlisted(x.C)
    assert unlisted.failed(COMMAND, 3, "ab" * 32, error) is None
    end = unlisted.failed(COMMAND, 3, "ab" * 32, error)
    assert end is not None
    assert (end.no, end.prev_sha256, end.last, end.source) == (3, "ab" * 32, True, x.C)
    (item,) = end.items
    assert item.lfn == UNLISTED
    assert item.reason is not None
    assert str(error) in item.reason.text
    assert wire.decode_value(m.ManifestWritten, wire.encode(end)) == end


@pytest.mark.parametrize(
    "error",
    [
        Temporary("the view is not there"),
        OSError("disk"),
        MemoryError(),
        Exception("rocksdb: IO error"),
        StorageError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_be_mended_ends_nothing(error: Exception) -> None:
    unlisted = Unlisted(x.C)
    for _ in range(5):
        assert unlisted.failed(COMMAND, 3, "ab" * 32, error) is None


def test_another_failure_counts_anew_and_memory_is_bounded() -> None:
    unlisted = Unlisted(x.C)
    for number in range(4):
        assert unlisted.failed(COMMAND, 3, "ab" * 32, ValueError(str(number))) is None
    for number in range(INTENTS_MAX + 5):
        other = replace(COMMAND, body=replace(x.body(), intent=x.IntentId(f"{x.INTENT[:-4]}{number:04x}")))
        assert unlisted.failed(other, 0, "", ValueError("odd")) is None
    assert len(unlisted._last) == INTENTS_MAX


def test_what_worked_in_between_has_failed_once() -> None:
    unlisted = Unlisted(x.C)
    for _ in range(3):
        assert unlisted.failed(COMMAND, 3, "ab" * 32, ValueError("odd")) is None
        unlisted.worked(COMMAND)
