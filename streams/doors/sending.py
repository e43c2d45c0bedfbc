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


class ItemFault(Exception):
    """An item that cannot be read: which, and why."""

    def __init__(self, item: RequestedItem, error: StorageError) -> None:
        super().__init__(str(error))
        self.item, self.error = item, error


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
        self._last: tuple[str, str, Reader] | None = None
        """What was read last: a large file is asked for in many ranges."""

    def close(self) -> None:
        if self._last is not None:
            self._last[2].close()
            self._last = None

    def open(self, item: RequestedItem) -> Reader:
        """A reader of the item's version and length. Raises ItemFault."""
        try:
            if self._last is not None and self._last[:2] == (item.lfn, item.version):
                self._last[2].check()
                return self._last[2]
            self.close()
            reader = self._storage.open_reader(item.lfn, item.version or None)
            self._last = item.lfn, item.version, reader
            if reader.stat.bytes != item.length:
                what = f"the file has {reader.stat.bytes:,} bytes where {item.length:,} were registered"
                raise data_bad(what, item.lfn, "register it again")
        except StorageError as error:
            self.close()
            raise ItemFault(item, error) from error
        return self._last[2]

    def send(self, head: bytes, ticket: Ticket, start: int, stop: int) -> None:
        """The head, then `[start, stop)` of the line. ItemFault before anything is sent; after that OSError only."""
        pieces = list(ticket.line.pieces(start, stop))
        self.open(pieces[0][0])
        self._cork(True)
        self._outlet.sendall(head)
        for item, offset, length in pieces:
            try:
                reader = self.open(item)
                self._send_piece(reader, ticket, item.start, offset, length)
            except (ItemFault, StorageError) as error:
                raise BrokenOff(f"item {item.no}: {error}") from error
        self._cork(False)

    def _send_piece(self, reader: Reader, ticket: Ticket, first: int, offset: int, length: int) -> None:
        stop = offset + length
        while offset < stop:
            count = min(STEP_BYTES, stop - offset)
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
