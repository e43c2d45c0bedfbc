"""The producer API for an event loop: producer.py in threads, with the same arguments and errors. Nothing new here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self

from streams.client.intent_snapshot import Snapshot
from streams.client.producer import BEAT_S, IntentHandle, Outcome, TransferClient
from streams.core.names import IntentId
from streams.settings import Settings

P = ParamSpec("P")


class AsyncIntentHandle:
    """`IntentHandle` for an event loop."""

    def __init__(self, handle: IntentHandle) -> None:
        self.sync = handle

    @property
    def id(self) -> IntentId:
        return self.sync.id

    def snapshot(self) -> Snapshot:
        return self.sync.snapshot()

    async def watch(self, timeout_s: float | None = None) -> AsyncIterator[Snapshot]:
        """As `IntentHandle.watch`; cancelling takes effect within half a second."""
        snapshots = self.sync.watch(timeout_s, BEAT_S)
        last: Snapshot | None = None
        while (snapshot := await asyncio.to_thread(next, snapshots, None)) is not None:
            if snapshot != last:
                yield snapshot
            last = snapshot

    async def wait(self, timeout_s: float | None = None) -> Outcome:
        snapshot = self.sync.snapshot()
        async for snapshot in self.watch(timeout_s):  # noqa: B007  the last one counts
            pass
        return self.sync.outcome(snapshot)

    async def cancel(self) -> None:
        await asyncio.to_thread(self.sync.cancel)

    async def close_intake(self) -> None:
        await asyncio.to_thread(self.sync.close_intake)

    async def release(self) -> None:
        await asyncio.to_thread(self.sync.release)

    async def approve(self) -> None:
        await asyncio.to_thread(self.sync.approve)

    async def deny(self, reason: str) -> None:
        await asyncio.to_thread(self.sync.deny, reason)

    async def set_priority(self, priority: int) -> None:
        await asyncio.to_thread(self.sync.set_priority, priority)


def _publishing(
    publish: Callable[Concatenate[TransferClient, P], IntentHandle],
) -> Callable[Concatenate[AsyncTransferClient, P], Coroutine[Any, Any, AsyncIntentHandle]]:
    @wraps(publish)
    async def published(client: AsyncTransferClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIntentHandle:
        handle = await asyncio.to_thread(publish, client.sync, *args, **kwargs)
        await asyncio.to_thread(handle.snapshot)  # what was said of a known key is read here, not in the loop later
        return AsyncIntentHandle(handle)

    return published


class AsyncTransferClient:
    """`TransferClient` for an event loop: the same arguments and errors; blocking calls run in threads."""

    def __init__(
        self, settings: Settings | None = None, *, site: str | None = None, requester: str | None = None
    ) -> None:
        self.sync = TransferClient(settings, site=site, requester=requester)

    publish = _publishing(TransferClient.publish)
    remove = _publishing(TransferClient.remove)

    async def intent(self, intent: str) -> AsyncIntentHandle:
        return AsyncIntentHandle(await asyncio.to_thread(self.sync.intent, intent))

    async def close(self) -> None:
        await asyncio.to_thread(self.sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
