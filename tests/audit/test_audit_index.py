"""The audit's index: stopped after any record and gone on with it says the same, and what cannot be used says so."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from rocksdict import Rdict

from streams.auditing import index as indexing
from streams.auditing import replaying
from streams.auditing.coverage import Journals
from streams.auditing.index import AuditIndex, kept_index, open_index
from streams.auditing.replaying import EXIT_BROKEN, EXIT_INCOMPLETE, AuditReport, audit
from streams.cli.audit import audit as command
from streams.core import records as m
from streams.core import topics
from streams.core.ledger import Ledger, tags
from streams.core.ledger.findings import FindingList, Judgement, LogPosition
from streams.core.ledger.intents import IntentJudge
from streams.core.ledger.seals import Seals
from streams.core.names import IntentId, Site
from streams.errors import NeverWorks, Temporary
from streams.keys.ed25519 import is_signed
from streams.settings import Settings
from tests.audit.conftest import Stage
from tests.audit.history import LATER_MS, PARTITIONS, A, B, C, Federation, healthy, hear, item, locate
from tests.core.test_ledger_order import BREAKS, _interleaved
from tests.storage.disks import tmpfs

Build = Callable[..., Stage]
OF = {"sites": "T1_A, T2_B"}


def ledger_over(world: Federation, index: AuditIndex) -> Ledger:
    seals = Seals(None, is_signed)
    return Ledger(world.sites, partitions=PARTITIONS, auditors=world.auditors, seals=seals, rows=index, salt=index.salt)


def judged(ledger: Ledger, world: Federation, now_ms: int = LATER_MS) -> Judgement:
    for key in ledger.wanted():
        for offset, rec in world.logs[key]:
            locate(ledger, LogPosition(*key, offset), rec)
    findings = FindingList(now_ms)
    ledger.lose_renewed(findings)
    return ledger.judge(now_ms, findings=findings)


@pytest.mark.parametrize("hurt", BREAKS)
@examples(max_examples=8, deadline=None, derandomize=True)
@given(
    order=st.lists(st.integers(0, 1000), max_size=200),
    stops=st.lists(st.tuples(st.integers(0, 1000), st.booleans(), st.booleans()), min_size=1, max_size=4),
)
def test_stopped_after_any_record_and_gone_on_it_judges_alike(
    hurt: Callable[[Federation], None], order: list[int], stops: list[tuple[int, bool, bool]]
) -> None:
    """In any order of partitions; judged at the stop or not; killed behind it, or not."""
    world = healthy(A, B, C)
    hurt(world)
    straight = world.judge()
    facts = list(_interleaved(world, order))
    with tempfile.TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tags, "PAGES_MAX", 1)  # nearly all goes to the disk and comes back
        path = Path(made) / "audit"
        for number, is_judged, is_killed in stops:
            with open_index(path, OF) as index:
                ledger = ledger_over(world, index)
                index.go_on(ledger)
                stop = number % (len(facts) + 1)
                for place, rec in facts[:stop]:
                    hear(ledger, place, rec)
                if is_judged:
                    judged(ledger, world)
                index.save(ledger, is_last=not is_killed)
                for place, rec in facts[stop : stop + 40] if is_killed else ():
                    hear(ledger, place, rec)
        with open_index(path, OF) as index:
            ledger = ledger_over(world, index)
            assert index.go_on(ledger)
            for place, rec in facts:
                hear(ledger, place, rec)
            assert judged(ledger, world) == straight
            index.save(ledger)
        with open_index(path, OF) as index:
            ledger = ledger_over(world, index)
            index.go_on(ledger)
            assert judged(ledger, world) == straight, "nothing is new, and nothing is forgotten"


_HALF = """
import sys
from pathlib import Path
from streams.auditing.entering import Entrance
from streams.auditing.index import open_index
from streams.kafka.reader import Record
from tests.audit.history import A, B, C, healthy
from tests.audit.test_audit_index import OF, judged, ledger_over

world, half = healthy(A, B, C), int(sys.argv[2])
facts = [(place, Record(*place[1:], rec.at_ms, rec.key, rec.value, list(rec.headers))) for place, rec in world.facts()]
with open_index(Path(sys.argv[1]), OF) as index:
    ledger = ledger_over(world, index)
    assert index.go_on(ledger) is bool(half)
    enter = Entrance(ledger).enter
    for place, record in facts[: len(facts) // 2] if half == 0 else facts:
        enter(place, record)
    if half:
        print(judged(ledger, world))
    index.save(ledger)
"""


def test_another_process_goes_on(tmp_path: Path) -> None:
    """In which Python hashes names otherwise: nothing that is kept leans on that."""
    for half in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", _HALF, str(tmp_path / "audit"), half],
            env={**os.environ, "PYTHONHASHSEED": f"1{half}", "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(healthy(A, B, C).judge())


def test_what_a_killed_audit_put_behind_its_cut_is_dropped(tmp_path: Path) -> None:
    world = healthy()
    facts = list(world.facts())
    half = len(facts) // 2
    with open_index(tmp_path / "audit", OF) as index:
        ledger = ledger_over(world, index)
        index.go_on(ledger)
        for place, rec in facts[:half]:
            hear(ledger, place, rec)
        index.save(ledger, is_last=False)
        for place, rec in facts[half:]:
            hear(ledger, place, rec)
        whole = sum(1 for _ in index.scan(b"i"))  # written, and no cut of them
    with open_index(tmp_path / "audit", OF) as index:
        ledger = ledger_over(world, index)
        assert index.go_on(ledger)
        kept = {row[0] for row in index.scan(b"i")}
    alone = world.ledger(facts[:half])
    assert 0 < len(kept) == sum(1 for _ in alone._rows.scan(b"i")) < whole


def test_only_what_was_touched_or_is_open_is_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Federation()
    for number in (1, 2, 3):
        body = world.ask(number, B)
        world.decide(body)
        manifests = world.write(body, (item(f"{number}-0", 100),), (item(f"{number}-1", 50),))
        for manifest in manifests[: 1 if number == 3 else 2]:  # the third stays open
            world.transfer(manifest, B)
    world.mirror()
    looked: list[IntentId] = []
    judge = IntentJudge.judge

    def noted(self: IntentJudge, intent: IntentId, row: object) -> object:
        looked.append(intent)
        return judge(self, intent, row)  # type: ignore[arg-type]

    monkeypatch.setattr(IntentJudge, "judge", noted)
    path, seen = tmp_path / "audit", []
    for _ in range(3):
        looked.clear()
        with open_index(path, OF) as index:
            ledger = ledger_over(world, index)
            index.go_on(ledger)
            for place, rec in world.facts():
                hear(ledger, place, rec)
            judgement = judged(ledger, world)
            index.save(ledger)
        seen.append(sorted(name[-1] for name in looked))
        assert judgement == world.judge()
        if len(seen) == 2:  # a lie about the first comes later
            done = world.decoded(*world.records(B, topics.COMPLETIONS)[0]).message
            assert isinstance(done, m.CompletionRecord)
            world.writer(B, "again", "worker").say(replace(done, bytes=done.bytes + 1))
            world.mirror()
        looked.clear()
    assert len(judgement.broken) >= 1
    named = sorted(str(one)[-1] for one in {w.intent for w in _bodies(world)})
    assert seen[0] == named
    assert len(seen[1]) == 1, "the one that is open"
    assert len(seen[2]) == 2, "and the one that was touched"


def _bodies(world: Federation) -> list[m.TransferIntent]:
    found = [world.decoded(*one).message for one in world.records(A, topics.INTENTS)]
    return [one for one in found if isinstance(one, m.TransferIntent)]


# what cannot be used


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An index of a healthy federation, with its cut."""
    world = healthy()
    with open_index(tmp_path / "audit", OF) as index:
        ledger = ledger_over(world, index)
        index.go_on(ledger)
        for place, rec in world.facts():
            hear(ledger, place, rec)
        index.save(ledger)
    return tmp_path / "audit"


@pytest.mark.parametrize("of", [{"sites": "T1_A"}, {**OF, "format": "0"}])
def test_an_index_of_something_else_is_refused(made: Path, of: Mapping[str, str]) -> None:
    with pytest.raises(NeverWorks) as refused, open_index(made, of):
        pass
    assert "--fresh" in str(refused.value)
    with open_index(made, of, fresh=True) as index:
        assert not index.go_on(ledger_over(healthy(), index))


@pytest.mark.parametrize("was_killed", [False, True])
@pytest.mark.parametrize("name", ["cut", "index", "facts"])
def test_an_index_that_was_edited_is_refused(made: Path, name: str, was_killed: bool) -> None:
    """By its sums; without them, as an audit that was killed leaves it, by the cut's and RocksDB's own."""
    if was_killed:
        (made / "sums").unlink()
    for file in sorted((made / name).glob("*.sst")) if name == "facts" else [made / name]:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    with pytest.raises(NeverWorks) as refused:
        _used(made)
    assert "--fresh" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("how", ["put", "removed", "replaced"])
def test_rows_that_were_put_or_removed_by_hand_are_refused(made: Path, tmp_path: Path, how: str) -> None:
    """With RocksDB's own means, so that its checksums hold; and the cut of another index in this one's place."""
    if how == "replaced":
        older = tmp_path / "older"
        with open_index(older, OF) as index:
            index.go_on(ledger_over(healthy(), index))
            index.save(ledger_over(healthy(), index))
        (made / "cut").write_bytes((older / "cut").read_bytes())
    else:
        with open_index(made, OF, read_only=True) as index:
            key, row = next(index.scan(b"i"))
        db = Rdict(str(made / "facts"), indexing._options())
        if how == "put":
            db.put(key, row[:-1] + bytes([row[-1] ^ 1]))
        else:
            db.delete(key)
        db.close()
    for _ in range(2):
        with pytest.raises(NeverWorks) as refused:
            _used(made)
        assert "is not as the last audit left it" in str(refused.value)
        assert "--fresh" in str(refused.value)
        assert "\n" not in str(refused.value)
    with open_index(made, OF, fresh=True) as index:
        assert not index.go_on(ledger_over(healthy(), index))


def test_looking_at_an_index_leaves_it_as_it_is(made: Path) -> None:
    before = {file: file.read_bytes() for file in made.rglob("*") if file.suffix in ("", ".sst") and file.is_file()}
    with open_index(made, OF, read_only=True) as index:
        assert list(index.scan(b"i"))
    assert {file: file.read_bytes() for file in before if file.name not in ("LOG", "LOCK")} == {
        file: content for file, content in before.items() if file.name not in ("LOG", "LOCK")
    }
    _used(made)


def test_an_audit_that_was_killed_leaves_no_sums(made: Path) -> None:
    """RocksDB may have put its files together anew since: rows behind the cut are dropped, and it goes on."""
    with open_index(made, OF) as index:
        index.go_on(ledger_over(healthy(), index))
        for number in range(100):
            index.put(b"i%d" % number, b"")
        assert not (made / "sums").exists()
    assert not (made / "sums").exists()
    _used(made)


def _used(path: Path) -> None:
    with open_index(path, OF) as index:
        index.go_on(ledger_over(healthy(), index))
        list(index.scan(b""))


def test_sums_that_are_none_are_refused(made: Path) -> None:
    for text in ("", "[1]", "{"):
        (made / "sums").write_text(text)
        with pytest.raises(NeverWorks) as refused:
            _used(made)
        assert "the audit's index is damaged" in str(refused.value)


def test_a_cut_that_names_what_acts_is_not_loaded(made: Path) -> None:
    body = pickle.dumps(print)
    (made / "cut").write_bytes(hashlib.sha256(body).digest() + body)
    (made / "sums").unlink()
    with pytest.raises(NeverWorks) as refused:
        _used(made)
    assert "builtins.print" in str(refused.value)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Temporary) as refused, open_index(tmp_path / "file" / "audit", OF):
        pass
    assert "--site" in str(refused.value)


def test_two_audits_on_one_index(made: Path) -> None:
    with open_index(made, OF), pytest.raises(Temporary) as refused, open_index(made, OF):
        pass
    assert "another audit" in str(refused.value)


def _filled(path: Path) -> None:
    with open_index(path, OF) as index:
        index.go_on(ledger_over(healthy(), index))
        for number in range(100_000):
            index.put(b"i%d" % number, number.to_bytes(32) + hashlib.sha512(b"%d" % number).digest() * 8)
        index.save(ledger_over(healthy(), index))


@pytest.mark.parametrize("size", ["1m", "36m"], ids=["from its start", "in the middle"])
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    """And what was kept before is there once there is room."""
    monkeypatch.setattr(indexing, "ROWS_MAX", 100)
    with tmpfs(tmp_path / "small", f"size={size}") as disk:
        with pytest.raises(Temporary) as refused:
            _filled(disk / "audit")
        assert "the disk is full, and 32 MB must be free" in str(refused.value)
        assert "\n" not in str(refused.value)
        if size == "36m":
            shutil.move(disk / "audit", tmp_path / "audit")
            with open_index(tmp_path / "audit", OF) as index:
                index.go_on(ledger_over(healthy(), index))
                assert not list(index.scan(b"i")), "no cut had them"


# the command


@pytest.fixture
def at(stage: Build) -> Stage:
    return stage(A, B)


def run(at: Stage, *words: str) -> Result:
    return CliRunner().invoke(command, list(words), obj=at.settings)


def told(result: Result) -> dict[str, object]:
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_the_command_goes_on_where_the_last_stopped(at: Stage) -> None:
    world = healthy()
    at.play(world)
    first = told(run(at, "--json"))
    assert (first["records_before"], first["exit_code"]) == (0, 0)
    again = told(run(at, "--json"))
    assert (again["records"], again["records_before"]) == (0, first["records"])
    same = ("digest", "counts", "findings", "partitions", "invariants", "exit_code")
    assert [again[name] for name in same] == [first[name] for name in same]
    assert "earlier audits had read" in run(at).stdout

    before = {key: len(log) for key, log in world.logs.items()}
    done = world.decoded(*world.records(B, topics.COMPLETIONS)[0]).message
    assert isinstance(done, m.CompletionRecord)
    world.writer(B, "again", "worker").say(replace(done, bytes=done.bytes + 1))
    world.mirror()
    new = Federation()
    new.logs = {key: log[before.get(key, 0) :] for key, log in world.logs.items()}
    at.play(new)
    later = told(run(at, "--json"))
    assert later["records"] == sum(map(len, new.logs.values()))
    assert later["exit_code"] == EXIT_BROKEN
    fresh = told(run(at, "--json", "--fresh"))
    assert (fresh["records_before"], fresh["exit_code"]) == (0, EXIT_BROKEN)
    assert [later[name] for name in same] == [fresh[name] for name in same]
    alone = told(run(at, "--json", "--site", A))
    assert alone["records_before"] == 0, "an audit of one site keeps nothing"


def test_an_index_that_was_edited_is_read_anew_with_the_same_digest(at: Stage) -> None:
    at.play(healthy())
    before = told(run(at, "--json"))
    path = kept_index(at.settings)
    db = Rdict(str(path / "facts"), indexing._options())
    key = next(db.keys(from_key=b"i"))
    db.delete(key)
    db.close()
    shown = run(at)
    assert isinstance(shown.exception, NeverWorks)
    assert "is not as the last audit left it" in str(shown.exception)
    fresh = told(run(at, "--json", "--fresh"))
    same = ("digest", "counts", "findings", "exit_code")
    assert [fresh[name] for name in same] == [before[name] for name in same]


def test_a_journal_that_is_not_the_one_that_was_read(at: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    world = healthy()
    at.play(world)
    path = kept_index(at.settings)
    assert audit(at.settings, index=path).exit_code == 0
    rewritten = Ledger.is_as_read
    monkeypatch.setattr(Ledger, "is_as_read", lambda self, place, leaf: rewritten(self, place, bytes(32)))
    shown = run(at)
    assert isinstance(shown.exception, NeverWorks)
    assert "is not the record that the last audit read there" in str(shown.exception)
    monkeypatch.setattr(Ledger, "is_as_read", rewritten)
    ends = replaying.LogReader.end_offsets
    monkeypatch.setattr(replaying.LogReader, "end_offsets", lambda self, places: dict.fromkeys(ends(self, places), 0))
    with pytest.raises(NeverWorks) as refused:
        audit(at.settings, index=path)
    assert "--fresh" in str(refused.value)
    assert "had read it to" in str(refused.value)


def test_a_cut_in_the_middle_is_gone_on_with(at: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit that dies while it reads has lost what it read behind its last cut only."""
    world = healthy()
    at.play(world)
    path = kept_index(at.settings)
    monkeypatch.setattr(replaying, "SAVED_EACH", 20)
    look_up = replaying._Reading.look_up

    def dies(self: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(replaying._Reading, "look_up", dies)
    with pytest.raises(RuntimeError, match="killed"):
        audit(at.settings, index=path, now_ms=LATER_MS)
    monkeypatch.setattr(replaying._Reading, "look_up", look_up)
    report = audit(at.settings, index=path, now_ms=LATER_MS)
    assert 0 < report.records < report.known
    _same(report, audit(at.settings, now_ms=LATER_MS))


def test_a_site_that_is_away_once_is_gone_on_with(at: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had is not forgotten; meanwhile nobody calls it clean."""
    at.play(healthy())
    path, find = kept_index(at.settings), replaying.find_journals
    first = audit(at.settings, index=path, now_ms=LATER_MS)

    def away(settings: Settings, site: Site) -> Journals:
        if site == B:
            raise Temporary("its broker is away")
        return find(settings, site)

    monkeypatch.setattr(replaying, "find_journals", away)
    meanwhile = audit(at.settings, index=path, now_ms=LATER_MS)
    assert (meanwhile.exit_code, list(meanwhile.unreachable)) == (EXIT_INCOMPLETE, [B])
    monkeypatch.setattr(replaying, "find_journals", find)
    again = audit(at.settings, index=path, now_ms=LATER_MS)
    assert again.records == 0
    _same(again, first)


def _same(one: AuditReport, other: AuditReport) -> None:
    assert (one.judgement, one.digest, one.exit_code) == (other.judgement, other.digest, other.exit_code)


def test_memory_has_no_facts(tmp_path: Path) -> None:
    """What is kept beside the rows does not grow with intents: a cut of ten times as many is hardly larger."""
    sizes = []
    for intents in (20, 200):
        world, path = Federation(), tmp_path / str(intents)
        for number in range(1, intents + 1):
            body = world.ask(number, B)
            world.decide(body)
            for manifest in world.write(body, (item(f"{number}", 100),)):
                world.transfer(manifest, B)
        with open_index(path, OF) as index:
            ledger = ledger_over(world, index)
            index.go_on(ledger)
            for place, rec in world.facts():
                hear(ledger, place, rec)
            assert judged(ledger, world).counts.intents == intents
            index.save(ledger)
        sizes.append((path / "cut").stat().st_size)
    records = sum(len(log) for log in world.logs.values()) * 0.9
    assert (sizes[1] - sizes[0]) / records < 12
