"""The source's side: a door, and the tickets to it that are offered in the log.

A request becomes a ticket for what it asks for, and an offer in the payload's place. When the ticket is over, what left
is told. A request that finds no room among the tickets waits; what a door cannot give at all is refused in an offer's
place, so that its destination asks otherwise. What is asked of no version is given as it is here, or as it comes while
it is on its way here: a relay. That may be asked a moment before it knows that it is one, so such a request waits.
Where no door is open here, and a request says where its destination's is, this end connects there and is asked over
that connection: the offer is made once it has been let in. Where others give the files, by_url.py says where.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Condition
from typing import Protocol
from urllib.parse import urlsplit

from streams.core.channel import DOOR, URLS
from streams.core.manifest import ItemLayout
from streams.core.names import Destination, ManifestId, Text
from streams.core.ranges import EMPTY
from streams.core.records import (
    ChunksOffered,
    ChunksRequested,
    ChunksServed,
    FailureClass,
    Message,
    OfferedDoor,
    Reason,
    RequestedItem,
    Scope,
)
from streams.doors.dialling import Capability, dial
from streams.doors.lobby import Lobby
from streams.doors.server import Door
from streams.doors.tickets import ITEMS_MAX, LIFE_S, Ticket, Tickets
from streams.errors import NeverWorks, StorageError, Transfer2goError
from streams.kafka.publish import wall_ms
from streams.planes.carriers.door.by_url import UrlOffers
from streams.planes.carriers.door.trust import tls_of
from streams.planes.reasons import reason_of
from streams.planes.source.open_files import OpenFileCache
from streams.planes.source.server import SendChunk
from streams.settings import Settings
from streams.storage.endpoint import ReadableStorage, Reader

log = logging.getLogger(__name__)

KIND, DIALLED = "t2g", "t2g-dial"
"""What is spoken: at the door that is offered; over the connection that the source has made."""
DIALS_MAX = 16
"""Connections that are being made at once; more requests wait."""
RETRY_S = 2.0
ROOM_S = 0.5
"""Between two looks whether there is room for one more ticket."""

EARLY_S = 3.0
"""Sites hear of one decision within moments of each other: a request for what is not here by then is early no more."""
EARLY_LOOK_S = 0.05
EARLY_MAX = 1000

_Asked = tuple[ManifestId, Destination, int]
"""A request: transfer, who asks, number."""


class OnTheWay(Protocol):
    """What of the destination's half knows what comes to this site (coordinator.DestinationPlane)."""

    lobby: object

    @property
    def share(self) -> float: ...

    def gives(self, manifest: ManifestId, items: Sequence[RequestedItem]) -> bool: ...

    def layout(self, key: bytes) -> ItemLayout | None: ...

    def open_reader(self, manifest: ManifestId, item: RequestedItem) -> Reader: ...


class DoorSource:
    def __init__(
        self,
        settings: Settings,
        storage: ReadableStorage,
        send_chunk: SendChunk,
        publish: Callable[[Message], None],
        open_files: OpenFileCache,
        destination: OnTheWay,
    ) -> None:
        self._settings, self._storage, self._publish = settings, storage, publish
        self._destination = destination
        self._by_url = UrlOffers(settings, storage)
        self._tickets = Tickets()
        self._door: Door | None = None
        self._answers: Door | None = None
        """Over connections that are made from here; made with the first."""
        self._dialling: set[_Asked] = set()
        self._wake = Condition()
        self._requests: deque[ChunksRequested] = deque()
        self._items = 0
        """Of the requests that wait."""
        self._early: list[tuple[float, ChunksRequested]] = []
        """Requests for what is not here, and until when they wait for it."""
        self._over: deque[tuple[_Asked, Ticket]] = deque()
        self._offers: dict[_Asked, ChunksOffered] = {}
        """Of tickets that are good, by what they answer."""
        self._again_s, self._said = 0.0, ""
        """When to try again to open the door, and why it could not be opened."""
        self._running = True

    @property
    def address(self) -> str:
        """Where the door is; while it is not open, where others give the files, with a slash at its end; or ""."""
        door, settings = self._door, self._settings
        if door is None:
            return self._by_url.address
        scheme = "https" if settings.door_cert is not None else "http"
        host = f"[{settings.door_host}]" if ":" in settings.door_host else settings.door_host
        said = settings.door_announce or host
        return f"{scheme}://{said}" if urlsplit(f"//{said}").port is not None else f"{scheme}://{said}:{door.port}"

    @property
    def busy(self) -> bool:
        return self._tickets.busy

    def serve(self, request: ChunksRequested) -> None:
        with self._wake:
            if self._items + len(request.items) > 2 * ITEMS_MAX:
                log.warning("a request of %s is dropped: too many wait; it is asked again", request.destination)
                return
            self._requests.append(request)
            self._items += len(request.items)
            self._wake.notify()

    def threads(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "offers", self.run

    def close(self) -> None:
        with self._wake:
            self._running = False
            self._wake.notify()
        for door in (self._door, self._answers):
            if door is not None:
                door.close()

    # the thread

    def run(self) -> None:
        """Until `close`. Nothing that is asked can end it."""
        while self._running:
            try:
                self._open()
                self._work()
            except Exception:
                log.exception("a request to the door was skipped")

    @property
    def _opens(self) -> bool:
        """Whether there is to be a door, and is none yet. What is asked meanwhile is refused."""
        return self._door is None and bool(self._settings.door_host)

    def _open(self) -> None:
        """Try, if it is time."""
        if not self._opens or time.monotonic() < self._again_s:
            return
        host, port, rate = self._settings.door_host, self._settings.door_port, self._settings.door_rate
        try:
            lobby = self._destination.lobby
            door = Door(
                self._storage,
                self._tickets,
                host,
                port,
                tls=self._tls(),
                rate=rate,
                share=self._share,
                lobby=lobby if isinstance(lobby, Lobby) else None,
            )
        except Transfer2goError as error:
            self._again_s = time.monotonic() + RETRY_S
            if str(error) != self._said:
                self._said = str(error)
                log.warning("the door is not open and is tried again: %s", error)
            return
        for name, work in door.threads():
            threading.Thread(target=work, name=name, daemon=True).start()
        self._door = door

    def _share(self) -> float:
        return self._destination.share

    def _tls(self) -> ssl.SSLContext | None:
        cert, key = self._settings.door_cert, self._settings.door_key
        if cert is None:
            return None
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(cert, key)
        except OSError as error:  # ssl.SSLError is one
            why = f"the door's certificate cannot be used: {error.strerror or error}"
            raise NeverWorks(why, str(cert), "correct [door] cert and key") from error
        return context

    def _work(self) -> None:
        with self._wake:
            if self._running and not self._requests and not self._over:
                self._wake.wait(EARLY_LOOK_S if self._early else RETRY_S if self._opens else None)
            over = self._over.popleft() if self._over else None
            request = self._requests.popleft() if over is None and self._requests else None
            if request is not None:
                self._items -= len(request.items)
        if over is not None:
            self._told(*over)
        elif request is not None and self._is_early(request) and len(self._early) < EARLY_MAX:
            self._early.append((time.monotonic() + EARLY_S, request))
        elif request is not None and not self._answered(request):
            with self._wake:
                self._requests.appendleft(request)
                self._items += len(request.items)
                self._wake.wait(ROOM_S)

        if self._early:
            self._look_at_early()

    def _is_early(self, request: ChunksRequested) -> bool:
        whole = not any(item.version or item.selection for item in request.items)
        return whole and not self._destination.gives(request.manifest, request.items)

    def _look_at_early(self) -> None:
        """Answer what is early no more: with a ticket, or with one to what it will find missing."""
        now_s, early = time.monotonic(), self._early
        self._early = []
        for until_s, request in early:
            if (now_s < until_s and self._is_early(request)) or not self._answered(request):
                self._early.append((until_s, request))

    def _answered(self, request: ChunksRequested) -> bool:
        """False while there is no room for its ticket."""
        asked = request.manifest, request.destination, request.request_no
        known = self._offers.get(asked)
        if known is not None:
            self._publish(known)
            return True
        if self._answered_by_url(request):
            return True
        capability = Capability.parse(request.capability) if self._door is None else None
        if asked in self._dialling:
            return True
        if (why := self._why_not(request, capability)) is not None:
            self._publish(self._offer(request, reason=why))
            return True
        if capability is not None and len(self._dialling) >= DIALS_MAX:
            return False
        try:
            over = partial(self._is_over, asked)
            versioned = any(item.version for item in request.items)
            opened = None if versioned else partial(self._destination.open_reader, request.manifest)
            ticket = self._tickets.make(request.items, request.ranges, request.destination, over, opened)
        except ValueError as error:
            self._publish(self._offer(request, reason=_reason(FailureClass.PERMANENT, f"not a request: {error}")))
            return True
        if ticket is None:
            return False
        if capability is not None:
            self._dialling.add(asked)
            dial_now = partial(self._dial, request, asked, capability, ticket)
            threading.Thread(target=dial_now, name="dial", daemon=True).start()
            return True
        offer = self._offers[asked] = self._offer(request, OfferedDoor(KIND, self.address, ticket))
        self._publish(offer)
        return True

    def _answered_by_url(self, request: ChunksRequested) -> bool:
        """Whether others give what is asked for, and it was said where. Nobody counts what they send: told at once."""
        try:
            is_landing = self._destination.layout(request.manifest.encode()) is not None
            offers = self._by_url.of(request, wall_ms() + int(LIFE_S * 1000), is_landing=is_landing)
        except StorageError as error:
            self._publish(self._offer(request, reason=reason_of(error, "read", Scope.SOURCE)))
            return True
        if offers is None:
            return False
        given = EMPTY
        for offer in offers:
            self._publish(offer)
            given = given | (offer.ranges if offer.urls else EMPTY)
        served = (request.manifest, self._settings.here, request.destination, request.request_no)
        self._publish(ChunksServed(*served, given, 0, URLS))
        return True

    def _dial(self, request: ChunksRequested, asked: _Asked, capability: Capability, ticket: str) -> None:
        """A thread: connect to the destination's door, and offer what is asked for over that; or say why not."""
        try:
            tls = tls_of(self._settings.door_ca) if capability.url.startswith("https:") else None
            connection = dial(capability, tls)
            with self._wake:
                if self._answers is None:
                    rate = self._settings.door_rate
                    self._answers = Door(self._storage, self._tickets, None, rate=rate, share=self._share)
                    for name, work in self._answers.threads():
                        threading.Thread(target=work, name=name, daemon=True).start()
                answers = self._answers
            answers.answer_over(connection, urlsplit(capability.url).netloc)
        except Exception as error:
            if not isinstance(error, Transfer2goError | OSError):
                log.exception("%s cannot be answered over a connection made from here", request.manifest)
            what = error.what if isinstance(error, Transfer2goError) else str(error)
            self._tickets.end(ticket)
            text = f"{self._settings.here} has no open door, and cannot connect to that of {asked[1].site}: {what}"
            offer = self._offer(request, reason=_reason(FailureClass.TRANSIENT, text))
        else:
            offer = self._offers[asked] = self._offer(request, OfferedDoor(DIALLED, capability.url, ticket))
        self._dialling.discard(asked)
        self._publish(offer)

    def _why_not(self, request: ChunksRequested, capability: Capability | None) -> Reason | None:
        if self._door is None and capability is None:
            return _reason(FailureClass.TRANSIENT, f"{self._settings.here} has no open door")
        if any(item.selection for item in request.items):
            return _reason(FailureClass.PERMANENT, "a door gives whole files")
        return None

    def _offer(self, request: ChunksRequested, *doors: OfferedDoor, reason: Reason | None = None) -> ChunksOffered:
        until_ms = wall_ms() + int(LIFE_S * 1000)
        here, no = self._settings.here, request.request_no
        return ChunksOffered(
            request.manifest, request.destination, here, no, request.ranges, until_ms, doors, reason=reason
        )

    def _is_over(self, asked: _Asked, ticket: Ticket) -> None:
        with self._wake:
            self._over.append((asked, ticket))
            self._wake.notify()

    def _told(self, asked: _Asked, ticket: Ticket) -> None:
        self._offers.pop(asked, None)
        manifest, destination, no = asked
        sent = ticket.sent & ticket.ranges
        self._publish(ChunksServed(manifest, self._settings.here, destination, no, sent, sent.size, DOOR))


def _reason(failure_class: FailureClass, text: str) -> Reason:
    return Reason(Scope.SOURCE, failure_class, "read", Text(text[:400]))
