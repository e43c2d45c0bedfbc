"""A source without a door connects to the destination's, once for each ticket, and is asked over that connection."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.core.names import ManifestId, Site
from streams.doors import dialling, heads, lobby
from streams.doors.client import DoorConnection
from streams.doors.connection import DoorFault
from streams.doors.dialling import Capability, dial
from streams.doors.heads import BadHead
from streams.doors.lobby import Dialled, Lobby
from streams.doors.server import Door
from streams.doors.tickets import Tickets
from streams.storage.posix import PosixEndpoint
from tests.certificates import self_signed
from tests.doors.conftest import HERE, Stage, joined, pull

TICKET = "t" * 43
OTHER = "o" * 43
REQUEST = Dialled(ManifestId("T1_A.00000000-0000-4000-8000-000000000000.0.0"), Site("T1_A"), 3)


class Host:
    """The destination's door, which lets in who is expected."""

    def __init__(self, root: Path, tls: ssl.SSLContext | None = None) -> None:
        self.lobby = Lobby()
        self.door = Door(PosixEndpoint(str(root)), Tickets(), HERE, lobby=self.lobby, tls=tls)
        for _, work in self.door.threads():
            threading.Thread(target=work, daemon=True).start()
        self.url = f"{'http' if tls is None else 'https'}://{HERE}:{self.door.port}"

    def dialled(self, ticket: str = TICKET, tls: ssl.SSLContext | None = None) -> socket.socket:
        return dial(Capability(self.url, ticket), tls)

    def close(self) -> None:
        self.door.close()
        self.lobby.close()


@pytest.fixture
def stage(stage_of: Callable[..., Stage]) -> Stage:
    return stage_of([300_000, 17])


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    (tmp_path / "host").mkdir()
    yield (made := Host(tmp_path / "host"))
    made.close()


def asked_over(connection: socket.socket, stage: Stage, host: Host) -> dict[int, bytes]:
    """What the destination gets of a source that has connected."""
    stage.door.answer_over(connection, "there")
    made = host.lobby.take(REQUEST, 5.0)
    assert made is not None
    with DoorConnection("T1_A", 0, made=made) as mine:
        return pull(mine, stage.ticket(), (0, len(stage.line)))


def test_who_connects_is_asked_as_at_a_door(stage: Stage, host: Host) -> None:
    host.lobby.expect(TICKET, REQUEST)
    assert joined(asked_over(host.dialled(), stage, host)) == stage.line


def test_under_tls_it_is_the_door_that_shows_a_certificate(stage: Stage, tmp_path: Path) -> None:
    cert = self_signed(tmp_path / "door.pem")
    mine = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    mine.load_cert_chain(cert)
    host = Host(tmp_path, mine)
    try:
        host.lobby.expect(TICKET, REQUEST)
        trusting = ssl.create_default_context(cafile=cert)
        assert joined(asked_over(host.dialled(tls=trusting), stage, host)) == stage.line
        with pytest.raises(DoorFault, match="certificate does not fit") as caught:
            host.dialled(tls=ssl.create_default_context())
        assert caught.value.failure_class == "auth"
    finally:
        host.close()


def test_a_ticket_lets_in_one_connection(host: Host) -> None:
    host.lobby.expect(TICKET, REQUEST)
    host.dialled().close()
    for ticket in (TICKET, OTHER):
        with pytest.raises(DoorFault, match="lets nobody in: it answers 401"):
            host.dialled(ticket)


def test_a_ticket_is_good_for_a_minute() -> None:
    now_s = 100.0
    waits = Lobby(lambda: now_s)
    waits.expect(TICKET, REQUEST)
    waits.expect(OTHER, REQUEST)
    now_s += lobby.EXPECTED_S - 1
    assert waits.admit(TICKET) == REQUEST
    now_s += 1
    assert waits.admit(OTHER) is None


def test_what_waits_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lobby, "WAITING_MAX", 2)
    monkeypatch.setattr(lobby, "EXPECTED_MAX", 2)
    waits = Lobby()
    pairs = [socket.socketpair() for _ in range(4)]
    for number, (mine, _) in enumerate(pairs[:3]):
        waits.connected(REQUEST._replace(request_no=number), mine)
    waits.connected(REQUEST._replace(request_no=2), pairs[3][0])
    assert [mine.fileno() < 0 for mine, _ in pairs] == [True, False, True, False]
    assert waits.take(REQUEST._replace(request_no=0), 0.0) is None
    assert waits.take(REQUEST._replace(request_no=2), 0.0) is pairs[3][0]
    for number in range(3):
        waits.expect(f"{number}" * 43, REQUEST)
    assert [waits.admit(f"{number}" * 43) for number in range(3)] == [None, REQUEST, REQUEST]
    waits.close()
    assert pairs[1][0].fileno() < 0
    for pair in pairs:
        for one in pair:
            one.close()


def test_who_pulls_waits_for_who_connects(stage: Stage, host: Host) -> None:
    host.lobby.expect(TICKET, REQUEST)

    def later() -> None:
        time.sleep(0.1)
        stage.door.answer_over(host.dialled(), "there")

    threading.Thread(target=later).start()
    made = host.lobby.take(REQUEST, 10.0)
    assert made is not None
    made.close()


def test_a_door_that_waits_for_nobody_lets_nobody_in(stage: Stage) -> None:
    with pytest.raises(DoorFault, match="lets nobody in: it answers 401"):
        dial(Capability(f"http://{HERE}:{stage.door.port}", TICKET), None)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:1", "cannot be reached: Connection refused"),
        ("http://127.0.0.1:99999", "not the address of a door"),
        ("nonsense", "not the address of a door"),
    ],
)
def test_a_door_that_cannot_be_reached(url: str, why: str) -> None:
    with pytest.raises(DoorFault, match=why):
        dial(Capability(url, TICKET), None)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"nonsense\r\n\r\n", b"x" * 9000])
def test_what_is_no_door(answer: bytes) -> None:
    with socket.create_server((HERE, 0)) as listener:

        def accept() -> None:
            accepted, _ = listener.accept()
            with accepted:
                accepted.recv(8192)
                accepted.sendall(answer)

        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises(DoorFault):
            dial(Capability(f"http://{HERE}:{listener.getsockname()[1]}", TICKET), None)
        thread.join()


def test_a_door_that_answers_byte_by_byte_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "CONNECT_S", 0.3)
    with socket.create_server((HERE, 0)) as listener:

        def accept() -> None:
            accepted, _ = listener.accept()
            with accepted, contextlib.suppress(OSError):
                accepted.recv(8192)
                for _ in range(200):
                    accepted.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=accept)
        thread.start()
        began_s = time.monotonic()
        with pytest.raises(DoorFault, match="cannot be reached: timed out"):
            dial(Capability(f"http://{HERE}:{listener.getsockname()[1]}", TICKET), None)
        assert time.monotonic() - began_s < 3
        thread.join()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /t2g/1/dial HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /t2g/1/dial HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /t2g/1/line HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: t2g\r\n\r\n",
    ],
)
def test_heads_that_ask_for_another_protocol(head: bytes) -> None:
    with pytest.raises(BadHead):
        heads.parse_request(head)


def test_what_a_request_says_of_the_door() -> None:
    assert Capability.parse(f"https://t2.example:1095 {TICKET}") == ("https://t2.example:1095", TICKET)
    assert [Capability.parse(text) for text in ("", "https://h:1", "https://h:1 short", "other")] == [None] * 4
