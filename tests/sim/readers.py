"""Processes that read an intent, in a world: the product's rows, claims and outbox over the world's logs.

Each may end between any two steps, and what it sent may be lost. What must outlive it is in the log, or stands with its
output: a checkpoint, or the files of a pool's ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import world as sim

from streams import wire
from streams.consuming.outbox import Outbox
from streams.core import records as m
from streams.core import topics
from streams.core.names import Adler32, Destination, IntentId, Lfn, ManifestId, Site
from streams.core.readers.claims import NameClaim, writer_name
from streams.core.readers.ordered import OrderedReader
from streams.core.readers.process import ReaderProcess, Said
from streams.core.readers.ranges import Meant, Range, meant, output_of
from streams.core.readers.reader import IntentReader, Known
from streams.core.readers.shared import Hand, SharedReader
from streams.core.selections import parts
from streams.errors import Temporary, Transfer2goError

SLOTS = 4
AHEAD_BYTES = 1200
Position = tuple[ManifestId, int]


@dataclass
class Output:
    """What outlives the processes of a name."""

    checkpoint: str | None = None
    content: list[Position] = field(default_factory=list)
    """Entries of an ordered reader, in the order in which they were worked on; a checkpoint stands for all of them."""
    files: dict[Lfn, tuple[ManifestId, Range]] = field(default_factory=dict)
    placed: int = 0


class Name:
    """A consumer of an intent: its processes, at most `most` at a time, and its output."""

    def __init__(
        self, world: sim.World, destination: Destination, intent: IntentId, *, shared: bool, most: int, checkpoint: bool
    ) -> None:
        self.world, self.destination, self.intent = world, destination, intent
        self.shared, self.most, self.checkpoint = shared, most, checkpoint
        self.output = Output()
        self.begun = 0
        self.processes: list[Process] = []
        self.ended = False
        """A process has gone through all of it, or heard that nothing more comes."""

    @property
    def site(self) -> sim.SimSite:
        return self.world.sites[self.destination.site]

    def step(self) -> None:
        world = self.world
        if len(self.processes) < self.most and world.rng.random() < 0.1:
            self._begin()
        elif self.processes:
            self._advance(world.rng.choice(self.processes), world.rng.random())

    def _begin(self) -> None:
        self.begun += 1
        self.processes.append(Process(self, self.begun))
        self._share_out()

    def _advance(self, process: Process, choice: float) -> bool:
        """A step, or the end, of a process; whether there was something to do."""
        try:
            if self.world.chance(0.01):
                raise sim.Crash
            if self.shared and self.world.chance(0.02):
                self._share_out()
            return process.step(choice)
        except sim.Crash:
            with suppress(sim.Crash):
                process.publisher.flush(self.world.rng.randrange(0, len(process.publisher.waiting) + 1))
        except Transfer2goError:
            process.publisher.flush()
        self.processes.remove(process)
        self._share_out()
        return True

    def _share_out(self) -> None:
        """The group protocol: each slot is one process's; under faults also nobody's, or two's."""
        rng, live = self.world.rng, [process for process in self.processes if process.slots is not None]
        for process in live:
            process.slots = frozenset()
        for slot in range(SLOTS) if live else ():
            for process in {rng.choice(live) for _ in range(rng.choice((0, 1, 1, 1, 2)) if self.world.faults else 1)}:
                process.slots = (process.slots or frozenset()) | {slot}

    def work(self) -> bool:
        if self.ended and not self.processes:
            return False
        if not self.processes:
            self._begin()
        held = [slot for process in self.processes for slot in process.slots or ()]
        if sorted(held) != list(range(SLOTS)):
            self._share_out()
        moved = False
        for process in list(self.processes):
            for _ in range(400):
                if process not in self.processes:
                    break
                did = [self._advance(process, choice) for choice in process.choices if process in self.processes]
                if process.over and process in self.processes:
                    self.ended = True
                    self.processes.remove(process)
                    did = [True]
                moved |= any(did)
                if not any(did):
                    break
        return moved

    def idle(self) -> bool:
        return self.ended


class Process:
    """One process. `step` does one of the things that its threads do, by `choice`."""

    choices = (0.1, 0.4, 0.6, 0.8, 0.9, 0.95)

    def __init__(self, name: Name, number: int) -> None:
        self.name, self.site, self.world = name, name.site, name.world
        # clocks of hosts differ, and two may start at once
        started_us = max(0, self.world.now_ms * 1000 + self.world.rng.choice((-5000, 0, 0, 5000)))
        self.publisher = sim.SimPublisher(self.site, writer_name("host", number, started_us))
        self.known = Known(name.intent)
        self.positions: dict[tuple[str, int], int] = {}
        self.process: ReaderProcess | None = None
        self.slots: frozenset[int] | None = frozenset() if name.shared else None
        self.outbox = Outbox(self.publisher.send, heard_back=not name.shared)
        self.at: tuple[Hand, Meant, Lfn, str] | None = None
        self.over = False
        partition = topics.partition_of(name.intent, sim.PARTITIONS)
        for topic in sim.intent_topics(self.site.peers):
            self.positions[topic, partition] = 0
        while self._hear(facts=True):
            pass

    # what it does

    def step(self, choice: float) -> bool:
        if choice < 0.3:
            return self._hear(facts=False)
        if choice < 0.5:
            return self.publisher.flush(self.world.rng.randrange(1, 4) if self.world.faults else None)
        if self.process is None:
            return self._begin()
        try:
            if choice < 0.7:
                return self._ask(self.process)
            if choice < 0.85:
                return self._work(self.process)
            if choice < 0.93:
                return self._tell(self.process)
            return self._report(self.process)
        except Temporary:
            return True  # its buffer was full

    def _begin(self) -> bool:
        if not self.known.row.body_sha256:
            return False
        name = self.name
        reader: IntentReader[Any]
        if name.shared:
            reader = SharedReader(self.known, name.destination, SLOTS)
        else:
            position = name.output.checkpoint if name.checkpoint else None
            reader = OrderedReader(self.known, name.destination, AHEAD_BYTES, position)
            if name.checkpoint:
                self.content = list(name.output.content)
        lease_ms, retry_ms = int(sim.POLICY.lease_s * 1000), int(sim.POLICY.source_retry_s * 1000)
        self.process = ReaderProcess(reader, self.publisher.writer, lease_ms=lease_ms, retry_ms=retry_ms)
        self._enter(self.process, at_start=True)
        return True

    def _enter(self, process: ReaderProcess, *, at_start: bool) -> None:
        bodies = process.reader.new()
        if not bodies and not at_start:
            return
        found: dict[ManifestId, list[Said]] = {}
        for body in bodies:
            place = topics.CHUNK_EVENTS, topics.partition_of(body.manifest, sim.PARTITIONS)
            log = self.world.logs[self.site.name, *place]
            self.positions.setdefault(place, len(log))
            if at_start or not process.reader.exclusive:
                found[body.manifest] = list(self._said(place, len(log), body.manifest))
        for claim in process.enter(bodies, found, at_start=at_start):
            self.outbox.put(claim)
        with suppress(Temporary):
            self.outbox.send()

    def _said(self, place: tuple[str, int], end: int, manifest: ManifestId) -> Iterator[Said]:
        for record in self.world.logs[self.site.name, *place][:end]:
            if (heard := self._progress(place[0], record)) is not None and heard[0].manifest == manifest:
                yield NameClaim.by(heard[0].attempt, heard[1]), heard[0]

    def _progress(self, topic: str, record: sim.Record) -> tuple[m.TransferProgress, str] | None:
        heard = wire.decode(topic, record.key, record.value, record.headers, self.site.name)
        said = heard.message
        if not isinstance(said, m.TransferProgress) or said.destination != self.name.destination:
            return None
        return said, heard.origin.writer

    def _hear(self, *, facts: bool) -> bool:
        """The next record of one of its places."""
        world, here = self.world, self.site.name
        logs = {place: world.payload if "chunks-to-" in place[0] else world.logs for place in self.positions}
        behind = [place for place, at in self.positions.items() if at < len(logs[place][here, *place])]
        if not behind:
            return False
        place = behind[0] if facts else world.rng.choice(behind)
        at = self.positions[place]
        self.positions[place] = at + 1
        record = logs[place][here, *place][at]
        if isinstance(record, m.ChunkHeader):
            self._take(record)
        elif place[0] == topics.CHUNK_EVENTS:
            if self.process is not None and (said := self._progress(place[0], record)) is not None:
                self.process.hear(*said)
                if said[1] == self.publisher.writer:
                    self.outbox.heard(said[0])
        elif record.key == self.name.intent.encode():
            heard = wire.decode(place[0], record.key, record.value, record.headers, here)
            self.known.hear(heard.message, 0)
        if self.process is not None:
            self._enter(self.process, at_start=False)
        return True

    def _take(self, header: m.ChunkHeader) -> None:
        if self.process is not None and header.manifest in self.process.reader.open:
            sound = [(segment, b"") for segment in header.segments if not self.world.chance(0.02)]
            self.process.take(header, sound, self.world.now_ms)

    def _ask(self, process: ReaderProcess) -> bool:
        asks = process.asks(self.world.now_ms)
        for number, ask in enumerate(asks):
            own = topics.chunks_to(self.site.name)
            partition = topics.partition_of(ask.window.manifest.body.manifest, sim.PARTITIONS)
            for topic in (own, *(topics.remote(peer, own) for peer in self.site.peers)):
                end = len(self.world.payload[self.site.name, topic, partition])
                self.positions.setdefault((topic, partition), end)
            try:
                self.publisher.send(process.request(ask, self.world.now_ms, self.world.clock_us()))
            except Temporary:
                for unsent in asks[number:]:
                    unsent.unsent()
                raise
        return bool(asks)

    def _tell(self, process: ReaderProcess) -> bool:
        for message in process.reader.tells():
            self.outbox.put(message)
        before = len(self.publisher.waiting)
        self.outbox.send()
        return len(self.publisher.waiting) > before

    def _report(self, process: ReaderProcess) -> bool:
        reports = process.reports()
        for report in reports:
            self.outbox.put(report)
        self.outbox.send()
        return bool(reports)

    # what is made of the entries

    def _work(self, process: ReaderProcess) -> bool:
        reader = process.reader
        if isinstance(reader, OrderedReader):
            return self._read_on(reader)
        assert isinstance(reader, SharedReader)
        return self._range(reader)

    def _read_on(self, reader: OrderedReader) -> bool:
        """As whoever iterates over a stream: the batch before is done when the next one is asked for."""
        reader.worked()
        output = self.name.output
        if (found := reader.next()) is None:
            self.over = reader.over and not reader.open and not self.outbox.marks()
            return False
        row, came, start = found
        entries = [(row.id, at) for at in range(start, came.stop)]
        if self.name.checkpoint:
            self.content += entries
            position = reader.position()
            self.world.fuse()
            output.checkpoint, output.content = position, list(self.content)
        else:
            output.content += entries
        self.world.fuse()
        return True

    def _range(self, reader: SharedReader) -> bool:
        """As a pool's worker: placed, booked, confirmed; each may be the last that it does."""
        if self.slots is not None and self.slots != reader.mine:
            reader.assigned(self.slots)
        reader.fill(self.world.now_ms)
        if reader.over:
            self.over = True
            return False
        if self.at is None:
            ready = next((hand for hand in reader.hands if hand.refused or hand.gather()), None)
            if ready is None:
                return False
            if ready.refused is not None:
                self.outbox.put(reader.settle(ready, ready.refused))
                return True
            ready.busy = True
            of = meant(ready.row.manifest, ready.part)
            self.at = ready, of, output_of(ready.row.id, reader.destination, of, "out"), "run"
            return True
        hand, of, lfn, done = self.at
        if not hand.is_open:
            reader.drop(hand)
            self.at = None
        elif done == "run":
            self.world.fuse()
            self.name.output.placed += lfn not in self.name.output.files
            assert self.name.output.files.setdefault(lfn, (hand.row.id, hand.part)) == (hand.row.id, hand.part)
            self.at = hand, of, lfn, "placed"
        elif done == "placed":
            dataset, block = parts.filed(hand.row.manifest.items[hand.part.item].block)
            file = m.HeldFile(lfn, block, 1, Adler32("00000001"), "v", of.lfn, of.selection)
            self.publisher.send(m.FilesHeld(dataset, Site(self.site.name), (file,)))
            self.at = hand, of, lfn, "booked"
        else:
            self.outbox.put(reader.settle(hand))
            self.at = None
        return True
