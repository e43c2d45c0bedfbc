"""The same work in several processes at once: each is given its part, and what each answers is handed back in order.

A process ends with its parent, however that ends, and with the first of them that fails.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple, TypeVar, cast

from streams import waits
from streams.errors import Temporary, Transfer2goError

W = TypeVar("W")
A = TypeVar("A")
_ENDED_S = 10.0


class _Failure(NamedTuple):
    """An error as it crosses a pipe: errors of ours do not come back whole from a pickle."""

    kind: type[Transfer2goError]
    what: str
    where: str
    next: str


def in_processes(run: Callable[[W], A], parts: Sequence[W], what: str) -> Iterator[A]:
    """What `run`, a function of a module, answers to each part. `what`: all of them do, for who waits.

    Raises what one raised, Temporary where one died.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share this process's clients of Kafka
    children: list[tuple[SpawnProcess, Connection]] = []
    try:
        for part in parts:
            mine, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_answer, args=(run, part, theirs), daemon=True)
            child.start()
            theirs.close()
            children.append((child, mine))
        for child, mine in children:
            with waits.on(what):
                try:
                    answer = mine.recv()
                except EOFError as error:
                    child.join(_ENDED_S)
                    words = f"a process that was to read journals ended with {child.exitcode}"
                    raise Temporary(words, next="try again, or with fewer --processes") from error
            if isinstance(answer, _Failure):
                raise answer.kind(answer.what, answer.where, answer.next)
            yield cast(A, answer)
    finally:
        for child, mine in children:
            mine.close()
            child.kill()
            child.join(_ENDED_S)


def _answer(run: Callable[[W], A], part: W, to: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the parent says so, and ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer: A | _Failure
    try:
        answer = run(part)
    except Transfer2goError as error:
        answer = _Failure(type(error), error.what, error.where, error.next)
    except Exception as error:  # noqa: BLE001  told by the parent, in one line
        answer = _Failure(Transfer2goError, f"{type(error).__name__}: {error}", "", "")
    with suppress(BrokenPipeError):
        to.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
