"""What `status` and `doctor` say of seals: how old the last one is, that it is stale, or that nobody seals."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from streams.cli import doctor, seal_ages
from streams.core import records as m
from streams.core import topics
from streams.core.names import Site
from streams.kafka.publish import Publisher
from streams.settings import Settings
from tests.audit.conftest import Stage
from tests.audit.history import A, B

Build = Callable[..., Stage]


def seal(settings: Settings, no: int, age_s: float = 0.0, site: Site = A) -> None:
    """One that the site's broker took so long ago."""
    at_ms = int((time.time() - age_s) * 1000)
    with Publisher(settings, site, "sealer", "sealer", now_ms=lambda: at_ms) as publisher:
        journals = (m.SealedJournal(site, topics.REPLICAS, 0, no + 1, b"\1" * 32),)
        publisher.send(m.JournalsSealed(site, no, "" if no == 0 else "0" * 64, at_ms, journals, None, b""))


def test_nobody_seals(stage: Build) -> None:
    at = stage(A, B)
    assert seal_ages.newest(at.settings, A) is None
    check = doctor._seals(at.settings, A)
    words = f"its journals: not checkable, nobody seals them: run `transfer2go --site {A} audit follow`"
    assert (check.state, check.words) == ("warn", words)
    assert seal_ages.line(at.settings, A) == f"journals of {A}: {words.partition(': ')[2]}"


def test_the_last_seal_counts_and_an_unsigned_one_of_who_signs_does_not(stage: Build) -> None:
    at = stage(A, B)
    for no in range(3):
        seal(at.settings, no)
    found = seal_ages.newest(at.settings, A)
    assert found is not None
    assert found.no == 2
    assert found.age_s < 60
    check = doctor._seals(at.settings, A)
    assert check.state == "ok"
    assert check.words.endswith("ago (seal 2)")
    entries = tuple(replace(one, root_key=b"\1" * 32) for one in at.settings.registry.sites)
    pinned = replace(at.settings, registry=replace(at.settings.registry, sites=entries))
    assert seal_ages.newest(pinned, A) is None


def test_a_stale_seal_is_told_with_its_age(stage: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    at = stage(A, B)
    seal(at.settings, 0)
    monkeypatch.setattr(seal_ages, "STALE_S", -1.0)
    check = doctor._seals(at.settings, A)
    assert check.state == "warn"
    assert check.words.endswith("ago (seal 0), which is long: does `audit follow` run?")


def test_a_cluster_that_is_away_is_a_line(stage: Build) -> None:
    at = stage(A, B)
    for cluster in at.clusters.values():
        cluster.stop()
    assert seal_ages.line(at.settings, A).startswith(f"whether the journals of {A} are sealed cannot be read: ")
    assert doctor._seals(at.settings, A).state == "warn"
