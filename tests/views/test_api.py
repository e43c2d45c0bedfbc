"""A worker's API over real HTTP and a real view: bounded pages, honest status codes, a site checked by its clients."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from streams.client.snapshot_json import from_plain, to_plain
from streams.client.worker_api import WorkerApi, ask
from streams.core import records as m
from streams.core.manifest import digest
from streams.core.names import Site
from streams.core.ranges import Ranges
from streams.errors import NeverWorks, NotFound, Temporary, UsageError
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.views.view import View
from streams.worker.api import ANSWERS_MAX, LIMIT_MAX, Api, Vitals
from tests.views.journal import DATASET, A, B, Journal, held, holds
from tests.views.test_intents import accepted, body, completed, folded, history, named, tell, written


class Vital:
    """What a worker says of itself."""

    def __init__(self) -> None:
        self.awake = self.plane = True

    def said(self) -> Vitals:
        return Vitals(
            lambda: {3, 1},
            lambda: self.awake,
            lambda: self.plane,
            lambda: 2,
            lambda: {"applied": 7},
            lambda: 0,
            lambda: 0.0,
        )


@pytest.fixture
def vital() -> Vital:
    return Vital()


@pytest.fixture
def view(settings: Settings) -> Iterator[View]:
    found = View(settings, settings.datadir, print)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def api(settings: Settings, view: View, vital: Vital) -> Iterator[Api]:
    found = Api(settings, view, vital.said())
    found.start()
    yield found
    found.stop()


def get(api: Api, path: str, method: str = "GET") -> tuple[int, Any]:
    parts = urlsplit(api.address)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 0, timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.headers["t2g-site"] == A
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def test_ready_needs_the_assignment_the_plane_and_the_view(api: Api, view: View, vital: Vital) -> None:
    assert view.catch_up(10)
    status, said = get(api, "/api/health")
    assert (status, said["site"], said["ready"], said["partitions"], said["records"]) == (
        200,
        A,
        True,
        [1, 3],
        {"applied": 7},
    )
    vital.plane = False
    assert (get(api, "/api/health")[1]["ready"], get(api, "/api/health")[1]["plane"]) == (False, False)
    vital.plane, vital.awake = True, False
    assert get(api, "/api/health")[1]["ready"] is False
    vital.awake = True
    assert get(api, "/api/health")[1]["ready"] is True
    view.progress = replace(view.progress, fault="gone")
    assert get(api, "/api/health")[1]["ready"] is False


def test_a_question_that_makes_no_sense_is_400_nothing_404_a_fault_500(
    api: Api, view: View, vital: Vital, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (
        "/api/where",
        "/api/where?lfn=nothing",
        "/api/replicas",
        "/api/replicas?lfns=/store/x%0Anothing",
        "/api/files",
        "/api/files?dataset=x",
        f"/api/files?dataset={DATASET}&limit=0",
        f"/api/files?dataset={DATASET}&limit=%C2%B2",
        f"/api/files?dataset={DATASET}&cursor=nonsense",
        "/api/blocks",
        "/api/datasets?limit=-1",
        "/api/intents?state=gone",
        "/api/intents?cursor=zz",
        "/api/intents/x",
        f"/api/intents/{named(1)}?fresh=maybe",
        "/api/sites?site=%20",
        "/api/sites?cursor=x",
        "/api/health?" + "&".join(f"a{n}=1" for n in range(100)),
    ):
        status, said = get(api, path)
        assert (status, said["exit_code"], bool(said["error"])) == (400, 2, True), path
    for path in (f"/api/intents/{named(1)}", "/api/nothing", "/", "/api/intents/a/b"):
        assert get(api, path)[0] in (400, 404), path
    assert get(api, f"/api/intents/{named(1)}") == (
        404,
        {"error": f"no intent {named(1)} (as T1_A knows)", "exit_code": 3},
    )
    assert get(api, "/api/health", "POST")[0] == 405
    monkeypatch.setattr(vital, "plane", None)
    monkeypatch.setattr(view.catalogue, "where", lambda _lfn: 1 / 0)
    status, said = get(api, "/api/where?lfn=/store/x")
    assert (status, said["error"]) == (500, "a fault of the worker: ZeroDivisionError")


def test_datasets_blocks_and_files_come_in_pages(api: Api, view: View, journal: Journal) -> None:
    for number in range(25):
        journal.say(holds(A, held(f"/store/{number:02}", block=f"b{number:02}")))
    for number in range(23):
        other = f"/P{number:02}/R/RAW"
        file = replace(held("/store/y"), block=type(held("/s").block)(f"{other}#b"))
        journal.say(holds(A, file))
    journal.flush()
    assert view.catch_up(10)
    for path, what, count in (
        ("/api/datasets?x=1", "datasets", 24),
        (f"/api/blocks?dataset={DATASET}", "blocks", 25),
        (f"/api/files?dataset={DATASET}", "files", 25),
        ("/api/datasets?prefix=/P1", "datasets", 10),
    ):
        found: list[str] = []
        cursor: str | None = ""
        pages = 0
        while cursor is not None:
            status, said = get(api, f"{path}&limit=7&cursor={quote(cursor)}")
            assert status == 200, said
            assert len(said[what]) <= 7
            found += [one.get("name") or one["lfn"] for one in said[what]]
            cursor, pages = said["cursor"], pages + 1
        assert (len(found), found, pages) == (count, sorted(set(found)), -(-count // 7)), path
    assert get(api, "/api/where?lfn=/store/03")[1][0]["block"] == f"{DATASET}#b03"
    said = get(api, f"/api/replicas?lfns={quote(chr(10).join(['/store/03', '/store/none', '/store/y']))}")[1]
    assert [(one["lfn"], one["block"]) for one in said[:1]] == [("/store/03", f"{DATASET}#b03")]
    assert {one["lfn"] for one in said[1:]} == {"/store/y"}
    assert len({one["dataset"] for one in said[1:]}) == 23, "whatever the dataset"
    too_many = quote("\n".join(f"/s/{n}" for n in range(LIMIT_MAX + 1)))
    assert get(api, f"/api/replicas?lfns={too_many}")[0] == 400


def test_an_intent_whose_partition_is_another_workers_is_answered(api: Api, view: View, journal: Journal) -> None:
    tell(journal, *history(1))
    assert view._catch_up(view._intent_places, 10)
    status, said = get(api, f"/api/intents/{named(1)}")
    assert (status, said["state"], said["outcome"], said["ended"]) == (200, "active", "active", False)
    (b,) = said["destinations"]
    assert (b["files"], b["arrived"], b["failed"], len(b["open"])) == (5, 3, 1, 1)
    names = [(one["lfn"], one["reason"]["text"]) for one in said["unfinished"]]
    assert names == [("/store/0/1.root", "checksum differs")]
    wanted = folded(history(1), named(1))
    found = from_plain(said)
    assert replace(found, unfinished=()) == replace(wanted, unfinished=())
    assert from_plain(json.loads(json.dumps(to_plain(wanted)))) == wanted


def test_a_fresh_answer_waits_for_the_view_or_says_503(
    api: Api, view: View, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert view._catch_up(view._intent_places, 10)
    tell(journal, body(1))
    assert get(api, f"/api/intents/{named(1)}?fresh=asked")[0] == 200
    tell(journal, accepted(body(1)))
    assert get(api, f"/api/intents/{named(1)}?fresh=all")[1]["state"] == "active"
    monkeypatch.setattr("streams.worker.api.FRESH_S", 0.3)
    view._stopping.set()
    for thread in view._threads:
        thread.join(10)
    tell(journal, body(2))
    assert get(api, f"/api/intents/{named(2)}?fresh=asked") == (
        503,
        {"error": "the view has not caught up with the log; ask again", "exit_code": 5},
    )


def test_intents_are_listed_over_http(api: Api, view: View, journal: Journal) -> None:
    for number in range(12):
        journal.say(body(number, requester="ann smith" if number % 2 else "bob"), at_ms=1000 + number)
    journal.flush()
    assert view._catch_up(view._intent_places, 10)
    status, said = get(api, f"/api/intents?state=open&requester={quote('ann smith')}&limit=4")
    assert (status, len(said["intents"]), bool(said["cursor"])) == (200, 4, True)
    status, rest = get(api, f"/api/intents?state=open&requester=ann+smith&limit=4&cursor={said['cursor']}")
    found = [one["intent"] for one in (*said["intents"], *rest["intents"])]
    assert (found, rest["cursor"]) == ([named(n) for n in (11, 9, 7, 5, 3, 1)], None)


def test_too_many_at_once_are_told_to_come_again_and_slow_ones_let_go(
    api: Api, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread is begun beyond the pool, whoever connects and says nothing."""
    monkeypatch.setattr("streams.worker.api._Handler.timeout", 1.0)
    before = threading.active_count()
    parts = urlsplit(api.address)
    idle = [socket.create_connection((str(parts.hostname), parts.port or 0)) for _ in range(ANSWERS_MAX * 4)]
    try:
        until_s = time.monotonic() + 10
        while threading.active_count() < before + ANSWERS_MAX and time.monotonic() < until_s:
            time.sleep(0.01)
        assert threading.active_count() <= before + ANSWERS_MAX
        with pytest.raises(Temporary):
            ask(api.address, A, "/api/health")
        while time.monotonic() < until_s:
            try:
                assert ask(api.address, A, "/api/health")["site"] == A
                break
            except Temporary:
                time.sleep(0.1)
        else:
            pytest.fail("the idle ones were not let go")
    finally:
        for one in idle:
            one.close()


def test_the_address_announced_is_the_one_bound(settings: Settings, view: View, vital: Vital) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = Api(replace(settings, web_port=port), view, vital.said())
        with pytest.raises(NeverWorks, match=rf"cannot be bound to 127.0.0.1:{port}: .*T2G_WEB_PORT"):
            busy.start()
    first, second = (Api(settings, view, vital.said()) for _ in range(2))
    everywhere = Api(replace(settings, web_host="0.0.0.0"), view, vital.said())
    for one in (first, second, everywhere):
        one.start()
    try:
        assert first.address != second.address
        assert all(get(one, "/api/health")[0] == 200 for one in (first, second))
        assert urlsplit(everywhere.address).hostname == socket.gethostname().lower()
        assert ask(second.address, A, "/api/health")["site"] == A
    finally:
        for one in (first, second, everywhere):
            one.stop()


@pytest.fixture
def whole_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mock cluster knows no offsets by time."""

    def from_the_beginning(*args: Any, start: object = None, **options: Any) -> Iterator[Any]:
        return replay(*args, **options)

    monkeypatch.setattr("streams.client.worker_api.replay", from_the_beginning)


def announce(journal: Journal, api: str, site: Site = A) -> None:
    said = m.SiteAnnounced(site, "w0", "i1", "worker", api, "d", (B,), (), 10, False, ())
    journal.say(said, at_ms=time.time_ns() // 1_000_000)
    journal.flush()


def test_a_client_finds_the_api_by_the_log_and_checks_whose_it_is(
    api: Api, view: View, journal: Journal, settings: Settings, whole_log: None
) -> None:
    assert WorkerApi(settings, A).intent(named(1)) is None, "nobody is announced"
    announce(journal, api.address)
    tell(journal, *history(1), *(body(number) for number in range(2, 9)))
    assert view._catch_up(view._intent_places, 10)
    client = WorkerApi(settings, A)
    found = client.intent(named(1), {"fresh": "all"})
    assert found is not None
    assert found.outcome == "active"
    with pytest.raises(NotFound):
        client.intent(named(99))
    with pytest.raises(UsageError, match="no state"):
        client.intents(5, {"state": "gone"})
    listed = client.intents(6, {"state": "asked"})
    assert listed is not None
    assert len(listed) == 6
    with pytest.raises(Temporary, match="no worker of T1_B answers there, but T1_A"):
        ask(api.address, B, "/api/health")


def test_an_address_of_another_machine_is_passed_by(journal: Journal, settings: Settings, whole_log: None) -> None:
    announce(journal, "http://127.0.0.1:9")
    assert WorkerApi(settings, A).intents(5, {}) is None


def test_what_a_page_of_failures_says_is_what_the_log_says(
    api: Api, view: View, journal: Journal, settings: Settings
) -> None:
    wish = body(1)
    first = written(wish.intent, [1] * 30, last=False)
    second = written(wish.intent, [1] * 30, 1, digest(first))
    facts = [wish, accepted(wish), first, second, completed(first, failed=Ranges([(3, 9)]))]
    tell(journal, *facts, completed(second, failed=Ranges.of(0, 29)))
    assert view._catch_up(view._intent_places, 10)
    names = [one["lfn"] for one in get(api, f"/api/intents/{wish.intent}")[1]["unfinished"]]
    assert names == [f"/store/0/{n}.root" for n in range(3, 9)] + ["/store/1/0.root", "/store/1/29.root"]
