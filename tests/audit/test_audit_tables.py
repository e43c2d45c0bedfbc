"""Tables folded anew against those of simulated workers: the same at rest and, of what is known, at any moment; and
what was changed by hand is named with its records.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).parents[1] / "sim"))

from streams import wire
from streams.auditing.table_comparing import SHOWN_MAX, Comparison, Fault, TableComparer
from streams.auditing.table_fold import OWNER_OF, TableFold
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import LogPosition
from streams.core.names import Site
from streams.core.topics import partition_of
from streams.kafka.reader import Record
from streams.views import scratch
from streams.worker.turn import row_here
from tests.audit.history import decode_once
from tests.sim import test_simulation as simulation
from tests.sim import world as sim
from tests.sim.world import PARTITIONS

SEEDS = range(8001, 8025, 2)
Tables = dict[str, dict[str, bytes]]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(wire, "decode", decode_once)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


def tables_of(site: sim.SimSite) -> Tables:
    return {name: dict(store.rows) for name, store in site.tables.items()}


def hear_all(fold: TableFold, world: sim.World, name: Site, chance: random.Random) -> None:
    """The journals that a site's agents read, topics interleaved by chance; hovering is what is not committed."""
    site = world.sites[name]
    read = [*topics.with_copies(topics.OF_INTENTS, site.peers), *topics.of_transfers(name, site.peers)]
    places = {(t, p): 0 for t in read for p in range(PARTITIONS) if world.logs[name, t, p]}
    while places:
        topic, partition = place = chance.choice(sorted(places))
        offset, log = places[place], world.logs[name, topic, partition]
        r = log[offset]
        record = Record(topic, partition, offset, 0, r.key, r.value, r.headers)  # type: ignore[arg-type]
        fold.hear(record, name, hovering=offset >= site.committed[place])
        places[place] = offset + 1
        if places[place] == len(log):
            del places[place]


def compared(fold: TableFold, name: Site, tables: Tables) -> Comparison:
    comparison = Comparison()
    comparer = TableComparer(fold, name, comparison)
    for table, found in tables.items():
        keyed = {
            partition_of(OWNER_OF[table](key), PARTITIONS).to_bytes(4, "big") + key.encode(): row
            for key, row in found.items()
        }
        comparer.compare(table, "changelog", iter(sorted(keyed.items())), keyed.get, frozenset(range(PARTITIONS)))
    return comparison


def finished(seed: int) -> sim.World:
    world = simulation.scenario(seed, stale=False)
    world.run(600)
    assert world.settle(3000)
    for site in world.sites.values():
        site.commit()
    return world


def test_at_rest_every_row_is_the_same() -> None:
    rows_compared = 0
    for seed in SEEDS:
        world = finished(seed)
        for name, site in world.sites.items():
            with scratch.database() as db:
                fold = TableFold(db, name, PARTITIONS)
                hear_all(fold, world, name, random.Random(seed))
                found = compared(fold, name, tables_of(site))
            assert found.differences == [], f"seed {seed}, {name}"
            assert not any(tally.moving for tally in found.tallies)
            rows_compared += sum(tally.compared for tally in found.tallies)
    assert rows_compared > 200


def test_at_any_moment_what_is_compared_is_the_same() -> None:
    """With all faults: crashes, repeats, mirrors that lag, records that are on their way."""
    moving = waiting = 0
    for seed in SEEDS:
        world = simulation.scenario(seed, stale=False)
        for _ in range(4):
            world.run(150)
            for name, site in world.sites.items():
                with scratch.database() as db:
                    fold = TableFold(db, name, PARTITIONS)
                    hear_all(fold, world, name, random.Random(seed))
                    found = compared(fold, name, tables_of(site))
                assert found.differences == [], f"seed {seed}, {name}"
                moving += sum(tally.moving for tally in found.tallies)
                waiting += sum(tally.compared for tally in found.tallies if tally.table == "waiting")
    assert moving > 0
    assert waiting > 0


def plant(tables: Tables, chance: random.Random) -> tuple[str, str, Fault]:
    """One row by hand, of one drawn by chance: changed, removed, or put under another number."""
    table, key = chance.choice([(table, key) for table, found in sorted(tables.items()) for key in sorted(found)])
    fault, row = chance.choice(list(Fault)), tables[table][key]
    if fault is Fault.MISSING:
        del tables[table][key]
    elif fault is Fault.CHANGED:
        at = chance.randrange(len(row) + 1)
        tables[table][key] = row[:at] + b"!" + row[at:]
    else:
        key = key.replace("-", "+", 1)
        tables[table][key] = row
    return table, key, fault


def test_one_row_changed_by_hand_is_named_and_nothing_else() -> None:
    seen = set()
    for seed in SEEDS:
        world = finished(seed)
        for name, site in world.sites.items():
            with scratch.database() as db:
                fold = TableFold(db, name, PARTITIONS)
                hear_all(fold, world, name, random.Random(seed))
                for number in range(8):
                    tables = tables_of(site)
                    if not any(tables.values()):
                        continue
                    table, key, fault = plant(tables, random.Random(f"{seed} {name} {number}"))
                    found = compared(fold, name, tables)
                    (one,) = found.differences
                    assert (one.table, one.key, one.fault) == (table, key, fault), f"seed {seed}, {name}"
                    assert found.different == 1
                    assert one.partition == partition_of(OWNER_OF[table](key), PARTITIONS)
                    if fault is not Fault.UNEXPECTED:
                        assert one.heard == _last(world, name, OWNER_OF[table](key))
                    seen.add((table, fault))
    assert {fault for _, fault in seen} == set(Fault)
    assert {"intents", "transfers"} <= {table for table, _ in seen}


def _last(world: sim.World, name: Site, owner: str) -> LogPosition | None:
    """The last record of an intent or a transfer that the fold heard: of several partitions whichever came last."""
    with scratch.database() as db:
        fold = TableFold(db, name, PARTITIONS)
        hear_all(fold, world, name, random.Random(world.seed))
        found = fold.last(owner, name)
    assert found is not None
    log = world.logs[name, found.topic, found.partition]
    keys = [(r.key or b"").decode() for r in log]
    assert keys[found.offset] == owner
    later = [r for key, r in zip(keys[found.offset + 1 :], log[found.offset + 1 :], strict=True) if key == owner]
    said = [wire.decode(found.topic, r.key, r.value, r.headers, name).message for r in later]
    assert [one for one in said if row_here(found.topic, one) is not m.Row.NONE] == []
    return found


def test_what_an_open_manifest_waits_for_is_compared() -> None:
    """The body of one that counts, wherever it stands; not which early ones are kept, nor the order of their names."""
    changed = 0
    for seed in range(8001, 8101, 2):
        world = simulation.scenario(seed, stale=False)
        world.run(300)
        for name, site in world.sites.items():
            site.commit()
            tables = tables_of(site)
            bodies = [key for key, row in tables["waiting"].items() if row.startswith(b"\0")]
            if not bodies:
                continue
            with scratch.database() as db:
                fold = TableFold(db, name, PARTITIONS)
                hear_all(fold, world, name, random.Random(seed))
                for key in bodies:
                    planted = {**tables, "waiting": {**tables["waiting"], key: tables["waiting"][key] + b"!"}}
                    found = compared(fold, name, planted)
                    changed += found.different
                    assert all(one.table == "waiting" for one in found.differences)
    assert changed >= 5


def test_many_differences_are_counted_and_the_first_named() -> None:
    world = finished(SEEDS[0])
    with scratch.database() as db:
        fold = TableFold(db, world.names[0], PARTITIONS)
        hear_all(fold, world, world.names[0], random.Random(0))
        tables = {
            name: {f"{key}": row + b" " for key, row in found.items()}
            for name, found in tables_of(world.sites[world.names[0]]).items()
        }
        tables["intents"] |= {f"intent {n}": b"{}" for n in range(30)}
        found = compared(fold, world.names[0], tables)
    assert len(found.differences) == SHOWN_MAX
    assert found.different == sum(map(len, tables.values()))
