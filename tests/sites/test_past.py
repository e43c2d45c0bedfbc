"""Questions to the past of a real federation: its brokers' own times, real mirrors, offsets by time."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from streams.auditing.accounting import account_of
from streams.auditing.digesting import read_cut
from streams.auditing.points import Instant, KeptCut
from streams.auditing.replaying import EXIT_CLEAN, audit
from streams.core import topics
from streams.core.ledger.accounts import ALWAYS, By
from tests.sites.rig import A, B, Rig, Run, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat()


def test_what_the_past_says(run: Run, rig: Rig, spot: Spot, tmp_path: Path) -> None:
    first, second = (spot.lfn(name) for name in ("one", "two"))
    rig.register({first: noise(300_000, spot)}, spot.block())
    rig.wait_done(rig.publish([spot.block()]))
    rig.audit()  # nothing waits any more
    cut, then = tmp_path / "cut", now()
    cut.write_text(run("audit", "digest", "--json").stdout)
    time.sleep(1.1)
    rig.register({second: noise(70_000, spot)}, spot.block())
    rig.wait_done(rig.publish([second]))
    rig.audit()

    as_of_cut = [audit(rig.settings(), until=KeptCut(read_cut(cut)), processes=processes) for processes in (1, 2)]
    for report in as_of_cut:
        assert (report.judgement.broken, report.judgement.unseen) == ((), ())
        assert report.digest == read_cut(cut).digest
    assert as_of_cut[0].judgement == as_of_cut[1].judgement
    whole = audit(rig.settings())
    for at_ms in (int(datetime.fromisoformat(then).timestamp() * 1000), int(time.time() * 1000) - 1):
        report = audit(rig.settings(), until=Instant(at_ms))
        assert (report.exit_code, report.judgement.broken) == (EXIT_CLEAN, ())
        assert 0 < report.records <= whole.records

    came = [(A, "came", second), (B, "came", second)]
    for earlier in (then, str(cut)):
        found = rows(run("file", "diff", earlier, now(), spot.dataset, "--site", A, "--json"))
        assert [(one["site"], one["change"], one["lfn"]) for one in found] == came

    for processes in (2, 1, 3):
        assert run("audit", "--processes", processes).exit_code == EXIT_CLEAN
    (row,) = [one for one in rows(run("account", "--by", "dataset", "--json")) if one["dataset"] == spot.dataset]
    assert (row["files"], row["bytes"], row["failed"], row["cancelled"]) == (2, 370_000, {}, 0)
    assert 0 < row["took_p50_s"] <= row["took_p95_s"] < 90
    kept = rig.state / "audit-index"
    sums = [
        (sum(row.files for row in report.rows.values()), sum(row.bytes for row in report.rows.values()))
        for report in (account_of(kept, by, ALWAYS) for by in By)
    ]
    counts = whole.judgement.counts
    assert set(sums) == {(counts.files, counts.bytes)}


def test_when_an_intent_will_have_arrived(run: Run, rig: Rig, spot: Spot) -> None:
    name = spot.lfn("large")
    rig.register({name: noise(400_000_000, name)}, spot.block())
    moving = rig.publish([spot.block()], plane="log")

    def estimated() -> dict[str, Any] | None:
        (told,) = rows(run("intent", "show", moving.id, "--json"))
        assert not told["ended"], "it moves for longer than it takes to look"
        return told["eta"] if told["eta"]["at"] is not None else None

    eta = until(estimated, "an ETA of what moves")
    assert 0 < eta["left_bytes"] <= 400_000_000
    assert eta["bytes_per_s"] > 0
    assert eta["final"] is True
    rig.wait_done(moving)
    (told,) = rows(run("intent", "show", moving.id, "--json"))
    assert "eta" not in told

    nowhere = rig.publish([spot.lfn("nowhere")])
    (told,) = rows(run("intent", "show", nowhere.id, "--json"))
    assert told["eta"]["why"] == "waits for its home's decision"
    assert (told["eta"]["record"]["site"], told["eta"]["record"]["topic"]) == (A, topics.INTENTS)
