"""The destination half of a plane: orders and payload records in, part files and facts out.

Several threads meet here: the pipe's (begin), openers (the steps of an opening), orders that end (stop, forget, keep),
payload (take), and the sync thread (run), which alone makes bytes durable and seals. Progress is published after the
sync, never before. What brings payload is a carrier's business; what is known of one manifest is landing.py's.

A transfer is in `_openings` from its order until its parts are open, then in `_landings`. Who ends it takes it out of
either first: an opening that finds itself ended opens nothing more and says nothing. Locks are taken in the order
`_rounds`, `_saying`, `_table`; the last is never held while anything waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Condition, Lock

from streams import wire
from streams.core.channel import Giver
from streams.core.manifest import ItemLayout
from streams.core.names import ManifestId, Site, Text, shown
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import (
    ChunkHeader,
    ChunksOffered,
    FailureClass,
    Item,
    ManifestWritten,
    Message,
    PartLost,
    Reason,
    RequestedItem,
    Scope,
    SourceFailed,
    Unit,
    UrlsOffered,
)
from streams.core.topics import partition_of
from streams.errors import StorageError, WireError
from streams.kafka.publish import wall_ms
from streams.planes.destination.landing import Landing, Lent
from streams.planes.destination.part_files import ByteParts, PartFiles, WithoutLibraries
from streams.planes.destination.relay import GrowingItem
from streams.planes.destination.unread import UnreadFact
from streams.planes.orders import Bring, Expect, Fail, Open, Stop
from streams.planes.reasons import reason_of
from streams.storage.endpoint import Endpoint, Reader, Workroom, part_tag

log = logging.getLogger(__name__)

UNSYNCED_BYTES_MAX = 96 * 1024 * 1024
"""Of all landings: the payload thread waits for the disk beyond."""
LINE_UNSYNCED_BYTES_MAX = 512 * 1024 * 1024
"""Who brings bytes of the line waits beyond."""
IDLE_S = 0.25
"""Nothing more came for so long: sync what there is (a record of the request was lost, or a source is slow)."""
OLDEST_S = 2.0
"""Progress is told at least this often while bytes come."""
_NEVER = float("inf")
RETRY_S = 1.0
"""Between two tries of an item whose storage failed in passing."""
_GONE = Reason(Scope.AGENT, FailureClass.TRANSIENT, "close", Text("let go"))


@dataclass(eq=False, slots=True)
class Opening:
    """A transfer whose parts are being opened. `landing` is there once its manifest is decoded."""

    order: Open
    landing: Landing | None = None
    ended: bool = False

    def end(self) -> None:
        """It opens nothing more but what it is at, and says nothing."""
        self.ended = True
        if self.landing is not None:
            self.landing.lost = self.landing.lost or _GONE

    def release(self, why: Reason, *, discard: bool) -> bool:
        """Close, or delete, what it has open already; whether its parts are known."""
        if self.landing is not None:
            self.landing.release(why, discard=discard)
        return self.landing is not None


class DestinationPlane:
    """`publish(message)` may raise Temporary or block; what was not published is owed again by the worker."""

    def __init__(
        self,
        here: Site,
        partitions: int,
        endpoint: Endpoint,
        publish: Callable[[Message], None],
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._here = here
        self._partitions = partitions
        self._endpoint = endpoint
        self._publish = publish
        self._clock, self._now_ms = clock, now_ms
        self._files: dict[Unit, PartFiles] = {}
        self._openings: dict[bytes, Opening] = {}
        self._landings: dict[bytes, Landing] = {}
        self._wake = Condition()
        self._rounds = Lock()
        self._take_offer: Callable[[ChunksOffered | UrlsOffered], None] = lambda _: None
        self._take_bring: Callable[[Bring], None] = lambda _: None
        self._take_expected: Callable[[Expect], None] = lambda _: None
        self.lobby: object = None
        """Where such connections wait: the business of who has a door, and of who pulls."""
        self._saying = Lock()
        """Held while it is said that parts are open or lost: in this order they get into the log."""
        self._table = Lock()
        self._making = Lock()
        self._unsynced_bytes = 0
        self._waiting = 0
        """Threads that wait for room."""
        self._running = True
        self.share = 1.0
        """Of the site's partitions, what is this worker's: so much of its rates is this plane's."""

    # orders

    def begin(self, order: Open) -> Iterator[bool] | None:
        """The steps that open a transfer's parts; None while this is being done already. Waits for nothing.

        PartOpened or PartLost is said when its steps are done, each time it is ordered, unless the transfer is ended
        meanwhile. An older attempt that is under way ends; the newer one is owed again, and begins when that has ended.
        """
        key = order.manifest_id.encode()
        with self._table:
            known = self._openings.get(key)
            if known is not None:
                if known.order.attempt < order.attempt:
                    known.end()
                return None
            opening = self._openings[key] = Opening(order)
        return self._steps(key, opening)

    def _steps(self, key: bytes, opening: Opening) -> Iterator[bool]:
        try:
            yield from self._open(key, opening)
        except WireError as error:
            log.error("%s is not opened: its manifest cannot be read: %s", opening.order.manifest_id, error)
        finally:
            with self._table:
                if self._openings.get(key) is opening:
                    del self._openings[key]
        if opening.ended:
            opening.release(_GONE, discard=False)

    def _open(self, key: bytes, opening: Opening) -> Iterator[bool]:
        order, known = opening.order, self._landings.get(key)
        if opening.ended or (known is not None and known.attempt > order.attempt):
            return
        if known is not None and known.attempt == order.attempt:
            if known.lost is not None:
                return  # the sync thread is about to say so
            if known.progress.heard_again(order):
                with self._saying:
                    if self._landings.get(key) is known and not opening.ended:
                        self._publish(known.progress.opened(self._endpoint.name))
                self._nudge(known)
                return
            order = known.progress.knowing(order)
        body = _body(order.manifest_id, order.manifest)
        landing = Landing(body, order, self._files_of(body.unit), self._endpoint.root)
        if known is not None and known.attempt == order.attempt:
            landing.progress.inherit(known.progress)
        with self._rounds:  # one that is under way may still seal what is let go here
            with self._table:
                if opening.ended:
                    return
                opening.landing = landing
            self._let_go(key, discard=False)  # the new landing deletes an older attempt's parts
        try:
            yield from landing.opening()
        except StorageError as error:
            landing.lost = landing.lost or reason_of(error, "open")
        self._opened(key, opening, landing)

    def _opened(self, key: bytes, opening: Opening, landing: Landing) -> None:
        """The last step: from here on bytes are taken. Who ended the opening says so, or needs not to."""
        with self._saying:
            with self._table:
                if opening.ended:
                    return
                del self._openings[key]
                if landing.lost is None:
                    self._landings[key] = landing
            if landing.lost is not None:
                landing.release(landing.lost, discard=False)
                self._publish(PartLost(landing.id, landing.attempt, landing.lost))
                return
            self._publish(landing.progress.opened(self._endpoint.name))
        self._nudge(landing)

    def stop(self, order: Stop) -> None:
        """Nothing is sealed or opened once this is answered: a round that is under way ends first."""
        key = order.manifest_id.encode()
        opening = self._end_opening(key)
        known = opening is not None and opening.release(order.reason, discard=True)
        if not known and key not in self._landings and order.manifest is not None:
            self._discard_left(order, order.manifest)
        with self._rounds:
            self._let_go(key, discard=True, why=order.reason)
            with self._saying:
                self._publish(PartLost(order.manifest_id, order.attempt, order.reason))

    def _discard_left(self, order: Stop, framed: bytes) -> None:
        """Delete the parts that an earlier plane left."""
        try:
            body = _body(order.manifest_id, framed)
        except WireError as error:
            log.error("%s: its parts stay behind: its manifest cannot be read: %s", order.manifest_id, error)
            return
        left = Open(order.manifest_id, framed, order.attempt, EMPTY, EMPTY, EMPTY)
        Landing(body, left, self._files_of(body.unit), self._endpoint.root).release(order.reason, discard=True)

    def fail(self, order: Fail) -> None:
        """The worker owes it again while the transfer is not open here."""
        landing = self._landings.get(order.manifest_id.encode())
        if landing is not None:
            for group in order.failed:
                for item in group.items.numbers():
                    landing.fail(item, group.reason)
            self._nudge(landing)

    def forget(self, manifest_id: ManifestId) -> None:
        opening = self._end_opening(manifest_id.encode())
        with self._rounds:
            self._let_go(manifest_id.encode(), discard=False)
        if opening is not None:
            opening.release(_GONE, discard=False)

    def leave(self, partitions: Container[int]) -> None:
        """Let go of the transfers of partitions: another worker's plane writes them now."""

        def elsewhere(key: bytes) -> bool:
            return partition_of(key, self._partitions) in partitions

        with self._table:
            moved = [key for key in self._openings if elsewhere(key)]
        openings = [self._end_opening(key) for key in moved]
        with self._rounds:
            for key, landing in list(self._landings.items()):
                if elsewhere(key):
                    log.info("%s: its partition went to another worker", landing.id)
                    self._let_go(key, discard=False)
        for opening in openings:
            if opening is not None:
                opening.release(_GONE, discard=False)

    def _end_opening(self, key: bytes) -> Opening | None:
        with self._table:
            opening = self._openings.pop(key, None)
            if opening is not None:
                opening.end()
        return opening

    def _files_of(self, unit: Unit) -> PartFiles:
        with self._making:
            if unit not in self._files:
                self._files[unit] = part_files(unit, self._endpoint)
            return self._files[unit]

    def _let_go(self, key: bytes, *, discard: bool, why: Reason | None = None) -> None:
        landing = self._landings.pop(key, None)
        if landing is not None:
            landing.release(why or _GONE, discard=discard)
            self._settled_bytes(landing.unsynced_bytes)

    # payload

    def is_open(self, key: bytes) -> bool:
        return key in self._landings

    def take(self, carrier: str, key: bytes, source: Site, header: ChunkHeader, payload: bytes) -> None:
        """One payload record of `source`, by whatever carrier. Waits while too much is not synced yet.

        What is for a consumer passes by.
        """
        landing = self._landings.get(key)
        if landing is None or header.destination != self._here:
            return
        taken, unread = landing.take(Giver(source, carrier, header.request_no), header, payload)
        self._say_unread(landing, carrier, unread)
        self._took(landing, taken, UNSYNCED_BYTES_MAX, last=header.last)

    def layout(self, key: bytes, attempt: int | None = None) -> ItemLayout | None:
        """Where the items of an open transfer stand on its line; None of one that is not open, or not this attempt."""
        landing = self._open_landing(key, attempt)
        return None if landing is None else landing.progress.line

    def _open_landing(self, key: bytes, attempt: int | None) -> Landing | None:
        landing = self._landings.get(key)
        if landing is None or landing.lost is not None:
            return None
        return landing if attempt in (None, landing.attempt) else None

    def item(self, key: bytes, number: int, attempt: int) -> Item | None:
        """Of an open transfer."""
        landing = self._open_landing(key, attempt)
        return None if landing is None else landing.item(number)

    def workroom(self, key: bytes, number: int, attempt: int) -> Workroom | None:
        """A directory in which a program may write an item of an open transfer, beside its target. StorageError."""
        item = self.item(key, number, attempt)
        if item is None:
            return None
        tag = part_tag(ManifestId(key.decode()), number, attempt)
        return self._endpoint.open_workroom(item.target, tag)

    def take_line(self, key: bytes, giver: Giver, start: int, view: memoryview, *, last: bool = False) -> bool:
        """Bytes of the line from `start` on, of any thread; False once the transfer is not open here any more.

        Waits while too much is not synced yet. `last`: nobody brings more of what was asked for.
        """
        landing = self._landings.get(key)
        if landing is None or landing.lost is not None:
            return False
        self._took(landing, landing.take_line(giver, start, view), LINE_UNSYNCED_BYTES_MAX, last=last)
        return True

    def seeds(self, key: bytes, ranges: Ranges) -> Ranges:
        """Of these positions, those of items of which an earlier attempt left bytes that may be right."""
        landing = self._landings.get(key)
        return EMPTY if landing is None else landing.seeds(ranges)

    def adopt(
        self,
        key: bytes,
        giver: Giver,
        start: int,
        stop: int,
        adler32: int,
        is_right: Callable[[memoryview], bool],
        *,
        last: bool = False,
    ) -> bool:
        """Whether what an earlier attempt left of these positions, all of one item, is right; then it is written.

        `adler32`: of what the giver has there. `last`: as of `take_line`.
        """
        landing = self._landings.get(key)
        if landing is None or landing.lost is not None:
            return False
        taken = landing.adopt(giver, start, stop, adler32, is_right)
        self._took(landing, taken, LINE_UNSYNCED_BYTES_MAX, last=last)
        return taken > 0

    def wanted(self, key: bytes, ranges: Ranges) -> Ranges:
        """What an open transfer lacks of these ranges. Where it lacks nothing, who asked does not know: told again."""
        landing = self._landings.get(key)
        if landing is None or landing.lost is not None:
            return EMPTY
        lacks = landing.progress.lacking(ranges)
        self._nudge(landing)
        return lacks

    def is_relay(self, key: bytes, site: Site) -> bool:
        """Whether an open transfer comes from a site that gets it too, and held nothing of it."""
        landing = self._landings.get(key)
        return landing is not None and not landing.holds(site)

    def waits(self, key: bytes) -> None:
        """Who was asked for an open transfer has nothing yet: told as progress that is none, or its lease would end."""
        landing = self._landings.get(key)
        if landing is not None and landing.lost is None:
            landing.progress.news = True
            self._nudge(landing)

    def gives(self, manifest: ManifestId, items: Sequence[RequestedItem]) -> bool:
        """Whether what others ask of a transfer to this site is on its way here, or is here."""
        landing = self._landings.get(manifest.encode())
        if landing is not None:
            return landing.lost is None
        try:
            return all(self._endpoint.stat(item.lfn).bytes == item.length for item in items[:1])
        except StorageError:
            return False

    def open_reader(self, manifest: ManifestId, item: RequestedItem) -> Reader:
        """Of an item of a transfer to this site, for who gets it from here. It may still be growing."""
        landing = self._landings.get(manifest.encode())
        if landing is not None:
            return GrowingItem(landing, item, self._here)
        return self._endpoint.open_reader(item.lfn)

    def take_offers(self, take: Callable[[ChunksOffered | UrlsOffered], None]) -> None:
        """Who fetches what is offered in the payload's place."""
        self._take_offer = take

    def take_brings(self, take: Callable[[Bring], None]) -> None:
        """Who has tools bring what is asked for so."""
        self._take_bring = take

    def bring(self, order: Bring) -> None:
        self._take_bring(order)

    def take_expected(self, take: Callable[[Expect], None]) -> None:
        """Who waits for sources that connect."""
        self._take_expected = take

    def expect(self, order: Expect) -> None:
        self._take_expected(order)

    def offered(self, offer: ChunksOffered | UrlsOffered) -> None:
        if offer.destination == self._here:
            self._take_offer(offer)

    def source_failed(
        self, carrier: str, key: bytes, source: Site, request_no: int, items: Ranges, reason: Reason
    ) -> None:
        """A source cannot give what it was asked for: these items, or, of none, anything of the request.

        Items that it will never give fail here, where nobody else has them.
        """
        landing = self._landings.get(key)
        if landing is None:
            return
        if items and reason.failure_class is not FailureClass.TRANSIENT:
            others = landing.never_given(items, reason)
            self._nudge(landing)
            if not others:
                return
            items = others
        self._say_unread(landing, carrier, [UnreadFact(source, request_no, items, reason)])

    def _say_unread(self, landing: Landing, carrier: str, facts: Iterable[UnreadFact]) -> None:
        for said in facts:
            self._publish(
                SourceFailed(landing.id, said.source, said.request_no, carrier, said.items, said.reason, self._now_ms())
            )

    def _took(self, landing: Landing, taken: int, unsynced_bytes_max: int, *, last: bool) -> None:
        now = self._clock()
        with self._wake:
            self._unsynced_bytes += taken
            landing.last_at = now
            landing.first_at = min(landing.first_at, now)
            if landing.lost is not None or last:
                landing.urgent = True
                self._wake.notify_all()
            elif landing.unsynced_bytes >= landing.sync_bytes or landing.first_at == now:
                self._wake.notify_all()
            while self._unsynced_bytes >= unsynced_bytes_max and self._running:
                self._waiting += 1
                self._wake.notify_all()
                self._wake.wait(1.0)
                self._waiting -= 1

    def _nudge(self, landing: Landing) -> None:
        with self._wake:
            if landing.news:  # else the first bytes that come would be synced alone
                landing.urgent = True
                self._wake.notify_all()

    def _settled_bytes(self, count: int) -> None:
        with self._wake:
            self._unsynced_bytes -= count
            self._wake.notify_all()

    # the sync thread

    def threads(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "sync", self.run

    def run(self) -> None:
        """The sync thread: until `close`."""
        while self._running:
            try:
                with self._wake:
                    due, wait_s = self._due()
                    if not due:
                        if self._running:  # asked under the lock, or the last call could be missed
                            self._wake.wait(wait_s)
                        continue
                self.sync(due)
            except Exception:
                log.exception("a sync round was skipped")
                time.sleep(RETRY_S)

    def close(self) -> None:
        with self._wake:
            self._running = False
            self._wake.notify_all()

    def _due(self) -> tuple[list[Landing], float | None]:
        """Landings to sync now, or how long to wait for the next."""
        now = self._clock()
        due: list[Landing] = []
        soonest = _NEVER
        for landing in list(self._landings.values()):
            if landing.lost is None and not landing.news:
                continue
            at = min(landing.last_at + IDLE_S, landing.first_at + OLDEST_S)
            at = max(at, landing.not_before)
            if landing.urgent or self._waiting or landing.unsynced_bytes >= landing.sync_bytes:
                at = landing.not_before
            if at <= now:
                due.append(landing)
            else:
                soonest = min(soonest, at)
        # never: what is being taken this instant will say when it is due
        return due, None if soonest == _NEVER else soonest - now

    def sync(self, landings: list[Landing]) -> None:
        """One round: sync and seal together what these landings hold, then publish what each can tell."""
        with self._rounds:
            alive = [one for one in landings if one.lost is None and self._landings.get(one.id.encode()) is one]
            for one in alive:  # before lending: what comes from now on asks for the next round
                one.urgent, one.first_at, one.last_at = False, _NEVER, _NEVER
            lent = [one.lend() for one in alive]
            try:
                self._sync_lent(landings, alive, lent)
            finally:  # whatever could not be said: what waits for room would wait for ever
                self._settled_bytes(sum(one.bytes for one in lent))

    def _sync_lent(self, landings: list[Landing], alive: list[Landing], lent: list[Lent]) -> None:
        try:
            self._make_durable(alive, lent)
        except Exception as error:
            log.exception("a sync round failed")
            _give_up(alive, error)
        self._seal_last(alive)
        self._say_all(landings)
        try:  # only now: progress need not wait for it, what is taken meanwhile should
            failed = [landing for landing, one in zip(alive, lent, strict=True) if landing.ahead(one)]
        except Exception as error:
            log.exception("a sync round failed")
            _give_up(failed := alive, error)
        self._say_all(failed)

    def _seal_last(self, landings: list[Landing]) -> None:
        """Of attempts that end since data were wrong: seal what is whole, which else would come again."""
        last = [(landing, lent) for landing in landings if (lent := landing.lend_last()).whole]
        try:
            self._make_durable([landing for landing, _ in last], [lent for _, lent in last])
        except Exception:
            log.exception("what was whole of an attempt that ends was not sealed")

    def _make_durable(self, landings: list[Landing], lent: list[Lent]) -> None:
        for files in dict.fromkeys(landing.files for landing in landings):
            some = [pair for pair in zip(landings, lent, strict=True) if pair[0].files is files]
            whole = [held for _, one in some for held in one.whole]
            partial = [held for _, one in some for held in one.partial]
            seals = iter(files.seal(whole) if whole else ())
            syncs = iter(files.sync(partial) if partial else ())
            for landing, one in some:
                landing.settle(one, [next(seals) for _ in one.whole], [next(syncs) for _ in one.partial])

    def _say_all(self, landings: list[Landing]) -> None:
        now = self._clock()
        for one in landings:
            if self._landings.get(one.id.encode()) is one:
                self._say(one, now)

    def _say(self, landing: Landing, now: float) -> None:
        told = landing.progress.tell(self._here, self._endpoint.name)
        if told is not None:
            self._publish(told)
        if landing.lost is not None:
            why = landing.lost
            for giver, items, reason in landing.blame():
                self._say_unread(landing, giver.carrier, [UnreadFact(giver.source, giver.request_no, items, reason)])
            self._landings.pop(landing.id.encode(), None)
            landing.give_up(why)
            self._settled_bytes(landing.unsynced_bytes)
            with self._saying:
                self._publish(PartLost(landing.id, landing.attempt, why))
        elif landing.news and not landing.urgent and landing.last_at == _NEVER:  # a seal failed in passing
            landing.urgent, landing.not_before = True, now + RETRY_S


def part_files(unit: Unit, endpoint: Endpoint) -> PartFiles:
    """Only for entries their libraries are imported."""
    if unit is Unit.BYTES:
        return ByteParts(endpoint)
    try:
        from streams.planes.destination.entry_parts import EntryParts
    except ImportError as error:
        return WithoutLibraries(endpoint, str(error))
    return EntryParts(endpoint)


def _give_up(landings: list[Landing], error: Exception) -> None:
    """A round must never end the thread: the attempts are what is given up."""
    for one in landings:
        text = Text(shown(f"the plane failed: {type(error).__name__}: {error}", 390))
        one.lost = one.lost or Reason(Scope.AGENT, FailureClass.TRANSIENT, "sync", text)


def _body(manifest: ManifestId, framed: bytes) -> ManifestWritten:
    """Raises WireError for what is not the manifest of this name."""
    body = wire.decode_value(ManifestWritten, framed)
    if body.manifest != manifest:
        raise WireError(f"an order for {manifest} brings the manifest {body.manifest}")
    return body
