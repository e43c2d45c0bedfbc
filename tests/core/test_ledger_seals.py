"""What seals prove: rewritten and shortened journals, two histories; and bad seals, each named with its place."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core import topics
from streams.core.ledger import digests
from streams.core.ledger.cuts import JournalId
from streams.core.ledger.findings import Finding, FindingList, IntentCounts, Invariant, Judgement, LogPosition, Severity
from streams.core.ledger.seals import PinnedKey, Seals
from streams.core.ledger.trees import JournalTree, leaf_of
from streams.core.names import Site, Text
from streams.core.sealing import COPIES_MS, OWN_MS, SealChain, certified_bytes, digest_of, signed_bytes
from streams.keys import files
from tests.audit.history import START_MS, A, B, C, Federation, Rec, healthy, seals_first
from tests.audit.sealing import SealedWorld

SEAL = Invariant.SEAL
PASSPHRASE = "correct horse"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[Site, files.RootKey]:
    path = tmp_path_factory.mktemp("roots")
    return {site: files.make_root(path / site, site, PASSPHRASE) for site in (A, B, C)}


@pytest.fixture
def keys(roots: dict[Site, files.RootKey], tmp_path: Path) -> dict[Site, files.WorkingKey]:
    return {site: files.issue(root, tmp_path / site, m.SEALER, START_MS, START_MS * 2) for site, root in roots.items()}


@pytest.fixture
def pinned(roots: dict[Site, files.RootKey]) -> dict[Site, PinnedKey]:
    return {site: PinnedKey(root.public) for site, root in roots.items()}


def grown(*sites: Site, keys: dict[Site, files.WorkingKey] | None = None) -> SealedWorld:
    """Three seals a site over a healthy history: before it closed, and twice behind it."""
    world = healthy(*sites)
    made = SealedWorld(world, keys)
    made.seal()
    for turn in range(2):
        body = world.ask(2 + turn, B)
        world.decide(body)
        (manifest,) = world.write(body, ())
        world.report(manifest.manifest, B, "open")
        world.workers[B].announce()
        world.transfer(manifest, B)
        for writer in world.writers[1:]:
            writer.announce(closing=True)
        world.mirror()
        made.seal()
    for writer in world.writers:
        writer.announce(closing=True)
    world.mirror()
    return made


def seals_of(judgement: Judgement) -> list[Finding]:
    return [finding for finding in judgement.findings if finding.invariant is SEAL]


def later(sealed: SealedWorld) -> int:
    return sealed.world.clock_ms + 3_000_000


def test_what_was_sealed_is_clean(keys: dict[Site, files.WorkingKey], pinned: dict[Site, PinnedKey]) -> None:
    sealed = grown(A, B, C, keys=keys)
    judged = sealed.world.judge(now_ms=later(sealed), keys=pinned)
    assert judged.findings == ()
    assert [remark for remark in judged.unchecked if remark.invariant is SEAL] == []
    assert judged.checked[SEAL] > 100
    for site in (A, B, C):
        alone = sealed.world.judge(now_ms=later(sealed), keys=pinned, read=[site])
        assert alone.findings == ()


def rewrite(world: Federation, place: LogPosition, sites: tuple[Site, ...] = ()) -> Rec:
    """Another time of writing in the origin: in the journal and every copy, or at these sites."""
    rec = world.at(place)
    value = rec.value
    lie = replace(rec, at_ms=rec.at_ms, value=value, headers=(*rec.headers, ("seen", b"")))
    for key, log in world.logs.items():
        if not sites or key[0] in sites:
            world.logs[key] = [(o, lie if r is rec or r == rec else r) for o, r in log]
    return lie


def sealed_partition(sealed: SealedWorld, site: Site, base: str) -> list[LogPosition]:
    """Records of a partition of a topic that grew between two seals."""
    by: dict[int, list[LogPosition]] = {}
    for place, _ in sealed.world.records(site, base):
        by.setdefault(place.partition, []).append(place)
    return max(by.values(), key=len)


def test_a_past_that_was_rewritten_everywhere_alike_is_named_with_both_seals() -> None:
    sealed = grown(A, B, C)
    places = sealed_partition(sealed, A, topics.INTENTS)
    rewrite(sealed.world, places[-1])
    found = seals_of(sealed.world.judge(now_ms=later(sealed)))
    assert {f.severity for f in found} == {Severity.BROKEN}
    own = next(f for f in found if f"{A} {topics.INTENTS}[{places[0].partition}] is not as {A} sealed it" in f.words)
    seals = [place for place in own.records if place.topic == topics.SEALS]
    assert places[-1] in own.records
    assert len(seals) == 2, "the last that is true, the first that is not"
    assert all(place.site == A for place in own.records)


def test_the_first_record_rewritten() -> None:
    sealed = grown(A, B)
    place = sealed_partition(sealed, B, topics.COMPLETIONS)[0]
    rewrite(sealed.world, place)
    found = seals_of(sealed.world.judge(now_ms=later(sealed)))
    assert any(place in f.records and "is not as T2_B sealed it" in f.words for f in found)


@pytest.mark.parametrize("base", [topics.TRANSFERS, topics.CHUNK_EVENTS])
def test_a_journal_that_is_never_mirrored(base: str) -> None:
    sealed = grown(A, B)
    places = sealed_partition(sealed, B, base)
    rewrite(sealed.world, places[len(places) // 2])
    found = [f for f in sealed.world.judge(now_ms=later(sealed)).broken if f.invariant is SEAL]
    assert [f.words.partition(" is not")[0] for f in found] == [f"{B} {base}[{places[0].partition}]"]


def test_two_peers_two_histories_and_the_auditor_reads_one_cluster() -> None:
    world = healthy(A, B, C)
    place = world.where(B, topics.REPORTS)[0]
    rewrite(world, place, (C,))
    sealed = SealedWorld(world)
    sealed.seal()
    for site, other in ((A, C), (C, A)):
        found = seals_of(world.judge(now_ms=later(sealed), read=[site]))
        words = f"{B} showed {site} and {other} two histories"
        told = next(f for f in found if words in f.words)
        seals = {place.topic for place in told.records if topics.split(place.topic)[1] == topics.SEALS}
        assert topics.remote(other, topics.SEALS) in seals
        assert topics.remote(B, topics.SEALS) in seals
        assert {place.site for place in told.records} == {site}


def test_two_peers_two_histories_told_by_seals_alone() -> None:
    """The auditor's own copy has not come so far."""
    world = healthy(A, B, C)
    place = world.where(B, topics.REPORTS)[0]
    rewrite(world, place, (C,))
    sealed = SealedWorld(world)
    sealed.seal()
    world.logs[A, f"{B}.{topics.REPORTS}", place.partition] = []
    found = seals_of(world.judge(now_ms=later(sealed), read=[A]))
    assert any(f"sealed two histories of {B} {topics.REPORTS}[{place.partition}]" in f.words for f in found)


@pytest.mark.parametrize(
    ("site", "base"), [(A, topics.INTENTS), (A, topics.REPLICAS), (B, topics.TRANSFERS), (B, topics.DEAD_LETTERS)]
)
def test_a_tail_that_was_removed_everywhere(site: Site, base: str) -> None:
    sealed = grown(A, B, C)
    if base == topics.DEAD_LETTERS:
        sealed.world.workers[site].say(m.DeadLetter(Text("no"), "manifests", 0, 0, b"", b"", ""))
        sealed.seal()
    last = sealed_partition(sealed, site, base)[-1]
    rec = sealed.world.at(last)
    for key, log in sealed.world.logs.items():
        sealed.world.logs[key] = [(o, r) for o, r in log if r != rec]
    found = seals_of(sealed.world.judge(now_ms=later(sealed)))
    told = next(f for f in found if f"{site} {base}[{last.partition}] is shorter than sealed" in f.words)
    assert [place.topic for place in told.records] == [topics.SEALS]


def test_a_copy_that_lost_its_tail_after_it_was_sealed() -> None:
    sealed = grown(A, B)
    world = sealed.world
    copy = world.records(A, f"{B}.{topics.REPORTS}")[-1][0]
    world.drop(copy)
    alone = seals_of(world.judge(now_ms=later(sealed), read=[A]))
    assert any(f.words.startswith(f"{A}'s copy of {B} {topics.REPORTS}") for f in alone)


def test_a_copy_that_lags_waits_and_one_that_lags_long_is_told() -> None:
    world = healthy(A, B)
    sealed = SealedWorld(world)
    sealed.seal(B)
    for _, rec in world.records(A, f"{B}.{topics.REPORTS}"):
        for key, log in world.logs.items():
            if key[0] == A:
                world.logs[key] = [(o, r) for o, r in log if r != rec]
    young = world.judge(now_ms=world.clock_ms, read=[A])
    assert seals_of(young) == []
    assert any(remark.words == f"sealed records in flight to {A}" for remark in young.waiting)
    old = seals_of(world.judge(now_ms=later(sealed), read=[A]))
    assert any("lacks sealed records" in f.words for f in old)


def test_the_copy_s_own_seal_tells_that_it_was_changed_later() -> None:
    sealed = grown(A, B)
    world = sealed.world
    copy = world.records(A, f"{B}.{topics.REPORTS}")[0][0]
    world.put(copy, replace(world.at(copy), headers=(*world.at(copy).headers, ("x", b"y"))))
    found = seals_of(world.judge(now_ms=later(sealed)))
    assert any(f.words.startswith(f"{A}'s copy of {B} {topics.REPORTS}") and copy in f.records for f in found)


# bad seals


def say(sealed: SealedWorld, seal: m.JournalsSealed) -> LogPosition:
    place = sealed.world.writer(seal.site, "intruder", "cli").say(seal)
    sealed.world.mirror()
    return place


def last_seal(sealed: SealedWorld, site: Site) -> tuple[LogPosition, m.JournalsSealed]:
    place, rec = sealed.world.records(site, topics.SEALS)[-1]
    seal = sealed.world.decoded(place, rec).message
    assert isinstance(seal, m.JournalsSealed)
    return place, seal


def follow(seal: m.JournalsSealed, key: files.WorkingKey | None = None, **changes: Any) -> m.JournalsSealed:
    """A seal behind this one, signed if there is a key."""
    certificate = key.certificate if key else None
    made: dict[str, Any] = {"no": seal.no + 1, "prev_sha256": digest_of(seal), "certificate": certificate}
    body = replace(seal, **{**made, "signature": b"", **changes})
    return replace(body, signature=key.sign(signed_bytes(body))) if key else body


def test_a_number_said_twice(keys: dict[Site, files.WorkingKey], pinned: dict[Site, PinnedKey]) -> None:
    sealed = grown(A, B, keys=keys)
    place, seal = last_seal(sealed, A)
    body = replace(seal, sealed_ms=seal.sealed_ms + 1)
    other = say(sealed, replace(body, signature=keys[A].sign(signed_bytes(body))))
    (found,) = seals_of(sealed.world.judge(now_ms=later(sealed), keys=pinned))
    assert f"{A} has two seals of number {seal.no}" in found.words
    assert found.records == (place, other)
    say(sealed, seal)
    assert len(seals_of(sealed.world.judge(now_ms=later(sealed), keys=pinned))) == 1, "said again it is the same"


def _bad(change: Callable[[m.JournalsSealed, dict[Site, files.WorkingKey]], m.JournalsSealed], words: str) -> Any:
    return pytest.param(change, words, id=words[:40])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        _bad(lambda s, k: replace(follow(s, k[A]), signature=bytes(64)), "its signature is not that of its key"),
        _bad(lambda s, k: replace(follow(s, k[A]), sealed_ms=s.sealed_ms + 1), "its signature is not that of its key"),
        _bad(
            lambda s, k: follow(s, k[A], certificate=replace(k[A].certificate, signature=bytes(64))),
            "is not certified by the root key of T1_A",
        ),
        _bad(
            lambda s, k: follow(s, k[B], certificate=replace(k[B].certificate, site=A)),
            "is not certified by the root key of T1_A",
        ),
        _bad(lambda s, k: follow(s, k[A], sealed_ms=START_MS - 1), "was not good when it was made"),
        _bad(lambda s, k: follow(s, k[A], sealed_ms=START_MS * 2 + 1), "was not good when it was made"),
        _bad(lambda s, k: follow(s, k[A], prev_sha256="0" * 64), "does not continue seal 2 of T1_A"),
        _bad(lambda s, k: follow(s, k[A], no=s.no + 3), "seals 3 to 4 of T1_A: nowhere that was read"),
        _bad(lambda s, k: follow(s, k[A], no=1 << 60), "seals 3 to 1152921504606846975 of T1_A: nowhere"),
        _bad(
            lambda s, k: follow(s, k[A], journals=(m.SealedJournal(A, topics.REPLICAS, 0, 1 << 60, bytes(32)),)),
            "replicas[0] is shorter than sealed",
        ),
        _bad(
            lambda s, k: follow(s, k[A], journals=(m.SealedJournal(A, "nothing", 99, 7, bytes(32)),)),
            "T1_A nothing[99] is shorter than sealed: it has 0 records",
        ),
        _bad(
            lambda s, k: follow(s, k[A], journals=(m.SealedJournal(Site("T9_X"), "manifests", 0, 7, bytes(32)),)),
            "T1_A's copy of T9_X manifests[0] is shorter than it sealed",
        ),
        _bad(
            lambda s, k: follow(s, k[A], journals=(replace(s.journals[0], root=bytes(32)),)),
            "is not as T1_A sealed it",
        ),
    ],
)
def test_a_bad_seal_is_named(
    keys: dict[Site, files.WorkingKey],
    pinned: dict[Site, PinnedKey],
    change: Callable[[m.JournalsSealed, dict[Site, files.WorkingKey]], m.JournalsSealed],
    words: str,
) -> None:
    sealed = grown(A, B, keys=keys)
    place = say(sealed, change(last_seal(sealed, A)[1], keys))
    found = seals_of(sealed.world.judge(now_ms=later(sealed) + 2 * START_MS, keys=pinned))
    told = [f for f in found if words in f.words]
    assert len(told) == 1, [f.words for f in found]
    assert place in told[0].records
    assert {f.severity for f in found if f is not told[0]} <= {Severity.NOTE}


def test_sizes_that_shrink(keys: dict[Site, files.WorkingKey], pinned: dict[Site, PinnedKey]) -> None:
    sealed = grown(A, B, keys=keys)
    before, seal = last_seal(sealed, A)
    tree = JournalTree()
    at = next(n for n, one in enumerate(seal.journals) if one.site == A and one.size > 1)
    one = seal.journals[at]
    for _, rec in sealed.world.logs[A, one.topic, one.partition][: one.size - 1]:
        tree.append(leaf_of(rec.key, rec.value, rec.headers))
    place = say(sealed, follow(seal, keys[A], journals=(replace(one, size=one.size - 1, root=tree.root),)))
    (found,) = seals_of(sealed.world.judge(now_ms=later(sealed), keys=pinned))
    assert "sizes never shrink" in found.words
    assert found.records == (place, before)


def test_a_revoked_key_is_good_until_it_was_revoked(
    keys: dict[Site, files.WorkingKey], roots: dict[Site, files.RootKey]
) -> None:
    sealed = grown(A, B, keys=keys)
    place, _ = last_seal(sealed, A)
    logged_ms = sealed.world.at(place).at_ms
    for since, count in ((logged_ms + 1, 0), (logged_ms, 1), (START_MS, 3)):
        pins = {A: PinnedKey(roots[A].public, {keys[A].certificate.kid: since}), B: PinnedKey(roots[B].public)}
        found = [f for f in sealed.world.judge(now_ms=later(sealed), keys=pins).broken if "revoked" in f.words]
        assert len(found) == count
        assert count == 0 or place in [f.records[0] for f in found]


def test_unsigned_and_missing_seals_cannot_be_checked(pinned: dict[Site, PinnedKey]) -> None:
    sealed = grown(A, B)
    unsigned = sealed.world.judge(now_ms=later(sealed), keys=pinned)
    assert unsigned.findings == ()
    words = [remark.words for remark in unsigned.unchecked if remark.invariant is SEAL]
    assert words == [f"who made seals of {A}: unsigned", f"who made seals of {B}: unsigned"]
    none = healthy(A, B).judge()
    words = [remark.words for remark in none.unchecked if remark.invariant is SEAL]
    assert words == [f"journals of {site}: no seal of them was read" for site in (A, B)]


def test_an_unsigned_seal_accuses_nobody_whose_key_is_pinned(
    keys: dict[Site, files.WorkingKey], pinned: dict[Site, PinnedKey]
) -> None:
    sealed = grown(A, B, keys=keys)
    _, seal = last_seal(sealed, A)
    say(sealed, follow(seal, journals=(replace(seal.journals[0], root=bytes(32)),)))
    assert seals_of(sealed.world.judge(now_ms=later(sealed), keys=pinned)) == []
    assert seals_of(sealed.world.judge(now_ms=later(sealed))) != []


def test_signed_seals_of_who_has_pinned_no_key_cannot_be_checked(keys: dict[Site, files.WorkingKey]) -> None:
    judged = (sealed := grown(A, B, keys=keys)).world.judge(now_ms=later(sealed))
    assert judged.findings == ()
    assert f"who made seals of {A}: sites.toml pins no root_key of it" in [r.words for r in judged.unchecked]


def test_stale_seals_are_a_note_with_their_age() -> None:
    sealed = grown(A, B)
    assert seals_of(sealed.world.judge(now_ms=later(sealed))) == []
    sealed.world.clock_ms += 7_200_000
    sealed.world.workers[A].announce()
    (note,) = seals_of(sealed.world.judge(now_ms=sealed.world.clock_ms + 3_600_000))
    assert note.severity is Severity.NOTE
    assert f"the last seal of {A} is 3.0 hours old" in note.words


def test_seals_that_are_read_last_still_tell_of_the_last_size() -> None:
    sealed = grown(A, B)
    rewrite(sealed.world, sealed_partition(sealed, A, topics.REPLICAS)[0])
    facts = list(sealed.world.facts())
    judged = sealed.world.judge(sorted(facts, key=_seals_last), now_ms=later(sealed))
    assert any("is not as T1_A sealed it" in f.words for f in seals_of(judged))
    assert any("passed before their seal was read" in remark.words for remark in judged.unchecked)


def _seals_last(fact: tuple[LogPosition, Rec]) -> tuple[bool, LogPosition]:
    return topics.split(fact[0].topic)[1] == topics.SEALS, fact[0]


def test_read_twice_it_says_the_same() -> None:
    sealed = grown(A, B)
    rewrite(sealed.world, sealed_partition(sealed, A, topics.INTENTS)[-1])
    facts = list(sealed.world.facts())
    once = sealed.world.judge(facts, now_ms=later(sealed))
    assert sealed.world.judge([*facts, *facts], now_ms=later(sealed)).findings == once.findings


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["clean", "rewritten", "shorter"]))
def test_any_order_of_the_other_journals_and_any_repeats_say_the_same(chance: random.Random, how: str) -> None:
    world = _world(how)
    keys = sorted({place[:3] for place, _ in world.facts()}, key=lambda key: seals_first((key, None)))
    seals = [key for key in keys if topics.split(key[1])[1] == topics.SEALS]
    others = [key for key in keys if key not in seals]
    twice = chance.sample(others, len(others) // 3)
    chance.shuffle(others)
    facts = [(LogPosition(*key, offset), rec) for key in (*seals, *others, *twice) for offset, rec in world.logs[key]]
    found = seals_of(world.judge(facts, now_ms=world.clock_ms + 3_000_000))
    assert found == seals_of(world.judge(now_ms=world.clock_ms + 3_000_000))
    assert bool(found) == (how != "clean")


@cache
def _world(how: str) -> Federation:
    sealed = grown(A, B)
    place = sealed_partition(sealed, A, topics.INTENTS)[-1]
    if how == "rewritten":
        rewrite(sealed.world, place)
    elif how == "shorter":
        rec = sealed.world.at(place)
        for key, log in sealed.world.logs.items():
            sealed.world.logs[key] = [(o, r) for o, r in log if r != rec]
    return sealed.world


# what is shared with nobody


def test_the_ledger_computes_what_was_signed_as_the_sealer_does(keys: dict[Site, files.WorkingKey]) -> None:
    sealed = grown(A, B, keys=keys)
    _, seal = last_seal(sealed, A)
    assert seal.certificate is not None
    told: list[bytes] = []
    one = seal.journals[0]
    changed: list[m.JournalsSealed] = [seal, replace(seal, certificate=None)]
    other: dict[str, Any] = {"site": B, "topic": "x", "partition": 9, "size": 9, "root": b"\1" * 32, "no": 99}
    other |= {"prev_sha256": "1" * 64, "sealed_ms": 1, "kid": "1" * 16, "public_key": b"\1" * 32, "kind": "x"}
    other |= {"not_before_ms": 1, "not_after_ms": 2, "signature": b"\1" * 64, "journals": (one,), "certificate": None}
    for field in fields(one):
        journals = (replace(one, **{field.name: other[field.name]}), *seal.journals[1:])
        changed.append(replace(seal, journals=journals))
    for field in fields(seal.certificate):
        certificate = replace(seal.certificate, **{field.name: other[field.name]})
        changed.append(replace(seal, certificate=certificate))
        assert digests.certified(certificate) == certified_bytes(certificate)
    changed += [replace(seal, **{field.name: other[field.name]}) for field in fields(seal)]
    for it in changed:
        assert digests.sealed(it) == signed_bytes(it)
        assert digests.seal_sha256(it).hex() == digest_of(it)
        told.append(digests.seal_sha256(it))
    assert len(set(told)) == len(changed) - 1, "every field counts; no certificate stands there twice"


def test_memory_is_bounded_whatever_is_sealed() -> None:
    journal = JournalId(A, "manifests", 0)
    seals, n = Seals(), 40_000
    tracemalloc.start()
    for no in range(n // 500):
        entries = tuple(m.SealedJournal(A, f"t{at}", 0, no + 1, bytes(32)) for at in range(500))
        chained = m.JournalsSealed(A, no, "0" * 64 if no else "", 0, entries, None, b"")
        seals.hear(LogPosition(A, topics.SEALS, 0, no), chained, 0)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 70 * n
    other = Seals(sizes_max=100)
    for no in range(1000):
        one = m.SealedJournal(A, "manifests", 0, no + 1, no.to_bytes(32, "big"))
        other.hear(LogPosition(A, topics.SEALS, 0, no), m.JournalsSealed(A, no, "", 0, (one,), None, b""), 0)
    known = other.walk(A, journal, JournalTree())._sealed
    assert len(known.sizes) <= 100
    assert known.sizes[-1] == 1000
    assert known.left_out == 1000 - len(known.sizes)
    assert all(int.from_bytes(known.root(at), "big") == known.sizes[at] - 1 for at in range(len(known.sizes)))


def test_a_million_names_of_journals_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.core.ledger.seals.JOURNALS_MAX", 50)
    other = Seals()
    for no in range(3):
        entries = tuple(m.SealedJournal(A, f"t{no}-{at}", 0, 1, bytes(32)) for at in range(30))
        other.hear(LogPosition(A, topics.SEALS, 0, no), m.JournalsSealed(A, no, "", 0, entries, None, b""), 0)
    findings = FindingList(1000)
    other.judge(frozenset([A]), lambda *_: False, {}, 0, findings)
    told = {remark.words: remark.count for remark in findings.close((), IntentCounts()).unchecked}
    assert told["sealed sizes of more journals than are kept"] == 40


# the chain


def test_what_is_due_when() -> None:
    chain, own, copy = SealChain(A), JournalId(A, "manifests", 0), JournalId(B, "manifests", 0)

    def due(now_ms: int, size: int) -> list[tuple[Site, int]]:
        trees = {one: JournalTree() for one in (copy, own, JournalId(A, topics.SEALS, 1))}
        for tree in trees.values():
            for _ in range(size):
                tree.append(bytes(32))
        found = chain.due(now_ms, trees)
        if found:
            chain.take(chain.next(now_ms, found, None))
        return [(one.site, one.size) for one in found]

    assert due(0, 0) == []
    assert due(OWN_MS, 5) == [(A, 5)], "copies later"
    assert due(OWN_MS + 1, 6) == [], "not yet"
    assert due(2 * OWN_MS, 5) == [], "nothing changed"
    assert due(3 * OWN_MS, 6) == [(A, 6)]
    assert due(COPIES_MS, 6) == [(B, 6)]
    assert due(COPIES_MS + OWN_MS, 7) == [(A, 7)]
    assert due(0, 8) == [(A, 8), (B, 8)], "the clock went back"
    assert chain.next_no == 5


def test_a_chain_goes_on_behind_what_is_in_the_log() -> None:
    sealed = grown(A, B)
    again = SealChain(A)
    for _, rec in sealed.world.records(A, topics.SEALS) * 2:
        place = LogPosition(A, topics.SEALS, topics.partition_of(A, 4), 0)
        seal = sealed.world.decoded(place, rec).message
        assert isinstance(seal, m.JournalsSealed)
        again.take(seal)
    assert again.next_no == sealed.sealers[A].chain.next_no == 3
    assert again.due(0, sealed.sealers[A].cluster.trees) == []
    assert again.next(0, (), None) == sealed.sealers[A].chain.next(0, (), None)
