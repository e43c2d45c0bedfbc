"""A federation of PhEDEx's size in the simulation, once and by hand: 59 sites on the faulty mirror, then healed.

    PYTHONPATH=. .venv/bin/python tests/sim/many_sites.py [SITES] [INTENTS] [SEED]

Every invariant of the other seeds holds here too. It prints what was written, and what a site hears of it.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from collections import Counter

import structlog
import world as sim
from test_simulation import audited, check, produce

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.names import Adler32, IntentId, Lfn, Site, Text
from streams.core.selectors import Kind, Selector
from tests.audit.history import decode_once

SITES, INTENTS = 59, 60
FILES, STEPS = 300, 60_000
TRIES = 64


class ManySite(sim.SimSite):
    """Has 7,000 journals: healed, it hears all that is new in one look at them."""

    def hear_one(self) -> bool:
        if self.world.faults:
            return super().hear_one()
        self._wake()
        behind = [(place, log) for place, log in self.journals if self.positions[place] < len(log)]
        for place, log in behind:
            for at in range(self.positions[place], len(log)):
                self.hear(*place, at, log[at])
                self.positions[place] = at + 1
        return bool(behind)


class Many(sim.World):
    """Looks at some flows before it looks at all, of which there are tens of thousands; healed, copies all at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sites = {name: ManySite(self, name) for name in self.names}

    def mirror_step(self) -> bool:
        some = [self.rng.choice(self.flows) for _ in range(TRIES)] if self.faults else []
        behind = [flow for flow in some if flow.copied < len(flow.source)]
        behind = behind or [flow for flow in self.flows if flow.copied < len(flow.source)]
        if not self.faults:
            for flow in behind:
                self._copy(flow, len(flow.source))
            return bool(behind)
        if not behind:
            return False
        flow = self.rng.choice(behind)
        if self.chance(0.05):
            flow.copied = max(0, flow.copied - self.rng.randrange(1, 6))
        self._copy(flow, min(len(flow.source), flow.copied + self.rng.randrange(1, 8)))
        return True

    @staticmethod
    def _copy(flow: sim.Flow, stop: int) -> None:
        flow.copy.extend(flow.source[flow.copied : stop])
        flow.copied = stop


def main(sites: int, intents: int, seed: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    wire.decode = decode_once
    chance = random.Random(seed)
    world = Many(seed, tuple(Site(f"S{n:02}") for n in range(sites)), stale=True)
    lfns = [Lfn(f"/store/sim/f{n}") for n in range(FILES)]
    for lfn in lfns:
        file = sim.File(lfn, chance.choice((0, 1, 100, 400, 1300)), Adler32(f"{chance.getrandbits(32):08x}"))
        world.register(chance.choice(world.names), file, on_disk=chance.random() < 0.97)
    began_s = time.monotonic()
    for _ in range(intents):
        home = chance.choice(world.names)
        intent = IntentId(f"{home}.{uuid.UUID(int=chance.getrandbits(128))}")
        chosen = tuple(Selector(Kind.FILE, lfn) for lfn in chance.sample(lfns, chance.randrange(1, 12)))
        to = tuple(chance.sample(world.names, chance.choice((1, 1, 2, 4, 8))))
        produce(world, home, [m.TransferIntent(intent, Text("sim"), chosen, to, None, chance.randrange(10))], chance)
    world.run(STEPS)
    print(f"{STEPS:,} steps with faults: {time.monotonic() - began_s:.0f} s", flush=True)
    assert world.settle(100_000), "still open after all faults are healed"
    print(f"healed and settled: {time.monotonic() - began_s:.0f} s", flush=True)
    check(world)
    audited(world)
    print(f"every invariant holds, and the audit is clean: {time.monotonic() - began_s:.0f} s")
    written, heard = Counter[str](), Counter[Site]()
    for (site, name, _), log in world.logs.items():
        if topics.split(name)[0] is None:
            written[name if "-to-" not in name else "chunk-requests"] += len(log)
        heard[site] += len(log)
    for name, count in written.most_common():
        print(f"{count:>9,} {name}")
    least, most = min(heard.values()), max(heard.values())
    print(f"{sum(written.values()):,} records written; a site's cluster holds {least:,} to {most:,}, copies included")


if __name__ == "__main__":
    said = [int(word) for word in sys.argv[1:]]
    main(*said, *(SITES, INTENTS, 1)[len(said) :])
