"""A child that fills a spool and is killed by its parent at any moment; it tells what it was told is durable.

`python spool_killed.py PATH SEED ENTRIES`: prints a line for each sync, spans as JSON. Used by test_spool_crash.py.
"""

from __future__ import annotations

import json
import random
import sys

from streams.events.spool import Spool
from tests.events.landing_tables import nested, payload, pieces


def main(path: str, seed: int, entries: int) -> None:
    table = nested(entries)
    chance = random.Random(seed)
    work = [(start, stop, payload(table, start, stop)) for start, stop in pieces(entries, seed, cuts=60, extra=30)]
    print("ready", flush=True)
    with Spool(path) as spool:
        print(json.dumps(spool.durable.spans), flush=True)
        for start, stop, piece in work:
            spool.add(start, stop, piece)
            if chance.random() < 0.3:
                print(json.dumps(spool.sync().spans), flush=True)
        print(json.dumps(spool.sync().spans), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
