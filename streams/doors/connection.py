"""A connection to a door, or to another server of HTTP: what is sent, heads of answers, bytes as they come.

What an answer must be is said by who asks (client.py, urls.py).
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable

from streams.core.closing import Closing
from streams.doors import heads
from streams.errors import StorageError

STALLED_BYTES = 64 * 1024
"""A door that sends less within `stall_s` is given up."""

Sink = Callable[[int, memoryview], None]
"""Given bytes as they come, with their position."""


class DoorFault(StorageError):
    """What a door did instead of giving bytes. `item`: the one that it cannot read, None where it is not one's fault.

    `status`: of its answer; 0 where there was none that can be believed. `is_final`: asked again it does the same.
    """

    def __init__(
        self,
        what: str,
        where: str,
        *,
        failure_class: str = "transient",
        item: int | None = None,
        status: int = 0,
        is_final: bool = False,
    ) -> None:
        super().__init__(what, where, failure_class=failure_class)
        self.item, self.status, self.is_final = item, status, is_final


class Connection(Closing):
    """For one thread. Raises DoorFault from every call; after one it may be closed."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        connect_s: float = 5.0,
        stall_s: float = 30.0,
        made: socket.socket | None = None,
    ) -> None:
        """`made`: a connection that the other end has made; nothing is connected to then."""
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._stall_s = stall_s
        self._ahead = bytearray()
        """Bytes behind the head that was read last."""
        try:
            opened = socket.create_connection((host, port), timeout=connect_s) if made is None else made
            if tls is not None:
                opened = tls.wrap_socket(opened, server_hostname=host)
            opened.settimeout(None)
            timeout = struct.pack("ll", int(stall_s), int(stall_s % 1 * 1e6))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except ssl.SSLCertVerificationError as error:
            what = f"the door's certificate does not fit: {error.verify_message}"
            raise DoorFault(what, self.where, failure_class="auth") from error
        except OSError as error:
            raise self.fault(f"the door cannot be reached: {words_of(error)}") from error
        except UnicodeError as error:  # as of a..b
            raise self.fault("the door cannot be reached: that is no name of a host") from error
        self._socket = opened
        self._tls = isinstance(opened, ssl.SSLSocket)

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    @property
    def has_ahead(self) -> bool:
        """Whether more has come than was asked for yet, or the other end has closed it."""
        look = select.poll()
        look.register(self._socket, select.POLLIN)
        return bool(self._ahead) or bool(look.poll(0))

    def close(self) -> None:
        self._socket.close()

    def send(self, head: bytes) -> None:
        try:
            self._socket.sendall(head)
        except OSError as error:
            self.close()
            raise self.fault(f"the door takes no request: {words_of(error)}") from error

    def head(self) -> bytes:
        """Of the next answer, with its empty line."""
        until_s = time.monotonic() + self._stall_s
        while True:
            found = self._ahead.find(heads.END)
            if found >= 0:
                break
            if len(self._ahead) > heads.HEAD_BYTES_MAX:
                raise self.fault("the door's answer has no end of its head")
            if time.monotonic() >= until_s:
                raise self.fault(f"the door does not answer within {self._stall_s:.0f} s")
            more = self._receive(heads.HEAD_BYTES_MAX)
            if not more:
                raise self.fault("the door closed the connection")
            self._ahead += more
        stop = found + len(heads.END)
        head = bytes(self._ahead[:stop])
        del self._ahead[:stop]
        return head

    def fill(self, view: memoryview) -> tuple[int, DoorFault | None]:
        """Fill the view; how much came, and why no more: the door closed, or sent too little within the stall time."""
        at = min(len(view), len(self._ahead))
        if at:
            view[:at] = self._ahead[:at]
            del self._ahead[:at]
        began_s, since = time.monotonic(), at
        flags = 0 if self._tls else socket.MSG_WAITALL
        why = ""
        while at < len(view) and not why:
            try:
                count = self._socket.recv_into(view[at:], 0, flags)
                why = "" if count else "the door closed the connection in the middle of a range"
                at += count
            except (BlockingIOError, ssl.SSLWantReadError):  # the socket's own timeout
                pass
            except OSError as error:
                why = f"the door broke off: {words_of(error)}"
            if not why and time.monotonic() - began_s >= self._stall_s and at < len(view):
                if at - since < STALLED_BYTES:
                    why = f"the door sent {at - since:,} bytes within {self._stall_s:.0f} s"
                began_s, since = time.monotonic(), at
        if not why:
            return at, None
        self.close()
        return at, self.fault(why)

    def take(self, start: int, stop: int, buffer: memoryview, sink: Sink) -> None:
        """`sink(position, bytes)` of each buffer of a body that is `[start, stop)`. What `sink` raises comes out.

        Bytes that a sink was given before a fault are as good as others: it knows how far they reach.
        """
        at = start
        while at < stop:
            count, fault = self.fill(buffer[: min(len(buffer), stop - at)])
            if count:
                sink(at, buffer[:count])
            if fault is not None:
                raise fault
            at += count

    def body(self, length: int) -> bytes:
        """The next so many bytes."""
        body = bytearray(length)
        _, fault = self.fill(memoryview(body))
        if fault is not None:
            raise fault
        return bytes(body)

    def fault(self, what: str) -> DoorFault:
        return DoorFault(what, self.where)

    def _receive(self, count: int) -> bytes:
        try:
            return self._socket.recv(count)
        except OSError as error:
            raise self.fault(f"the door does not answer: {words_of(error)}") from error


def words_of(error: OSError) -> str:
    """What the system says of a connection."""
    if isinstance(error, (BlockingIOError, TimeoutError, ssl.SSLWantReadError)):
        return "timed out"
    return error.strerror or str(error)
