"""A manifest read without its items: what the gate lets through gives the same link; refusals only are raised."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from streams import wire
from streams.core import records as m
from streams.core.chain import Link
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site, Text
from streams.errors import WireError

INTENT = IntentId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab")
HERE, SOURCE = Site("T1_A"), Site("T2_B")
TOPIC = "T2_B.manifests"
OTHERS = [Site(f"T3_{n}_{'x' * n}") for n in range(9)]
GONE = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "plan", Text("gone, été"))


def item(chance: random.Random, number: int) -> m.Item:
    dataset = Dataset(f"/P{chance.randrange(3)}/R/RAW")
    lfn = Lfn(f"/store/{'x' * chance.randrange(1, 200)}/{number}.root")
    size = chance.choice([0, 1, 63, 64, 127, 128, 1 << 20, 1 << 40, 1 << 53])
    if chance.random() < 0.2:
        return m.Item(lfn, dataset, Block(f"{dataset}#b"), lfn, "", 0, size, Adler32("00000001"), "", None, GONE)
    version = "v" * chance.choice([0, 5, 63, 64, 300])
    others = tuple(sorted(chance.sample(OTHERS, chance.choice([0, 0, 1, 2, 8]))))
    return m.Item(
        lfn, dataset, Block(f"{dataset}#b"), lfn, "", size, size, Adler32("0000000a"), version, SOURCE, None, others
    )


def manifest(seed: int) -> m.ManifestWritten:
    chance = random.Random(seed)
    items = tuple(item(chance, n) for n in range(chance.choice([0, 1, 2, 70, 200])))
    no = chance.choice([0, 1, 300])
    prev = "" if no == 0 else "ab" * 32
    return m.ManifestWritten(INTENT, SOURCE, 0, no, prev, "c" * chance.randrange(90), m.Unit.BYTES, items, not items)


def headers(body: m.ManifestWritten, site: Site = SOURCE) -> list[tuple[str, bytes | None]]:
    return list(wire.headers(body, m.Origin(site, "w", "i", 1, 1000)))


@pytest.mark.parametrize("seed", range(60))
def test_it_is_the_link_of_the_whole(seed: int) -> None:
    body = manifest(seed)
    heard = wire.decode_outline(TOPIC, INTENT.encode(), wire.encode(body), headers(body), HERE, "here 1")
    assert heard.outline.link == Link.of(body, "here 1")
    assert heard.outline.datasets == tuple(sorted({str(i.dataset) for i in body.items}))
    assert (heard.origin.site, heard.origin.at_ms) == (SOURCE, 1000)


def test_what_the_gate_takes_it_takes_and_it_raises_nothing_but_refusals() -> None:
    for seed in range(400):
        chance = random.Random(seed)
        body = replace(manifest(seed % 7), items=manifest(seed % 7).items[:5])
        framed = bytearray(wire.encode(body))
        match chance.randrange(3):
            case 0:
                del framed[chance.randrange(len(framed)) :]
            case 1:
                framed[chance.randrange(5, len(framed))] ^= 1 << chance.randrange(8)
            case 2:
                at = chance.randrange(5, len(framed))
                framed[at:at] = chance.randbytes(chance.randrange(1, 12))
        args = (TOPIC, INTENT.encode(), bytes(framed), headers(body), HERE)
        try:
            heard = wire.decode_outline(*args)
        except WireError:
            with pytest.raises(WireError):
                wire.decode(*args)
            continue
        try:
            whole = wire.decode(*args).message
        except WireError:
            continue  # of what it counts only the agents judge the items
        assert isinstance(whole, m.ManifestWritten)
        assert heard.outline.link == Link.of(whole), seed


def test_only_its_source_may_say_it_and_only_where_it_belongs() -> None:
    body = manifest(1)
    framed, key = wire.encode(body), INTENT.encode()
    bad = [
        (TOPIC, key, None, headers(body)),
        (TOPIC, b"another", framed, headers(body)),
        (TOPIC, key, framed, headers(body, Site("T3_C"))),
        ("manifests", key, framed, headers(body)),
        ("T3_C.manifests", key, wire.encode(body), headers(body, Site("T3_C"))),
        ("T2_B.transfer-intents", key, framed, headers(body)),
        (TOPIC, key, framed, [("avro-fp", b"12345678"), headers(body)[1]]),
        (TOPIC, key, wire.encode(replace(body, source=HERE)), headers(body)),
    ]
    for topic, name, value, said in bad:
        with pytest.raises(WireError):
            wire.decode_outline(topic, name, value, said, HERE)
        with pytest.raises(WireError):
            wire.decode(topic, name, value, said, HERE)


def test_a_number_that_never_ends_is_refused_at_once() -> None:
    body = manifest(3)
    assert body.items
    framed = wire.encode(replace(body, items=body.items[:1]))
    at = framed.index(body.items[0].target.encode(), framed.index(body.items[0].target.encode()) + 1)
    at += len(body.items[0].target) + 1  # behind the empty selection
    for endless in (framed[:at] + b"\xff" * 900_000, framed[:6] + b"\xff" * 900_000):
        with pytest.raises(WireError):
            wire.decode_outline(TOPIC, INTENT.encode(), endless, headers(body), HERE)
