"""What a ledger that is followed keeps: as much after a month as after a day; and how findings are told once."""

from __future__ import annotations

import pickle
import tracemalloc
from array import array

from streams.core import records as m
from streams.core import topics
from streams.core.ledger import Ledger, telling
from streams.core.ledger.findings import Finding, FindingList, IntentCounts, Invariant, LogPosition, Severity
from streams.core.ledger.seals import Seals
from streams.core.ledger.telling import FORGET_MS, ToldFindings, name_of
from streams.core.names import Site
from streams.core.sealing import SealChain
from tests.audit.history import PARTITIONS, A, B, healthy, hear

HERE = LogPosition(A, topics.COMPLETIONS, 0, 5)


def finding(words: str, *records: LogPosition, invariant: Invariant = Invariant.NO_LIE) -> Finding:
    return Finding(invariant, Severity.BROKEN, words, records)


def test_a_finding_is_the_same_while_time_passes() -> None:
    for one, other in (
        (
            "X was read and is neither decided nor refused for 200 s",
            "X was read and is neither decided nor refused for 260 s",
        ),
        ("the last seal of T1_A is 1.2 hours old, and", "the last seal of T1_A is 1,201.3 hours old, and"),
        (
            "nothing was heard since Z (61 min); the last was",
            "nothing was heard since Z (62 min); the last was",
        ),
        ("a file has two contents: 1 and 2", "/store/a has two contents: 1 and 2"),
    ):
        assert name_of(finding(one, HERE)) == name_of(finding(other, HERE)), one
    assert name_of(finding("same", HERE)) != name_of(finding("same", HERE._replace(offset=6)))
    assert name_of(finding("it has 3 items", HERE)) != name_of(finding("it has 4 items", HERE))
    gap = finding("gap: number 1 of X: nowhere", invariant=Invariant.NO_GAP)
    assert name_of(gap) == name_of(finding(gap.words, HERE, invariant=Invariant.NO_GAP)), "neighbours are looked up"


def test_each_is_told_once_and_again_when_it_was_gone_for_a_day() -> None:
    told, one, other = ToldFindings(), finding("one", HERE), finding("other", HERE)
    assert told.news([one], 0) == [one]
    assert told.tell(one, 0)
    assert told.news([one, other], 10) == [other]
    assert not told.tell(one, 10)
    told.tell(other, FORGET_MS + 10)
    assert told.news([one], FORGET_MS + 10) == [], "it was found last at 10"
    later = 2 * FORGET_MS + 20
    told.tell(finding("third"), later)
    assert told.news([one], later) == [one]


def test_what_there_is_no_room_for_is_not_told() -> None:
    told = ToldFindings()
    for n in range(telling.TOLD_MAX):
        assert told.tell(finding(f"broken {n}"), n)
    assert not told.is_full
    assert not told.tell(finding("one more"), 1)
    assert told.is_full
    again = ToldFindings()
    again.go_on(pickle.loads(pickle.dumps(told.kept())))
    assert again.news([finding("broken 7")], 2) == []
    tracemalloc.start()
    for n in range(20_000):
        told.tell(finding(f"more {n}"), 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_open_intents_are_judged_in_turn() -> None:
    """And those of which something was found each time."""
    world = healthy(A, B)
    for number in range(10, 260):
        world.decide(world.ask(number, B))
    world.mirror()
    ledger = Ledger(world.sites, partitions=PARTITIONS, read=[A], live=True)
    for place, rec in world.facts():
        if place.site == A:
            hear(ledger, place, rec)
    soon = world.clock_ms + 1000
    assert notes(ledger, soon) == 0
    later = soon + 2 * 3_600_000
    assert [notes(ledger, later) for _ in range(4)] == [100, 200, 250, 250]


def notes(ledger: Ledger, now_ms: int) -> int:
    return sum("is open and nothing has been heard" in one.words for one in ledger.judge(now_ms).notes)


def chained(seals: Seals, chain: SealChain, start: int, stop: int) -> None:
    journal = m.SealedJournal(chain._site, topics.REPLICAS, 0, 1, b"\1" * 32)
    for no in range(start, stop):
        seal = chain.next(no * 60_000, (journal,), None)
        chain.take(seal)
        assert seals.hear(LogPosition(chain._site, topics.SEALS, 0, no), seal, no * 60_000)


def test_of_a_year_s_seals_the_last_are_kept() -> None:
    seals, chain = Seals(sizes_max=8, chain_max=100), SealChain(A)
    chained(seals, chain, 0, 5000)
    kept = seals._chains[A]
    assert 100 <= len(kept.nos) < 200
    assert kept.nos == array("Q", range(kept.floor, 5000))
    assert len(kept.digests) == 32 * len(kept.nos) == 4 * len(kept.offsets) * 8
    assert len(seals._sealed) == 1
    assert sum(len(one.sizes) for one in seals._sealed.values()) <= 9
    findings = FindingList(10**9)
    seals.judge(frozenset((A,)), lambda *_: True, {}, 0, findings, lengths=False)
    assert findings.close((), IntentCounts()).broken == (), "no hole where the first ones were"


def test_a_seal_before_those_that_are_kept_is_passed_over_and_one_among_them_is_held_against_them() -> None:
    seals, chain = Seals(chain_max=10), SealChain(A)
    old = chain.next(0, (), None)
    chained(seals, chain, 0, 100)
    assert not seals.hear(LogPosition(A, topics.SEALS, 0, 100), old, 0)
    rival = m.JournalsSealed(A, 95, "0" * 64, 5, (), None, b"")
    assert not seals.hear(LogPosition(A, topics.SEALS, 0, 101), rival, 0)
    findings = FindingList(10**9)
    seals.judge(frozenset((A, B)), lambda *_: True, {}, 0, findings, lengths=False)
    (found,) = findings.close((), IntentCounts()).broken
    assert found.words == f"{A} has two seals of number 95 that say different things"
    assert Site(A) in seals.last_ms
