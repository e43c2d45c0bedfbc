"""The machines' states and what moves rows between them, drawn by running the real folds over facts in every order.

`draw` is the text between the markers of docs/DESIGN.md; `python -m tests.state_pictures` writes it there anew.
A history is a set of facts that the product's own writers can say of one row. Every order of it is folded, repeats
included, so that the picture has what a mirror or a row that fell back can do, and nothing that nobody ever says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from streams.core import intent as intents
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.manifest import Manifest
from streams.core.ranges import EMPTY, Ranges
from tests.core import example as x

DESIGN = Path(__file__).parents[1] / "docs" / "DESIGN.md"
BEGIN = "<!-- begin of the states: `python -m tests.state_pictures` writes them -->"
END = "<!-- end of the states -->"

R = TypeVar("R")
Moves = dict[tuple[StrEnum, StrEnum], set[str]]
"""Facts that move a row from a state to another."""

BODY = x.written()
INDEX = Manifest(BODY).index
WHOLE, ONE, BOTH = Ranges([(0, 150)]), Ranges.of(0), Ranges.of(0, 1)


def intent_histories() -> Iterator[list[m.Message]]:
    """What may be said of an intent with two manifests: by who asks, its home, its source and its destination."""
    manifests = x.chain(2)
    ends = [x.completed(one.manifest) for one in manifests]
    stopped = [ends[0], x.completed(manifests[1].manifest, cancelled=ONE)]
    accepted, cancelled = x.decided(1), x.decided(2, m.Verdict.CANCELLED)
    asked: list[m.Message] = [x.body(), x.cancel(), x.close(), x.raised(7)]
    yield [*asked, x.decided(1, m.Verdict.REFUSED, source=None)]
    yield [*asked, x.decided(1, m.Verdict.CANCELLED, source=None)]
    yield [*asked, accepted, x.decided(2, priority=7), *manifests, *ends, x.reported()]
    yield [*asked, accepted, cancelled, *manifests, *ends]
    yield [*asked, accepted, cancelled, *manifests, *stopped]
    answers = [x.answered(), x.approval(m.Asked.DENY), x.answered(m.Answer.DENIED, 2)]
    yield [x.body(), accepted, *answers]
    removal = x.removal()
    taken = m.IntentDecided(x.INTENT, 1, m.Verdict.ACCEPTED, removal, None, 0, 5)
    yield [removal, x.cancel(), taken, x.removed(going=1, last=False), x.removed()]


def transfer_histories() -> Iterator[list[m.Message]]:
    """What may be said of a transfer of two items by its destination's agents and planes."""
    planned: list[m.Message] = [x.planned(BODY), x.told(2, priority=7)]
    work: list[m.Message] = [x.opened(), x.requested(1, WHOLE, of=BODY), x.expired(1), x.progress(WHOLE)]
    attempts: list[m.Message] = [x.opened(), x.lost(), x.opened(2), x.progress(Ranges([(0, 100)]), attempt=2)]
    gone: list[m.Message] = [x.progress(failed=(x.failed("gone", 1),))]
    stopped = x.completed(cancelled=ONE)
    yield [*planned, *work, x.source_failed(1), x.progress(EMPTY, BOTH), x.closed()]
    yield [*planned, *attempts, x.progress(WHOLE, BOTH, attempt=2), x.closed()]
    yield [*planned, x.requested(1, WHOLE, of=BODY), x.opened(1, BOTH), x.closed()]
    fixed = x.completed(failed=(x.failed("gone", 1),))
    yield [*planned, *work, x.progress(sealed=ONE), *gone, x.closed(fixed, acknowledged=False), x.closed(fixed)]
    for verdict in (m.Verdict.CANCELLED, m.Verdict.SUPERSEDED):
        ends = [x.closed(stopped, acknowledged=False), x.closed(stopped)]
        yield [*planned, *work, x.told(3, verdict), x.progress(sealed=Ranges.of(1)), x.lost(stopped=True), *ends]


def moves(
    histories: Iterable[Sequence[m.Message]], fold: Callable[[R | None, m.Message], R], state: Callable[[R], StrEnum]
) -> Moves:
    """Every change of state in every order of each history."""
    found: Moves = {}
    for facts in histories:
        seen: set[R] = set()
        rows: list[R | None] = [None]
        while rows:
            reached: list[R | None] = []
            for row in rows:
                for fact in facts:
                    after = fold(row, fact)
                    before = state(row) if row is not None else None
                    if before is not None and state(after) is not before:
                        found.setdefault((before, state(after)), set()).add(type(fact).__name__)
                    if after not in seen:
                        seen.add(after)
                        reached.append(after)
            rows = reached
    return found


def fold_intent(row: intents.IntentRow | None, fact: m.Message) -> intents.IntentRow:
    return intents.fold(row or intents.IntentRow(x.INTENT), fact, x.B)  # type: ignore[arg-type]


def fold_transfer(row: transfers.TransferRow | None, fact: m.Message) -> transfers.TransferRow:
    row = row or transfers.TransferRow(x.MANIFEST)
    has_manifest = row.planned or isinstance(fact, m.TransferPlanned)
    return transfers.fold(row, fact, INDEX if has_manifest else None)  # type: ignore[arg-type]


def drawn(states: type[StrEnum], found: Moves) -> str:
    """A Mermaid diagram: a line for each pair of states, in the order in which the machine names them."""
    order = list(states)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {order[0]}"]
    for before, after in sorted(found, key=lambda pair: (order.index(pair[0]), order.index(pair[1]))):
        lines.append(f"    {before} --> {after} : {', '.join(sorted(found[before, after]))}")
    return "\n".join([*lines, "```"])


def draw() -> str:
    """What stands between the markers."""
    of_intents = moves(intent_histories(), fold_intent, lambda row: row.state)
    of_transfers = moves(transfer_histories(), fold_transfer, lambda row: row.state)
    return "\n\n".join(
        [
            "An intent (`streams/core/intent.py`):",
            drawn(intents.State, of_intents),
            "A transfer (`streams/core/transfer.py`):",
            drawn(transfers.State, of_transfers),
        ]
    )


def split(text: str) -> tuple[str, str, str]:
    """The document before, between and behind the markers."""
    before, begin, rest = text.partition(BEGIN)
    between, end, behind = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DESIGN} lacks the markers {BEGIN} and {END}")
    return f"{before}{begin}\n", between.strip("\n"), f"\n{end}{behind}"


if __name__ == "__main__":
    before, _, behind = split(DESIGN.read_text())
    DESIGN.write_text(before + draw() + behind)
