"""The planes' process: `python -m streams.planes.child`, orders on stdin. Here threads are started and wired, no more.

It ends when the pipe closes, within seconds and whatever it was doing: nothing it holds is not owed again. A bad order
is logged and skipped.

Threads: main reads the pipe; `orders` carries orders out one after the other; `payload` reads and writes; `sync` makes
durable, seals and tells; `source` serves files, `keys` those in stores, `entries` and `objects` what is inside files;
`listing` and `entry-listing` write manifests. Publishers and librdkafka have their own.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import resource
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from streams.core.commands import WriteManifests
from streams.core.messages import FailureClass, Message, PartLost, Reason, Scope
from streams.core.names import Text, shown
from streams.core.topics import partition_of
from streams.errors import Temporary, Transfer2goError
from streams.kafka.publish import Publisher
from streams.planes.destination import Destination
from streams.planes.entry_files import Shelf
from streams.planes.growing import Listing
from streams.planes.journal import manifests_of
from streams.planes.listing import ManifestWriter, opens_files
from streams.planes.orders import Assign, Forget, Open, Serve, Start, Stop, Write, read_order
from streams.planes.payload import PayloadReader
from streams.planes.sources import Sources, sources
from streams.storage import open_endpoint
from streams.storage.endpoint import Endpoint

log = logging.getLogger("streams.planes.child")

ORDERS_MAX = 8
"""Orders read ahead of their turn: an Open of a full manifest is about 1 MB. More wait in the pipe and the worker."""
WRITES_MAX = 1024
ENDPOINT = "default"
"""Name of a site's one endpoint in records; its URL never travels."""
ENDPOINT_RETRY_S = 2.0
PUBLISH_S = 30.0
ANNOUNCE_S = 30
CLOSE_S = 2.0
_SWITCH_S = 0.001
"""Python's thread switch interval: the default of 5 ms is a hop's latency for every thread that waits."""
_M_ARENA_MAX = -8


class Halves(NamedTuple):
    destination: Destination
    payload: PayloadReader
    sources: Sources

    def close(self) -> None:
        for half in (self.destination, self.payload, self.sources):
            half.close()


class Child:
    """One incarnation of the planes."""

    def __init__(self, start: Start) -> None:
        self.settings = start.settings
        self.publisher = Publisher(start.settings, start.settings.here, start.writer, "plane")
        self.orders: queue.Queue[object] = queue.Queue(ORDERS_MAX)
        self.writes: dict[bool, queue.Queue[WriteManifests]] = {of: queue.Queue(WRITES_MAX) for of in (False, True)}
        """Whether manifests are of entries, whose files are opened one by one: whole files do not wait for that."""
        self.shelf = Shelf()
        self.running = True
        self.fault: Reason | None = None
        self.endpoint_tried_s = -1e9
        self.assigned: dict[int, int | None] = {}
        self.halves: Halves | None = None

    # publishing

    def publish(self, message: Message) -> None:
        """Waits while the broker is away, but not for ever: then the fact is dropped, and owed again."""
        try:
            self.put(message)
        except Temporary as error:
            log.warning("%s is not published: %s", type(message).__name__, error)

    def put(self, message: Message) -> None:
        """As `publish`, but raises Temporary for what was dropped: of a chain nothing may follow it."""
        until = time.monotonic() + PUBLISH_S
        while True:
            try:
                return self.publisher.send(message)
            except Temporary:
                if not self.running or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    # orders

    def run_orders(self) -> None:
        while self.running:
            order = self.orders.get()
            try:
                self.carry_out(order)
            except Transfer2goError as error:
                log.warning("%s: %s", type(order).__name__, error)
            except Exception:
                log.exception("an order was skipped")

    def carry_out(self, order: object) -> None:
        halves = self.halves or self.begin()
        if isinstance(order, Assign):
            self.assigned = order.partitions
        if halves is None:
            if isinstance(order, Open | Stop) and self.fault is not None:
                lost = order.manifest_id if isinstance(order, Stop) else order.manifest.manifest
                why = order.reason if isinstance(order, Stop) else self.fault
                self.publish(PartLost(lost, order.attempt, why))
            return
        destination, payload = halves.destination, halves.payload
        match order:
            case Assign():
                destination.keep(order.partitions)
                payload.assign(order.partitions)
            case Open():
                key = order.manifest.manifest.encode()
                if partition_of(key, self.settings.registry.partitions) not in self.assigned:
                    log.warning("%s is not opened: its partition is not assigned here", order.manifest.manifest)
                    return
                destination.open(order)
                payload.opened(key)
            case Stop():
                destination.stop(order)
            case Forget():
                destination.forget(order.manifest_id)
            case Serve():
                halves.sources.of(order.request).serve(order.request)
            case _:
                log.warning("not an order: %s", shown(repr(order)))

    def begin(self) -> Halves | None:
        """Open the storage and start both halves; None, with the reason kept, while it cannot be opened."""
        if time.monotonic() - self.endpoint_tried_s < ENDPOINT_RETRY_S:
            return None
        self.endpoint_tried_s = time.monotonic()
        settings = self.settings
        try:
            endpoint = self.open_storage()
        except Transfer2goError as error:
            self.fault = Reason(Scope.DESTINATION, FailureClass.TRANSIENT, "open", Text(shown(str(error), 390)))
        else:
            registry = settings.registry
            destination = Destination(settings.here, registry.partitions, endpoint, self.publish)
            payload = PayloadReader(settings, destination, self.publish)
            serving = sources(settings, endpoint, self.publisher.send_chunk, self.publish, self.shelf)
            self.fault, self.halves = None, Halves(destination, payload, serving)
            for name, run in (
                ("payload", payload.run),
                ("sync", destination.run),
                ("source", serving.files.run),
                ("entries", serving.entries.run),
                ("objects", serving.objects.run),
                ("keys", serving.keys.run),
            ):
                _thread(name, run)
            if self.assigned:
                payload.assign(self.assigned)
            return self.halves
        log.warning("the storage cannot be opened: %s", self.fault.text)
        return None

    def open_storage(self) -> Endpoint:
        return open_endpoint(self.settings.endpoint_url, name=ENDPOINT, stores=self.settings.stores)

    # manifests

    def open_catalogue(self, scratch_name: str) -> Listing:
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
            open_storage=self.open_storage,
            payload_bytes=settings.registry.payload_bytes,
            shelf=self.shelf,
            replayed=partial(manifests_of, settings),
        )
        while self.running:
            command = None
            with suppress(queue.Empty):
                command = commands.get(timeout=writer.growing.idle_s())
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
            try:
                self.publisher.announce(endpoints=(ENDPOINT,), every_s=ANNOUNCE_S)
            except Transfer2goError as error:
                log.warning("not announced: %s", error)
            time.sleep(ANNOUNCE_S)

    def run(self, pipe: BinaryIO) -> None:
        for name, run in (
            ("orders", self.run_orders),
            ("listing", partial(self.run_writes, False)),
            ("entry-listing", partial(self.run_writes, True)),
            ("announce", self.run_announcements),
        ):
            _thread(name, run)
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
            if not self.route(order, pipe):
                return

    def route(self, order: object, pipe: BinaryIO) -> bool:
        """Hand an order to its thread, waiting for its turn; False when the worker closed the pipe meanwhile.

        Serving and listing do not wait behind the opening of parts, which may have to read files.
        """
        if isinstance(order, Serve) and self.halves is not None:
            self.halves.sources.of(order.request).serve(order.request)
            return True
        if isinstance(order, Write):
            writes = self.writes[opens_files(order.command)]
            if writes.full():
                log.warning("manifests of %s are not written: too many commands wait", order.command.body.intent)
            else:
                writes.put(order.command)
            return True
        closed = select.poll()
        closed.register(pipe.fileno(), 0)  # a hang-up is told even where nothing is asked for
        while True:
            try:
                self.orders.put(order, timeout=0.2)
            except queue.Full:
                if closed.poll(0):
                    return False
            else:
                return True

    def close(self) -> None:
        """Say the last numbers, if the broker is there; parts stay as they are."""
        self.running = False
        if self.halves is not None:
            self.halves.close()
        self.publisher.close(CLOSE_S)


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
