"""A worker's desk: a record comes in, the turn folds it, the clock asks what is owed, effects carry it out.

One entrance, `hear`, for every topic family, and it never raises: what cannot be read or folded becomes a dead letter
and the next record is heard. No Faust here: the simulation sits at the same desk.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from agents import rows
from agents.clock import Clock, is_manifest
from agents.effects import Effects, Sending
from agents.turn import Turns
from streams import wire
from streams.core import commands as c
from streams.core import messages as m
from streams.core import transfer as transfers
from streams.core.names import IntentId, ManifestId, Site
from streams.core.policy import LEASES_MAX
from streams.core.topics import split
from streams.errors import Temporary, WireError
from streams.planes import orders

log = structlog.get_logger(__name__)

DEAD_LETTERS_KEPT = 1000
REOPENED_MS = 60_000
"""A plane reads payload from so long before the oldest open request, since clocks differ between sites."""


class Plane(Protocol):
    """The worker's plane process."""

    @property
    def writer(self) -> str: ...

    def tell(self, order: orders.Order) -> bool: ...


class Desk:
    """Everything a worker does with records, for the partitions it owns."""

    def __init__(
        self,
        here: Site,
        turns: Turns,
        clock: Clock,
        effects: Effects,
        publisher: Sending,
        plane: Plane,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.here, self.turns, self.clock, self.effects = here, turns, clock, effects
        self.publisher, self.plane, self.now_ms = publisher, plane, now_ms
        self.reads: dict[int, int | None] = {}
        """Payload partitions the plane reads, and from when."""
        self.serving: dict[tuple[object, ...], m.ChunksRequested] = {}
        """Requests of others not yet served: memory only, their leases cover a loss."""
        self.unsent: deque[m.DeadLetter] = deque(maxlen=DEAD_LETTERS_KEPT)
        """Dead letters the publisher had no room for."""
        self.counts = {"applied": 0, "dead": 0}

    def hear(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] | None,
    ) -> None:
        """One record of a journal this site's agents read."""
        try:
            heard = wire.decode(topic, key, value, headers, self.here)
            refused = self._turn(topic, partition, heard)
            if refused is None:
                self.counts["applied"] += 1
                return
            error = WireError(refused)
        except WireError as refusal:
            error = refusal
        except Exception as failure:
            # A fault of ours must not stop the records behind this one; the dead letter keeps it whole.
            log.exception("a turn failed", topic=topic, partition=partition, offset=offset)
            error = WireError(f"the turn failed: {type(failure).__name__}: {failure}")
        self.counts["dead"] += 1
        log.warning("dead letter", topic=topic, partition=partition, offset=offset, why=error.what)
        try:
            letter = wire.dead_letter(error, topic, partition, offset, key, value, headers)
        except Exception:
            log.exception("a dead letter cannot be written", topic=topic, partition=partition, offset=offset)
            return
        if len(self.unsent) == DEAD_LETTERS_KEPT:
            log.error("too many dead letters wait; the oldest is given up", letter=str(self.unsent[0])[:1000])
        self.unsent.append(letter)
        self._send_dead_letters()

    def _send_dead_letters(self) -> None:
        """What cannot be sent now is tried again with every tick."""
        while self.unsent:
            try:
                self.publisher.send(self.unsent[0])
            except Temporary:
                return
            except Exception:
                log.exception("a dead letter cannot be published", letter=str(self.unsent[0])[:1000])
            self.unsent.popleft()

    def _turn(self, topic: str, partition: int, heard: wire.Heard) -> str | None:
        match heard.message:
            case (
                m.TransferIntent()
                | m.IntentAsked()
                | m.IntentDecided()
                | m.ManifestWritten()
                | m.TransferReported()
                | m.CompletionRecord()
            ) as msg:
                turned = self.turns.intent(msg)
                self.clock.ask_intent(partition, turned.row)
                return turned.refused
            case m.ChunksRequested() as msg if split(topic)[0] is not None:
                self._serve(partition, msg, heard.origin.at_ms)
            case m.TransferProgress() as msg if msg.destination.consumer:
                pass  # a consumer at this site keeps its own place
            case m.ChunksRequested() as msg:
                if not msg.destination.consumer:
                    self._transfer(partition, msg)
                if msg.source == self.here:
                    self._serve(partition, msg, heard.origin.at_ms)
            case m.ChunksServed() as msg:
                self.serving.pop(("serve", msg.manifest, msg.destination, msg.request_no), None)
            case (
                m.TransferPlanned()
                | m.TransferDecided()
                | m.PartOpened()
                | m.PartLost()
                | m.LeaseExpired()
                | m.SourceFailed()
                | m.TransferClosed()
                | m.TransferProgress()
            ) as msg:
                if isinstance(msg, m.PartOpened) and heard.origin.writer == self.plane.writer:
                    self.clock.holding.opened.add(msg.manifest)
                self._transfer(partition, msg)
            case other:
                return f"{type(other).__name__}: no agent hears this here"
        return None

    def _transfer(self, partition: int, msg: transfers.TransferMessage) -> None:
        turned = self.turns.transfer(msg)
        row, manifest = turned.row, turned.manifest
        if isinstance(msg, m.TransferPlanned | m.TransferDecided) and self.clock.is_awake(partition):
            # Before the row is asked, or the change would be reported twice.
            self.clock.answer(row, manifest, msg.decision_no)
        if isinstance(msg, m.PartLost):
            self.clock.part_gone(msg.manifest)
        self.clock.ask_transfers([(partition, row, manifest)])
        if row.state is transfers.State.CLOSED:
            self.clock.closed(row.manifest)
            self.plane.tell(orders.Forget(row.manifest))

    def _serve(self, partition: int, request: m.ChunksRequested, sent_ms: int) -> None:
        """Hands a request to the plane, under a lease by this site's clock: the other's may be minutes away.

        Its longest: while the payload before it is on its way, the destination waits. Had it asked again, the plane
        would hear of it.
        """
        if self.clock.is_awake(partition):
            lease_ms = max(0, request.until_ms - sent_ms)
            request = replace(request, until_ms=self.now_ms() + LEASES_MAX * lease_ms)
        command = c.ServeChunks(request)
        if request.until_ms <= self.now_ms() or command.id in self.serving:
            return
        self.serving[command.id] = request
        self.effects(command, None)

    def plane_restarted(self) -> None:
        """Tells a new plane everything: where to read, which parts to hold, what to serve."""
        self.clock.plane_restarted()
        self.reads = {partition: self._oldest_ms(partition) for partition in self.reads}
        self.plane.tell(orders.Assign(dict(self.reads)))
        self.forget_expired()
        for request in self.serving.values():
            self.effects(c.ServeChunks(request), None)

    def _oldest_ms(self, partition: int) -> int | None:
        since = [at for manifest, at in self.clock.asked.items() if self.clock.partition(manifest) == partition]
        return max(0, min(since) - REOPENED_MS) if since else None

    def forget_expired(self) -> None:
        """Drops requests whose lease has ended unserved."""
        now = self.now_ms()
        self.serving = {key: request for key, request in self.serving.items() if request.until_ms > now}

    def wake(self, partition: int, found: Iterable[tuple[str, bytes]]) -> None:
        """The partition has caught up: asks every open row once. `found` are its rows of intents and transfers."""
        open_intents, open_transfers, oldest = [], [], None
        for key, raw in found:
            if not is_manifest(key):
                row = rows.intent_row(raw)
                if row is not None and (not row.ended or row.reports):
                    open_intents.append(row)
                continue
            transfer = rows.transfer_row(raw)
            if transfer is None or transfer.state is transfers.State.CLOSED:
                continue
            open_transfers.append(transfer)
            for request in (o for s in transfer.sources for o in s.outstanding):
                asked_ms = request.until_ms - int(self.clock.policy.lease_s * 1000)
                oldest = asked_ms if oldest is None else min(oldest, asked_ms)
        self.clock.wake(partition)
        self.reads[partition] = None if oldest is None else max(0, oldest - REOPENED_MS)
        self.plane.tell(orders.Assign(dict(self.reads)))
        for row in open_intents:
            self.clock.ask_intent(partition, row, replan=True)
        self.clock.ask_transfers((partition, row, self.turns.manifest(row.manifest)) for row in open_transfers)

    def drop(self, partition: int) -> None:
        """The partition went to another worker."""
        self.clock.drop(partition)
        if partition in self.reads:
            del self.reads[partition]
            self.plane.tell(orders.Assign(dict(self.reads)))

    def tick(self) -> None:
        """Asks the rows that fell due; writes no table."""
        self._send_dead_letters()
        asked = []
        for partition, key in self.clock.due():
            if is_manifest(key):
                transfer = self.turns.transfer_row(ManifestId(key))
                if transfer is not None and transfer.state is not transfers.State.CLOSED:
                    asked.append((partition, transfer, self.turns.manifest(ManifestId(key))))
            else:
                intent = self.turns.intent_row(IntentId(key))
                if intent is not None:
                    self.clock.ask_intent(partition, intent)
        self.clock.ask_transfers(asked)
