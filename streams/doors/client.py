"""One connection to a door: ranges asked ahead, and every answer checked before one of its bytes is believed.

A range is asked for and received by the one thread that has the connection. What comes is handed on a buffer at a time,
with its position on the line, as soon as it is there: checksum and writing go beside the next bytes' way.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections import deque

from streams.core.names import shown
from streams.doors import heads
from streams.doors.connection import Connection, DoorFault, Sink
from streams.doors.heads import Answered, BadHead
from streams.doors.sums import BLOCK_BYTES, BlockSums

BUFFER_BYTES = 1024 * 1024
"""Received at once: 2 MiB cost the same, 8 MiB twice as much."""
REFUSAL_BYTES_MAX = 64 * 1024
SUMS_BYTES_MAX = 16 * 1024 * 1024
LINE, SUMS = "/t2g/1/line", "/t2g/1/sums"


class DoorConnection(Connection):
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
        super().__init__(host, port, tls=tls, connect_s=connect_s, stall_s=stall_s, made=made)
        self._asked: deque[tuple[int, int]] = deque()

    @property
    def waiting(self) -> int:
        """Ranges that are asked for and not received."""
        return len(self._asked)

    def ask(self, token: str, start: int, stop: int) -> None:
        """Ask, with a ticket's token, for `[start, stop)` of its line; it comes behind what was asked before."""
        self.send(heads.request(LINE, self.where, token, start, stop))
        self._asked.append((start, stop))

    def receive(self, buffer: memoryview, sink: Sink) -> None:
        """What was asked for first: see `take`."""
        start, stop = self._asked.popleft()
        answer = self._answer()
        if answer.status != 206:
            self._refused(answer)
        if answer.span != (start, stop) or answer.length != stop - start:
            self.close()
            said = "no range" if answer.span is None else f"[{answer.span[0]}, {answer.span[1]})"
            raise self.fault(f"the door answers {said}, {answer.length} bytes, where [{start}, {stop}) was asked for")
        self.take(start, stop, buffer, sink)

    def sums(self, token: str, start: int, stop: int) -> list[BlockSums]:
        """Of the blocks of `[start, stop)`, which is of one item, from `start` on."""
        self.send(heads.request(SUMS, self.where, token, start, stop))
        answer = self._answer()
        if answer.status != 200:
            self._refused(answer)
        body = self._body(answer, SUMS_BYTES_MAX)
        try:
            said = json.loads(body)
            sums = [BlockSums(int(crc), int(adler)) for crc, adler in said["sums"]]
            if said["block_bytes"] != BLOCK_BYTES or len(sums) != -(-(stop - start) // BLOCK_BYTES):
                raise ValueError("other blocks")
        except (ValueError, TypeError, KeyError) as error:
            raise self.fault(f"the door's sums cannot be read: {error}") from error
        return sums

    def _answer(self) -> Answered:
        try:
            return heads.parse_answer(self.head())
        except BadHead as error:
            raise self.fault(error.why) from error

    def _body(self, answer: Answered, bytes_max: int) -> bytes:
        if answer.length > bytes_max:
            self.close()
            raise self.fault(f"the door answers {answer.status} with {answer.length:,} bytes")
        return self.body(answer.length)

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
