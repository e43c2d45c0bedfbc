"""One connection to a door: ranges asked ahead, and every answer checked before one of its bytes is believed.

A range is asked for and received by the one thread that has the connection. What comes is handed on a buffer at a time,
with its position on the line, as soon as it is there: checksum and writing go beside the next bytes' way.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable

from streams.core.closing import Closing
from streams.core.names import shown
from streams.doors import heads
from streams.doors.heads import Answered, BadHead
from streams.doors.sums import BLOCK_BYTES, BlockSums
from streams.errors import StorageError

BUFFER_BYTES = 1024 * 1024
"""Received at once: 2 MiB cost the same, 8 MiB twice as much."""
STALLED_BYTES = 64 * 1024
"""A door that sends less within `stall_s` is given up."""
REFUSAL_BYTES_MAX = 64 * 1024
SUMS_BYTES_MAX = 16 * 1024 * 1024
LINE, SUMS = "/t2g/1/line", "/t2g/1/sums"

Sink = Callable[[int, memoryview], None]


class DoorFault(StorageError):
    """What a door did instead of giving bytes. `item`: the one that it cannot read, None where it is not one's fault.

    `status`: of its answer; 0 where there was none that can be believed.
    """

    def __init__(
        self, what: str, where: str, *, failure_class: str = "transient", item: int | None = None, status: int = 0
    ) -> None:
        super().__init__(what, where, failure_class=failure_class)
        self.item, self.status = item, status


class DoorConnection(Closing):
    """Raises DoorFault from every call; after one that is no answer to a range, the connection is closed."""

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
        self._asked: deque[tuple[int, int]] = deque()
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
            raise self._fault(f"the door cannot be reached: {words_of(error)}") from error
        self._socket = opened
        self._tls = isinstance(opened, ssl.SSLSocket)

    @property
    def waiting(self) -> int:
        """Ranges that are asked for and not received."""
        return len(self._asked)

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, token: str, start: int, stop: int) -> None:
        """Ask, with a ticket's token, for `[start, stop)` of its line; it comes behind what was asked before."""
        self._send(heads.request(LINE, self.where, token, start, stop))
        self._asked.append((start, stop))

    def receive(self, buffer: memoryview, sink: Sink) -> None:
        """What was asked for first: `sink(position, bytes)` of each buffer, in order. What `sink` raises comes out.

        Bytes that a sink was given before a fault are as good as others: it knows how far they reach.
        """
        start, stop = self._asked.popleft()
        answer = self._head()
        if answer.status != 206:
            self._refused(answer)
        if answer.span != (start, stop) or answer.length != stop - start:
            self.close()
            said = "no range" if answer.span is None else f"[{answer.span[0]}, {answer.span[1]})"
            raise self._fault(f"the door answers {said}, {answer.length} bytes, where [{start}, {stop}) was asked for")
        at = start
        while at < stop:
            count, fault = self._fill(buffer[: min(len(buffer), stop - at)])
            if count:
                sink(at, buffer[:count])
            if fault is not None:
                raise fault
            at += count

    def sums(self, token: str, start: int, stop: int) -> list[BlockSums]:
        """Of the blocks of `[start, stop)`, which is of one item, from `start` on."""
        self._send(heads.request(SUMS, self.where, token, start, stop))
        answer = self._head()
        if answer.status != 200:
            self._refused(answer)
        body = self._body(answer, SUMS_BYTES_MAX)
        try:
            said = json.loads(body)
            sums = [BlockSums(int(crc), int(adler)) for crc, adler in said["sums"]]
            if said["block_bytes"] != BLOCK_BYTES or len(sums) != -(-(stop - start) // BLOCK_BYTES):
                raise ValueError("other blocks")
        except (ValueError, TypeError, KeyError) as error:
            raise self._fault(f"the door's sums cannot be read: {error}") from error
        return sums

    # the wire

    def _send(self, head: bytes) -> None:
        try:
            self._socket.sendall(head)
        except OSError as error:
            self.close()
            raise self._fault(f"the door takes no request: {words_of(error)}") from error

    def _head(self) -> Answered:
        until_s = time.monotonic() + self._stall_s
        while True:
            found = self._ahead.find(heads.END)
            if found >= 0:
                break
            if len(self._ahead) > heads.HEAD_BYTES_MAX:
                raise self._fault("the door's answer has no end of its head")
            if time.monotonic() >= until_s:
                raise self._fault(f"the door does not answer within {self._stall_s:.0f} s")
            more = self._receive(heads.HEAD_BYTES_MAX)
            if not more:
                raise self._fault("the door closed the connection")
            self._ahead += more
        stop = found + len(heads.END)
        try:
            answer = heads.parse_answer(bytes(self._ahead[:stop]))
        except BadHead as error:
            raise self._fault(error.why) from error
        del self._ahead[:stop]
        return answer

    def _receive(self, count: int) -> bytes:
        try:
            return self._socket.recv(count)
        except OSError as error:
            raise self._fault(f"the door does not answer: {words_of(error)}") from error

    def _fill(self, view: memoryview) -> tuple[int, DoorFault | None]:
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
        return at, self._fault(why)

    def _body(self, answer: Answered, bytes_max: int) -> bytes:
        if answer.length > bytes_max:
            self.close()
            raise self._fault(f"the door answers {answer.status} with {answer.length:,} bytes")
        body = bytearray(answer.length)
        _, fault = self._fill(memoryview(body))
        if fault is not None:
            raise fault
        return bytes(body)

    def _refused(self, answer: Answered) -> None:
        """Raise what an answer without bytes says. The connection goes on where the door says so."""
        body = self._body(answer, REFUSAL_BYTES_MAX)
        if not answer.keep_alive:
            self.close()
        why, item, failure_class = f"the door answers {answer.status}", None, "transient"
        try:
            said = json.loads(body)
            why = shown(str(said["reason"]), 300)
            if type(said.get("item")) is int:
                item, failure_class = said["item"], str(said.get("class"))
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        if failure_class not in ("transient", "permanent", "data-bad", "auth"):
            failure_class = "transient"
        if answer.status == 401:
            failure_class = "auth"
        raise DoorFault(why, self.where, failure_class=failure_class, item=item, status=answer.status)

    def _fault(self, what: str) -> DoorFault:
        return DoorFault(what, self.where)


def words_of(error: OSError) -> str:
    """What the system says of a connection."""
    if isinstance(error, (BlockingIOError, TimeoutError, ssl.SSLWantReadError)):
        return "timed out"
    return error.strerror or str(error)
