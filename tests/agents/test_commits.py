"""What a consumer may commit: past holes at once, past nothing that is open. Faust's own bookkeeping, ours in it."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from agents.durable import _new_offset

PLACE = TP("t", 0)


def _consumer() -> Any:
    return SimpleNamespace(_acked=defaultdict(list), _acked_index=defaultdict(set), _gap=defaultdict(set))


def _ack(consumer: Any, offset: int) -> None:
    consumer._acked[PLACE].append(offset)
    consumer._acked_index[PLACE].add(offset)


@given(
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.lists(st.sampled_from(["deliver", "ack", "commit"]), max_size=80),
    st.integers(0, 3),
)
def test_a_commit_never_passes_what_is_open_and_reaches_the_end_at_once(
    holes: list[bool], steps: list[str], pick: int
) -> None:
    """`pick`: which of the open messages is done next; streams take them in order, this must not need it."""
    consumer, committed = _consumer(), 0
    coming = [offset for offset, hole in enumerate(holes) if not hole]
    opened: list[int] = []
    last = coming[-1] + 1 if coming else 0

    def commit() -> None:
        nonlocal committed
        if (offset := _new_offset(consumer, PLACE)) is not None:
            committed = max(committed, offset)
        assert all(offset >= committed for offset in opened)

    for step in steps:
        if step == "deliver" and coming:
            opened.append(coming.pop(0))
            consumer._gap[PLACE].add(opened[-1])
        elif step == "ack" and opened:
            _ack(consumer, opened.pop(min(pick, len(opened) - 1)))
        elif step == "commit":
            commit()
    for offset in opened + coming:
        consumer._gap[PLACE].add(offset)
        _ack(consumer, offset)
    opened.clear()
    commit()
    assert committed == last
    assert not consumer._acked[PLACE]
    assert not consumer._acked_index[PLACE]
    assert not consumer._gap[PLACE]
