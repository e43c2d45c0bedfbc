"""A real door over real files: what is given, and what is refused with which words."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from streams.core.ranges import Ranges
from streams.doors import server
from streams.doors.connection import DoorFault
from streams.doors.server import DoorLimits
from streams.doors.sums import BLOCK_BYTES, block_sums
from streams.storage.checksums import adler32, crc32c
from tests.doors.conftest import HERE, Stage, joined, pull

MIB = 1 << 20
StageOf = Callable[..., Stage]


def fault_of(stage: Stage, token: str, *span: int) -> DoorFault:
    with stage.connect() as connection:
        connection.ask(token, *span)
        with pytest.raises(DoorFault) as caught:
            connection.receive(memoryview(bytearray(MIB)), lambda at, view: None)
        return caught.value


def talk(stage: Stage, sent: bytes, until: Callable[[bytes], bool] = lambda got: False, wait_s: float = 5) -> bytes:
    """What the door answers to these bytes, until it closes or enough has come."""
    with socket.create_connection((HERE, stage.door.port), timeout=wait_s) as raw:
        raw.sendall(sent)
        got = b""
        while not until(got):
            more = raw.recv(65536)
            if not more:
                break
            got += more
        return got


# what is given


def test_one_answer_spans_small_files_and_large_ones(stage_of: StageOf):
    stage = stage_of([10, 1, 3 * MIB + 7, 500, 0, 500, 2 * MIB])
    token = stage.ticket()
    with stage.connect() as connection:
        assert joined(pull(connection, token, (0, len(stage.line)))) == stage.line
        for span in ((0, 1), (5, 11), (9, 12), (11, MIB), (3 * MIB, 3 * MIB + 1500)):
            assert joined(pull(connection, token, span)) == stage.line[slice(*span)], span


def test_ranges_are_asked_ahead_on_one_connection(stage_of: StageOf):
    stage = stage_of([5 * MIB, 5 * MIB])
    spans = [(at, at + 2 * MIB) for at in range(0, 10 * MIB, 2 * MIB)]
    token = stage.ticket()
    with stage.connect() as connection:
        assert joined(pull(connection, token, *spans)) == stage.line
    assert len(stage.door) <= 1


def test_a_thousand_small_files_are_one_answer(stage_of: StageOf):
    stage = stage_of([97] * 1000)
    token = stage.ticket()
    with stage.connect() as connection:
        came = pull(connection, token, (0, 97_000))
    assert came == {0: stage.line}


def test_several_connections_read_one_file(stage_of: StageOf):
    stage = stage_of([16 * MIB])
    token, parts = stage.ticket(), [(at, at + 4 * MIB) for at in range(0, 16 * MIB, 4 * MIB)]
    came: dict[int, bytes] = {}

    def one(span: tuple[int, int]) -> None:
        with stage.connect() as connection:
            came.update(pull(connection, token, span))

    threads = [threading.Thread(target=one, args=(span,)) for span in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert joined(came) == stage.line


def test_curl_gets_a_file_by_name(stage_of: StageOf):
    stage = stage_of([10, 2000])
    token = stage.ticket()
    target = f"/t2g/1/file/data/f1.root?authz={token}"
    whole = talk(stage, f"GET {target} HTTP/1.0\r\n\r\n".encode())
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == stage.contents[1]
    part = talk(stage, f"GET {target} HTTP/1.0\r\nRange: bytes=100-199\r\n\r\n".encode())
    assert b"Content-Range: bytes 100-199/2000\r\n" in part
    assert part.endswith(b"\r\n\r\n" + stage.contents[1][100:200])
    head = talk(stage, f"HEAD {target} HTTP/1.0\r\n\r\n".encode())
    assert b"Content-Length: 2000\r\n" in head
    assert head.endswith(b"\r\n\r\n")


def test_what_has_left_is_what_the_ticket_knows(stage_of: StageOf):
    stage = stage_of([3 * MIB, 100])
    token = stage.ticket()
    with stage.connect() as connection:
        pull(connection, token, (10, 2 * MIB), (3 * MIB, 3 * MIB + 50))
    stage.tickets.end(token)
    (ticket,) = stage.ended
    assert ticket.sent == Ranges([(10, 2 * MIB), (3 * MIB, 3 * MIB + 50)])


def test_sums_of_blocks(stage_of: StageOf):
    stage = stage_of([100, 2 * BLOCK_BYTES + 5])
    token = stage.ticket()
    with stage.connect() as connection:
        sums = connection.sums(token, 100, 100 + 2 * BLOCK_BYTES + 5)
        content = stage.contents[1]
        blocks = [content[at : at + BLOCK_BYTES] for at in range(0, len(content), BLOCK_BYTES)]
        assert sums == [(crc32c(block), adler32(block)) for block in blocks]
        assert connection.sums(token, 100 + BLOCK_BYTES, 100 + 2 * BLOCK_BYTES) == sums[1:2]
        assert joined(pull(connection, token, (0, 50))) == stage.line[:50], "the connection goes on"
        assert connection.sums(token, 101, 200) == [(crc32c(content[1:100]), adler32(content[1:100]))]
        with pytest.raises(DoorFault, match="sums are of one item"):
            connection.sums(token, 0, 200)
    with stage.endpoint.open_reader("/data/f1.root") as reader:
        assert block_sums(reader, 0, len(content)) == sums


def test_the_rate_of_a_door_holds_over_its_connections(stage_of: StageOf):
    stage = stage_of([4 * MIB], rate=4 * MIB)
    token, began = stage.ticket(), time.monotonic()

    def one(start: int) -> None:
        with stage.connect() as connection:
            pull(connection, token, (start, start + 2 * MIB))

    threads = [threading.Thread(target=one, args=(at,)) for at in (0, 2 * MIB)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.55 < time.monotonic() - began < 3, "four MiB at four a second; the last step and a burst go at once"


# what is refused


def test_without_a_ticket_nothing_is_given(stage_of: StageOf):
    stage = stage_of([1000])
    for token in ("x" * 43, "", "../" * 9):
        fault = fault_of(stage, token, 0, 10)
        assert (fault.status, fault.failure_class) == (401, "auth")
    answered = talk(stage, b"GET /t2g/1/line HTTP/1.1\r\nRange: bytes=0-9\r\nConnection: close\r\n\r\n")
    assert b"WWW-Authenticate: Bearer" in answered


def test_a_ticket_reaches_no_byte_outside_its_ranges(stage_of: StageOf):
    stage = stage_of([1000, 1000, 1000])
    token = stage.ticket((100, 200), (1500, 2500))
    with stage.connect() as connection:
        assert joined(pull(connection, token, (100, 200), (1500, 2500))) == stage.line[100:200] + stage.line[1500:2500]
    for span in ((99, 101), (199, 201), (0, 1), (100, 1600), (2499, 2501), (2999, 3001), (5000, 6000)):
        assert fault_of(stage, token, *span).status == 403, span
    for name, status in (("f0.root", 403), ("f3.root", 404), ("../f0.root", 404), ("f1.root%00", 404)):
        raw = talk(stage, f"GET /t2g/1/file/data/{name}?authz={token} HTTP/1.0\r\n\r\n".encode())
        assert raw.startswith(b"HTTP/1.1 %d " % status), name
    part = talk(stage, f"GET /t2g/1/file/data/f0.root?authz={token} HTTP/1.0\r\nRange: bytes=100-199\r\n\r\n".encode())
    assert part.endswith(stage.line[100:200])
    beyond = talk(stage, f"GET /t2g/1/file/data/f2.root?authz={token} HTTP/1.0\r\nRange: bytes=0-1000\r\n\r\n".encode())
    assert beyond.startswith(b"HTTP/1.1 416 ")


@pytest.mark.parametrize(
    ("harm", "status", "failure_class", "said"),
    [
        (lambda path: path.unlink(), 404, "permanent", "no such file"),
        (lambda path: path.write_bytes(b"x" * 1000), 409, "data-bad", "was changed since it was listed"),
        (lambda path: path.write_bytes(b"x" * 1001), 409, "data-bad", "grew from 1000 to 1001 bytes"),
        (lambda path: path.write_bytes(b"x" * 10), 409, "data-bad", "shrank from 1000 to 10 bytes"),
        (lambda path: (path.unlink(), path.mkdir()), 410, "permanent", "not a regular file"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), 410, "permanent", "."),
        (lambda path: (path.unlink(), os.mkfifo(path)), 410, "permanent", "not a regular file"),
    ],
)
def test_an_item_that_cannot_be_read_is_named(
    stage_of: StageOf, harm: Callable[[object], object], status: int, failure_class: str, said: str
):
    stage = stage_of([1000, 1000, 1000])
    token = stage.ticket()
    harm(stage.path(1))
    with stage.connect() as connection:
        assert joined(pull(connection, token, (0, 1000))) == stage.contents[0]
        connection.ask(token, 1000, 2000)
        with pytest.raises(DoorFault, match=said) as caught:
            connection.receive(memoryview(bytearray(MIB)), lambda at, view: None)
        assert (caught.value.status, caught.value.item, caught.value.failure_class) == (status, 1, failure_class)
        assert joined(pull(connection, token, (2000, 3000))) == stage.contents[2], "the others go on"


def test_a_fault_in_the_middle_ends_at_a_known_position(stage_of: StageOf):
    stage = stage_of([1000, 1000, 1000])
    token = stage.ticket()
    stage.path(1).unlink()
    came: dict[int, bytes] = {}
    with stage.connect() as connection:
        connection.ask(token, 0, 3000)
        with pytest.raises(DoorFault, match="closed the connection in the middle"):
            connection.receive(memoryview(bytearray(500)), lambda at, view: came.update({at: bytes(view)}))
    assert joined(came) == stage.contents[0]
    assert fault_of(stage, token, 1000, 3000).item == 1


def test_a_file_that_changes_while_it_is_sent(stage_of: StageOf):
    stage = stage_of([64 * MIB])
    token, came = stage.ticket(), 0

    def take(at: int, view: memoryview) -> None:
        nonlocal came
        came += len(view)
        if at == 0:
            with open(stage.path(0), "r+b") as file:
                file.truncate(40 * MIB)

    with stage.connect() as connection:
        connection.ask(token, 0, 64 * MIB)
        with pytest.raises(DoorFault):
            connection.receive(memoryview(bytearray(MIB)), take)
    assert came < 64 * MIB
    assert fault_of(stage, token, came, 64 * MIB).failure_class == "data-bad"


def test_a_ticket_that_ends_ends_what_is_under_way(stage_of: StageOf):
    stage = stage_of([64 * MIB])
    token = stage.ticket()

    def take(at: int, view: memoryview) -> None:
        stage.tickets.end(token)

    with stage.connect() as connection:
        connection.ask(token, 0, 64 * MIB)
        with pytest.raises(DoorFault, match="closed the connection"):
            connection.receive(memoryview(bytearray(MIB)), take)
    fault = fault_of(stage, token, 0, 10)
    assert (fault.status, fault.failure_class) == (401, "auth")


def test_odd_requests_are_refused_and_the_connection_closed(stage_of: StageOf):
    stage = stage_of([100])
    for sent, status in (
        (b"POST /t2g/1/line HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /t2g/1/line HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET /t2g/1/line HTTP/1.1\nHost: a\n\r\n\r\n", 400),
        (b"GET /t2g/1/line HTTP/1.1\r\nX: " + b"x" * 9000, 431),
        (b"GET /" + b"x" * 9000, 431),
        (b"\x16\x03\x01\r\n\r\n", 400),
    ):
        assert talk(stage, sent).startswith(b"HTTP/1.1 %d " % status), sent[:40]
    assert len(stage.door) <= 1


def test_a_request_in_single_bytes_is_a_request(stage_of: StageOf):
    stage = stage_of([100])
    head = f"GET /t2g/1/line HTTP/1.1\r\nAuthorization: Bearer {stage.ticket()}\r\nRange: bytes=0-99\r\n\r\n".encode()
    with socket.create_connection((HERE, stage.door.port), timeout=5) as raw:
        for at in range(len(head)):
            raw.sendall(head[at : at + 1])
        got = b""
        while not got.endswith(stage.line):
            got += raw.recv(4096)


# what bounds it

QUICK = DoorLimits(connections=10, of_address=10, head_s=0.5, idle_s=1.5)


def test_a_head_that_does_not_end_is_not_waited_for(stage_of: StageOf):
    stage = stage_of([100], limits=QUICK)
    for sent in (b"", b"GET /t2g/1/line HTT"):
        began = time.monotonic()
        assert talk(stage, sent) == b""
        assert 0.4 < time.monotonic() - began < 3


def test_a_silent_connection_is_closed_and_one_in_use_is_not(stage_of: StageOf):
    stage = stage_of([100], limits=QUICK)
    token = stage.ticket()
    with stage.connect() as connection:
        for _ in range(3):
            time.sleep(0.8)
            pull(connection, token, (0, 100))
        time.sleep(3)
        with pytest.raises(DoorFault):
            pull(connection, token, (0, 100))


def test_when_all_places_are_taken_the_longest_silent_goes(stage_of: StageOf):
    stage = stage_of([100], limits=DoorLimits(connections=4, of_address=100, head_s=30, idle_s=30))
    token = stage.ticket()
    silent = [socket.create_connection((HERE, stage.door.port), timeout=5) for _ in range(30)]
    try:
        with stage.connect() as connection:
            assert joined(pull(connection, token, (0, 100))) == stage.line
            assert len(stage.door) <= 4
            assert silent[0].recv(1) == b""
    finally:
        for one in silent:
            one.close()


def test_one_address_has_so_many_places(stage_of: StageOf):
    stage = stage_of([100], limits=DoorLimits(connections=10, of_address=3, head_s=30, idle_s=30))
    token = stage.ticket()
    opened = [stage.connect() for _ in range(3)]
    for connection in opened:
        pull(connection, token, (0, 100))
    with stage.connect() as one_more, pytest.raises(DoorFault):
        pull(one_more, token, (0, 100))
    opened[0].close()
    until = time.monotonic() + 5
    while len(stage.door) == 3 and time.monotonic() < until:
        time.sleep(0.01)
    with stage.connect() as again:
        pull(again, token, (0, 100))
    for connection in opened:
        connection.close()


def test_who_takes_nothing_is_given_up(stage_of: StageOf):
    stage = stage_of([64 * MIB], limits=QUICK)
    head = (
        f"GET /t2g/1/line HTTP/1.1\r\nAuthorization: Bearer {stage.ticket()}\r\nRange: bytes=0-{64 * MIB - 1}\r\n\r\n"
    )
    with socket.create_connection((HERE, stage.door.port), timeout=5) as raw:
        raw.sendall(head.encode())
        until = time.monotonic() + 8
        while len(stage.door) == 0 and time.monotonic() < until:
            time.sleep(0.01)
        while len(stage.door) and time.monotonic() < until:
            time.sleep(0.05)
        assert len(stage.door) == 0


def test_thousands_of_connections_leave_nothing_behind(stage_of: StageOf):
    stage = stage_of([100])
    token = stage.ticket()
    threads = threading.active_count()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(1000):
        with stage.connect() as connection:
            pull(connection, token, (0, 100))
    until = time.monotonic() + 5
    while len(stage.door) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    assert threading.active_count() <= threads + 1
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2


def test_a_process_without_threads_to_spare_accepts_again_later(stage_of: StageOf, monkeypatch: pytest.MonkeyPatch):
    stage = stage_of([100])
    real, left = server.Thread, [3]

    def none_left(**options: object) -> threading.Thread:
        left[0] -= 1
        if left[0] >= 0:
            raise RuntimeError("can't start new thread")
        return real(**options)  # type: ignore[arg-type]

    monkeypatch.setattr(server, "Thread", none_left)
    for _ in range(3):
        with stage.connect() as refused, pytest.raises(DoorFault):
            pull(refused, stage.ticket(), (0, 100))
    with stage.connect() as connection:
        assert joined(pull(connection, stage.ticket(), (0, 100))) == stage.line
