"""The verbs that ask say the same, word for word, whether a worker's API answers or the log is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams import TransferClient
from streams.core import records as m
from streams.core.names import Adler32, Lfn, Text
from streams.core.ranges import Ranges
from streams.views.view import View
from streams.worker.api import Api, Vitals
from tests.cli.conftest import Run, rows
from tests.cli.test_verbs import NOBODY, half_done
from tests.producer.conftest import BLOCK, DATASET, A, B, Hand, completed, written

ASKED = (
    ("intent", "list"),
    ("intent", "list", "--json"),
    ("intent", "list", "--open", "--json"),
    ("intent", "list", "--state", "partly", "--json"),
    ("intent", "list", "--requester", "me", "--json"),
    ("intent", "list", "--dataset", str(DATASET), "-n", "2", "--json"),
    ("intent", "list", "--state", "cancelled"),
    ("file", "list"),
    ("file", "list", "--json"),
    ("file", "list", str(BLOCK), "--json"),
    ("file", "list", "/No/Such/RAW"),
    ("file", "where", "/store/0", "--json"),
    ("file", "where", "/store/nowhere"),
    ("intent", "show", NOBODY),
    ("intent", "explain", NOBODY),
)


class Worker:
    """A view and an API of the client's site; found only while `announced`."""

    def __init__(self, hand: Hand, directory: Path) -> None:
        self.view = View(hand.settings, directory, print)
        self.view.start()
        self.api = Api(
            hand.settings, self.view, Vitals(set, lambda: True, lambda: True, lambda: 0, dict, lambda: 0, lambda: 0.0)
        )
        self.api.start()
        self.announced = False

    def stop(self) -> None:
        self.api.stop()
        self.view.stop()


@pytest.fixture
def worker(hand: Hand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    found = Worker(hand, tmp_path / "worker")
    monkeypatch.setattr("streams.client.worker_api.apis", lambda *_: [found.api.address] if found.announced else [])
    yield found
    found.stop()


def world(hand: Hand) -> list[str]:
    """Intents of every kind, and files at two sites; the ids of the intents."""
    found = [str(half_done(hand).intent)]
    with TransferClient(hand.settings, requester="me") as client:
        partly, failed, refused = (client.publish([BLOCK], to=["T2_B"]).body for _ in range(3))
        undecided = client.publish(["/store/lonely"], to=["T2_B", "T3_C"], requester="you").id
    assert partly is not None
    assert failed is not None
    assert refused is not None
    hand.refuse(refused, "no site holds it")
    for body, bad in ((partly, Ranges.of(1)), (failed, Ranges.of(0, 1))):
        hand.accept(body)
        of = written(body.intent, [10, 20])
        hand.say(B, of)
        hand.say(B, completed(of, B, failed=bad))
    for site, numbers in ((A, range(4)), (B, range(2, 6))):
        files = tuple(m.HeldFile(Lfn(f"/store/{n}"), BLOCK, n, Adler32("00000001"), "v") for n in numbers)
        hand.say(site, m.FilesHeld(DATASET, site, files))
    why = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "read", Text("gone"))
    hand.say(B, m.FilesLost(DATASET, B, (Lfn("/store/5"),), why))
    return [*found, str(partly.intent), str(failed.intent), str(refused.intent), str(undecided)]


def test_it_is_the_same_either_way(run: Run, hand: Hand, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    names = world(hand)
    asked = [*ASKED, *(("intent", verb, name) for verb in ("show", "explain") for name in names)]
    asked += [("intent", "show", name, "--json") for name in names]
    monkeypatch.setattr("streams.cli.intent.time.time_ns", lambda: 4_000_000_000_000_000_000)
    from_log = {args: run(*args) for args in asked}
    assert worker.view.catch_up(20)
    assert worker.view._catch_up(worker.view._intent_places, 20)
    worker.announced = True
    monkeypatch.setattr("streams.cli.intent.history", None)
    monkeypatch.setattr("streams.cli.listing.replay", None)
    monkeypatch.setattr("streams.cli.holdings.replay", None)
    for args, before in from_log.items():
        now = run(*args)
        assert (now.exit_code, now.stdout) == (before.exit_code, before.stdout), args
    (listed,) = rows(from_log["intent", "list", "--state", "partly", "--json"])
    assert (listed["intent"], listed["destinations"][0]["reasons"]) == (names[1], {"checksum differs": 1})
    assert len(rows(from_log["intent", "list", "--json"])) == 5
    assert [row["intent"] for row in rows(from_log["intent", "list", "--open", "--json"])] == [names[0], names[4]]
    assert from_log["intent", "list", "--state", "cancelled"].stderr.strip() == "no intents"
    shown = from_log["intent", "show", names[2]]
    assert (shown.exit_code, "T2_B: /store/t/0/f0.root: checksum differs" in shown.stdout) == (6, True)
    assert len(rows(from_log["file", "list", str(BLOCK), "--json"])) == 5, "what everybody lost is not listed"


def test_open_and_a_state_are_not_asked_together(run: Run, hand: Hand) -> None:
    refused = run("intent", "list", "--open", "--state", "done")
    assert (refused.exit_code, "--state open" in refused.stderr) == (2, True)
    assert run("intent", "list", "--state", "gone").exit_code == 2
