"""What a user asks of the past: accounts, what came and went between two points, an audit as of then."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from streams.auditing import replaying
from streams.auditing.accounting import account_of
from streams.auditing.digesting import Cut, DigestReport, cut_object, read_cut, read_digest
from streams.auditing.index import kept_index
from streams.auditing.points import Instant, KeptCut, PastPoint
from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE, audit
from streams.cli.account import account as account_verb
from streams.cli.audit import audit as audit_verb
from streams.cli.file import file as file_noun
from streams.core import records as m
from streams.core import topics
from streams.core.ledger import Ledger
from streams.core.ledger.accounts import ALWAYS, By, Period
from streams.core.ledger.cuts import JournalRoots, digest_of
from streams.core.ledger.findings import FindingList, LogPosition
from streams.core.ledger.trees import leaf_of
from streams.core.names import Adler32, Lfn, Site
from streams.errors import NotFound, Transfer2goError, UsageError
from streams.kafka.reader import Record
from tests.audit.conftest import Stage
from tests.audit.history import (
    BLOCK,
    DATASET,
    START_MS,
    WHY,
    A,
    B,
    Federation,
    Rec,
    Writer,
    healthy,
    hear,
    item,
    locate,
    seals_first,
)
from tests.audit.sealing import sealed
from tests.audit.test_audit_simulation import SEEDS, finished, origin
from tests.sim.world import PARTITIONS as SIMULATED

Build = Callable[..., Stage]


def run(command: click.Command, at: Stage, *words: str) -> Result:
    return CliRunner().invoke(command, list(words), obj=at.settings)


def lines(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, (result.output, result.exception)
    return [json.loads(line) for line in result.stdout.splitlines()]


def seconds(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


@pytest.fixture
def at(stage: Build) -> Stage:
    return stage(A, B)


# accounts


def test_the_account_is_that_of_the_last_audit(at: Stage) -> None:
    world = healthy()
    at.play(world)
    missing = run(account_verb, at, "--by", "site")
    assert isinstance(missing.exception, NotFound)
    assert "transfer2go audit" in str(missing.exception)
    assert run(audit_verb, at).exit_code == 0
    (site,) = lines(run(account_verb, at, "--by", "site", "--json"))
    assert site.pop("took_p50_s") == pytest.approx(0.5, abs=0.5)
    assert site.pop("took_p95_s") == pytest.approx(0.5, abs=0.5)
    assert site == {"site": B, "files": 4, "bytes": 350, "failed": {"permanent": 1}, "cancelled": 0}
    for by, name in (("requester", "someone"), ("dataset", DATASET), ("link", f"{A} → {B}"), ("day", "2023-11-14")):
        (row,) = lines(run(account_verb, at, "--by", by, "--json"))
        assert (row[by], row["files"], row["bytes"]) == (name, 4, 350)
    shown = run(account_verb, at, "--by", "requester")
    assert "1 permanent" in shown.stdout
    assert "as an audit had read the journals by" in shown.stderr


def test_an_account_of_a_period(at: Stage) -> None:
    world = healthy()
    at.play(world)
    assert run(audit_verb, at).exit_code == 0
    first, second = sorted(rec.at_ms for _, rec in world.records(B, topics.COMPLETIONS))
    (row,) = lines(run(account_verb, at, "--by", "site", "--json", "--from", seconds(first), "--to", seconds(second)))
    assert (row["files"], row["bytes"], row["failed"]) == (3, 300, {})
    assert lines(run(account_verb, at, "--by", "site", "--json", "--from", seconds(second + 1000))) == []


@pytest.mark.parametrize(
    ("words", "kind", "why"),
    [
        (["--from", "yesterday"], UsageError, "'yesterday' is no instant (--from)"),
        (["--to", ""], UsageError, "'' is no instant (--to)"),
        (["--to", "2999-01-01"], UsageError, "2999-01-01 is in the future (--to)"),
        (["--from", "2999-01-01T00:00Z"], UsageError, "is in the future (--from)"),
        (["--from", "2024-02-01", "--to", "2024-01-01"], UsageError, "--from 2024-02-01 is not before --to 2024-01-01"),
        (["--from", "2024-02-01", "--to", "2024-02-01"], UsageError, "is not before"),
        (["--to", "2001-01-01"], NotFound, "nothing had ended by 2001-01-01T00:00:00Z; the first end is of 2023-11-14"),
        (["--to", "0001-01-01T00:00+14:00"], NotFound, "nothing had ended by 1970-01-01T00:00:00Z"),
    ],
)
def test_periods_that_cannot_be_meant(at: Stage, words: list[str], kind: type[Transfer2goError], why: str) -> None:
    at.play(healthy())
    assert run(audit_verb, at).exit_code == 0
    refused = run(account_verb, at, "--by", "day", *words)
    assert type(refused.exception) is kind
    assert why in str(refused.exception)
    assert "\n" not in str(refused.exception)


def test_a_period_behind_all_that_was_read_says_so(at: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    at.play(healthy())
    assert run(audit_verb, at).exit_code == 0
    (kept_index(at.settings) / "cut").touch()
    later = seconds((kept_index(at.settings) / "cut").stat().st_mtime_ns // 1_000_000 + 1)
    refused = run(account_verb, at, "--by", "site", "--from", later)
    assert isinstance(refused.exception, NotFound)
    assert "`transfer2go audit` reads on" in str(refused.exception)


def test_all_accounts_of_one_index_have_the_same_sums_as_the_audit(at: Stage) -> None:
    world = healthy()
    body = world.ask(7, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("x", 7), item("y", 8)))
    world.transfer(manifest, B)
    at.play(world)
    path = kept_index(at.settings)
    judged = audit(at.settings, index=path).judgement.counts
    for by in By:
        report = account_of(path, by, ALWAYS)
        assert sum(row.files for row in report.rows.values()) == judged.files
        assert sum(row.bytes for row in report.rows.values()) == judged.bytes
        assert report.rest is None
        halves = [account_of(path, by, period) for period in (Period(stop_ms=START_MS + 300), Period(START_MS + 300))]
        assert sum(row.counted for half in halves for row in half.rows.values()) == 7


# what came and went


def shelved() -> tuple[Federation, dict[str, int]]:
    """A's files a, b and c; b is given up, c is registered anew, d comes; with the time before and behind each."""
    world = Federation(A, B)
    times = {}

    def say(*files: tuple[str, int, str]) -> None:
        held = (m.HeldFile(Lfn(f"/store/{n}"), BLOCK, size, Adler32(adler), "v1") for n, size, adler in files)
        world.cli.say(m.FilesHeld(DATASET, A, tuple(held)))

    say(("a", 1, "0000000a"), ("b", 2, "0000000b"), ("c", 3, "0000000c"))
    times["first"] = world.clock_ms
    world.clock_ms += 1000
    world.cli.say(m.FilesLost(DATASET, A, (Lfn("/store/b"),), WHY))
    times["gone"] = world.clock_ms
    world.clock_ms += 1000
    say(("c", 33, "00000ccc"), ("d", 4, "0000000d"))
    times["last"] = world.clock_ms
    world.mirror()
    return world, times


def test_what_came_went_and_changed(at: Stage) -> None:
    world, times = shelved()
    at.play(world)
    first, gone, last = (seconds(times[name]) for name in ("first", "gone", "last"))
    shown = run(file_noun, at, "diff", first, last, "--json")
    assert [(one["change"], one["lfn"], one["site"]) for one in lines(shown)] == [
        ("went", "/store/b", A),
        ("changed", "/store/c", A),
        ("came", "/store/d", A),
    ]
    changed = lines(shown)[1]
    assert (changed["before"], changed["after"]) == (
        {"block": BLOCK, "bytes": 3, "adler32": "0000000c"},
        {"block": BLOCK, "bytes": 33, "adler32": "00000ccc"},
    )
    assert "1 came, 1 went, 1 changed" in shown.stderr
    assert f"which is the cut {topics.REPLICAS}[" in shown.stderr
    assert [one["lfn"] for one in lines(run(file_noun, at, "diff", first, gone, DATASET, "--json"))] == ["/store/b"]
    assert "/store/d" in run(file_noun, at, "diff", gone, last).stdout
    same = run(file_noun, at, "diff", gone, gone)
    assert (same.exit_code, same.stdout) == (0, "")
    assert "no file came, went or changed" in same.stderr
    whole = run(file_noun, at, "diff", "2001-01-01", last, "--json")
    assert [one["change"] for one in lines(whole)] == ["came"] * 3, "before the first record there was nothing"
    assert "as of 2001-01-01T00:00:00Z, when nothing was written" in whole.stderr
    assert lines(run(file_noun, at, "diff", first, last, "/No/Such/RAW", "--json")) == []


def test_a_page_ends_with_a_file_and_the_next_goes_on(at: Stage) -> None:
    world, times = shelved()
    at.play(world)
    asked = ("diff", "2001-01-01", seconds(times["last"]), "--json", "-n", "1")
    seen, behind = [], ""
    for _ in range(3):
        shown = run(file_noun, at, *asked, *(["--after", behind] if behind else []))
        (one,) = lines(shown)
        seen.append(one["lfn"])
        behind = str(one["lfn"])
        assert (f"go on with --after {behind}" in shown.stderr) is (len(seen) < 3)
    assert seen == ["/store/a", "/store/c", "/store/d"]


def test_between_two_cuts_that_were_kept(at: Stage, tmp_path: Path) -> None:
    world, times = shelved()
    early = Federation(A, B)
    early.logs = {key: [(o, r) for o, r in log if r.at_ms <= times["first"]] for key, log in world.logs.items()}
    at.play(early)
    cuts = [tmp_path / "one", tmp_path / "two"]
    cuts[0].write_text(json.dumps(cut_object(read_digest(at.settings))))
    late = Federation(A, B)
    late.logs = {key: log[len(early.logs[key]) :] for key, log in world.logs.items()}
    at.play(late)
    cuts[1].write_text(json.dumps(cut_object(read_digest(at.settings))))
    one, two = map(str, cuts)
    found = lines(run(file_noun, at, "diff", one, two, "--json"))
    assert [one["change"] for one in found] == ["went", "changed", "came"]
    assert lines(run(file_noun, at, "diff", one, seconds(times["last"]), "--json")) == found
    backwards = run(file_noun, at, "diff", two, one)
    assert isinstance(backwards.exception, UsageError)
    assert "is behind the cut" in str(backwards.exception)
    shown = run(file_noun, at, "where", "/store/c", "--as-of", one, "--json")
    assert [row["bytes"] for row in lines(shown)] == [3]
    assert "here are fewer records" not in shown.stderr


def test_a_cut_of_more_than_a_mirror_has_brought_says_so(at: Stage, tmp_path: Path) -> None:
    world, _ = shelved()
    copies = [key for key in world.logs if key[:2] == (B, f"{A}.{topics.REPLICAS}")]
    for key in copies:
        world.logs[key] = world.logs[key][:1]
    at.play(world)
    (tmp_path / "cut").write_text(json.dumps(cut_object(read_digest(at.settings))))
    at_b = Stage(replace(at.settings, site=B), at.clusters)
    there = run(file_noun, at_b, "where", "/store/a", "--as-of", str(tmp_path / "cut"), "--json")
    assert f"here are fewer records of {A} {topics.REPLICAS}[" in there.stderr


@pytest.mark.parametrize(
    ("points", "kind", "why"),
    [
        (["2024-01-01", "2023-01-01"], UsageError, "2024-01-01T00:00:00Z is behind 2023-01-01T00:00:00Z"),
        (["soon", "2024-01-01"], UsageError, "'soon' is no instant, and no file with a cut (T1)"),
        (["2024-01-01", "x" * 5000], UsageError, "is no instant, and no file with a cut (T2)"),
        (["/", "2024-01-01"], UsageError, "'/' is no instant, and no file with a cut (T1)"),
        (["2024-01-01", "2999-01-01"], UsageError, "2999-01-01 is in the future (T2)"),
        (["2001-01-01", "2002-01-01"], NotFound, "nothing was written by 2002-01-01T00:00:00Z; the first record is of"),
    ],
)
def test_points_that_cannot_be_meant(at: Stage, points: list[str], kind: type[Transfer2goError], why: str) -> None:
    at.play(shelved()[0])
    refused = run(file_noun, at, "diff", *points)
    assert type(refused.exception) is kind
    assert why in str(refused.exception)
    assert "\n" not in str(refused.exception)


def test_a_file_that_is_no_cut(at: Stage, tmp_path: Path) -> None:
    (tmp_path / "no").write_text('{"digest": "0", "journals": 5}')
    refused = run(file_noun, at, "where", "/store/a", "--as-of", str(tmp_path / "no"))
    assert isinstance(refused.exception, UsageError)
    assert "not a cut" in str(refused.exception)


# an audit as of then


def broken_later() -> tuple[Federation, int]:
    """Clean up to a time, and a lie behind it."""
    world = healthy()
    clean_ms = world.clock_ms
    world.clock_ms += 400_000
    done = world.decoded(*world.records(B, topics.COMPLETIONS)[0]).message
    assert isinstance(done, m.CompletionRecord)
    world.writer(B, "again", "worker").say(replace(done, bytes=done.bytes + 1))
    world.mirror()
    return world, clean_ms


def test_an_audit_as_of_an_instant_knows_nothing_later(at: Stage, tmp_path: Path) -> None:
    world, clean_ms = broken_later()
    at.play(world)
    assert audit(at.settings).exit_code == EXIT_BROKEN
    shown = run(audit_verb, at, "--until", seconds(clean_ms), "--json")
    assert shown.exit_code == EXIT_CLEAN, shown.output
    told = json.loads(shown.stdout)
    before = Federation()
    before.logs = {key: [(o, r) for o, r in log if r.at_ms <= clean_ms] for key, log in world.logs.items()}
    assert told["records"] == sum(map(len, before.logs.values()))
    assert told["counts"]["files"] == 4
    assert not kept_index(at.settings).exists(), "nothing is kept"
    # what it became is a cut that others take
    cut = tmp_path / "cut"
    cut.write_text(shown.stdout)
    again = run(audit_verb, at, "--until", str(cut), "--json")
    assert again.exit_code == EXIT_CLEAN, again.output
    assert json.loads(again.stdout)["digest"] == told["digest"] == read_cut(cut).digest
    assert run(audit_verb, at, "digest", "--at", str(cut)).exit_code == EXIT_CLEAN


@pytest.mark.parametrize("ahead_ms", [0, 200_000, -200_000])
def test_at_any_instant_of_an_honest_history_an_audit_is_clean(
    at: Stage, monkeypatch: pytest.MonkeyPatch, ahead_ms: int
) -> None:
    """What follows from a record that is left out is not missed for it, though B's clock is ahead, or behind."""
    say = Writer.say

    def by_its_clock(self: Writer, message: m.Message) -> LogPosition:
        off_ms = ahead_ms if self.site == B else 0
        self.world.clock_ms += off_ms
        try:
            return say(self, message)
        finally:
            self.world.clock_ms -= off_ms

    monkeypatch.setattr(Writer, "say", by_its_clock)
    world = healthy()
    at.play(world)
    times = sorted({rec.at_ms for log in world.logs.values() for _, rec in log})
    for at_ms in times[:: max(1, len(times) // 8)]:
        report = audit(at.settings, until=Instant(at_ms), now_ms=at_ms)
        assert [f.words for f in report.judgement.broken] == [], at_ms
        assert report.judgement.unseen == ()


Dated = list[tuple[LogPosition, Rec, int]]


def one_instant(dated: Dated, at_ms: int, chance: random.Random) -> PastPoint:
    return Instant(at_ms)


def read_one_after_the_other(dated: Dated, at_ms: int, chance: random.Random) -> PastPoint:
    """A cut of which each site's cluster was read at another time."""
    when = {place.site: Instant(at_ms + chance.randrange(-5_000, 5_000)) for place, _, _ in dated}
    cut = JournalRoots()
    for place, rec, its_ms in dated:
        record = Record(*place[1:], its_ms, rec.key, rec.value, list(rec.headers))
        if "." not in place.topic and when[place.site].takes(place.site, record):
            cut.hear(*place[:3], origin(rec), leaf_of(rec.key, rec.value, rec.headers))
    roots = cut.roots()
    return KeptCut(Cut(digest_of(roots), {one.journal: one for one in roots}))


@pytest.mark.parametrize("point", [one_instant, read_one_after_the_other])
def test_as_of_any_point_of_a_simulated_history_an_audit_is_clean(
    point: Callable[[Dated, int, random.Random], PastPoint],
) -> None:
    """Of histories with all their faults, where each site's broker dates by another clock, and all seals were early."""
    tried = 0
    for seed in SEEDS:
        sites, logs = finished(seed)
        chance = random.Random(seed)
        sealed(tuple(map(Site, sites)), logs, SIMULATED, chance)  # type: ignore[arg-type]
        off_ms = {site: chance.randrange(-8_000, 8_000) for site in sorted(sites)}
        dated = [
            (LogPosition(Site(key[0]), key[1], key[2], n), rec, origin(rec).at_ms + off_ms[origin(rec).site])
            for key, log in sorted(logs.items(), key=seals_first)  # type: ignore[arg-type]
            for n, rec in enumerate(log)
        ]
        times = [at_ms for place, _, at_ms in dated if not place.topic.endswith(topics.SEALS)]
        for at_ms in chance.choices(times, k=6):
            tried += 1
            until, findings = point(dated, at_ms, chance), FindingList(max(times))
            ledger = Ledger(map(Site, sites), partitions=SIMULATED)
            for place, rec, its_ms in dated:
                record = Record(*place[1:], its_ms, rec.key, rec.value, list(rec.headers))
                if until.takes(place.site, record):
                    hear(ledger, place, replace(rec, at_ms=its_ms))
            ledger.lose_renewed(findings)
            for key in ledger.wanted():
                for n, rec in enumerate(logs[key][: until.ends.get(key, 0)]):
                    locate(ledger, LogPosition(*key, n), rec)
            now_ms = replaying._judged_as_of(until, findings)
            judgement = ledger.judge(now_ms, findings=findings, lengths=False)
            assert [f.words for f in judgement.broken] == [], f"seed {seed} at {at_ms}"
    assert tried > 30


def another(cut: DigestReport, site: Site, topic: str) -> Cut:
    """The cut with other roots of a topic of a site."""
    journals = [
        one._replace(root="00" * 32) if one.journal[:2] == (site, topic) and one.size else one for one in cut.journals
    ]
    return Cut(digest_of(journals), {one.journal: one for one in journals})


def test_a_journal_that_is_not_as_the_cut_has_it_is_a_finding(at: Stage) -> None:
    at.play(healthy())
    cut = another(read_digest(at.settings), B, topics.REPORTS)
    report = audit(at.settings, until=KeptCut(cut))
    words = [f.words for f in report.judgement.broken]
    assert words == [words[0]]
    assert words[0].startswith(f"{B} {topics.REPORTS}[")
    assert "is not as the cut has it" in words[0]
    alone = audit(at.settings, sites=[A], until=KeptCut(cut))
    assert "is not as the cut has it" in alone.judgement.broken[0].words, "its copy at A is as long, and another"


def test_a_cut_of_more_than_can_be_read_is_incomplete(at: Stage) -> None:
    world = healthy()
    at.play(world)
    cut = read_digest(at.settings)
    more = [one._replace(size=one.size + 1) if one.journal.site == B else one for one in cut.journals]
    kept = Cut(digest_of(more), {one.journal: one for one in more})
    alone = audit(at.settings, sites=[A], until=KeptCut(kept))
    assert (alone.exit_code, alone.judgement.broken) == (EXIT_INCOMPLETE, ())
    assert any("journals of the cut not all that it counts was read" in line for line in alone.judgement.unseen)
    assert audit(at.settings, until=KeptCut(kept)).exit_code == EXIT_BROKEN, "B was read, and is shorter"


@pytest.mark.parametrize(
    ("words", "kind", "why"),
    [
        (["--until", "tomorrow"], UsageError, "is no instant, and no file with a cut (--until)"),
        (["--until", "2999-01-01"], UsageError, "is in the future (--until)"),
        (["--until", "2001-01-01"], NotFound, "nothing was written by 2001-01-01T00:00:00Z; the first record is of"),
        (["--until", "2024-01-01", "--storage"], UsageError, "--until and --storage"),
    ],
)
def test_an_audit_until_what_cannot_be_meant(
    at: Stage, words: list[str], kind: type[Transfer2goError], why: str
) -> None:
    at.play(healthy())
    refused = run(audit_verb, at, *words)
    assert type(refused.exception) is kind
    assert why in str(refused.exception)


def test_in_a_cut_what_a_mirror_repeats_is_none_more(at: Stage) -> None:
    world = healthy()
    key = (A, f"{B}.{topics.REPLICAS}", world.where(A, f"{B}.{topics.REPLICAS}")[0].partition)
    world.append(*key, world.logs[key][0][1])
    at.play(world)
    cut = read_digest(at.settings)
    report = audit(at.settings, until=KeptCut(another(cut, A, "")))
    assert report.digest == cut.digest
    assert (report.judgement.broken, report.judgement.unseen) == ((), ())
