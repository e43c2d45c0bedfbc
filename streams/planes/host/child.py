"""The planes' process: `python -m streams.planes.host.child`, orders on stdin.

What lives here: the threads and what each waits for, the opening of storage and catalogue (tried again until they are
there), and publishing, which waits for a broker that is away. What an order does is told where it is carried out.

The process ends when the pipe closes, within seconds and whatever it was doing: all that it holds is owed again. A bad
order is logged and skipped.

Threads: main reads the pipe and waits for nothing else; `storage` opens the storage; `assign` and `ends` carry out
Assign, Stop, Forget and Fail; `open-N` open parts and read back what is there already; `sync` makes durable, seals and
tells; `checking` looks at files that would be removed, `removing` removes; `refusing` answers what nobody serves;
`listing` and `entry-listing` write manifests. Carriers name theirs:
`payload` reads and writes; `tool-N` run tools; `files` serves files, `keys-STORE` those of a store, `entries` and
`objects` what is inside files. Publishers and librdkafka have their own.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from streams.core.endpoint_config import DEFAULT_ENDPOINT
from streams.core.names import IntentId, shown
from streams.core.records import ChunksRequested, ManifestWritten, Message, PartLost
from streams.core.topics import MANIFESTS, partition_of
from streams.errors import CLUSTER_AWAY, StorageError, Temporary, Transfer2goError, WireError
from streams.kafka.publish import Publisher
from streams.kafka.replay import replay
from streams.planes.carriers import CARRIERS
from streams.planes.carriers.carrier import CarrierSide, DestinationSide, SourceSide
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.destination.removing import removed
from streams.planes.host.order_queues import OPENERS, Assignments, Ends, Openings, Writes
from streams.planes.inventory.manifest_writer import ManifestWriter, opens_files
from streams.planes.inventory.open_intents import CatalogueListing
from streams.planes.orders import (
    Assign,
    Bring,
    Check,
    Expect,
    Fail,
    Forget,
    Open,
    Remove,
    Serve,
    Start,
    Stop,
    Write,
    read_order,
)
from streams.planes.reasons import reason_of
from streams.planes.replica_orders import ReplicaOrders
from streams.planes.source.checking import checked
from streams.planes.source.open_files import OpenFileCache
from streams.planes.source.server import SourceServer
from streams.planes.source.wiring import refusing
from streams.settings import Settings
from streams.storage import marker, open_named
from streams.storage.endpoint import Endpoint
from streams.wire import decode

log = logging.getLogger("streams.planes.host.child")

STORAGE_RETRY_S = 2.0
STORAGE_FIRST_S = 2.0
"""Orders wait so long for a storage that answers; later ones are told that it does not."""
STORAGE_SAID_S = 60.0
PUBLISH_S = 30.0
ANNOUNCE_S = 30
LOOK_S = 0.5
"""Between two looks whether there is something new to announce."""
CLOSE_S = 2.0
_SWITCH_S = 0.001
"""Python's thread switch interval: the default of 5 ms is a hop's latency for every thread that waits."""
_M_ARENA_MAX = -8


class Child:
    """One incarnation of the planes."""

    def __init__(self, start: Start) -> None:
        self.settings = start.settings
        self.publisher = Publisher(start.settings, start.settings.here, start.writer, "plane")
        self.assignments, self.ends = Assignments(), Ends()
        self.openings = Openings(lambda: any(source.busy for source in self.sources.values()))
        self.writes = {of: Writes() for of in (False, True)}
        """Whether manifests are of entries, whose files are opened one by one: whole files do not wait for that."""
        self.open_files = OpenFileCache()
        self.running = True
        self.assigned: dict[int, int | None] = {}
        self.sources: dict[str, SourceSide] = {}
        self.receivers: list[DestinationSide] = []
        """Both sides of each carrier, once the storage is open."""
        self.destination: DestinationPlane | None = None
        self.storage: Endpoint | None = None
        self.checks = ReplicaOrders[Check]("looked at", self.check)
        self.removals = ReplicaOrders[Remove]("removed", self.remove)
        self.worker_pid = os.getppid()
        self.fault = StorageError("the storage does not answer")
        """Why there is no destination."""
        self.storage_tried = threading.Event()
        self.refusing: SourceServer = refusing(
            start.settings, self.why_refused, self.publisher.send_chunk, self.publish
        )
        """Answers what is asked for meanwhile, or by a carrier that is not here."""

    # publishing

    def publish(self, message: Message) -> None:
        """Waits while the broker is away, but not for ever: then the fact is dropped, and owed again."""
        try:
            self.put(message)
        except CLUSTER_AWAY as error:
            log.warning("%s is not published: %s", type(message).__name__, error)

    def put(self, message: Message) -> None:
        """As `publish`, but raises Temporary for what was dropped: of a chain nothing may follow it."""
        until = time.monotonic() + PUBLISH_S
        while True:
            try:
                return self.publisher.send(message)
            except CLUSTER_AWAY:
                if not self.running or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    # orders

    def route(self, order: object) -> None:
        """Hand an order to the threads that carry it out. Waits for none of them."""
        match order:
            case Assign():
                self.assigned = order.partitions
                if self.destination is not None:
                    self.destination.share = self.share
                self.assignments.put(order)
            case Stop() | Forget() | Fail():
                self.ends.put(order)
            case Serve():
                source = self.sources.get(order.request.plane) or self.refusing
                source.serve(order.request)
            case Bring():
                if self.destination is not None:
                    self.destination.bring(order)
            case Expect():
                if self.destination is not None:
                    self.destination.expect(order)
            case Write():
                self.writes[opens_files(order.command)].put(order.command)
            case Check():
                # Without a storage they are owed again.
                if self.destination is not None:
                    self.checks.put(order)
            case Remove():
                if self.destination is not None:
                    self.removals.put(order)
            case Open():
                self.open(order)
            case _:
                log.warning("not an order: %s", shown(repr(order)))

    def open(self, order: Open) -> None:
        manifest, ordered = order.manifest_id, self.assignments.ordered
        if partition_of(manifest.encode(), self.settings.registry.partitions) not in self.assigned:
            log.warning("%s is not opened: its partition is not assigned here", manifest)
            return None
        if not self.openings.has_room(order):
            return None
        if self.destination is None:
            return self.openings.put(order, self.refuse(order), lambda: True)
        steps = self.destination.begin(order)
        if steps is None:
            return None

        def ready() -> bool:
            # What is asked for once its parts are open must not pass by a reader that is not there yet.
            return self.assignments.done >= ordered and not self.ends.holds(manifest)

        return self.openings.put(order, self.opened(manifest.encode(), steps), ready)

    def opened(self, key: bytes, steps: Iterator[bool]) -> Iterator[bool]:
        yield from steps
        for receiver in self.receivers:
            receiver.opened(key)

    def check(self, order: Check) -> None:
        assert self.storage is not None
        self.publish(checked(self.settings.here, self.storage, order))

    def remove(self, order: Remove) -> None:
        assert self.storage is not None

        def worker() -> str:
            return order.ordered_by if os.getppid() == self.worker_pid else ""

        if (said := removed(self.settings.here, self.storage, order, worker)) is not None:
            self.publish(said)

    def refuse(self, order: Open) -> Iterator[bool]:
        self.publish(PartLost(order.manifest_id, order.attempt, reason_of(self.fault, "open")))
        yield from ()

    def why_refused(self, request: ChunksRequested) -> str:
        if request.plane not in CARRIERS:
            return f"{self.settings.here} has no carrier {request.plane}; it has {', '.join(CARRIERS)}"
        # where this site keeps its files is nobody else's business
        return f"the source's storage cannot be opened: {self.fault.what}"

    def end(self, order: Stop | Forget | Fail) -> None:
        destination = self.destination
        if isinstance(order, Forget):
            if destination is not None:
                destination.forget(order.manifest_id)
        elif isinstance(order, Fail):
            if destination is not None:
                destination.fail(order)
        elif destination is not None:
            destination.stop(order)
        else:
            self.publish(PartLost(order.manifest_id, order.attempt, order.reason))

    @property
    def share(self) -> float:
        return len(self.assigned) / self.settings.registry.partitions

    # the storage

    def run_storage(self) -> None:
        """Until it could be opened: then both halves of the plane begin."""
        said_s, said = -STORAGE_SAID_S, ""
        while self.running:
            try:
                storage = self.open_storage()
                self.mark(storage)
                self.begin(storage)
                return
            except Transfer2goError as error:
                self.fault = StorageError(error.what, error.where, error.next)
            except Exception as error:
                log.exception("the storage cannot be opened")
                self.fault = StorageError(f"the plane failed: {type(error).__name__}: {shown(str(error), 200)}")
            finally:
                self.storage_tried.set()
            if str(self.fault) != said or time.monotonic() - said_s >= STORAGE_SAID_S:
                said_s, said = time.monotonic(), str(self.fault)
                log.warning("the storage cannot be opened and is tried again: %s", said)
            time.sleep(STORAGE_RETRY_S)

    def mark(self, storage: Endpoint) -> None:
        """So that a look at it can tell another disk. One that cannot be marked serves as before."""
        remembered = marker.Remembered.of(self.settings.state, self.settings.here, DEFAULT_ENDPOINT)
        try:
            marker.mark(storage, remembered)
        except (Transfer2goError, OSError) as error:
            log.warning("the storage is not marked as that of %s: %s", self.settings.here, error)

    def begin(self, endpoint: Endpoint) -> None:
        settings, send, publish = self.settings, self.publisher.send_chunk, self.publish
        destination = DestinationPlane(settings.here, settings.registry.partitions, endpoint, publish)
        destination.share = self.share
        self.receivers = [one.destination(settings, destination, publish) for one in CARRIERS.values()]
        serving = [
            one.source(settings, endpoint, send, publish, self.open_files, destination) for one in CARRIERS.values()
        ]
        self.storage = endpoint
        _thread("checking", self.checks.run)
        _thread("removing", self.removals.run)
        self.destination, self.sources = destination, dict(zip(CARRIERS, serving, strict=True))
        for side in self.sides():
            for name, work in side.threads():
                _thread(name, work)
        _thread("assign", partial(self.assignments.run, destination.leave, *(one.assign for one in self.receivers)))

    def sides(self) -> Iterator[CarrierSide]:
        if self.destination is not None:
            yield self.destination
        yield from (*self.receivers, *self.sources.values())

    def open_storage(self) -> Endpoint:
        return open_named(self.settings.endpoints)

    # manifests

    def open_catalogue(self, scratch_name: str) -> CatalogueListing:
        from streams.views.catalogue import Catalogue

        scratch = Path(self.settings.datadir) / scratch_name
        scratch.mkdir(parents=True, exist_ok=True)
        view = Path(self.settings.datadir) / "view"
        if not (view / "CURRENT").exists():
            raise Temporary("the worker's view is not there yet", str(view))
        return Catalogue.open_secondary(str(view), str(scratch))

    def run_writes(self, entries: bool) -> None:
        settings, commands = self.settings, self.writes[entries]
        writer = ManifestWriter(
            settings.here,
            settings.policy,
            partial(self.open_catalogue, "view-of-plane-entries" if entries else "view-of-plane"),
            self.put,
            self.open_storage,
            settings.registry.payload_bytes,
            self.open_files,
            partial(_manifests_of, settings),
        )
        while self.running:
            command = commands.get(writer.growing.idle_s())
            of = command.body.intent if command is not None else "open intents"
            try:
                if command is not None:
                    writer.write(command)
                writer.growing.look()
            except Transfer2goError as error:
                log.warning("manifests of %s are not written now: %s", of, error)
            except Exception:
                log.exception("manifests of %s are not written now", of)

    # life

    def run_announcements(self) -> None:
        while self.running:
            door = self.door()
            try:
                self.publisher.announce(endpoints=tuple(self.settings.endpoints), every_s=ANNOUNCE_S, door=door)
            except Transfer2goError as error:
                log.warning("not announced: %s", error)
            until_s = time.monotonic() + ANNOUNCE_S
            while self.running and time.monotonic() < until_s and self.door() == door:
                time.sleep(LOOK_S)

    def door(self) -> str:
        """The address at which this plane can be connected to."""
        return next((source.address for source in self.sources.values() if source.address), "")

    def run(self, pipe: BinaryIO) -> None:
        threads: tuple[tuple[str, Callable[[], None]], ...] = (
            ("storage", self.run_storage),
            ("refusing", self.refusing.run),
            ("ends", partial(self.ends.run, self.end)),
            *((f"open-{no}", partial(self.openings.run, only_new=bool(no))) for no in range(OPENERS)),
            ("listing", partial(self.run_writes, False)),
            ("entry-listing", partial(self.run_writes, True)),
            ("announce", self.run_announcements),
        )
        for name, work in threads:
            _thread(name, work)
        self.storage_tried.wait(STORAGE_FIRST_S)
        while True:
            try:
                order = read_order(pipe)
            except ValueError as error:
                log.warning("an order is skipped: %s", error)
                continue
            except EOFError as error:
                log.warning("the pipe is out of step (%s); this plane ends", error)
                return
            if order is None:
                return
            try:
                self.route(order)
            except Exception:
                log.exception("an order was skipped")

    def close(self) -> None:
        """Say the last numbers, if the broker is there; parts stay as they are."""
        self.running = False
        for waiting in (self.assignments, self.ends, self.openings, self.refusing):
            waiting.close()
        for writes in self.writes.values():
            writes.close()
        for side in self.sides():
            side.close()
        self.checks.close()
        self.removals.close()
        self.publisher.close(CLOSE_S)


def _manifests_of(settings: Settings, intents: Collection[IntentId]) -> Iterator[ManifestWritten]:
    """What this site's journal of manifests has of some intents, in order. What the gate refuses is left out.

    Raises Temporary.
    """
    here, keys = settings.here, {intent.encode() for intent in intents}
    partitions = {partition_of(key, settings.registry.partitions) for key in keys}
    for record in replay(settings, here, [MANIFESTS], partitions=partitions):
        if record.key in keys:
            with suppress(WireError):
                heard = decode(record.topic, record.key, record.value, record.headers, here)
                if isinstance(heard.message, ManifestWritten):
                    yield heard.message


def _thread(name: str, run: Callable[[], None]) -> None:
    threading.Thread(target=run, name=name, daemon=True).start()


def _prepare() -> None:
    """Descriptors for many parts; two heaps of malloc instead of one per thread, which would triple the memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)
    sys.setswitchinterval(_SWITCH_S)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s plane %(name)s: %(message)s"
    )


def main() -> int:
    _prepare()
    pipe = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
    start = read_order(pipe)
    if not isinstance(start, Start):
        print("transfer2go planes are started by a worker, which tells them what to do", file=sys.stderr)
        return 2
    try:
        child = Child(start)
    except Transfer2goError as error:
        log.error("the planes cannot start: %s", error)
        return error.exit_code
    child.run(pipe)
    child.close()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # daemon threads may be inside a sync or a call of librdkafka: nothing they hold is needed
