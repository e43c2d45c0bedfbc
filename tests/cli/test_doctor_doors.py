"""What `doctor` says of doors: reachable from here, closed by somebody between, or none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streams.cli import doctor
from streams.client.announcements import Announcements
from streams.core.names import Site
from streams.core.records import Origin, SiteAnnounced
from streams.settings import Registry, Settings
from streams.settings.doors import HttpDoor
from tests.doors.url_server import UrlServer, head, says, serving

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


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        (404, "ok", "answers (404 to a HEAD without a token)"),
        (401, "ok", "answers (401 to a HEAD without a token)"),
        (503, "warn", "answers 503: it gives nothing now; files go by the log while that is so"),
        (0, "warn", "does not speak HTTP: BadStatusLine"),
    ],
)
def test_a_door_of_another_make_is_asked_for_nothing(status: int, state: str, words: str) -> None:
    odd = says(head(status, 0)) if status else says(b"SSH-2.0\r\n")
    with serving(UrlServer({}, {"*": odd})) as web:
        check = doctor._doors(A, announced(web.url("/export/"), ""), NOW_MS)
    assert (check.state, check.words) == (state, f"of another make: {web.url('/export/')} {words}")
    assert [(one.path, "authorization" in one.headers) for one in web.asked] == [("/export/", False)]


def test_a_door_of_another_make_that_nobody_opens() -> None:
    check = doctor._doors(A, announced("http://127.0.0.1:1/"), NOW_MS)
    assert check.state == "warn"
    assert "http://127.0.0.1:1/ cannot be reached from here: Connection refused" in check.words


def test_doors_that_this_site_names(tmp_path: Path) -> None:
    with serving(UrlServer({})) as web:
        settings = Settings(Registry(), A, *[tmp_path] * 4, http_doors=(HttpDoor("web", web.url("/")),))
        (check,) = doctor._http_doors(settings)
        assert (check.name, check.state, check.exit_code) == ("door web", "ok", 0)
        door = HttpDoor("web", web.url("/"), tmp_path / "token")
        (check,) = doctor._http_doors(replace(settings, http_doors=(door,)))
        assert (check.state, check.exit_code) == ("FAIL", 7)
        assert "the token of the door web cannot be read: No such file or directory" in check.words
