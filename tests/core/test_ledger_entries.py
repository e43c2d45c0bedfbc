"""The ledger over intents for entries: what landed is held to what was told of it, and a consumer to its own word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Invariant, Judgement
from streams.core.manifest import digest
from streams.core.names import Adler32, Block, Destination, Lfn, Site
from streams.core.ranges import EMPTY, Ranges
from streams.core.selections.parts import filed
from tests.audit.history import BLOCK, A, B, Federation, body_of

I1, I2 = Invariant.CONSERVATION, Invariant.NO_LIE
PARTS, PART_BLOCK = filed(Block(BLOCK))
READER = Destination(f"{B}/reader")
LANDED = (m.Landed(0, 111, Adler32("0000aaaa")), m.Landed(1, 222, Adler32("0000bbbb")))
BOTH = Ranges([(0, 2)])


def entries(name: str) -> m.Item:
    lfn = Lfn(f"/store/{name}")
    target = Lfn(f"{lfn}.0123456789ab.parquet")
    return m.Item(lfn, PARTS, PART_BLOCK, target, "entries:E[0:100]", 100, 1000, None, "v1", A)


def asked(world: Federation, *destinations: Destination) -> m.ManifestWritten:
    """An intent for entries of two files, decided, and its only manifest."""
    body = replace(body_of(world.ask(1, B).intent, B), destinations=destinations, selection="entries:E[0:100]")
    place = world.where(A, topics.INTENTS)[0]
    world.forge(place, body)
    world.decide(body)
    manifest = m.ManifestWritten(body.intent, A, 0, 0, "", "", m.Unit.ENTRIES, (entries("a"), entries("b")), True)
    world.register(manifest.items)
    world.planes[A].say(manifest)
    return manifest


def completion(manifest: m.ManifestWritten, site: Destination, **change: object) -> m.CompletionRecord:
    name = manifest.manifest
    done = m.CompletionRecord(name.intent, name, site, m.Ended.DONE, 2, BOTH, (), EMPTY, 333, digest(manifest), LANDED)
    return replace(done, **change)  # type: ignore[arg-type]


def land(world: Federation, manifest: m.ManifestWritten, done: m.CompletionRecord, held: tuple[m.Landed, ...]) -> None:
    name, worker, plane = manifest.manifest, world.workers[B], world.planes[B]
    worker.say(m.TransferPlanned(name, B, 1, 5, None, (), False, manifest))
    plane.say(m.PartOpened(name, 1, "disk", EMPTY))
    world.bring(manifest, B)
    plane.say(m.TransferProgress(name, B, 1, "disk", Ranges([(0, 200)]), BOTH, (), LANDED))
    files = tuple(
        m.HeldFile(item.target, item.block, one.bytes, one.adler32, "", item.lfn, item.selection)
        for item, one in zip(manifest.items, held, strict=True)
    )
    worker.say(m.FilesHeld(PARTS, B, files, name))
    worker.say(done)
    worker.say(m.TransferClosed(name, done))
    world.report(name, B, "closed")


def read(world: Federation, manifest: m.ManifestWritten, upto: int) -> None:
    """A consumer's way: its progress and its last word, no files and no closing."""
    writer = world.writer(Site(READER.site), "stream-1", "consumer")
    sealed = Ranges([(0, upto)])
    world.bring(manifest, READER)
    writer.say(m.TransferProgress(manifest.manifest, READER, 1, "stream", Ranges([(0, upto * 100)]), sealed))
    writer.say(completion(manifest, READER, bytes=2000, landed=()))


def judged(world: Federation) -> Judgement:
    world.close()
    world.mirror()
    return world.judge()


def only(judgement: Judgement, invariant: Invariant, words: str) -> None:
    assert [f.invariant for f in judgement.broken] == [invariant], [f.words for f in judgement.broken]
    assert words in judgement.broken[0].words


def test_entries_that_landed_and_were_read_are_clean() -> None:
    world = Federation()
    manifest = asked(world, B, READER)
    land(world, manifest, completion(manifest, B), LANDED)
    read(world, manifest, 2)
    judgement = judged(world)
    assert not judgement.broken, [f.words for f in judgement.broken]
    assert not judgement.waiting
    assert (judgement.counts.done, judgement.counts.completions) == (1, 2)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ((m.Landed(0, 112, LANDED[0].adler32), LANDED[1]), "but has 112 bytes, not 111"),
        ((m.Landed(0, 111, Adler32("0000cccc")), LANDED[1]), "but has adler32 0000cccc, not 0000aaaa"),
    ],
)
def test_a_replica_is_held_to_what_landed(held: tuple[m.Landed, ...], words: str) -> None:
    world = Federation()
    manifest = asked(world, B)
    land(world, manifest, completion(manifest, B), held)
    only(judged(world), I2, words)


def test_every_sealed_item_says_what_it_became() -> None:
    world = Federation()
    manifest = asked(world, B)
    land(world, manifest, completion(manifest, B, landed=LANDED[:1], bytes=111), LANDED)
    words = [f.words for f in judged(world).broken]
    assert any("items 1 are sealed, and no file of theirs is told" in found for found in words), words


def test_a_consumer_that_did_not_say_it_read_on_did_not() -> None:
    world = Federation()
    manifest = asked(world, READER)
    read(world, manifest, 1)
    only(judged(world), I2, "items 1 are called sealed, no plane said so")


def test_a_consumer_s_bytes_are_those_of_the_manifest() -> None:
    world = Federation()
    manifest = asked(world, READER)
    writer = world.writer(Site(READER.site), "stream-1", "consumer")
    world.bring(manifest, READER)
    writer.say(m.TransferProgress(manifest.manifest, READER, 1, "stream", Ranges([(0, 200)]), BOTH))
    writer.say(completion(manifest, READER, bytes=1999, landed=()))
    only(judged(world), I1, "it says 1999 bytes, its sealed items have 2000")


def test_what_landed_is_held_to_the_word_of_its_plane() -> None:
    """Completion and replica agree with each other, and with nothing that the plane said."""
    world = Federation()
    manifest = asked(world, B)
    lie = (m.Landed(0, 111, Adler32("0000cccc")), LANDED[1])
    land(world, manifest, completion(manifest, B, landed=lie), lie)
    judgement = judged(world)
    only(judgement, I2, "item 0 landed with 111 bytes and adler32 0000cccc, its plane said 111 bytes and 0000aaaa")
    plane = world.where(B, topics.CHUNK_EVENTS, lambda said: isinstance(said, m.TransferProgress))
    replica = world.where(B, topics.REPLICAS)
    assert judgement.broken[0].records == (*world.where(B, topics.COMPLETIONS), *plane, *replica)
