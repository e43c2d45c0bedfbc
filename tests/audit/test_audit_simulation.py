"""The ledger over what the product itself writes: simulated federations under faults, broken once, are not clean.

That they are clean when nothing is broken is looked at for each of the simulation's histories (tests/sim). Its sites
write the journals, so neither side of this comparison was made to fit the other.
"""

from __future__ import annotations

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
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Invariant
from streams.core.ranges import Ranges
from tests.audit.history import Rec, judged
from tests.sim import test_simulation as simulation
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
