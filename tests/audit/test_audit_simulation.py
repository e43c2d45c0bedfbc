"""The ledger over what the product itself writes: simulated federations under faults, broken once, are not clean.

That they are clean when nothing is broken is looked at for each of the simulation's histories (tests/sim). Its sites
write the journals, so neither side of this comparison was made to fit the other.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).parents[1] / "sim"))

from streams import wire
from streams.auditing.index import open_index
from streams.core import records as m
from streams.core import topics
from streams.core.ledger import Ledger
from streams.core.ledger.findings import FindingList, Invariant, Judgement, LogPosition
from streams.core.names import Lfn, Site
from streams.core.ranges import Ranges
from tests.audit.history import Rec, hear, judged, locate
from tests.audit.sealing import sealed
from tests.sim import test_simulation as simulation
from tests.sim import world as sim
from tests.sim.world import PARTITIONS

SEEDS = range(7000, 7012)

Logs = dict[tuple[str, str, int], list[Rec]]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


def finished(seed: int) -> tuple[tuple[str, ...], Logs]:
    """The sites and journals of a simulated run, healed and ended; the caller may break them."""
    names, logs = _finished(seed)
    return names, {key: list(log) for key, log in logs.items()}


@cache
def _finished(seed: int) -> tuple[tuple[str, ...], Logs]:
    world = simulation.scenario(seed, stale=seed % 2 == 0)
    world.run(600)
    assert world.settle(3000)
    logs = {key: [Rec(r.key, r.value, r.headers, 0) for r in log] for key, log in world.logs.items()}
    return world.names, logs


def origin(rec: Rec) -> m.Origin:
    return wire.decode_value(m.Origin, dict(rec.headers)[wire.ORIGIN] or b"")


def _records(logs: Logs, base: str) -> list[tuple[tuple[str, str, int], int, Rec]]:
    return [
        (key, n, rec)
        for key, log in sorted(logs.items())
        if topics.split(key[1])[1] == base
        for n, rec in enumerate(log)
    ]


def _without(logs: Logs, gone: Callable[[tuple[str, str, int], m.Origin], bool]) -> None:
    for key, log in logs.items():
        logs[key] = [rec for rec in log if not gone(key, origin(rec))]


def lose_a_copy(chance: random.Random, logs: Logs) -> Invariant:
    key, _, rec = chance.choice([r for r in _records(logs, topics.COMPLETIONS) if "." in r[0][1]])
    lost = origin(rec)
    _without(logs, lambda where, it: where == key and (it.incarnation, it.seq) == (lost.incarnation, lost.seq))
    return Invariant.NO_GAP


def lose_everywhere(chance: random.Random, logs: Logs) -> Invariant:
    """Number 0 of a stream that has more: a tail that nobody announced cannot be missed."""
    seen: dict[tuple[str, str, int], int] = {}
    for (_, topic, partition), log in logs.items():
        for rec in log:
            stream = (origin(rec).incarnation, topics.split(topic)[1], partition)
            seen[stream] = max(seen.get(stream, 0), origin(rec).seq)
    incarnation, base, partition = chance.choice([s for s, last in sorted(seen.items()) if last])
    _without(
        logs,
        lambda where, it: (
            (it.incarnation, topics.split(where[1])[1], where[2]) == (incarnation, base, partition) and it.seq == 0
        ),
    )
    return Invariant.NO_GAP


def lie_about_bytes(chance: random.Random, logs: Logs) -> Invariant:
    """The same lie in every copy, so that only the manifest can tell."""
    _, _, rec = chance.choice(_records(logs, topics.COMPLETIONS))
    done = wire.decode_value(m.CompletionRecord, rec.value or b"")
    # of entries the gate holds the sum to what landed, so that must lie too
    landed = tuple(replace(one, bytes=one.bytes + 1) for one in done.landed[:1]) + done.landed[1:]
    lie = wire.encode(replace(done, bytes=done.bytes + 1, landed=landed))
    for log in logs.values():
        for n, other in enumerate(log):
            if other.value == rec.value:
                log[n] = replace(other, value=lie)
    return Invariant.CONSERVATION


def contradict(chance: random.Random, logs: Logs) -> Invariant:
    """A destination's second incarnation says that all was cancelled."""
    said = [r for r in _records(logs, topics.COMPLETIONS) if "." not in r[0][1]]
    # Of no items nothing else can be said.
    some = [r for r in said if wire.decode_value(m.CompletionRecord, r[2].value or b"").items]
    key, _, rec = chance.choice(some or said)
    done = wire.decode_value(m.CompletionRecord, rec.value or b"")
    whole = Ranges([(0, done.items)])
    sealed = Ranges() if done.sealed or not done.items else whole.first(1)
    ended = m.Ended.CANCELLED if whole - sealed else m.Ended.DONE
    other = replace(done, ended=ended, sealed=sealed, failed=(), cancelled=whole - sealed, bytes=0, landed=())
    headers = wire.headers(other, replace(origin(rec), incarnation="liar", seq=0))
    logs[key].append(Rec(rec.key, wire.encode(other), tuple(headers), 0))
    return Invariant.ONE_EFFECT


@pytest.mark.parametrize("hurt", [lose_a_copy, lose_everywhere, lie_about_bytes, contradict])
def test_broken_once_it_is_found(hurt: Callable[[random.Random, Logs], Invariant]) -> None:
    tried = 0
    for seed in SEEDS:
        sites, logs = finished(seed)
        if not _records(logs, topics.COMPLETIONS):
            continue
        tried += 1
        wanted = hurt(random.Random(seed), logs)
        found = {f.invariant for f in judged(sites, logs, PARTITIONS).broken}
        assert wanted in found, f"seed {seed}: {found}"
    assert tried >= 5


Place = tuple[str, str, int, int]


def _said(logs: Logs, base: str, cls: type[m.Message]) -> list[tuple[Place, Rec, m.Message]]:
    """Originals of one kind in the topics of this name, each with its place."""
    found = []
    for (site, topic, partition), n, rec in _records(logs, base):
        if "." not in topic:
            said = wire.decode(topic, rec.key, rec.value, rec.headers, Site(site)).message
            if isinstance(said, cls):
                found.append(((site, topic, partition, n), rec, said))
    return found


def _rewrite(logs: Logs, rec: Rec, lie: m.Message) -> None:
    """The same lie in the original and in every copy."""
    for log in logs.values():
        for n, other in enumerate(log):
            if (other.value, other.headers) == (rec.value, rec.headers):
                log[n] = replace(other, value=wire.encode(lie))


def tell_past_the_end(chance: random.Random, logs: Logs) -> tuple[Invariant, Place] | None:
    told = [one for one in _said(logs, topics.CHUNK_EVENTS, m.TransferProgress) if not one[2].destination.consumer]
    written = {one[2].manifest for one in _said(logs, topics.MANIFESTS, m.ManifestWritten)}
    told = [one for one in told if one[2].manifest in written]
    if not told:  # of a history in which nothing moved
        return None
    place, rec, said = chance.choice(told)
    assert isinstance(said, m.TransferProgress)
    _rewrite(logs, rec, replace(said, verified=said.verified | Ranges([(10**9, 10**9 + 5)])))
    return Invariant.NO_LIE, place


def open_nothing(chance: random.Random, logs: Logs) -> tuple[Invariant, Place] | None:
    """An attempt that nobody can have ordered, let alone opened."""
    told = [one for one in _said(logs, topics.CHUNK_EVENTS, m.TransferProgress) if one[2].verified]
    if not told:
        return None
    place, rec, said = chance.choice(told)
    assert isinstance(said, m.TransferProgress)
    _rewrite(logs, rec, replace(said, attempt=77))
    return Invariant.NO_LIE, place


def serve_unasked(chance: random.Random, logs: Logs) -> tuple[Invariant, Place] | None:
    served = [one for one in _said(logs, topics.CHUNK_EVENTS, m.ChunksServed) if one[2].ranges]
    if not served:
        return None
    place, rec, said = chance.choice(served)
    assert isinstance(said, m.ChunksServed)
    _rewrite(logs, rec, replace(said, ranges=said.ranges | Ranges([(10**9, 10**9 + 5)])))
    return Invariant.NO_LIE, place


def cancel_unasked(chance: random.Random, logs: Logs) -> tuple[Invariant, Place] | None:
    asked = {one[2].intent for one in _said(logs, topics.INTENTS, m.IntentAsked) if one[2].asked is m.Asked.CANCEL}
    decided = [one for one in _said(logs, topics.DECISIONS, m.IntentDecided) if one[2].intent not in asked]
    if not decided:
        return None
    place, rec, said = chance.choice(decided)
    assert isinstance(said, m.IntentDecided)
    _rewrite(logs, rec, replace(said, verdict=m.Verdict.CANCELLED, reason=sim.DIFFERS))
    return Invariant.CONSERVATION, place


def hold_nothing(chance: random.Random, logs: Logs) -> tuple[Invariant, Place] | None:
    """A site never said it holds a file of which a manifest names it as the holder."""
    written = _said(logs, topics.MANIFESTS, m.ManifestWritten)
    first = {said: place for place, _, said in reversed(written)}  # one that is said again proves no more
    named = [(place, item) for said, place in sorted(first.items(), key=lambda one: one[1]) for item in said.items]
    named = [(place, item) for place, item in named if item.holder is not None]
    if not named:
        return None
    place, item = chance.choice(named)
    for _, rec, said in _said(logs, topics.REPLICAS, m.FilesHeld):
        assert isinstance(said, m.FilesHeld)
        if said.site == item.holder and any(file.lfn == item.lfn for file in said.files):
            files = tuple(replace(f, lfn=Lfn(f"{f.lfn}-else")) if f.lfn == item.lfn else f for f in said.files)
            _rewrite(logs, rec, replace(said, files=files))
    return Invariant.NO_LIE, place


def swap_in_a_copy(chance: random.Random, logs: Logs) -> tuple[Invariant, Place] | None:
    """In one whose mirror never repeated anything."""
    whole = []
    for key, log in sorted(logs.items()):
        numbers = [(origin(rec).incarnation, origin(rec).seq) for rec in log]
        if "." in key[1] and len(log) > 1 and len(set(numbers)) == len(numbers):
            whole.append(key)
    if not whole:
        return None
    key = chance.choice(whole)
    at = chance.randrange(len(logs[key]) - 1)
    logs[key][at], logs[key][at + 1] = logs[key][at + 1], logs[key][at]
    return Invariant.NO_GAP, (*key, at)


@pytest.mark.parametrize(
    "lie", [tell_past_the_end, open_nothing, serve_unasked, cancel_unasked, hold_nothing, swap_in_a_copy]
)
def test_a_lie_that_is_told_alike_everywhere_is_found_with_its_record(
    lie: Callable[[random.Random, Logs], tuple[Invariant, Place] | None],
) -> None:
    tried = 0
    for seed in SEEDS:
        sites, logs = finished(seed)
        told = lie(random.Random(seed), logs)
        if told is None:
            continue
        tried += 1
        invariant, place = told
        found = judged(sites, logs, PARTITIONS).broken
        named = [f for f in found if f.invariant is invariant and place in [tuple(record) for record in f.records]]
        assert named, f"seed {seed}: {place} is not in {[(f.words, f.records) for f in found]}"
    assert tried >= 5


# what only seals tell


def seals_say(
    chance: random.Random, sites: tuple[str, ...], logs: Logs, change: Callable[[Logs], None]
) -> tuple[Site, ...]:
    """Seals of all sites, and the same journals changed behind their backs; the sites."""
    names = tuple(Site(name) for name in sites)
    sealed(names, logs, PARTITIONS, chance)  # type: ignore[arg-type]
    change(logs)
    return names


def _of_a_journal(logs: Logs, chance: random.Random, base: str | None = None) -> tuple[tuple[str, str, int], int, Rec]:
    """A record of a site's own journal: of this topic, or any that is sealed."""
    own = [
        (key, n, rec)
        for key, log in sorted(logs.items())
        if "." not in key[1] and _is_sealed(key) and base in (None, key[1])
        for n, rec in enumerate(log)
    ]
    return chance.choice(own)


def _is_sealed(key: tuple[str, str, int]) -> bool:
    return not topics.is_chunks(key[1]) and key[1] != topics.SEALS


def _gone(logs: Logs, gone: Callable[[Rec], bool]) -> None:
    for key, log in logs.items():
        logs[key] = [rec for rec in log if not gone(rec)]


def _number(rec: Rec) -> tuple[str, int]:
    return origin(rec).incarnation, origin(rec).seq


def _same_journal(key: tuple[str, str, int], other: tuple[str, str, int]) -> bool:
    """Whether `other` is the journal `key` or a copy of it."""
    writer, base = topics.split(other[1])
    return (writer or other[0], base, other[2]) == key


def rewrite_the_past(chance: random.Random, logs: Logs) -> tuple[str, str, int]:
    """Another time of writing, in the journal and in every copy."""
    key, _, rec = _of_a_journal(logs, chance)
    for other, log in logs.items():
        if _same_journal(key, other):
            for n, one in enumerate(log):
                if _number(one) == _number(rec):
                    said = replace(origin(one), at_ms=origin(one).at_ms + 1)
                    heads = tuple((h, wire.encode(said) if h == wire.ORIGIN else v) for h, v in one.headers)
                    log[n] = replace(one, headers=heads)
    return key


def cut_a_tail(chance: random.Random, logs: Logs) -> tuple[str, str, int]:
    """The last records of a journal, and all that its copies have of them."""
    key, at, _ = _of_a_journal(logs, chance)
    kept = {_number(rec) for rec in logs[key][:at]}
    for other in [other for other in logs if _same_journal(key, other)]:
        logs[other] = [rec for rec in logs[other] if _number(rec) in kept]
    return key


def lose_a_producer(chance: random.Random, logs: Logs) -> tuple[str, str, int]:
    """Every record of an incarnation, everywhere; nobody announces one here, so its numbers are not missed."""
    key, _, rec = _of_a_journal(logs, chance)
    incarnation = origin(rec).incarnation
    _gone(logs, lambda one: origin(one).incarnation == incarnation)
    return key


def swap_everywhere(chance: random.Random, logs: Logs) -> tuple[str, str, int]:
    """Two records behind one another change their places, in the journal and in every copy that has both."""
    long = [key for key, log in sorted(logs.items()) if "." not in key[1] and _is_sealed(key) and len(log) > 1]
    key = chance.choice(long)
    at = chance.randrange(len(logs[key]) - 1)
    one, other = _number(logs[key][at]), _number(logs[key][at + 1])
    for where in [where for where in logs if _same_journal(key, where)]:
        log = logs[where]
        first = {number: n for n, number in reversed(list(enumerate(map(_number, log))))}
        if one in first and other in first:
            log[first[one]], log[first[other]] = log[first[other]], log[first[one]]
    return key


def rewrite_how_it_ended(chance: random.Random, logs: Logs) -> tuple[str, str, int] | None:
    """A completion and its closing say the same lie, in the journals and in every copy."""
    done = _said(logs, topics.COMPLETIONS, m.CompletionRecord)
    done = [one for one in done if not one[2].landed]  # type: ignore[attr-defined]
    if not done:
        return None
    place, _, said = chance.choice(done)
    assert isinstance(said, m.CompletionRecord)
    lie = replace(said, bytes=said.bytes + 1)
    for _, rec, word in _said(logs, topics.COMPLETIONS, m.CompletionRecord):
        if word == said:
            _rewrite(logs, rec, lie)
    for _, rec, closed in _said(logs, topics.TRANSFERS, m.TransferClosed):
        assert isinstance(closed, m.TransferClosed)
        if closed.completion == said:
            _rewrite(logs, rec, replace(closed, completion=lie))
    return place[:3]


def lose_what_was_asked(chance: random.Random, logs: Logs) -> tuple[str, str, int]:
    key, _, rec = _of_a_journal(logs, chance, topics.INTENTS)
    _gone(logs, lambda one: one.value == rec.value)
    return key


def lose_a_registration(chance: random.Random, logs: Logs) -> tuple[str, str, int]:
    key, _, rec = _of_a_journal(logs, chance, topics.REPLICAS)
    _gone(logs, lambda one: one.value == rec.value)
    return key


@pytest.mark.parametrize(
    "lie",
    [
        rewrite_the_past,
        rewrite_how_it_ended,
        swap_everywhere,
        cut_a_tail,
        lose_a_producer,
        lose_what_was_asked,
        lose_a_registration,
    ],
)
def test_a_past_that_was_sealed_cannot_be_changed(
    lie: Callable[[random.Random, Logs], tuple[str, str, int] | None],
) -> None:
    """Everywhere alike, so that no copy differs: the site's own seals and those of its peers tell."""
    tried = 0
    for seed in SEEDS:
        names, logs = finished(seed)
        chance, told = random.Random(seed), []
        sites = seals_say(chance, names, logs, lambda logs, chance=chance, told=told: told.append(lie(chance, logs)))
        if told == [None]:
            continue
        tried += 1
        ((site, topic, partition),) = told
        found = [f for f in judged(sites, logs, PARTITIONS).broken if f.invariant is Invariant.SEAL]
        named = [f for f in found if f"{site} {topic}[{partition}]" in f.words]
        assert named, f"seed {seed}: {told} is not in {[f.words for f in found]}"
        assert all(any(place.topic.endswith(topics.SEALS) for place in f.records) for f in named)
    assert tried >= 5


def test_two_histories_are_told_by_an_auditor_who_reads_one_cluster() -> None:
    tried = 0
    for seed in SEEDS:
        names, logs = finished(seed)
        chance = random.Random(seed)
        shared = [
            (key, n, rec)
            for key, log in sorted(logs.items())
            if "." in key[1] and topics.split(key[1])[1] in topics.TO_EVERY_PEER
            for n, rec in enumerate(log)
        ]
        if len(names) < 3 or not shared:
            continue
        tried += 1
        key, _, rec = chance.choice(shared)
        other = next(Site(name) for name in sorted(names) if name not in (key[0], topics.split(key[1])[0]))
        for n, one in enumerate(logs[key]):
            if _number(one) == _number(rec):
                logs[key][n] = replace(one, headers=(*one.headers, ("seen", b"")))
        sites = seals_say(chance, names, logs, lambda _: None)
        found = [f for f in judged(sites, logs, PARTITIONS, read=[other]).broken if f.invariant is Invariant.SEAL]
        writer, base = topics.split(key[1])
        words = f"{writer} showed {other} and {key[0]} two histories"
        assert any(words in f.words and f"{base}[{key[2]}]" in f.words for f in found), [f.words for f in found]
    assert tried >= 5


def test_sealed_and_not_changed_it_is_clean() -> None:
    """By whoever reads all, and by who reads one cluster."""
    for seed in SEEDS:
        names, logs = finished(seed)
        sites = seals_say(random.Random(seed), names, logs, lambda _: None)
        whole = judged(sites, logs, PARTITIONS)
        assert [f.words for f in whole.broken] == []
        assert whole.checked[Invariant.SEAL] > 0
        for site in sites:
            alone = judged(sites, logs, PARTITIONS, read=[site])
            assert [f.words for f in alone.broken if f.invariant is Invariant.SEAL] == []


# an audit that goes on


@pytest.mark.parametrize("hurt", [lambda chance, logs: None, contradict, hold_nothing, lose_everywhere])
def test_stopped_and_gone_on_with_anywhere_it_judges_alike(
    hurt: Callable[[random.Random, Logs], object], tmp_path: Path
) -> None:
    """By journals in an order of chance, judged at each stop, each time by a ledger that knows the index alone."""
    for seed in SEEDS[::3]:
        sites, logs = finished(seed)
        chance = random.Random(seed)
        if _records(logs, topics.COMPLETIONS):
            hurt(chance, logs)
        straight = judged(sites, logs, PARTITIONS)
        read = [LogPosition(*key, n) for key in chance.sample(sorted(logs), len(logs)) for n in range(len(logs[key]))]
        stops = [0, *sorted(chance.randrange(len(read) + 1) for _ in range(2)), len(read)]
        told = None
        for start, stop in itertools.pairwise(stops):
            with open_index(tmp_path / f"{seed}", {}) as index:
                ledger = Ledger(sites, partitions=PARTITIONS, rows=index, salt=index.salt)  # type: ignore[arg-type]
                index.go_on(ledger)
                for place in read[start:stop]:
                    hear(ledger, place, logs[place[:3]][place.offset])
                told = _judged(ledger, logs)
                index.save(ledger)
        assert told == straight, f"seed {seed}"


def _judged(ledger: Ledger, logs: Logs) -> Judgement:
    findings = FindingList(10**15)
    ledger.lose_renewed(findings)
    for key in ledger.wanted():
        for offset, rec in enumerate(logs[key]):
            locate(ledger, LogPosition(*key, offset), rec)
    return ledger.judge(10**15, findings=findings)


# who follows one site


def followed(site: str, sites: tuple[str, ...], logs: Logs, chance: random.Random) -> tuple[set[str], set[str]]:
    """What a ledger that is judged again and again finds in the end, and what one finds that is judged once."""
    here = {key: log for key, log in logs.items() if key[0] == site}
    live = Ledger([Site(s) for s in sites], partitions=PARTITIONS, read=[Site(site)], live=True)
    heard = dict.fromkeys(here, 0)
    while left := [key for key in sorted(here) if heard[key] < len(here[key])]:
        for key in chance.sample(left, min(len(left), 4)):
            for offset in range(heard[key], min(len(here[key]), heard[key] + chance.randrange(1, 30))):
                hear(live, LogPosition(*key, offset), here[key][offset])  # type: ignore[arg-type]
                heard[key] = offset + 1
        live.judge(10**15)
    for key in live.wanted():
        for offset, rec in enumerate(here[key]):
            locate(live, LogPosition(*key, offset), rec)
    names: tuple[Site, ...] = tuple(map(Site, sites))
    once = judged(names, here, PARTITIONS, read=[Site(site)])  # type: ignore[arg-type]
    return {f.words for f in live.judge(10**15).findings}, {f.words for f in once.findings}


@pytest.mark.parametrize("hurt", [None, lie_about_bytes, contradict, lose_everywhere])
def test_a_site_that_is_followed_finds_what_an_audit_of_it_finds(
    hurt: Callable[[random.Random, Logs], Invariant] | None,
) -> None:
    """In any order of partitions, whatever it took for missing meanwhile; nothing where nothing was broken."""
    found = 0
    for seed in SEEDS:
        sites, logs = finished(seed)
        if hurt is not None and not _records(logs, topics.COMPLETIONS):
            continue
        if hurt is not None:
            hurt(random.Random(seed), logs)
        for site in sites:
            live, once = followed(site, sites, logs, random.Random(seed))
            assert live == once, f"seed {seed}, {site}"
            if hurt is None:
                names: tuple[Site, ...] = tuple(map(Site, sites))
                here = {key: log for key, log in logs.items() if key[0] == site}
                assert not judged(names, here, PARTITIONS, read=[Site(site)]).broken, f"seed {seed}, {site}"  # type: ignore[arg-type]
            found += len(once)
    assert found or hurt is None
