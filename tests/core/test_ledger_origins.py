"""Lies about replicas: of nothing, given up and never held, and manifests that say else than a file's holder."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Invariant, Judgement
from streams.core.names import Adler32, Lfn, Site
from streams.core.ranges import EMPTY, Ranges
from tests.audit.history import BLOCK, DATASET, WHY, A, B, Federation, healthy, item

I2, I4 = Invariant.NO_LIE, Invariant.ONE_EFFECT


def held(lfn: str, size: int = 5, adler: str = "0000000a", site: Site = A) -> m.FilesHeld:
    return m.FilesHeld(DATASET, site, (m.HeldFile(Lfn(lfn), BLOCK, size, Adler32(adler), ""),))


def lost(lfn: str, site: Site = A) -> m.FilesLost:
    return m.FilesLost(DATASET, site, (Lfn(lfn),), WHY)


def judged(world: Federation) -> Judgement:
    world.close()
    world.mirror()
    return world.judge()


@pytest.mark.parametrize("role", ["worker", "plane"])
def test_a_replica_that_no_transfer_brought_and_nobody_registered(role: str) -> None:
    world = healthy()
    writer = world.writer(B, "liar", role)
    place = writer.say(held("/store/x", site=B))
    (finding,) = judged(world).broken
    assert finding.invariant is I2
    assert finding.words.startswith(f"a {role} of {B} says it holds files of {DATASET} that no transfer brought")
    assert finding.records == (place,)


@pytest.mark.parametrize("role", ["cli", "consumer", "producer"])
def test_who_registers_may_say_so(role: str) -> None:
    world = healthy()
    world.writer(B, "register", role).say(held("/store/x", site=B))
    assert judged(world).findings == ()


def test_what_is_given_up_was_held() -> None:
    world = healthy()
    world.cli.say(held("/store/x"))
    world.cli.say(lost("/store/x"))
    world.cli.say(lost("/store/x"))  # said again
    assert judged(world).findings == ()
    place = world.cli.say(lost("/store/y"))
    (finding,) = judged(world).broken
    assert (finding.invariant, finding.records) == (I2, (place,))
    assert finding.words == f"{A} gives up file 0 of its FilesLost of {DATASET}, which it never held"


def test_what_was_given_up_before_it_was_held() -> None:
    world = healthy()
    place = world.cli.say(lost("/store/x"))
    world.cli.say(held("/store/x"))
    (finding,) = judged(world).broken
    assert finding.records == (place,)


def test_a_file_lost_and_brought_again_is_held_again() -> None:
    """What another site says of it counts again, too."""
    world = healthy()
    world.cli.say(held("/store/x"))
    world.cli.say(lost("/store/x"))
    world.writer(B, "register", "cli").say(held("/store/x", 7, site=B))
    world.mirror()
    assert world.judge().broken == ()
    again = world.cli.say(held("/store/x"))
    (finding,) = judged(world).broken
    assert finding.words.startswith("/store/x has two contents")
    assert again in finding.records


def two_intents(second: m.Item, *, then: m.Message | None = None) -> Federation:
    """Of two transfers to B that bring one name, each with the file as A holds it at that time."""
    world = Federation()
    for number, one in ((1, item("x", 100)), (2, second)):
        body = world.ask(number, B)
        world.decide(body)
        (manifest,) = world.write(body, (one,))
        world.transfer(manifest, B)
        if number == 1 and then is not None:
            world.writer(B, "lose", "cli").say(then)
    return world


def test_one_name_sealed_by_two_intents_as_two_files() -> None:
    world = two_intents(item("x", 90))
    (finding,) = judged(world).broken
    places = world.where(B, topics.REPLICAS)
    assert finding.invariant is I4
    assert finding.words == (
        f"/store/x has two contents: 100 bytes with adler32 0000abcd at {B} in {DATASET}, "
        f"and 90 bytes with adler32 0000abcd at {B} in {DATASET}"
    )
    assert finding.records == tuple(places)
    assert judged(two_intents(item("x", 100))).broken == ()
    assert judged(two_intents(item("x", 90), then=lost("/store/x", B))).broken == ()


def written(*items: m.Item, register: bool = True) -> tuple[Federation, m.ManifestWritten]:
    """One intent whose only manifest has these items."""
    world = Federation()
    body = world.ask(1, B)
    world.decide(body)
    if not register:
        world.registered.update(items)
    (manifest,) = world.write(body, items)
    world.registered.clear()
    return world, manifest


def test_a_manifest_that_says_else_than_its_holder() -> None:
    for change, words in (
        ({"bytes": 101, "length": 101}, "101 bytes and adler32 0000abcd, its holder T1_A said 100 and 0000abcd"),
        ({"adler32": Adler32("0000000b")}, "100 bytes and adler32 0000000b, its holder T1_A said 100 and 0000abcd"),
    ):
        true = item("a", 100)
        world, _ = written(replace(true, **change), register=False)  # type: ignore[arg-type]
        world.register([true])
        (finding,) = judged(world).broken
        assert finding.invariant is I2
        assert words in finding.words
        assert finding.records == (
            *world.where(A, topics.MANIFESTS),
            *world.where(A, topics.REPLICAS),
        )


def test_a_holder_that_never_held() -> None:
    world, manifest = written(item("a", 100), item("b", 5), register=False)
    world.register([item("b", 5)])
    (finding,) = judged(world).broken
    assert finding.words == (f"{manifest.manifest} names {A} as its holder of item 0, which never said it held it")
    assert finding.records == tuple(world.where(A, topics.MANIFESTS))


def test_another_holder_that_never_held() -> None:
    world, manifest = written(replace(item("a", 100), others=(B,)))
    (finding,) = judged(world).broken
    assert finding.words == (f"{manifest.manifest} names {B} as who also has it of item 0, which never said it held it")


def test_a_holder_s_earlier_and_later_words_count() -> None:
    """Between two journals there is no order: any word of the holder is enough."""
    world, _ = written(item("a", 100), register=False)
    for file in (held("/store/a", 90), held("/store/a", 100, "0000abcd"), held("/store/a", 80)):
        world.cli.say(file)
    world.cli.say(lost("/store/a"))
    assert judged(world).broken == ()


def test_a_holder_that_was_not_read() -> None:
    world, _ = written(item("a", 100), register=False)
    world.close()
    world.mirror()
    judgement = world.judge(read=[B])
    assert judgement.broken == ()
    assert any(r.words == "what T1_A holds: not read" for r in judgement.unchecked)


def test_of_a_part_the_file_s_size_is_not_the_item_s() -> None:
    part = replace(
        item("a", 40), target=Lfn("/store/a.part"), selection="objects:h*", adler32=None, bytes=40, length=40
    )
    world, _ = written(part, register=False)
    world.register([item("a", 100)])
    assert judged(world).broken == ()


def test_a_replica_that_no_plane_sealed() -> None:
    """By a transfer that is still open: its completion would be held to the plane."""
    world, manifest = written(item("a", 100))
    worker = world.workers[B]
    worker.say(m.TransferPlanned(manifest.manifest, B, 1, 5, None, (), False, manifest))
    world.planes[B].say(m.PartOpened(manifest.manifest, 1, "disk", EMPTY))
    file = m.HeldFile(Lfn("/store/a"), BLOCK, 100, Adler32("0000abcd"), "")
    place = worker.say(m.FilesHeld(DATASET, B, (file,), manifest.manifest))
    (finding,) = judged(world).broken
    assert (finding.invariant, finding.records) == (I2, (place,))
    assert finding.words == f"items 0 of {manifest.manifest} are held at {B}, no plane sealed them"
    world.bring(manifest, B)
    world.planes[B].say(m.TransferProgress(manifest.manifest, B, 1, "disk", Ranges([(0, 100)]), Ranges.of(0)))
    assert judged(world).broken == ()
