"""What an answer's body is: a range of the line, reader by reader, each bound to the version that was asked for.

Bytes go by sendfile where a reader has a descriptor, and through a buffer otherwise. A fault in the middle ends the
connection, at a position that the other end can count; asked again from there, the door says what it was.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable

from streams.core.records import RequestedItem
from streams.doors.tickets import Ticket
from streams.errors import StorageError, data_bad
from streams.storage.endpoint import ReadableStorage, Reader

STEP_BYTES = 1024 * 1024
"""Sent before it is asked again whether the ticket holds, the file is the same, and the rate allows more."""

WAIT_S = 5.0
"""For the next byte of what is still to come: less than who asked waits in silence."""


class ItemFault(Exception):
    """An item that cannot be read: which, and why."""

    def __init__(self, item: RequestedItem, error: StorageError) -> None:
        super().__init__(str(error))
        self.item, self.error = item, error


class NotYet(Exception):
    """The first byte that is asked for is to come: asked again, it may be there."""


class BrokenOff(OSError):
    """An answer that cannot go on: its item, or its ticket, ended."""


class Sending:
    """Of one connection; for one thread. `may_go(ticket, start, stop)` is called when these positions have left."""

    def __init__(
        self,
        storage: ReadableStorage,
        outlet: socket.socket,
        may_go: Callable[[Ticket, int, int], bool],
        wait: Callable[[int], None],
    ) -> None:
        """`wait(count)` returns when so many bytes may go."""
        self._storage = storage
        self._outlet = outlet
        self._may_go = may_go
        self._wait = wait
        self._buffer: memoryview | None = None
        self._last: tuple[object, str, str, Reader] | None = None
        """What was read last, and how it was opened: a large file is asked for in many ranges."""

    def close(self) -> None:
        if self._last is not None:
            self._last[3].close()
            self._last = None

    def open(self, ticket: Ticket, item: RequestedItem) -> Reader:
        """A reader of the item's version and length. Raises ItemFault."""
        try:
            if self._last is not None and self._last[:3] == (ticket.open, item.lfn, item.version):
                self._last[3].check()
                return self._last[3]
            self.close()
            if ticket.open is not None:
                reader = ticket.open(item)
            else:
                reader = self._storage.open_reader(item.lfn, item.version or None)
            self._last = ticket.open, item.lfn, item.version, reader
            if reader.stat.bytes != item.length:
                what = f"the file has {reader.stat.bytes:,} bytes where {item.length:,} were registered"
                raise data_bad(what, item.lfn, "register it again")
        except StorageError as error:
            self.close()
            raise ItemFault(item, error) from error
        return self._last[3]

    def send(self, head: bytes, ticket: Ticket, start: int, stop: int) -> None:
        """The head, then `[start, stop)` of the line. Before it ItemFault and NotYet; then OSError only."""
        pieces = list(ticket.line.pieces(start, stop))
        first, offset, length = pieces[0]
        try:
            if length and not self.open(ticket, first).ready(offset, 1, WAIT_S):
                raise NotYet
        except StorageError as error:
            raise ItemFault(first, error) from error
        self._cork(True)
        self._outlet.sendall(head)
        for item, offset, length in pieces:
            try:
                reader = self.open(ticket, item)
                self._send_piece(reader, ticket, item.start, offset, length)
            except (ItemFault, StorageError) as error:
                raise BrokenOff(f"item {item.no}: {error}") from error
        self._cork(False)

    def _send_piece(self, reader: Reader, ticket: Ticket, first: int, offset: int, length: int) -> None:
        stop = offset + length
        while offset < stop:
            count = reader.ready(offset, min(STEP_BYTES, stop - offset), WAIT_S)
            if not count:
                raise BrokenOff(f"nothing more of it came within {WAIT_S:.0f} s")
            self._wait(count)
            reader.check()
            sent = self._send_step(reader, offset, count)
            reader.check()
            if not self._may_go(ticket, first + offset, first + offset + sent):
                raise BrokenOff("the ticket ended")
            offset += sent

    def _send_step(self, reader: Reader, offset: int, count: int) -> int:
        """How many of these bytes have left: one at least."""
        fd = reader.descriptor
        if fd is None or isinstance(self._outlet, ssl.SSLSocket):
            if self._buffer is None:
                self._buffer = memoryview(bytearray(STEP_BYTES))
            block = self._buffer[:count]
            reader.readinto(offset, block)
            self._outlet.sendall(block)
            return count
        sent = os.sendfile(self._outlet.fileno(), fd, offset, count)
        if not sent:
            raise data_bad("the file shrank while it was read", reader.lfn)
        return sent

    def _cork(self, on: bool) -> None:
        self._outlet.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(on))
