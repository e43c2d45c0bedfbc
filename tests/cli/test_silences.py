"""Why nothing comes: names that nobody holds, silent sites, a local broker whose disk is full."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from streams import TransferClient
from streams.cli import doctor, silences
from streams.cli.words import explain, holdup
from streams.client.follower import history
from streams.client.intent_snapshot import IntentFold, Snapshot
from streams.core import records as m
from streams.core.names import Adler32, IntentId, Lfn
from streams.errors import Temporary
from streams.federation import broker
from streams.kafka.publish import Publisher
from tests.cli.conftest import Run
from tests.cli.test_verbs import half_done
from tests.producer.conftest import BLOCK, DATASET, A, B, Hand


def snapshot(hand: Hand, intent: IntentId) -> Snapshot:
    fold = IntentFold(intent)
    for fact in history(hand.settings, A, intent):
        fold.hear(*fact)
    return fold.snapshot()


def asked(hand: Hand, *names: str) -> IntentId:
    with TransferClient(hand.settings, requester="me") as client:
        return client.publish(names, to=["T2_B"]).id


def test_names_that_nobody_holds_are_said_and_until_when_one_waits(hand: Hand, run: Run) -> None:
    held = (m.HeldFile(Lfn("/store/there"), BLOCK, 1, Adler32("00000001"), "v"),)
    hand.say(A, m.FilesHeld(DATASET, A, held))
    names = [str(DATASET), str(BLOCK), "/store/there", "/No/Such/RAW", "/No/Such/RAW#b", "/store/nowhere"]
    intent = asked(hand, *names)
    found = silences.unheld(hand.settings, snapshot(hand, intent))
    assert "holds /No/Such/RAW, /No/Such/RAW#b, /store/nowhere; T1_A waits for it until " in found
    assert found in run("intent", "explain", str(intent)).stdout.replace("No site's", "no site's")
    assert silences.unheld(hand.settings, snapshot(hand, asked(hand, str(DATASET)))) == ""
    assert silences.unheld(hand.settings, snapshot(hand, half_done(hand).intent)) == "", "it is decided"


def test_who_waits_for_a_decision_hears_it_once(hand: Hand, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.cli.intent.unheld", lambda *_, **__: "nobody holds /No/Such/RAW")
    result = run("intent", "add", "/No/Such/RAW", "--to", "T2_B", "--wait", "--timeout", "4")
    assert result.exit_code == 5
    assert result.stderr.count("nobody holds /No/Such/RAW") == 1


def test_a_site_that_is_silent_is_named_with_its_last_word(hand: Hand) -> None:
    """T1_A's own word: of the mock, which is all sites' cluster, each site's announcements are its own topic."""
    now_ms = time.time_ns() // 1_000_000
    (never,) = silences.of_sites(hand.settings, [A], now_ms)
    assert never.startswith("T1_A has never been heard of at T1_A: ")
    with Publisher(hand.settings, A, "worker-0", "worker") as publisher:
        publisher.announce()
        assert publisher.flush(10) == 0
        assert silences.of_sites(hand.settings, [A], now_ms) == []
        (silent,) = silences.of_sites(hand.settings, [A], now_ms + 480_000)
        assert "T1_A has not been heard of since " in silent
        assert "(8 m 0" in silent
        assert "its workers are down, or the mirror from there; its broker answers" in silent
    (ended,) = silences.of_sites(hand.settings, [A], now_ms + 480_000)
    assert "T1_A has ended its workers, as it said since " in ended


def local_site(hand: Hand, monkeypatch: pytest.MonkeyPatch, free: int) -> Path:
    """T2_B as a site of a local federation: its broker is down, and so much of its disk is free."""
    state = hand.settings.state
    (state / B / "kafka" / "log").mkdir(parents=True)
    (state / "logs").mkdir()
    said = [
        "INFO all is well",
        "ERROR Error while writing to checkpoint file (LogDirFailureChannel)",
        "java.io.IOException",
    ]
    (state / "logs" / f"{B}-broker.log").write_text("\n".join(["ERROR an older one", *said, "INFO shutting down"]))
    usage = shutil.disk_usage(state)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=free))
    for place in ("streams.cli.silences.is_local", "streams.cli.doctor.is_local"):
        monkeypatch.setattr(place, lambda settings: True)
    return state / B / "kafka" / "log"


def down(*_: object) -> dict[str, int]:
    raise Temporary("asking for the topics failed: no broker")


def test_a_full_disk_of_a_dead_broker_is_named(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    at = local_site(hand, monkeypatch, 12_000)
    monkeypatch.setattr("streams.kafka.admin.partition_counts", down)
    (line,) = silences.of_sites(hand.settings, [B], time.time_ns() // 1_000_000)
    full = f"the disk of its log is full (12.00 kB free at {at}): make room, it is started again"
    error = "the last error in its log: ERROR Error while writing to checkpoint file (LogDirFailureChannel)"
    assert f"does not answer, {full}, {error}" in line
    (check,) = doctor._of_site(hand.settings, B)
    assert check.state == "FAIL"
    assert check.exit_code == Temporary.exit_code
    assert full in check.words
    assert error in check.words


def test_a_disk_that_is_nearly_full_is_told_before_its_broker_ends(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    at = local_site(hand, monkeypatch, broker.SEGMENT_BYTES - 1)
    check = doctor._log_disk(hand.settings, B)
    assert check is not None
    assert (check.state, str(at) in check.words) == ("FAIL", True)
    monkeypatch.undo()
    assert doctor._log_disk(hand.settings, B) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00 ERROR \xe4 broke\n", b"INFO\n" * 100_000])
def test_a_brokers_log_is_read_whatever_is_in_it(tmp_path: Path, content: bytes) -> None:
    log = tmp_path / "log"
    assert broker.last_fault(log) == ""
    log.write_bytes(content)
    found = broker.last_fault(log)
    assert found.isprintable()
    assert ("broke" in found) == (b"broke" in content)


def test_what_holds_an_intent_up_is_said_with_the_last_news(hand: Hand) -> None:
    seen = snapshot(hand, half_done(hand).intent)
    assert holdup(seen) == "T2_B to answer request 4 (at T2_B)"
    assert seen.last_ms is not None
    assert "The last news of it: " in "\n".join(explain(seen, seen.last_ms + 42_000))
    assert "42 s ago" in "\n".join(explain(seen, seen.last_ms + 42_000))
    assert "last news" not in "\n".join(explain(seen, seen.last_ms + 1_000))
