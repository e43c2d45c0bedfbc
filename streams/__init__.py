"""transfer2go: files, objects and entries across sites on a replicated log. `from streams import TransferClient` asks.

What is offered here is loaded when first used: importing `streams` costs nothing and needs no broker library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streams.client.intent_snapshot import Arrivals, Snapshot, Unfinished
    from streams.client.producer import IntentHandle, Outcome, TransferClient
    from streams.client.producer_async import AsyncIntentHandle, AsyncTransferClient
    from streams.consuming.checkpoint import Checkpoint
    from streams.consuming.stream import EventStream
    from streams.core.selectors import Kind, Selector
    from streams.errors import Transfer2goError
    from streams.settings import Settings, load_settings

_WHERE = {
    "Arrivals": "client.intent_snapshot",
    "AsyncIntentHandle": "client.producer_async",
    "AsyncTransferClient": "client.producer_async",
    "Checkpoint": "consuming.checkpoint",
    "EventStream": "consuming.stream",
    "IntentHandle": "client.producer",
    "Kind": "core.selectors",
    "Outcome": "client.producer",
    "Selector": "core.selectors",
    "Settings": "settings",
    "Snapshot": "client.intent_snapshot",
    "Transfer2goError": "errors",
    "TransferClient": "client.producer",
    "Unfinished": "client.intent_snapshot",
    "load_settings": "settings",
}

__all__ = [
    "Arrivals",
    "AsyncIntentHandle",
    "AsyncTransferClient",
    "Checkpoint",
    "EventStream",
    "IntentHandle",
    "Kind",
    "Outcome",
    "Selector",
    "Settings",
    "Snapshot",
    "Transfer2goError",
    "TransferClient",
    "Unfinished",
    "load_settings",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'streams' has no attribute {name!r}")
    return getattr(import_module(f"streams.{_WHERE[name]}"), name)
