"""Sites that run another release are named; which release a writer runs is in a header of its announcements."""

from __future__ import annotations

import pytest

from streams.cli import upgrading
from streams.cli.lagging import Uncarried
from streams.core import records as m
from streams.core import topics
from streams.core.names import IntentId, Text
from streams.kafka.publish import Publisher
from streams.kafka.replay import replay
from streams.wire.release import HEADER, RELEASE, UNTOLD, header, release_of
from tests.cli.conftest import Run
from tests.cli.test_verbs import half_done
from tests.producer.conftest import A, B, Hand


@pytest.mark.parametrize(
    ("headers", "release"),
    [
        (None, UNTOLD),
        ([], UNTOLD),
        ([("avro-fp", b"x")], UNTOLD),
        ([header()], RELEASE),
        ([("x", b"1"), (HEADER, b"17")], 17),
        ([(HEADER, None)], UNTOLD),
        ([(HEADER, b"")], UNTOLD),
        ([(HEADER, b"-1")], UNTOLD),
        ([(HEADER, b"two")], UNTOLD),
        ([(HEADER, b"9" * 5000)], UNTOLD),
    ],
)
def test_a_header_that_is_no_number_says_no_release(headers: list[tuple[str, bytes | None]], release: int) -> None:
    assert release_of(headers) == release


def test_every_announcement_and_nothing_else_carries_the_release(hand: Hand) -> None:
    with Publisher(hand.settings, A, "worker-9", "worker") as publisher:
        publisher.announce()
        publisher.send(m.IntentAsked(IntentId(f"{A}.00000000-0000-0000-0000-000000000000"), m.Asked.CANCEL, Text("me")))
    said = list(replay(hand.settings, A, [topics.ANNOUNCEMENTS]))
    assert said
    assert all((HEADER, b"%d" % RELEASE) in (record.headers or ()) for record in said)
    for record in replay(hand.settings, A, [topics.INTENTS]):
        assert HEADER not in dict(record.headers or ())


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (frozenset(), ""),
        ({RELEASE}, ""),
        ({1}, f"T2_B runs release 1, this is release {RELEASE}; upgrade its workers"),
        ({1, RELEASE}, f"T2_B runs release 1 and {RELEASE}, this is release {RELEASE}; upgrade its workers"),
        ({99}, f"T2_B runs release 99, this is release {RELEASE}; upgrade this installation"),
    ],
)
def test_what_differs_is_said_in_a_line(found: frozenset[int], words: str) -> None:
    assert upgrading.of_release(B, frozenset(found)) == words


def test_a_mirror_that_lacks_topics_is_named_with_the_first_of_them() -> None:
    line = upgrading.of_mirror(Uncarried(A, B, ("a", "b", "c", "d", "e")))
    assert line.startswith("the mirror from T1_A to T2_B has brought nothing of a, b, c and 2 more; ")
    assert "config mirror" in line


def test_explain_names_the_sites_of_an_open_intent_that_run_another_release(
    run: Run, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = half_done(hand)
    monkeypatch.setattr(upgrading, "releases", lambda _settings, _at, site: frozenset({1} if site == B else ()))
    monkeypatch.setattr(upgrading, "uncarried", lambda *_: [])
    assert f"T2_B runs release 1, this is release {RELEASE}" in run("intent", "explain", body.intent).stdout
