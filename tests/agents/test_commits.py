"""What a consumer may commit: past holes at once, past nothing that is open. Faust's own bookkeeping, ours in it."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

from faust.transport.consumer import Consumer
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from agents.durable import _new_offset

PLACE = TP("t", 0)


class _Message:
    """What a consumer needs of a message that it delivered."""

    def __init__(self, offset: int) -> None:
        self.topic, self.tp, self.offset, self.acked = PLACE.topic, PLACE, offset, False


class _World:
    """A partition's consumer and what its streams hold."""

    def __init__(self) -> None:
        topics = SimpleNamespace(acks_enabled_for=lambda _: True)
        self.consumer: Any = SimpleNamespace(
            _acked=defaultdict(list),
            _acked_index=defaultdict(set),
            _gap=defaultdict(set),
            _committed_offset=defaultdict(lambda: None),
            _unacked_messages=set(),
            _n_acked=0,
            _waiting_for_ack=None,
            app=SimpleNamespace(topics=topics),
        )
        self.open: list[_Message] = []
        self.done: set[int] = set()
        self.committed = 0

    def deliver(self, offset: int) -> None:
        self.open.append(_Message(offset))
        self.consumer._gap[PLACE].add(offset)

    def ack(self, pick: int) -> None:
        message = self.open.pop(min(pick, len(self.open) - 1))
        Consumer.ack(self.consumer, message)  # type: ignore[arg-type]
        self.done.add(message.offset)

    def commit(self) -> None:
        if (offset := _new_offset(self.consumer, PLACE)) is not None:
            self.committed = max(self.committed, offset)
            self.consumer._committed_offset[PLACE] = self.committed
        assert all(m.offset >= self.committed for m in self.open if m.offset not in self.done)


@given(
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.lists(st.sampled_from(["deliver", "again", "ack", "commit"]), max_size=80),
    st.integers(0, 3),
)
def test_a_commit_never_passes_what_is_open_and_reaches_the_end_at_once(
    holes: list[bool], steps: list[str], pick: int
) -> None:
    """`pick`: which of the open messages is done next; streams take them in order, this must not need it.

    `again`: a rebalance delivers what was delivered before, committed or not.
    """
    world = _World()
    coming = [offset for offset, hole in enumerate(holes) if not hole]
    delivered: list[int] = []
    last = coming[-1] + 1 if coming else 0
    for step in steps:
        if step == "deliver" and coming:
            delivered.append(coming.pop(0))
            world.deliver(delivered[-1])
        elif step == "again" and delivered:
            world.deliver(delivered[-1 - min(pick, len(delivered) - 1)])
        elif step == "ack" and world.open:
            world.ack(pick)
        elif step == "commit":
            world.commit()
    for offset in coming:
        world.deliver(offset)
    while world.open:
        world.ack(0)
    world.commit()
    assert world.committed == last
    for left in (world.consumer._acked, world.consumer._acked_index, world.consumer._gap):
        assert not left[PLACE]


def test_what_is_delivered_again_behind_its_commit_holds_nothing_up() -> None:
    """Seen: after a rebalance a partition was heard and never committed again, until the worker was restarted."""
    world = _World()
    world.deliver(0)
    world.ack(0)
    world.commit()
    world.deliver(0)
    world.deliver(1)
    world.ack(0)
    world.ack(0)
    world.commit()
    assert world.committed == 2
