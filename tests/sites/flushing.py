"""Run by test_cache_rules.py in a process of its own: rows put into a changelog, a flush, the end.

Arguments: bootstrap, topic, pid of its broker, records, bytes of each. The broker stands still while the flush begins.
Prints whether the flush returned meanwhile. Nothing is sent after it returned: what it missed is lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from faust.types import TP

from agents import changelogs, faust_fixes


async def main(bootstrap: str, name: str, broker_pid: int, records: int, size: int) -> None:
    faust_fixes.install()
    app = faust_fixes.DurableApp(
        "flushing",
        broker=f"kafka://{bootstrap}",
        topic_disable_leader=True,
        producer_acks=-1,
        producer_max_batch_size=changelogs.BUILDER_BYTES,
    )
    place, told = TP(name, 0), list[int]()
    await app.producer.start()
    put = app.producer.changelogs.put
    put(place, b"first", b"", lambda _, offset: told.append(offset))
    await app.producer.flush()
    os.kill(broker_pid, signal.SIGSTOP)
    try:
        for number in range(records):
            put(place, b"%d" % number, bytes(size), lambda _, offset: told.append(offset))
        flush = asyncio.ensure_future(app.producer.flush())
        await asyncio.sleep(1.0)
        print("early" if flush.done() else "waited", flush=True)
    finally:
        os.kill(broker_pid, signal.SIGCONT)
    await flush
    os._exit(0 if told[-1] == records else 1)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
