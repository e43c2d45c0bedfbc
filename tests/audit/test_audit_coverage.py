"""What an audit must see and cannot: told in a line each, before any finding, and never called clean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import streams.auditing.replaying as module
from streams.auditing.coverage import find_journals, unseen
from streams.auditing.replaying import EXIT_BROKEN, EXIT_CLEAN, EXIT_INCOMPLETE, audit
from streams.cli.audit import audit as command
from streams.core import topics
from streams.core.ledger.findings import Invariant
from streams.core.names import Site
from streams.errors import NeverWorks, NotAllowed, Temporary, Transfer2goError
from streams.kafka import admin
from streams.kafka.reader import LogPartition, LogReader
from streams.settings import Settings
from tests.audit.conftest import Stage
from tests.audit.history import LATER_MS, A, B, C, Log, World, healthy

Build = Callable[..., Stage]
YEAR_MS = 365 * 24 * 3600 * 1000


def run(settings: Settings, *words: str) -> Result:
    return CliRunner().invoke(command, list(words), obj=settings)


def with_bootstraps(at: Stage, **of: str) -> Settings:
    """The stage's settings, with other addresses for some sites."""
    entries = tuple(
        replace(entry, bootstrap=of.get(entry.name, entry.bootstrap)) for entry in at.settings.registry.sites
    )
    return replace(at.settings, registry=replace(at.settings.registry, sites=entries))


@pytest.mark.parametrize("records", [True, False])
def test_swapped_clusters_are_refused_in_one_line(stage: Build, records: bool) -> None:
    at = stage(A, B)
    if records:
        at.play(healthy())
    swapped = with_bootstraps(at, **{A: at.clusters[B].bootstrap, B: at.clusters[A].bootstrap})
    told = run(swapped)
    assert isinstance(told.exception, NeverWorks)
    assert f"the cluster at the bootstrap addresses of {A} is that of {B}" in str(told.exception)
    assert told.output == ""


def test_one_cluster_under_two_names_is_refused(stage: Build) -> None:
    at = stage(A, B)
    at.play(healthy())
    with pytest.raises(NeverWorks, match=f"{A} and {B} are one cluster, mockCluster"):
        audit(with_bootstraps(at, **{B: at.clusters[A].bootstrap}), now_ms=LATER_MS)


def test_another_partition_count_is_refused(stage: Build) -> None:
    at = stage(A, B)
    other = replace(at.settings, registry=replace(at.settings.registry, partitions=8))
    with pytest.raises(NeverWorks, match=f"at {A} has 4 partitions, the federation has 8"):
        audit(other, now_ms=LATER_MS)


def test_a_site_left_out_on_purpose_is_clean_as_far_as_asked(stage: Build) -> None:
    at = stage(A, B)
    at.play(healthy())
    told = run(at.settings, "--site", A)
    assert told.exit_code == EXIT_CLEAN
    assert told.output.rstrip().endswith("clean as far as asked")


def test_a_site_left_out_of_the_registry_is_told(stage: Build) -> None:
    at = stage(A, B, C)
    at.play(healthy(A, B, C))
    two = tuple(entry for entry in at.settings.registry.sites if entry.name != C)
    short = replace(at.settings, registry=replace(at.settings.registry, sites=two))
    told = run(short)
    assert told.exit_code in (EXIT_INCOMPLETE, EXIT_BROKEN)
    lines = told.output.splitlines()
    seen = next(n for n, line in enumerate(lines) if f"{A} has copies of journals of {C}" in line)
    assert not any(" broken: " in line for line in lines[:seen])


def emptied(world: World) -> None:
    """A's cluster is replaced by an empty one: the mirrors' copies at B stay."""
    world.logs = {key: log for key, log in world.logs.items() if key[0] != A}


def made_anew(world: World) -> None:
    """A's manifests were deleted and made again, and hold one record that came later."""
    for key, log in list(world.logs.items()):
        if key[:2] == (A, topics.MANIFESTS):
            world.logs[key] = [(0, log[-1][1])]
            rest: Log = [(n, rec) for n, (_, rec) in enumerate(log)]
            copy = (B, f"{A}.{topics.MANIFESTS}", key[2])
            assert [rec for _, rec in world.logs[copy]] == [rec for _, rec in rest]


@pytest.mark.parametrize(
    ("hurt", "words"),
    [
        (emptied, f"the cluster of {A} has no record of its own, {B} has copies of some"),
        (made_anew, f"{topics.MANIFESTS} of {A} begins anew: {B} has copies of 1 or more records"),
    ],
)
def test_a_cluster_replaced_and_a_topic_made_anew(stage: Build, hurt: Callable[[World], None], words: str) -> None:
    at = stage(A, B)
    world = healthy()
    hurt(world)
    at.play(world)
    told = run(at.settings)
    assert words in told.output
    assert told.output.count("not seen: ") == 1
    assert "broken" not in told.output
    assert told.exit_code == EXIT_INCOMPLETE


def test_what_is_dated_next_year_is_old_and_its_clock_is_found(stage: Build) -> None:
    """The tail of B's completions is lost in the mirror; all that B wrote is dated a year ahead."""
    at = stage(A, B)
    world = healthy()
    lost = world.where(A, f"{B}.{topics.COMPLETIONS}")[-1]
    world.drop(lost)
    at.play(world)
    # The same history looked at a year before it was written.
    report = audit(at.settings, now_ms=LATER_MS - YEAR_MS)
    found = [f for f in report.judgement.broken if f.invariant is Invariant.CLOCK]
    assert any(
        "worker-0 at T2_B said 2023-11-14T" in f.words and "auditor's says 2022-11-14T" in f.words for f in found
    )
    assert any(f"a broker of {B} dated a record 2023-" in f.words for f in found)
    gaps = [f for f in report.judgement.broken if f.invariant is Invariant.NO_GAP]
    assert [place.topic for place in gaps[0].records][:1] == [topics.COMPLETIONS]
    assert not any("in flight" in remark.words for remark in report.judgement.waiting)


def test_a_journal_that_begins_late_is_told_with_its_offsets(stage: Build) -> None:
    """Deleted records, or a retention: what stood before is gone, and nothing that it would explain is a finding."""
    at = stage(A, B)
    found = find_journals(at.settings, A)
    found.begins = {(topics.REPLICAS, 1): 2, (topics.REPLICAS, 0): 0, (topics.MANIFESTS, 3): 7}
    lines, lost = unseen(at.settings, [found])
    assert lines == [
        f"{topics.MANIFESTS} of {A} begins later than its first record: [3] at offset 7; what stood before is gone",
        f"{topics.REPLICAS} of {A} begins later than its first record: [1] at offset 2; what stood before is gone",
    ]
    assert lost == {(A, topics.MANIFESTS), (A, topics.REPLICAS)}


@pytest.mark.parametrize("error", [Temporary("gone"), NeverWorks("no such certificate"), NotAllowed("no")])
@pytest.mark.parametrize("step", ["find_journals", "LogReader", "kept_otherwise"])
def test_a_site_that_cannot_be_read_is_told_and_the_others_are_judged(
    stage: Build, monkeypatch: pytest.MonkeyPatch, error: Transfer2goError, step: str
) -> None:
    at = stage(A, B)
    at.play(healthy())
    real = getattr(module, step)

    def fails(settings: Settings, site: Site, *more: Any) -> Any:
        if site == B:
            raise error
        return real(settings, site, *more)

    monkeypatch.setattr(module, step, fails)
    report = audit(at.settings, now_ms=LATER_MS)
    assert dict(report.unreachable) == {B: error.what}
    assert (report.sites, report.exit_code) == ((A,), EXIT_INCOMPLETE)


def _split(place: LogPartition) -> tuple[str | None, str]:
    return topics.split(place[0])


def test_nothing_stands_between_the_two_looks_at_the_ends(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written between the copies' ends and the originals' is told as in flight."""
    at = stage(A, B)
    at.play(healthy())
    done: list[tuple[str, str]] = []

    class Noted(LogReader):
        def __init__(self, settings: Settings, site: Site) -> None:
            done.append(("connect", site))
            self.site = site
            super().__init__(settings, site)

        def begin_offsets(self, places: Iterable[LogPartition]) -> dict[LogPartition, int]:
            done.append(("begins", self.site))
            return super().begin_offsets(places)

        def end_offsets(self, places: Iterable[LogPartition]) -> dict[LogPartition, int]:
            places = list(places)
            kinds = {"seals" if base == topics.SEALS else "copies" if of else "own" for of, base in map(_split, places)}
            done.append((kinds.pop(), self.site))
            assert not kinds
            return super().end_offsets(places)

    monkeypatch.setattr(module, "LogReader", Noted)
    assert audit(at.settings, now_ms=LATER_MS).exit_code == EXIT_CLEAN
    ready = [(step, site) for site in (A, B) for step in ("connect", "begins")]
    assert done == [*ready, *((kind, site) for kind in ("seals", "copies", "own") for site in (A, B))]


def test_brokers_that_tell_no_settings_leave_it_said(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    at = stage(A, B)
    at.play(healthy())

    def refused(settings: Settings, site: Site) -> list[str]:
        raise NotAllowed("describing topics")

    monkeypatch.setattr(admin, "kept_otherwise", refused)
    report = audit(at.settings, now_ms=LATER_MS)
    assert report.exit_code == EXIT_CLEAN
    assert (
        sum("keeps its journals for ever: its brokers do not tell" in r.words for r in report.judgement.unchecked) == 2
    )
