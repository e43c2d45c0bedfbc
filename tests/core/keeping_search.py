"""Breadth-first search over every interleaving of a world's moves: the shortest history that leads to a fault, or none.

A world says where it starts, what may happen next, and what is wrong with a state. States that a world calls alike
(`key`) are searched once; each world says why they are alike. No state is left out silently: a search that would pass
`states_max` raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S")


class World(Protocol[S]):
    def start(self) -> S: ...

    def key(self, state: S) -> Hashable: ...

    def moves(self, state: S) -> Iterator[tuple[str, S]]:
        """What may happen next, in words, and the state after it."""

    def fault(self, state: S) -> str | None: ...


@dataclass(frozen=True)
class Found(Generic[S]):
    """`states`: how many were searched. `fault`: the first that was met, "" for none, and the history to it."""

    states: int
    fault: str = ""
    history: tuple[str, ...] = ()
    state: S | None = None


def search(world: World[S], states_max: int = 400_000) -> Found[S]:
    start = world.start()
    parents: dict[Hashable, tuple[Hashable, str] | None] = {world.key(start): None}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        here = world.key(state)
        if (fault := world.fault(state)) is not None:
            return Found(len(parents), fault, _history(parents, here), state)
        for words, after in world.moves(state):
            key = world.key(after)
            if key not in parents:
                parents[key] = (here, words)
                waiting.append(after)
        if len(parents) > states_max:
            raise AssertionError(f"more than {states_max} states: the search is not whole")
    return Found(len(parents))


def _history(parents: dict[Hashable, tuple[Hashable, str] | None], key: Hashable) -> tuple[str, ...]:
    out: list[str] = []
    while (step := parents[key]) is not None:
        key, words = step
        out.append(words)
    return tuple(reversed(out))
