"""One site's desk with tables that are dicts; the log and the plane are lists of what was sent and told.

The desk, turns, clock, effects, gate and core are the product's own. Time stands still until a test moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agents import rows
from agents.clock import Clock
from agents.desk import Desk
from agents.effects import Acknowledged, Effects
from agents.turn import Turns, intent_of
from streams import wire
from streams.core import meaning, topics
from streams.core import messages as m
from streams.core.intent import IntentRow
from streams.core.names import IntentId, ManifestId, Site
from streams.core.policy import Policy
from streams.core.routing import Found, decide
from streams.core.transfer import TransferRow
from streams.errors import Temporary
from streams.planes import orders
from tests.core import example as x

PARTITIONS = 8
T = TypeVar("T")


class Dict(dict[str, bytes]):
    """A table; `broken` makes the next put raise."""

    broken: Exception | None = None
    puts = 0
    of_intents = False
    """Whose keys the intent owns: `waiting`'s."""

    def put(self, key: str, row: bytes) -> None:
        if self.broken is not None:
            error, self.broken = self.broken, None
            raise error
        self.puts += 1
        self[key] = row

    def delete(self, key: str) -> None:
        self.pop(key, None)

    def keys(self, partition: int, prefix: str) -> Iterator[str]:  # type: ignore[override]
        owner_of = intent_of if self.of_intents else rows.owner_of
        found = sorted(key for key in self if key.startswith(prefix))
        yield from (key for key in found if topics.partition_of(owner_of(key), PARTITIONS) == partition)


@dataclass
class Log:
    """The publish gate: `full` refuses, acknowledgements come when a test gives them."""

    sent: list[m.Message] = field(default_factory=list)
    acks: list[Acknowledged] = field(default_factory=list)
    full: bool = False
    broken: Exception | None = None

    def send(self, message: m.Message | wire.Framed, on_ack: Acknowledged | None = None) -> None:
        if self.full:
            raise Temporary("buffer full")
        if self.broken is not None:
            raise self.broken
        if isinstance(message, wire.Framed):
            message = wire.decode_value(message.cls, message.value)
        wire.encode(message)
        self.sent.append(message)
        if on_ack is not None:
            self.acks.append(on_ack)


@dataclass
class Plane:
    """A plane's pipe: `full` drops."""

    writer: str = "plane-0-1"
    told: list[orders.Order] = field(default_factory=list)
    full: bool = False

    def tell(self, order: orders.Order) -> bool:
        if not self.full:
            self.told.append(order)
        return not self.full


@dataclass
class Catalogue:
    """Consulted at once, in the same thread: every selection is two files at C, unless a test says otherwise."""

    log: Log
    what: Found = field(default_factory=lambda: Found(2, {x.C: (2, 150)}, ()))
    waited: bool = False

    def then(self, key: object, act: Callable[[], object]) -> None:
        act()

    def decide(self, body: m.TransferIntent) -> None:
        decision = decide(body, self.what, (x.A, x.B, x.C), (x.A, x.B, x.C), waited=self.waited)
        if decision is not None:
            self.log.send(decision)


class Rig:
    """A worker of `here` that owns every partition and has caught up."""

    def __init__(self, here: Site = x.B, policy: Policy | None = None, *, awake: bool = True) -> None:
        self.here = here
        self.now_ms = 1_000_000
        self.tables = {name: Dict() for name in rows.NAMES}
        self.tables["waiting"].of_intents = True
        self.policy = policy or Policy()
        self.offset = 0
        self.letters: list[m.DeadLetter] = []
        self.sit(awake=awake)

    def sit(self, *, awake: bool = True) -> None:
        """A new worker process over the same tables."""
        self.log, self.plane = Log(), Plane()
        self.turns = Turns(rows.Tables(**self.tables), self.here)
        clock: Callable[[], int] = lambda: self.now_ms  # noqa: E731
        self.catalogue = Catalogue(self.log)
        self.effects = Effects(self.here, self.policy, self.log, self.plane, self.catalogue, self.turns, clock)
        self.elapsed_s = 0.0
        self.clock = Clock(self.here, self.policy, PARTITIONS, self.effects, clock, lambda: self.elapsed_s)
        self.desk = Desk(self.here, self.turns, self.clock, self.effects, self.plane, clock)
        for partition in range(PARTITIONS):
            self.clock.own(partition)
            if awake:
                self.wake(partition)
        self.plane.told.clear()

    def wake(self, partition: int) -> None:
        for _ in self.desk.waking(partition):
            pass
        self.desk.tick()

    def wake_all(self) -> None:
        for partition in range(PARTITIONS):
            self.wake(partition)

    def record(self, message: m.Message, writer: str = "worker-0") -> dict[str, Any]:
        """The record as it stands in a journal here: local, or the copy of its author's."""
        author = meaning.author(message) or self.here
        key = topics.key_of(message)
        raw = key if isinstance(key, bytes) else key.encode()
        name = topics.topic_of(message)
        self.offset += 1
        return {
            "topic": name if author == self.here else topics.remote(author, name),
            "partition": topics.partition_of(raw, PARTITIONS),
            "offset": self.offset,
            "key": raw,
            "value": wire.encode(message),
            "headers": wire.headers(message, m.Origin(author, writer, "i", self.offset, self.now_ms)),
        }

    def hear(self, *messages: m.Message, writer: str = "worker-0") -> None:
        for message in messages:
            letter = self.desk.hear(**self.record(message, writer))
            if letter is not None:
                self.letters.append(letter)

    def opened(self, manifest: ManifestId = x.MANIFEST, attempt: int = 1) -> None:
        """The present plane says that it holds the part."""
        self.hear(x.opened(attempt, manifest=manifest), writer=self.plane.writer)

    def after(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)
        self.desk.tick()

    def take(self, kind: type[T]) -> list[T]:
        """What was sent or told of this kind since it was last taken."""
        lists: list[list[Any]] = [self.log.sent, self.plane.told]
        found = [thing for things in lists for thing in things if isinstance(thing, kind)]
        for things in lists:
            things[:] = [thing for thing in things if not isinstance(thing, kind)]
        return found

    def forget(self) -> None:
        """What was sent and told so far is of no interest."""
        self.log.sent.clear()
        self.plane.told.clear()

    def intent(self, intent: IntentId = x.INTENT) -> IntentRow:
        row = self.turns.intent_row(intent)
        assert row is not None
        return row

    def transfer(self, manifest: ManifestId = x.MANIFEST) -> TransferRow:
        row = self.turns.transfer_row(manifest)
        assert row is not None
        return row

    def snapshot(self) -> dict[str, dict[str, bytes]]:
        return {name: dict(table) for name, table in self.tables.items()}


def same_lane(count: int, source: Site = x.C, lengths: Iterable[int] = (100, 50)) -> list[m.ManifestWritten]:
    """Manifests whose transfers share a payload partition."""
    items = [x.item(n, length, holder=source) for n, length in enumerate(lengths)]
    found: list[m.ManifestWritten] = []
    no = 0
    while len(found) < count:
        written = x.written(no, items, last=False)
        if topics.partition_of(written.manifest, PARTITIONS) == 3:
            found.append(written)
        no += 1
    return found


def requests(sent: list[m.ChunksRequested]) -> list[tuple[ManifestId, int]]:
    return [(r.manifest, r.request_no) for r in sent]
