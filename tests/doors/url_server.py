"""A small server of HTTP of the tests' own: files by path with ranges, and one way of misbehaving for each path."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

HERE = "127.0.0.1"
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came; header names in lower case."""

    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def span(self) -> tuple[int, int]:
        found = _RANGE.fullmatch(self.headers["range"])
        assert found is not None
        return int(found[1]), int(found[2]) + 1


Behave = Callable[[socket.socket, Asked], bool]
"""Answers; whether the connection goes on."""


@dataclass(eq=False)
class UrlServer:
    """`odd`: by path, or "*" for all others, what is done instead of giving the file."""

    files: dict[str, bytes]
    odd: dict[str, Behave] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    ahead: int = 0
    """Requests of which another came before they were answered."""
    tls: ssl.SSLContext | None = None
    port: int = 0

    def url(self, path: str) -> str:
        return f"{'http' if self.tls is None else 'https'}://{HERE}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [one.path for one in self.asked]

    def serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), accepted:
            if self.tls is None:
                self._answer(accepted)
                return
            with self.tls.wrap_socket(accepted, server_side=True) as made:
                self._answer(made)

    def _answer(self, made: socket.socket) -> None:
        ahead = b""
        while True:
            while b"\r\n\r\n" not in ahead:
                more = made.recv(8192)
                if not more:
                    return
                ahead += more
            head, _, ahead = ahead.partition(b"\r\n\r\n")
            line, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
            asked = Asked(line.split(" ")[1], headers)
            self.asked.append(asked)
            self.ahead += bool(ahead)
            behave = self.odd.get(asked.path) or self.odd.get("*") or self.gives
            if not behave(made, asked):
                return

    def gives(self, made: socket.socket, asked: Asked) -> bool:
        content = self.files.get(asked.path)
        if content is None:
            made.sendall(head(404, 0))
            return True
        start, stop = asked.span
        made.sendall(head(206, stop - start, f"bytes {start}-{stop - 1}/{len(content)}") + content[start:stop])
        return True


@contextlib.contextmanager
def serving(server: UrlServer) -> Iterator[UrlServer]:
    listener = socket.create_server((HERE, 0))
    server.port = listener.getsockname()[1]

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                server.connections += 1
                threading.Thread(target=server.serve, args=(accepted,), daemon=True).start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def head(status: int, length: int | None, said: str = "", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if said:
        lines.append(f"Content-Range: {said}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def says(*parts: bytes, goes_on: bool = False) -> Behave:
    def behave(made: socket.socket, _: Asked) -> bool:
        for part in parts:
            made.sendall(part)
        return goes_on

    return behave


def hangs(_: socket.socket, __: Asked) -> bool:
    time.sleep(5)
    return False


def leads_to(url: str, status: int = 302, *, goes_on: bool = True) -> Behave:
    return says(head(status, 0, "", f"Location: {url}"), goes_on=goes_on)


def gives_all(content: bytes) -> Behave:
    """As a server that knows no ranges."""
    return says(head(200, len(content)) + content)


def range_of(content: bytes, total: int | None = None, *, shift: int = 0, more: int = 0) -> Behave:
    """The range that is asked for, of a file said to have `total` bytes, said to be `shift` further on; with `more`
    bytes than are asked for, or fewer."""

    def behave(made: socket.socket, asked: Asked) -> bool:
        start, stop = asked.span
        said = f"bytes {start + shift}-{stop - 1 + shift}/{len(content) if total is None else total}"
        made.sendall(head(206, stop - start + max(0, more), said) + content[start : stop + min(0, more)] + b"x" * more)
        return more >= 0

    return behave
