"""One site's dispatcher with tables that are dicts; the log and the plane are lists of what was sent and told.

Dispatcher, turns, scheduler, effects, gate and core are the product's own. Time stands still until a test moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from streams import wire
from streams.core import commands as c
from streams.core import records as m
from streams.core import topics
from streams.core.channel import NO_TOOLS
from streams.core.intent import IntentRow
from streams.core.keeping.landing import OpenableItems
from streams.core.manifest import ManifestIndex
from streams.core.names import IntentId, ManifestId, Site
from streams.core.policy import Policy
from streams.core.ranges import Ranges
from streams.core.routing import Holders, decide
from streams.core.selectors import Selector
from streams.core.transfer import TransferRow
from streams.errors import Temporary
from streams.planes import orders
from streams.worker import rows
from streams.worker.dispatcher import Dispatcher
from streams.worker.effects import Acknowledged, Effects
from streams.worker.scheduler import Scheduler
from streams.worker.turn import Turns, intent_of
from tests.core import example as x

PARTITIONS = 8
ONE = x.written()
"""A manifest; `WHOLE`: its bytes. `DONE`: all of it is there. `PARTLY`: an item is not to be had."""
WHOLE = Ranges([(0, 150)])
DONE = x.progress(WHOLE, Ranges.of(0, 1))
PARTLY = x.progress(Ranges([(0, 100)]), Ranges.of(0), (x.failed("gone", 1),))
ENVIRONMENT = pytest.mark.parametrize(
    "error", [rows.TableFailed("a table cannot be written"), OSError("disk full"), MemoryError()], ids=repr
)
T = TypeVar("T")


class Crash(BaseException):
    """The process ended here."""


class Dict(dict[str, bytes]):
    """A table; `broken` makes the next put raise, `unreadable` the next read, `left` the write after so many."""

    broken: BaseException | None = None
    unreadable: BaseException | None = None
    left: int | None = None
    puts = 0
    of_intents = False
    """Whose keys the intent owns: `waiting`'s."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.writes: list[tuple[str, str]] = []
        """("put" or "delete", key), in their order."""

    def get(self, key: str) -> bytes | None:  # type: ignore[override]
        if self.unreadable is not None:
            error, self.unreadable = self.unreadable, None
            raise error
        self.reads.append(key)
        return super().get(key)

    def put(self, key: str, row: bytes) -> None:
        if self.broken is not None:
            error, self.broken = self.broken, None
            raise error
        self._write("put", key)
        self.puts += 1
        self[key] = row

    def delete(self, key: str) -> None:
        if key in self:
            self._write("delete", key)
            del self[key]

    def snapshot(self) -> dict[str, bytes]:
        return {key: self[key] for key in self}

    def _write(self, what: str, key: str) -> None:
        if self.left is not None:
            if self.left == 0:
                self.left = None
                raise Crash
            self.left -= 1
        self.writes.append((what, key))

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
    framed: list[wire.Framed] | None = None
    """Where records go that come encoded; None: they are decoded and kept among the others."""

    def send(self, message: m.Message | wire.Framed, on_ack: Acknowledged | None = None) -> None:
        if self.full:
            raise Temporary("buffer full")
        if self.broken is not None:
            raise self.broken
        if isinstance(message, wire.Framed):
            if self.framed is not None:
                self.framed.append(message)
                return
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
    what: Holders = field(default_factory=lambda: Holders(2, {x.C: (2, 150)}, ()))
    waited: bool = False

    def then(self, key: object, act: Callable[[], object]) -> None:
        act()

    def release(self, intent: IntentId, decision_no: int) -> None:
        self.log.send(replace(x.decided(decision_no, m.Verdict.RELEASED), intent=intent))

    def decide(self, body: m.TransferIntent) -> None:
        decision = decide(body, self.what, (x.A, x.B, x.C), (x.A, x.B, x.C), waited=self.waited)
        if decision is not None:
            self.log.send(decision)


@dataclass
class Landing:
    """The gate of parts: open, unless `closed`."""

    what: OpenableItems = field(default_factory=OpenableItems)
    closed: bool = False
    noted: list[tuple[ManifestId, tuple[Selector, ...]]] = field(default_factory=list)
    over: list[ManifestId] = field(default_factory=list)

    def note(self, manifest: ManifestId, framed: bytes, selectors: Collection[Selector]) -> None:
        self.noted.append((manifest, tuple(selectors)))

    def may_open(
        self, manifest: ManifestId, attempt: int, framed: bytes, selectors: Collection[Selector]
    ) -> OpenableItems | None:
        return None if self.closed else self.what

    def forget(self, manifest: ManifestId) -> None:
        self.over.append(manifest)

    def drop(self, belong: Callable[[ManifestId], bool]) -> None:
        self.over += [manifest for manifest, _ in self.noted if belong(manifest)]


class _Dispatcher(Dispatcher):
    """Asking a row takes its time."""

    def __init__(self, rig: Rig, *parts: Any) -> None:
        super().__init__(*parts)
        self.rig = rig

    def _ask(self, partition: int, key: str) -> None:
        super()._ask(partition, key)
        self.rig.elapsed_s += self.rig.row_s


class Rig:
    """A worker of `here` that owns every partition and has caught up."""

    def __init__(
        self,
        here: Site = x.B,
        policy: Policy | None = None,
        *,
        awake: bool = True,
        takes: tuple[float, float] = (0.0, 0.0),
        tools: Mapping[Site, str] = NO_TOOLS,
    ) -> None:
        """`tools`: on the links of the site."""
        self.here, self.tools = here, tools
        self.now_ms = 1_000_000
        self.tables = {name: Dict() for name in rows.NAMES}
        self.tables["waiting"].of_intents = True
        self.policy = policy or Policy()
        self.offset = 0
        self.row_s, self.command_s = takes
        """What a row that was asked, and a command carried out, took of a slice."""
        self.letters: list[m.DeadLetter] = []
        self.sit(awake=awake)

    def sit(self, *, awake: bool = True) -> None:
        """A new worker process over the same tables."""
        self.log, self.plane = Log(), Plane()
        self.turns = Turns(rows.Tables(**self.tables), self.here)
        now: Callable[[], int] = lambda: self.now_ms  # noqa: E731
        self.catalogue, self.landing = Catalogue(self.log), Landing()
        self.effects = Effects(
            self.here,
            self.policy,
            self.log,
            self.plane,
            self.catalogue,
            self.turns,
            now,
            tools=self.tools,
            landing=self.landing,
        )
        self.elapsed_s = 0.0
        self.scheduler = Scheduler(
            self.here,
            self.policy,
            PARTITIONS,
            self._carry_out,
            now,
            lambda: self.elapsed_s,
            self.turns.keeps,
            tools=self.tools,
        )
        self.dispatcher = _Dispatcher(self, self.here, self.turns, self.scheduler, self.effects, self.plane, now)
        for partition in range(PARTITIONS):
            self.scheduler.own(partition)
        for partition in range(PARTITIONS if awake else 0):
            self.wake(partition)
        self.plane.told.clear()

    def _carry_out(self, command: c.Command) -> bool:
        self.elapsed_s += self.command_s
        return self.effects(command)

    def tick(self) -> int:
        """Asks what is due, slice by slice, until nothing is; how many slices that took."""
        for slices in range(1, 10_000):
            if not self.dispatcher.tick():
                return slices
        raise AssertionError("something is due without end")

    @staticmethod
    def finish(steps: Iterable[None]) -> int:
        """Goes through with what goes in steps; how many there were."""
        return sum(1 for _ in steps)

    def wake(self, partition: int) -> None:
        self.finish(self.dispatcher.waking(partition))
        self.tick()

    def wake_all(self) -> None:
        for partition in range(PARTITIONS):
            self.wake(partition)

    def record(self, message: m.Message, writer: str = "worker-0") -> dict[str, Any]:
        """The record as it stands in a journal here: local, or the copy of its author's."""
        author = m.author(message) or self.here
        key = m.key_of(message)
        raw = key if isinstance(key, bytes) else key.encode()
        name = m.topic_of(message)
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
            letter = self.dispatcher.hear(**self.record(message, writer))
            if letter is not None:
                self.letters.append(letter)

    def opened(self, manifest: ManifestId = x.MANIFEST, attempt: int = 1) -> None:
        """The present plane says that it holds the part."""
        self.hear(x.opened(attempt, manifest=manifest), writer=self.plane.writer)

    def after(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)
        self.tick()

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

    def waiting(self, manifest: ManifestId, source: Site = x.C) -> m.ManifestWritten | None:
        """What is kept of a manifest that counts."""
        body = self.turns.waiting_body(manifest, source)
        return None if body is None else wire.decode_value(m.ManifestWritten, body)

    def closes(self) -> m.CompletionRecord:
        """Hears the last word that is to be fixed; what is published of it then."""
        (fixed,) = self.take(m.TransferClosed)
        assert not fixed.acknowledged
        self.hear(fixed)
        (said,) = self.take(m.CompletionRecord)
        assert said == fixed.completion
        return said

    def index(self, manifest: ManifestId = x.MANIFEST) -> ManifestIndex:
        index = self.turns.index(manifest)
        assert index is not None
        return index

    def snapshot(self) -> dict[str, dict[str, bytes]]:
        return {name: table.snapshot() for name, table in self.tables.items()}


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
