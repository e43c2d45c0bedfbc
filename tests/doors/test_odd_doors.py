"""Doors that hang, lie and break off: what is believed of them, and what is said."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from streams.doors.client import DoorConnection
from streams.doors.connection import DoorFault
from tests.doors.conftest import HERE

REFUSED = b'{"reason": "not now, \\u001b[2J"}'
Behave = Callable[[socket.socket], None]


@contextlib.contextmanager
def odd_door(behave: Behave) -> Iterator[int]:
    """A listener that does this to its first connection; its port."""
    listener = socket.create_server((HERE, 0))

    def run() -> None:
        with contextlib.suppress(OSError):
            accepted, _ = listener.accept()
            with accepted:
                behave(accepted)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(10)


def says(*parts: bytes, pause_s: float = 0.0) -> Behave:
    def behave(accepted: socket.socket) -> None:
        accepted.recv(8192)
        for part in parts:
            accepted.sendall(part)
            time.sleep(pause_s)

    return behave


def head(status: int = 206, length: int = 100, said: str = "bytes 0-99/*") -> bytes:
    lines = f"HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n"
    return (lines + (f"Content-Range: {said}\r\n" if said else "") + "\r\n").encode()


def silent(accepted: socket.socket) -> None:
    while accepted.recv(8192):
        pass


def drips(accepted: socket.socket) -> None:
    accepted.recv(8192)
    accepted.sendall(head())
    with contextlib.suppress(OSError):
        for _ in range(100):
            accepted.sendall(b"x")
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("behave", "said", "given"),
    [
        (silent, "does not answer", 0),
        (says(), "closed the connection", 0),
        (says(b"HTTP/1.1 206"), "closed the connection", 0),
        (says(head() + b"x" * 40), "in the middle of a range", 40),
        (says(head() + b"x" * 60), "in the middle of a range", 60),
        (drips, "the door sent", None),
        (says(head(200, 100, "") + b"x" * 100), "the door answers 200", 0),
        (says(head(200, 5, "") + b"hello"), "the door answers 200", 0),
        (says(head(206, 100, "")), "no range", 0),
        (says(head(206, 100, "bytes 0-98/*")), r"\[0, 99\)", 0),
        (says(head(206, 99, "bytes 0-99/*")), "99 bytes", 0),
        (says(head(206, 100, "bytes 1-100/*")), r"\[1, 101\)", 0),
        (says(head(302, 0, "")), "the door answers 302", 0),
        (says(head(503, len(REFUSED), "") + REFUSED), "not now", 0),
        (says(head(503, 10**9, "")), "answers 503 with 1,000,000,000 bytes", 0),
        (says(b"HTTP/1.1 206 X\r\nTransfer-Encoding: chunked\r\n\r\n"), "does not say its length", 0),
        (says(b"X" * 20_000), "has no end of its head", 0),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "not an answer of HTTP", 0),
        (says(b"HTTP/1.1 100 Continue\r\n\r\n" + head()), "does not say its length", 0),
    ],
)
def test_nothing_is_believed_of_it(behave: Behave, said: str, given: int | None):
    came: list[int] = []
    with odd_door(behave) as port:
        began = time.monotonic()
        with DoorConnection(HERE, port, stall_s=1) as connection:
            connection.ask("w" * 43, 0, 100)
            with pytest.raises(DoorFault, match=said) as caught:
                connection.receive(memoryview(bytearray(50)), lambda at, view: came.append(len(view)))
        assert time.monotonic() - began < 4
    assert sum(came) == given if given is not None else 0 < sum(came) < 50
    assert caught.value.failure_class == "transient"
    assert "\x1b" not in str(caught.value)


def test_nobody_listens():
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DoorFault, match="cannot be reached: Connection refused"):
        DoorConnection(HERE, port)


def test_an_item_that_a_door_names_falsely_does_no_harm():
    for body in (b'{"reason": "x", "item": "1"}', b'{"reason": 5, "item": true}', b"[]", b"not json", b'{"item": 1}'):
        with (
            odd_door(says(head(409, len(body), "") + body)) as port,
            DoorConnection(HERE, port, stall_s=1) as connection,
        ):
            connection.ask("w" * 43, 0, 100)
            with pytest.raises(DoorFault) as caught:
                connection.receive(memoryview(bytearray(50)), lambda at, view: None)
            assert caught.value.status == 409
