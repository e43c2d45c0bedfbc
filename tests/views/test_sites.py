"""Who is alive, told from announcements: order, repeats, closing, ages, forgetting, persistence."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.client.announcements import REMEMBERED_MS
from streams.core import records as m
from streams.core.names import Site
from streams.views import rows
from streams.views.sites import Sites
from streams.wire.release import UNTOLD
from tests.views.journal import A, B

Said = tuple[m.SiteAnnounced, m.Origin]


def said(
    at_s: float,
    *,
    site: Site = A,
    writer: str = "worker-0",
    incarnation: str = "i1",
    api: str = "http://127.0.0.1:6066",
    digest: str = "d1",
    role: str = "worker",
    closing: bool = False,
    seq: int = 0,
) -> Said:
    fact = m.SiteAnnounced(site, writer, incarnation, role, api, digest, (B,), ("default",), 10, closing, ())
    return fact, m.Origin(site, writer, incarnation, seq, int(at_s * 1000))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Any]:
    made: Any = rows.open_primary(str(tmp_path / "view"))
    yield made
    made.close()


def hear(db: Any, sites: Sites, *words: Said) -> Sites:
    for fact, origin in words:
        for key, row in sites.hear(fact, origin, origin.at_ms).items():
            if row is None:
                del db[key]
            else:
                db[key] = row
    return sites


def test_alive_while_it_announces_itself(db: Any) -> None:
    sites = hear(db, Sites(db), said(100), said(110, seq=1))
    assert [a.writer for a in sites.alive(A, 139_000)] == ["worker-0"]
    assert sites.alive(A, 141_000) == []
    assert sites.alive(B, 139_000) == []


def test_closing_is_the_last_word_of_an_incarnation(db: Any) -> None:
    last = said(110, closing=True, seq=5)
    sites = hear(db, Sites(db), said(100), last, said(105, seq=3), said(111, seq=6))
    assert sites.alive(A, 112_000) == []
    sites = hear(db, sites, said(112, incarnation="i2", api="http://127.0.0.1:7000"))
    assert [a.api for a in sites.alive(A, 113_000)] == ["http://127.0.0.1:7000"]


def test_a_successor_that_closes_its_predecessor_is_alive_itself(db: Any) -> None:
    sites = hear(db, Sites(db), said(100), said(101, closing=True), said(101, incarnation="i2"))
    (alive,) = sites.alive(A, 102_000)
    assert alive.incarnation == "i2"


def test_a_killed_workers_successor_is_the_one_named(db: Any) -> None:
    sites = hear(db, Sites(db), said(100, api="http://a:1"), said(103, incarnation="i2", api="http://a:2"))
    assert [a.api for a in sites.alive(A, 104_000)] == ["http://a:2"]


def test_writers_are_told_apart_by_role(db: Any) -> None:
    sites = hear(db, Sites(db), said(100), said(105, writer="plane", api="", role="plane"))
    assert [a.role for a in sites.alive(None, 106_000, role="plane")] == ["plane"]


def test_a_worker_with_another_registry_is_found_at_its_own_site_only(db: Any) -> None:
    words = [said(100), said(100, writer="worker-1", digest="d2"), said(100, site=B, writer="b", digest="d3")]
    sites = hear(db, Sites(db), *words)
    assert [a.writer for a in sites.with_other_digest(A, "d1", 101_000)] == ["worker-1"]
    assert sites.with_other_digest(A, "d1", 200_000) == []


def test_any_order_and_repeats_are_remembered_alike_also_after_a_restart(db: Any) -> None:
    day_s = REMEMBERED_MS / 1000
    words = [
        said(10, writer="old"),
        said(100, seq=1),
        said(110, seq=2),
        said(110, seq=3, closing=True),
        said(50 + day_s, incarnation="i2", seq=4),
        said(60 + day_s, incarnation="i2", seq=5),
        said(10, site=B, writer="b"),
    ]
    chosen = random.Random(3)
    seen = set()
    for _ in range(50):
        for key in list(db.keys()):
            del db[key]
        order = words * 2
        chosen.shuffle(order)
        sites = hear(db, Sites(db), *order)
        assert Sites(db).announced() == sites.announced()
        seen.add(tuple(sites.announced()))
    (once,) = seen
    assert [(a.site, a.writer, a.incarnation) for a in once] == [
        (A, "worker-0", "i2"),
        (A, "worker-0", "i1"),
        (B, "b", "i1"),
    ]


def test_the_release_of_each_incarnation_is_kept_also_after_a_restart(db: Any) -> None:
    sites = hear(db, Sites(db), said(100))
    fact, origin = said(101, writer="worker-1")
    for key, row in sites.hear(fact, origin, origin.at_ms, 2).items():
        db[key] = row
    for known in (sites, Sites(db)):
        assert {a.writer: a.release for a in known.announced()} == {"worker-0": UNTOLD, "worker-1": 2}


def test_a_clock_ahead_is_no_negative_age(db: Any) -> None:
    sites = hear(db, Sites(db), said(100))
    assert sites.announced()[0].age_s(50_000) == 0
    assert len(sites.alive(A, 50_000)) == 1
