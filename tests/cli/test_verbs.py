"""The verbs over a home's cluster: what they print and exit with, given what stands in the log."""

from __future__ import annotations

import re
import zlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Timer
from urllib.parse import urlencode

import pytest

from streams import TransferClient
from streams.cli import holdings
from streams.core import records as m
from streams.core import topics
from streams.core.names import Adler32, Block, Dataset, Lfn, ManifestId, Text
from streams.core.ranges import Ranges
from streams.kafka.replay import replay
from streams.views.catalogue import Catalogue
from streams.wire import decode
from streams.worker.api import LIMIT_MAX
from tests.cli.conftest import Run, rows
from tests.producer.conftest import BLOCK, DATASET, A, B, Hand, completed, working, written

LFN = "/store/t/0/f0.root"
NOBODY = "T1_A.00000000-0000-0000-0000-000000000000"


def half_done(hand: Hand) -> m.TransferIntent:
    """An accepted intent of two manifests to B: one closed with a failed file, one under way."""
    with TransferClient(hand.settings, requester="me") as client:
        body = client.publish([BLOCK], to=["T2_B"]).body
    assert body is not None
    first = written(body.intent, [10, 20], last=False)
    done = completed(first, B, failed=Ranges.of(1))
    second = written(body.intent, [1000], no=1, prev=done.manifest_sha256)
    waits = Text("T2_B to answer request 4")
    hand.accept(body)
    for fact in (
        first,
        second,
        done,
        m.TransferReported(body.intent, second.manifest, B, 1, "active", 300, 1000, 0, 0, 1, waits),
    ):
        hand.say(B, fact)
    return body


def test_show_says_by_which_carriers_a_transfer_moves(run: Run, hand: Hand) -> None:
    body = half_done(hand)
    which, waits = ManifestId.of(body.intent, 0, 1), Text("T2_B to answer request 5")
    told = m.TransferReported(
        body.intent, which, B, 1, "active", 400, 1000, 0, 0, 1, waits, planes=("door", "tool-xrdcp")
    )
    hand.say(B, told)
    shown = run("intent", "show", body.intent).stdout
    assert "T2_B, manifest 1 by door and tool xrdcp: waits for T2_B to answer request 5" in shown


def test_intent_show_list_and_explain(run: Run, hand: Hand) -> None:
    body = half_done(hand)
    shown = run("intent", "show", body.intent)
    assert shown.exit_code == 0
    assert "active" in shown.stdout
    assert "T2_B: /store/t/0/f1.root: checksum differs" in shown.stdout
    assert "T2_B, manifest 1: waits for T2_B to answer request 4" in shown.stdout
    (as_json,) = rows(run("intent", "show", body.intent, "--json"))
    assert as_json["destinations"][0] | {"open": []} == {
        "site": "T2_B",
        "files": 3,
        "arrived": 1,
        "failed": 1,
        "cancelled": 0,
        "bytes": 1030,
        "arrived_bytes": 310,
        "reasons": {"checksum differs": 1},
        "open": [],
    }
    (listed,) = rows(run("intent", "list", "--json"))
    assert (listed["intent"], listed["state"]) == (body.intent, "active")
    words = run("intent", "explain", body.intent).stdout
    assert "Accepted by T1_A, source T2_B" in words
    assert "waits for T2_B to answer request 4" in words
    assert "1 failed: checksum differs" in words


def test_add_waits_and_exits_by_the_end(run: Run, hand: Hand) -> None:
    def refuse() -> None:
        (record,) = list(replay(hand.settings, A, ["transfer-intents"]))
        asked = decode(record.topic, record.key, record.value, record.headers, A).message
        assert isinstance(asked, m.TransferIntent)
        hand.refuse(asked, "no site holds it")

    timer = Timer(1.5, refuse)
    timer.start()
    result = run("intent", "add", LFN, "--to", "T2_B", "--wait", "--timeout", "20")
    timer.join()
    assert result.exit_code == 7
    assert "reason: no site holds it" in result.stdout


def test_add_at_timeout_is_5(run: Run, hand: Hand) -> None:
    result = run("intent", "add", LFN, "--to", "T2_B", "--wait", "--timeout", "0.3", "--json")
    assert result.exit_code == 5
    assert rows(result)[0]["exit_code"] == 5


def test_add_with_a_key_twice_then_differently(run: Run, hand: Hand) -> None:
    one, two = (run("intent", "add", LFN, "--to", "T2_B", "--key", "k") for _ in range(2))
    assert one.exit_code == two.exit_code == 0
    assert one.stdout == two.stdout
    other = run("intent", "add", LFN, "--to", "T3_C", "--key", "k")
    assert (other.exit_code, other.stdout) == (7, "")
    assert "differs in destinations" in other.stderr


def test_cancel(run: Run, hand: Hand) -> None:
    body = half_done(hand)
    assert run("intent", "cancel", body.intent).exit_code == 0
    last = rows(run("topic", "tail", "transfer-intents", "-n", "1", "--json"))[0]
    assert (last["kind"], last["value"]["asked"]) == ("IntentAsked", "cancel")
    unknown = run("intent", "cancel", NOBODY)
    assert (unknown.exit_code, "no intent" in unknown.stderr) == (3, True)


def test_an_open_intent_is_asked_for_shown_and_closed(run: Run, hand: Hand) -> None:
    added = run("intent", "add", str(BLOCK.dataset), "--to", "T2_B", "--source", "T2_B", "--until", "close")
    assert added.exit_code == 0, added.stderr
    name = added.stdout.strip()
    with TransferClient(hand.settings) as client:
        body = client.intent(name).snapshot().body
    assert body is not None
    assert (body.open, body.until_ms, body.until_items) == (True, None, None)
    hand.accept(body)
    first = written(body.intent, [10, 20], last=False)
    hand.say(B, first)
    hand.say(B, completed(first, B))
    assert "open: waits for more files" in run("intent", "show", name).stdout
    assert rows(run("intent", "show", name, "--json"))[0]["open"] is True
    words = run("intent", "explain", name).stdout
    assert "open: waits for more files (2 files so far), until somebody closes it." in words
    assert run("intent", "watch", name, "--timeout", "0.2").exit_code == 5
    closed = run("intent", "close", name)
    assert (closed.exit_code, "takes nothing more" in closed.stderr) == (0, True)
    last = rows(run("topic", "tail", "transfer-intents", "-n", "1", "--json"))[0]
    assert (last["kind"], last["value"]["asked"]) == ("IntentAsked", "close")
    assert "waits for more" not in run("intent", "show", name).stdout
    end = written(body.intent, [], no=1, prev=completed(first, B).manifest_sha256)
    hand.say(B, end)
    hand.say(B, completed(end, B))
    assert run("intent", "watch", name).exit_code == 0
    again = run("intent", "close", name)
    assert (again.exit_code, "has ended already: done" in again.stderr) == (0, True)


def test_only_an_open_intent_can_be_closed(run: Run, hand: Hand) -> None:
    body = half_done(hand)
    refused = run("intent", "close", body.intent)
    assert (refused.exit_code, refused.stdout) == (7, "")
    assert f"intent {body.intent} is not open" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert run("intent", "close", NOBODY).exit_code == 3


def test_register_list_where_verify(run: Run, hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.root").write_bytes(b"abc" * 1000)
    (tmp_path / "in" / "empty").write_bytes(b"")
    (tmp_path / "in" / ".hidden").write_bytes(b"x")
    done = run("file", "register", "in", "--block", BLOCK, "--prefix", "/store/x", "--json")
    assert done.exit_code == 8
    (told,) = rows(done)
    assert (told["files"], told["bytes"], told["refused"]) == (2, 3000, 1)
    listed = {row["lfn"]: row for row in rows(run("file", "list", BLOCK, "--json"))}
    assert listed["/store/x/a.root"]["adler32"] == f"{zlib.adler32(b'abc' * 1000):08x}"
    assert listed["/store/x/empty"]["sites"] == ["T1_A"]
    assert rows(run("file", "list", "--json")) == [{"dataset": DATASET, "files": 2, "bytes": 3000, "sites": ["T1_A"]}]
    assert rows(run("file", "where", "/store/x/a.root", "--json"))[0]["site"] == "T1_A"
    assert run("file", "where", "/store/nowhere").exit_code == 3
    assert run("file", "verify", BLOCK).exit_code == 0
    kept = tmp_path / "state" / A / "storage" / "store" / "x" / "a.root"
    kept.unlink()
    kept.write_bytes(b"abd" * 1000)
    broken = run("file", "verify", BLOCK)
    assert broken.exit_code == 8
    assert "/store/x/a.root: has adler32" in broken.stdout
    assert run("file", "verify", "/store/x/a.root").exit_code == 6
    assert run("file", "verify", BLOCK, "--execute").exit_code == 2
    hopeless = run("file", "verify", BLOCK, "--repair")
    assert (hopeless.exit_code, "no other site holds it" in hopeless.stdout) == (8, True)
    assert "nothing is repaired without --execute" in hopeless.stderr
    assert rows(run("file", "where", "/store/x/a.root", "--json"))[0]["site"] == "T1_A", "nothing was said"


def test_register_refuses_other_content_under_a_name_another_site_holds(run: Run, hand: Hand, tmp_path: Path) -> None:
    held = m.HeldFile(Lfn("/store/x/a.root"), BLOCK, 3, Adler32("00000001"), "")
    hand.say(B, m.FilesHeld(DATASET, B, (held,)))
    (tmp_path / "a.root").write_bytes(b"other")
    result = run("file", "register", "a.root", "--block", BLOCK, "--prefix", "/store/x")
    assert result.exit_code == 6
    assert "T2_B" in result.stderr


@pytest.mark.parametrize("answers", [False, True], ids=["log", "worker"])
def test_register_refuses_a_name_of_another_dataset(
    run: Run, hand: Hand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """A name is in one dataset and block of a site, and one content everywhere."""
    there = {name: m.HeldFile(Lfn(f"/store/x/{name}"), OTHER, 3, Adler32("00000001"), "") for name in ("a", "b")}
    hand.say(A, m.FilesHeld(OTHER.dataset, A, (there["a"],)))
    hand.say(B, m.FilesHeld(OTHER.dataset, B, (there["b"],)))
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"other")
    with working(hand, tmp_path, monkeypatch) if answers else nullcontext() as view:
        if view is not None:
            assert view.catch_up(20)
            monkeypatch.setattr(holdings, "catalogue", only_of_a_dataset)
        result = run("file", "register", "a", "b", "c", "--block", BLOCK, "--prefix", "/store/x", "--json")
    assert result.exit_code == 8
    (told,) = rows(result)
    assert told["files"] == 1
    first, second = (fault["why"] for fault in told["faults"])
    assert f"/store/x/a is registered here in {OTHER}" in first
    assert "T2_B holds other content as /store/x/b" in second
    stored = tmp_path / "state" / A / "storage" / "store" / "x"
    assert [path.name for path in stored.iterdir()] == ["c"], "nothing of what is refused lies there"


OTHER = Block("/Other/Run/RAW#one")


fold = holdings.catalogue


def only_of_a_dataset(*where: object, dataset: Dataset | None = None) -> AbstractContextManager[Catalogue]:
    """A worker answers for all others."""
    assert dataset is not None, "the whole log is folded"
    return fold(*where, dataset=dataset)  # type: ignore[arg-type]


def test_many_long_names_are_asked_for_in_questions_that_a_server_takes() -> None:
    names = [Lfn(f"/store/{'a+' * 400}/{n}") for n in range(300)] + [Lfn(f"/s/{n}") for n in range(2500)]
    parts = list(holdings._askable(names))
    assert [name for part in parts for name in part] == names
    assert max(map(len, parts)) <= LIMIT_MAX
    assert max(len(urlencode({"lfns": "\n".join(part)})) for part in parts) < 65_000


def test_register_renames_what_no_lfn_can_be(run: Run, hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "in" / "ä b").mkdir(parents=True)
    (tmp_path / "in" / "ä b" / ".x:1").write_bytes(b"abc")
    words = ["file", "register", "in", "--block", BLOCK, "--prefix", "/store/x", "--json"]
    refused = run(*words)
    assert (refused.exit_code, rows(refused)[0]["refused"]) == (6, 1)
    assert run(*words, "--rename", "s/ä/").exit_code == 2
    renamed = run(*words, "--rename", "s/ä/ae/", "--rename", "s/[ :]/_/", "--rename", r"s#(^|/)\.#\1dot-#")
    assert (renamed.exit_code, rows(renamed)[0]["files"]) == (0, 1)
    assert [row["lfn"] for row in rows(run("file", "list", BLOCK, "--json"))] == ["/store/x/ae_b/dot-x_1"]


def test_tail_decodes_every_kind_and_says_what_is_refused(run: Run, hand: Hand) -> None:
    body = half_done(hand)
    payload = m.ChunkHeader(written(body.intent, [5]).manifest, A, 1, 0, 5, (m.Segment(0, 0, 5, 5, 7),), True)
    hand.chunk(B, payload, b"hello")
    hand._mirror.produce("T2_B.manifests", b"junk", b"k", partition=0)
    hand._mirror.flush(10)
    names = ["transfer-intents", "intent-decisions", "T2_B.manifests", "T2_B.completion-records", "T2_B.chunks-to-T1_A"]
    lines = [line for name in names for line in run("topic", "tail", name).stdout.splitlines()]
    kinds = {kind for line in lines for kind in line.split() if kind[0].isupper() or kind == "payload"}
    assert {"TransferIntent", "IntentDecided", "ManifestWritten", "CompletionRecord", "payload", "REFUSED"} <= kinds
    assert any("not a frame" in line for line in lines)
    assert any("me asks" in line and "T1_A/" in line for line in lines)
    assert run("topic", "tail", "T2_B.chunks-to-T1_A", "--bytes").stdout_bytes == b"hello"
    assert len(run("topic", "tail", "T2_B.manifests", "-n", "1").stdout.splitlines()) == 1
    assert len(run("topic", "tail", "T2_B.manifests", "-n", "all").stdout.splitlines()) == 3


def test_dead_letters_are_listed_shown_and_said_again(run: Run, hand: Hand) -> None:
    body = half_done(hand)
    (record,) = [r for r in rows(run("topic", "tail", "transfer-intents", "--json")) if r["kind"] == "TransferIntent"]
    place = (record["partition"], record["offset"])
    letter = m.DeadLetter(Text("an agent threw"), topics.INTENTS, *place, body.intent.encode(), b"\x00\x01", "T1_A")
    hand.say(A, letter)
    bad = m.DeadLetter(Text("not a frame"), "T2_B.replicas", 0, 0, b"k", b"", "")
    hand._mirror.produce("T2_B.replicas", b"junk", b"k", partition=0)
    hand._mirror.flush(10)
    hand.say(A, bad)
    letters = {row["value"]["reason"]: row["letter"] for row in rows(run("dlq", "list", "--json"))}
    shown = run("dlq", "show", letters["an agent threw"])
    assert "an agent threw" in shown.stdout
    assert run("dlq", "show", letters["an agent threw"], "--bytes").stdout_bytes == b"\x00\x01"
    before = len(run("topic", "tail", "transfer-intents", "-n", "all").stdout.splitlines())
    dry = run("dlq", "requeue", letters["an agent threw"])
    assert (dry.exit_code, "add --execute" in dry.stdout) == (0, True)
    assert len(run("topic", "tail", "transfer-intents", "-n", "all").stdout.splitlines()) == before
    assert run("dlq", "requeue", letters["an agent threw"], "--execute").exit_code == 0
    assert len(run("topic", "tail", "transfer-intents", "-n", "all").stdout.splitlines()) == before + 1
    never = run("dlq", "requeue", letters["not a frame"], "--execute")
    assert never.exit_code == 7
    assert run("dlq", "show", "0:999999").exit_code == 3


@pytest.mark.parametrize(
    "args", [("intent", "show", NOBODY), ("intent", "watch", NOBODY), ("intent", "explain", NOBODY)]
)
def test_an_unknown_intent_is_3(run: Run, hand: Hand, args: tuple[str, ...]) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (3, "")


def test_sites_are_listed_with_what_answers(run: Run, hand: Hand) -> None:
    listed = {row["site"]: row for row in rows(run("site", "list", "--json"))}
    assert listed["T1_A"]["cluster"] == "answers"


def test_a_mirrors_configuration_for_the_sites_at_hand(run: Run, hand: Hand) -> None:
    first, *said = run("config", "mirror").stdout.splitlines()
    assert re.fullmatch(r'# Start it with KAFKA_HEAP_OPTS="-Xmx\d+m" at least, which \d+ flows need\.', first)
    lines = dict(line.split(" = ", 1) for line in said)
    assert lines["T1_A->T2_B.topics"].split(",") == [t for t in topics.mirrored(B) if t != topics.chunks_to(B)]
    assert lines["T1_A->T2_B-payload-of-T1_A.topics"] == topics.chunks_to(B)
    assert lines["T2_B.bootstrap.servers"] == hand.settings.entry(A).bootstrap
    assert lines["offset.storage.replication.factor"] == "3"
    only = run("config", "mirror", "--to", "T2_B", "--replication", "1").stdout
    on = {line.split(".enabled")[0] for line in only.splitlines() if "->" in line and line.endswith(".enabled = true")}
    assert {flow.split("->")[1].split("-payload")[0] for flow in on} == {"T2_B"}
    refused = run("config", "mirror", "--to", "T9_X")
    assert refused.exit_code == 3
    assert "T9_X" in refused.stderr
