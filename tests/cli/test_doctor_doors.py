"""What `doctor` says of doors: reachable from here, closed by somebody between, or none."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from streams.cli import doctor
from streams.client.announcements import Announcements
from streams.core.names import Site
from streams.core.records import Origin, SiteAnnounced

A = Site("T1_A")
NOW_MS = 1_000_000


def announced(*doors: str) -> Announcements:
    known = Announcements()
    for n, door in enumerate(doors):
        said = SiteAnnounced(A, f"plane-{n}", "i", "plane", "", "", (), (), 30, False, (), door)
        known.take(said, Origin(A, f"plane-{n}", "i", 0, NOW_MS), NOW_MS)
    return known


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_a_door_that_answers(listener: socket.socket) -> None:
    door = f"http://127.0.0.1:{listener.getsockname()[1]}"
    check = doctor._doors(A, announced(door, ""), NOW_MS)
    assert (check.state, check.words) == ("ok", f"{door} can be reached from here")


def test_a_door_that_nobody_opens_is_named(listener: socket.socket) -> None:
    door, closed = (f"http://127.0.0.1:{port}" for port in (listener.getsockname()[1], 1))
    check = doctor._doors(A, announced(door, closed), NOW_MS)
    words = f"{closed} cannot be reached from here: Connection refused; files go by the log while that is so"
    assert (check.state, check.words) == ("warn", words)


def test_no_door() -> None:
    said = doctor._doors(A, announced("", ""), NOW_MS).words
    assert said == "none is open: it connects to those of its destinations, and else sends by the log"
    assert doctor._doors(A, announced("http://127.0.0.1:1"), NOW_MS + 10_000_000).state == "ok", "its plane is dead"
