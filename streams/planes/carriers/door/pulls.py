"""The pull engine: what doors offer is fetched over a few connections, and handed to the destination as it comes.

An offer is cut into pieces of its line; a thread has one connection at a time, and a piece asked for ahead beside the
one that it receives. Where an earlier attempt left bytes, the door's sums are asked for first, and only the blocks that
differ are fetched; of a door without sums all. A fault of a connection is tried again a few times, from the position
that was reached; what a door says of an item is that item's; then the source has failed this request, which the
destination makes a fact. An offer of what another offer of the same source brings takes its place.

Of servers that are no doors of this product each piece is a range of one item's URL, nothing is asked ahead, and what
an earlier attempt left is fetched anew: they have no sums. One that gives no ranges is not asked again for an hour.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from threading import Condition
from typing import Protocol

from streams.core.channel import DOOR, Giver
from streams.core.manifest import ItemLayout
from streams.core.names import Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import FailureClass, Reason, Scope
from streams.doors.client import BUFFER_BYTES, DoorConnection
from streams.doors.connection import DoorFault, Sink
from streams.doors.lobby import Dialled, Lobby
from streams.doors.pace import SharedPace
from streams.doors.sums import BLOCK_BYTES, BlockSums, sums_of
from streams.doors.urls import UrlConnection, UrlRange
from streams.planes.carriers.door.addresses import Address, AnyAddress, Offer, UrlAddress
from streams.planes.reasons import reason_of

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024 * 1024
PIECE_BYTES_MIN = 8 * 1024 * 1024
SUMS_BYTES = 128 * 1024 * 1024
"""Of which sums are asked for at once: a door reads them within the second."""
AHEAD = 2
"""Pieces asked for on a connection, the one that is received included."""
OF_LINK = 4
CONNECTIONS = 16
SMALL_BYTES = 256 * 1024
"""Of a transfer's files, on average: below, one connection of a link has them all. What they cost is the making of
their names, one after the other in a directory: two who make names there wait for each other (2,000 files of 64 KiB to
a disk: 0.9 s over one connection, 1.5 s over two, 1.9 s over four)."""
STEP_S, STEP_BYTES_MIN = 0.1, 64 * 1024
"""Of a bounded link so much is taken at once: a door breaks off where nothing is taken for half a minute."""
KEEP_S = 10.0
"""A connection without work is kept so long: less than a door keeps it."""
RETRIES_S = (0.2, 1.0, 3.0)
"""Between tries that brought nothing; then the source has failed."""
SILENT_S = 10.0
"""A relay says so while it has nothing itself: one that says nothing for so long is left."""
WAITS_S = 120.0
"""A relay that has had nothing for so long is left, whatever it says."""
DIALS_S = 10.0
"""A source whose offer says that it connects has done so by then."""
NO_RANGES_S = 3600.0
"""A server that answered a range with all of the file is not asked for another before."""
NO_RANGES_MAX = 1000
"""Of such servers."""
PHASE = "read"
_NOT_YET = 425
_NO_SUMS = (400, 404, 405, 416, 501)
"""What a door answers that has files and no sums."""


class Landings(Protocol):
    """What of the destination's half takes lines (coordinator.DestinationPlane)."""

    @property
    def share(self) -> float: ...

    def layout(self, key: bytes) -> ItemLayout | None: ...

    def take_line(self, key: bytes, giver: Giver, start: int, view: memoryview, *, last: bool = False) -> bool: ...

    def seeds(self, key: bytes, ranges: Ranges) -> Ranges: ...

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
    ) -> bool: ...

    def waits(self, key: bytes) -> None: ...

    def source_failed(
        self, carrier: str, key: bytes, source: Site, request_no: int, items: Ranges, reason: Reason
    ) -> None: ...


class _Gone(Exception):
    """Nobody wants the bytes any more."""


@dataclass(eq=False)
class _Pull:
    """An offer that is being fetched. `missing`: of its ranges, what has not come and is not excused."""

    offer: Offer
    key: bytes
    missing: Ranges
    small: bool = False
    """Whether its transfer is of small files."""
    layout: ItemLayout | None = None
    """Of one whose items have URLs each."""
    ended: bool = False
    tries: int = 0
    """Since it last brought something."""
    not_before_s: float = 0.0
    heard_s: float = field(default_factory=time.monotonic)
    """When its door gave something last, or said that it waits."""
    waits_since_s: float = 0.0
    """Since when its door has had nothing of it; 0 while something comes."""
    unread: dict[Reason, Ranges] = field(default_factory=dict)
    """Items that the door could not read for now, and that nobody was told of."""

    @property
    def giver(self) -> Giver:
        return Giver(self.offer.source, DOOR, self.offer.request_no)


@dataclass(eq=False, slots=True)
class _Piece:
    pull: _Pull
    start: int
    stop: int
    sums: bool = False
    """Whether what is here is compared with the door's sums: then it is all of one item."""


@dataclass(eq=False)
class _Door:
    """Pieces to be asked for at an address, in order, and how many threads are connected to it."""

    pieces: deque[_Piece] = field(default_factory=deque)
    connected: int = 0


class Pulls:
    def __init__(
        self,
        destination: Landings,
        *,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        connections: int = CONNECTIONS,
        of_link: int = OF_LINK,
        stall_s: float = 30.0,
        rates: Mapping[Site, int] | None = None,
        lobby: Lobby | None = None,
    ) -> None:
        self._destination = destination
        """`tls`: made when the first door speaks https; StorageError where that cannot be spoken. `rates`: bytes a
        second from a site to all planes here."""
        self._paces = {site: SharedPace(rate) for site, rate in (rates or {}).items()}
        self._lobby = lobby if lobby is not None else Lobby()
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._connections, self._of_link, self._stall_s = connections, of_link, stall_s
        self._wake = Condition()
        self._doors: dict[AnyAddress, _Door] = {}
        self._pulls: dict[tuple[bytes, Site], list[_Pull]] = {}
        self._no_ranges: OrderedDict[AnyAddress, float] = OrderedDict()
        """Until when servers are not asked for ranges that gave none."""
        self._running = True

    def threads(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield from ((f"pull-{number}", self.run) for number in range(self._connections))

    def close(self) -> None:
        with self._wake:
            self._running = False
            self._wake.notify_all()

    @property
    def busy(self) -> bool:
        return bool(self._pulls)

    def offered(self, offer: Offer) -> None:
        """Fetch it, in place of what the same source offered of these ranges before. Any thread; waits for nothing."""
        pull = _Pull(offer, offer.manifest.encode(), offer.ranges)
        layout = self._destination.layout(pull.key)
        pull.small = layout is not None and layout.total < SMALL_BYTES * layout.count
        seeds = EMPTY
        if isinstance(offer.address, UrlAddress):
            pull.layout, pull.small = layout, False  # one connection would wait a round trip for each
            if self._no_ranges.get(offer.address, 0.0) > time.monotonic():
                text = f"{offer.address.words} gives no ranges, and is not asked again for an hour"
                return self._say(pull, EMPTY, Reason(Scope.SOURCE, FailureClass.PERMANENT, PHASE, Text(text)))
        elif layout is not None:
            seeds = self._destination.seeds(pull.key, offer.ranges)
        with self._wake:
            known = self._pulls.setdefault((pull.key, offer.source), [])
            for older in list(known):
                if older.offer == offer:
                    return None
                if older.offer.request_no == offer.request_no:  # its door began anew, and tells the same number again
                    pull.missing = pull.missing - (older.offer.ranges - older.missing)
                if older.missing & offer.ranges:
                    self._end(older)
            self._pulls.setdefault((pull.key, offer.source), []).append(pull)
            door = self._doors.setdefault(offer.address, _Door())
            seeds = pull.missing & seeds
            door.pieces += _sums_pieces(pull, seeds, layout)
            door.pieces += _pieces(pull, pull.missing - seeds, self._of_link)
            self._settle(pull)
            self._wake.notify_all()
        return None

    # a pulling thread

    def run(self) -> None:
        """Until `close`. Nothing that a door says can end it."""
        while self._running:
            address, first = self._first()
            if address is None or first is None:
                return
            try:
                self._work(address, first)
            except Exception:
                log.exception("the connection to the door %s is given up", address)
                time.sleep(RETRIES_S[0])
            finally:
                with self._wake:
                    self._doors[address].connected -= 1
                    self._forget(address)
                    self._wake.notify_all()

    def _work(self, address: AnyAddress, first: _Piece) -> None:
        """Fetch pieces of one door over one connection, while there are any."""
        mine = deque([first])
        """The one that is received, and those that come behind it."""
        connection: DoorConnection | UrlConnection | None = None
        ahead = 1 if isinstance(address, UrlAddress) else AHEAD
        buffer = memoryview(bytearray(BUFFER_BYTES))
        try:
            while mine:
                piece = mine[0]
                reached = piece.start

                def sink(at: int, view: memoryview, piece: _Piece = piece) -> None:
                    nonlocal reached
                    self._came(piece, at, view)
                    reached = at + len(view)

                try:
                    if connection is None or connection.closed:
                        connection = self._connected(address, relay=piece.pull.offer.relay)
                    if isinstance(connection, UrlConnection):
                        self._fetch(connection, piece, self._buffer_for(piece, buffer), sink)
                    elif piece.sums:  # nothing is asked ahead of it, nor behind it
                        self._compare(connection, piece)
                    else:
                        for later in islice(mine, connection.waiting, None):
                            if later.sums:
                                break
                            connection.ask(later.pull.offer.token, later.start, later.stop)
                        connection.receive(self._buffer_for(piece, buffer), sink)
                    mine.popleft()
                except _Gone:
                    if connection is not None:
                        connection.close()  # what is left of the answer is not worth its way
                    self._drop(mine.popleft())
                except DoorFault as fault:
                    self._faulted(mine.popleft(), reached, fault)
                if connection is None or connection.closed:
                    self._put_back(address, mine)
                while len(mine) < ahead:
                    more = self._next(address, wait_s=0 if mine else KEEP_S)
                    if more is None:
                        break
                    mine.append(more)
        finally:
            if connection is not None:
                connection.close()
            self._put_back(address, mine)

    def _connected(self, address: AnyAddress, *, relay: bool) -> DoorConnection | UrlConnection:
        stall_s = min(self._stall_s, SILENT_S) if relay else self._stall_s
        if isinstance(address, UrlAddress):
            return UrlConnection(self._trusted, stall_s=stall_s)
        if isinstance(address, Address):
            tls = self._trusted() if address.tls else None
            return DoorConnection(address.host, address.port, tls=tls, stall_s=stall_s)
        made = self._lobby.take(address, DIALS_S)
        if made is None:
            raise DoorFault(f"{address.source} does not connect to the door here", "")
        return DoorConnection(str(address.source), 0, stall_s=stall_s, made=made)

    def _fetch(self, connection: UrlConnection, piece: _Piece, buffer: memoryview, sink: Sink) -> None:
        """A piece of one item, by its URL."""
        pull, offer = piece.pull, piece.pull.offer
        if pull.ended or pull.layout is None:
            raise _Gone
        item = pull.layout.item_at(piece.start)
        first, end = pull.layout.span(item)
        url = offer.urls[item]
        asked = UrlRange(
            *(item, url.url, piece.start - first, piece.stop - first, end - first),
            etag=url.etag,
            token=offer.token,
            redirects=offer.redirects,
        )
        connection.fetch(asked, first, buffer, sink)

    def _trusted(self) -> ssl.SSLContext:
        """Raises StorageError."""
        with self._wake:
            if self._tls is None:
                self._tls = self._make_tls()
            return self._tls

    def _first(self) -> tuple[AnyAddress | None, _Piece | None]:
        """A piece of a door that has a place for one more connection, which is taken. Waits; None at the end."""
        with self._wake:
            while self._running:
                now_s, soonest = time.monotonic(), None
                for address, door in self._doors.items():
                    if door.connected >= self._most(address, door):
                        continue
                    piece, due_s = _ready(door, now_s)
                    if piece is not None:
                        door.connected += 1
                        return address, piece
                    if due_s is not None:
                        soonest = due_s if soonest is None else min(soonest, due_s)
                self._wake.wait(None if soonest is None else max(0.001, soonest - now_s))
        return None, None

    def _most(self, address: AnyAddress, door: _Door) -> int:
        """Connections that it may have now."""
        alone = isinstance(address, Dialled) or all(piece.pull.small for piece in door.pieces)
        return 1 if alone else self._of_link

    def _next(self, address: AnyAddress, wait_s: float) -> _Piece | None:
        """The door's next piece; None where none comes in time, or another door waits for this thread."""
        until_s = time.monotonic() + wait_s
        with self._wake:
            while self._running:
                now_s = time.monotonic()
                piece, due_s = _ready(self._doors[address], now_s)
                if piece is not None:
                    return piece
                if now_s >= until_s or any(
                    door.pieces and not door.connected for other, door in self._doors.items() if other != address
                ):
                    return None
                self._wake.wait(min(until_s, due_s or until_s) - now_s)
        return None

    # what came of it

    def _came(self, piece: _Piece, at: int, view: memoryview) -> None:
        pull = piece.pull
        if pull.ended:
            raise _Gone
        rest = pull.missing - Ranges([(at, at + len(view))])
        if not self._destination.take_line(pull.key, pull.giver, at, view, last=not rest):
            raise _Gone
        with self._wake:
            pull.tries, pull.waits_since_s, pull.heard_s = 0, 0.0, time.monotonic()
            pull.missing = pull.missing - Ranges([(at, at + len(view))])
            self._settle(pull)
        self._say_unread(pull)
        if (pace := self._paces.get(pull.offer.source)) is not None:  # behind the bytes: what is gone waits for none
            time.sleep(pace.wait_s(len(view), self._destination.share))

    def _buffer_for(self, piece: _Piece, buffer: memoryview) -> memoryview:
        """Of a bounded link so little that its door need not wait long for this end to take more."""
        pace = self._paces.get(piece.pull.offer.source)
        if pace is None:
            return buffer
        return buffer[: max(STEP_BYTES_MIN, int(pace.rate * self._destination.share * STEP_S))]

    def _compare(self, connection: DoorConnection, piece: _Piece) -> None:
        """Adopt the blocks of an earlier attempt that are as the door's, and have the others fetched."""
        pull, differ = piece.pull, EMPTY
        if pull.ended or self._destination.layout(pull.key) is None:
            raise _Gone
        try:
            sums = connection.sums(pull.offer.token, piece.start, piece.stop)
        except DoorFault as fault:
            if fault.item is not None or fault.status not in _NO_SUMS:
                raise
            sums, differ = [], Ranges([(piece.start, piece.stop)])
        for start, known in zip(range(piece.start, piece.stop, BLOCK_BYTES), sums, strict=False):
            block = Ranges([(start, min(start + BLOCK_BYTES, piece.stop))])
            last = not pull.missing - block
            if pull.ended:
                raise _Gone
            if self._destination.adopt(
                pull.key, pull.giver, *block.spans[0], known.adler32, partial(_is_block, known), last=last
            ):
                with self._wake:
                    pull.tries = 0
                    pull.missing = pull.missing - block
            else:
                differ = differ | block
        with self._wake:
            self._again(pull, differ)
            self._settle(pull)
        self._say_unread(pull)

    def _drop(self, piece: _Piece) -> None:
        with self._wake:
            self._end(piece.pull)

    def _put_back(self, address: AnyAddress, asked: deque[_Piece]) -> None:
        """What was asked for and did not come is the next to be asked for."""
        with self._wake:
            while asked:
                piece = asked.pop()
                if not piece.pull.ended:
                    self._doors[address].pieces.appendleft(piece)
            self._wake.notify_all()

    def _faulted(self, piece: _Piece, reached: int, fault: DoorFault) -> None:
        """Of a piece that came as far as `reached`: its item, its source, or one more try."""
        pull = piece.pull
        reason = reason_of(fault, PHASE, Scope.SOURCE)
        if pull.offer.relay:  # what it will never have, others have
            reason = replace(reason, failure_class=FailureClass.TRANSIENT)
        layout = self._destination.layout(pull.key)
        if layout is None:
            return self._drop(piece)
        left = Ranges([(reached, piece.stop)])
        if fault.status == _NOT_YET and pull.offer.relay:
            return self._waits(pull, left, reason)
        if fault.item is not None and 0 <= fault.item < layout.count and not pull.offer.relay:
            of_item = Ranges([layout.span(fault.item)])
            if left & of_item:
                return self._item_failed(pull, fault.item, of_item, left, reason)
        if isinstance(pull.offer.address, UrlAddress) and fault.status == 200:
            self._remember_no_ranges(pull.offer.address)
        if fault.is_final:
            return self._source_failed(pull, reason)
        silent = pull.offer.relay and time.monotonic() - pull.heard_s >= SILENT_S
        if silent or fault.status in (401, 403, 416) or (fault.status == 404 and pull.offer.relay):
            return self._source_failed(pull, reason)
        if not fault.status and isinstance(pull.offer.address, Dialled):
            return self._source_failed(pull, reason)  # its one connection is gone: asked again it makes another
        with self._wake:
            if pull.ended:
                return None
            if pull.tries < len(RETRIES_S):
                pull.not_before_s = time.monotonic() + RETRIES_S[pull.tries]
                pull.tries += 1
                self._again(pull, left, sums=piece.sums)
                return None
        return self._source_failed(pull, reason)

    def _remember_no_ranges(self, address: UrlAddress) -> None:
        with self._wake:
            self._no_ranges[address] = time.monotonic() + NO_RANGES_S
            self._no_ranges.move_to_end(address)
            if len(self._no_ranges) > NO_RANGES_MAX:
                self._no_ranges.popitem(last=False)

    def _waits(self, pull: _Pull, left: Ranges, reason: Reason) -> None:
        """Its door has nothing of it yet: asked again at once, since the door itself waits before it says so."""
        now_s = time.monotonic()
        with self._wake:
            if pull.ended:
                return None
            pull.waits_since_s, pull.heard_s = pull.waits_since_s or now_s, now_s
            waited_s = now_s - pull.waits_since_s
            if waited_s < WAITS_S:
                self._again(pull, left, last=True)
        if waited_s < WAITS_S:
            return self._destination.waits(pull.key)
        text = Text(f"{pull.offer.source} has waited for it itself for {waited_s:.0f} s")
        return self._source_failed(pull, replace(reason, text=text))

    def _item_failed(self, pull: _Pull, item: int, of_item: Ranges, left: Ranges, reason: Reason) -> None:
        """The item cannot be had there, now or at all; the rest of its piece is asked for again."""
        with self._wake:
            if pull.ended:
                return
            for_now = reason.failure_class is FailureClass.TRANSIENT
            if for_now:
                pull.unread[reason] = pull.unread.get(reason, EMPTY) | Ranges.of(item)
            pull.missing = pull.missing - of_item
            self._again(pull, left - of_item)
            self._settle(pull)
        if not for_now:
            self._say(pull, Ranges.of(item), reason)
        self._say_unread(pull)

    def _say_unread(self, pull: _Pull) -> None:
        """What could not be read for now, once nothing else comes: a thousand items are one fact."""
        with self._wake:
            if not pull.ended:
                return
            unread, pull.unread = pull.unread, {}
        for reason, items in unread.items():
            self._say(pull, items, reason)

    def _say(self, pull: _Pull, items: Ranges, reason: Reason) -> None:
        offer = pull.offer
        self._destination.source_failed(DOOR, pull.key, offer.source, offer.request_no, items, reason)

    def _source_failed(self, pull: _Pull, reason: Reason) -> None:
        with self._wake:
            if pull.ended:
                return
            self._end(pull)
        self._say_unread(pull)
        self._say(pull, EMPTY, reason)

    # with the lock held

    def _again(self, pull: _Pull, ranges: Ranges, *, sums: bool = False, last: bool = False) -> None:
        """Fetch, or compare, these next; or last of what its door has."""
        again = [_Piece(pull, *span, sums=True) for span in ranges] if sums else _pieces(pull, ranges, self._of_link)
        if not pull.ended:
            pieces = self._doors[pull.offer.address].pieces
            if last:
                pieces.extend(again)
            else:
                pieces.extendleft(reversed(list(again)))
        self._wake.notify_all()

    def _end(self, pull: _Pull) -> None:
        """Fetch nothing more of it; what is under way is dropped as it comes."""
        pull.ended = True
        door = self._doors.get(pull.offer.address)
        if door is not None:
            door.pieces = deque(piece for piece in door.pieces if piece.pull is not pull)
            self._forget(pull.offer.address)
        name = (pull.key, pull.offer.source)
        with suppress(KeyError, ValueError):
            self._pulls[name].remove(pull)
            if not self._pulls[name]:
                del self._pulls[name]

    def _settle(self, pull: _Pull) -> None:
        if not pull.missing and not pull.ended:
            self._end(pull)

    def _forget(self, address: AnyAddress) -> None:
        door = self._doors.get(address)
        if door is not None and not door.pieces and not door.connected:
            del self._doors[address]


def _ready(door: _Door, now_s: float) -> tuple[_Piece | None, float | None]:
    """The next piece that may be asked for, taken out; else when one may be."""
    soonest: float | None = None
    for number, piece in enumerate(door.pieces):
        if piece.pull.not_before_s <= now_s:
            del door.pieces[number]
            return piece, None
        soonest = piece.pull.not_before_s if soonest is None else min(soonest, piece.pull.not_before_s)
    return None, soonest


def _sums_pieces(pull: _Pull, ranges: Ranges, layout: ItemLayout | None) -> Iterator[_Piece]:
    for start, stop in ranges:
        assert layout is not None
        for piece in layout.pieces(start, stop):
            end = piece.position + piece.length
            for at in range(piece.position, end, SUMS_BYTES):
                yield _Piece(pull, at, min(at + SUMS_BYTES, end), sums=True)


def _is_block(known: BlockSums, block: memoryview) -> bool:
    return sums_of(block) == known


def _pieces(pull: _Pull, ranges: Ranges, connections: int) -> Iterator[_Piece]:
    """Of what is to be fetched, in order: about one for each connection of a small request."""
    size = max(PIECE_BYTES_MIN, min(PIECE_BYTES, -(-ranges.size // connections)))
    for start, stop in ranges if pull.layout is None else _of_items(pull.layout, ranges):
        for at in range(start, stop, size):
            yield _Piece(pull, at, min(at + size, stop))


def _of_items(layout: ItemLayout, ranges: Ranges) -> Iterator[tuple[int, int]]:
    """The same, of each item apart."""
    for start, stop in ranges:
        for piece in layout.pieces(start, stop):
            yield piece.position, piece.position + piece.length
