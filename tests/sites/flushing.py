"""Run by test_cache_rules.py in a process of its own: changelog records through Faust's producer, a flush, the end.

Arguments: bootstrap, topic, pid of its broker, records, bytes of each. The broker stands still while the flush begins.
Prints whether the flush returned meanwhile. Nothing is sent after it returned: what it missed is lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from agents import faust_fixes


async def main(bootstrap: str, name: str, broker_pid: int, records: int, size: int) -> None:
    faust_fixes.install()
    app = faust_fixes.DurableApp(
        "flushing", broker=f"kafka://{bootstrap}", topic_disable_leader=True, producer_acks=-1, producer_linger=0.0
    )
    topic = app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    await app.producer.start()
    topic.send_soon(key=b"first", value=b"", partition=0)
    await app.producer.flush()
    os.kill(broker_pid, signal.SIGSTOP)
    try:
        for number in range(records):
            topic.send_soon(key=b"%d" % number, value=bytes(size), partition=0)
        flush = asyncio.ensure_future(app.producer.flush())
        await asyncio.sleep(1.0)
        print("early" if flush.done() else "waited", flush=True)
    finally:
        os.kill(broker_pid, signal.SIGCONT)
    await flush
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
