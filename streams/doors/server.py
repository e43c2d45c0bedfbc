"""The door's listener: a thread a connection, and what bounds them. It opens nothing but what a ticket names.

One sweep a second ends what lasted too long: heads, idle connections, tickets. What a connection sends stalls by the
socket's own timeout. When all places are taken, the connection goes that has been silent longest and is answered
nothing just now.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Event, Lock, Thread

from streams.core.records import RequestedItem
from streams.doors import heads
from streams.doors.heads import Asked, BadHead
from streams.doors.lobby import Lobby
from streams.doors.pace import SharedPace
from streams.doors.sending import ItemFault, NotYet, Sending
from streams.doors.sums import BLOCK_BYTES, block_sums
from streams.doors.tickets import Ticket, Tickets
from streams.errors import NeverWorks, StorageError, Temporary
from streams.storage.endpoint import FileMissing, ReadableStorage

log = logging.getLogger(__name__)

BACKLOG = 128
SWEEP_S = 1.0
FULL_S = 0.1
"""Nothing is accepted for so long when the process has no descriptors left."""
SAID_S = 10.0
"""Between two words about it."""
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """Connections at most, and of one address; seconds for a head; seconds without a request, or without progress."""

    connections: int = 256
    of_address: int = 64
    head_s: float = 5.0
    idle_s: float = 30.0


class Door:
    """Listens from the start. Raises Temporary for an address that is taken, NeverWorks for one that is not here."""

    def __init__(
        self,
        storage: ReadableStorage,
        tickets: Tickets,
        host: str | None,
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        rate: float = 0.0,
        share: Callable[[], float] = lambda: 1.0,
        limits: DoorLimits | None = None,
        lobby: Lobby | None = None,
    ) -> None:
        """`host`: None of one that listens nowhere, and answers over connections that it is given. `rate`: bytes a
        second of all connections together; 0: no bound. `share`: what of it is this door's now. `lobby`: where those
        wait that connect to be asked."""
        self.tickets, self.lobby = tickets, lobby
        self._storage = storage
        self._tls = tls
        self._limits = limits or DoorLimits()
        self._pace, self._share = SharedPace(rate), share
        self._lock = Lock()
        self._connections: set[_Connection] = set()
        self._closed = Event()
        self._listener: socket.socket | None = None
        self.port = 0
        if host is not None:
            self._listener = self._listening(host, port)
            self.port = self._listener.getsockname()[1]

    def _listening(self, host: str, port: int) -> socket.socket:
        where = f"{host}:{port}"
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except socket.gaierror as error:
            raise NeverWorks(f"no such host for a door: {error.strerror}", where, "correct [door] host") from error
        except OSError as error:
            raise Temporary(f"the door cannot listen: {error.strerror}", where, "choose another [door] port") from error

    def threads(self) -> Iterator[tuple[str, Callable[[], None]]]:
        if self._listener is not None:
            yield "door", partial(self.run, self._listener)
        yield "door-sweep", self.sweep

    def answer_over(self, connection: socket.socket, address: str) -> None:
        """Answer what is asked over a connection that this end made, TLS included, on a thread of its own.

        Raises OSError where no thread is left.
        """
        made = _Connection(self, connection, address, tls=None)
        with self._lock:
            self._connections.add(made)
        try:
            Thread(target=made.run, name="door-connection", daemon=True).start()
        except RuntimeError as error:
            self._leave(made)
            made.close()
            raise OSError(errno.EAGAIN, str(error)) from error

    def __len__(self) -> int:
        return len(self._connections)

    def run(self, listener: socket.socket) -> None:
        """Accept, until `close`."""
        said_s = -SAID_S
        while not self._closed.is_set():
            try:
                self._accept(listener)
            except (OSError, RuntimeError) as error:  # no descriptor, or no thread, is left
                if not self._closed.wait(FULL_S) and time.monotonic() - said_s >= SAID_S:
                    said_s = time.monotonic()
                    log.warning("the door accepts nothing just now: %s", error)

    def _accept(self, listener: socket.socket) -> None:
        accepted, address = listener.accept()
        connection = _Connection(self, accepted, str(address[0]), tls=self._tls)
        try:
            if self._enter(connection):
                Thread(target=connection.run, name="door-connection", daemon=True).start()
                return
        except RuntimeError:
            self._leave(connection)
            connection.close()
            raise
        connection.close()

    def sweep(self) -> None:
        """End what lasts too long, until `close`."""
        while not self._closed.wait(SWEEP_S):
            now_s = time.monotonic()
            for connection in list(self._connections):
                if now_s >= connection.until_s:
                    connection.hang_up()
            self.tickets.end_due()

    def close(self) -> None:
        self._closed.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for connection in list(self._connections):
            connection.hang_up()

    # what connections ask of it

    def _enter(self, new: _Connection) -> bool:
        with self._lock:
            if sum(one.address == new.address for one in self._connections) >= self._limits.of_address:
                return False
            if len(self._connections) >= self._limits.connections:
                silent = [one for one in self._connections if not one.answering]
                if not silent:
                    return False
                longest = min(silent, key=lambda one: one.silent_since_s)
                self._connections.discard(longest)
                longest.hang_up()
            self._connections.add(new)
            return True

    def _leave(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.discard(connection)

    def _wait(self, count: int) -> None:
        """Until so many bytes may go."""
        wait_s = self._pace.wait_s(count, self._share())
        if wait_s and self._closed.wait(wait_s):
            raise OSError("the door is closed")


class _Connection:
    def __init__(self, door: Door, accepted: socket.socket, address: str, tls: ssl.SSLContext | None) -> None:
        self.address = address
        self._tls = tls
        self._handed_over = False
        self.answering = False
        self.silent_since_s = time.monotonic()
        self.until_s = self.silent_since_s + door._limits.head_s
        """When the sweep ends it."""
        self._door = door
        self._socket = accepted
        self._buffer = bytearray()

    def hang_up(self) -> None:
        """From any thread: what waits on the socket comes back."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # under TLS, whose own would forget its session

    def close(self) -> None:
        self.hang_up()
        self._socket.close()

    def run(self) -> None:
        """Answer what is asked, one after the other, until either end is through."""
        door = self._door
        sending: Sending | None = None
        try:
            idle = door._limits.idle_s
            timeout = struct.pack("ll", int(idle), int(idle % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                tls = self._tls.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
                self._socket = tls
                tls.do_handshake()
            sending = Sending(door._storage, self._socket, door.tickets.sent, door._wait)
            while self._answer(sending):
                pass
        except OSError as error:  # ssl's too
            log.debug("a door's connection from %s ended: %s", self.address, error)
        except Exception:
            log.exception("a door's connection from %s is closed", self.address)
        finally:
            if sending is not None:
                sending.close()
            door._leave(self)
            if not self._handed_over:
                self.close()

    def _answer(self, sending: Sending) -> bool:
        """Read one head and answer it; whether the connection goes on."""
        try:
            head = self._head()
            if head is None:
                return False
            asked = heads.parse_request(head)
        except BadHead as error:
            self._socket.sendall(heads.refusal(error.status, error.why, close=True))
            return False
        if asked.what == "dial":
            return self._let_in(asked)
        self.answering, self.until_s = True, _NEVER
        try:
            self._answer_asked(asked, sending)
        finally:
            self.answering, self.silent_since_s = False, time.monotonic()
            self.until_s = self.silent_since_s + self._door._limits.idle_s
        return asked.keep_alive

    def _let_in(self, asked: Asked) -> bool:
        """Who shows a ticket for that is asked over its connection from now on; False, since this end is through."""
        lobby = self._door.lobby
        request = lobby.admit(asked.token) if lobby is not None and asked.token else None
        if lobby is None or request is None or self._buffer:
            self._refuse(asked, 401, "nobody is waited for with this")
            return False
        self._socket.sendall(heads.let_in())
        self._door._leave(self)  # before it is another's: the sweep hangs up what is the door's
        self._handed_over = True
        lobby.connected(request, self._socket)
        return False

    def _head(self) -> bytes | None:
        """The next head, with its empty line; None at the end. The sweep ends one that takes too long."""
        began = False
        while True:
            if self._buffer and not began:
                began = True
                self.until_s = min(self.until_s, time.monotonic() + self._door._limits.head_s)
            found = self._buffer.find(heads.END)
            stop = found + len(heads.END)
            if (stop if found >= 0 else len(self._buffer)) > heads.HEAD_BYTES_MAX:
                raise BadHead(431, f"a head has at most {heads.HEAD_BYTES_MAX} bytes")
            if found >= 0:
                head = bytes(self._buffer[:stop])
                del self._buffer[:stop]
                return head
            more = self._socket.recv(heads.HEAD_BYTES_MAX)
            if not more:
                return None
            self._buffer += more

    def _answer_asked(self, asked: Asked, sending: Sending) -> None:
        tickets = self._door.tickets
        ticket = tickets.enter(asked.token) if asked.token else None
        if ticket is None:
            return self._refuse(asked, 401, "no ticket opens this, or it has ended")
        try:
            start, stop, total = _span(asked, ticket)
            if asked.what == "sums":
                return self._send_sums(asked, sending, ticket, start, stop)
            status = 200 if asked.span is None else 206
            head = heads.answer(status, stop - start, asked.span, total)
            if asked.head_only or start == stop:
                return self._socket.sendall(head)
            return sending.send(head, ticket, start, stop)
        except BadHead as error:
            return self._refuse(asked, error.status, error.why)
        except NotYet:
            return self._refuse(asked, 425, "nothing of it is here yet")
        except ItemFault as fault:
            return self._refuse(asked, _status(fault.error), fault.error.what, fault.item.no, fault.error)
        finally:
            tickets.leave(ticket)

    def _send_sums(self, asked: Asked, sending: Sending, ticket: Ticket, start: int, stop: int) -> None:
        pieces = list(ticket.line.pieces(start, stop))
        if len(pieces) != 1:
            raise BadHead(416, "sums are of one item")
        item, offset, length = pieces[0]
        reader = sending.open(ticket, item)
        if reader.ready(offset, length, 0.0) < length:
            raise BadHead(501, "no sums of what is still to come")
        try:
            sums = block_sums(reader, offset, offset + length)
        except StorageError as error:
            raise ItemFault(item, error) from error
        body = json.dumps({"block_bytes": BLOCK_BYTES, "sums": sums}).encode()
        self._socket.sendall(heads.answer(200, len(body)) + (b"" if asked.head_only else body))

    def _refuse(
        self, asked: Asked, status: int, why: str, item: int | None = None, error: StorageError | None = None
    ) -> None:
        failure_class = "" if error is None else error.failure_class
        said = heads.refusal(status, why, close=not asked.keep_alive, item=item, failure_class=failure_class)
        if asked.head_only:
            said = said[: said.index(heads.END) + len(heads.END)]
        self._socket.sendall(said)


def _span(asked: Asked, ticket: Ticket) -> tuple[int, int, int | None]:
    """Positions on the line that are asked for, and of a file its length. BadHead for what the ticket does not open."""
    total: int | None = None
    first = 0
    if asked.what == "file":
        item = _item_of(asked.lfn, ticket)
        first, total = item.start, item.length
    elif asked.span is None:
        raise BadHead(416, "the line is asked for by range")
    start, stop = asked.span if asked.span is not None else (0, total or 0)
    if total is not None and stop > total:
        raise BadHead(416, f"the file has {total} bytes")
    if not ticket.ranges.covers(first + start, first + stop):
        raise BadHead(403, "the ticket is for other positions")
    return first + start, first + stop, total


def _item_of(lfn: str, ticket: Ticket) -> RequestedItem:
    for item in ticket.items:
        if item.lfn == lfn:
            return item
    raise BadHead(404, "the ticket names no such file")


def _status(error: StorageError) -> int:
    if isinstance(error, FileMissing):
        return 404
    return {"data-bad": 409, "transient": 503}.get(error.failure_class, 410)
