"""What a consumer commits: past holes at once, past nothing that is open, and again what was refused. Faust's own
bookkeeping, ours in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Coroutine, Generator
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.consumer import Consumer
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from agents.faust_fixes import _commit_offsets, _new_offset

PLACE = TP("t", 0)
STEPS = ("take", "again", "ack", "commit", "begin", "taken", "refused", "rebalance", "rebalance, held")


class _Message:
    """What a consumer needs of a message that it delivered."""

    def __init__(self, offset: int) -> None:
        self.topic, self.tp, self.offset, self.acked = PLACE.topic, PLACE, offset, False


class _OnItsWay:
    """A commit that the broker has not answered yet."""

    def __await__(self) -> Generator[None, bool, bool]:
        return (yield)


async def _nothing() -> None: ...


class _World:
    """A broker with one partition, its consumer, and what its streams hold."""

    def __init__(self, offsets: list[int]) -> None:
        self.offsets = offsets
        self.coming = list(offsets)
        self.delivered: list[int] = []
        self.open: list[_Message] = []
        self.done: set[int] = set()
        self.committed: int | None = None
        """As the broker has it."""
        self._asked = 0
        self._committing: Coroutine[None, bool, bool] | None = None
        self._generation = self._asked_in = 0
        self._is_over = False
        """The group's generation: a rebalance will follow."""
        app = SimpleNamespace(
            topics=SimpleNamespace(acks_enabled_for=lambda _: True),
            producer=SimpleNamespace(flush=_nothing),
            tables=SimpleNamespace(on_commit=lambda _: None),
            monitor=SimpleNamespace(on_tp_commit=lambda _: None),
        )
        self.consumer: Any = SimpleNamespace(
            _acked=defaultdict(list),
            _acked_index=defaultdict(set),
            _gap=defaultdict(set),
            _committed_offset=defaultdict(lambda: None),
            _unacked_messages=set(),
            _n_acked=0,
            _waiting_for_ack=None,
            assignment=lambda: {PLACE},
            _commit=self._ask,
            app=app,
        )

    def _ask(self, offsets: dict[TP, int]) -> _OnItsWay:
        self._asked = offsets[PLACE]
        return _OnItsWay()

    def deliver(self, offset: int) -> None:
        self.open.append(_Message(offset))
        self.consumer._gap[PLACE].add(offset)

    def take(self) -> None:
        if self.coming:
            self.delivered.append(self.coming.pop(0))
            self.deliver(self.delivered[-1])

    def ack(self, pick: int) -> None:
        if self.open:
            message = self.open.pop(min(pick, len(self.open) - 1))
            Consumer.ack(self.consumer, message)  # type: ignore[arg-type]
            self.done.add(message.offset)

    def begin(self) -> None:
        """Asks the broker for a commit, if none is on its way."""
        if self._committing is not None:
            return
        offset = _new_offset(self.consumer, PLACE)
        if offset is not None and Consumer._should_commit(self.consumer, PLACE, offset):
            self._asked_in = self._generation
            self._committing = _commit_offsets(self.consumer, {PLACE: offset})
            self._committing.send(None)  # type: ignore[arg-type]

    def end(self, answer: bool) -> None:
        """The broker's answer: it took the commit, or the group has another generation, or will have."""
        if self._committing is not None:
            if answer:
                self.committed = self._asked
                assert self.done >= {offset for offset in self.offsets if offset < self._asked}
            elif self._asked_in == self._generation:
                self._is_over = True
            committing, self._committing = self._committing, None
            with pytest.raises(StopIteration) as ended:
                committing.send(answer)
            assert ended.value.value is answer

    def rebalance(self, held: bool) -> None:
        """All is forgotten but what the stream has in hand, and read again from where the broker knows of."""
        self._generation, self._is_over = self._generation + 1, False
        for kept in ("_gap", "_acked", "_acked_index", "_committed_offset"):
            getattr(self.consumer, kept).pop(PLACE, None)
        self.open = self.open[:1] if held else []
        self.coming = [offset for offset in self.offsets if offset >= (self.committed or 0)]
        if self.committed is not None:
            self.consumer._committed_offset[PLACE] = self.committed

    def finish(self) -> None:
        """All is delivered and done, and the broker takes the next commit."""
        self.end(False)
        if self._is_over:
            self.rebalance(held=False)
        while self.coming:
            self.take()
        while self.open:
            self.ack(0)
        self.begin()
        self.end(True)


@given(
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.lists(
        st.sampled_from(STEPS),
        max_size=80,
    ),
    st.integers(0, 3),
)
def test_a_commit_never_passes_what_is_open_and_reaches_the_end_at_once(
    holes: list[bool], steps: list[str], pick: int
) -> None:
    """`pick`: which of the open messages is done next; streams take them in order, this must not need it.

    `again`: a rebalance delivers what was delivered before, committed or not. `begin`: a commit that is answered later,
    perhaps behind a rebalance.
    """
    world = _World([offset for offset, hole in enumerate(holes) if not hole])
    for step in steps:
        match step:
            case "take":
                world.take()
            case "again" if world.delivered:
                world.deliver(world.delivered[-1 - min(pick, len(world.delivered) - 1)])
            case "ack":
                world.ack(pick)
            case "begin" | "commit":
                world.begin()
            case "rebalance" | "rebalance, held":
                world.rebalance("held" in step)
        if step in ("commit", "taken", "refused"):
            world.end(step != "refused")
    world.finish()
    assert (world.committed or 0) == (world.offsets[-1] + 1 if world.offsets else 0)
    for left in (world.consumer._acked, world.consumer._acked_index, world.consumer._gap):
        assert not left[PLACE]


def test_what_is_delivered_again_behind_its_commit_holds_nothing_up() -> None:
    """Seen: after a rebalance a partition was heard and never committed again, until the worker was restarted."""
    world = _World([0, 1])
    world.take()
    world.ack(0)
    world.begin()
    world.end(True)
    world.deliver(0)
    world.take()
    world.ack(0)
    world.ack(0)
    world.begin()
    world.end(True)
    assert world.committed == 2


def test_a_commit_that_is_refused_behind_a_rebalance_is_made_again() -> None:
    """Seen: a broker stood still meanwhile; what was delivered again was heard and never committed."""
    world = _World([0, 1])
    for _ in range(2):
        world.take()
        world.ack(0)
    world.begin()
    world.rebalance(held=False)
    world.end(False)
    world.finish()
    assert world.committed == 2
