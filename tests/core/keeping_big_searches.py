"""Searches that are too large for every run: `python -m tests.core.keeping_big_searches [WORDS OF A NAME …]`.

Each prints its states, what is wrong, if anything is, and the processor's seconds. Seen beside other work on a machine
of two cores, all of them hold; the largest takes 1 GB:

    three sites, two asks each, a copy comes back            149,371 states   31 s
    four sites, an ask each, a copy comes back                69,091          15 s
    four sites, two copies, an ask each, an accident          49,235           8 s
    three sites, a disk put back, a copy comes back           87,759           8 s
    three sites, a disk put back, an accident                104,870           9 s
    two sites, two asks each, all that may happen, once      984,750         266 s
    two sites, two asks each, a disk put back twice           47,991           8 s
    one site, two intents, two removals                       66,810           8 s
    one site, two workers, a removal and a promise            50,351           6 s
    one site, two datasets, a removal in each                 46,000           4 s
    one site, two datasets, a removal and a promise           45,959           5 s
    one site, two datasets, both wanted, two removals         39,911           8 s
    one site, two datasets, a repair and a removal in each    54,015           5 s

Four sites with an ask each, of which one has its disk put back, did not end within ten minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from streams.core.keeping import gates
from tests.core.keeping_federation import Budget, Federation
from tests.core.keeping_search import World, search
from tests.core.keeping_storage import StorageSite, Wish

STATES_MAX = 3_000_000

ANY_LEAVER: dict[str, Callable[[], World[Any]]] = {
    "three sites, two asks each, a copy comes back": lambda: Federation(
        3, asks=2, budget=Budget(regains=1), by_name=False
    ),
    "four sites, an ask each, a copy comes back": lambda: Federation(4, budget=Budget(regains=1), by_name=False),
    "four sites, two copies, an ask each, an accident": lambda: Federation(
        4, copies=2, budget=Budget(accidents=1), by_name=False
    ),
    "three sites, a disk put back, a copy comes back": lambda: Federation(
        3, budget=Budget(regains=1, restores=1), by_name=False
    ),
    "two sites, two asks each, all that may happen, once": lambda: Federation(
        2, asks=2, budget=Budget(1, 1, 0, 1), by_name=False
    ),
    "three sites, a disk put back, an accident": lambda: Federation(
        3, budget=Budget(accidents=1, restores=1), by_name=False
    ),
    "two sites, two asks each, a disk put back twice": lambda: Federation(
        2, asks=2, budget=Budget(restores=2), by_name=False
    ),
}
ONE_SITE: dict[str, Callable[[], World[Any]]] = {
    "one site, two intents, two removals": lambda: StorageSite((Wish(), Wish()), asks=(2,)),
    "one site, two workers, a removal and a promise": lambda: StorageSite(promises=(1,), workers=2),
    "one site, two datasets, a removal in each": lambda: StorageSite((Wish(1),), 2, (1, 1), (0, 0), workers=2),
    "one site, two datasets, a removal and a promise": lambda: StorageSite((Wish(1),), 2, (1, 0), (0, 1), workers=2),
    "one site, two datasets, both wanted, two removals": lambda: StorageSite((Wish(0), Wish(1)), 2, (2, 0), (0, 0)),
    "one site, two datasets, a repair and a removal in each": lambda: StorageSite(
        (Wish(1, True),), 2, (1, 1), (0, 0), workers=2
    ),
}


def run(name: str, world: World[Any]) -> None:
    start = time.process_time()
    try:
        found = search(world, STATES_MAX)
    except AssertionError as stopped:
        print(f"{name}: {stopped}", flush=True)
        return
    said = f"{found.fault}: {'; '.join(found.history)}" if found.fault else "holds"
    print(f"{name}: {found.states:,} states, {time.process_time() - start:.0f} s, {said}", flush=True)


def main(wanted: str) -> None:
    lesser = gates.why_not_the_leaver
    gates.why_not_the_leaver = lambda here, asker: None
    try:
        for name, world in ANY_LEAVER.items():
            if wanted in name:
                run(name, world())
    finally:
        gates.why_not_the_leaver = lesser
    for name, world in ONE_SITE.items():
        if wanted in name:
            run(name, world())


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
