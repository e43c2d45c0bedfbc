"""What a verb waits for is said within seconds, with since when; and nothing of it goes to standard output."""

from __future__ import annotations

import re
import socket
import time

import pytest

from streams import waits
from streams.cli import screen, telling
from streams.cli.telling import Teller
from streams.errors import Temporary
from streams.storage import s3_client
from tests.cli.conftest import Run, rows
from tests.cli.test_verbs import half_done
from tests.producer.conftest import BLOCK, A, Hand


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that takes seconds takes a tenth."""
    monkeypatch.setattr(telling, "TOLD_S", 0.2)
    monkeypatch.setattr(telling, "ANEW_S", 0.2)
    monkeypatch.setattr(telling, "_LOOK_S", 0.05)


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_the_innermost_wait_that_lasts_is_told_once_and_anew_when_it_changes(
    quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    teller = Teller()
    with waits.on("the outer") as outer:
        outer.since_s -= 5
        screen.say("before")
        time.sleep(0.25)
        teller.look()
        teller.look()
        with waits.on("the inner") as inner:
            teller.look()
            time.sleep(0.25)
            inner.since_s -= 5
            teller.look()
            inner.what = "the inner (7 so far)"
            time.sleep(0.25)
            teller.look()
    teller.look()
    since = r", since (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d"
    expected = ("the outer", "the inner", r"the inner \(7 so far\)")
    found = told(capsys)[1:]
    assert len(found) == len(expected)
    for line, what in zip(found, expected, strict=True):
        assert re.fullmatch(f"waits for {what}{since}", line), line


def test_nothing_is_told_while_the_verb_itself_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller()
    with waits.on("something") as wait:
        wait.since_s -= 60
        screen.say("a line of the verb")
        teller.look()
    assert told(capsys) == ["a line of the verb"]


def test_on_a_terminal_the_line_makes_room_for_what_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(telling, "_LOOK_S", 0.02)
    with telling.telling(), waits.on("something") as wait:
        wait.since_s -= 60
        monkeypatch.setattr(screen, "_spoken_s", [-1e9])
        time.sleep(0.3)
        screen.say("a line of the verb")
    drawn, _, rest = capsys.readouterr().err.replace("\x1b[K", "").rpartition("\r")
    assert "\rwaits for something, since " in drawn
    assert rest == "a line of the verb\n"


def test_a_wait_that_fails_is_over() -> None:
    def fail() -> None:
        with waits.on("the impossible") as wait:
            wait.since_s -= 60
            raise Temporary("no")

    with pytest.raises(Temporary):
        fail()
    assert waits.longest(1) is None


def test_a_store_that_hangs_is_named_within_seconds_and_ends(
    quick: None, run: Run, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "ATTEMPT_S", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = f'[stores.quiet]\nurl = "http://127.0.0.1:{silent.getsockname()[1]}"\nbucket = "bucket"\n'
        store += 'access_key_id = "a"\nsecret_access_key = "b"\n'
        own = hand.settings.state / A / "site.toml"
        own.write_text(own.read_text() + store)
        result = run("file", "register", "--block", str(BLOCK), "s3://quiet/*", "--json")
    assert result.exit_code == 5
    assert "waits for the store quiet to answer, since " in result.stderr
    assert "the store quiet cannot be reached: no answer within" in result.stderr
    assert [row["files"] for row in rows(result)] == [0]


def test_a_watch_says_what_is_waited_for_and_its_json_stays_pure(quick: None, run: Run, hand: Hand) -> None:
    body = half_done(hand)
    result = run("intent", "watch", str(body.intent), "--json", "--timeout", "3")
    assert result.exit_code == 5
    assert rows(result)
    assert re.search(r"waits for T2_B to answer request 4 \(at T2_B\), since ", result.stderr), result.stderr
