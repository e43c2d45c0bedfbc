"""Connecting to another site's door to answer there, by a site that has no open door itself."""

from __future__ import annotations

import socket
import ssl
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from streams.core.names import shown
from streams.doors import heads
from streams.doors.connection import DoorFault, words_of

CONNECT_S = 5.0
"""Of each step, and for the whole answer: a door that says it byte by byte holds nobody up."""


class Capability(NamedTuple):
    """Where a destination's door is, and the ticket that lets one connection in."""

    url: str
    ticket: str

    @classmethod
    def parse(cls, text: str) -> Capability | None:
        """Of a request's capability; None of another kind."""
        url, _, ticket = text.partition(" ")
        return cls(url, ticket) if ticket and heads.is_token(ticket) else None


def dial(capability: Capability, tls: ssl.SSLContext | None) -> socket.socket:
    """A connection that the door has let in. `tls`: where it speaks https. Raises DoorFault."""
    parts = urlsplit(capability.url)
    try:
        host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        host, port = "", 0
    where = parts.netloc
    if not host or not port:
        raise DoorFault("not the address of a door", shown(capability.url), failure_class="permanent")
    opened: socket.socket | None = None
    try:
        opened = socket.create_connection((host, port), timeout=CONNECT_S)
        if tls is not None:
            opened = tls.wrap_socket(opened, server_hostname=host)
        opened.sendall(heads.dial_request(where, capability.ticket))
        status = heads.dial_answer(_head_of(opened))
        if status != heads.SWITCHING:
            raise DoorFault(f"the door lets nobody in: it answers {status}", where, status=status)
        opened.settimeout(None)
        return opened
    except ssl.SSLCertVerificationError as error:
        what = f"the door's certificate does not fit: {error.verify_message}"
        _close(opened)
        raise DoorFault(what, where, failure_class="auth") from error
    except OSError as error:
        _close(opened)
        raise DoorFault(f"the door cannot be reached: {words_of(error)}", where) from error
    except DoorFault:
        _close(opened)
        raise


def _head_of(connection: socket.socket) -> bytes:
    """Nothing comes behind it before this end has said something, but where the door refuses."""
    head, until_s = bytearray(), time.monotonic() + CONNECT_S
    while (found := head.find(heads.END)) < 0:
        if time.monotonic() > until_s:
            raise TimeoutError
        if len(head) > heads.HEAD_BYTES_MAX or not (more := connection.recv(heads.HEAD_BYTES_MAX)):
            raise OSError("the door closed the connection")
        head += more
    return bytes(head[: found + len(heads.END)])


def _close(connection: socket.socket | None) -> None:
    if connection is not None:
        connection.close()
