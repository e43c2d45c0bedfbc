"""Seeded runs of consumers and pools beside their sites' workers, every process of which may end between any two steps.

`T2G_SIM_SEED=n` runs one seed, `T2G_SIM_SEEDS=n` so many (default 1,000). A failure prints its seed.
"""

from __future__ import annotations

import random
import uuid

import pytest
import readers
import test_simulation as whole
import world as sim
from test_simulation import BATCH, COUNT, SEEDS, decoded_once, quiet  # noqa: F401

from streams import wire
from streams.core import intent as intents
from streams.core import records as m
from streams.core import topics
from streams.core.manifest import Manifest
from streams.core.names import Adler32, Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.readers.ranges import ranges_of
from streams.core.selectors import Kind, Selector


def scenario(seed: int) -> sim.World:
    """One intent for entries of a few files, to one or two readers, and perhaps to a site too."""
    chance = random.Random(seed * 6271 + 5)
    world = sim.World(seed, tuple(Site(f"S{n}") for n in range(2)), stale=False)
    lfns = [Lfn(f"/store/sim/f{n}") for n in range(chance.randrange(1, 6))]
    for lfn in lfns:
        file = sim.File(lfn, chance.choice((0, 1, 100, 400, 900)), Adler32(f"{chance.getrandbits(32):08x}"))
        if chance.random() < 0.95:
            world.register(world.names[0], file, on_disk=chance.random() < 0.9)
    home, site = chance.choice(world.names), chance.choice(world.names)
    intent = IntentId(f"{home}.{uuid.UUID(int=chance.getrandbits(128))}")
    names = [Destination(f"{site}/r{n}") for n in range(chance.choice((1, 1, 2)))]
    to: tuple[Destination, ...] = (*names, *([world.names[1]] if chance.random() < 0.2 else []))
    for destination in names:
        shared, checkpoint = chance.random() < 0.5, chance.random() < 0.4
        most = chance.choice((1, 2, 3)) if shared else 1 if checkpoint else chance.choice((1, 1, 2))
        name = readers.Name(world, destination, intent, shared=shared, most=most, checkpoint=checkpoint)
        world.readers.append(name)
    selectors = tuple(Selector(Kind.FILE, lfn) for lfn in lfns)
    asked: list[m.Message] = [m.TransferIntent(intent, Text("sim"), selectors, to, None, 5, selection="entries:t{x}")]
    whole.produce(world, home, asked, chance)
    if chance.random() < 0.15:
        world.run(chance.randrange(0, 300))
        whole.produce(world, home, [m.IntentAsked(intent, m.Asked.CANCEL, Text("sim"))], chance)
    return world


def written(world: sim.World, intent: IntentId) -> dict[ManifestId, Manifest]:
    """The manifests of the chain that counts: here one source writes each once, whatever it repeats."""
    found: dict[ManifestId, Manifest] = {}
    for (site, name, _), log in world.logs.items():
        for record in log if name == topics.MANIFESTS else ():
            body = wire.decode(name, record.key, record.value, record.headers, site).message
            if isinstance(body, m.ManifestWritten) and body.intent == intent:
                assert found.setdefault(body.manifest, Manifest(body)).body == body
    return found


def check(world: sim.World) -> None:
    completions: dict[tuple[ManifestId, Destination], m.CompletionRecord] = {}
    for (site, topic, _), log in world.logs.items():
        for record in log if topic == topics.COMPLETIONS else ():
            done = wire.decode(topic, record.key, record.value, record.headers, site).message
            assert isinstance(done, m.CompletionRecord)
            assert completions.setdefault((done.manifest, done.destination), done) == done, "I4: two last words"
    for name in world.readers:
        assert isinstance(name, readers.Name)
        (row,) = (row for row in name.site.intent_rows() if row.intent == name.intent)
        if row.state is intents.State.REFUSED:
            continue
        manifests = written(world, name.intent)
        ends = {manifest: completions.get((manifest, name.destination)) for manifest in manifests}
        if row.state is not intents.State.CANCELLED:
            assert all(ends.values()), "I1: done without a last word"
        _check_output(name, manifests, ends, cancelled=row.state is intents.State.CANCELLED)


def _check_output(
    name: readers.Name,
    manifests: dict[ManifestId, Manifest],
    ends: dict[ManifestId, m.CompletionRecord | None],
    *,
    cancelled: bool,
) -> None:
    """Of every item that is told as sealed all was worked on: in order and once with a checkpoint, one file a range."""
    content = name.output.content
    sealed = {manifest: end.sealed for manifest, end in ends.items() if end is not None}
    told = {
        (manifest, at)
        for manifest, items in sealed.items()
        for item in items.numbers()
        for at in range(*manifests[manifest].line.span(item))
    }
    if name.shared:
        files = {(manifest, part.item, part.k) for manifest, part in name.output.files.values()}
        assert name.output.placed == len(files) == len(name.output.files)
        owed = {
            (manifest, part.item, part.k)
            for manifest, items in sealed.items()
            for part in ranges_of(manifests[manifest])
            if part.item in items
        }
        assert owed <= files, "told, and no output"
        return
    assert told <= set(content), "told, and never handed out"
    if name.checkpoint:
        assert content == sorted(set(content), key=lambda one: (one[0].no, one[1])), "twice, or out of order"
    if not cancelled and not any(end is not None and end.failed for end in ends.values()):
        assert set(content) == told


def one(seed: int) -> None:
    world = scenario(seed)
    world.run(400)
    if not world.settle(3000):
        left = [(s.name, row.state) for s in world.sites.values() for row in s.intent_rows() if not row.ended]
        left += [(name.destination, name.shared, len(name.processes)) for name in world.readers if not name.idle()]  # type: ignore[attr-defined]
        raise AssertionError(f"I10: still open after all faults are healed: {left[:3]}")
    whole.check(world)
    check(world)
    whole.audited(world)


@pytest.mark.parametrize("start", SEEDS or range(0, COUNT, BATCH))
def test_readers_of_every_seed_end_well(start: int) -> None:
    for seed in [start] if SEEDS else range(start, start + BATCH):
        try:
            one(seed)
        except Exception as failure:
            raise AssertionError(f"seed {seed}: {failure} (again: T2G_SIM_SEED={seed})") from failure
