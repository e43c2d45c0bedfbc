"""Run by test_cache_rules.py in a process of its own: a worker hears a topic of transactions and commits once.

Arguments: bootstrap, topic, records. Prints the offset that is committed once all was heard and one commit asked for.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from typing import Any

from faust.types import TP

from agents import faust_fixes


async def main(bootstrap: str, name: str, records: int) -> None:
    faust_fixes.install()
    app = faust_fixes.DurableApp(
        f"committing-{name}",
        broker=f"kafka://{bootstrap}",
        topic_disable_leader=True,
        web_enabled=False,
        broker_commit_interval=3600.0,
        consumer_auto_offset_reset="earliest",
        datadir=tempfile.gettempdir(),
    )
    topic = app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    heard, all_heard = [], asyncio.Event()

    async def listen(stream: Any) -> None:
        async for value in stream:
            heard.append(value)
            if len(heard) == records:
                all_heard.set()

    app.agent(topic)(listen)
    await app.start()
    await asyncio.wait_for(all_heard.wait(), 30.0)
    await asyncio.sleep(0.1)  # the last one is acknowledged when the stream asks for the next
    await app.consumer.commit()
    print(app.consumer._committed_offset[TP(name, 0)], flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
