"""Who seals, of several that would: one at a time, whoever starts when, and whoever dies."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from streams.core import records as m
from streams.core.names import Site
from streams.core.sealer_claim import EVERY_S, LIVES_MS, SEALER, TRUSTED_S, SealerClaim

A = Site("T1_A")


def announced(incarnation: str, *, role: str = SEALER, closing: bool = False, site: Site = A) -> m.SiteAnnounced:
    return m.SiteAnnounced(site, SEALER, incarnation, role, "", "0" * 64, (), (), EVERY_S, closing, ())


def test_who_hears_its_own_word_seals_for_a_while() -> None:
    claim = SealerClaim(A)
    assert claim.is_due(0.0)
    claim.send("one", 0.0)
    assert not claim.may_seal(0.1)
    claim.hear(announced("one"), "here", 1000)
    assert claim.may_seal(0.1)
    assert claim.may_seal(TRUSTED_S)
    assert not claim.may_seal(TRUSTED_S + 0.1), "another may have taken over"
    assert not claim.is_due(EVERY_S - 1)
    assert claim.is_due(EVERY_S)
    assert TRUSTED_S * 1000 < LIVES_MS


def test_of_two_that_start_together_the_first_in_the_partition_seals() -> None:
    one, two = SealerClaim(A), SealerClaim(A)
    one.send("one", 0.0)
    two.send("two", 0.0)
    for incarnation in ("two", "one"):
        for claim in (one, two):
            claim.hear(announced(incarnation), incarnation, 1000)
    assert two.may_seal(1.0)
    assert not one.may_seal(1.0)
    assert one.winner is not None
    assert (one.winner.incarnation, two.winner) == ("two", None)


def test_who_said_that_it_ended_or_is_known_to_have_or_was_silent_for_long_is_no_rival() -> None:
    for dead, records in (
        ((), [(announced("old"), 0), (announced("old", closing=True), 10)]),
        (("old",), [(announced("old"), 0)]),
        ((), [(announced("old"), 1000 - LIVES_MS - 1)]),
        ((), [(announced("old", role="worker"), 0)]),
    ):
        claim = SealerClaim(A, dead)
        for said, at_ms in records:
            claim.hear(said, "there", at_ms)
        claim.send("new", 0.0)
        claim.hear(announced("new"), "here", 1000)
        assert claim.may_seal(1.0), records
    claim = SealerClaim(A)
    claim.hear(announced("old"), "there", 1000 - LIVES_MS)
    claim.send("new", 0.0)
    claim.hear(announced("new"), "here", 1000)
    assert not claim.may_seal(1.0)


def test_who_was_stopped_for_long_finds_another_in_its_place() -> None:
    claim = SealerClaim(A)
    claim.send("one", 0.0)
    claim.hear(announced("one"), "here", 0)
    claim.hear(announced("two"), "there", LIVES_MS)
    assert claim.winner is None, "that one has to end: ours still held"
    claim.hear(announced("two"), "there", LIVES_MS + 1)
    assert claim.winner is not None
    assert not claim.may_seal(1.0)


@dataclass
class _Process:
    """Claims at each tick, and seals as soon as it may; `steady` is its own clock, which stops with it."""

    claim: SealerClaim
    name: str
    heard: int = 0
    seals: list[int] = field(default_factory=list)


def test_never_two_at_a_time() -> None:
    """Some processes that start, pause and hear late; all look at one clock."""
    for seed in range(300):
        chance = random.Random(seed)
        log: list[tuple[m.SiteAnnounced, int]] = []
        processes: list[_Process] = []
        for now_s in range(0, 1500, 5):
            if len(processes) < 4 and chance.random() < 0.05:
                processes.append(_Process(SealerClaim(A), f"p{len(processes)}"))
            sealing = set()
            for one in processes:
                if chance.random() < (0.9 if chance.random() < 0.5 else 0.02):
                    continue  # it does nothing for some ticks
                while one.heard < len(log):
                    said, at_ms = log[one.heard]
                    one.claim.hear(said, "there", at_ms)
                    one.heard += 1
                if one.claim.winner is None and one.claim.is_due(now_s):
                    one.claim.send(one.name, now_s)
                    log.append((announced(one.name), now_s * 1000))
                elif one.claim.may_seal(now_s):
                    sealing.add(one.name)
                    one.seals.append(now_s)
            assert len(sealing) <= 1, f"seed {seed} at {now_s} s: {sealing}"
        if processes:
            by_time = sorted((at, one.name) for one in processes for at in one.seals)
            turns = [name for n, (_, name) in enumerate(by_time) if n == 0 or by_time[n - 1][1] != name]
            assert len(turns) == len(set(turns)), f"seed {seed}: {turns}: who lost it does not come back"
