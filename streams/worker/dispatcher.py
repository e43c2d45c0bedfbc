"""The dispatcher: a record comes in, the turn folds it, the scheduler asks what is owed, effects carry it out.

One entrance, `hear`, for every topic family. What goes wrong is one of three things. Bytes that cannot be read or
believed: a dead letter. A fault of ours in one record: a dead letter, and its traceback in the log. What the
environment breaks (a table, memory): raised, so that nothing is committed past the record. No Faust here: the
simulation runs the same dispatcher.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import structlog

from streams import wire
from streams.core import commands as c
from streams.core import intent as intents
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.channel import tool_of
from streams.core.names import IntentId, ManifestId, Site
from streams.core.policy import LEASES_MAX
from streams.core.topics import split
from streams.errors import WireError
from streams.planes import orders
from streams.worker import rows
from streams.worker.effects import ENVIRONMENT, Effects, Plane
from streams.worker.scheduler import RowKey, Scheduler
from streams.worker.turn import Turns, row_here

log = structlog.get_logger(__name__)

Headers = Sequence[tuple[str, bytes | None]] | None
Decoded = wire.Heard | WireError
"""A record behind the gate: read, or refused."""

STEPS_BETWEEN = 500
"""Keys of a scan between two steps of waking."""
REOPENED_MS = 60_000
"""A plane reads payload from so long before the oldest open request, since clocks differ between sites."""


class Dispatcher:
    """Everything a worker does with records, for the partitions it owns."""

    def __init__(
        self,
        here: Site,
        turns: Turns,
        scheduler: Scheduler,
        effects: Effects,
        plane: Plane,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.here, self.turns, self.scheduler, self.effects = here, turns, scheduler, effects
        self.plane, self.now_ms = plane, now_ms
        self.reads: dict[int, int | None] = {}
        """Payload partitions the plane reads, and from when."""
        self.serving: dict[tuple[object, ...], m.ChunksRequested] = {}
        """Requests of others not yet served: memory only, their leases cover a loss."""
        self.counts = {"applied": 0, "dead": 0}

    def decode(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> Decoded:
        """What the gate makes of a record; a state of nothing changes, so that any thread may ask."""
        try:
            return wire.decode(topic, key, value, headers, self.here)
        except WireError as refusal:
            return refusal

    def hear(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        decoded: Decoded | None = None,
    ) -> m.DeadLetter | None:
        """One record of a journal this site's agents read; its dead letter if it is refused.

        The record is done with when its dead letter is in the log. Raises what the environment breaks, and only that.
        """
        self.scheduler.begin_slice()
        try:
            heard = decoded or self.decode(topic, key, value, headers)
            if isinstance(heard, WireError):
                raise heard
            refused = self._turn(topic, partition, heard, value or b"")
            if refused is None:
                self.counts["applied"] += 1
                return None
            error = WireError(refused)
        except WireError as refusal:
            error = refusal
        except ENVIRONMENT:
            raise
        except Exception as failure:
            # A fault of ours must not stop the records behind this one; the dead letter keeps it whole.
            log.exception("a turn failed", topic=topic, partition=partition, offset=offset)
            error = WireError(f"the turn failed: {type(failure).__name__}: {failure}")
        self.counts["dead"] += 1
        log.warning("dead letter", topic=topic, partition=partition, offset=offset, why=error.what)
        return wire.dead_letter(error, topic, partition, offset, key, value, headers)

    def _turn(self, topic: str, partition: int, heard: wire.Heard, value: bytes) -> str | None:
        """Has a record folded by the row that it says of itself; what it is to others than rows is here."""
        message = heard.message
        match message:
            case m.ChunksRequested() if split(topic)[0] is not None:
                self._serve(partition, message, heard.origin.at_ms)
                return None
            case m.ChunksServed():
                self.serving.pop(("serve", message.manifest, message.destination, message.request_no), None)
                return None
            case _ if m.row_of(message) is m.Row.NONE:
                return f"{type(message).__name__}: no agent hears this here"
        match row_here(topic, message):
            case m.Row.INTENT:
                return self._intent(partition, cast("intents.IntentMessage", message), value)
            case m.Row.TRANSFER:
                self._transfer(partition, cast("transfers.TransferMessage", message), value, heard.origin.writer)
        if isinstance(message, m.ChunksRequested) and message.source == self.here:
            self._serve(partition, message, heard.origin.at_ms)
        return None

    def _intent(self, partition: int, msg: intents.IntentMessage, value: bytes) -> str | None:
        if isinstance(msg, m.TransferReported) and msg.destination == self.here:
            self.scheduler.answered(msg.manifest)
        turned = self.turns.intent(partition, msg, value)
        self.scheduler.ask_intent(partition, turned.row)
        return turned.refused

    def _transfer(self, partition: int, msg: transfers.TransferMessage, value: bytes, writer: str) -> None:
        if isinstance(msg, m.PartOpened) and writer == self.plane.writer:
            self.scheduler.admission.opened.add(msg.manifest)
        turned = self.turns.transfer(msg, value)
        row, index = turned.row, turned.index
        if isinstance(msg, m.TransferPlanned | m.TransferDecided) and self.scheduler.is_awake(partition):
            # Before the row is asked, or the change would be reported twice.
            self.scheduler.answer(row, index, msg.decision_no)
        if isinstance(msg, m.PartLost):
            self.scheduler.part_gone(msg.manifest)
        if isinstance(msg, m.TransferProgress):
            self.scheduler.note_waiting(row, index)
        if isinstance(msg, m.LeaseExpired) and self.scheduler.is_awake(partition):
            self.scheduler.doubt_part(row)
        self.scheduler.ask_transfer(partition, row, index)
        if row.state is transfers.State.CLOSED:
            self.scheduler.closed(row.manifest)
            self.effects.landing.forget(row.manifest)
            self.plane.tell(orders.Forget(row.manifest))

    def _serve(self, partition: int, request: m.ChunksRequested, sent_ms: int) -> None:
        """Hands a request to the plane, under a lease by this site's clock: the other's may be minutes away.

        The lease is the longest that there is: the destination waits while the payload before it is on its way. A
        request that it repeats comes under another number, and ends this one (planes/source/server.py).
        """
        if tool_of(request.plane) is not None:
            return  # its destination has it brought: it names this site for the books alone
        if self.scheduler.is_awake(partition):
            lease_ms = max(0, request.until_ms - sent_ms)
            request = replace(request, until_ms=self.now_ms() + LEASES_MAX * lease_ms)
        command = c.ServeChunks(request)
        if request.until_ms <= self.now_ms() or command.id in self.serving:
            return
        self.serving[command.id] = request
        self.effects(command)

    def plane_restarted(self) -> None:
        """Tells a new plane everything: where to read, which parts to hold, what to serve."""
        self.scheduler.plane_restarted()
        self.reads = {partition: self._oldest_ms(partition) for partition in self.reads}
        self.plane.tell(orders.Assign(dict(self.reads)))
        self.forget_expired()
        for request in self.serving.values():
            self.effects(c.ServeChunks(request))

    def _oldest_ms(self, partition: int) -> int | None:
        since = [at for manifest, at in self.scheduler.asked.items() if self.scheduler.partition(manifest) == partition]
        return max(0, min(since) - REOPENED_MS) if since else None

    def forget_expired(self) -> None:
        """Drops requests whose lease has ended unserved."""
        now = self.now_ms()
        self.serving = {key: request for key, request in self.serving.items() if request.until_ms > now}

    def waking(self, partition: int) -> Iterator[None]:
        """Wakes a partition that has caught up, in steps; facts may be heard between two of them.

        First, what its open transfers have under way is noted: requests use credit before anybody is granted more, and
        the plane reads payload from the oldest on. Only then the partition is awake, and every open row falls due:
        each is read again when it is asked, and each open intent plans once more those whose rows are not here.
        """
        tables, asked = self.turns.tables, list[ManifestId]()
        yield from self.turns.note_leftovers(partition)
        for entry in tables.transfers.keys(partition, rows.OPEN):
            manifest = ManifestId(rows.owner_of(entry))
            row = self.turns.transfer_row(manifest)
            if row is not None and row.state is not transfers.State.CLOSED:
                asked.append(manifest)
                self.scheduler.note_credit(row, self.turns.index(manifest))
                self.scheduler.note_tools(row)
            yield
        if partition not in self.scheduler.owned:
            return
        self.scheduler.wake(partition)
        self.reads[partition] = self._oldest_ms(partition)
        self.plane.tell(orders.Assign(dict(self.reads)))
        for number, manifest in enumerate(asked):
            self.scheduler.fall_due(partition, manifest)
            if number % STEPS_BETWEEN == 0:
                yield
        for number, entry in enumerate(tables.intents.keys(partition, rows.OPEN)):
            self.scheduler.replan(partition, IntentId(rows.owner_of(entry)))
            if number % STEPS_BETWEEN == 0:
                yield

    def drop(self, partition: int) -> None:
        """The partition went to another worker."""
        self.scheduler.drop(partition)
        self.effects.landing.drop(lambda manifest: self.scheduler.partition(manifest) == partition)
        self.turns.drop(partition)
        if partition in self.reads:
            del self.reads[partition]
            self.plane.tell(orders.Assign(dict(self.reads)))

    def tick(self) -> bool:
        """Asks rows that fell due, for a slice; whether more are due. Writes no table.

        Raises what the environment breaks; a fault of ours in one row is logged, and the next is asked.
        """
        scheduler = self.scheduler
        scheduler.begin_slice()
        while self.effects.lost:
            scheduler.lost(self.effects.lost.popleft())
            if scheduler.slice_is_over:
                return True  # a broker that was away gives up a whole buffer at once
        scheduler.grant()
        while (due := scheduler.next_due()) is not None:
            try:
                self._ask(*due)
            except ENVIRONMENT:
                raise
            except Exception:
                log.exception("a row cannot be asked", row=due[1])
                scheduler.put_off(*due)
            if scheduler.slice_is_over:
                return True
        scheduler.soon.clear()
        return False

    def _ask(self, partition: int, key: RowKey) -> None:
        if isinstance(key, ManifestId):
            transfer = self.turns.transfer_row(key)
            if transfer is not None and transfer.state is not transfers.State.CLOSED:
                self.scheduler.ask_transfer(partition, transfer, self.turns.index(transfer.manifest))
        else:
            intent = self.turns.intent_row(key)
            if intent is not None:
                self.scheduler.ask_intent(partition, intent)
