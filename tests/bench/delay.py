"""A link with a round trip: a process of its own that gives on each byte half of it later, either way.

`through` starts one. What it can carry is bounded by itself, so `limit_mb_s` measures that. TCP's windows see no
round trip, since both ends are here: what a tool loses is what it waits for, question by question.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

HERE = "127.0.0.1"
PIECE_BYTES = 1 << 20
HELD_BYTES_MAX = 256 << 20
"""On its way at once, of a direction."""


class _Direction:
    """Takes from one socket, and gives to another what is old enough."""

    def __init__(self, source: socket.socket, target: socket.socket, delay_s: float) -> None:
        self.source, self.target, self.delay_s = source, target, delay_s
        self.held: deque[tuple[float, bytes]] = deque()
        self.bytes = 0
        self.wake = threading.Condition()
        for work in (self.take, self.give):
            threading.Thread(target=work, daemon=True).start()

    def take(self) -> None:
        more = True
        while more:
            try:
                piece = self.source.recv(PIECE_BYTES)
            except OSError:
                piece = b""
            more = bool(piece)
            with self.wake:
                self.wake.wait_for(lambda: self.bytes < HELD_BYTES_MAX)
                self.held.append((time.monotonic() + self.delay_s, piece))
                self.bytes += len(piece)
                self.wake.notify_all()

    def give(self) -> None:
        while True:
            with self.wake:
                self.wake.wait_for(lambda: self.held)
                due_s, piece = self.held.popleft()
            time.sleep(max(0.0, due_s - time.monotonic()))
            try:
                if not piece:
                    self.target.shutdown(socket.SHUT_WR)
                    return
                self.target.sendall(piece)
            except OSError:
                self.source.close()
                return
            with self.wake:
                self.bytes -= len(piece)
                self.wake.notify_all()


def serve(port: int, round_trip_s: float) -> None:
    listener = socket.create_server((HERE, 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    sys.setswitchinterval(0.0005)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection((HERE, port))
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _Direction(near, far, round_trip_s / 2)
        _Direction(far, near, round_trip_s / 2)


@contextlib.contextmanager
def through(port: int, round_trip_s: float) -> Iterator[int]:
    """A port here that leads to `port`; without a round trip that one."""
    if not round_trip_s:
        yield port
        return
    command = [sys.executable, "-m", "tests.bench.delay", str(port), str(round_trip_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def limit_mb_s(round_trip_s: float, size: int) -> float:
    """What the link gives a bare socket of so many bytes, MB/s: the best of one and of four connections."""
    return max(_limit(round_trip_s, size, connections) for connections in (1, 4))


def _limit(round_trip_s: float, size: int, connections: int) -> float:
    block = bytes(PIECE_BYTES)
    each = size // connections

    def give(accepted: socket.socket) -> None:
        with accepted:
            for _ in range(0, each, len(block)):
                accepted.sendall(block)

    def take(port: int) -> None:
        into = bytearray(PIECE_BYTES)
        with socket.create_connection((HERE, port)) as mine:
            while mine.recv_into(into):
                pass

    with socket.create_server((HERE, 0)) as listener, through(listener.getsockname()[1], round_trip_s) as port:
        began_s = time.perf_counter()
        takers = [threading.Thread(target=take, args=(port,)) for _ in range(connections)]
        for taker in takers:
            taker.start()
        for _ in takers:
            threading.Thread(target=give, args=(listener.accept()[0],), daemon=True).start()
        for taker in takers:
            taker.join()
        return size / (time.perf_counter() - began_s) / 1e6


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))
