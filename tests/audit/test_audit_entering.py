"""Records on their way into the ledger: what was read before is not read again, and is the same as if it were."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from typing import Any

import pytest

import schemas
from streams import wire
from streams.auditing import entering
from streams.auditing.entering import Entrance, LegalManifests
from streams.core import records as m
from streams.core import topics
from streams.core.ledger import Ledger
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.rows import MemoryRows
from streams.core.names import ManifestId
from streams.errors import WireError
from streams.kafka.reader import Record
from streams.wire import versions
from tests.audit.history import PARTITIONS, A, B, C, Federation, Rec, healthy
from tests.wire.test_wire_fuzz import mutations
from tests.wire.test_wire_golden import read

SALT = b"salt"


def record_of(place: LogPosition, rec: Rec) -> Record:
    return Record(*place[1:], rec.at_ms, rec.key, rec.value, list(rec.headers))


def plans(world: Federation) -> list[tuple[LogPosition, Rec]]:
    found = [one for one in world.records(B, topics.TRANSFERS) if is_plan(one[1])]
    assert found
    return found


def is_plan(rec: Rec) -> bool:
    return rec.value is not None and rec.value.startswith(versions.BY_CLASS[m.TransferPlanned].frame)


def heard_whole(place: LogPosition, rec: Rec) -> wire.Heard | None:
    try:
        return wire.decode_once(place.topic, rec.key, rec.value, rec.headers, place.site)
    except WireError:
        return None


def heard_as_plan(place: LogPosition, rec: Rec, body: bytes | None) -> wire.HeardPlan | None:
    """`body`: the manifest that is known to be legal."""
    return wire.decode_plan(place.topic, rec.key, rec.value, rec.headers, place.site, lambda found: found == body)


def body_of(rec: Rec) -> bytes:
    assert rec.value is not None
    found = wire.manifest_in(rec.value)
    assert found is not None
    return found


def test_plans_of_manifests_that_were_read_make_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    world, once = healthy(A, B, C), wire.decode_once
    seen: list[Any] = []

    def decode_once(*stands: Any) -> wire.Heard:
        seen.append(stands)
        return once(*stands)

    monkeypatch.setattr(wire, "decode_once", decode_once)
    rows: list[dict[bytes, bytes]] = []
    for knows in (True, False):
        if not knows:
            monkeypatch.setattr(LegalManifests, "has", lambda self, body: False)
        kept = MemoryRows()
        ledger = Ledger(world.sites, partitions=PARTITIONS, rows=kept, salt=SALT)
        entrance = Entrance(ledger)
        seen.clear()
        for place, rec in sorted(world.facts(), key=lambda one: (one[0].site != A, one[0].topic != topics.MANIFESTS)):
            entrance.enter(place, record_of(place, rec))
        ledger.kept()
        rows.append(kept._rows)
        whole = sum(value.startswith(versions.BY_CLASS[m.TransferPlanned].frame) for _, _, value, *_ in seen)
        assert whole == (0 if knows else sum(is_plan(rec) for _, rec in world.facts()))
    assert rows[0] == rows[1]


def test_a_plan_is_what_the_gate_says() -> None:
    for place, rec in plans(healthy()):
        whole, outline = heard_whole(place, rec), heard_as_plan(place, rec, body_of(rec))
        assert whole is not None
        assert outline is not None
        assert isinstance(whole.message, m.TransferPlanned)
        assert outline.origin == whole.origin
        for field in fields(m.PlanOutline):
            assert getattr(outline.message, field.name) == getattr(whole.message, field.name)
        assert body_of(rec) == wire.encode(whole.message.body)[5:]


def test_a_plan_whose_manifest_is_not_known_is_none() -> None:
    for place, rec in plans(healthy()):
        assert heard_as_plan(place, rec, None) is None


@pytest.mark.parametrize("what", ["value", "header", "key", "topic"])
def test_a_hurt_plan_is_heard_only_where_the_gate_hears_it(what: str) -> None:
    """Its manifest is legal as it stands: what is hurt is before it, or around it."""
    rng, found = random.Random(what), 0
    for place, rec in plans(healthy()) * 100:
        assert rec.value is not None
        body = body_of(rec)
        match what:
            case "value":
                rec = replace(rec, value=mutations(rec.value[: -len(body)], rng) + body)
            case "header":
                hurt = tuple((name, mutations(held or b"", rng)) for name, held in rec.headers)
                rec = replace(rec, headers=rng.choice((hurt, hurt[:1], hurt * 2)))
            case "key":
                rec = replace(rec, key=rng.choice((None, b"", rec.key and rec.key[:-1])))
            case "topic":
                topic = rng.choice((topics.MANIFESTS, f"{C}.{topics.TRANSFERS}", f"{B}.{topics.MANIFESTS}"))
                place = place._replace(topic=topic)
        whole, outline = heard_whole(place, rec), heard_as_plan(place, rec, body)
        assert (outline is None) == (whole is None)
        if whole is not None and outline is not None:
            assert isinstance(whole.message, m.TransferPlanned)
            assert (outline.message.manifest, outline.origin) == (whole.message.manifest, whole.origin)
            found += 1
    assert found < 100 * len(plans(healthy()))


def test_a_plan_of_another_manifest_than_its_own_is_refused() -> None:
    world = healthy()
    place, rec = plans(world)[0]
    plan = world.decoded(place, rec).message
    assert isinstance(plan, m.TransferPlanned)
    other = ManifestId.of(plan.manifest.intent, 0, 7)
    assert rec.value is not None
    assert rec.key is not None
    forged = replace(rec, key=other.encode(), value=rec.value.replace(rec.key, other.encode(), 1))
    assert heard_as_plan(place, forged, body_of(rec)) is None
    with pytest.raises(WireError, match="manifest: not that of the body"):
        wire.decode_once(place.topic, forged.key, forged.value, forged.headers, place.site)


@pytest.mark.parametrize(("name", "number"), [("ManifestWritten", 1342177285), ("TransferPlanned", 1342177323)])
def test_manifests_of_older_versions_are_not_remembered(name: str, number: int) -> None:
    """Their bytes may be those of a newer one that is not legal."""
    assert number in schemas.versions()[name][:-1]
    assert wire.manifest_in(bytes.fromhex(read(name, number)["rich"]["bytes"])) is None


def test_so_many_manifests_are_remembered_and_the_last_ones() -> None:
    known = LegalManifests(10)
    bodies = [b"%d" % number for number in range(100)]
    for body in bodies:
        known.add(body)
    assert [known.has(body) for body in bodies[-5:]] == [True] * 5
    assert sum(map(known.has, bodies)) <= 10
    assert not LegalManifests(entering.MANIFESTS_MAX).has(b"")
