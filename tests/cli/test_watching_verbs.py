"""`intent watch` of what ended before: its own duration and rate, one word for how it ended."""

from __future__ import annotations

import re
import time

import pytest

from streams import TransferClient
from streams.core import records as m
from streams.core.ranges import EMPTY, Ranges
from tests.cli.conftest import Run, rows
from tests.producer.conftest import BLOCK, A, B, Hand, completed, written


def ended(hand: Hand, failed: Ranges = EMPTY) -> m.TransferIntent:
    """Two files of 20 MB, asked for and ended 1.5 s later."""
    with TransferClient(hand.settings, requester="me") as client:
        body = client.publish([BLOCK], to=["T2_B"]).body
    assert body is not None
    listed = written(body.intent, [10_000_000, 10_000_000])
    hand.say(B, listed)
    hand.say(B, completed(listed, B, failed=failed))
    time.sleep(1.5)
    hand.accept(body)
    return body


def test_an_intent_that_ended_before_is_told_with_its_own_duration(run: Run, hand: Hand) -> None:
    body = ended(hand)
    time.sleep(1)
    result = run("intent", "watch", body.intent)
    assert result.exit_code == 0
    told = re.search(r"2/2 files  20.00 MB in ([\d.]+) s at ([\d.]+) MB/s  done", result.stderr)
    assert told is not None, result.stderr
    took_s, rate = float(told[1]), float(told[2])
    assert took_s >= 1.5
    assert rate == pytest.approx(20 / took_s, rel=0.1)


def test_of_one_whose_files_all_failed_every_verb_says_failed_and_no_rate(run: Run, hand: Hand) -> None:
    body = ended(hand, failed=Ranges([(0, 2)]))
    watched = run("intent", "watch", body.intent)
    assert watched.exit_code == 6
    line = [line for line in watched.stderr.splitlines() if "files" in line][-1]
    assert line.endswith("failed")
    assert "/s" not in line
    for verb in (("show", body.intent), ("watch", body.intent), ("list",)):
        *_, told = rows(run("intent", *verb, "--json"))
        assert (told["state"], told["outcome"]) == ("failed", "failed")
    cancelled = run("intent", "cancel", body.intent)
    assert "has ended already: failed" in cancelled.stderr
    with TransferClient(hand.settings) as client:
        assert client.intent(body.intent).wait(20).state == "failed"


def test_watch_as_json_says_each_state_once(run: Run, hand: Hand) -> None:
    with TransferClient(hand.settings, requester="me") as client:
        body = client.publish([BLOCK], to=["T2_B"]).body
    assert body is not None
    told = rows(run("intent", "watch", body.intent, "--json", "--timeout", "2"))
    assert [row["state"] for row in told] == ["asked"]
    assert A in body.intent
